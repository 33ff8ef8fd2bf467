"""The columns of a convolution: gathered from images (im2col), and folded back into them (col2im).

A chunk is some images, or some output rows of one.  Its columns are gathered from a zero-framed
copy of the input, channels first, so that each group has one matrix (depth, positions).

Where images are the innermost axis of the positions, the gather moves runs of
``images * width`` elements instead of single short rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gemm.batching import collide
from ..gemm.shapes import ConvolutionGeometry

Array = npt.NDArray[Any]

# Words of an image that are turned at a time where they are first put aside, a little further apart (measured).
ASIDE_WORDS = 4096
_LINE_BYTES = 64


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Images [n0, n1) and output rows [r0, r1) along the first spatial axis."""

    n0: int
    n1: int
    r0: int
    r1: int

    @property
    def images(self) -> int:
        """How many images."""
        return self.n1 - self.n0

    @property
    def rows(self) -> int:
        """How many output rows of each."""
        return self.r1 - self.r0


class Columns:
    """Gathers and folds the chunks of one convolution; each thread has its own.

    Parameters
    ----------
    geometry, dtype : of the convolution
    images_last : whether positions are (rows, *O[1:], images) or (images, rows, *O[1:])
    """

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], images_last: bool) -> None:
        self._geometry = geometry
        self._dtype = dtype
        self._images_last = images_last
        # By shape: the zero frame of each must stay where it is.
        self._frames: dict[tuple[int, ...], Array] = {}
        self._aside = np.empty(0, dtype)

    @property
    def nbytes(self) -> int:
        """Memory of the framed inputs, and of what is put aside."""
        return sum(frame.nbytes for frame in self._frames.values()) + self._aside.nbytes

    def reserve(self, chunk: Chunk) -> None:
        """Make the memory that `chunk` needs, so that nothing is allocated later."""
        if not self._geometry.is_pointwise:
            self._framed(chunk)

    def ordered(self, array: Array) -> Array:
        """View of (images, channels, *S) as (channels, *S, images), or (channels, images, *S)."""
        return np.moveaxis(array, 0, -1) if self._images_last else array.swapaxes(0, 1)

    def unroll(self, x: Array, chunk: Chunk, buffer: Array) -> Array:
        """Gather columns (group, depth, positions) of a chunk of x(N, C, *I) into the flat `buffer`.

        Where the unrolled matrix is the input itself, the result may be a view of it.
        """
        g = self._geometry
        if g.is_pointwise:
            return self.gather(x, chunk, buffer).reshape(g.group, g.depth, -1)
        _, window = self.frame(x, chunk)
        columns = buffer[:window.size]
        np.copyto(columns.reshape(window.shape), window)
        return columns.reshape(g.group, g.depth, -1)

    def frame(self, x: Array, chunk: Chunk) -> tuple[Array, Array]:
        """Put a chunk of x(N, C, *I) into its frame; returns the frame and its window (C, *kernel, ...positions)."""
        framed = self._framed(chunk)
        start, stop, offset = self._rows(chunk)
        end = offset + stop - start
        framed[self._spatial(slice(0, offset))] = 0
        framed[self._spatial(slice(end, None))] = 0
        self._turn(x[chunk.n0:chunk.n1, :, start:stop], framed[self._inside(offset, end)])
        return framed, self._window(framed, chunk)

    def gather(self, array: Array, chunk: Chunk, buffer: Array) -> Array:
        """(channels, positions) of a chunk of (N, channels, *O), in `buffer`; a view where one image is whole."""
        part = array[chunk.n0:chunk.n1, :, chunk.r0:chunk.r1]
        if chunk.images == 1 and chunk.rows == array.shape[2]:
            return part.reshape(array.shape[1], -1)
        gathered = buffer[:part.size].reshape(self.ordered(part).shape)
        self._turn(part, gathered)
        return gathered.reshape(array.shape[1], -1)

    def fold(self, columns: Array, chunk: Chunk, result: Array) -> None:
        """Add columns to their pixels in result(N, C, *I); the chunk of an image's first rows overwrites.

        Chunks of one image overlap, so they are folded one after the other, from the first rows on.
        """
        g = self._geometry
        target = result[chunk.n0:chunk.n1]
        if g.is_pointwise:
            out = self.ordered(target[:, :, chunk.r0:chunk.r1])
            np.copyto(out, columns.reshape(out.shape))
            return
        framed = self._framed(chunk)
        framed[...] = 0
        window = self._window(framed, chunk)
        parts = columns.reshape(window.shape)
        for tap in np.ndindex(*g.kernel):
            place = window[(slice(None), *tap)]
            np.add(place, parts[(slice(None), *tap)], out=place)
        start, stop, offset = self._rows(chunk)
        inner = framed[self._inside(offset, offset + stop - start)]
        out = self.ordered(target[:, :, start:stop])
        if chunk.r0 == 0:
            target[:, :, stop:] = 0
            np.copyto(out, inner)
        else:
            np.add(out, inner, out=out)
        # What lies outside must be zero again for the next gather.
        self._clear_frame(framed)

    def _turn(self, part: Array, target: Array) -> None:
        """Copy part(images, channels, *S) to `target`, which is ordered as `ordered`."""
        images, channels = part.shape[:2]
        if not self._images_last or not collide(images, part.strides[0]):
            np.copyto(target, self.ordered(part))
            return
        words = math.prod(part.shape[2:])
        step = max(1, ASIDE_WORDS // max(1, words))
        pitch = step * words + _LINE_BYTES // part.itemsize
        if self._aside.size < images * pitch:
            self._aside = np.empty(images * pitch, self._dtype)
        rows = self._aside[:images * pitch].reshape(images, pitch)
        for first in range(0, channels, step):
            some = part[:, first:first + step]
            aside = rows[:, :some.shape[1] * words].reshape(some.shape)
            np.copyto(aside, some)
            np.copyto(target[first:first + step], self.ordered(aside))

    # ---- the framed input -------------------------------------------------------------------

    def _span(self, rows: int) -> int:
        """Framed input rows that `rows` output rows look at."""
        return (rows - 1) * self._geometry.stride[0] + self._geometry.extent[0]

    def _framed(self, chunk: Chunk) -> Array:
        """The framed input for a chunk, ordered as `ordered`."""
        g = self._geometry
        sizes = (self._span(chunk.rows), *(i + 2 * p for i, p in zip(g.input[1:], g.pad[1:], strict=True)))
        shape = (g.in_channels, *sizes, chunk.images) if self._images_last else (g.in_channels, chunk.images, *sizes)
        if shape not in self._frames:
            self._frames[shape] = np.zeros(shape, self._dtype)
        return self._frames[shape]

    def _spatial(self, *slices: slice) -> tuple[slice, ...]:
        """Index of a framed or ordered array by its spatial axes."""
        return (slice(None), *slices) if self._images_last else (slice(None), slice(None), *slices)

    def _inside(self, start: int, stop: int) -> tuple[slice, ...]:
        """Where rows [start, stop) of the frame hold input."""
        g = self._geometry
        rest = (slice(p, p + i) for i, p in zip(g.input[1:], g.pad[1:], strict=True))
        return self._spatial(slice(start, stop), *rest)

    def _rows(self, chunk: Chunk) -> tuple[int, int, int]:
        """Input rows [start, stop) that the chunk sees, and where they begin in the frame."""
        first = chunk.r0 * self._geometry.stride[0] - self._geometry.pad[0]
        start = max(first, 0)
        stop = min(first + self._span(chunk.rows), self._geometry.input[0])
        return start, max(stop, start), start - first

    def _window(self, framed: Array, chunk: Chunk) -> Array:
        """View (C, *kernel, ...positions) of a framed input, without a copy."""
        g = self._geometry
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

    def _clear_frame(self, framed: Array) -> None:
        g = self._geometry
        everything = slice(None)
        for axis, (size, pad) in enumerate(zip(g.input[1:], g.pad[1:], strict=True), start=1):
            if pad:
                framed[self._spatial(*[everything] * axis, slice(0, pad))] = 0
                framed[self._spatial(*[everything] * axis, slice(pad + size, None))] = 0
