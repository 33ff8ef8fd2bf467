"""Columns of a convolution that are cut into tiles straight from the framed input, without a matrix between.

An operand's tiles hold, for each step along K, the next lanes side by side.  So they are copied in runs where lanes
lie side by side in the framed input as well: positions of a row, for each of which K is the kernel; or, with channels
innermost, weights of a row of the kernel, for each of which K is the positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...gemm.shapes import ConvolutionGeometry
from ..columns import Chunk

Array = npt.NDArray[Any]


class FramedLanes:
    """Lanes that are a window on a frame.

    Parameters
    ----------
    frame : all of its memory, C order
    window : (*K, *lanes), a view of `frame` in which elements may appear more than once
    axes : how many of the window's axes are K
    """

    def __init__(self, frame: Array, window: Array, axes: int) -> None:
        self._frame = frame
        self._offset = window.ctypes.data - frame.ctypes.data
        self._k_sizes, self._k_strides = window.shape[:axes], window.strides[:axes]
        self._outer, self._outer_strides, self.run = _runs(window, axes)
        self.shape = math.prod(self._outer) * self.run, math.prod(self._k_sizes)

    def lay_out(self, first: int, tiles: Array) -> None:
        """See `Lanes.lay_out`."""
        lanes, k = self.shape
        strips, steps, depth, size = tiles.shape
        flat = tiles.reshape(strips, steps * depth, size)
        flat[:, k:] = 0
        start, stop = first * size, min((first + strips) * size, lanes)
        if (stop - start) % size:
            flat[-1, :k, (stop - start) % size:] = 0
        lane = start
        while lane < stop:
            strip, within = divmod(lane - start, size)
            run, inside = divmod(lane, self.run)
            left = min(self.run - inside, stop - lane)
            if within or left < size:
                width = min(size - within, left)
                self._copy(flat[strip, :, within:], lane, (1, 1), width)
                lane += width
                continue
            # Runs that are whole strips, up to the end of the last of the outer axes, are one copy.
            runs = min((stop - lane) // self.run, self._outer[-1] - run % self._outer[-1])
            if inside or self.run % size or not runs:
                runs, left = 1, left // size * size
            self._copy(flat[strip:], lane, (runs, left // size), size)
            lane += runs * left

    def _copy(self, out: Array, lane: int, strips: tuple[int, int], width: int) -> None:
        """Copy `width` lanes from `lane` on to where `out` begins, and so on for runs x strips of them.

        NumPy moves them as one element each.
        """
        run, inside = divmod(lane, self.run)
        step = self._frame.itemsize
        offset = self._offset + inside * step
        for size, stride in zip(self._outer[::-1], self._outer_strides[::-1], strict=True):
            run, index = divmod(run, size)
            offset += index * stride
        element = np.dtype((np.void, width * step))
        source: Array = np.ndarray((*strips, *self._k_sizes), element, self._frame, offset,
                                   (self._outer_strides[-1], width * step, *self._k_strides))
        strip, row = (out.strides[0], out.strides[1]) if out.ndim == 3 else (0, out.strides[0])
        strides = [row]
        for size in self._k_sizes[:0:-1]:
            strides.insert(0, strides[0] * size)
        target = np.lib.stride_tricks.as_strided(out, (*source.shape, width),
                                                 (strips[1] * strip, strip, *strides, step))
        target.view(element)[..., 0] = source


def _runs(window: Array, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Sizes and strides of the axes of lanes, but for the last ones that lie side by side, and how many these hold."""
    sizes, strides = [1, *window.shape[axes:]], [0, *window.strides[axes:]]
    run = 1
    while len(sizes) > 1 and (sizes[-1] == 1 or strides[-1] == run * window.itemsize):
        run *= sizes.pop()
        strides.pop()
    return tuple(sizes), tuple(strides), run


class Pixels:
    """A framed input with channels innermost.

    Parameters
    ----------
    geometry, dtype : of the convolution
    """

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any]) -> None:
        self._geometry = geometry
        self._dtype = dtype
        # By images; what is around the input stays zero.
        self._frames: dict[int, Array] = {}

    @property
    def nbytes(self) -> int:
        """Memory of the frames."""
        return sum(frame.nbytes for frame in self._frames.values())

    def reserve(self, chunk: Chunk) -> None:
        """Make the memory for as many images, so that nothing is allocated later."""
        g = self._geometry
        if chunk.images not in self._frames:
            sizes = (i + 2 * p for i, p in zip(g.input, g.pad, strict=True))
            self._frames[chunk.images] = np.zeros((chunk.images, *sizes, g.in_channels), self._dtype)

    def lanes(self, x: Array, chunk: Chunk) -> list[FramedLanes]:
        """For each group the weights' lanes (*kernel, C/group) over K, the positions (images, *O), of x(N, C, *I)."""
        g = self._geometry
        frame = self._frames[chunk.images]
        inside = tuple(slice(p, p + i) for i, p in zip(g.input, g.pad, strict=True))
        np.copyto(frame[(slice(None), *inside)], np.moveaxis(x[chunk.n0:chunk.n1], 1, -1))
        spatial = frame.strides[1:-1]
        steps = (s * t for s, t in zip(spatial, g.stride, strict=True))
        taps = (s * d for s, d in zip(spatial, g.dilation, strict=True))
        shape = (chunk.images, *g.output, *g.kernel, g.in_channels)
        window = np.lib.stride_tricks.as_strided(frame, shape, (frame.strides[0], *steps, *taps, frame.strides[-1]))
        channels = g.in_channels // g.group
        return [FramedLanes(frame, window[..., first:first + channels], 1 + len(g.output))
                for first in range(0, g.in_channels, channels)]
