"""Arrays that take whole convolutions: their manifests, passes, schedules and commands, on the model and in C."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lenet import lenet
from opencl_device import empty, numbers, tensor
from test_fpga_ops import passes
from tile_arrays import TILES, QuickArray
from tolerances import assert_close, training_tolerance

from barista.blob import HOST
from barista.cli.bitstream_verify import compare_convolutions
from barista.cli.main import main
from barista.compose import make_ops
from barista.errors import BitstreamError, DataError, ScheduleError, UnsupportedError
from barista.frontends.prototxt import parse_net
from barista.gemm.conv_sizes import ConvSizes
from barista.gemm.engine import StageTimes
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.gemm.tiles import TileSizes
from barista.gemm.windows import largest_sum
from barista.hardware import bitstream as bitstreams
from barista.hardware.bitstream import Bitstream, load
from barista.hardware.board import load_board
from barista.hardware.library import Library
from barista.latency.simulator.conv_layout import operand_shapes
from barista.latency.simulator.workloads import convolve
from barista.net import Net
from barista.ops.base import Owner
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps, Loader
from barista.ops.verify import VerifiedOps
from barista.precision.formats import number_format, quantise_operands
from barista.resources import find
from barista.schedule import Entry, Schedule
from barista.synthesis import csim_build
from barista.synthesis.conv_bitstream import SimulatedConvArray
from barista.synthesis.conv_design import ConvDesign
from barista.synthesis.conv_values import conv_values
from barista.synthesis.gemm_array import SimulatedArray

TRAIN = 0
Array = np.ndarray[Any, np.dtype[Any]]
Capture = pytest.CaptureFixture[str]
hls = pytest.mark.hls

GEOMETRIES = {
    "plain": ConvolutionGeometry(3, 3, 5, (7, 6), (3, 3), (1, 1), (0, 0), (1, 1)),
    "everything": ConvolutionGeometry(2, 4, 6, (9, 8), (3, 2), (2, 1), (1, 1), (1, 2), 2),
    "pointwise": ConvolutionGeometry(2, 6, 3, (5, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
}
G = GEOMETRIES["plain"]
# Those of the net below.
OF_NET = [ConvolutionGeometry(2, 2, 3, (7, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
          ConvolutionGeometry(2, 3, 2, (7, 6), (2, 2), (1, 1), (0, 0), (1, 1))]
LENET = find("prototxt", "lenet_digits", "train_val.prototxt")
NET = """name: "small"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 7 dim: 6 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: %d kernel_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "b" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
"""


def design(geometries: list[ConvolutionGeometry], precision: str = "fp32") -> ConvDesign:
    return ConvDesign.for_passes(5, 4, [(g, pass_) for g in geometries for pass_ in Pass], precision)


class ModelConv:
    """An array that computes as the model does, and says that it took some time."""

    def __init__(self, name: str, of: ConvDesign) -> None:
        self.name, self.sizes, self.format = name, of.sizes, of.format
        self.runs: list[Pass] = []

    def convolve(self, geometry: ConvolutionGeometry, pass_: Pass, inp: Array, kern: Array) -> tuple[Array, StageTimes]:
        self.runs.append(pass_)
        assert inp.dtype == kern.dtype == self.format.storage_dtype
        return conv_values(geometry, pass_, inp, kern, self.format), StageTimes(write=0.001, kernel=0.002, read=0.003)


def model_ops(precision: str = "fp32", plan: Schedule | None = None, of: ConvDesign | None = None,
              **options: Any) -> FpgaOps:
    """An FPGA op set with a convolution array `whole`, a second one `other`, and a GEMM array `tiles`."""
    made = of or design([*GEOMETRIES.values(), *OF_NET], precision)
    kinds = {"whole": (made.sizes, made.format), "other": (made.sizes, made.format),
             "tiles": (TILES, number_format("fp32"))}

    def put(name: str) -> ModelConv | QuickArray:
        return QuickArray(name) if name == "tiles" else ModelConv(name, made)

    return FpgaOps(CpuOps(), Loader(kinds, put, "board of the tests"), "whole", plan, **options)


# ---- passes -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", GEOMETRIES)
def test_passes_are_the_cpus(name: str) -> None:
    g = GEOMETRIES[name]
    for (truth, k), (result, _) in zip(passes(CpuOps(np.float64), g), passes(model_ops(), g), strict=True):
        assert_close(result, truth, k)


@pytest.mark.parametrize(("precision", "bound"), [("dfxp8", 0.05), ("dfxp12", 0.004), ("dfxp16", 0.0003)])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_fixed_point_is_as_coarse_as_its_word(name: str, precision: str, bound: float) -> None:
    g = GEOMETRIES[name]
    for (truth, _), (result, _) in zip(passes(CpuOps(np.float64), g), passes(model_ops(precision), g), strict=True):
        error = np.abs(result - truth).max() / np.abs(truth).max()
        assert 0 < error < bound


@pytest.mark.parametrize("rectify", [False, True])
def test_the_host_adds_the_bias_and_rectifies(rectify: bool) -> None:
    rng = np.random.default_rng(3)
    x, w, bias = (tensor(numbers(rng, *shape)) for shape in (G.x_shape, G.w_shape, (G.out_channels,)))
    found, expected = empty(*G.y_shape), empty(*G.y_shape)
    model_ops().convolution(G).forward(x, w, bias, found, rectify)
    CpuOps().convolution(G).forward(x, w, bias, expected, rectify)
    assert (expected.read(HOST) < 0).any() != rectify
    assert_close(found.read(HOST), expected.read(HOST), G.depth)


def test_stages_and_swaps_are_counted() -> None:
    entries = tuple(Entry("a", pass_, "fpga", name, place) for pass_, name, place in
                    zip(Pass, ("whole", "tiles", "other"), ("device", "", ""), strict=True))
    ops = model_ops(plan=Schedule("net", G.batch, entries, inner_products="tiles", source="plan.json"))
    ops.owner = Owner("net", TRAIN, "a")
    for (truth, k), (result, _) in zip(passes(CpuOps(np.float64), G), passes(ops, G), strict=True):
        assert_close(result, truth, k)
    assert ops.loader.swaps == 2
    stages = ops.take_stages()
    assert {pass_: one["kernel"] for (_, pass_), one in stages.items()} == pytest.approx(
        {"forward": 0.004, "grad_weight": 0.002, "grad_input": 0.002}), "forward ran twice"
    assert stages["a", "grad_input"]["write"] == pytest.approx(0.001)
    assert stages["a", "grad_input"]["loading"] > 0
    assert ops.convolution(G).variant == "forward: whole, grad_weight: tiles, grad_input: other"


def test_inner_products_stay_on_the_host() -> None:
    ops = model_ops()
    net = Net(parse_net(NET % 2), TRAIN, ops=ops)
    net.forward()
    net.backward()
    assert {layer for layer, _ in ops.take_stages()} == {"a", "b"}
    assert "bitstream whole (whole convolutions, array 5,4, fp32)" in ops.describe()


def test_verified_passes_are_counted() -> None:
    for precision in ("fp32", "dfxp8"):
        ops = VerifiedOps(model_ops(precision), CpuOps())
        passes(ops, G)  # type: ignore[arg-type]
        assert "4 passes of convolutions" in ops.summary()


# ---- fixed point ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_bound_of_sums(name: str, pass_: Pass) -> None:
    """Filter norm times window norm, group by group, as convolving the squares with ones has it."""
    g, rng = GEOMETRIES[name], np.random.default_rng(4)
    inp, kern = (rng.integers(-9, 10, shape).astype(np.int16) for shape in operand_shapes(g, pass_)[:2])
    squares = kern.astype(np.float64) ** 2
    # Every number of the result has its window; KERN's filters are along the first axis, the second, or its channels.
    windows = convolve(inp.astype(np.float64) ** 2, np.ones(kern.shape), g, pass_)
    if pass_ is Pass.GRAD_WEIGHT:
        filters = squares.sum(axis=(0, 2, 3)).reshape(g.group, -1)
        windows = windows.reshape(g.group, -1)
    else:
        parts = squares.reshape(g.group, -1, *kern.shape[1:])
        filters = parts.sum(axis=(2, 3, 4) if pass_ is Pass.FORWARD else (1, 3, 4))
        windows = np.moveaxis(windows.reshape(g.batch, g.group, -1), 1, 0).reshape(g.group, -1)
    bound = largest_sum(g, pass_, inp, kern)
    assert bound == pytest.approx(np.sqrt((filters.max(axis=1) * windows.max(axis=1)).max()))
    assert 0 < np.abs(convolve(inp, kern, g, pass_)).max() <= bound


@pytest.mark.parametrize("pass_", Pass)
def test_sums_that_would_leave_32_bits_lower_the_scales(pass_: Pass) -> None:
    """All numbers as large as can be: whole words would give sums of 2^30 times the products."""
    g, fmt = GEOMETRIES["everything"], number_format("dfxp16")
    inp, kern = (np.full(shape, value, np.float32) for shape, value in
                 zip(operand_shapes(g, pass_)[:2], (1.0, -2.0), strict=True))
    result = tensor(np.zeros(operand_shapes(g, pass_)[2]))
    convolution = model_ops("dfxp16").convolution(g)
    {Pass.FORWARD: lambda: convolution.forward(tensor(inp), tensor(kern), None, result),
     Pass.GRAD_WEIGHT: lambda: convolution.grad_weight(tensor(inp), tensor(kern), result),
     Pass.GRAD_INPUT: lambda: convolution.grad_input(tensor(inp), tensor(kern), result)}[pass_]()
    np.testing.assert_allclose(result.read(HOST), convolve(inp, kern, g, pass_), rtol=1e-3)
    whole = quantise_operands(inp, kern, fmt, 1, lambda *_: 0.0)
    lowered = quantise_operands(inp, kern, fmt, 1000, lambda a, b: largest_sum(g, pass_, a, b))
    assert lowered[1] + lowered[3] < whole[1] + whole[3]


def test_numbers_that_are_none() -> None:
    x, w, y = tensor(np.full(G.x_shape, np.nan)), tensor(np.ones(G.w_shape)), empty(*G.y_shape)
    with pytest.raises(DataError, match="holds NaN or infinity"):
        model_ops("dfxp8").convolution(G).forward(x, w, None, y)


# ---- refusals ---------------------------------------------------------------------------------------------

def test_what_does_not_fit_is_refused_when_the_net_is_made() -> None:
    small = model_ops(of=ConvDesign.for_passes(5, 4, [(g, Pass.FORWARD) for g in (G, *OF_NET)]))
    with pytest.raises(UnsupportedError, match=r"a: bitstream whole: conv_5x4_fp32: grad_weight of a convolution of "
                                               r"2x2x7x6 with 3x2x3x3 needs z=8, and the design has 7; build one "
                                               r"for all convolutions that it is to compute: barista bitstream build "
                                               r"--array 5,4 --model FILE"):
        Net(parse_net(NET % 2), TRAIN, ops=small)
    Net(parse_net(NET % 2), 1, ops=small)
    with pytest.raises(UnsupportedError, match=r"bitstream whole: .* needs z=8"):
        small.convolution(G).grad_weight(tensor(np.ones(G.x_shape)), tensor(np.ones(G.y_shape)), empty(*G.w_shape))


def test_passes_that_never_run_need_not_fit() -> None:
    """The array is built for the passes of a net, among which grad_input of its first layer is not."""
    net = Net(parse_net(NET % 2), TRAIN, ops=CpuOps())
    run = [(layer.geometry, pass_) for layer in net.layers if layer.type == "Convolution"  # type: ignore[attr-defined]
           for pass_ in Pass if (layer.name, pass_) != ("a", Pass.GRAD_INPUT)]
    Net(parse_net(NET % 2), TRAIN, ops=model_ops(of=ConvDesign.for_passes(5, 4, run)))


def test_other_than_two_axes() -> None:
    one = ConvolutionGeometry(2, 3, 4, (11,), (5,), (2,), (2,), (1,))
    with pytest.raises(UnsupportedError, match="whole: a convolution of 11 has 1 spatial axes, and the array is made"):
        passes(model_ops(), one)


@pytest.mark.parametrize(("entry", "products", "error", "message"), [
    (("whole", "host"), "", ScheduleError, r"plan\.json: a forward: im2col 'host' does not go with the bitstream "
     r"whole, which takes whole convolutions: columns are unrolled on the device; give 'device' or leave it out"),
    (("tiles", "device"), "", ScheduleError, r"im2col 'device' does not go with the bitstream tiles, which takes "),
    (("tiles", ""), "whole", BitstreamError, r"plan\.json: inner_products: the bitstream whole takes whole "
     r"convolutions and computes no matrix products"),
    (("absent", ""), "", BitstreamError, r"plan\.json: a forward: there is no bitstream 'absent'")])
def test_schedules_that_do_not_go_with_the_bitstreams(entry: tuple[str, str], products: str, error: type[Exception],
                                                      message: str) -> None:
    plan = Schedule("net", 1, (Entry("a", Pass.FORWARD, "fpga", *entry),), inner_products=products, source="plan.json")
    with pytest.raises(error, match=message):
        model_ops(plan=plan)


def test_inner_products_that_are_asked_for() -> None:
    with pytest.raises(BitstreamError, match="the bitstream whole takes whole convolutions and computes no matrix"):
        model_ops(inner_products=True)


def test_a_kind_is_not_taken_for_the_other() -> None:
    loader = model_ops().loader
    with pytest.raises(BitstreamError, match="the bitstream tiles computes matrix products and takes no whole"):
        loader.use_whole("tiles")
    with pytest.raises(BitstreamError, match="the bitstream whole takes whole convolutions"):
        loader.use("whole")
    assert loader.current == ""


# ---- manifests --------------------------------------------------------------------------------------------

SIZES = ConvSizes(4, 3, 8, 32, 24, 8)


@pytest.fixture
def card(tmp_path: Path) -> Bitstream:
    """A bitstream of a convolution array for a card."""
    return bitstreams.write(tmp_path, b"xclbin2\0", SIZES, "dfxp16", load_board("u250"), suffix=".xclbin")


def test_a_manifest_says_the_sizes(card: Bitstream) -> None:
    assert card.name == "conv_array_4x3_dfxp16_u250"
    assert load(card.path) == card
    m, said = card.manifest, json.loads(card.path.read_text())
    assert (said["kind"], said["sizes"]) == ("conv", dataclasses.asdict(SIZES))
    assert "tiles" not in said
    assert (m.kind, m.sizes, m.kernel) == ("conv", SIZES, "fpgpt_conv")
    assert (m.resources.dsp, m.resources.bram_bits) == (36, 16 * (2 * 32 + 3 * 24) + 32 * 4 * 8)
    with pytest.raises(BitstreamError, match=r"u250\.xclbin takes whole convolutions and multiplies no tiles; give"):
        _ = m.tiles


@pytest.mark.parametrize(("fields", "message"), [
    ({"sizes": [4, 3]}, r"sizes is \[4, 3\], where x, y, z, line_words, .* with a count each is expected"),
    ({"sizes": {**dataclasses.asdict(SIZES), "x": True}}, r"sizes is \{'x': True"),
    ({"sizes": {**dataclasses.asdict(SIZES), "out_words": 7}}, r"out_words=7 is no multiple of 2"),
    ({"sizes": {**dataclasses.asdict(SIZES), "out_words": 10}}, "was edited by hand"),
    ({"kind": "gemm"}, r"a manifest has no field 'sizes'"),
    ({"engine": "fast"}, r"engine 'fast' has no array that takes whole convolutions; choose csim"),
    ({"sizes": None}, r"the field 'sizes' is missing")])
def test_a_manifest_that_is_none(card: Bitstream, fields: dict[str, Any], message: str) -> None:
    said = {**json.loads(card.path.read_text()), **fields}
    card.path.write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    with pytest.raises(BitstreamError, match=message):
        load(card.path)


def test_what_measures_products_leaves_them_out(card: Bitstream, caplog: pytest.LogCaptureFixture) -> None:
    library = Library(card.path.parent)
    with pytest.raises(BitstreamError, match=r"who: .* holds only bitstreams of kind conv \(conv_array_4x3.*\): an "
                                             r"array that takes whole convolutions multiplies no tiles; build one "
                                             r"with --tile"):
        library.drop_whole("who")
    bitstreams.write(card.path.parent, b"1", TileSizes(4, 4, 4), "fp32", load_board("u250"))
    library = Library(card.path.parent)
    library.drop_whole("who")
    assert list(library.bitstreams) == ["gemm_array_4x4x4_fp32_u250"]
    assert "conv_array_4x3_dfxp16_u250 is left out: it is of kind conv" in caplog.text


def test_a_card_is_not_tried(card: Bitstream) -> None:
    with pytest.raises(BitstreamError, match=r"takes whole convolutions on the board u250: Barista runs such arrays in "
                                             r"C-simulation alone"):
        make_ops("fpga", bitstream=card.path)
    with pytest.raises(BitstreamError, match="is of engine array, which no C-simulation runs"):
        SimulatedConvArray(card)
    with pytest.raises(BitstreamError, match="takes whole convolutions and multiplies no tiles"):
        SimulatedArray(card)


# ---- commands ---------------------------------------------------------------------------------------------

def say(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    status = main([*map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_folder_for_a_card(tmp_path: Path, capsys: Capture) -> None:
    net = tmp_path / "net.prototxt"
    words = ("bitstream", "configure", "--array", "4,4", "--model", net, "--board", "u250", "--out", tmp_path / "out")
    for outputs, name in ((2, "conv_array_4x4_fp32_u250"), (2, "conv_array_4x4_fp32_u250"),
                          (40, "conv_array_4x4_fp32_u250_2")):
        net.write_text(NET % outputs)
        status, _, err = say(capsys, *words)
        assert status == 0, err
        assert f"{name}: conv_4x4_fp32 for u250 at" in err
    built = tmp_path / "out" / "conv_array_4x4_fp32_u250_2" / "x.xclbin"
    built.write_bytes(b"xclbin2\0")
    status, _, err = say(capsys, "bitstream", "import", built, "--out", tmp_path / "lib")
    assert status == 0, err
    status, out, _ = say(capsys, "bitstream", "list", tmp_path / "lib")
    assert out.split() == ["conv_array_4x4_fp32_u250_2", "array", "4,4", "fp32", "array", "u250"]
    status, out, _ = say(capsys, "bitstream", "inspect", tmp_path / "lib" / "conv_array_4x4_fp32_u250_2.json")
    assert re.search(r"^Array X,Y: +4,4, whole convolutions\nWords: +\d+ of lines \(Z \d+\), ", out, re.MULTILINE)


@pytest.mark.parametrize(("words", "message"), [
    (["--array", "4,4"], "--array needs --model FILE, the network whose convolutions"),
    (["--array", "4", "--model", LENET], "--array '4' is not two whole numbers X,Y such as 16,16"),
    (["--array", "4,4", "--model", LENET, "--tile", "4,4,4"], "--array and --tile contradict each other"),
    (["--array", "0,4", "--model", LENET, "--input-shape", "1,28,28"], "x is 0; give a whole number, 1 or above"),
    (["--tile", "4,4,8", "--engine", "csim", "--name", "../x"], r"the name '\.\./x' becomes that of files; use"),
    (["--array", "4,4", "--model", LENET, "--engine", "fast"], "--engine fast does not build an array that takes"),
    (["--array", "4,4", "--model", LENET, "--device", "0"], "has no use for --device with --engine csim"),
    (["--model", LENET], "--model says which convolutions an array is for; it goes with --array X,Y"),
    (["--bitstreams", "lib", "--tile", "4,4,8"], "--bitstreams says what the names of a schedule are; it goes with"),
    (["--from-schedule", "s.json", "--array", "4,4"], "--array and --from-schedule contradict each other"),
    (["--array", "4,4", "--model", LENET, "--board", "u250", "--input-shape", "1,28,28"],
     r"board u250: a bitstream for it is an \.xclbin")])
def test_what_is_not_built(capsys: Capture, words: list[str | Path], message: str) -> None:
    status, _, err = say(capsys, "bitstream", "build", *words)
    assert status in (1, 2)
    assert re.search(message, err), err


def test_no_use_for_a_network(tmp_path: Path, capsys: Capture) -> None:
    status, _, err = say(capsys, "bitstream", "list", tmp_path, "--stage", "a")
    assert (status, "bitstream list has no use for --stage" in err) == (2, True)


# ---- in C -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an array for `NET`, and one of another design for a larger one."""
    folder = tmp_path_factory.mktemp("whole")
    net = folder / "net.prototxt"
    for outputs in (2, 40):
        net.write_text(NET % outputs)
        assert main(["bitstream", "build", "--engine", "csim", "--array", "4,3", "--model", str(net), "--batch", "2",
                     "--out", str(folder / "lib")]) == 0
    return folder / "lib"


@hls
def test_two_nets_do_not_share_a_name(built: Path, capsys: Capture) -> None:
    names = ["conv_csim_4x3_fp32_emulated", "conv_csim_4x3_fp32_emulated_2"]
    assert list(Library(built).bitstreams) == names
    assert (built.parent / "net.prototxt").read_text() == NET % 40
    status, _, err = say(capsys, "bitstream", "build", "--array", "4,3", "--model", built.parent / "net.prototxt",
                         "--out", built)
    assert (status, f"{names[1]}.json" in err) == (0, True)
    status, out, _ = say(capsys, "bitstream", "list", built)
    assert [line.split()[0] for line in out.splitlines()] == names


@hls
def test_verify(built: Path, capsys: Capture) -> None:
    manifest = built / "conv_csim_4x3_fp32_emulated.json"
    status, _, err = say(capsys, "bitstream", "verify", manifest)
    assert status == 0, err
    assert "computes forward and grad_weight and grad_input of small convolutions as the array's model does" in err
    array = SimulatedConvArray(load(manifest))

    class Off:
        name, sizes, format = array.name, array.sizes, array.format

        def convolve(self, geometry: ConvolutionGeometry, pass_: Pass, inp: Array,
                     kern: Array) -> tuple[Array, StageTimes]:
            output, times = array.convolve(geometry, pass_, inp, kern)
            output.flat[-1] = np.nextafter(output.flat[-1], np.float32(9))
            return output, times

    with pytest.raises(BitstreamError, match=r"forward: 1 of \d+ numbers differ from the array's model, the first at"):
        compare_convolutions(Off())


@hls
def test_nets_train_with_it(built: Path) -> None:
    """On the first array the larger net is refused; the small one computes what the CPU does, and is verified."""
    losses = []
    for ops in (make_ops("fpga", bitstream=built / "conv_csim_4x3_fp32_emulated.json", verify=True), CpuOps()):
        net = Net(parse_net(NET % 2), TRAIN, ops=ops)
        rng = np.random.default_rng(7)
        for blob in (*(blob for blobs in net.params.values() for blob in blobs), net.blobs["x"], net.blobs["t"]):
            blob.data[...] = rng.standard_normal(blob.data.shape)
        net.forward()
        net.backward()
        losses.append([net.loss(), *(float(np.abs(net.params[layer][0].diff).sum()) for layer in "ab")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    with pytest.raises(UnsupportedError, match=r"b: bitstream conv_csim_4x3_fp32_emulated: .*, and the design has"):
        Net(parse_net(NET % 40), TRAIN, ops=make_ops("fpga", bitstream=built / "conv_csim_4x3_fp32_emulated.json"))


@hls
@pytest.mark.parametrize("precision", ["dfxp16"])
def test_c_code_is_the_model(precision: str, tmp_path: Path) -> None:
    of = design([GEOMETRIES["everything"]], precision)
    array = SimulatedConvArray(csim_build.build(tmp_path, of, load_board("emulated")))
    fast = FpgaOps(CpuOps(), Loader({"c": (of.sizes, of.format)}, lambda _: array, "C"), "c")
    g = GEOMETRIES["everything"]
    for (found, _), (expected, _) in zip(passes(fast, g), passes(model_ops(precision, of=of), g), strict=True):
        np.testing.assert_array_equal(found, expected)


@hls
@pytest.mark.slow
def test_lenet_trains_by_a_schedule_that_was_explored(tmp_path: Path, digits: Path, capsys: Capture,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    plan = tmp_path / "plan.json"
    status, _, err = say(capsys, "explore", "--model", LENET, "--input-shape", "1,28,28", "--board", "u250", "--kind",
                         "conv", "--grid", "x=8:16:8,y=8", "--max-bitstreams", "2", "--schedule", plan)
    assert status == 0, err
    with pytest.raises(BitstreamError, match=r"build it: barista bitstream build --engine csim --from-schedule"):
        FpgaOps(CpuOps(), Loader({}, QuickArray, "board"), schedule=Schedule.load(plan))
    status, _, err = say(capsys, "bitstream", "build", "--from-schedule", plan, "--out", tmp_path / "lib")
    assert status == 0, err
    assert sorted(Library(tmp_path / "lib").bitstreams) == sorted(Schedule.load(plan).bitstreams)
    ops = make_ops("fpga", bitstream=tmp_path / "lib", schedule=plan)
    losses = []
    for each in (ops, CpuOps()):
        with caplog.at_level(logging.INFO, "barista.ops.fpga"), lenet(each, digits) as solver:
            losses.append([])
            for _ in range(2):
                solver.step(1)
                losses[-1].append(solver.net.loss())
    assert losses[0] == pytest.approx(losses[1], rel=training_tolerance(2))
    assert re.search(r"conv1: forward on conv_array_\d+x8_fp32_u250", caplog.text)
