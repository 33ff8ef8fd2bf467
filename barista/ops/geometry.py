"""Shapes as primitives see them, convolutions' apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ..errors import ShapeError

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class PoolingGeometry:
    """Pooling of x(N, C, H, W) to y(N, C, *output); tuples are (height, width).

    Caffe: the window that starts in the padding behind the input is dropped, and an
    average divides by the window's size clipped to the padded input.
    """

    batch: int
    channels: int
    input: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    output: tuple[int, int]

    @property
    def x_shape(self) -> Shape:
        """(N, C, H, W)"""
        return (self.batch, self.channels, *self.input)

    @property
    def y_shape(self) -> Shape:
        """(N, C, Ho, Wo)"""
        return (self.batch, self.channels, *self.output)


@dataclasses.dataclass(frozen=True)
class AxisGeometry:
    """A tensor seen as (outer, axis, inner) around the one axis that matters."""

    outer: int
    axis: int
    inner: int

    @classmethod
    def of(cls, shape: Shape, axis: int, axes: int = 1) -> AxisGeometry:
        """Fold `shape` around `axes` axes beginning at `axis`."""
        return cls(int(np.prod(shape[:axis], dtype=np.int64)),
                   int(np.prod(shape[axis:axis + axes], dtype=np.int64)),
                   int(np.prod(shape[axis + axes:], dtype=np.int64)))

    @property
    def shape(self) -> Shape:
        """(outer, axis, inner)"""
        return (self.outer, self.axis, self.inner)


@dataclasses.dataclass(frozen=True)
class StridedGeometry:
    """A tensor y(sizes) that is read from a flat x of `count` elements.

    y[i, j, ...] = x[offset + i * strides[0] + j * strides[1] + ...].  A stride of 0 repeats; repeats apart, no element
    of x is read twice.  A negative stride reads backwards.

    Parameters
    ----------
    sizes : of y
    strides, offset, count : in elements of x

    Raises
    ------
    ShapeError : it reaches beyond x
    """

    sizes: Shape
    strides: Shape
    offset: int
    count: int

    def __post_init__(self) -> None:
        ways = [(size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True)]
        first = self.offset + sum(way for way in ways if way < 0)
        last = self.offset + sum(way for way in ways if way > 0)
        if min(self.sizes, default=1) > 0 and not 0 <= first <= last < self.count:
            raise ShapeError(f"a view of sizes {self.sizes} with strides {self.strides} reads the elements "
                             f"{first} to {last} of {self.count}")

    @staticmethod
    def strides_of(shape: Shape) -> Shape:
        """Strides of a whole tensor of `shape` in C order."""
        return tuple(math.prod(shape[axis + 1:]) for axis in range(len(shape)))

    @property
    def is_whole(self) -> bool:
        """Whether every element of x is read."""
        return math.prod(size for size, stride in zip(self.sizes, self.strides, strict=True) if stride) == self.count

    def merged(self) -> StridedGeometry:
        """The same with as few axes as possible, at least one: neighbours that lie as one axis are one."""
        axes: list[tuple[int, int]] = []
        for size, stride in zip(self.sizes, self.strides, strict=True):
            if size == 1:
                continue
            if axes and axes[-1][1] == size * stride:
                axes[-1] = (axes[-1][0] * size, stride)
            else:
                axes.append((size, stride))
        axes = axes or [(1, 1)]
        return StridedGeometry(tuple(size for size, _ in axes), tuple(stride for _, stride in axes), self.offset,
                               self.count)


@dataclasses.dataclass(frozen=True)
class LookupGeometry:
    """Elements picked axis by axis: y[i, j, ...] = x[tables[0][i], tables[1][j], ...].

    Parameters
    ----------
    sizes : of x
    tables : one an axis: the index that each element of y takes, or -1 where it takes `fill`; the range of an axis
        leaves it as it is
    fill : number of the elements that take none
    """

    sizes: Shape
    tables: tuple[Sequence[int], ...]
    fill: float = 0.0

    @property
    def y_shape(self) -> Shape:
        """Sizes of y."""
        return tuple(len(table) for table in self.tables)


@dataclasses.dataclass(frozen=True)
class WindowGeometry:
    """Windows over planes x(planes, *input) that give y(planes, *output); each tuple has a number an axis.

    Parameters
    ----------
    stride, dilation : how far windows, and the elements of one, lie apart
    pad_begin, pad_end : what lies around the input
    counts_pad : whether a mean divides by the elements in the padding too
    column_major : whether numbers of maxima run along the first axis of a plane first
    """

    planes: int
    input: Shape
    kernel: Shape
    stride: Shape
    dilation: Shape
    pad_begin: Shape
    pad_end: Shape
    output: Shape
    counts_pad: bool = False
    column_major: bool = False

    @property
    def x_shape(self) -> Shape:
        """(planes, *input)"""
        return (self.planes, *self.input)

    @property
    def y_shape(self) -> Shape:
        """(planes, *output)"""
        return (self.planes, *self.output)


@dataclasses.dataclass(frozen=True)
class Taps:
    """How an axis is resampled: each output is a weighted sum of a few inputs.

    Parameters
    ----------
    size : of the input axis
    indices : for each output the inputs that it takes, as many for each
    weights : what they are multiplied by
    """

    size: int
    indices: tuple[Shape, ...]
    weights: tuple[tuple[float, ...], ...]

    @property
    def outputs(self) -> int:
        """Size of the output axis."""
        return len(self.indices)

    @classmethod
    def linear(cls, size: int, start: int, span: int, outputs: int) -> Taps:
        """Linear interpolation of the inputs [start, start + span), whose first and last become the output's.

        A single output is the first input.
        """
        if span == outputs:
            return cls(size, tuple((start + i,) for i in range(span)), ((1.0,),) * span)
        steps = max(1, outputs - 1)
        places = [divmod(output * (span - 1), steps) for output in range(outputs)] if outputs > 1 else [(0, 0)]
        return cls(size, tuple((start + i, start + min(i + 1, span - 1)) for i, _ in places),
                   tuple((1 - rest / steps, rest / steps) for _, rest in places))
