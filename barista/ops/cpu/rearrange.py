"""Elements in other places: Rearrange, and Unfold, the columns of a convolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...gemm.shapes import ConvolutionGeometry
from ..base import Rearrange, StridedGeometry, Unfold
from ..columns import Chunk, Columns
from .threads import Threads

Array = npt.NDArray[Any]


class CpuRearrange(Rearrange):
    """Copies between a tensor and a strided view of another."""

    space = HOST

    def __init__(self, geometry: StridedGeometry, threads: Threads) -> None:
        merged = geometry.merged()
        self._geometry = merged
        self._threads = threads
        self._item = math.prod(merged.sizes[1:])
        self._repeats = tuple(axis for axis, stride in enumerate(merged.strides) if stride == 0)

    def _view(self, flat: Array) -> Array:
        """Where y lies in the flat x; repeated axes are of size 1."""
        g = self._geometry
        sizes = tuple(1 if stride == 0 else size for size, stride in zip(g.sizes, g.strides, strict=True))
        return np.lib.stride_tricks.as_strided(flat[g.offset:], sizes, [s * flat.itemsize for s in g.strides])

    def forward(self, x: Tensor, y: Tensor) -> None:
        view, result = self._view(x.read(HOST).reshape(-1)), y.write(HOST).reshape(self._geometry.sizes)
        source = np.broadcast_to(view, result.shape)
        self._threads.spread(lambda a, b, _: np.copyto(result[a:b], source[a:b]), len(result), self._item)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        gradient, result = dy.read(HOST).reshape(self._geometry.sizes), dx.write(HOST).reshape(-1)
        if not self._geometry.is_whole:
            result[...] = 0
        target = self._view(result)
        if 0 in self._repeats:
            gradient.sum(axis=self._repeats, keepdims=True, out=target)
            return

        def work(start: int, stop: int, worker: int) -> None:
            if self._repeats:
                gradient[start:stop].sum(axis=self._repeats, keepdims=True, out=target[start:stop])
            else:
                np.copyto(target[start:stop], gradient[start:stop])

        self._threads.spread(work, len(gradient), self._item)


class CpuUnfold(Unfold):
    """Columns gathered and folded image by image."""

    space = HOST

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        self._geometry = geometry
        self._threads = threads
        self._columns = [Columns(geometry, dtype, images_last=False) for _ in range(threads.count)]
        self._item = geometry.depth * geometry.pixels

    def _count_workspace(self) -> None:
        self.workspace_bytes = sum(columns.nbytes for columns in self._columns)

    def _image(self, number: int) -> Chunk:
        return Chunk(number, number + 1, 0, self._geometry.output[0])

    def forward(self, x: Tensor, y: Tensor) -> None:
        g = self._geometry
        source, result = x.read(HOST).reshape(g.x_shape), y.write(HOST).reshape(g.batch, self._item)

        def work(start: int, stop: int, worker: int) -> None:
            for number in range(start, stop):
                columns = self._columns[worker].unroll(source, self._image(number), result[number])
                if g.is_pointwise:  # a view of the image
                    np.copyto(result[number], columns.reshape(-1))

        self._threads.spread(work, g.batch, self._item)
        self._count_workspace()

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        g = self._geometry
        gradient, result = dy.read(HOST).reshape(g.batch, self._item), dx.write(HOST).reshape(g.x_shape)

        def work(start: int, stop: int, worker: int) -> None:
            for number in range(start, stop):
                self._columns[worker].fold(gradient[number], self._image(number), result)

        self._threads.spread(work, g.batch, self._item)
        self._count_workspace()
