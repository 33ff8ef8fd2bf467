"""Layers that copy elements to other places: Crop, Permute and Tile."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import Shape, StridedGeometry
from .base import Bottoms, Layer, Tops, exactly, register


class _Rearrangement(Layer):
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
class Crop(_Rearrangement):
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


@register("Permute")
class Permute(_Rearrangement):
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


@register("Tile")
class Tile(_Rearrangement):
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
