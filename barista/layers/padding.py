"""Layers that pick elements axis by axis: Pad and Take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import Lookup, LookupGeometry, Rearrange, StridedGeometry
from ..proto.caffe_pb2 import PadParameter
from .base import Bottoms, Layer, Tops, register


class _Picking(Layer):
    """A top whose elements are those of the bottom at places that its parameters give."""

    _pick: Lookup | Rearrange

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._pick.forward(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._pick.backward(top[0].grad, bottom[0].grad)


@register("Pad")
class Pad(_Picking):
    """The bottom with elements added before and behind each axis; negative numbers cut off, before others add.

    CONSTANT adds `value`, EDGE the outermost element, REFLECT the elements within, mirrored at the outermost (again and
    again where there are too few), WRAP those of the other end.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        param, shape = self.param.pad_param, bottom[0].shape
        begin, end = tuple(param.begin), tuple(param.end)
        if not len(begin) == len(end) == len(shape):
            raise self.error(f"has {len(begin)} numbers in begin and {len(end)} in end; give one for each of the "
                             f"{len(shape)} axes of the bottom {shape}", NetError)
        # A top that is too large is refused before there are tables of its size.
        top[0].reshape(*(max(sum(numbers), 0) for numbers in zip(shape, begin, end, strict=True)))
        for axis, size in enumerate(shape):
            if max(0, -begin[axis]) + max(0, -end[axis]) > size:
                raise self.error(f"begin {begin[axis]} and end {end[axis]} cut more off axis {axis} than its {size} "
                                 "elements")
        sizes = tuple(size + before + behind for size, before, behind in zip(shape, begin, end, strict=True))
        top[0].reshape(*sizes)
        self._spreads = param.mode == PadParameter.CONSTANT and param.value == 0 and min((*begin, *end), default=0) >= 0
        if self._spreads:
            # Read backwards, a cut of the top: zeros around what was cut out are what its gradient is.
            strides = StridedGeometry.strides_of(sizes)
            offset = sum(pad * stride for pad, stride in zip(begin, strides, strict=True))
            self._pick = self.ops.rearrange(StridedGeometry(shape, strides, offset, top[0].count))
        else:
            tables = tuple(self._table(*numbers) for numbers in zip(range(len(shape)), shape, begin, end, strict=True))
            self._pick = self.ops.lookup(LookupGeometry(shape, tables, param.value))

    def _table(self, axis: int, size: int, begin: int, end: int) -> Sequence[int]:
        """Which element of an axis each of the top's takes; -1 for none."""
        first, stop = max(0, -begin), size - max(0, -end)
        before, kept, behind = max(0, begin), stop - first, max(0, end)
        if not before and not behind:
            return range(first, stop)
        mode = self.param.pad_param.mode
        if mode == PadParameter.CONSTANT:
            return (*(-1,) * before, *range(first, stop), *(-1,) * behind)
        if not kept:
            raise self.error(f"has nothing on axis {axis} to continue into the padding of {before} and {behind}")
        places = range(-before, kept + behind)
        if mode == PadParameter.EDGE:
            return [first + min(max(place, 0), kept - 1) for place in places]
        if mode == PadParameter.WRAP:
            return [first + place % kept for place in places]
        period = max(1, 2 * (kept - 1))
        return [first + min(place % period, -place % period) for place in places]

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if self._spreads:
            self._pick.backward(bottom[0].value, top[0].value)
        else:
            super().forward(bottom, top)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if self._spreads and propagate_down[0]:
            self._pick.forward(top[0].grad, bottom[0].grad)
        else:
            super().backward(top, propagate_down, bottom)


@register("Take")
class Take(_Picking):
    """Elements along an axis by number, in any order and several times; negative numbers count from the end.

    The axis is replaced by those of `shape`, or by one of as many elements as there are numbers; with `scalar` it goes.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        param, shape = self.param.take_param, bottom[0].shape
        axis = self.axis(bottom[0], param.axis)
        index = list(param.index)
        sizes = () if param.scalar else tuple(param.shape) or (len(index),)
        count = math.prod(sizes)
        if count != len(index):
            raise self.error(f"has {len(index)} numbers for the shape {sizes}, which takes {count}", NetError)
        beyond = [number for number in index if not -shape[axis] <= number < shape[axis]]
        if beyond:
            raise self.error(f"takes element {beyond[0]} of axis {axis}, which has {shape[axis]}; give "
                             f"{-shape[axis]} to {shape[axis] - 1}")
        tables: list[Sequence[int]] = [range(size) for size in shape]
        tables[axis] = [number % shape[axis] for number in index]
        top[0].reshape(*shape[:axis], *sizes, *shape[axis + 1:])
        self._pick = self.ops.lookup(LookupGeometry(shape, tuple(tables)))
