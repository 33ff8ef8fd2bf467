"""Barista's array, cycle by cycle: the same bits as its step-by-step model, and what holds it up."""

from __future__ import annotations

import dataclasses
import importlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.errors import MissingExtraError, ShapeError
from barista.gemm.array_model import ModelArray
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.gemm.tiles import TileSizes, tile_lanes, untile_c
from barista.latency.simulator.gemm_array import simulate_gemm
from barista.latency.simulator.settings import SimulatedRun, SimulatorSettings
from barista.latency.simulator.workloads import simulate_gemm_pass
from barista.latency.workload import Workload
from barista.precision.formats import number_format

# 64 words a cycle: reading a tile takes its latency and little more.
FAST = SimulatorSettings(clock_hz=250e6, dram_bytes_per_s=64 * 4 * 250e6)


def by_model(a: np.ndarray, b: np.ndarray, tiles: TileSizes) -> np.ndarray:
    """The product on the array that defines the order of additions."""
    counts = tiles.counts(GemmShape(a.shape[0], b.shape[1], a.shape[1]))
    nr, nc, np_ = counts
    a_tiles, b_tiles = np.empty(tiles.a_shape(nr, np_), np.float32), np.empty(tiles.b_shape(nc, np_), np.float32)
    c_tiles = np.empty(tiles.c_shape(nr, nc), np.float32)
    tile_lanes(a, a_tiles)
    tile_lanes(b.T, b_tiles)
    ModelArray(tiles, number_format("fp32")).multiply(a_tiles, b_tiles, c_tiles, *counts)
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    untile_c(c_tiles, out)
    return out


def simulate(m: int, n: int, k: int, tiles: TileSizes, chosen: SimulatorSettings = FAST) -> SimulatedRun:
    rng = np.random.default_rng(m * n * k)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    a[rng.random(a.shape) < 0.2] = 0
    run = simulate_gemm(a, b, tiles, chosen)
    np.testing.assert_array_equal(run.output, by_model(a, b, tiles))
    return run


@pytest.mark.parametrize(("shape", "tiles"), [
    ((1, 1, 1), TileSizes(1, 1, 1)), ((5, 7, 9), TileSizes(4, 3, 5)), ((8, 8, 64), TileSizes(8, 8, 16)),
    ((20, 50, 130), TileSizes(16, 16, 64)), ((3, 40, 2), TileSizes(2, 16, 30)), ((40, 3, 25), TileSizes(16, 2, 1))],
    ids=str)
def test_bits(shape: tuple[int, int, int], tiles: TileSizes) -> None:
    simulate(*shape, tiles)


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60)),
       st.builds(TileSizes, st.integers(1, 9), st.integers(1, 9), st.integers(1, 20)),
       st.floats(1e8, 1e11), st.integers(0, 60), st.integers(1, 32))
def test_bits_under_any_memory(shape: tuple[int, int, int], tiles: TileSizes, rate: float, latency: int,
                               band: int) -> None:
    chosen = dataclasses.replace(FAST, dram_bytes_per_s=rate, axi_latency_cycles=latency, band=band)
    run = simulate(*shape, tiles, chosen)
    nr, nc, np_ = tiles.counts(GemmShape(*shape))
    assert run.busy["mesh"] == nr * nc * np_ * (tiles.tp + tiles.tr + tiles.tc - 2)


# ---- time -------------------------------------------------------------------------------------------------


def test_steps_and_adding_up() -> None:
    """A tile of K takes Tp products and the way through the mesh; 11 sums are added up in 11 cycles each."""
    run = simulate(32, 48, 200, TileSizes(16, 16, 64))
    assert run.busy["mesh"] == 2 * 3 * 4 * (64 + 15 + 15)
    assert run.busy["add_up"] == 2 * 3 * 121


def test_fewer_sums_add_up_sooner() -> None:
    """With one cycle an addition, as in fixed point, two sums are added up in 4 cycles."""
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-9, 9, shape).astype(np.float32) for shape in ((16, 64), (64, 16)))
    run = simulate_gemm(a, b, TileSizes(16, 16, 64), dataclasses.replace(FAST, partial_sums=1))
    np.testing.assert_array_equal(run.output, a @ b)
    assert run.busy["add_up"] == 4


def test_fast_memory_hides_behind_the_mesh() -> None:
    """The mesh waits for the first tiles alone: 35 cycles and 32 words x 64 at 64 words a cycle."""
    run = simulate(16, 16, 640, TileSizes(16, 16, 64))
    assert run.starved["mesh"] <= 35 + 32 + 3
    assert run.cycles <= run.busy["mesh"] + run.busy["add_up"] + run.starved["mesh"] + 4 + 35 + 3


def test_slow_memory_holds_up_the_mesh() -> None:
    """At 8 words a cycle a product's tiles take 256 cycles and the latency, the mesh 94."""
    slow = dataclasses.replace(FAST, dram_bytes_per_s=8 * 4 * 250e6)
    run = simulate(16, 16, 640, TileSizes(16, 16, 64), slow)
    assert run.cycles >= 10 * (35 + 256)
    assert run.starved["mesh"] >= 9 * (35 + 256 - 94)


def test_memory_rate_is_shared() -> None:
    """In all no more than 16 words a cycle pass, whatever the three ports want."""
    rate = dataclasses.replace(FAST, dram_bytes_per_s=16 * 4 * 250e6, axi_latency_cycles=0)
    run = simulate(64, 64, 64, TileSizes(16, 16, 16), rate)
    words = 16 * (4 * (16 + 16) * 16 + 256)
    assert run.cycles >= words / 16


def test_transfers_are_of_tiles() -> None:
    linked = dataclasses.replace(FAST, pcie_bytes_per_s=1e9)
    run = simulate(5, 7, 9, TileSizes(4, 3, 5), linked)
    # A: 2 x 2 tiles of 20 words, B: 3 x 2 of 15, C: 2 x 3 of 12; in packets of 256 bytes.
    assert run.host_to_device_s == pytest.approx((2 + 2) * 256e-9)
    assert run.device_to_host_s == pytest.approx(2 * 256e-9)
    assert run.total_s == pytest.approx(run.cycles / 250e6 + 6 * 256e-9)


def test_pass_of_a_convolution() -> None:
    geometry = ConvolutionGeometry(3, 4, 6, (6, 6), (3, 3), (1, 1), (0, 0), (1, 1), 2)
    run, count = simulate_gemm_pass(Workload("conv", Pass.GRAD_INPUT, geometry), TileSizes(8, 8, 8), FAST)
    assert count == 3 * 2 and run.output.shape == (2 * 9, 16)


# ---- errors -----------------------------------------------------------------------------------------------


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"A has shape \(2, 3\) and B \(4, 5\)"):
        simulate_gemm(np.zeros((2, 3)), np.zeros((4, 5)), TileSizes(2, 2, 2), FAST)


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "barista.latency.simulator.compiled", raising=False)
    with pytest.raises(MissingExtraError, match=r"the cycle-level simulator needs the package 'numba'.*\[simulate\]"):
        importlib.import_module("barista.latency.simulator.compiled")
