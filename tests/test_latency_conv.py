"""The latency model of FPGPT's array: reference values, its bounds by brute force, its properties, what it refuses."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from barista.errors import UnsupportedError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.hardware.board import load_board
from barista.latency.conv_model import BINDING, COMPONENTS, Compiled, ConvAssumptions, ConvLatency, conv_latency
from barista.latency.conv_roles import conv_roles, line_buffer

VECTORS = Path(__file__).parent / "latency" / "conv_vectors.csv"
PLAIN = ConvAssumptions()
PRINTED = ConvAssumptions(reading="printed")
STAGES = ("reconfiguration_s", "host_to_device_s", "launch_s", "kernel_s", "device_to_host_s", "total_s")


def square(batch: int, channels: int, filters: int, size: int, kernel: int, stride: int = 1, pad: int = 0,
           **others: Any) -> ConvolutionGeometry:
    return ConvolutionGeometry(batch, channels, filters, (size, size), (kernel, kernel), (stride, stride), (pad, pad),
                               others.pop("dilation", (1, 1)), **others)


def pair(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


# Sides that differ, strides beyond the kernel, pads beyond it too, and dilated kernels.
geometries = st.builds(ConvolutionGeometry, batch=st.integers(1, 3), in_channels=st.integers(1, 3).map(lambda c: 2 * c),
                       out_channels=st.integers(1, 3).map(lambda d: 2 * d), input=pair(1, 8), kernel=pair(1, 4),
                       stride=pair(1, 3), pad=pair(0, 3), dilation=pair(1, 2), group=st.sampled_from([1, 2])
                       ).filter(lambda g: min(g.output) > 0)
passes = st.sampled_from(Pass)
readings = st.sampled_from([PLAIN, PRINTED])


def rows() -> list[dict[str, str]]:
    with VECTORS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_reference_values() -> None:
    """Every component and both bounds, in both readings, exactly."""
    assert len(rows()) == 240
    for row in rows():
        cell = {name: int(value) for name, value in row.items() if name not in ("pass", "reading")}
        geometry = ConvolutionGeometry(
            cell["batch"], cell["in_channels"], cell["out_channels"], (cell["in_h"], cell["in_w"]),
            (cell["kernel"],) * 2, (cell["stride"],) * 2, (cell["pad"],) * 2, (1, 1))
        found = conv_latency(geometry, Pass(row["pass"]), cell["X"], cell["Y"],
                             ConvAssumptions(band=cell["BAND"], reading=row["reading"]))
        figures = {"Z": found.z, "Z_channel": found.z_channel, **found.components, "total": found.total_cycles}
        assert {name: int(value) for name, value in figures.items()} == {name: cell[name] for name in figures}, row


def test_line_buffer_of_the_thesis() -> None:
    """Fig. 5.4a: X = 5, kernels of 3 x 3 at stride 3 on 12 x 12."""
    roles = conv_roles(square(1, 3, 1, 12, 3, 3), Pass.FORWARD)
    assert [int(words) for words in line_buffer(roles, 5)] == [37, 63]


def read_words(geometry: ConvolutionGeometry, pass_: Pass) -> list[list[int | None]]:
    """For each position of OUT the words of a plane of INP that it multiplies, tap by tap; None for a zero."""
    g = geometry
    (h, w), (out_h, out_w), (kernel_h, kernel_w) = g.input, g.output, g.kernel
    pixels = [(y, x) for y in range(out_h) for x in range(out_w)]
    taps = [(y, x) for y in range(kernel_h) for x in range(kernel_w)]

    def of_x(out: tuple[int, int], tap: tuple[int, int]) -> int | None:
        y, x = (o * s - p + t * d for o, s, p, t, d in zip(out, g.stride, g.pad, tap, g.dilation, strict=True))
        return y * w + x if 0 <= y < h and 0 <= x < w else None

    def of_dy(place: tuple[int, int], tap: tuple[int, int]) -> int | None:
        y, x = (i + p - t * d for i, p, t, d in zip(place, g.pad, tap, g.dilation, strict=True))
        if y % g.stride[0] or x % g.stride[1]:
            return None
        y, x = y // g.stride[0], x // g.stride[1]
        return y * out_w + x if 0 <= y < out_h and 0 <= x < out_w else None

    if pass_ is Pass.FORWARD:
        return [[of_x(pixel, tap) for tap in taps] for pixel in pixels]
    if pass_ is Pass.GRAD_WEIGHT:
        return [[of_x(pixel, tap) for pixel in pixels] for tap in taps]
    return [[of_dy((y, x), tap) for tap in taps] for y in range(h) for x in range(w)]


def span(words: list[int | None]) -> int:
    """From the first to the last word, both included."""
    there = [word for word in words if word is not None]
    return max(there) - min(there) + 1 if there else 0


@given(geometries, passes, st.integers(1, 12))
def test_line_buffer_holds_what_is_read(geometry: ConvolutionGeometry, pass_: Pass, x: int) -> None:
    words = read_words(geometry, pass_)
    sets = [words[start:start + x] for start in range(0, len(words), x)]
    at_once = max(span([position[tap] for position in each]) for each in sets for tap in range(len(words[0])))
    in_all = max(span([word for position in each for word in position]) for each in sets)
    roles = conv_roles(geometry, pass_)
    z, z_channel = (int(found) for found in line_buffer(roles, x))
    assert max(1, at_once) <= z <= roles.inp[0] * roles.inp[1]
    assert max(z, in_all) <= z_channel


@given(geometries, passes)
def test_roles(geometry: ConvolutionGeometry, pass_: Pass) -> None:
    """OUT's words are those of the pass, and all multiply-accumulates without KERN's zeros are done."""
    roles = conv_roles(geometry, pass_)
    shape = {Pass.FORWARD: geometry.y_shape, Pass.GRAD_INPUT: geometry.x_shape, Pass.GRAD_WEIGHT: geometry.w_shape}
    assert roles.groups * roles.out_n * roles.out_c * roles.positions == int(np.prod(shape[pass_]))
    work = roles.groups * roles.stored_products * roles.positions * roles.kern_n * roles.batches
    if pass_ is not Pass.GRAD_INPUT:
        assert work == geometry.macs
    assert roles.products >= roles.stored_products


@given(geometries, passes, readings, st.lists(st.integers(1, 70), min_size=1, max_size=4),
       st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_arrays_are_loops(geometry: ConvolutionGeometry, pass_: Pass, given_: ConvAssumptions, xs: list[int],
                          ys: list[int]) -> None:
    found = conv_latency(geometry, pass_, np.array(xs)[:, None], np.array(ys), given_)
    assert found.total_cycles.dtype == np.int64
    for row, x in enumerate(xs):
        for column, y in enumerate(ys):
            one = conv_latency(geometry, pass_, x, y, given_)
            for name in COMPONENTS:
                assert found.components[name].shape == (len(xs), len(ys))
                assert found.components[name][row, column] == one.components[name]
            for name in ("z", "z_channel", "total_cycles", "binds", "binding", *STAGES):
                assert getattr(found, name)[row, column] == getattr(one, name), name


@given(geometries, passes, readings, st.integers(1, 70), st.integers(1, 30))
def test_the_slowest_component_binds(geometry: ConvolutionGeometry, pass_: Pass, given_: ConvAssumptions, x: int,
                                     y: int) -> None:
    found = conv_latency(geometry, pass_, x, y, given_)
    assert all(cycles > 0 for cycles in found.components.values())
    assert found.total_cycles == max(found.components[name] for name in BINDING)
    assert COMPONENTS[int(found.binds)] == str(found.binding) != "inp_decode"
    assert found.components[str(found.binding)] == found.total_cycles
    assert float(found.kernel_s) == float(found.total_cycles) / given_.clock_hz == float(found.total_s)


@given(geometries, passes, readings, st.integers(1, 40), st.integers(1, 20), st.integers(1, 3))
def test_more_images_take_no_less(geometry: ConvolutionGeometry, pass_: Pass, given_: ConvAssumptions, x: int, y: int,
                                  more: int) -> None:
    less = conv_latency(geometry, pass_, x, y, given_)
    most = conv_latency(dataclasses.replace(geometry, batch=geometry.batch + more), pass_, x, y, given_)
    assert all(less.components[name] <= most.components[name] for name in COMPONENTS)


@given(geometries, passes, readings, st.integers(1, 40), st.integers(1, 20))
def test_groups_add_up(geometry: ConvolutionGeometry, pass_: Pass, given_: ConvAssumptions, x: int, y: int) -> None:
    assume(geometry.group == 2)
    one = dataclasses.replace(geometry, in_channels=geometry.in_channels // 2,
                              out_channels=geometry.out_channels // 2, group=1)
    found, half = (conv_latency(each, pass_, x, y, given_) for each in (geometry, one))
    assert all(found.components[name] == 2 * half.components[name] for name in COMPONENTS)
    assert (found.z, found.z_channel) == (half.z, half.z_channel)


def test_dilated_kernel() -> None:
    """A dilated kernel feeds zeros, as one that is stored with them would; it is read without them."""
    spread = square(2, 3, 4, 12, 5)
    dilated = square(2, 3, 4, 12, 3, dilation=(2, 2))
    found, stored = (conv_latency(each, Pass.FORWARD, 8, 4, PLAIN) for each in (dilated, spread))
    for name in ("inp_ddr", "inp_construct", "inp_im2col", "sa", "out_construct", "out_encode", "out_ddr"):
        assert found.components[name] == stored.components[name], name
    assert int(found.components["kern_decode"]) == 4 * 3 * 9


def test_compiled_for_more() -> None:
    """A bitstream that several convolutions share reads and groups what the largest of them needs."""
    geometry = square(2, 3, 8, 14, 3, pad=1)
    own = conv_latency(geometry, Pass.FORWARD, 8, 4, PLAIN)
    same = conv_latency(geometry, Pass.FORWARD, 8, 4, PLAIN, Compiled(own.z, own.z_channel))
    assert same.components == own.components
    larger = conv_latency(geometry, Pass.FORWARD, 8, 4, PLAIN, Compiled(z_channel=17 * 16 * 16))
    assert int(larger.components["inp_ddr"]) == 256 * 3 * (3 * 25 * 2 * 2)  # 272 beats: 3 bursts of 256
    assert larger.components["sa"] == own.components["sa"] and larger.z == own.z
    weights = square(2, 3, 8, 14, 3, pad=1)
    read = conv_latency(weights, Pass.GRAD_WEIGHT, 8, 4, PLAIN, Compiled(kern_words=300 * 16))
    assert int(read.components["kern_ddr"]) == 256 * 3 * (3 * 2)
    with pytest.raises(UnsupportedError, match=r"bitstream with z_channel=5 is too small for .*, which needs 38;"):
        conv_latency(geometry, Pass.FORWARD, 8, 4, PLAIN, Compiled(z_channel=5))


@pytest.mark.parametrize("pass_", Pass)
def test_transfers(pass_: Pass) -> None:
    """Whole tensors travel, whatever the groups; overlapped, the longer of kernel and transfers counts."""
    geometry = square(2, 4, 6, 9, 3, 2, 1, group=2)
    x, w, y = 2 * 4 * 81, 6 * 2 * 9, 2 * 6 * 25
    read, written = {Pass.FORWARD: (x + w, y), Pass.GRAD_INPUT: (y + w, x), Pass.GRAD_WEIGHT: (x + y, w)}[pass_]
    given_ = ConvAssumptions(pcie_bytes_per_s=1e8, pcie_latency_s=1e-5, word_bits=16, launch_s=0.5,
                             reconfiguration_s=2.0)
    found = conv_latency(geometry, pass_, 4, 3, given_)
    assert float(found.host_to_device_s) == pytest.approx(1e-5 + 2 * read / 1e8)
    assert float(found.device_to_host_s) == pytest.approx(1e-5 + 2 * written / 1e8)
    transfers = float(found.host_to_device_s + found.device_to_host_s)
    assert float(found.total_s) == pytest.approx(2.5 + transfers + float(found.kernel_s))
    beside = conv_latency(geometry, pass_, 4, 3, dataclasses.replace(given_, overlap=True))
    assert float(beside.total_s) == pytest.approx(2.5 + max(transfers, float(found.kernel_s)))


def test_design_space_of_a_layer() -> None:
    """All 12,424 arrays for a layer in one call."""
    x, y = np.meshgrid(np.arange(1, 342), np.arange(1, 97))
    legal = (x * y >= 4) & (x * y <= 4096)
    found = conv_latency(square(32, 32, 96, 28, 5, pad=2), Pass.FORWARD, x[legal], y[legal], PLAIN)
    assert isinstance(found, ConvLatency)
    assert found.total_s.shape == (12424,)
    assert len(set(found.binding)) > 1


def test_assumptions_of_a_board() -> None:
    board = load_board("u250")
    given_ = ConvAssumptions.of(board)
    assert (given_.band, given_.word_bits, given_.clock_hz) == (16, 32, 100e6)
    assert given_.pcie_bytes_per_s == board.pcie_bytes_per_s
    wide = ConvAssumptions.of(dataclasses.replace(board, port_bits_per_cycle=256, axi_latency_cycles=20), "dfxp8",
                              clock_hz=2e8)
    assert (wide.band, wide.word_bits, wide.clock_hz, wide.axi_latency_cycles) == (32, 8, 2e8, 20)


@pytest.mark.parametrize(("changes", "message"), [
    ({"band": 0}, "FPGPT model: band is 0; give a whole number, 1 or above"),
    ({"band": 16.0}, "band is 16.0; give a whole number"),
    ({"clock_hz": -1.0}, "clock_hz is -1.0; give a finite number above 0"),
    ({"pcie_bytes_per_s": 0.0}, "pcie_bytes_per_s is 0.0; give"),
    ({"launch_s": float("nan")}, "launch_s is nan; give a finite number, 0 or above"),
    ({"axi_latency_cycles": -1}, "axi_latency_cycles is -1; give a whole number, 0 or above"),
    ({"reading": "print"}, "reading 'print' is not known; did you mean 'printed'? known: corrected, printed")])
def test_senseless_assumptions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        ConvAssumptions(**changes)
    assert message in str(caught.value)


LINE = ConvolutionGeometry(1, 2, 2, (8,), (3,), (1,), (0,), (1,))
CUBE = ConvolutionGeometry(1, 2, 2, (8, 8, 8), (3, 3, 3), (1, 1, 1), (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(("geometry", "x", "y", "message"), [
    (square(1, 1, 1, 8, 3), 0, 4, "conv_latency: x=0 is below 1 (1 of 1 values)"),
    (square(1, 1, 1, 8, 3), 4, [3, 0], "y=0 is below 1 (1 of 2 values)"),
    (square(1, 1, 1, 8, 3), 4.0, 4, "x is 4.0; give a whole number"),
    (square(1, 1, 1, 8, 3), [1, 2], [1, 2, 3], "x (2,), y (3,) do not broadcast"),
    (LINE, 4, 4, "a convolution of 8 has 1 spatial axes; the array is made for 2"),
    (CUBE, 4, 4, "a convolution of 8x8x8 has 3 spatial axes; the array is made for 2, use the GEMM model"),
    (square(1, 1, 1, 4, 7, pad=1), 4, 4, "a kernel of 7x7 exceeds the input of 4x4, padded by 1x1: there is no")])
def test_senseless_sizes(geometry: ConvolutionGeometry, x: Any, y: Any, message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        conv_latency(geometry, Pass.FORWARD, x, y, PLAIN)
    assert message in str(caught.value)
