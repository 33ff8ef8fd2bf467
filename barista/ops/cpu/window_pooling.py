"""Pooling over windows of any number of axes: tap by tap, each a strided slice of all windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import WindowGeometry, WindowPooling
from .threads import Threads

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]


class _Windows(WindowPooling):
    """What maxima and means share.

    A tap is one place in the window: for those windows where it lies on the input, which they are and what it sees.
    """

    space = HOST

    def __init__(self, geometry: WindowGeometry, threads: Threads) -> None:
        self._geometry = geometry
        self._threads = threads
        self._item = math.prod(geometry.output) * math.prod(geometry.kernel)

    def _ranges(self, axis: int) -> list[tuple[slice, slice]]:
        """For each tap of an axis: the windows, and the inputs."""
        g = self._geometry
        size, stride, outputs, dilation, pad = (g.input[axis], g.stride[axis], g.output[axis], g.dilation[axis],
                                                g.pad_begin[axis])
        ranges = []
        # Those that no window has on the input are left out, however large the kernel is.
        first_tap, last_tap = -(((outputs - 1) * stride - pad) // dilation), (size - 1 + pad) // dilation
        for tap in range(max(0, first_tap), min(g.kernel[axis], last_tap + 1)):
            shift = tap * dilation - pad
            first = max(0, -(shift // stride))
            stop = max(first, min(outputs, (size - 1 - shift) // stride + 1))
            start = first * stride + shift
            if stop > first:
                ranges.append((slice(first, stop), slice(start, start + (stop - first) * stride, stride)))
        return ranges

    def _taps(self) -> Iterator[tuple[Slices, Slices]]:
        for tap in itertools.product(*(self._ranges(axis) for axis in range(len(self._geometry.input)))):
            yield tuple(windows for windows, _ in tap), tuple(inputs for _, inputs in tap)


class CpuMaxWindows(_Windows):
    """Maxima; of equal elements the first counts, and NaN before all."""

    def __init__(self, geometry: WindowGeometry, threads: Threads) -> None:
        super().__init__(geometry, threads)
        self._index = np.empty(0, np.intp)

    def forward(self, x: Tensor, y: Tensor, indices: Tensor | None = None) -> None:
        g = self._geometry
        source, result = x.read(HOST).reshape(g.x_shape), y.write(HOST).reshape(g.y_shape)
        if self._index.shape != g.y_shape:
            self._index = np.empty(g.y_shape, np.intp)
            self.workspace_bytes = self._index.nbytes
        places = np.arange(math.prod(g.input)).reshape(g.input)

        def work(start: int, stop: int, worker: int) -> None:
            values, index = result[start:stop], self._index[start:stop]
            values[...], index[...] = -np.inf, -1
            taps = [((slice(None), *windows), (slice(start, stop), *inputs)) for windows, inputs in self._taps()]
            for windows, inputs in taps:
                np.maximum(values[windows], source[inputs], out=values[windows])
            has_nan = np.isnan(values).any()
            # From the last tap to the first, which stays.
            for windows, inputs in reversed(taps):
                found = source[inputs] == values[windows]
                if has_nan:
                    found |= np.isnan(source[inputs])
                np.copyto(index[windows], places[inputs[1:]], where=found)

        self._threads.spread(work, g.planes, self._item)
        if indices is not None and g.planes:
            self._number(indices.write(HOST).reshape(g.planes, -1))

    def _number(self, result: Array) -> None:
        """Write where in all of x the maxima lie."""
        g = self._geometry
        index = self._index.reshape(g.planes, -1)
        numbers = np.arange(math.prod(g.input))
        if g.column_major:
            numbers = numbers.reshape(g.input[::-1]).T.reshape(-1)
        first = numbers.size * np.arange(g.planes)[:, None]
        np.copyto(result, np.where(index < 0, -1, numbers[np.maximum(index, 0)] + first))

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        g = self._geometry
        size = math.prod(g.input)
        gradient, result = dy.read(HOST).reshape(g.y_shape), dx.write(HOST).reshape(g.planes, size)

        def work(start: int, stop: int, worker: int) -> None:
            index = self._index[start:stop].reshape(stop - start, -1)
            weights = np.where(index < 0, 0, gradient[start:stop].reshape(index.shape))
            flat = np.maximum(index, 0) + size * np.arange(stop - start)[:, None]
            sums = np.bincount(flat.reshape(-1), weights.reshape(-1), (stop - start) * size)
            result[start:stop] = sums.reshape(stop - start, size)

        self._threads.spread(work, g.planes, self._item)


class CpuMeanWindows(_Windows):
    """Means over the elements on the input, or over those in the padding too."""

    def __init__(self, geometry: WindowGeometry, threads: Threads) -> None:
        super().__init__(geometry, threads)
        counts = [self._counts(axis) for axis in range(len(geometry.input))]
        self._divisors = np.maximum(math.prod(np.ix_(*counts)), 1)

    def _counts(self, axis: int) -> Array:
        """How many elements of each window count along an axis."""
        g = self._geometry
        before, behind = (g.pad_begin[axis], g.pad_end[axis]) if g.counts_pad else (0, 0)
        starts, dilation = np.arange(g.output[axis]) * g.stride[axis] - g.pad_begin[axis], g.dilation[axis]
        first = np.maximum(0, -((starts + before) // dilation))
        stop = np.minimum(g.kernel[axis], (g.input[axis] + behind - 1 - starts) // dilation + 1)
        return np.maximum(stop - first, 0)

    def forward(self, x: Tensor, y: Tensor, indices: Tensor | None = None) -> None:
        g = self._geometry
        source, result = x.read(HOST).reshape(g.x_shape), y.write(HOST).reshape(g.y_shape)
        divisors = self._divisors.astype(result.dtype)

        def work(start: int, stop: int, worker: int) -> None:
            values = result[start:stop]
            values[...] = 0
            for windows, inputs in self._taps():
                values[(slice(None), *windows)] += source[(slice(start, stop), *inputs)]
            values /= divisors

        self._threads.spread(work, g.planes, self._item)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        g = self._geometry
        gradient, result = dy.read(HOST).reshape(g.y_shape), dx.write(HOST).reshape(g.x_shape)
        divisors = self._divisors.astype(gradient.dtype)

        def work(start: int, stop: int, worker: int) -> None:
            shares, values = gradient[start:stop] / divisors, result[start:stop]
            values[...] = 0
            for windows, inputs in self._taps():
                values[(slice(None), *inputs)] += shares[(slice(None), *windows)]

        self._threads.spread(work, g.planes, self._item)
