"""The refined latency models, against the simulator and beside the plain ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from barista.errors import UnsupportedError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.gemm.tiles import TileSizes
from barista.latency.conv_model import COMPONENTS, ConvAssumptions, conv_latency
from barista.latency.gemm_model import GemmAssumptions, gemm_latency
from barista.latency.networks import network_workloads
from barista.latency.refined import refined_conv_latency, refined_gemm_latency
from barista.latency.simulator.settings import SimulatorSettings
from barista.latency.simulator.workloads import simulate_conv_pass, simulate_gemm_pass
from barista.latency.workload import Workload

CONV = ConvAssumptions()
GEMM = GemmAssumptions(clock_hz=250e6, dram_bytes_per_s=30e9, pcie_bytes_per_s=10e9)
# What neither network has: few products for many rows, groups, more rows than filters, odd steps.
ODD = [ConvolutionGeometry(3, 10, 4, (17, 23), (1, 1), (1, 1), (0, 0), (1, 1), 2),
       ConvolutionGeometry(2, 14, 13, (3, 7), (2, 2), (2, 2), (1, 1), (1, 1)),
       ConvolutionGeometry(2, 20, 22, (9, 19), (7, 7), (1, 1), (1, 1), (1, 1)),
       ConvolutionGeometry(1, 10, 28, (23, 11), (5, 5), (3, 3), (1, 1), (1, 1))]


def workloads() -> list[Workload]:
    return [work for name in ("lenet", "cifar10_full") for work in network_workloads(name, 2)]


@pytest.mark.parametrize("sizes", [(16, 16), (32, 8), (64, 16)], ids=str)
def test_convolutions_against_the_simulator(sizes: tuple[int, int]) -> None:
    errors = []
    for work in workloads():
        predicted = int(refined_conv_latency(work.geometry, work.pass_, *sizes, CONV).total_cycles)
        errors.append(predicted / simulate_conv_pass(work, *sizes, SimulatorSettings()).cycles - 1)
    assert np.mean(np.abs(errors)) < 0.02
    assert min(errors) > -0.02 and max(errors) < 0.1
    # Two computations that know nothing of one another.
    assert 0 not in errors


@pytest.mark.parametrize("geometry", ODD, ids=lambda g: "x".join(map(str, (*g.input, *g.kernel))))
def test_odd_convolutions_against_the_simulator(geometry: ConvolutionGeometry) -> None:
    for pass_ in Pass:
        for x, y in ((50, 40), (3, 64), (64, 2), (16, 40)):
            predicted = int(refined_conv_latency(geometry, pass_, x, y, CONV).total_cycles)
            run = simulate_conv_pass(Workload("odd", pass_, geometry), x, y, SimulatorSettings())
            assert -0.03 < predicted / run.cycles - 1 < 0.25, (pass_, x, y)


@pytest.mark.parametrize("tiles", [TileSizes(16, 16, 64), TileSizes(32, 32, 64)], ids=str)
def test_products_against_the_simulator(tiles: TileSizes) -> None:
    settings = SimulatorSettings(clock_hz=250e6, dram_bytes_per_s=30e9)
    errors = []
    for work in workloads():
        (shape, _), = work.gemms()
        predicted = float(refined_gemm_latency(shape.m, shape.n, shape.k, tiles.tr, tiles.tc, tiles.tp, GEMM).kernel_s)
        errors.append(predicted / simulate_gemm_pass(work, tiles, settings)[0].kernel_s - 1)
    assert np.mean(np.abs(errors)) < 0.03
    assert min(errors) > -0.02 and max(errors) < 0.1
    assert 0 not in errors


def test_parts_add_up() -> None:
    for pass_ in Pass:
        found = refined_conv_latency(ODD[0], pass_, [16, 50], 40, CONV)
        assert set(found.components) == {*COMPONENTS, "start", "stall", "drain"}
        assert np.all(found.total_cycles > sum(found.components[name] for name in ("start", "stall", "drain")))
        np.testing.assert_allclose(found.kernel_s, found.total_cycles / 100e6)


def test_never_below_the_busiest_component() -> None:
    """What all pieces of INP and all of the array's steps take cannot be undercut, but for INP that runs ahead."""
    for work in workloads():
        plain = conv_latency(work.geometry, work.pass_, 16, 16, CONV)
        refined = refined_conv_latency(work.geometry, work.pass_, 16, 16, CONV)
        assert refined.total_cycles >= plain.components["sa"]
        assert refined.total_cycles >= plain.components["kern_decode"]


def test_broadcasting_is_a_loop() -> None:
    x, y = np.array([1, 7, 16, 64])[:, None], np.array([2, 16, 40])
    for pass_ in Pass:
        whole = refined_conv_latency(ODD[1], pass_, x, y, CONV).total_cycles
        each = [[int(refined_conv_latency(ODD[1], pass_, a, b, CONV).total_cycles) for b in y.tolist()]
                for a in x[:, 0].tolist()]
        np.testing.assert_array_equal(whole, each)
    tiles = np.array([4, 16, 32])
    whole_s = refined_gemm_latency(100, 200, 300, tiles, tiles, 64, GEMM).total_s
    np.testing.assert_allclose(whole_s, [float(refined_gemm_latency(100, 200, 300, t, t, 64, GEMM).total_s)
                                         for t in tiles.tolist()])


def test_whole_is_its_stages() -> None:
    linked = dataclasses.replace(CONV, pcie_bytes_per_s=1e9, pcie_latency_s=1e-5, launch_s=2e-5, reconfiguration_s=0.1)
    found = refined_conv_latency(ODD[0], Pass.FORWARD, 16, 16, linked)
    stages = (found.reconfiguration_s, found.host_to_device_s, found.launch_s, found.kernel_s, found.device_to_host_s)
    assert found.total_s == pytest.approx(sum(map(float, stages)))
    beside = refined_conv_latency(ODD[0], Pass.FORWARD, 16, 16, dataclasses.replace(linked, overlap=True))
    transfers_s = float(found.host_to_device_s + found.device_to_host_s)
    assert beside.total_s == pytest.approx(float(found.total_s) - min(transfers_s, float(found.kernel_s)))
    product = refined_gemm_latency(50, 60, 70, 16, 16, 64, dataclasses.replace(GEMM, tiling_bytes_per_s=1e9))
    plain = gemm_latency(50, 60, 70, 16, 16, 64, dataclasses.replace(GEMM, tiling_bytes_per_s=1e9))
    assert product.total_s - product.kernel_s == pytest.approx(float(plain.total_s - plain.kernel_s))
    assert product.kernel_s > plain.kernel_s


def test_errors_are_those_of_the_plain_models() -> None:
    with pytest.raises(UnsupportedError, match="x=0 is below 1"):
        refined_conv_latency(ODD[0], Pass.FORWARD, 0, 4, CONV)
    with pytest.raises(UnsupportedError, match="tr=0 is below 1"):
        refined_gemm_latency(1, 1, 1, 0, 1, 1, GEMM)
