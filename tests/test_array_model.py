"""The step-by-step array against the order of additions that it documents, written as loops over scalars."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barista.gemm.array_model import Mesh, ModelArray
from barista.gemm.tiles import TileSizes
from barista.precision.formats import FORMATS, NumberFormat

Array = npt.NDArray[Any]


def rounded(x: float) -> float:
    """To float32. The product of two float32 is exact in float64, so this rounds it once."""
    return float(np.float32(x))


def wrapped(x: int) -> int:
    """To 32 bits with a sign."""
    return (x + 2 ** 31) % 2 ** 32 - 2 ** 31


def entry(a: list[Any], b: list[Any], fmt: NumberFormat) -> Any:
    """One entry of C: interleaved partial sums, added up in order."""
    turn = wrapped if fmt.is_fixed else rounded
    sums = [turn(0)] * fmt.partial_sums
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        slot = k % fmt.partial_sums
        # A sum of two float32 in float64, rounded again, is the float32 sum: 53 >= 2 * 24 + 2 bits.
        sums[slot] = turn(sums[slot] + turn(x * y))
    total = sums[0]
    for partial in sums[1:]:
        total = turn(total + partial)
    return total


def operands(tiles: TileSizes, fmt: NumberFormat, counts: tuple[int, int, int], seed: int) -> tuple[Array, Array]:
    """Tiles over the whole range of integers, or floats of many magnitudes that cancel."""
    rng = np.random.default_rng(seed)
    nr, nc, np_ = counts
    made = []
    for shape in (tiles.a_shape(nr, np_), tiles.b_shape(nc, np_)):
        if fmt.is_fixed:
            made.append(rng.integers(fmt.lower, fmt.upper, shape, endpoint=True).astype(fmt.storage_dtype))
        else:
            made.append((rng.normal(size=shape) * 10.0 ** rng.integers(-4, 5, shape)).astype(np.float32))
    return made[0], made[1]


def multiply(tiles: TileSizes, fmt: NumberFormat, a_tiles: Array, b_tiles: Array) -> Array:
    nr, nc, np_ = len(a_tiles), len(b_tiles), a_tiles.shape[1]
    c_tiles = np.full(tiles.c_shape(nr, nc), 99, fmt.accumulator_dtype)
    times = ModelArray(tiles, fmt).multiply(a_tiles, b_tiles, c_tiles, nr, nc, np_)
    assert times.kernel > 0 and times.write == times.read == 0
    return c_tiles


@pytest.mark.parametrize("name", FORMATS)
@given(st.builds(TileSizes, st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)),
       st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 4)), st.integers(0, 1000))
def test_bit_for_bit(name: str, tiles: TileSizes, counts: tuple[int, int, int], seed: int) -> None:
    fmt = FORMATS[name]
    a_tiles, b_tiles = operands(tiles, fmt, counts, seed)
    c_tiles = multiply(tiles, fmt, a_tiles, b_tiles)
    for i, j, r, c in np.ndindex(c_tiles.shape):
        a, b = a_tiles[i, :, :, r].ravel().tolist(), b_tiles[j, :, :, c].ravel().tolist()
        assert c_tiles[i, j, r, c] == entry(a, b, fmt)


def test_the_order_matters() -> None:
    """Values for which another order, and a fused multiply-add, give other bits: the model is not one of those."""
    tiles, fmt = TileSizes(1, 1, 24), FORMATS["fp32"]
    a_tiles, b_tiles = operands(tiles, fmt, (1, 1, 8), 4)
    result = multiply(tiles, fmt, a_tiles, b_tiles).item()
    a, b = a_tiles.ravel(), b_tiles.ravel()
    in_order = np.float32(0)
    for x, y in zip(a, b, strict=True):
        in_order += x * y
    fused = np.zeros(fmt.partial_sums, np.float32)
    for k, (x, y) in enumerate(zip(a.astype(float), b.astype(float), strict=True)):
        fused[k % len(fused)] = fused[k % len(fused)] + x * y
    assert result != in_order
    assert result != np.add.accumulate(fused)[-1]


def test_integers_wrap() -> None:
    tiles, fmt = TileSizes(1, 1, 2), FORMATS["dfxp16"]
    lowest = np.full((1, 1, 2, 1), -32768, np.int16)
    assert multiply(tiles, fmt, lowest, lowest).item() == -2 ** 31


def test_infinities_pass() -> None:
    tiles, fmt = TileSizes(1, 2, 1), FORMATS["fp32"]
    huge = np.full((1, 1, 1, 1), 3e38, np.float32)
    result = multiply(tiles, fmt, huge, np.array([3e38, -3e38], np.float32).reshape(1, 1, 1, 2))
    assert result.ravel().tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("tiles", [TileSizes(1, 1, 1), TileSizes(4, 3, 5), TileSizes(2, 6, 1)])
def test_steps_are_those_of_equation_4_5(tiles: TileSizes) -> None:
    """np (Tp + Tr + Tc - 2) for a tile of C, before its partial sums are added up."""
    mesh = Mesh(tiles, FORMATS["fp32"], 1, 1)
    for _ in range(3):
        mesh.multiply(np.ones((1, tiles.tp, tiles.tr), np.float32), np.ones((1, tiles.tp, tiles.tc), np.float32))
    assert mesh.steps == 3 * (tiles.tp + tiles.tr + tiles.tc - 2)
    assert (mesh.result() == 3 * tiles.tp).all()
