"""Barista's array: one product in tiles (thesis, chapter 4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import ShapeError
from ...gemm.shapes import GemmShape
from ...gemm.tiles import TileSizes, tile_lanes, untile_c
from .settings import SimulatedRun, SimulatorSettings, as_float32


def simulate_gemm(a: npt.ArrayLike, b: npt.ArrayLike, tiles: TileSizes, settings: SimulatorSettings) -> SimulatedRun:
    """Compute A(M, K) B(K, N) on an array of Tr x Tc elements.

    The host cuts the matrices into tiles and puts the result together, which takes no time here; the tiles travel.

    Returns
    -------
    the run; its output is C(M, N)

    Raises
    ------
    ShapeError : no two matrices that can be multiplied
    MissingExtraError : Numba is not installed
    """
    from . import gemm_machine

    a, b = as_float32(a), as_float32(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or 0 in (*a.shape, *b.shape):
        raise ShapeError(f"simulate_gemm: A has shape {a.shape} and B {b.shape}; give A (M, K) and B (K, N), none of "
                         "them empty")
    nr, nc, np_ = tiles.counts(GemmShape(a.shape[0], b.shape[1], a.shape[1]))
    a_tiles = np.empty(tiles.a_shape(nr, np_), np.float32)
    b_tiles = np.empty(tiles.b_shape(nc, np_), np.float32)
    tile_lanes(a, a_tiles)
    tile_lanes(b.T, b_tiles)
    machine = gemm_machine.make_machine(a_tiles, b_tiles, tiles.tr, tiles.tc, settings)
    cycles, did = gemm_machine.run(machine)
    output = np.empty((a.shape[0], b.shape[1]), np.float32)
    untile_c(machine.c.reshape(tiles.c_shape(nr, nc)), output)
    _, busy, starved, blocked = ({name: int(count) for name, count in zip(gemm_machine.COMPONENTS, column, strict=True)}
                                 for column in did.T)
    return SimulatedRun(output, int(cycles), busy, starved, blocked, settings.transfer_s(a_tiles, b_tiles),
                        int(cycles) / settings.clock_hz, settings.transfer_s(machine.c))
