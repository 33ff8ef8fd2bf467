"""Tiling and untiling, against loops that follow the layouts' definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barista.errors import UnsupportedError
from barista.gemm.shapes import GemmShape
from barista.gemm.tiles import ALIGNMENT_BYTES, TileSizes, Workspace, aligned_empty, tile_lanes, untile_c

Array = npt.NDArray[Any]
tile_sizes = st.builds(TileSizes, st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
shapes = st.builds(GemmShape, st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
layouts = st.sampled_from(["plain", "transposed", "strided", "reversed"])
dtypes = st.sampled_from([np.float32, np.int8, np.int16])


def matrix(rows: int, columns: int, layout: str, dtype: npt.DTypeLike = np.float32) -> Array:
    """Distinct numbers of both signs, never 0, in memory as `layout` says."""
    numbers = np.arange(1, rows * columns + 1).reshape(rows, columns) * (-1) ** np.arange(columns, dtype=int)
    if layout == "transposed":
        return np.asarray(numbers.T, dtype).copy().T
    if layout == "strided":
        whole = np.full((2 * rows, 3 * columns), 77, dtype)
        whole[::2, ::3] = numbers
        return whole[::2, ::3]
    if layout == "reversed":
        return np.ascontiguousarray(numbers[::-1, ::-1]).astype(dtype)[::-1, ::-1]
    return numbers.astype(dtype)


def at(x: Array, i: int, j: int) -> Any:
    """Entry of a matrix that goes on with zeros."""
    return x[i, j] if i < x.shape[0] and j < x.shape[1] else 0


@given(tile_sizes, shapes, layouts, dtypes)
def test_tiles_follow_their_definition(tiles: TileSizes, shape: GemmShape, layout: str, dtype: type) -> None:
    nr, nc, np_ = tiles.counts(shape)
    a, b = matrix(shape.m, shape.k, layout, dtype), matrix(shape.k, shape.n, layout, dtype)
    a_tiles, b_tiles = np.full(tiles.a_shape(nr, np_), 99, dtype), np.full(tiles.b_shape(nc, np_), 99, dtype)
    tile_lanes(a, a_tiles)
    tile_lanes(b.T, b_tiles)
    for i, p, k, r in itertools.product(*map(range, a_tiles.shape)):
        assert a_tiles[i, p, k, r] == at(a, i * tiles.tr + r, p * tiles.tp + k)
    for j, p, k, c in itertools.product(*map(range, b_tiles.shape)):
        assert b_tiles[j, p, k, c] == at(b, p * tiles.tp + k, j * tiles.tc + c)


@given(tile_sizes, shapes, layouts, st.sampled_from([1.0, -0.5, 0.0]), st.sampled_from([0.0, 1.0, 2.0]),
       st.sampled_from([np.float32, np.int32]))
def test_untile(tiles: TileSizes, shape: GemmShape, layout: str, alpha: float, beta: float, dtype: type) -> None:
    nr, nc, _ = tiles.counts(shape)
    c_tiles = np.arange(-7, nr * nc * tiles.tr * tiles.tc - 7).reshape(tiles.c_shape(nr, nc)).astype(dtype)
    before = c_tiles.copy()
    out = matrix(shape.m, shape.n, layout)
    wanted = np.zeros((shape.m, shape.n))
    for i, j in np.ndindex(wanted.shape):
        tile = c_tiles[i // tiles.tr, j // tiles.tc]
        wanted[i, j] = alpha * float(tile[i % tiles.tr, j % tiles.tc]) + beta * float(out[i, j])
    if beta == 0:
        out[...] = np.nan
    untile_c(c_tiles, out, alpha, beta)
    np.testing.assert_array_equal(out, wanted)  # small integers and halves: exact
    np.testing.assert_array_equal(c_tiles, before)


def test_untile_writes_only_its_view() -> None:
    whole = np.full((5, 9), 7, np.float32)
    untile_c(np.ones((2, 2, 2, 3), np.float32), whole[1:4, 2:7])
    assert whole.sum() == 7 * (45 - 15) + 15


def test_large_integers_are_scaled_before_rounding() -> None:
    """2^31 - 1 needs more than float32 has; only the scaled result is rounded."""
    out = np.empty((1, 1))
    untile_c(np.full((1, 1, 1, 1), 2 ** 31 - 1, np.int32), out, 2.0 ** -31)
    assert out[0, 0] == 1 - 2.0 ** -31


def test_counts() -> None:
    assert TileSizes(16, 8, 64).counts(GemmShape(17, 8, 0)) == (2, 1, 0)


def test_parse() -> None:
    assert TileSizes.parse("16, 8,64") == TileSizes(16, 8, 64)
    assert str(TileSizes(16, 8, 64)) == "16,8,64"


@pytest.mark.parametrize(("text", "message"), [
    ("16,16", "'16,16' is not three integers Tr,Tc,Tp such as 16,16,64"),
    ("a,b,c", "is not three integers"),
    ("0,16,64", "tile 0,16,64: Tr=0 is outside 1 to 4096"),
    ("16,16,5000", "Tp=5000 is outside 1 to 4096"),
])
def test_bad_tiles(text: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        TileSizes.parse(text)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32])
def test_alignment(dtype: type) -> None:
    for shape in ((1,), (3, 5), (2, 3, 5, 7)):
        array = aligned_empty(shape, dtype)
        assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous
        assert array.ctypes.data % ALIGNMENT_BYTES == 0


def test_workspace_reuses_and_grows() -> None:
    workspace = Workspace()
    large = workspace.take("a", (10, 10), np.float32)
    small = workspace.take("a", (5, 5), np.int16)
    assert small.ctypes.data == large.ctypes.data and workspace.size_bytes == 400
    assert not np.shares_memory(workspace.take("b", (4,), np.float32), large)
    larger = workspace.take("a", (20, 10), np.float32)
    assert larger.nbytes == 800 and workspace.size_bytes == 816
