"""Matrix products of which one side is short, on CPU devices: the large matrix passes once, from where it lies.

How long they take is up to memory and, for the smallest, to the launch of a kernel: each is one launch.
"""

from __future__ import annotations

import abc
import dataclasses
import math

from ...gemm.shapes import GemmShape
from ...runtime.space import DeviceArray
from .device import Device

# The longest short side for which these are faster than packing both operands: lanes (nt), M (nn), and K (tn).
MOST_LANES = 128
MOST_ROWS = 64
MOST_K = 128
# Local memory of a work-item: a part of a core's second cache.
LOCAL_BYTES = 1 << 18
# How much of K the rows of a narrow product take at a time, and by how many bytes memory is fetched ahead.
CHUNK_K = 128
ROWS_AHEAD = 512
COLUMNS_AHEAD = 256
# A matrix of more than this does not stay in the caches: it is read by one core alone, and written past them.
CACHED_BYTES = 1 << 23


@dataclasses.dataclass(frozen=True)
class _Tile:
    """Rows, elements of a vector, and vectors in a row of a tile."""

    rows: int
    vector: int
    vectors: int

    @property
    def columns(self) -> int:
        return self.vector * self.vectors

    def macros(self, device: Device, ahead: int) -> dict[str, object]:
        return {"TILE_M": self.rows, "VECTOR": self.vector, "VECTORS": self.vectors,
                "AVX512": int(device.gemm.avx512), "AHEAD": ahead}

    def __str__(self) -> str:
        return f"tiles of {self.rows} x {self.vectors} vectors of {self.vector}"


class SkinnyProduct(abc.ABC):
    """C(M, N) of A and B as they lie, without memory of its own.

    Attributes
    ----------
    variant : which way it goes
    """

    variant: str
    scratch_bytes = 0

    @abc.abstractmethod
    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, bias: DeviceArray | None, alpha: float,
            beta: float) -> None:
        """C = alpha A B + bias + beta C."""


class RowsProduct(SkinnyProduct):
    """C = A B^T, both with K side by side; the shorter of M and N are the lanes, the other's rows pass by."""

    def __init__(self, device: Device, shape: GemmShape) -> None:
        m, n, k = shape.m, shape.n, shape.k
        self._lanes_are_a = m <= n
        lanes, rows = (m, n) if self._lanes_are_a else (n, m)
        tile = _rows_tile(device, lanes)
        blocks, units = -(-lanes // tile.columns), device.context.device.max_compute_units
        shares = max(1, min(-(-rows // tile.rows), units // math.gcd(blocks, units)))
        element_bytes = tile.columns * device.dtype.itemsize
        local_bytes = min(LOCAL_BYTES, device.context.device.local_mem_size)
        chunk = _even(k, max(1, local_bytes // element_bytes))
        self._items, self._local_bytes = blocks * shares, chunk * element_bytes
        # Lanes of A are rows of C, one below the other, and go along a column of it; lanes of B the other way.
        steps = (1, 0, rows, lanes, k, 1, n) if self._lanes_are_a else (0, 1, rows, lanes, k, n, 1)
        self._sizes = (*steps, chunk, shares)
        self._kernel = device.kernel("gemm_skinny.cl", "multiply_rows", "bbbbl" + "i" * 9 + "rr",
                                     tile.macros(device, ROWS_AHEAD), heavy=True)
        self.variant = f"rows pass by, {tile}"

    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, bias: DeviceArray | None, alpha: float,
            beta: float) -> None:
        rows, lanes = (b, a) if self._lanes_are_a else (a, b)
        self._kernel.run(self._items, rows, lanes, c, bias, self._local_bytes, *self._sizes, alpha, beta)


class ColumnsProduct(SkinnyProduct):
    """C = op(A) B, B with N side by side; either M or K is short."""

    def __init__(self, device: Device, shape: GemmShape, trans_a: bool) -> None:
        m, n, k = shape.m, shape.n, shape.k
        tile = _columns_tile(device, m, n)
        units, itemsize = device.context.device.max_compute_units, device.dtype.itemsize
        panels = -(-m // tile.rows)
        # A short M goes over B once, so that each row of a tile in B is used for all of M before the next.
        block = tile.rows if k <= MOST_K < m else panels * tile.rows
        by_rows = panels >= units and k * n * itemsize <= CACHED_BYTES
        shares = (units, 1) if by_rows else (1, max(1, min(units, -(-n // tile.columns))))
        chunk = k if k <= MOST_K else CHUNK_K
        self._items, self._local_bytes = math.prod(shares), chunk * block * itemsize
        self._sizes = (*((1, m) if trans_a else (k, 1)), m, n, k, chunk, block, *shares,
                       int(m * n * itemsize > CACHED_BYTES))
        self._kernel = device.kernel("gemm_skinny.cl", "multiply_columns", "bbbbl" + "i" * 10 + "rr",
                                     tile.macros(device, COLUMNS_AHEAD), heavy=True)
        self.variant = f"columns pass by, {tile}"

    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, bias: DeviceArray | None, alpha: float,
            beta: float) -> None:
        self._kernel.run(self._items, a, b, c, bias, self._local_bytes, *self._sizes, alpha, beta)


def skinny(device: Device, shape: GemmShape, trans_a: bool, trans_b: bool) -> SkinnyProduct | None:
    """Return the product of a shape and transpositions that one of the ways here is for, or None."""
    m, n, k = shape.m, shape.n, shape.k
    if not device.gemm.strip or not m * n * k:
        return None
    if trans_b:
        return RowsProduct(device, shape) if not trans_a and min(m, n) <= MOST_LANES else None
    if n >= 2 and (k <= MOST_K if trans_a else m <= MOST_ROWS):
        return ColumnsProduct(device, shape, trans_a)
    return None


def _even(count: int, most: int) -> int:
    """The length of pieces of at most `most` that are about equal."""
    return -(-count // -(-count // most))


def _rows_tile(device: Device, lanes: int) -> _Tile:
    full, sums = _registers(device)
    vector = min(full, max(2, 1 << (lanes - 1).bit_length()))
    vectors = min(4, -(-lanes // vector))
    # Eight rows are as many streams as a processor follows.
    return _Tile(min(8, sums // vectors), vector, vectors)


def _columns_tile(device: Device, m: int, n: int) -> _Tile:
    full, sums = _registers(device)
    vector = min(full, 1 << n.bit_length() - 1)
    if sums // 2 < m <= sums * 2 // 3:
        return _Tile(m, vector, 1)
    rows = _even(m, sums // 2)
    return _Tile(rows, vector, max(1, min(4, sums // rows, n // vector)))


def _registers(device: Device) -> tuple[int, int]:
    """Elements of a vector register, and how many of them hold sums beside what the sums are made of."""
    vector_bytes, sums = (64, 24) if device.gemm.avx512 else (32, 12)
    return min(vector_bytes, device.gemm.vector_bytes) // device.dtype.itemsize, sums
