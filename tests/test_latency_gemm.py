"""The latency model of Barista's array: reference values, its properties, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barista.errors import UnsupportedError
from barista.gemm.batching import batched_gemms
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.hardware.board import load_board
from barista.latency.gemm_model import GemmAssumptions, GemmLatency, gemm_latency, pass_latency
from barista.latency.integers import align, ceil_div
from barista.latency.workload import Workload

VECTORS = Path(__file__).parent / "latency" / "gemm_vectors.csv"
PLAIN = GemmAssumptions(clock_hz=250e6, dram_bytes_per_s=30e9, pcie_bytes_per_s=10e9)

size = st.integers(1, 300)
tile = st.integers(1, 80)
products = st.tuples(size, size, size, tile, tile, tile)
seconds = st.sampled_from([0.0, 1e-5, 0.2])
rates = st.sampled_from([None, 1e8, 3e9])
assumptions = st.builds(
    GemmAssumptions, clock_hz=st.sampled_from([1e8, 3e8]), dram_bytes_per_s=st.sampled_from([3e9, 3e10]),
    pcie_bytes_per_s=st.sampled_from([4.57e9, 1.6e10]), word_bits=st.sampled_from([8, 12, 16, 32]),
    result_bits=st.sampled_from([None, 32]), partial_sums=st.integers(0, 12), pcie_latency_s=seconds,
    padding=st.sampled_from(["none", "output", "once", "tiles"]), overlap=st.booleans(), tiling_bytes_per_s=rates,
    untiling_bytes_per_s=rates, launch_s=seconds, reconfiguration_s=seconds)


def rows() -> list[dict[str, float]]:
    with VECTORS.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_reference_values() -> None:
    """The cycles exactly, the seconds to 1e-12."""
    assert len(rows()) == 60
    for row in rows():
        found = gemm_latency(*(int(row[name]) for name in ("R", "C", "P", "Tr", "Tc", "Tp")), GemmAssumptions(
            row["f_hz"], row["mem_bytes_per_s"], row["pcie_bytes_per_s"], int(row["word_bits"]), int(row["S"])))
        assert int(found.compute_cycles) == row["cycles"], row
        for name, column in (("memory_s", "mem_s"), ("pcie_s", "pcie_s"), ("kernel_s", "kernel_s"),
                             ("total_s", "total_s")):
            assert float(getattr(found, name)) == pytest.approx(row[column], rel=1e-12, abs=0), (name, row)


def test_by_hand() -> None:
    """M, N, K of 5, 3, 9 in tiles of 2, 3, 4: 3 x 1 tiles of C, 3 steps along K."""
    found = gemm_latency(5, 3, 9, 2, 3, 4, PLAIN)
    assert int(found.compute_cycles) == 3 * 1 * (3 * (4 + 2 + 3 - 2) + 11 * 11)
    assert float(found.memory_s) == pytest.approx(4 * 3 * ((2 + 3) * 9 + 6) / 30e9)
    assert float(found.host_to_device_s) == pytest.approx(4 * (5 * 9 + 3 * 9) / 10e9)
    assert float(found.device_to_host_s) == pytest.approx(4 * 15 / 10e9)


@pytest.mark.parametrize(("padding", "sent", "returned"), [
    ("none", 5 * 9 + 3 * 9, 5 * 3), ("output", 6 * 9 + 3 * 9, 6 * 3),
    ("once", 6 * 12 + 3 * 12, 6 * 3),
    ("tiles", 6 * 12 + 3 * 12 + 6 * 3 + 3, 6 * 12 + 3 * 12 + 6 * 3 + 3)])
def test_padding(padding: str, sent: int, returned: int) -> None:
    """Words over PCIe; with whole tiles three parameters travel too, and all of it both ways."""
    found = gemm_latency(5, 3, 9, 2, 3, 4, dataclasses.replace(PLAIN, padding=padding))
    assert float(found.host_to_device_s) == pytest.approx(4 * sent / 10e9)
    assert float(found.device_to_host_s) == pytest.approx(4 * returned / 10e9)


def test_stages_of_the_host() -> None:
    """Tiles are padded whatever travels; C's words may be longer than those of A and B."""
    found = gemm_latency(5, 3, 9, 2, 3, 4, dataclasses.replace(
        PLAIN, word_bits=8, result_bits=32, tiling_bytes_per_s=1e9, untiling_bytes_per_s=2e9, pcie_latency_s=0.5,
        launch_s=0.25, reconfiguration_s=3.0))
    assert float(found.tiling_s) == pytest.approx((6 * 12 + 3 * 12) / 1e9)
    assert float(found.untiling_s) == pytest.approx(4 * 6 * 3 / 2e9)
    assert float(found.memory_s) == pytest.approx(3 * (5 * 9 + 4 * 6) / 30e9)
    assert float(found.pcie_s) == pytest.approx(2 * 0.5 + (5 * 9 + 3 * 9 + 4 * 15) / 10e9)
    assert float(found.total_s) == pytest.approx(3.0 + 0.25 + sum(
        float(getattr(found, name)) for name in ("tiling_s", "pcie_s", "kernel_s", "untiling_s")))


@given(products, assumptions)
def test_stages_add_up(sizes: tuple[int, ...], given_: GemmAssumptions) -> None:
    found = {name: float(value) for name, value in gemm_latency(*sizes, given_)._asdict().items()}
    assert min(found.values()) >= 0
    assert found["kernel_s"] == max(found["compute_s"], found["memory_s"]) > 0
    assert found["pcie_s"] == found["host_to_device_s"] + found["device_to_host_s"]
    apart = sum(found[name] for name in ("reconfiguration_s", "tiling_s", "launch_s", "untiling_s"))
    together = max(found["pcie_s"], found["kernel_s"])
    assert found["total_s"] == pytest.approx(
        apart + (together if given_.overlap else found["pcie_s"] + found["kernel_s"]), rel=1e-12)


@given(products, assumptions, st.integers(0, 2), st.integers(1, 50))
def test_larger_products_take_no_less(sizes: tuple[int, ...], given_: GemmAssumptions, axis: int, more: int) -> None:
    larger = list(sizes)
    larger[axis] += more
    for name, less, most in zip(GemmLatency._fields, gemm_latency(*sizes, given_), gemm_latency(*larger, given_),
                                strict=True):
        assert less <= most, name


@given(products, assumptions)
def test_padding_adds(sizes: tuple[int, ...], given_: GemmAssumptions) -> None:
    none, output, once, tiles = (float(gemm_latency(*sizes, dataclasses.replace(given_, padding=padding)).pcie_s)
                                 for padding in ("none", "output", "once", "tiles"))
    assert none <= output <= once < tiles


@given(st.lists(products, min_size=1, max_size=4), st.lists(st.tuples(tile, tile, tile), min_size=1, max_size=3),
       assumptions)
def test_arrays_are_loops(shapes: list[tuple[int, ...]], tiles: list[tuple[int, int, int]],
                          given_: GemmAssumptions) -> None:
    m, n, k = (np.array([shape[axis] for shape in shapes])[:, None] for axis in range(3))
    tr, tc, tp = (np.array([each[axis] for each in tiles]) for axis in range(3))
    found = gemm_latency(m, n, k, tr, tc, tp, given_)
    assert found.compute_cycles.dtype == np.int64
    for row, shape in enumerate(shapes):
        for column, each in enumerate(tiles):
            for name, value in gemm_latency(*shape[:3], *each, given_)._asdict().items():
                whole = getattr(found, name)
                assert whole.shape == (len(shapes), len(tiles)) and whole[row, column] == value, name


def test_sizes_beyond_32_bits() -> None:
    found = gemm_latency(np.int32(100_000), np.int32(100_000), np.int32(100_000), 1, 1, 1, PLAIN)
    assert int(found.compute_cycles) == 100_000 ** 2 * (100_000 + 121)


def test_pass_is_the_sum_of_its_products() -> None:
    """Image by image and group by group, or several images a product; the bitstream is loaded once."""
    geometry = ConvolutionGeometry(6, 4, 8, (40, 40), (5, 5), (1, 1), (2, 2), (1, 1), group=2)
    given_ = dataclasses.replace(PLAIN, reconfiguration_s=1.5, launch_s=1e-4, pcie_latency_s=1e-5)
    once = dataclasses.replace(given_, reconfiguration_s=0.0)
    tr, tc, tp = np.array([16, 32]), np.array([16, 8]), 64
    for pass_ in Pass:
        workload = Workload("conv", pass_, geometry)
        assert workload.gemms() == [(geometry.gemm(pass_), 12)]
        for products_, shapes in (("image", workload.gemms()), ("batched", batched_gemms(geometry, pass_))):
            found = pass_latency(workload, tr, tc, tp, given_, products_)
            for index in range(2):
                parts = [(count, gemm_latency(shape.m, shape.n, shape.k, tr[index], tc[index], tp, once))
                         for shape, count in shapes]
                for name in GemmLatency._fields:
                    expected = sum(count * float(getattr(part, name)) for count, part in parts)
                    if name in ("total_s", "reconfiguration_s"):
                        expected += 1.5
                    assert float(getattr(found, name)[index]) == pytest.approx(expected, rel=1e-12), name


def test_workload() -> None:
    geometry = ConvolutionGeometry(3, 2, 5, (6, 7), (3, 3), (1, 1), (0, 0), (1, 1))
    workload = Workload("conv1", Pass.GRAD_INPUT, geometry)
    assert workload.name == "conv1 grad_input"
    assert workload.gemms() == [(GemmShape(18, 20, 5), 3)]
    assert workload.ops == 2 * sum(shape.macs * count for shape, count in workload.gemms())


def test_assumptions_of_a_board() -> None:
    """A fixed-point design travels in the words that it is stored in, adds in one cycle, and has sums of 32 bits."""
    board = load_board("vu9p_f1")
    float32 = GemmAssumptions.of(board)
    assert (float32.clock_hz, float32.dram_bytes_per_s, float32.pcie_bytes_per_s) == \
        (board.clock_hz, board.dram_bytes_per_s, board.pcie_bytes_per_s)
    assert (float32.word_bits, float32.bits_of_c, float32.partial_sums) == (32, 32, 10)
    fixed = GemmAssumptions.of(board, "dfxp12", clock_hz=3e8, overlap=True)
    assert (fixed.word_bits, fixed.bits_of_c, fixed.partial_sums, fixed.clock_hz) == (16, 32, 1, 3e8)
    assert fixed.overlap
    slow = GemmAssumptions.of(dataclasses.replace(board, pcie_latency_s=1e-4, launch_s=2e-4, tiling_bytes_per_s=1e9))
    assert (slow.pcie_latency_s, slow.launch_s, slow.tiling_bytes_per_s) == (1e-4, 2e-4, 1e9)


@given(st.integers(-50, 50), st.integers(1, 20))
def test_whole_numbers(a: int, b: int) -> None:
    up = int(ceil_div(a, b))
    assert up * b >= a > (up - 1) * b
    assert int(align(a, b)) == up * b


@pytest.mark.parametrize(("changes", "message"), [
    ({"clock_hz": 0.0}, "GEMM model: clock_hz is 0.0; give a finite number above 0"),
    ({"dram_bytes_per_s": float("nan")}, "dram_bytes_per_s is nan; give a finite number above 0"),
    ({"pcie_bytes_per_s": -1.0}, "pcie_bytes_per_s is -1.0; give"),
    ({"tiling_bytes_per_s": float("inf")}, "tiling_bytes_per_s is inf; give"),
    ({"pcie_latency_s": -1e-6}, "pcie_latency_s is -1e-06; give a finite number, 0 or above"),
    ({"word_bits": 0}, "word_bits is 0; give a whole number, 1 or above"),
    ({"word_bits": 32.0}, "word_bits is 32.0; give a whole number, 1 or above"),
    ({"partial_sums": -1}, "partial_sums is -1; give a whole number, 0 or above"),
    ({"padding": "tile"}, "padding 'tile' is not known; did you mean 'tiles'? known: none, output, once, tiles")])
def test_senseless_assumptions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        dataclasses.replace(PLAIN, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(("sizes", "message"), [
    ((0, 1, 1, 1, 1, 1), "gemm_latency: m=0 is below 1 (1 of 1 values)"),
    ((1, 1, 1, [4, -2, 0], 1, 1), "tr=-2 is below 1 (2 of 3 values)"),
    ((1, 1.5, 1, 1, 1, 1), "n is 1.5; give a whole number, or an array of them"),
    ((1, 1, True, 1, 1, 1), "k is True; give a whole number"),
    (([1, 2], 1, 1, [1, 2, 3], 1, 1), "do not broadcast; make them alike, or give each its own axis")])
def test_senseless_sizes(sizes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        gemm_latency(*sizes, PLAIN)
    assert message in str(caught.value)


def test_unknown_products() -> None:
    geometry = ConvolutionGeometry(1, 1, 1, (4, 4), (3, 3), (1, 1), (0, 0), (1, 1))
    with pytest.raises(UnsupportedError, match="products 'images' is not known; did you mean 'image'"):
        pass_latency(Workload("conv", Pass.FORWARD, geometry), 4, 4, 4, PLAIN, "images")
