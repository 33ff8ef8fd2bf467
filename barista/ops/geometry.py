"""Shapes as primitives see them, convolutions' apart."""

from __future__ import annotations

import dataclasses

import numpy as np

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
