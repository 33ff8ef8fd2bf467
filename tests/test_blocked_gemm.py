"""The blocked engine on arrays of tiles that need no device, against float64."""

from __future__ import annotations

import logging
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from barista.errors import OUT_OF_MEMORY, DataError, DeviceError, ShapeError
from barista.gemm import engine as engine_module
from barista.gemm import tiles as tiles_module
from barista.gemm.array_model import ModelArray
from barista.gemm.engine import BlockedGemm, StageTimes
from barista.gemm.shapes import GemmShape
from barista.gemm.tiles import TileSizes, Workspace
from barista.precision.formats import FORMATS, NumberFormat

Array = npt.NDArray[Any]
FP32 = FORMATS["fp32"]
TILES = TileSizes(3, 4, 5)
FIXED = [name for name, entry in FORMATS.items() if entry.is_fixed]


class QuickArray:
    """An array that lets NumPy sum, remembers its blocks, and fails where it is told to.

    Blocks of more than `capacity` tiles of A, B and C are out of memory. `offer` is what `begin` gives.
    """

    def __init__(self, tiles: TileSizes = TILES, fmt: NumberFormat = FP32, overlaps: bool = False,
                 capacity: int | None = None, offer: tuple[int, int] | None = None,
                 code: str = "MEM_OBJECT_ALLOCATION_FAILURE") -> None:
        self.name, self.tiles, self.format, self.overlaps = "quick", tiles, fmt, overlaps
        self.capacity, self.offer, self.code = capacity, offer, code
        self.blocks: list[tuple[int, int]] = []
        self.failures = self.begins = 0
        self.threads: set[threading.Thread] = set()
        self.seen: dict[int, bytes] = {}

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        self.begins += 1
        self.seen.clear()
        return self.offer or (nr, nc)

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        assert a_tiles.shape == self.tiles.a_shape(nr, np_) and b_tiles.shape == self.tiles.b_shape(nc, np_)
        assert c_tiles.shape == self.tiles.c_shape(nr, nc)
        assert all(x.flags.c_contiguous for x in (a_tiles, b_tiles, c_tiles)) and c_tiles.ctypes.data % 64 == 0
        self.threads.add(threading.current_thread())
        for operand in (a_tiles, b_tiles):
            for tile in operand:  # the promise that an address stands for contents until the next begin
                assert self.seen.setdefault(tile.ctypes.data, tile.tobytes()) == tile.tobytes()
        if self.capacity is not None and nr * np_ + nc * np_ + nr * nc > self.capacity:
            self.failures += 1
            raise DeviceError(f"quick: clCreateBuffer failed with {self.code} (-4)")
        self.blocks.append((nr, nc))
        wide = [x.astype(self.format.accumulator_dtype) for x in (a_tiles, b_tiles)]
        np.einsum("ipkr,jpkc->ijrc", *wide, out=c_tiles)
        return StageTimes(write=1.0, kernel=2.0, read=3.0)


def matrix(rng: np.random.Generator, rows: int, columns: int, layout: str = "plain") -> Array:
    """Both signs, zeros and terms that cancel."""
    numbers = rng.normal(size=(rows, columns)).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.1] = 0
    numbers[:, 1::2] = -numbers[:, :columns // 2 * 2:2] * np.float32(1.0001)
    if layout == "transposed":
        return numbers.T.copy().T
    if layout == "strided":
        whole = np.full((2 * rows, 3 * columns), np.nan, np.float32)
        whole[1::2, ::3] = numbers
        return whole[1::2, ::3]
    return numbers


def check(array: Any, shape: GemmShape, trans_a: bool = False, trans_b: bool = False, alpha: float = 1.0,
          beta: float = 0.0, layout: str = "plain", seed: int = 0) -> BlockedGemm:
    """Run twice, so that reused buffers are dirty, and compare with float64."""
    rng = np.random.default_rng(seed)
    engine = BlockedGemm(array, shape, trans_a, trans_b)
    for _ in range(2):
        a = matrix(rng, *((shape.k, shape.m) if trans_a else (shape.m, shape.k)), layout)
        b = matrix(rng, *((shape.n, shape.k) if trans_b else (shape.k, shape.n)), layout)
        c = matrix(rng, shape.m, shape.n, layout)
        wide_a, wide_b = (x.T.astype(float) if trans else x.astype(float) for x, trans in ((a, trans_a), (b, trans_b)))
        wanted = alpha * (wide_a @ wide_b) + (beta * c.astype(float) if beta else 0)
        terms = abs(alpha) * (np.abs(wide_a) @ np.abs(wide_b)) + abs(beta) * np.abs(c)
        if beta == 0:
            c[...] = np.nan
        engine.run(a, b, c, alpha, beta)
        assert_close(c, wanted, max(shape.k, 1), scale=float(terms.max(initial=0)))
    return engine


edges = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 9, 11])


@settings(max_examples=60, deadline=None)
@given(st.builds(GemmShape, edges, edges, edges), st.booleans(), st.booleans(), st.sampled_from([1.0, -0.5, 0.0]),
       st.sampled_from([0.0, 1.0, 0.25]), st.sampled_from(["plain", "transposed", "strided"]), st.integers(0, 99))
def test_model_against_float64(shape: GemmShape, trans_a: bool, trans_b: bool, alpha: float, beta: float, layout: str,
                               seed: int) -> None:
    check(ModelArray(TILES, FP32), shape, trans_a, trans_b, alpha, beta, layout, seed)


@settings(max_examples=60, deadline=None)
@given(st.builds(GemmShape, st.integers(1, 40), st.integers(1, 40), st.integers(1, 30)), st.booleans(),
       st.one_of(st.none(), st.integers(5, 60)), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 99))
def test_any_blocks_give_the_same(shape: GemmShape, overlaps: bool, capacity: int | None, offer: tuple[int, int],
                                  seed: int) -> None:
    """Whatever the array takes at a time, with or without a second thread, and if it runs out of memory."""
    if capacity is not None:
        capacity = max(capacity, 2 * TILES.counts(shape)[2] + 1)  # a single tile of C fits
    array = QuickArray(overlaps=overlaps, capacity=capacity, offer=offer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "SMALLEST_BLOCK_MACS", 500)
        check(array, shape, trans_b=True, alpha=2.0, beta=0.5, seed=seed)
    nr, nc, _ = TILES.counts(shape)
    assert sum(rows * columns for rows, columns in array.blocks) == 2 * nr * nc


def test_one_block_where_nothing_overlaps() -> None:
    array = QuickArray()
    check(array, GemmShape(30, 40, 10))
    assert array.blocks == [(10, 10), (10, 10)]


@pytest.mark.parametrize(("shape", "blocks"), [(GemmShape(12, 64, 10), [(4, 4)] * 4),
                                               (GemmShape(96, 16, 10), [(8, 4)] * 4)])
def test_the_longer_side_is_cut(shape: GemmShape, blocks: list[tuple[int, int]],
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SMALLEST_BLOCK_MACS", 1)
    array = QuickArray(overlaps=True)
    check(array, shape)
    assert array.blocks == 2 * blocks
    assert threading.current_thread() not in array.threads


def test_small_products_stay_whole() -> None:
    array = QuickArray(overlaps=True)
    check(array, GemmShape(30, 40, 10))
    assert array.blocks == [(10, 10), (10, 10)] and array.threads == {threading.current_thread()}


def test_the_next_block_is_tiled_while_the_array_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array that does not finish a block before the host has laid out the next one."""
    tiled = threading.Semaphore(0)
    tile_lanes = tiles_module.tile_lanes

    def noting(lanes: Array, out: Array) -> None:
        tile_lanes(lanes, out)
        if lanes.shape != (6, 10):  # A is laid out once, B block by block
            tiled.release()

    class Waiting(QuickArray):
        def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
            wanted = 2 if not self.blocks else 1 if len(self.blocks) < 3 else 0
            for _ in range(wanted):
                assert tiled.acquire(timeout=20), "the host waits for the array before it tiles the next block"
            return super().multiply(a_tiles, b_tiles, c_tiles, nr, nc, np_)

    monkeypatch.setattr(engine_module, "SMALLEST_BLOCK_MACS", 1)
    monkeypatch.setattr(tiles_module, "tile_lanes", noting)
    array = Waiting(overlaps=True)
    rng = np.random.default_rng(1)
    a, b, c = matrix(rng, 6, 10), matrix(rng, 10, 64), np.empty((6, 64), np.float32)
    BlockedGemm(array, GemmShape(6, 64, 10)).run(a, b, c)
    assert len(array.blocks) == 4
    assert_close(c, a.astype(float) @ b.astype(float), 10, scale=30.0)


@pytest.mark.parametrize("shape", [GemmShape(1, 70, 9), GemmShape(33, 2, 20), GemmShape(64, 64, 33)], ids=str)
def test_two_threads_lay_out_what_one_does(monkeypatch: pytest.MonkeyPatch, shape: GemmShape) -> None:
    threads = set()
    tile_lanes = tiles_module.tile_lanes

    def noting(lanes: Array, out: Array) -> None:
        threads.add(threading.current_thread())
        tile_lanes(lanes, out)

    monkeypatch.setattr(tiles_module, "tile_lanes", noting)
    monkeypatch.setattr(engine_module, "SHARED_WORDS", 1)
    check(QuickArray(), shape)
    assert len(threads) >= 2


# ---- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("code", OUT_OF_MEMORY)
def test_too_little_memory(code: str, overlaps: bool, caplog: pytest.LogCaptureFixture,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SMALLEST_BLOCK_MACS", 1)
    array = QuickArray(capacity=30, overlaps=overlaps, code=code)
    with caplog.at_level(logging.WARNING):
        engine = check(array, GemmShape(30, 40, 10))
    assert array.failures == len(caplog.records) > 0
    assert array.begins == 2 + array.failures  # once a call, and again after each failure
    assert "quick: too little memory for 10 x" in caplog.text and code in caplog.text
    failures = array.failures
    engine.run(np.ones((30, 10), np.float32), np.ones((10, 40), np.float32), np.empty((30, 40), np.float32))
    assert array.failures == failures, "the limit is remembered"


def test_not_even_one_tile_fits() -> None:
    array = QuickArray(capacity=4)
    with pytest.raises(DeviceError, match="MEM_OBJECT_ALLOCATION_FAILURE"):
        check(array, GemmShape(30, 40, 10))
    assert array.blocks == []


@pytest.mark.parametrize("overlaps", [False, True])
def test_other_faults_pass(overlaps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SMALLEST_BLOCK_MACS", 1)
    array = QuickArray(capacity=1, code="DEVICE_NOT_AVAILABLE", overlaps=overlaps)
    with pytest.raises(DeviceError, match="DEVICE_NOT_AVAILABLE"):
        check(array, GemmShape(30, 40, 10))
    assert array.failures == 1


@pytest.mark.parametrize(("name", "shapes"), [("A", ((4, 3), (3, 5), (4, 5))), ("B", ((3, 4), (5, 3), (4, 5))),
                                              ("C", ((3, 4), (3, 5), (5, 4)))])
def test_wrong_shapes(name: str, shapes: tuple[tuple[int, int], ...]) -> None:
    engine = BlockedGemm(QuickArray(), GemmShape(4, 5, 3), trans_a=True)
    with pytest.raises(ShapeError, match=rf"GEMM M=4 N=5 K=3 on quick: {name} has shape .*expected"):
        engine.run(*(np.ones(shape, np.float32) for shape in shapes))


# ---- zeros ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "alpha"), [(0, 1.0), (6, 0.0)])
def test_nothing_to_multiply(k: int, alpha: float) -> None:
    """C is scaled, or zeroed whatever it held; neither A nor B is read."""
    array = QuickArray()
    engine = BlockedGemm(array, GemmShape(2, 3, k))
    a, b = np.full((2, k), np.nan, np.float32), np.full((k, 3), np.nan, np.float32)
    c = np.full((2, 3), 4, np.float32)
    assert engine.run(a, b, c, alpha, 0.5).total == 0
    assert (c == 2).all()
    c[...] = np.nan
    engine.run(a, b, c, alpha, 0.0)
    assert (c == 0).all() and array.begins == 0


def test_nan_passes_in_fp32() -> None:
    a, b, c = np.ones((4, 7), np.float32), np.ones((7, 5), np.float32), np.empty((4, 5), np.float32)
    a[2, 3] = np.nan
    BlockedGemm(ModelArray(TILES, FP32), GemmShape(4, 5, 7)).run(a, b, c)
    assert np.isnan(c[2]).all() and (c[[0, 1, 3]] == 7).all()


# ---- stages and memory ------------------------------------------------------------------------------------


def test_stage_times() -> None:
    assert StageTimes(1, 2, 3, 4, 5) + StageTimes(tiling=10) == StageTimes(11, 2, 3, 4, 5)
    assert StageTimes(1, 2, 3, 4, 5).total == 15
    engine = check(QuickArray(offer=(5, 10)), GemmShape(30, 40, 10))  # two calls of two blocks
    assert (engine.times.write, engine.times.kernel, engine.times.read) == (4, 8, 12)
    assert engine.times.tiling > 0 and engine.times.untiling > 0


def test_engines_share_a_workspace() -> None:
    workspace = Workspace()
    large, small = GemmShape(30, 40, 10), GemmShape(7, 9, 11)
    engines = [BlockedGemm(QuickArray(), shape, workspace=workspace) for shape in (large, small)]
    for _ in range(2):
        for engine, shape in zip(engines, (large, small), strict=True):
            a, b = np.ones((shape.m, shape.k), np.float32), np.ones((shape.k, shape.n), np.float32)
            c = np.empty((shape.m, shape.n), np.float32)
            engine.run(a, b, c)
            assert (c == shape.k).all()
    held = workspace.size_bytes
    assert held >= engines[0].workspace_bytes
    engines[0].run(np.ones((30, 10)), np.ones((10, 40)), np.empty((30, 40)))
    assert workspace.size_bytes == held


# ---- fixed point ------------------------------------------------------------------------------------------


def reference_integers(x: Array, bits: int) -> tuple[list[list[int]], int]:
    """Eq. 3.4 and 3.5 with exact fractions, rounding to nearest."""
    upper = 2 ** (bits - 1) - 1
    s = next(s for s in range(100, -100, -1)
             if all(-upper - Fraction(3, 2) <= Fraction(v) * Fraction(2) ** s <= upper + Fraction(1, 2)
                    for v in x.ravel().tolist()))
    return [[min(max(round(Fraction(v) * Fraction(2) ** s), -upper - 1), upper) for v in row] for row in x.tolist()], s


@pytest.mark.parametrize("name", FIXED)
@settings(max_examples=25, deadline=None)
@given(st.builds(GemmShape, st.integers(1, 7), st.integers(1, 9), st.integers(1, 6)), st.integers(-20, 20),
       st.integers(0, 99))
def test_fixed_point_against_fractions(name: str, shape: GemmShape, magnitude: int, seed: int) -> None:
    """Every bit of the result follows from the quantised operands.

    The sums are too short to reach 32 bits, so the scales are those of Eq. 3.4.
    """
    bits = FORMATS[name].bits
    if bits == 16:
        shape = GemmShape(shape.m, shape.n, 1)
    rng = np.random.default_rng(seed)
    a = matrix(rng, shape.m, shape.k) * np.float32(2.0 ** magnitude) + np.float32(0.001)
    b = matrix(rng, shape.k, shape.n) - np.float32(0.001)
    (a_integers, a_s), (b_integers, b_s) = reference_integers(a, bits), reference_integers(b, bits)
    product = np.array(a_integers, object) @ np.array(b_integers, object)
    wanted = np.array([[float(3 * Fraction(int(v)) / Fraction(2) ** (a_s + b_s)) for v in row] for row in product])
    c = np.full((shape.m, shape.n), np.nan)
    BlockedGemm(ModelArray(TILES, FORMATS[name]), shape).run(a, b, c, alpha=3.0)
    np.testing.assert_array_equal(c, wanted)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("stochastic", [False, True])
def test_fixed_point_is_near_the_truth(name: str, stochastic: bool) -> None:
    """K = 800 of both signs: the error of an entry is at most sqrt(K) steps of each operand, with a wide margin."""
    rng = np.random.default_rng(2)
    a, b = matrix(rng, 5, 800), rng.normal(size=(800, 6)).astype(np.float32)
    c, before = np.ones((5, 6), np.float32), np.ones((5, 6))
    BlockedGemm(QuickArray(fmt=FORMATS[name]), GemmShape(5, 6, 800),
                rng=np.random.default_rng(3) if stochastic else None).run(a, b, c, alpha=0.5, beta=-2.0)
    error = np.abs(c - (0.5 * (a.astype(float) @ b.astype(float)) - 2 * before)).max()
    # Guarding the sums of 16-bit words costs 2 bits or so at this length.
    step = 4.0 / 2 ** (min(FORMATS[name].bits, 14) - 1)
    assert 0 < error < 4 * np.sqrt(800) * step


def test_stochastic_rounding_can_be_repeated() -> None:
    rng = np.random.default_rng(2)
    a, b = matrix(rng, 5, 80), matrix(rng, 80, 6)
    results = []
    for seed in (1, 1, 2):
        c = np.empty((5, 6), np.float32)
        engine = BlockedGemm(QuickArray(fmt=FORMATS["dfxp8"]), GemmShape(5, 6, 80), rng=np.random.default_rng(seed))
        engine.run(a, b, c)
        results.append(c)
    assert (results[0] == results[1]).all() and (results[0] != results[2]).any()


def test_nan_is_refused_in_fixed_point() -> None:
    a, b = np.full((2, 2), np.nan, np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(DataError, match="dfxp8: a matrix of shape"):
        BlockedGemm(ModelArray(TILES, FORMATS["dfxp8"]), GemmShape(2, 2, 2)).run(a, b, np.empty((2, 2), np.float32))
