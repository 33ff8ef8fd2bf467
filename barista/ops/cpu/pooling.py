"""Maximum and average pooling, and what pooling has in common: it goes a group of image planes at a time.

A group is turned so that its planes are the innermost axis: every tap of the window is
then one long run in memory, whatever the stride.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import Pooling, PoolingGeometry, Primitive
from .threads import CHUNK, PARALLEL, Threads, split

Array = npt.NDArray[Any]

# Planes a group at least: shorter runs cost more than a group that outgrows the cache (measured).
MIN_PLANES = 64
# Planes whose sizes are multiples of this many elements fall into the same few cache sets.
CONFLICT = 64


def _planes_last(x: Array) -> Array:
    """View of (planes, H, W) as (H, W, planes) that is quick to read.

    Planes that compete for cache sets are first moved apart by an element: five times faster for 32x32 (measured).
    """
    planes, height, width = x.shape
    if height * width % CONFLICT:
        return x.transpose(1, 2, 0)
    apart = np.empty((planes, height * width + 1), x.dtype)
    apart[:, :-1] = x.reshape(planes, -1)
    return np.lib.stride_tricks.as_strided(apart, (height, width, planes),
                                           (width * x.itemsize, x.itemsize, apart.strides[0]))


class GroupedPooling(Primitive):
    """Shared by all: a framed group (*frame, planes), such that every window lies inside the frame."""

    space = HOST
    frame_value = 0.0

    def __init__(self, geometry: PoolingGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        g = self.geometry = geometry
        self.dtype = dtype
        self._threads = threads
        self._planes = g.batch * g.channels
        # Caffe's rounding up leaves rows that no window reaches, or windows that reach beyond the input.
        self._frame = tuple((o - 1) * s + k for o, s, k in zip(g.output, g.stride, g.kernel, strict=True))
        reach = tuple(min(i, f - p) for i, f, p in zip(g.input, self._frame, g.pad, strict=True))
        self._part = (slice(0, reach[0]), slice(0, reach[1]))
        self._place = (slice(g.pad[0], g.pad[0] + reach[0]), slice(g.pad[1], g.pad[1] + reach[1]))
        self._covered = reach == g.input
        self._filled = reach == self._frame
        size = g.input[0] * g.input[1]
        self._groups = split(self._planes, max(MIN_PLANES, CHUNK // max(size, 1)))
        self._parallel = self._planes * size >= PARALLEL

    def _each_group(self, work: Any) -> None:
        """Call ``work(slice of planes)`` for all groups, over the cores where that pays."""
        groups = [slice(start, stop) for start, stop in self._groups]
        if self._parallel:
            self._threads.run(lambda index, worker: work(groups[index]), len(groups))
        else:
            for group in groups:
                work(group)

    def _enframe(self, x: Array) -> Array:
        """(*frame, planes) of a group (planes, H, W), with `frame_value` outside the input."""
        shape = (*self._frame, x.shape[0])
        framed = np.empty(shape, self.dtype) if self._filled else np.full(shape, self.frame_value, self.dtype)
        framed[self._place] = _planes_last(x)[self._part]
        return framed

    def _unframe(self, framed: Array, out: Array) -> None:
        """Write a framed gradient to a group (planes, H, W); input that no window reaches has none."""
        if not self._covered:
            out[...] = 0
        out[(slice(None), *self._part)] = framed[self._place].transpose(2, 0, 1)

    def _tap(self, framed: Array, row: int, column: int) -> Array:
        """The elements at (row, column) of all windows: (Ho, Wo, planes)."""
        (ho, wo), (sh, sw) = self.geometry.output, self.geometry.stride
        return framed[row:row + (ho - 1) * sh + 1:sh, column:column + (wo - 1) * sw + 1:sw]

    def _flat(self, tensor: Tensor, size: tuple[int, int], write: bool = False) -> Array:
        array: Array = (tensor.write(HOST) if write else tensor.read(HOST)).reshape(self._planes, *size)
        return array


class ChoosingPooling(GroupedPooling):
    """Shared by those that choose an element of each window: the number of its tap is kept for the backward pass."""

    variant = "taps over groups of planes"

    def __init__(self, geometry: PoolingGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        super().__init__(geometry, dtype, threads)
        self._tap_count = math.prod(geometry.kernel)
        # Laid out as the groups are: (Ho, Wo, planes) one after the other.
        kind = np.uint8 if self._tap_count < 256 else np.int32
        self._index = [np.zeros((*geometry.output, stop - start), kind) for start, stop in self._groups]
        self.workspace_bytes = sum(index.nbytes for index in self._index)

    def _taps(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Rows and columns of the taps from `start` to before `stop`; there may be too many to keep."""
        rows, columns = self.geometry.kernel
        return itertools.islice(itertools.product(range(rows), range(columns)), start, stop)

    def _index_of(self, group: slice) -> Array:
        return self._index[group.start // (self._groups[0][1] - self._groups[0][0])]

    def _to_chosen(self, dy: Tensor, dx: Tensor) -> None:
        """dx = the gradient, all of it at the elements chosen."""
        gradient = self._flat(dy, self.geometry.output)
        result = self._flat(dx, self.geometry.input, write=True)

        def work(group: slice) -> None:
            index = self._index_of(group)
            part = np.ascontiguousarray(_planes_last(gradient[group]))
            framed = np.zeros((*self._frame, part.shape[2]), self.dtype)
            share = np.empty_like(part)
            chosen = np.empty(part.shape, np.bool_)
            for number, tap in enumerate(self._taps()):
                np.equal(index, number, out=chosen)
                np.multiply(part, chosen, out=share)
                place = self._tap(framed, *tap)
                np.add(place, share, out=place)
            self._unframe(framed, result[group])

        self._each_group(work)


class CpuMaxPooling(ChoosingPooling, Pooling):
    """Maximum."""

    frame_value = -np.inf

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        source = self._flat(x, self.geometry.input)
        result = self._flat(y, self.geometry.output, write=True)

        def work(group: slice) -> None:
            framed = self._enframe(source[group])
            best = self._tap(framed, 0, 0).copy()
            for tap in self._taps(1):
                np.maximum(best, self._tap(framed, *tap), out=best)
            # The first of equal elements wins: its number is how many taps before it differ from the maximum.
            index = self._index_of(group)
            index[...] = 0
            before = np.ones(best.shape, np.bool_)
            differs = np.empty(best.shape, np.bool_)
            for tap in self._taps(0, self._tap_count - 1):
                np.not_equal(self._tap(framed, *tap), best, out=differs)
                np.logical_and(before, differs, out=before)
                np.add(index, before.view(np.uint8), out=index)
            result[group] = best.transpose(2, 0, 1)

        self._each_group(work)
        if mask is not None:
            self._write_positions(self._flat(mask, self.geometry.output, write=True))

    def _write_positions(self, out: Array) -> None:
        """Index h*W+w within its plane of each maximum."""
        g = self.geometry
        rows = (np.arange(g.output[0]) * g.stride[0] - g.pad[0])[:, None, None]
        columns = (np.arange(g.output[1]) * g.stride[1] - g.pad[1])[None, :, None]
        for (start, stop), index in zip(self._groups, self._index, strict=True):
            taps = index.astype(np.int64)
            positions = (rows + taps // g.kernel[1]) * g.input[1] + columns + taps % g.kernel[1]
            out[start:stop] = positions.transpose(2, 0, 1)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._to_chosen(dy, dx)


class CpuAveragePooling(GroupedPooling, Pooling):
    """Average over the window clipped to the padded input (Caffe)."""

    variant = "separable sums over groups of planes"

    def __init__(self, geometry: PoolingGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        super().__init__(geometry, dtype, threads)
        sizes = []
        for size, pad, kernel, stride, output in zip(geometry.input, geometry.pad, geometry.kernel, geometry.stride,
                                                     geometry.output, strict=True):
            start = np.arange(output) * stride - pad
            sizes.append(np.minimum(start + kernel, size + pad) - start)
        self._weight = (1.0 / np.outer(sizes[0], sizes[1])).astype(dtype)[:, :, None]

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        source = self._flat(x, self.geometry.input)
        result = self._flat(y, self.geometry.output, write=True)
        (kh, kw), (sh, sw), (ho, wo) = self.geometry.kernel, self.geometry.stride, self.geometry.output

        def work(group: slice) -> None:
            framed = self._enframe(source[group])
            rows = framed[0:(ho - 1) * sh + 1:sh].copy()
            for r in range(1, kh):
                np.add(rows, framed[r:r + (ho - 1) * sh + 1:sh], out=rows)
            total = rows[:, 0:(wo - 1) * sw + 1:sw].copy()
            for c in range(1, kw):
                np.add(total, rows[:, c:c + (wo - 1) * sw + 1:sw], out=total)
            np.multiply(total, self._weight, out=total)
            result[group] = total.transpose(2, 0, 1)

        self._each_group(work)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        gradient = self._flat(dy, self.geometry.output)
        result = self._flat(dx, self.geometry.input, write=True)
        (kh, kw), (sh, sw), (ho, wo) = self.geometry.kernel, self.geometry.stride, self.geometry.output

        def work(group: slice) -> None:
            part = _planes_last(gradient[group]) * self._weight
            rows = np.zeros((ho, self._frame[1], part.shape[2]), self.dtype)
            for c in range(kw):
                rows[:, c:c + (wo - 1) * sw + 1:sw] += part
            framed = np.zeros((*self._frame, part.shape[2]), self.dtype)
            for r in range(kh):
                framed[r:r + (ho - 1) * sh + 1:sh] += rows
            self._unframe(framed, result[group])

        self._each_group(work)
