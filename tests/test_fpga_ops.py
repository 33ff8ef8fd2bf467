"""The FPGA op set: its convolutions and products against the CPU's, bitstreams loaded and swapped, schedules."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np
import pytest
from opencl_device import empty, numbers, open_opencl, tensor
from tile_arrays import TILES, QuickArray, loader, quick_ops
from tolerances import assert_close

from barista.blob import HOST
from barista.errors import BitstreamError, DeviceError, ScheduleError, UnsupportedError
from barista.frontends.prototxt import parse_net
from barista.gemm import batching
from barista.gemm.array_model import ModelArray
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.gemm.tiles import TileSizes
from barista.net import Net
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
    stages = ops.take_stages()
    assert list(stages) == [("a", "forward"), ("a", "grad_weight"), ("a", "grad_input")]
    assert list(stages["a", "grad_weight"]) == ["processor"]
    assert ops.loader.swaps == 1
    assert "1 swap(s)" in ops.summary()
    assert "forward: one, grad_weight: cpu, grad_input: two" in ops.convolution(G).variant


def test_a_layer_may_stay_on_the_host_and_is_measured_there() -> None:
    plan = Schedule("net", G.batch, tuple(Entry("a", pass_, "cpu") for pass_ in Pass))
    ops = quick_ops(schedule=plan, one="fp32")
    ops.owner = Owner("net", TRAIN, "a")
    for (result, _), (expected, _) in zip(passes(ops, G), passes(CpuOps(), G), strict=True):
        np.testing.assert_array_equal(result, expected)
    assert {key: list(stages) for key, stages in ops.take_stages().items()} == {
        ("a", pass_.value): ["processor"] for pass_ in Pass}
    assert ops.loader.current == ""


RUN = {"data": frozenset[Pass](), "a": frozenset(Pass), "b": frozenset({Pass.FORWARD}), "ip": frozenset[Pass]()}


def test_the_log_says_which_pass_runs_where(caplog: pytest.LogCaptureFixture) -> None:
    ops = quick_ops(schedule=PLAN, one="fp32", two="fp32")
    with caplog.at_level(logging.INFO, "barista.ops.fpga"):
        ops.check_net("net", TRAIN, RUN)
        ops.check_net("net", TEST, {"a": frozenset({Pass.FORWARD})})
    assert caplog.messages == ["a: forward on one, grad_weight on cpu, grad_input on two", "b: forward on cpu",
                               "a: forward on one"]


@pytest.mark.parametrize(("run", "message"), [
    ({"b": frozenset(Pass)}, r"b: net 'net' runs grad_weight and grad_input, for which plan\.json has no entry, only "
                             "for forward; add one with engine cpu, opencl or fpga"),
    ({"c": frozenset({Pass.FORWARD})}, r"c: net 'net' runs forward, .* only for nothing"),
    ({"b": frozenset()}, r"plan\.json has an entry for layer 'b', which is no convolution in net 'net'")])
def test_a_schedule_must_fit_the_training_net(run: dict[str, frozenset[Pass]], message: str) -> None:
    ops = quick_ops(schedule=PLAN, one="fp32", two="fp32")
    with pytest.raises(ScheduleError, match=message):
        ops.check_net("net", TRAIN, {**RUN, **run})


def test_an_entry_for_a_layer_that_is_not_there_names_the_nearest() -> None:
    ops = quick_ops(schedule=dataclasses.replace(PLAN, entries=(*PLAN.entries, Entry("conv_1", Pass.FORWARD, "cpu"))),
                    one="fp32", two="fp32")
    run = {**RUN, "conv1": frozenset({Pass.FORWARD})}
    with pytest.raises(ScheduleError, match=r"entry for layer 'conv_1', which is not there in net 'net'; did you mean "
                                            r"'conv1'"):
        ops.check_net("net", TRAIN, run)
    # A test net may lack layers of the training net; what it has must be planned.
    ops.check_net("net", TEST, {"a": frozenset({Pass.FORWARD})})
    with pytest.raises(ScheduleError, match=r"conv1: net 'net' runs forward, for which .* no entry"):
        ops.check_net("net", TEST, run)


def test_an_entry_for_a_pass_that_never_runs_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    ops = quick_ops(schedule=PLAN, one="fp32", two="fp32")
    ops.check_net("net", TRAIN, {**RUN, "a": frozenset({Pass.FORWARD, Pass.GRAD_WEIGHT})})
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "a: plan.json has an entry for grad_input, which never runs in net 'net'"]


NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 7 dim: 6 } } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "b" type: "Deconvolution" bottom: "a" top: "b" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "c" type: "Convolution" bottom: "b" top: "c" param { lr_mult: 0 }
  convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
layer { name: "d" type: "Convolution" bottom: "x" top: "d" convolution_param { num_output: 2 kernel_size: 3 } }
"""


def test_a_net_tells_its_op_set_which_passes_it_runs() -> None:
    told = []

    class Listening(CpuOps):
        def check_net(self, net: str, phase: int, passes: Mapping[str, frozenset[Pass]]) -> None:
            told.append((net, phase, {layer: run for layer, run in passes.items() if run}))

    target = 'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 3 dim: 2 } } }'
    net = Net(parse_net(f"name: 'net' {target} {NET}"), TRAIN, ops=Listening())
    forward, weight, down = Pass.FORWARD, Pass.GRAD_WEIGHT, Pass.GRAD_INPUT
    expected = {"a": {forward, weight}, "b": {down, weight, forward}, "c": {forward, down}, "d": {forward}}
    assert told == [("net", TRAIN, expected)]
    Net(parse_net(f"name: 'net' {target} {NET}"), TEST, ops=Listening())
    assert told[1:] == [("net", TEST, {"a": {forward}, "b": {down}, "c": {forward}, "d": {forward}})]
    assert set(net.layer_names) > set(expected)


@pytest.mark.opencl
@pytest.mark.parametrize("name", GEOMETRIES)
def test_passes_on_an_opencl_device(name: str) -> None:
    """Each engine computes what the others do; what OpenCL computed is on the host when its pass ends."""
    g = GEOMETRIES[name]
    plan = Schedule("net", g.batch, (
        Entry("a", Pass.FORWARD, "opencl"), Entry("a", Pass.GRAD_WEIGHT, "fpga", "one"),
        Entry("a", Pass.GRAD_INPUT, "opencl"), Entry("b", Pass.FORWARD, "cpu"),
        Entry("b", Pass.GRAD_WEIGHT, "opencl"), Entry("b", Pass.GRAD_INPUT, "fpga", "one")), source="plan.json")
    opencl = open_opencl()
    ops = FpgaOps(CpuOps(), loader(one="fp32"), schedule=plan, open_opencl=lambda: opencl)
    ops.measure()
    assert "1 bitstream(s) by plan.json, passes on OpenCL: " in ops.describe()
    for layer in ("a", "b"):
        ops.owner = Owner("net", TRAIN, layer)
        for (truth, k), (result, _) in zip(passes(CpuOps(np.float64), g), passes(ops, g), strict=True):
            assert_close(result, truth, k)
    stages = ops.take_stages()
    travels = set() if opencl.space.shares_host else {"write", "read"}
    # Kernels that are made at their first use may upload tables.
    assert set(stages["a", "forward"]) - {"write"} == {"kernel", "processor", *travels} - {"write"}
    assert min(stages["a", "forward"].values()) >= 0 and stages["a", "forward"]["kernel"] > 0
    assert opencl.take_queue() == {}
    assert "tiling" in stages["a", "grad_weight"] and set(stages["b", "forward"]) == {"processor"}
    assert ops.convolution(g).variant == "forward: cpu, grad_weight: opencl, grad_input: one"


@pytest.mark.opencl
def test_what_an_opencl_pass_leaves_is_on_the_host() -> None:
    opencl = open_opencl()
    plan = Schedule("net", G.batch, tuple(Entry("a", pass_, "opencl") for pass_ in Pass))
    ops = FpgaOps(CpuOps(), loader(one="fp32"), schedule=plan, open_opencl=lambda: opencl)
    ops.owner = Owner("net", TRAIN, "a")
    x, w, y, dw = (tensor(np.ones(shape)) for shape in (G.x_shape, G.w_shape, G.y_shape, G.w_shape))
    convolution = ops.convolution(G)
    for result, run in ((y, lambda: convolution.forward(x, w, None, y)),
                        (dw, lambda: convolution.grad_weight(x, y, dw)),
                        (x, lambda: convolution.grad_input(y, w, x))):
        run()
        assert result.memory.spaces == {HOST, opencl.space}


def test_an_opencl_op_set_is_opened_only_where_the_schedule_has_one() -> None:
    opened: list[str] = []

    def open_nothing() -> CpuOps:
        opened.append("opencl")
        return CpuOps()

    FpgaOps(CpuOps(), loader(one="fp32", two="fp32"), schedule=PLAN, open_opencl=open_nothing)
    assert opened == []
    plan = Schedule("net", 1, (Entry("a", Pass.FORWARD, "opencl"),), source="plan.json")
    FpgaOps(CpuOps(), loader(one="fp32"), schedule=plan, open_opencl=open_nothing)
    assert opened == ["opencl"]
    with pytest.raises(UnsupportedError, match=r"plan\.json has passes with engine opencl, and no OpenCL op set"):
        FpgaOps(CpuOps(), loader(one="fp32"), schedule=plan)


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
    with pytest.raises(BitstreamError, match=r"plan\.json: a grad_input: there is no bitstream 'two'"):
        quick_ops(schedule=PLAN, one="fp32")
    with pytest.raises(BitstreamError, match=r"plan\.json: inner_products: there is no bitstream 'three'"):
        quick_ops(schedule=dataclasses.replace(PLAN, inner_products="three"), one="fp32", two="fp32")


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
