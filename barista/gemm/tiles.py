"""Matrices cut into tiles, in the order in which an array reads them.

With tile sizes (Tr, Tc, Tp) and counts nr = ceil(M/Tr), nc = ceil(N/Tc), np = ceil(K/Tp), all C order:

    tiles of A  [nr][np][Tp][Tr]   each step along K feeds the array a column of Tr values of A ...
    tiles of B  [nc][np][Tp][Tc]   ... and a row of Tc values of B: both stream along the common dimension
    tiles of C  [nr][nc][Tr][Tc]

The last tiles of each dimension are padded with zeros, which add nothing to a product.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from .shapes import GemmShape

Array = npt.NDArray[Any]

# Largest size of a tile along any dimension: far beyond what boards hold, small enough for indices of 32 bits.
LARGEST = 4096
# Alignment of tile buffers in bytes: a cache line, and what devices ask of memory that they read in place.
ALIGNMENT_BYTES = 64
# Rows of a strip that are copied at a time, which a core's table of page addresses holds.
COPIED_ROWS = 32
# Rows so far apart share their places in a core's first cache, and evict each other when they are read side by side.
ALIAS_BYTES = 4096
# Elements that are copied aside at a time: 256 KiB of float32 stay in a core's second cache.
ASIDE = 65536


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


class Lanes(Protocol):
    """An operand of a product that lays out its own tiles.

    Attributes
    ----------
    shape : lanes (rows of op(A), or columns of op(B)), and their length K
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(lanes, K)"""
        ...

    def lay_out(self, first: int, tiles: Array) -> None:
        """Overwrite `tiles` with strips, as `tile_lanes` lays them out.

        Parameters
        ----------
        first : the strip that is laid out first
        tiles : [strips][np][Tp][lanes a strip], C order; lanes and K end in zeros
        """
        ...


class Matrix:
    """An operand that lies in memory.

    Parameters
    ----------
    lanes : the rows of A(M, K), or the columns of B(K, N) as its transpose (N, K); any strides
    """

    def __init__(self, lanes: Array) -> None:
        self._lanes = lanes

    @property
    def shape(self) -> tuple[int, ...]:
        """(lanes, K)"""
        return self._lanes.shape

    def lay_out(self, first: int, tiles: Array) -> None:
        """See `Lanes.lay_out`."""
        size = tiles.shape[-1]
        tile_lanes(self._lanes[first * size:(first + len(tiles)) * size], tiles)


def tile_lanes(lanes: Array, out: Array) -> None:
    """Lay out the tiles of an operand, padded with zeros.

    Parameters
    ----------
    lanes : the rows of A(M, K), or the columns of B(K, N) as its transpose (N, K); any strides
    out : [nr][np][Tp][Tr] for A, [nc][np][Tp][Tc] for B, C order; all of it is overwritten
    """
    x = lanes.T
    strips, steps, depth, size = out.shape
    k, length = x.shape
    # [np][Tp] is K, padded: one axis, which has its padding at the end.
    flat = out.reshape(strips, steps * depth, size)
    full, rest = divmod(length, size)
    if full and k:
        _cut(x[:, :full * size], flat[:full, :k])
    if rest:
        flat[full, :k, :rest] = x[:, full * size:]
        flat[full, :k, rest:] = 0
    flat[:, k:] = 0


def _cut(x: Array, out: Array) -> None:
    """Copy x(K, strips * size) into out[strips][K][size], none of them 0, in an order that caches like."""
    strips, k, size = out.shape
    if _has_runs(x, size):
        source, target = _runs(x, size).T, _runs(out, size)[..., 0]
        for first in range(0, k, COPIED_ROWS):
            target[:, first:first + COPIED_ROWS] = source[:, first:first + COPIED_ROWS]
        return
    # Splitting an axis never copies, whatever the strides.
    lanes = x.T.reshape(strips, size, k)
    if x.strides[1] % ALIAS_BYTES:
        out[...] = lanes.transpose(0, 2, 1)
        return
    # A copy whose lanes lie a little further apart is worth its time.
    step = max(1, ASIDE // (size * k))
    aside = np.empty((step, size, k + ALIGNMENT_BYTES // x.itemsize), x.dtype)[..., :k]
    for first in range(0, strips, step):
        part = lanes[first:first + step]
        aside[:len(part)] = part
        out[first:first + step] = aside[:len(part)].transpose(0, 2, 1)


def _has_runs(x: Array, size: int) -> bool:
    """Whether numbers lie side by side along the last axis, enough of them to be moved at once."""
    return size > 1 and x.strides[-1] == x.itemsize


def _runs(x: Array, size: int) -> Array:
    """The same memory with `size` numbers of the last axis as one element, which NumPy moves at once."""
    return x.view(np.dtype((np.void, size * x.itemsize)))


def untile_c(tiles: Array, out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """Compute ``out = alpha * tiles + beta * out`` and drop the padding.

    Parameters
    ----------
    tiles : [nr][nc][Tr][Tc], float32 or int32; integers are scaled in float64
    out : (M, N), any strides, floats; not read where beta is 0
    """
    _, _, tr, _ = tiles.shape
    m, n = out.shape
    if not n:
        return
    whole, cut = divmod(m, tr)
    copied = alpha == 1 and beta == 0 and out.dtype == tiles.dtype
    step = max(1, whole) if copied else max(1, ASIDE // (tr * n))
    parts = [(first, min(first + step, whole), tr) for first in range(0, whole, step)]
    if cut:
        parts.append((whole, whole + 1, cut))
    for first, last, height in parts:
        rows = out[first * tr:first * tr + (last - first) * height]
        if copied:
            _join(tiles[first:last, :, :height], rows)
        else:
            # Arithmetic over whole rows, not over the short ones of tiles.
            aside = np.empty(rows.shape, tiles.dtype)
            _join(tiles[first:last, :, :height], aside)
            _add_scaled(rows, aside, alpha, beta)


def _join(tiles: Array, out: Array) -> None:
    """Copy tiles[strips][nc][height][Tc] into out(strips * height, N) of the same dtype."""
    strips, _, height, tc = tiles.shape
    full, rest = divmod(out.shape[1], tc)
    # Splitting an axis never copies, whatever the strides.
    lines = out.reshape(strips, height, out.shape[1])
    if full:
        source, target = tiles[:, :full], lines[:, :, :full * tc]
        if _has_runs(out, tc):
            _runs(target, tc)[...] = _runs(source, tc)[..., 0].transpose(0, 2, 1)
        else:
            target.reshape(strips, height, full, tc)[...] = source.transpose(0, 2, 1, 3)
    if rest:
        lines[:, :, full * tc:] = tiles[:, full, :, :rest]


def _add_scaled(target: Array, values: Array, alpha: float, beta: float) -> None:
    """target = alpha * values + beta * target, element by element."""
    if beta == 0:
        np.multiply(values, alpha, out=target, casting="same_kind")
    else:
        if beta != 1:
            target *= beta
        np.add(target, values if alpha == 1 else values * alpha, out=target, casting="same_kind")
