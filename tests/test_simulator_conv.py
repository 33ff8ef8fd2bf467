"""FPGPT's array, cycle by cycle: what it computes, and what its components do meanwhile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.errors import ShapeError, UnsupportedError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.latency.simulator.conv_array import simulate_conv
from barista.latency.simulator.conv_layout import group_roles, operand_shapes, stored_products, windows
from barista.latency.simulator.settings import SimulatedRun, SimulatorSettings
from barista.latency.simulator.workloads import convolve, simulate_conv_pass
from barista.latency.workload import Workload

SETTINGS = SimulatorSettings()

# batch, C, D, input, kernel, stride, pad, dilation, group
GEOMETRIES = {
    "plain": ConvolutionGeometry(2, 3, 5, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    "strides, groups": ConvolutionGeometry(2, 4, 6, (11, 10), (3, 2), (2, 3), (1, 0), (1, 1), 2),
    "dilated": ConvolutionGeometry(2, 4, 6, (11, 10), (3, 2), (2, 1), (2, 2), (2, 1)),
    "pointwise": ConvolutionGeometry(1, 3, 6, (6, 6), (1, 1), (1, 1), (0, 0), (1, 1)),
    "kernel smaller than its step": ConvolutionGeometry(1, 3, 6, (6, 6), (1, 1), (2, 2), (0, 0), (1, 1)),
    "more padding than kernel": ConvolutionGeometry(1, 2, 3, (3, 4), (2, 2), (1, 1), (3, 3), (1, 1)),
    "one word": ConvolutionGeometry(1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
}


def operands(geometry: ConvolutionGeometry, pass_: Pass) -> tuple[np.ndarray, np.ndarray]:
    """INP and KERN: both signs, and zeros."""
    rng = np.random.default_rng(3)
    inp, kern = (rng.integers(-4, 5, shape).astype(np.float32) for shape in operand_shapes(geometry, pass_)[:2])
    return inp, kern


def expected(inp: np.ndarray, kern: np.ndarray, g: ConvolutionGeometry, pass_: Pass) -> np.ndarray:
    """What the loop references say: INP and KERN are x and w, dy and w, or x and dy."""
    how = (g.stride, g.pad, g.dilation, g.group)
    if pass_ is Pass.FORWARD:
        return references.convolution(inp, kern, None, *how)
    if pass_ is Pass.GRAD_INPUT:
        return references.convolution_gradients(np.zeros(g.x_shape), kern, inp, *how)[0]
    return references.convolution_gradients(inp, np.zeros(g.w_shape), kern, *how)[1]


def simulate(geometry: ConvolutionGeometry, pass_: Pass, x: int, y: int,
             chosen: SimulatorSettings = SETTINGS) -> SimulatedRun:
    """Whole numbers are added up without rounding, so results are equal, not close."""
    inp, kern = operands(geometry, pass_)
    run = simulate_conv(inp, kern, geometry, pass_, x, y, chosen)
    np.testing.assert_array_equal(run.output, expected(inp, kern, geometry, pass_))
    return run


@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize("sizes", [(1, 1), (3, 20), (7, 4), (16, 16), (64, 3)], ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_values(name: str, sizes: tuple[int, int], pass_: Pass) -> None:
    run = simulate(GEOMETRIES[name], pass_, *sizes)
    assert 0 < max(run.busy.values()) <= run.cycles


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_values_of_any_convolution(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, group = pair(1, 4), data.draw(st.integers(1, 2))
    dilation = pair(1, 2)
    size = tuple(d * (k - 1) + 1 + more for d, k, more in zip(dilation, kernel, pair(0, 6), strict=True))
    geometry = ConvolutionGeometry(data.draw(st.integers(1, 3)), group * data.draw(st.integers(1, 4)),
                                   group * data.draw(st.integers(1, 6)), size, kernel, pair(1, 3), pair(0, 3), dilation,
                                   group)
    chosen = dataclasses.replace(SETTINGS, band=data.draw(st.integers(1, 20)), fifo_depth=data.draw(st.integers(2, 9)),
                                 axi_latency_cycles=data.draw(st.integers(0, 50)),
                                 burst_beats=data.draw(st.sampled_from([1, 16, 256])),
                                 outstanding=data.draw(st.integers(1, 4)))
    for pass_ in Pass:
        simulate(geometry, pass_, data.draw(st.integers(1, 20)), data.draw(st.integers(1, 12)), chosen)


# ---- time -------------------------------------------------------------------------------------------------


def test_every_product_takes_its_cycle() -> None:
    """LeNet's conv1 on 16 x 16: 36 sets of 16 positions, 2 blocks of 16 filters, 2 images, 25 products each."""
    geometry = ConvolutionGeometry(2, 1, 20, (28, 28), (5, 5), (1, 1), (0, 0), (1, 1))
    run = simulate(geometry, Pass.FORWARD, 16, 16)
    blocks = 2 * 2
    assert run.busy["inp_im2col"] == 25 * 36 * blocks
    # The last row works 15 products behind the first, and a word of OUT is added up in 8 cycles.
    assert run.busy["sa"] == (25 * 36 + 15 + 8) * blocks
    # All of KERN is kept, a word a cycle, then fed.
    assert run.busy["kern_decode"] == 20 * 25
    assert run.busy["kern_feed"] == 20 * 25 + (25 * 36 + 15) * blocks
    assert run.busy["out_ddr"] == 2 * 20 * 24 * 24 / 16


def test_components_account_for_every_cycle() -> None:
    run = simulate(GEOMETRIES["plain"], Pass.GRAD_WEIGHT, 4, 4)
    for name, busy in run.busy.items():
        assert busy + run.starved[name] + run.blocked[name] <= run.cycles, name


def test_reading_inp_holds_up_the_array() -> None:
    """1 x 1: a piece of INP takes 3 bursts of 16 beats and gives the array one product."""
    run = simulate(ConvolutionGeometry(1, 32, 8, (8, 8), (1, 1), (1, 1), (0, 0), (1, 1)), Pass.FORWARD, 16, 8)
    pieces = 32 * 4
    assert run.busy["inp_ddr"] <= 48 * pieces
    assert run.starved["sa"] > 40 * pieces


def test_array_holds_up_reading() -> None:
    """Few positions, many products: INP's FIFOs fill up and its reader stands."""
    run = simulate(ConvolutionGeometry(1, 4, 8, (20, 20), (9, 9), (1, 1), (0, 0), (1, 1)), Pass.FORWARD, 16, 8)
    assert run.blocked["inp_ddr"] > 100


@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
def test_more_latency_takes_longer(pass_: Pass) -> None:
    quick, slow = (simulate(GEOMETRIES["plain"], pass_, 4, 4, dataclasses.replace(SETTINGS, axi_latency_cycles=cycles))
                   for cycles in (0, 300))
    # At least once on the way in and once on the way out.
    assert slow.cycles >= quick.cycles + 600


def test_one_burst_at_a_time_pays_each_latency() -> None:
    narrow = dataclasses.replace(SETTINGS, outstanding=1)
    geometry = ConvolutionGeometry(1, 32, 8, (8, 8), (1, 1), (1, 1), (0, 0), (1, 1))
    ahead, waiting = (simulate(geometry, Pass.FORWARD, 16, 8, chosen) for chosen in (SETTINGS, narrow))
    bursts = 3 * 32 * 4
    assert waiting.cycles > ahead.cycles + 30 * (bursts - 3)


def test_kern_is_kept_before_the_array_begins() -> None:
    run = simulate(ConvolutionGeometry(1, 8, 32, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)), Pass.FORWARD, 16, 16)
    assert run.starved["sa"] > 8 * 32 * 9


def test_transfers() -> None:
    linked = dataclasses.replace(SETTINGS, pcie_bytes_per_s=1e9, pcie_latency_s=2e-6)
    run = simulate(GEOMETRIES["plain"], Pass.FORWARD, 4, 4, linked)
    # Whole packets of 256 bytes: x and w there, y back.
    assert run.host_to_device_s == pytest.approx(2e-6 + (7 + 3) * 256e-9)
    assert run.device_to_host_s == pytest.approx(2e-6 + 12 * 256e-9)
    assert run.kernel_s == run.cycles / 100e6
    assert run.total_s == pytest.approx(run.host_to_device_s + run.kernel_s + run.device_to_host_s)
    assert simulate(GEOMETRIES["plain"], Pass.FORWARD, 4, 4).host_to_device_s == 0


# ---- layout -----------------------------------------------------------------------------------------------


def test_window_of_the_thesis() -> None:
    """Fig. 5.4a: X = 5 positions, a kernel of 3 x 3 that moves by 3 on 12 x 12."""
    geometry = ConvolutionGeometry(1, 3, 1, (12, 12), (3, 3), (3, 3), (0, 0), (1, 1))
    inp, kern = operands(geometry, Pass.FORWARD)
    view = windows(group_roles(inp, kern, geometry, Pass.FORWARD, 0), 5)
    assert (view.z, view.z_channel) == (37, 63)


def test_zeros_between_words_of_kern() -> None:
    geometry = ConvolutionGeometry(1, 1, 1, (5, 5), (3, 3), (2, 2), (0, 0), (1, 1))
    inp, kern = operands(geometry, Pass.GRAD_WEIGHT)
    assert stored_products(group_roles(inp, kern, geometry, Pass.GRAD_WEIGHT, 0)).tolist() == [
        0, -1, 1, -1, -1, -1, 2, -1, 3]


@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_reference(name: str, pass_: Pass) -> None:
    """What whole passes are checked against."""
    inp, kern = operands(GEOMETRIES[name], pass_)
    np.testing.assert_array_equal(convolve(inp, kern, GEOMETRIES[name], pass_),
                                  expected(inp, kern, GEOMETRIES[name], pass_))


def test_whole_pass_is_checked() -> None:
    run = simulate_conv_pass(Workload("conv", Pass.GRAD_WEIGHT, GEOMETRIES["plain"]), 4, 4, SETTINGS)
    assert run.output.shape == GEOMETRIES["plain"].w_shape


# ---- errors -----------------------------------------------------------------------------------------------


def test_wrong_shape() -> None:
    geometry = GEOMETRIES["plain"]
    with pytest.raises(ShapeError, match=r"KERN of forward has shape \(1, 2, 3, 3\), the geometry asks for \(5, 3"):
        simulate_conv(np.zeros(geometry.x_shape), np.zeros((1, 2, 3, 3)), geometry, Pass.FORWARD, 4, 4, SETTINGS)


def test_three_axes() -> None:
    geometry = ConvolutionGeometry(1, 1, 1, (4, 4, 4), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1))
    with pytest.raises(UnsupportedError, match="3 spatial axes; the array is made for 2"):
        simulate_conv(np.zeros(geometry.x_shape), np.zeros(geometry.w_shape), geometry, Pass.FORWARD, 4, 4, SETTINGS)


def test_no_output() -> None:
    geometry = ConvolutionGeometry(1, 1, 1, (2, 2), (3, 3), (1, 1), (0, 0), (1, 1))
    with pytest.raises(UnsupportedError, match="the output is 0x0; lower the kernel"):
        simulate_conv(np.zeros(geometry.x_shape), np.zeros(geometry.w_shape), geometry, Pass.FORWARD, 4, 4, SETTINGS)


def test_no_columns() -> None:
    with pytest.raises(UnsupportedError, match="simulate_conv: x is 0; give a whole number, 1 or above"):
        simulate(GEOMETRIES["plain"], Pass.FORWARD, 0, 4)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"band": 0}, "simulator: band is 0"), ({"fifo_depth": 1}, "fifo_depth is 1; give a whole number, 2 or above"),
    ({"clock_hz": 0.0}, "clock_hz is 0.0"), ({"pcie_latency_s": -1.0}, "pcie_latency_s is -1.0"),
    ({"dram_bytes_per_s": float("nan")}, "dram_bytes_per_s is nan")])
def test_wrong_settings(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        SimulatorSettings(**wrong)
