"""Layers that copy elements to other places: Crop, Expand, Permute, StridedSlice and Tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import Shape, StridedGeometry
from .base import Bottoms, Layer, Tops, exactly, register


def broadcast(first: Shape, second: Shape) -> Shape | None:
    """The shape to which NumPy broadcasts two shapes, or None where they do not fit."""
    axes = max(len(first), len(second))
    pairs = list(zip((1,) * (axes - len(first)) + first, (1,) * (axes - len(second)) + second, strict=True))
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        return None
    return tuple(b if a == 1 else a for a, b in pairs)


def expansion(shape: Shape, full: Shape) -> StridedGeometry:
    """How a tensor of `shape` is read to fill the shape `full` to which it is broadcast."""
    missing = len(full) - len(shape)
    strides = (0,) * missing + tuple(0 if size == 1 != wanted else stride for size, wanted, stride in zip(
        shape, full[missing:], StridedGeometry.strides_of(shape), strict=True))
    return StridedGeometry(full, strides, 0, math.prod(shape))


class Rearrangement(Layer):
    """A top whose elements are read from the first bottom by strides."""

    def layout(self, bottom: Bottoms) -> tuple[Shape, StridedGeometry]:
        """Shape of the top, and where its elements lie in the bottom."""
        raise NotImplementedError

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        shape, geometry = self.layout(bottom)
        top[0].reshape(*shape)
        self._rearrange = self.ops.rearrange(geometry)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._rearrange.forward(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._rearrange.backward(top[0].grad, bottom[0].grad)


@register("Crop")
class Crop(Rearrangement):
    """The first bottom cut to the second's sizes from `axis` on, beginning at `offset`; outside the gradient is 0.

    Caffe: the axes before `axis` keep the first bottom's sizes; one offset counts for all axes; the second bottom gives
    its shape alone, and its gradient is 0.
    """

    bottoms = exactly(2)

    def layout(self, bottom: Bottoms) -> tuple[Shape, StridedGeometry]:
        shape, like = bottom[0].shape, bottom[1].shape
        start = self.axis(bottom[0], self.param.crop_param.axis)
        given, axes = list(self.param.crop_param.offset), len(shape) - start
        if len(given) not in (0, 1, axes):
            raise self.error(f"has {len(given)} offsets; give one for all axes, or one for each of the {axes} from "
                             f"axis {start} on of the bottom {shape}", NetError)
        if len(like) < len(shape):
            raise self.error(f"cuts the bottom {shape} on its axes {start} to {len(shape) - 1}; the second bottom "
                             f"{self.param.bottom[1]}, which gives the sizes, has only {len(like)} axes, shape {like}")
        offsets = [0] * start + (given * axes if len(given) == 1 else given or [0] * axes)
        sizes = (*shape[:start], *like[start:len(shape)])
        for axis, (size, offset, whole) in enumerate(zip(sizes, offsets, shape, strict=True)):
            if offset + size > whole:
                raise self.error(f"the crop of axis {axis} takes {size} elements from offset {offset} on, beyond the "
                                 f"bottom's {whole}; lower the offset, or crop to a smaller blob")
        strides = StridedGeometry.strides_of(shape)
        offset = sum(a * stride for a, stride in zip(offsets, strides, strict=True))
        return sizes, StridedGeometry(sizes, strides, offset, bottom[0].count)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        super().backward(top, propagate_down, bottom)
        if propagate_down[1]:
            bottom[1].grad.clear()


@register("Expand")
class Expand(Rearrangement):
    """The bottom repeated along axes of size 1 until it has the sizes that NumPy's broadcasting with `shape` gives.

    Axes are compared from the last on; a 1 in `shape` keeps the bottom's size.  The gradients of copies are summed.
    """

    def layout(self, bottom: Bottoms) -> tuple[Shape, StridedGeometry]:
        given = tuple(self.param.expand_param.shape)
        full = broadcast(bottom[0].shape, given)
        if full is None or any(size < 0 for size in given):
            raise self.error(f"cannot bring the bottom {bottom[0].shape} to shape {given}: from the last axis on, "
                             "sizes must be equal, or one of them 1")
        return full, expansion(bottom[0].shape, full)


@register("Permute")
class Permute(Rearrangement):
    """The axes in another order, as in SSD: axis i of the top is axis order[i] of the bottom; those left out follow."""

    def layout(self, bottom: Bottoms) -> tuple[Shape, StridedGeometry]:
        shape, given = bottom[0].shape, list(self.param.permute_param.order)
        if len(set(given)) != len(given) or any(axis >= len(shape) for axis in given):
            raise self.error(f"order {given} must name axes of the bottom {shape}, 0 to {len(shape) - 1}, each once",
                             NetError)
        order = [*given, *(axis for axis in range(len(shape)) if axis not in given)]
        strides = StridedGeometry.strides_of(shape)
        sizes = tuple(shape[axis] for axis in order)
        return sizes, StridedGeometry(sizes, tuple(strides[axis] for axis in order), 0, bottom[0].count)


@register("StridedSlice")
class StridedSlice(Rearrangement):
    """Every step-th element of some axes from `start` on and before `end`; a negative step runs backwards.

    Negative starts and ends count from the end of an axis; what lies beyond it is cut to it, as in Python's slices.
    """

    def layout(self, bottom: Bottoms) -> tuple[Shape, StridedGeometry]:
        param, shape = self.param.strided_slice_param, bottom[0].shape
        starts, ends = list(param.start), list(param.end)
        axes, steps = list(param.axis) or list(range(len(starts))), list(param.step) or [1] * len(starts)
        if not len(starts) == len(ends) == len(axes) == len(steps):
            raise self.error(f"has {len(axes)} axes, {len(starts)} starts, {len(ends)} ends and {len(steps)} steps; "
                             "give as many of each", NetError)
        axes = [self.axis(bottom[0], axis) for axis in axes]
        if len(set(axes)) != len(axes) or 0 in steps:
            raise self.error(f"axes {axes} must be named once each, and steps {steps} must not be 0", NetError)
        sizes, strides, offset = list(shape), list(StridedGeometry.strides_of(shape)), 0
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            first, stop, _ = slice(start, end, step).indices(shape[axis])
            sizes[axis] = len(range(first, stop, step))
            offset += first * strides[axis] if sizes[axis] else 0
            strides[axis] *= step
        # An axis of one element takes no step, whatever its stride.
        steps_taken = tuple(stride if size != 1 else 0 for size, stride in zip(sizes, strides, strict=True))
        return tuple(sizes), StridedGeometry(tuple(sizes), steps_taken, offset, bottom[0].count)


@register("Tile")
class Tile(Rearrangement):
    """The bottom `tiles` times one behind the other along `axis`; the gradients of the copies are summed."""

    def layout(self, bottom: Bottoms) -> tuple[Shape, StridedGeometry]:
        param = self.param.tile_param
        if param.tiles < 1:
            raise self.error(f"tiles={param.tiles}; give how many copies there are to be, 1 or more", NetError)
        shape, axis = bottom[0].shape, self.axis(bottom[0], param.axis)
        strides = StridedGeometry.strides_of(shape)
        geometry = StridedGeometry((*shape[:axis], param.tiles, *shape[axis:]), (*strides[:axis], 0, *strides[axis:]),
                                   0, bottom[0].count)
        return (*shape[:axis], param.tiles * shape[axis], *shape[axis + 1:]), geometry
