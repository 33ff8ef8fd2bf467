"""Matrices cut into tiles, in the order in which an array reads them.

With tile sizes (Tr, Tc, Tp) and counts nr = ceil(M/Tr), nc = ceil(N/Tc), np = ceil(K/Tp), all C order:

    tiles of A  [nr][np][Tp][Tr]   each step along K feeds the array a column of Tr values of A ...
    tiles of B  [nc][np][Tp][Tc]   ... and a row of Tc values of B: both stream along the common dimension
    tiles of C  [nr][nc][Tr][Tc]

The last tiles of each dimension are padded with zeros, which add nothing to a product.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from .shapes import GemmShape

Array = npt.NDArray[Any]

# Largest size of a tile along any dimension: far beyond what boards hold, small enough for indices of 32 bits.
LARGEST = 4096
# Alignment of tile buffers in bytes: a cache line, and what devices ask of memory that they read in place.
ALIGNMENT_BYTES = 64


@dataclasses.dataclass(frozen=True)
class TileSizes:
    """Sizes of the tiles: C in (tr, tc), and tp along the common dimension.

    Raises
    ------
    UnsupportedError : a size outside 1 to 4096
    """

    tr: int
    tc: int
    tp: int

    def __post_init__(self) -> None:
        for name, size in zip(("Tr", "Tc", "Tp"), (self.tr, self.tc, self.tp), strict=True):
            if not 1 <= size <= LARGEST:
                raise UnsupportedError(f"tile {self}: {name}={size} is outside 1 to {LARGEST}")

    @classmethod
    def parse(cls, text: str) -> TileSizes:
        """Read ``"16,16,64"``.

        Raises
        ------
        UnsupportedError : not three integers, or sizes that are not legal
        """
        try:
            tr, tc, tp = (int(part) for part in text.split(","))
        except ValueError:
            raise UnsupportedError(f"tile {text!r} is not three integers Tr,Tc,Tp such as 16,16,64") from None
        return cls(tr, tc, tp)

    def __str__(self) -> str:
        return f"{self.tr},{self.tc},{self.tp}"

    def counts(self, shape: GemmShape) -> tuple[int, int, int]:
        """(nr, nc, np): tiles along M, N and K."""
        return -(-shape.m // self.tr), -(-shape.n // self.tc), -(-shape.k // self.tp)

    def a_shape(self, nr: int, np_: int) -> tuple[int, int, int, int]:
        """Shape of the tiles of A."""
        return nr, np_, self.tp, self.tr

    def b_shape(self, nc: int, np_: int) -> tuple[int, int, int, int]:
        """Shape of the tiles of B."""
        return nc, np_, self.tp, self.tc

    def c_shape(self, nr: int, nc: int) -> tuple[int, int, int, int]:
        """Shape of the tiles of C."""
        return nr, nc, self.tr, self.tc


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised C-order array whose memory begins at a multiple of 64 bytes."""
    wanted = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * wanted.itemsize
    raw = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start:start + size].view(wanted).reshape(shape)


class Workspace:
    """Named aligned buffers that grow to the largest size asked for and are then reused.

    Products that run one after another may share one, so that a net holds the tiles of its largest product only.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def take(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return the buffer `name` as an array of `shape`; its contents are undefined."""
        wanted = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * wanted.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < size:
            buffer = self._buffers[name] = aligned_empty((size,), np.uint8)
        return buffer[:size].view(wanted).reshape(shape)


def tile_a(a: Array, out: Array) -> None:
    """Lay out tiles of A, padded with zeros.

    Parameters
    ----------
    a : (M, K), any strides, so a transposed view too
    out : [nr][np][Tp][Tr], C order; all of it is overwritten
    """
    _tile(a.T, out)


def tile_b(b: Array, out: Array) -> None:
    """Lay out tiles of B, padded with zeros.

    Parameters
    ----------
    b : (K, N), any strides, so a transposed view too
    out : [nc][np][Tp][Tc], C order; all of it is overwritten
    """
    _tile(b, out)


def _tile(x: Array, out: Array) -> None:
    """Cut x(K, L) into strips of `size` along L, each with K outermost: out[strips][np][Tp][size]."""
    strips, steps, depth, size = out.shape
    k, length = x.shape
    # [np][Tp] is K, padded: one axis, which has its padding at the end.
    flat = out.reshape(strips, steps * depth, size)
    full, rest = divmod(length, size)
    # Splitting an axis never copies, whatever the strides.
    flat[:full, :k] = x[:, :full * size].reshape(k, full, size).transpose(1, 0, 2)
    if rest:
        flat[full, :k, :rest] = x[:, full * size:]
        flat[full, :k, rest:] = 0
    flat[:, k:] = 0


def untile_c(tiles: Array, out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """Compute ``out = alpha * tiles + beta * out`` and drop the padding.

    Parameters
    ----------
    tiles : [nr][nc][Tr][Tc], float32 or int32; integers are scaled in float64
    out : (M, N), any strides, floats; not read where beta is 0
    """
    _, _, tr, tc = tiles.shape
    m, n = out.shape
    for rows, strips, height in _parts(m, tr):
        for columns, tile_columns, width in _parts(n, tc):
            part = out[rows, columns]
            # The same elements as tiles, [nr][nc][height][width]: splitting an axis never copies.
            target = part.reshape(part.shape[0] // height, height, part.shape[1] // width, width).transpose(0, 2, 1, 3)
            _add_scaled(target, tiles[strips, tile_columns, :height, :width], alpha, beta)


def _parts(length: int, size: int) -> list[tuple[slice, slice, int]]:
    """The whole tiles along an axis and the cut one: (elements, tiles, elements a tile), where there are any."""
    full, rest = divmod(length, size)
    parts = []
    if full:
        parts.append((slice(0, full * size), slice(0, full), size))
    if rest:
        parts.append((slice(full * size, length), slice(full, full + 1), rest))
    return parts


def _add_scaled(target: Array, tiles: Array, alpha: float, beta: float) -> None:
    """target = alpha * tiles + beta * target, element by element."""
    if beta == 0 and alpha == 1:
        target[...] = tiles
    elif beta == 0:
        np.multiply(tiles, alpha, out=target, casting="same_kind")
    else:
        if beta != 1:
            target *= beta
        np.add(target, tiles if alpha == 1 else tiles * alpha, out=target, casting="same_kind")
