"""Convolution by im2col and GEMM, in chunks that stay in the cache.

A chunk is a few images, or a few output rows of one image (see `columns`), so that each
pass is one product a group with a long common dimension.  The unrolled matrix never costs
more than `batching.CHUNK_COLUMN_BYTES` a thread, whatever the layer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...gemm import batching
from ...gemm.shapes import ConvolutionGeometry
from ..base import Convolution
from ..columns import Chunk, Columns
from .threads import Threads

Array = npt.NDArray[Any]


class _Worker:
    """The buffers of one thread: columns, the product, framed inputs and partial weight gradients."""

    def __init__(self, geometry: ConvolutionGeometry, positions: int, images_last: bool,
                 dtype: np.dtype[Any]) -> None:
        g = geometry
        self.chunks = Columns(g, dtype, images_last)
        self.columns = np.empty(g.group * g.depth * positions, dtype)
        self.product = np.empty(g.out_channels * positions, dtype)
        self.grad_weight = np.empty((g.group, g.out_channels // g.group, g.depth), dtype)
        self.partial = np.empty_like(self.grad_weight)

    @property
    def nbytes(self) -> int:
        return self.chunks.nbytes + sum(a.nbytes for a in (self.columns, self.product, self.grad_weight,
                                                           self.partial))


class CpuConvolution(Convolution):
    """The three passes of a convolution over any number of spatial axes."""

    space = HOST

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        g = self.geometry = geometry
        self._dtype = dtype
        self._threads = threads
        images, rows = batching.chunk_of(g, threads.count, dtype.itemsize)
        images_last = images >= batching.IMAGES_INNERMOST
        self._chunks = [Chunk(n, min(n + images, g.batch), r, min(r + rows, g.output[0]))
                        for n in range(0, g.batch, images) for r in range(0, g.output[0], rows)]
        # Row chunks of one image overlap in grad_input, so one thread takes whole images.
        self._by_image = [[c for c in self._chunks if c.n0 == n] for n in range(0, g.batch, images)]
        positions = images * rows * math.prod(g.output[1:])
        self._workers = [_Worker(g, positions, images_last, dtype)
                         for _ in range(min(threads.count, max(1, len(self._chunks))))]
        for worker in self._workers:
            for chunk in self._chunks:
                worker.chunks.reserve(chunk)
        self._turned = self._make_turned()
        self.variant = (f"im2col + GEMM, {images} image(s) x {rows} row(s) a chunk"
                        + (", grad_input by turned weights" if self._turned else ""))
        self.workspace_bytes = (sum(worker.nbytes for worker in self._workers)
                                + (self._turned.workspace_bytes if self._turned else 0))

    def _make_turned(self) -> CpuConvolution | None:
        """The convolution of dy with turned weights that gives dx, where that is the better way."""
        turned = batching.turned(self.geometry)
        return None if turned is None else _ForwardOnly(turned, self._dtype, self._threads)

    # ---- passes -----------------------------------------------------------------------------

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        g = self.geometry
        source = x.read(HOST).reshape(g.x_shape)
        weights = w.read(HOST).reshape(g.group, g.out_channels // g.group, g.depth)
        result = y.write(HOST).reshape(g.y_shape)
        self._forward(source, weights, None if bias is None else bias.read(HOST), result, rectify)

    def _forward(self, source: Array, weights: Array, bias: Array | None, result: Array,
                 rectify: bool = False) -> None:
        g = self.geometry
        # Positions have one axis more than the image: the chunk's images.
        shift = None if bias is None else bias.reshape(-1, *(1 for _ in g.output), 1)

        def run(index: int, number: int) -> None:
            chunk, worker = self._chunks[index], self._workers[number]
            columns = worker.chunks.unroll(source, chunk, worker.columns)
            product = worker.product[:g.out_channels * columns.shape[2]]
            np.matmul(weights, columns, out=product.reshape(g.group, -1, columns.shape[2]))
            out = worker.chunks.ordered(result[chunk.n0:chunk.n1, :, chunk.r0:chunk.r1])
            product = product.reshape(out.shape)
            if shift is not None:
                np.add(product, shift, out=product)  # in place: on the way to `out` it takes 2 to 10 times as long
            if rectify:
                np.maximum(product, 0, out=product)
            np.copyto(out, product)

        self._threads.run(run, len(self._chunks))

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        g = self.geometry
        source = x.read(HOST).reshape(g.x_shape)
        gradient = dy.read(HOST).reshape(g.y_shape)
        array, fresh = dw.accumulate(HOST)
        total = array.reshape(g.group, g.out_channels // g.group, g.depth)
        touched = [False] * len(self._workers)

        def run(index: int, number: int) -> None:
            chunk, worker = self._chunks[index], self._workers[number]
            columns = worker.chunks.unroll(source, chunk, worker.columns).swapaxes(1, 2)
            rows = worker.chunks.gather(gradient, chunk, worker.product).reshape(g.group, g.out_channels // g.group, -1)
            if touched[number]:
                np.matmul(rows, columns, out=worker.partial)
                np.add(worker.grad_weight, worker.partial, out=worker.grad_weight)
            else:
                np.matmul(rows, columns, out=worker.grad_weight)
                touched[number] = True

        self._threads.run(run, len(self._chunks))
        for worker, used in zip(self._workers, touched, strict=True):
            if used and fresh:
                np.copyto(total, worker.grad_weight)
            elif used:
                np.add(total, worker.grad_weight, out=total)
            fresh &= not used
        if fresh:
            total.fill(0)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        g = self.geometry
        gradient = dy.read(HOST).reshape(g.y_shape)
        weights = w.read(HOST).reshape(g.group, g.out_channels // g.group, g.depth)
        result = dx.write(HOST).reshape(g.x_shape)
        if self._turned is not None:
            per_tap = weights.reshape(g.group, g.out_channels // g.group, g.in_channels // g.group, *g.kernel)
            turned = np.flip(per_tap.swapaxes(1, 2), tuple(range(3, per_tap.ndim)))
            self._turned._forward(gradient, turned.reshape(g.group, g.in_channels // g.group, -1), None, result)
            return
        transposed = weights.swapaxes(1, 2)

        def run(index: int, number: int) -> None:
            for chunk in self._by_image[index]:
                self._scatter(gradient, transposed, result, chunk, self._workers[number])

        self._threads.run(run, len(self._by_image))

    def _scatter(self, gradient: Array, weights: Array, result: Array, chunk: Chunk, worker: _Worker) -> None:
        """Add the chunk's part of the input gradient; the first chunk of an image overwrites."""
        g = self.geometry
        rows = worker.chunks.gather(gradient, chunk, worker.product).reshape(g.group, g.out_channels // g.group, -1)
        columns = worker.columns[:g.group * g.depth * rows.shape[2]]
        np.matmul(weights, rows, out=columns.reshape(g.group, g.depth, -1))
        worker.chunks.fold(columns, chunk, result)


class _ForwardOnly(CpuConvolution):
    """A convolution whose forward pass is another's grad_input."""

    def _make_turned(self) -> None:
        return None
