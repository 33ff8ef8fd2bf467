"""Convolution by im2col and GEMM, in chunks that stay in the cache.

A chunk is a few images, or a few output rows of one image.  Its columns are gathered
from a zero-framed copy of the input, channels first, so that each pass is one product a
group with a long common dimension.  The unrolled matrix never costs more than
`COLUMN_BYTES` a thread, whatever the layer.

Where a chunk holds several images they become the innermost axis: the gather then moves
runs of ``images * width`` elements instead of single short rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...gemm.shapes import ConvolutionGeometry
from ..base import Convolution
from .threads import Threads

Array = npt.NDArray[Any]

# Columns of one chunk and thread: about the L2 cache of a core (measured, benchmarks/README.md).
COLUMN_BYTES = 1 << 20
# Images a chunk from which on they are the innermost axis (measured).
IMAGES_INNERMOST = 4
# How much more arithmetic grad_input may take as a convolution with turned weights, which gathers,
# rather than as a product that is scattered with one addition a tap (measured).
TURNED_LIMIT = 1.5
# Rows that the product of turned weights must have at least: BLAS is slow on a handful.
TURNED_ROWS = 8


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Images [n0, n1) and output rows [r0, r1) along the first spatial axis."""

    n0: int
    n1: int
    r0: int
    r1: int

    @property
    def images(self) -> int:
        return self.n1 - self.n0

    @property
    def rows(self) -> int:
        return self.r1 - self.r0


class _Worker:
    """The buffers of one thread: columns, the product, framed inputs and partial weight gradients."""

    def __init__(self, geometry: ConvolutionGeometry, positions: int, dtype: np.dtype[Any]) -> None:
        g = geometry
        self.columns = np.empty(g.group * g.depth * positions, dtype)
        self.product = np.empty(g.out_channels * positions, dtype)
        self.grad_weight = np.empty((g.group, g.out_channels // g.group, g.depth), dtype)
        self.partial = np.empty_like(self.grad_weight)
        # By shape: the zero frame of each must stay where it is.
        self.framed: dict[tuple[int, ...], Array] = {}

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.columns, self.product, self.grad_weight, self.partial,
                                      *self.framed.values()))


class CpuConvolution(Convolution):
    """The three passes of a convolution over any number of spatial axes."""

    space = HOST

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        g = self.geometry = geometry
        self._dtype = dtype
        self._threads = threads
        images, rows = self._chunk_size()
        self._images_last = images >= IMAGES_INNERMOST
        self._chunks = [_Chunk(n, min(n + images, g.batch), r, min(r + rows, g.output[0]))
                        for n in range(0, g.batch, images) for r in range(0, g.output[0], rows)]
        # Row chunks of one image overlap in grad_input, so one thread takes whole images.
        self._by_image = [[c for c in self._chunks if c.n0 == n] for n in range(0, g.batch, images)]
        positions = images * rows * math.prod(g.output[1:])
        self._workers = [_Worker(g, positions, dtype) for _ in range(min(threads.count, max(1, len(self._chunks))))]
        for worker in self._workers:
            for chunk in self._chunks:
                self._framed(chunk, worker)
        self._turned = self._make_turned()
        self.variant = (f"im2col + GEMM, {images} image(s) x {rows} row(s) a chunk"
                        + (", grad_input by turned weights" if self._turned else ""))
        self.workspace_bytes = (sum(worker.nbytes for worker in self._workers)
                                + (self._turned.workspace_bytes if self._turned else 0))

    def _chunk_size(self) -> tuple[int, int]:
        """Images and output rows a chunk, so that its columns fit and every thread has as many chunks."""
        g = self.geometry
        row_bytes = max(1, g.group * g.depth * math.prod(g.output[1:]) * self._dtype.itemsize)
        image_bytes = row_bytes * g.output[0]
        if image_bytes > COLUMN_BYTES:
            return 1, max(1, min(g.output[0], COLUMN_BYTES // row_bytes))
        pieces = max(1, -(-g.batch * image_bytes // COLUMN_BYTES))
        pieces = -(-pieces // self._threads.count) * self._threads.count
        return max(1, -(-g.batch // pieces)), g.output[0]

    def _make_turned(self) -> CpuConvolution | None:
        """The convolution of dy with turned weights that gives dx, where that is the better way."""
        g = self.geometry
        pad = tuple(e - 1 - p for e, p in zip(g.extent, g.pad, strict=True))
        if max(g.stride) > 1 or min(pad) < 0 or g.is_pointwise:
            return None
        turned = ConvolutionGeometry(g.batch, g.out_channels, g.in_channels, g.output, g.kernel, g.stride, pad,
                                     g.dilation, g.group)
        if turned.macs > TURNED_LIMIT * g.macs or g.in_channels // g.group < TURNED_ROWS:
            return None
        return _ForwardOnly(turned, self._dtype, self._threads)

    # ---- gathering and scattering -----------------------------------------------------------

    def _ordered(self, array: Array) -> Array:
        """View of (images, channels, *S) as (channels, *S, images), or (channels, images, *S)."""
        return np.moveaxis(array, 0, -1) if self._images_last else array.swapaxes(0, 1)

    def _span(self, rows: int) -> int:
        """Framed input rows that `rows` output rows look at."""
        return (rows - 1) * self.geometry.stride[0] + self.geometry.extent[0]

    def _framed(self, chunk: _Chunk, worker: _Worker) -> Array:
        """The thread's framed input for a chunk, ordered as `_ordered`."""
        g = self.geometry
        sizes = (self._span(chunk.rows), *(i + 2 * p for i, p in zip(g.input[1:], g.pad[1:], strict=True)))
        shape = (g.in_channels, *sizes, chunk.images) if self._images_last else (g.in_channels, chunk.images, *sizes)
        if g.is_pointwise:
            return np.empty(0, self._dtype)
        if shape not in worker.framed:
            worker.framed[shape] = np.zeros(shape, self._dtype)
        return worker.framed[shape]

    def _spatial(self, *slices: slice) -> tuple[slice, ...]:
        """Index of a framed or ordered array by its spatial axes."""
        return (slice(None), *slices) if self._images_last else (slice(None), slice(None), *slices)

    def _inside(self, start: int, stop: int) -> tuple[slice, ...]:
        """Where rows [start, stop) of the frame hold input."""
        g = self.geometry
        rest = (slice(p, p + i) for i, p in zip(g.input[1:], g.pad[1:], strict=True))
        return self._spatial(slice(start, stop), *rest)

    def _window(self, framed: Array, chunk: _Chunk) -> Array:
        """View (C, *kernel, ...positions) of a framed input, without a copy."""
        g = self.geometry
        first = 1 if self._images_last else 2
        spatial = framed.strides[first:first + len(g.kernel)]
        sizes = (chunk.rows, *g.output[1:])
        steps = tuple(s * t for s, t in zip(spatial, g.stride, strict=True))
        taps = tuple(s * d for s, d in zip(spatial, g.dilation, strict=True))
        if self._images_last:
            positions, strides = (*sizes, chunk.images), (*steps, framed.strides[-1])
        else:
            positions, strides = (chunk.images, *sizes), (framed.strides[1], *steps)
        return np.lib.stride_tricks.as_strided(framed, (g.in_channels, *g.kernel, *positions),
                                               (framed.strides[0], *taps, *strides))

    def _rows(self, chunk: _Chunk) -> tuple[int, int, int]:
        """Input rows [start, stop) that the chunk sees, and where they begin in the frame."""
        first = chunk.r0 * self.geometry.stride[0] - self.geometry.pad[0]
        start = max(first, 0)
        stop = min(first + self._span(chunk.rows), self.geometry.input[0])
        return start, max(stop, start), start - first

    def _columns(self, x: Array, chunk: _Chunk, worker: _Worker) -> Array:
        """Columns (group, depth, positions) of the chunk."""
        g = self.geometry
        if g.is_pointwise:
            return self._gathered(x, chunk, worker.columns).reshape(g.group, g.depth, -1)
        framed = self._framed(chunk, worker)
        start, stop, offset = self._rows(chunk)
        end = offset + stop - start
        framed[self._spatial(slice(0, offset))] = 0
        framed[self._spatial(slice(end, None))] = 0
        np.copyto(framed[self._inside(offset, end)], self._ordered(x[chunk.n0:chunk.n1, :, start:stop]))
        window = self._window(framed, chunk)
        columns = worker.columns[:window.size]
        np.copyto(columns.reshape(window.shape), window)
        return columns.reshape(g.group, g.depth, -1)

    def _gathered(self, array: Array, chunk: _Chunk, buffer: Array) -> Array:
        """(channels, positions) of the chunk's part of (N, channels, *O); a view where one image is whole."""
        part = array[chunk.n0:chunk.n1, :, chunk.r0:chunk.r1]
        if chunk.images == 1 and chunk.rows == array.shape[2]:
            return part.reshape(array.shape[1], -1)
        ordered = self._ordered(part)
        gathered = buffer[:ordered.size].reshape(ordered.shape)
        np.copyto(gathered, ordered)
        return gathered.reshape(array.shape[1], -1)

    # ---- passes -----------------------------------------------------------------------------

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor) -> None:
        g = self.geometry
        source = x.read(HOST).reshape(g.x_shape)
        weights = w.read(HOST).reshape(g.group, g.out_channels // g.group, g.depth)
        result = y.write(HOST).reshape(g.y_shape)
        self._forward(source, weights, None if bias is None else bias.read(HOST), result)

    def _forward(self, source: Array, weights: Array, bias: Array | None, result: Array) -> None:
        g = self.geometry
        # Positions have one axis more than the image: the chunk's images.
        shift = None if bias is None else bias.reshape(-1, *(1 for _ in g.output), 1)

        def run(index: int, number: int) -> None:
            chunk, worker = self._chunks[index], self._workers[number]
            columns = self._columns(source, chunk, worker)
            product = worker.product[:g.out_channels * columns.shape[2]]
            np.matmul(weights, columns, out=product.reshape(g.group, -1, columns.shape[2]))
            out = self._ordered(result[chunk.n0:chunk.n1, :, chunk.r0:chunk.r1])
            if shift is None:
                np.copyto(out, product.reshape(out.shape))
            else:
                np.add(product.reshape(out.shape), shift, out=out)

        self._threads.run(run, len(self._chunks))

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        g = self.geometry
        source = x.read(HOST).reshape(g.x_shape)
        gradient = dy.read(HOST).reshape(g.y_shape)
        total = dw.update(HOST).reshape(g.group, g.out_channels // g.group, g.depth)
        touched = [False] * len(self._workers)

        def run(index: int, number: int) -> None:
            chunk, worker = self._chunks[index], self._workers[number]
            columns = self._columns(source, chunk, worker).swapaxes(1, 2)
            rows = self._gathered(gradient, chunk, worker.product).reshape(g.group, g.out_channels // g.group, -1)
            if touched[number]:
                np.matmul(rows, columns, out=worker.partial)
                np.add(worker.grad_weight, worker.partial, out=worker.grad_weight)
            else:
                np.matmul(rows, columns, out=worker.grad_weight)
                touched[number] = True

        self._threads.run(run, len(self._chunks))
        for worker, used in zip(self._workers, touched, strict=True):
            if used:
                np.add(total, worker.grad_weight, out=total)

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

    def _scatter(self, gradient: Array, weights: Array, result: Array, chunk: _Chunk, worker: _Worker) -> None:
        """Add the chunk's part of the input gradient; the first chunk of an image overwrites."""
        g = self.geometry
        rows = self._gathered(gradient, chunk, worker.product).reshape(g.group, g.out_channels // g.group, -1)
        columns = worker.columns[:g.group * g.depth * rows.shape[2]]
        np.matmul(weights, rows, out=columns.reshape(g.group, g.depth, -1))
        target = result[chunk.n0:chunk.n1]
        if g.is_pointwise:
            out = self._ordered(target[:, :, chunk.r0:chunk.r1])
            np.copyto(out, columns.reshape(out.shape))
            return
        framed = self._framed(chunk, worker)
        framed[...] = 0
        window = self._window(framed, chunk)
        parts = columns.reshape(window.shape)
        for tap in np.ndindex(*g.kernel):
            place = window[(slice(None), *tap)]
            np.add(place, parts[(slice(None), *tap)], out=place)
        start, stop, offset = self._rows(chunk)
        inner = framed[self._inside(offset, offset + stop - start)]
        out = self._ordered(target[:, :, start:stop])
        if chunk.r0 == 0:
            target[:, :, stop:] = 0
            np.copyto(out, inner)
        else:
            np.add(out, inner, out=out)
        # What lies outside must be zero again for the next gather.
        self._clear_frame(framed)

    def _clear_frame(self, framed: Array) -> None:
        g = self.geometry
        everything = slice(None)
        for axis, (size, pad) in enumerate(zip(g.input[1:], g.pad[1:], strict=True), start=1):
            if pad:
                framed[self._spatial(*[everything] * axis, slice(0, pad))] = 0
                framed[self._spatial(*[everything] * axis, slice(pad + size, None))] = 0


class _ForwardOnly(CpuConvolution):
    """A convolution whose forward pass is another's grad_input."""

    def _make_turned(self) -> None:
        return None
