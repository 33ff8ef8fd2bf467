"""The semi-systolic array, step by step: slow, and the definition of what its kernels compute.

Tr x Tc processing elements stand in a mesh.  Element (i, j) holds entry (i, j) of a tile of C.  Values of A enter
at the left and move one element to the right each step, values of B enter at the top and move down; row i and
column j are fed i and j steps late, so that element (i, j) meets product k of a tile at step k + i + j:

            b[.,0] b[.,1] b[.,2]
               |      |      |
    a[0,.] -> PE --> PE --> PE
               |      |      |
    a[1,.] -> PE --> PE --> PE

A tile of K takes Tp + Tr + Tc - 2 steps; the tile of C stays in the mesh while its np tiles of K pass (thesis,
section 4.3 and Eq. 4.5).

The order of additions, which kernels keep bit for bit:

- An element has S + 1 partial sums, all zero at first (`NumberFormat.partial_sums`).  Product k, counted over all
  np * Tp steps, padding included, is added to sum ``k mod (S + 1)``, each k after the one before.
- In fp32 a product is rounded before it is added: no fused multiply-add.
- In fixed point the operands are widened to 32 bits, and products and sums wrap around.
- The result is ``((p[0] + p[1]) + p[2]) + ... + p[S]``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..precision.formats import NumberFormat
from .engine import StageTimes
from .tiles import TileSizes

Array = npt.NDArray[Any]


class Mesh:
    """The processing elements, for all tiles of C at once: the hardware takes these one after another.

    Parameters
    ----------
    tiles, fmt : tile sizes and number format
    nr, nc : tiles of C

    Attributes
    ----------
    steps : steps that one tile of C has taken so far
    """

    def __init__(self, tiles: TileSizes, fmt: NumberFormat, nr: int, nc: int) -> None:
        self._tp = tiles.tp
        dtype = fmt.accumulator_dtype
        # The value of A and of B that each element holds, [Tr][Tc][tile], and its partial sums.
        self._a = np.zeros((tiles.tr, tiles.tc, nr, 1), dtype)
        self._b = np.zeros((tiles.tr, tiles.tc, 1, nc), dtype)
        self._sums = np.zeros((fmt.partial_sums, tiles.tr, tiles.tc, nr, nc), dtype)
        self._row, self._column = np.indices((tiles.tr, tiles.tc))
        self._products = 0
        self.steps = 0

    def multiply(self, a_tile: Array, b_tile: Array) -> None:
        """Let one tile of K pass, a_tile [nr][Tp][Tr] and b_tile [nc][Tp][Tc]."""
        tr, tc = self._a.shape[:2]
        for step in range(self._tp + tr + tc - 2):
            self._shift(a_tile, b_tile, step)
            self._accumulate(step)
            self.steps += 1
        self._products += self._tp

    def _shift(self, a_tile: Array, b_tile: Array, step: int) -> None:
        """A moves right, B moves down; row i is fed value ``step - i`` of A, column j ``step - j`` of B, or 0."""
        self._a[:, 1:] = self._a[:, :-1].copy()
        self._b[1:, :] = self._b[:-1, :].copy()
        for i in range(len(self._a)):
            self._a[i, 0, :, 0] = a_tile[:, step - i, i] if 0 <= step - i < self._tp else 0
        for j in range(self._b.shape[1]):
            self._b[0, j, 0, :] = b_tile[:, step - j, j] if 0 <= step - j < self._tp else 0

    def _accumulate(self, step: int) -> None:
        """One multiply-accumulate in each element that holds a product of this tile."""
        k = step - self._row - self._column
        i, j = np.nonzero((k >= 0) & (k < self._tp))
        slot = (self._products + k[i, j]) % len(self._sums)
        products = self._a[i, j] * self._b[i, j]
        self._sums[slot, i, j] += products

    def result(self) -> Array:
        """Add up the partial sums: [nr][nc][Tr][Tc]."""
        total = self._sums[0].copy()
        for partial in self._sums[1:]:
            total += partial
        return total.transpose(2, 3, 0, 1)


class ModelArray:
    """The mesh as a `TileArray`: any engine runs on it with no device.

    Parameters
    ----------
    tiles, fmt : tile sizes and number format
    overlaps : what to tell the engine; either is correct
    """

    def __init__(self, tiles: TileSizes, fmt: NumberFormat, overlaps: bool = False) -> None:
        self.name = "model"
        self.tiles = tiles
        self.format = fmt
        self.overlaps = overlaps

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        """Any size at once."""
        return nr, nc

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        """Let the tiles pass through a mesh; there is nothing to write or read."""
        start = time.perf_counter()
        # Overflow is part of the definition: infinities in fp32, wrapping in fixed point.
        with np.errstate(over="ignore", invalid="ignore"):
            mesh = Mesh(self.tiles, self.format, nr, nc)
            for step in range(np_):
                mesh.multiply(a_tiles[:, step], b_tiles[:, step])
            c_tiles[...] = mesh.result()
        return StageTimes(kernel=time.perf_counter() - start)
