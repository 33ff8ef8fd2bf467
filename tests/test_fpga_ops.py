"""The FPGA op set: its convolutions and products against the CPU's, bitstreams loaded and swapped, schedules."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from opencl_device import empty, numbers, tensor
from tile_arrays import TILES, QuickArray, loader, quick_ops
from tolerances import assert_close

from barista.blob import HOST
from barista.errors import BitstreamError, DeviceError, ScheduleError, UnsupportedError
from barista.gemm import batching
from barista.gemm.array_model import ModelArray
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.gemm.tiles import TileSizes
from barista.ops.base import Owner
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps, Loader
from barista.precision.formats import number_format
from barista.schedule import Entry, Schedule

TRAIN, TEST = 0, 1

GEOMETRIES = {
    "plain": ConvolutionGeometry(3, 4, 5, (7, 6), (3, 3), (1, 1), (0, 0), (1, 1)),
    "everything": ConvolutionGeometry(5, 4, 6, (9, 8), (3, 2), (2, 1), (1, 1), (1, 2), 2),
    "pointwise": ConvolutionGeometry(4, 6, 3, (5, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
    "one image": ConvolutionGeometry(1, 2, 9, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one axis": ConvolutionGeometry(6, 3, 4, (11,), (5,), (2,), (2,), (1,)),
    "three axes": ConvolutionGeometry(2, 2, 3, (4, 5, 3), (2, 2, 2), (1, 2, 1), (0, 1, 1), (1, 1, 1)),
}


def passes(ops: CpuOps | FpgaOps, g: ConvolutionGeometry) -> list[tuple[np.ndarray, int]]:
    """What the passes give, the gradient of the weights on top of ones, and the lengths of their sums."""
    rng = np.random.default_rng(5)
    x, w, dy = (tensor(numbers(rng, *shape)) for shape in (g.x_shape, g.w_shape, g.y_shape))
    bias, dw = tensor(numbers(rng, g.out_channels)), tensor(np.ones(g.w_shape))
    y, without, dx = empty(*g.y_shape), empty(*g.y_shape), empty(*g.x_shape)
    convolution = ops.convolution(g)
    convolution.forward(x, w, bias, y)
    convolution.forward(x, w, None, without)
    convolution.grad_weight(x, dy, dw)
    convolution.grad_input(dy, w, dx)
    taps = g.out_channels // g.group * int(np.prod(g.kernel))
    return [(y.read(HOST), g.depth), (without.read(HOST), g.depth), (dw.read(HOST), g.batch * g.pixels),
            (dx.read(HOST), taps)]


@pytest.mark.parametrize("column_bytes", [1, 1500, 1 << 22], ids=["an image", "some images", "all images"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions_are_the_cpus(monkeypatch: pytest.MonkeyPatch, name: str, column_bytes: int) -> None:
    monkeypatch.setattr(batching, "COLUMN_BYTES", column_bytes)
    g = GEOMETRIES[name]
    expected, found = passes(CpuOps(np.float64), g), passes(quick_ops(), g)
    for (truth, k), (result, _) in zip(expected, found, strict=True):
        assert_close(result, truth, k)


def test_convolutions_on_the_model_of_the_array() -> None:
    g = ConvolutionGeometry(2, 2, 3, (5, 4), (3, 2), (1, 1), (1, 0), (1, 1))
    tiles, fmt = TileSizes(4, 4, 8), number_format("fp32")
    ops = FpgaOps(CpuOps(), Loader({"mesh": (tiles, fmt)}, lambda _: ModelArray(tiles, fmt), "the model"), "mesh")
    for (truth, k), (result, _) in zip(passes(CpuOps(np.float64), g), passes(ops, g), strict=True):
        assert_close(result, truth, k)


@pytest.mark.parametrize(("fmt", "bound"), [("dfxp8", 0.05), ("dfxp12", 0.003), ("dfxp16", 0.0002)])
def test_fixed_point_is_as_coarse_as_its_word(fmt: str, bound: float) -> None:
    g = GEOMETRIES["plain"]
    for (truth, _), (result, _) in zip(passes(CpuOps(np.float64), g), passes(quick_ops(fixed=fmt), g), strict=True):
        error = np.abs(result - truth).max() / np.abs(truth).max()
        assert 0 < error < bound


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_inner_products_on_the_array(trans_a: bool, trans_b: bool, beta: float) -> None:
    rng = np.random.default_rng(2)
    shape = GemmShape(9, 17, 33)
    a, b, c = numbers(rng, 9, 33), numbers(rng, 33, 17), numbers(rng, 9, 17)
    result = tensor(c) if beta else empty(9, 17)
    ops = quick_ops(inner_products=True)
    ops.gemm(shape, trans_a, trans_b).run(tensor(a.T if trans_a else a), tensor(b.T if trans_b else b), result,
                                          alpha=-1.5, beta=beta)
    assert_close(result.read(HOST), -1.5 * a @ b + beta * c, 33, 100)
    assert list(ops.take_stages()) == [("", "gemm")]


def test_inner_products_stay_on_the_host_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    ops = quick_ops()
    with caplog.at_level(logging.INFO, "barista.ops.hosted"):
        kept = ops.gemm(GemmShape(2, 2, 2), False, False)
    assert kept.resolution == 0
    assert caplog.messages == ["gemm runs on the host: inner products were not asked for on the array"]


def test_stages_are_counted_by_layer_and_pass() -> None:
    ops = quick_ops()
    ops.owner = Owner("net", TRAIN, "conv1")
    g = GEOMETRIES["everything"]
    passes(ops, g)
    stages = ops.take_stages()
    assert list(stages) == [("conv1", "forward"), ("conv1", "grad_weight"), ("conv1", "grad_input")]
    one = stages["conv1", "grad_weight"]
    assert one["write"] == pytest.approx(0.001 * g.group)
    assert one["kernel"] == pytest.approx(0.002 * g.group)
    assert one["read"] == pytest.approx(0.003 * g.group)
    assert min(one[stage] for stage in ("im2col", "tiling", "untiling")) > 0
    assert "loading" in stages["conv1", "forward"] and "loading" not in one
    assert ops.take_stages() == {}


# ---- bitstreams -------------------------------------------------------------------------------------------

def test_a_bitstream_is_swapped_only_for_another() -> None:
    loads = []
    kinds = {name: (TILES, number_format("fp32")) for name in ("one", "two")}

    def load(name: str) -> QuickArray:
        loads.append(name)
        return QuickArray(name)

    bitstreams = Loader(kinds, load, "board")
    for name in ("one", "one", "two", "two", "one"):
        assert bitstreams.use(name).name == name
    assert loads == ["one", "two", "one"]
    assert (bitstreams.current, bitstreams.swaps) == ("one", 2)


def test_a_bitstream_that_does_not_load_leaves_none() -> None:
    kinds = {name: (TILES, number_format("fp32")) for name in ("good", "bad")}

    def load(name: str) -> QuickArray:
        if name == "bad":
            raise BitstreamError("bad.json: truncated")
        return QuickArray(name)

    bitstreams = Loader(kinds, load, "board")
    bitstreams.use("good")
    with pytest.raises(BitstreamError, match="truncated"):
        bitstreams.use("bad")
    assert bitstreams.current == ""
    assert bitstreams.use("good").name == "good"


def test_an_unknown_bitstream_is_named_with_the_nearest() -> None:
    with pytest.raises(BitstreamError, match=r"no bitstream 'smal' among those given; did you mean 'small'"):
        loader(small="fp32").use("smal")
    with pytest.raises(BitstreamError, match=r"no bitstream 'other'"):
        FpgaOps(CpuOps(), loader(small="fp32"), "other")


def test_what_the_op_set_cannot_stand_on() -> None:
    with pytest.raises(UnsupportedError, match="computes in float32, not float64; use the cpu backend"):
        FpgaOps(CpuOps(np.float64), loader(small="fp32"), "small")


# ---- schedules --------------------------------------------------------------------------------------------

G = GEOMETRIES["plain"]
PLAN = Schedule("net", G.batch, (
    Entry("a", Pass.FORWARD, "fpga", "one"), Entry("a", Pass.GRAD_WEIGHT, "cpu"),
    Entry("a", Pass.GRAD_INPUT, "fpga", "two"), Entry("b", Pass.FORWARD, "cpu")), source="plan.json")


def test_a_schedule_places_each_pass() -> None:
    ops = quick_ops(schedule=PLAN, one="fp32", two="fp32")
    ops.owner = Owner("net", TRAIN, "a")
    for (truth, k), (result, _) in zip(passes(CpuOps(np.float64), G), passes(ops, G), strict=True):
        assert_close(result, truth, k)
    assert list(ops.take_stages()) == [("a", "forward"), ("a", "grad_input")]
    assert ops.loader.swaps == 1
    assert "1 swap(s)" in ops.summary()
    assert "forward: one, grad_weight: cpu, grad_input: two" in ops.convolution(G).variant


def test_a_layer_may_stay_on_the_host(caplog: pytest.LogCaptureFixture) -> None:
    ops = quick_ops(schedule=PLAN, one="fp32", two="fp32")
    ops.owner = Owner("net", TRAIN, "b")
    with caplog.at_level(logging.INFO, "barista.ops.hosted"):
        ops.convolution(G)
    assert caplog.messages == ["convolution runs on the host: the schedule says so"]


def test_a_pass_without_an_entry_is_an_error_when_it_runs() -> None:
    plan = Schedule("net", G.batch, (Entry("a", Pass.FORWARD, "fpga", "one"),))
    ops = quick_ops(schedule=plan, one="fp32")
    ops.owner = Owner("net", TRAIN, "a")
    convolution = ops.convolution(G)
    x, w, y = tensor(np.ones(G.x_shape)), tensor(np.ones(G.w_shape)), empty(*G.y_shape)
    convolution.forward(x, w, None, y)
    with pytest.raises(ScheduleError, match="no entry for its grad_input, only for forward"):
        convolution.grad_input(y, w, x)


def test_a_schedule_is_for_one_net_and_batch() -> None:
    ops = quick_ops(schedule=PLAN, one="fp32", two="fp32")
    for owner, message in ((Owner("other", TRAIN, "a"), "schedule of net 'net', this net is 'other'"),
                           (Owner("net", TRAIN, "c"), "no entry for layer 'c'")):
        ops.owner = owner
        with pytest.raises(ScheduleError, match=message):
            ops.convolution(G)
    larger = ConvolutionGeometry(7, *(getattr(G, f) for f in ("in_channels", "out_channels", "input", "kernel",
                                                              "stride", "pad", "dilation")))
    ops.owner = Owner("net", TRAIN, "a")
    with pytest.raises(ScheduleError, match="made for a batch of 3, this net has 7"):
        ops.convolution(larger)
    ops.owner = Owner("net", TEST, "a")
    assert ops.convolution(larger).space is HOST


def test_a_schedule_names_only_bitstreams_that_there_are() -> None:
    with pytest.raises(BitstreamError, match="no bitstream 'two'"):
        quick_ops(schedule=PLAN, one="fp32")


def test_a_schedule_may_place_inner_products() -> None:
    plan = Schedule("net", 1, (), inner_products="one")
    rng = np.random.default_rng(3)
    a, b, result = numbers(rng, 3, 5), numbers(rng, 5, 4), empty(3, 4)
    ops = quick_ops(schedule=plan, one="fp32")
    ops.owner = Owner("net", TRAIN, "ip")
    ops.gemm(GemmShape(3, 4, 5), False, False).run(tensor(a), tensor(b), result)
    assert_close(result.read(HOST), a @ b, 5)
    assert list(ops.take_stages()) == [("ip", "gemm")]


# ---- faults -----------------------------------------------------------------------------------------------

def test_a_device_that_fails_says_so() -> None:
    ops = quick_ops(QuickArray("card", lasts=0))
    x, w, y = (tensor(np.ones(shape)) for shape in (G.x_shape, G.w_shape, G.y_shape))
    with pytest.raises(DeviceError, match=r"card: .*DEVICE_NOT_AVAILABLE"):
        ops.convolution(G).forward(x, w, None, y)
