"""The HLS code of FPGPT's array in C-simulation: the cycle simulator's values bit for bit, its memories, its reads."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencl_device import empty, host, tensor
from test_simulator_conv import GEOMETRIES
from tolerances import assert_close

from barista.errors import DataError, DeviceError, ShapeError, UnsupportedError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.latency.conv_model import ConvAssumptions, conv_latency
from barista.latency.conv_roles import conv_roles, line_buffer
from barista.latency.networks import NETWORKS
from barista.latency.resources import conv_words
from barista.latency.simulator.conv_array import simulate_conv
from barista.latency.simulator.conv_layout import operand_shapes
from barista.latency.simulator.settings import SimulatorSettings
from barista.latency.simulator.workloads import convolve
from barista.ops.cpu import CpuOps
from barista.precision.formats import number_format
from barista.resources import find
from barista.synthesis.conv_array import SimulatedConv
from barista.synthesis.conv_design import ConvDesign
from barista.synthesis.conv_parameters import PASSES, ConvParameters, conv_parameters
from barista.synthesis.simulation import Library
from barista.synthesis.toolchain import build_library, build_testbench

Array = Any

hls = pytest.mark.hls
slow = pytest.mark.slow

SETTINGS = SimulatorSettings()
MORE = {
    "groups that share beats": ConvolutionGeometry(3, 4, 6, (3, 2), (2, 1), (1, 1), (0, 0), (1, 1), 2),
    "depthwise": ConvolutionGeometry(2, 5, 5, (6, 5), (3, 3), (1, 1), (1, 1), (1, 1), 5),
    "strides apart": ConvolutionGeometry(1, 2, 3, (13, 9), (3, 2), (3, 1), (1, 2), (1, 3)),
    "kernel right of the image": ConvolutionGeometry(1, 1, 2, (11, 9), (2, 2), (3, 2), (4, 7), (1, 1)),
    "few products": ConvolutionGeometry(2, 1, 9, (5, 7), (1, 2), (1, 1), (0, 0), (1, 1)),
}
ALL = {**GEOMETRIES, **MORE}
# X, Y: single elements; Z and both sizes below BAND and above; fewer products than rows.
SIZES = [(7, 4), (5, 20), *(pytest.param(size, marks=slow) for size in [(1, 1), (16, 16), (40, 3), (3, 33)])]
NETS = ("lenet", "cifar10_full", "resnet20_cifar10")


def every_pass(geometries: Any) -> list[tuple[ConvolutionGeometry, Pass]]:
    return list(itertools.product(geometries, Pass))


@functools.cache
def compiled(design: ConvDesign) -> SimulatedConv:
    return SimulatedConv(Library(build_library(design)), design)


def array_for(sizes: tuple[int, int], precision: str = "fp32", port_bits: int = 512) -> SimulatedConv:
    """All passes of all geometries on one library."""
    return compiled(ConvDesign.for_passes(*sizes, every_pass(ALL.values()), precision, port_bits))


def operands(geometry: ConvolutionGeometry, pass_: Pass, precision: str = "fp32") -> list[Array]:
    """INP and KERN: both signs, zeros; integers over their whole range, so that sums wrap around."""
    rng, fmt = np.random.default_rng(5), number_format(precision)
    words = []
    for shape in operand_shapes(geometry, pass_)[:2]:
        word = rng.integers(fmt.lower, fmt.upper + 1, shape) if fmt.is_fixed else rng.standard_normal(shape)
        words.append(np.where(rng.random(shape) < 0.1, 0, word).astype(fmt.storage_dtype))
    return words


def assert_same_bits(actual: Array, expected: Array) -> None:
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))


def run(array: SimulatedConv, geometry: ConvolutionGeometry, pass_: Pass) -> Array:
    """A pass in float32, whose bits are the cycle simulator's."""
    inp, kern = operands(geometry, pass_)
    output = array.run(geometry, pass_, inp, kern)
    design = array.design
    assert_same_bits(output, simulate_conv(inp, kern, geometry, pass_, design.x, design.y, SETTINGS).output)
    return output


# ---- values -----------------------------------------------------------------------------------------------


@hls
@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bits_of_the_simulator(sizes: tuple[int, int], name: str, pass_: Pass) -> None:
    array = array_for(sizes)
    run(array, ALL[name], pass_)
    for stream, use in array.report.streams.items():
        assert 1 <= use.most <= use.depth, stream


@hls
@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize(("sizes", "precision", "port_bits"), [
    ((7, 4), "dfxp8", 512), *(pytest.param(*design, marks=slow) for design in [
        ((3, 20), "dfxp12", 64), ((20, 5), "dfxp16", 128), ((4, 4), "dfxp14", 1024)])], ids=str)
def test_fixed_point_is_exact_and_wraps_around(sizes: tuple[int, int], precision: str, port_bits: int,
                                               pass_: Pass) -> None:
    array, wrapped = array_for(sizes, precision, port_bits), 0
    for geometry in ALL.values():
        inp, kern = operands(geometry, pass_, precision)
        exact = convolve(inp, kern, geometry, pass_).astype(np.int64)  # far below 2^53: no rounding
        expected = exact.astype(np.int32)
        wrapped += int(np.count_nonzero(exact != expected))
        np.testing.assert_array_equal(array.run(geometry, pass_, inp, kern), expected)
    assert wrapped > 0 or number_format(precision).bits < 16


@hls
@slow
@pytest.mark.parametrize("port_bits", [32, 128, 1024])
def test_any_width_of_port(port_bits: int) -> None:
    array = array_for((6, 5), port_bits=port_bits)
    for geometry, pass_ in every_pass(ALL.values()):
        run(array, geometry, pass_)


@hls
@settings(max_examples=40)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, group, dilation, pad = pair(1, 4), data.draw(st.integers(1, 3)), pair(1, 3), pair(0, 4)
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p + more)
                 for d, k, p, more in zip(dilation, kernel, pad, pair(0, 8), strict=True))
    geometry = ConvolutionGeometry(data.draw(st.integers(1, 3)), group * data.draw(st.integers(1, 4)),
                                   group * data.draw(st.integers(1, 6)), size, kernel, pair(1, 4), pad, dilation, group)
    # Sizes beyond what any of these convolutions needs: planes have at most 18 x 18 words.
    array = compiled(ConvDesign(6, 4, 326, 652, 2048, 1024))
    for pass_ in Pass:
        run(array, geometry, pass_)


@hls
@slow
@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize(("name", "x"), [("strides, groups", 11), ("more padding than kernel", 3)])
def test_least_design_of_a_pass(name: str, x: int, pass_: Pass) -> None:
    """Memories of exactly what one pass needs."""
    run(compiled(ConvDesign.for_passes(x, 3, [(ALL[name], pass_)])), ALL[name], pass_)


@hls
@slow
@pytest.mark.parametrize("net", NETS)
def test_every_convolution_of_a_net(net: str) -> None:
    """Batches of two: the simulator's bits, and what the CPU computes within the tolerance of the sum."""
    geometries = {convolution.geometry(2) for convolution in NETWORKS[net]}
    array = compiled(ConvDesign.for_passes(16, 16, every_pass(geometries)))
    ops = CpuOps(threads=1)
    for g in geometries:
        results = {pass_: run(array, g, pass_) for pass_ in Pass}
        convolution = ops.convolution(g)
        (x, w), (dy, _) = (operands(g, pass_) for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT))
        y, dx, dw = empty(*g.y_shape), empty(*g.x_shape), tensor(np.zeros(g.w_shape))
        convolution.forward(tensor(x), tensor(w), None, y)
        convolution.grad_input(tensor(dy), tensor(operands(g, Pass.GRAD_INPUT)[1]), dx)
        image, gradient = operands(g, Pass.GRAD_WEIGHT)
        convolution.grad_weight(tensor(image), tensor(gradient), dw)
        for pass_, cpu in ((Pass.FORWARD, y), (Pass.GRAD_INPUT, dx), (Pass.GRAD_WEIGHT, dw)):
            r = conv_roles(g, pass_)
            assert_close(results[pass_], host(cpu), r.products * r.a)


# ---- memory -----------------------------------------------------------------------------------------------


@hls
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_words_on_chip_are_the_model_s(sizes: tuple[int, int]) -> None:
    array = array_for(sizes)
    run(array, ALL["one word"], Pass.FORWARD)
    words = conv_words(every_pass(ALL.values()), *sizes, array.design.band)
    assert array.report.on_chip == array.design.on_chip_words == {"line": words.line, "kern": words.kern,
                                                                  "out": words.out}


def pieces(g: ConvolutionGeometry, pass_: Pass, x: int, y: int, band: int, group: int) -> Array:
    """How often appendix A reads each beat of INP: for each piece a burst from the first word of its first position."""
    r, p = conv_roles(g, pass_), conv_parameters(g, pass_, x, group)
    height, width = r.inp
    inp_words = int(np.prod(operand_shapes(g, pass_)[0]))
    covered = np.zeros(-(-inp_words // band), np.int64)
    beats = -(-int(line_buffer(r, x)[1]) // band)
    burst = -(-min(beats, 256) // 16) * 16 * max(-(-beats // 256), 3)
    for a, n, first, c in itertools.product(range(r.a), range(r.inp_n), range(0, r.positions, x), range(r.inp_c)):
        row, column = ((at * step - pad) // d for at, step, pad, d in
                       zip(divmod(first, p.out_w), r.step, (p.pad_h, p.pad_w), r.dilation, strict=True))
        start = min(row * width + min(max(column, 0), width), height * width - 1) if row >= 0 else 0
        word = p.inp_start + a * p.inp_a_next + n * p.inp_n_next + c * height * width + start
        covered[word // band:word // band + burst] += -(-r.kern_n // y)
    return covered


@hls
@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize("name", ALL)
def test_inp_is_read_no_more_than_the_model_says(name: str, pass_: Pass) -> None:
    array, g = array_for((7, 4)), ALL[name]
    run(array, g, pass_)
    d = array.design
    modelled = sum(pieces(g, pass_, d.x, d.y, d.band, group) for group in range(g.group))
    assert np.all(array.reads("inp") <= modelled)
    cycles = conv_latency(g, pass_, d.x, d.y, ConvAssumptions(band=d.band)).components
    assert array.report.ports["inp"].reads == int(array.reads("inp").sum()) <= int(cycles["inp_ddr"])
    # Only where kernels leave words out, or stand outside of the image, does nobody want a beat.
    if all(s <= e > p for s, e, p in zip(g.stride, g.extent, g.pad, strict=True)):
        assert array.reads("inp").min() > 0


@hls
@pytest.mark.parametrize("pass_", Pass, ids=lambda p: p.value)
@pytest.mark.parametrize("name", ALL)
def test_kern_is_read_once_or_for_each_plane(name: str, pass_: Pass) -> None:
    """And no beat of OUT is written twice, but those that groups or images share."""
    array, g = array_for((7, 4)), ALL[name]
    run(array, g, pass_)
    d, r = array.design, conv_roles(g, pass_)
    expected = np.zeros(array.reads("kern").shape, np.int64)
    for group in range(g.group):
        p = conv_parameters(g, pass_, d.x, group)
        for image in range(r.a):
            start = p.kern_start + image * p.kern_a_next
            expected[start // d.band:-(-(start + r.kern_words) // d.band)] += r.inp_n if r.sums_up else 1
    np.testing.assert_array_equal(array.reads("kern"), expected)
    cycles = conv_latency(g, pass_, d.x, d.y, ConvAssumptions(band=d.band)).components
    # The model leaves out that a range need not begin with a beat: an image more or a group more may share one.
    assert array.report.ports["kern"].reads <= int(cycles["kern_ddr"]) + r.batches * g.group
    out_words = int(np.prod(operand_shapes(g, pass_)[2]))
    whole = -(-out_words // (d.port_bits // 32))
    ranges = 1 if g.group == 1 else g.group * (1 if r.sums_up else g.batch)
    assert whole <= array.report.ports["out"].writes <= whole + ranges - 1
    # Read before it is written: a beat that holds words of others.
    assert array.report.ports["out"].reads <= 2 * ranges


@hls
@pytest.mark.parametrize(("precision", "sanitize"), [("fp32", True), pytest.param("fp32", False, marks=slow),
                                                     pytest.param("dfxp8", True, marks=slow)])
def test_bench(precision: str, sanitize: bool) -> None:
    """The bench's own loops, and no access beyond any array."""
    convolutions = [*GEOMETRIES.values(), ConvolutionGeometry(3, 2, 20, (5, 5), (1, 1), (1, 1), (0, 0), (1, 1), 2),
                    ConvolutionGeometry(1, 1, 4, (12, 12), (5, 5), (1, 1), (0, 0), (1, 1))]
    design = ConvDesign.for_passes(5, 3, every_pass(convolutions), precision)
    done = subprocess.run([build_testbench(design, sanitize=sanitize)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("24 of 24 passes fit this design: PASSED\n")
    assert done.stdout.count(" 0 results differ") == 24


# ---- parameters -------------------------------------------------------------------------------------------


def test_parameters_are_the_header_s() -> None:
    text = find("hls", "fpgpt_conv", "parameters.h").read_text(encoding="utf-8")
    enums = {name: re.findall(r"^\s*([A-Z][A-Z_]*),?", re.sub(r"//.*", "", body).replace(", ", ",\n"), re.MULTILINE)
             for name, body in re.findall(r"^enum (\w+) \{(.*?)\}", text, re.MULTILINE | re.DOTALL)}
    fields = [field.name.rstrip("_").upper() for field in dataclasses.fields(ConvParameters)]
    assert enums["Parameter"] == [*(f"BETA_{field}" for field in fields), "PARAMETERS"]
    assert enums["Pass"] == [f"PASS_{pass_.name}" for pass_ in PASSES]


def test_parameters_of_a_group() -> None:
    """Table 5.3 for the second of two groups: x is 2 x 4 x 11 x 10, w 6 x 2 x 3 x 2, y 2 x 6 x 6 x 3."""
    g = GEOMETRIES["strides, groups"]
    forward, weight, image = (conv_parameters(g, pass_, 7, 1) for pass_ in PASSES)
    assert (forward.inp_start, forward.kern_start, forward.out_start) == (2 * 110, 3 * 12, 3 * 18)
    assert (forward.inp_n_next, forward.out_n_next, forward.pad_h, forward.pad_w) == (440, 108, 1, 0)
    assert (weight.a, weight.inp_n, weight.inp_a_next, weight.inp_n_next, weight.kern_a_next) == (2, 2, 440, 110, 108)
    assert (weight.kern_dilation_h, weight.kern_dilation_w, weight.step_h, weight.step_w) == (2, 3, 1, 1)
    assert (image.pad_h, image.pad_w, image.inp_dilation_h, image.inp_dilation_w) == (1, 1, 2, 3)
    assert (image.inp_h, image.inp_w, image.out_h, image.out_w, image.kern_n) == (6, 3, 11, 10, 2)


# ---- designs ----------------------------------------------------------------------------------------------


def test_design_of_passes() -> None:
    """Fig. 5.4a has Z = 37 and Z_channel = 63: a line of 63 words, rounded up to 64 and to twice 37."""
    g = ConvolutionGeometry(1, 3, 1, (12, 12), (3, 3), (3, 3), (0, 0), (1, 1))
    design = ConvDesign.for_passes(5, 4, [(g, Pass.FORWARD)])
    assert design == ConvDesign(5, 4, 37, 74, 32, 32)
    assert design.on_chip_words == {"line": 148, "kern": 128, "out": 160}
    assert ConvDesign.from_json(design.to_json(), "here") == design
    assert design.name == "conv_5x4_fp32"


def test_design_is_the_largest_of_all() -> None:
    passes = every_pass(ALL.values())
    together, alone = (ConvDesign.for_passes(7, 4, some) for some in (passes, passes[:1]))
    for size in ("z", "line_words", "kern_words", "out_words"):
        assert getattr(together, size) > getattr(alone, size)
    for geometry, pass_ in passes:
        together.require_fits(geometry, pass_)


@pytest.mark.parametrize(("changed", "message"), [
    ({"x": 0}, "x is 0; give a whole number, 1 or above"), ({"y": 2000}, "an array of 7 columns and 2000 rows"),
    ({"line_words": 100}, "line_words=100 is no multiple of 80"),
    ({"kern_words": 12}, "kern_words=12 is no multiple of 8"), ({"out_words": 3}, "out_words=3 is no multiple of 2"),
    ({"port_bits": 48}, "ports of 48 bits; a width is one of 32"),
    ({"precision": "fp23"}, "number format 'fp23' is unknown")])
def test_designs_that_are_not_legal(changed: dict[str, Any], message: str) -> None:
    sizes = {"x": 7, "y": 4, "z": 40, "line_words": 160, "kern_words": 80, "out_words": 80}
    ConvDesign(**sizes)
    with pytest.raises(UnsupportedError, match=message):
        ConvDesign(**{**sizes, **changed})


@pytest.mark.parametrize(("changed", "message"), [
    ({"kind": "gemm"}, "here: a design of kind 'conv' with whole numbers"), ({"x": "7"}, "a design of kind 'conv'"),
    ({"depth": 3}, "has the fields kind, x, y, z"), ({"x": True}, "a design of kind 'conv'")])
def test_json_that_is_none(changed: dict[str, Any], message: str) -> None:
    fields = ConvDesign(7, 4, 40, 160, 80, 80).to_json()
    with pytest.raises(DataError, match=message):
        ConvDesign.from_json({**fields, **changed}, "here")


def test_no_pass_to_design_for() -> None:
    with pytest.raises(UnsupportedError, match="no pass to count the words of"):
        ConvDesign.for_passes(4, 4, [])


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "pass_", "message"), [
    ({"z": 5, "line_words": 200}, Pass.FORWARD, "forward of a .* 2x3x9x8 with 5x3x3x3 needs z=7, and the design has 5"),
    ({"line_words": 14}, Pass.FORWARD, "needs line_words=28, and the design has 14"),
    ({"kern_words": 48}, Pass.FORWARD, "needs kern_words=54, and the design has 48"),
    ({"kern_words": 136}, Pass.GRAD_WEIGHT, "needs kern_words=144, and the design has 136"),
    ({"out_words": 86}, Pass.FORWARD, "needs out_words=88, and the design has 86"),
    ({"out_words": 28}, Pass.GRAD_WEIGHT, "needs out_words=30, and the design has 28; build one for all")])
def test_too_small_for_a_convolution(size: dict[str, int], pass_: Pass, message: str) -> None:
    g = GEOMETRIES["plain"]
    exact = ConvDesign.for_passes(7, 4, [(g, pass_)])
    with pytest.raises(UnsupportedError, match=message):
        dataclasses.replace(exact, **size).require_fits(g, pass_)


@pytest.mark.parametrize("g", [ConvolutionGeometry(1 << 12, 1 << 10, 1, (32, 32), (1, 1), (1, 1), (0, 0), (1, 1)),
                               ConvolutionGeometry(1, 1, 1, (4, 4), (1, 1), (1 << 30, 1 << 30), (0, 0), (1, 1))],
                         ids=["words", "stride"])
def test_more_than_the_kernel_counts(g: ConvolutionGeometry) -> None:
    design = ConvDesign.for_passes(8, 8, [(g, Pass.FORWARD)])
    with pytest.raises(UnsupportedError, match=r"counts to \d{10,}, and the kernel counts to 2147483647"):
        design.require_fits(g, Pass.FORWARD)


@hls
def test_operands_that_do_not_belong() -> None:
    array, g = array_for((7, 4)), GEOMETRIES["plain"]
    inp, kern = operands(g, Pass.FORWARD)
    with pytest.raises(ShapeError, match=r"KERN of forward has shape \(5, 3, 3, 2\), the geometry asks for \(5, 3"):
        array.run(g, Pass.FORWARD, inp, kern[..., :2])
    with pytest.raises(UnsupportedError, match="INP of forward is of type float64, words of fp32 are float32"):
        array.run(g, Pass.FORWARD, inp.astype(np.float64), kern)
    with pytest.raises(UnsupportedError, match="the design has"):
        large = ConvolutionGeometry(1, 64, 64, (40, 40), (3, 3), (1, 1), (1, 1), (1, 1))
        array.run(large, Pass.FORWARD, *operands(large, Pass.FORWARD))


@hls
def test_library_of_another_design() -> None:
    design = array_for((7, 4)).design
    with pytest.raises(DeviceError, match="was compiled for another design than conv_7x4_fp32"):
        SimulatedConv(Library(build_library(design)), dataclasses.replace(design, out_words=design.out_words + 2))


@hls
def test_report_before_any_run() -> None:
    design = array_for((7, 4)).design
    fresh = SimulatedConv(Library(build_library(design)), design)
    with pytest.raises(DeviceError, match="nothing was run yet"):
        _ = fresh.report
    with pytest.raises(DeviceError, match="no reads of port 'inp' were counted"):
        fresh.reads("inp")
