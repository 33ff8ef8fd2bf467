"""Which kernels compute a convolution: measured once, kept, read by later processes, or named by a schedule."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opencl_device import empty, host, numbers, open_opencl, tensor

from barista import TEST, TRAIN, Net
from barista.cli.main import main
from barista.compose import make_ops
from barista.errors import DeviceError, ScheduleError, UnsupportedError
from barista.frontends.prototxt import parse_net
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.ops.base import Owner
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps, choice, measure
from barista.ops.opencl.choice import Choices, best, text
from barista.ops.opencl.choice_table import ChoiceTable, Chosen
from barista.ops.opencl.conv_families import variants
from barista.ops.opencl.conv_pass import Variant
from barista.ops.opencl.conv_unrolled import NAME
from barista.ops.opencl.convolution import OpenCLConvolution
from barista.ops.opencl.device import Device
from barista.ops.opencl.measure import Bench, representative
from barista.schedule import Entry, Schedule

pytestmark = pytest.mark.opencl

G = ConvolutionGeometry(4, 8, 12, (10, 9), (3, 3), (1, 1), (1, 1), (1, 1))
LARGE = dataclasses.replace(G, input=(60, 50))
SMALL = dataclasses.replace(LARGE, out_channels=6)
NET = """name: "net"
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 8 dim: 60 dim: 50 }
  shape { dim: 4 dim: 12 dim: 60 dim: 50 } } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 12 kernel_size: 3 pad: 1 } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 12 kernel_size: 3 pad: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "t" }
"""


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, passes that may be measured, and a clock that says so at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("BARISTA_MEASURE", "1")
    monkeypatch.setattr(choice, "LEAST_MACS", 1)
    monkeypatch.setattr(choice, "BUDGET_S", 1e6)  # however slow the machine builds
    return tmp_path / "barista" / "convolutions.json"


class Clock:
    """Takes the place of `Bench.seconds`: notes what is measured, and holds the last variant for the fastest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run_s: float = 0.0001) -> None:
        self.measured: list[tuple[Pass, ConvolutionGeometry]] = []
        clock = self

        def seconds(bench: Bench, there: Sequence[Variant[Any]], deadline: float | None) -> dict[str, float]:
            clock.measured.append((bench._pass, bench._geometry))
            return {variant.name: run_s * (1 if variant is there[-1] else 2) for variant in there}

        monkeypatch.setattr(Bench, "seconds", seconds)


def favourite(ops: OpenCLOps, geometry: ConvolutionGeometry, pass_: Pass) -> str:
    """The name of the variant that a `Clock` holds for the fastest: not what a rule would take."""
    there = variants(ops._device, geometry, pass_)
    name = choice._families((geometry, pass_), there)[-1].name
    assert name not in (there[0].name, NAME)
    return name


def made(convolution: Any) -> dict[Pass, str]:
    """The names of the variants that a convolution has made."""
    assert isinstance(convolution, OpenCLConvolution)
    return {pass_: name for pass_, (name, _) in convolution._made.items()}


# ---- what is made, and when -----------------------------------------------------------------

def test_passes_are_made_when_they_are_needed(ops: OpenCLOps) -> None:
    convolution = ops.convolution(G)
    assert convolution.variant == ""
    x, w, y = tensor(np.ones(G.x_shape)), tensor(np.ones(G.w_shape)), empty(*G.y_shape)
    convolution.forward(x, w, None, y)
    assert list(made(convolution)) == [Pass.FORWARD]
    first = variants(ops._device, G, Pass.FORWARD)[0].name
    assert convolution.variant == f"forward: {first}"
    convolution.grad_input(y, w, x)
    assert convolution.variant.startswith(f"forward: {first}, grad_input: ")
    assert convolution.workspace_bytes == sum(p.workspace_bytes for _, p in convolution._made.values())
    assert convolution.scratch_bytes == max(p.scratch_bytes for _, p in convolution._made.values())


def test_a_net_makes_what_it_runs_when_it_is_complete() -> None:
    ops = open_opencl()
    net = Net(parse_net(NET), TEST, ops=ops)
    assert [list(made(convolution)) for convolution in ops._convolutions.values()] == [[Pass.FORWARD]] * 2
    del net
    net = Net(parse_net(NET), TRAIN, ops=ops)
    a, b = (made(ops._convolutions[Owner("net", TRAIN, layer)]) for layer in "ab")
    assert set(a) == {Pass.FORWARD, Pass.GRAD_WEIGHT}
    assert set(b) == set(Pass)
    net.close()


def test_a_net_builds_all_kernels_when_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of layers without a choice too; with errors that say which file and why."""
    ops = open_opencl()
    kernels = []
    original = Device.kernel

    def kernel(device: Device, *rest: Any, **more: Any) -> Any:
        kernels.append(original(device, *rest, **more))
        return kernels[-1]

    monkeypatch.setattr(Device, "kernel", kernel)
    monkeypatch.setattr(choice, "LEAST_MACS", 1 << 40)  # nothing is made to be tried alone
    net = Net(parse_net(NET), TRAIN, ops=ops)
    assert {each.source.name for each in kernels} >= {"losses.cl", "broadcast.cl"}
    assert all(each.is_built for each in kernels)
    net.close()
    monkeypatch.setattr("barista.ops.opencl.device.kernel_source", lambda file: f"nothing of {file}")
    with pytest.raises(DeviceError, match=r"^[a-z_]+\.cl does not build on .* with the options .*-DREAL=float.*; the "
                                          r"compiler says:\n"):
        Net(parse_net(NET), TRAIN, ops=open_opencl())


def test_kernels_that_do_not_build_name_their_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: OpenCLConvolution, passes: object) -> None:
        raise DeviceError("some.cl does not build")

    monkeypatch.setattr(OpenCLConvolution, "make", refuse)
    with pytest.raises(DeviceError, match=r"^a: some\.cl does not build"):
        Net(parse_net(NET), TEST, ops=open_opencl())


@pytest.mark.parametrize("pass_", Pass)
def test_a_variant_without_memory_gives_way_to_the_last_resort(ops: OpenCLOps, monkeypatch: pytest.MonkeyPatch,
                                                               caplog: pytest.LogCaptureFixture, pass_: Pass) -> None:
    class Greedy:
        workspace_bytes = scratch_bytes = 1 << 60

        def run(self, *_: object) -> None:
            raise DeviceError("allocating: MEM_OBJECT_ALLOCATION_FAILURE")

    choices = Choices(ops._device, measured=False)
    last = choices.there((G, pass_))[-1]
    choices._lists[G, pass_] = [Variant("greedy", Greedy), last]
    rng = np.random.default_rng(3)
    shapes = (G.x_shape, G.w_shape, G.y_shape)
    results = []
    for convolution in (OpenCLConvolution(ops._device, G, choices), CpuOps().convolution(G)):
        rng = np.random.default_rng(3)
        x, w, y = (tensor(numbers(rng, *shape)) for shape in shapes)
        convolution.forward(x, w, None, y)
        convolution.grad_weight(x, y, w)
        convolution.grad_input(y, w, x)
        results.append([host(t) for t in (y, w, x)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert re.search(rf"^{pass_.value} of a convolution of .*; going on with the variant '{last.name}'$",
                     caplog.records[0].getMessage())


# ---- choosing by measuring ------------------------------------------------------------------

def test_what_is_measured_once_holds_in_later_processes(table: Path, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO, "barista.ops.opencl.choice"):
        net = Net(parse_net(NET), TRAIN, ops=open_opencl())
    # The larger layer first; the other has no need of the gradient of its input.
    assert [geometry.in_channels for _, geometry in clock.measured] == [12, 12, 12, 8, 8]
    assert {pass_ for pass_, _ in clock.measured[:3]} == set(Pass)
    lines = [record.getMessage() for record in caplog.records if record.name == "barista.ops.opencl.choice"]
    count = len(clock.measured)
    assert lines[0] == f"Building and measuring convolution kernels for {count} passes, once for this device ..."
    assert lines[1] == f"Chose the kernels of {count} passes by measuring; kept in {table}"
    entries = json.loads(table.read_text())["entries"]
    assert len(entries) == count and NAME not in {entry["variant"] for entry in entries}
    again = open_opencl()
    other = Net(parse_net(NET), TRAIN, ops=again)
    assert len(clock.measured) == count
    convolution = again._convolutions[Owner("net", TRAIN, "b")]
    assert made(convolution) == {pass_: favourite(again, convolution.geometry, pass_) for pass_ in Pass}
    net.close(), other.close()


def test_the_largest_come_first_and_the_rest_by_rule(ops: OpenCLOps, table: Path, monkeypatch: pytest.MonkeyPatch,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choice, "BUDGET_S", 8.0)
    clock = Clock(monkeypatch)
    monkeypatch.setattr(choice.time, "perf_counter", lambda: 100.0 * len(clock.measured))
    choices = Choices(ops._device)
    with caplog.at_level(logging.INFO, "barista.ops.opencl.choice"):
        choices.settle([(SMALL, Pass.FORWARD), (LARGE, Pass.FORWARD), (LARGE, Pass.FORWARD)])
    assert clock.measured == [(Pass.FORWARD, LARGE)]
    assert choices.variant(LARGE, Pass.FORWARD).name == favourite(ops, LARGE, Pass.FORWARD)
    assert choices.variant(SMALL, Pass.FORWARD).name == variants(ops._device, SMALL, Pass.FORWARD)[0].name
    assert "of 1 by rule, since the time was up (barista tune measures all)" in caplog.text
    # The rule's choice holds as well: what a seed gives does not depend on how often a net was made.
    Choices(ops._device).settle([(SMALL, Pass.FORWARD)])
    assert len(clock.measured) == 1


def test_the_fastest_family_is_looked_at_closely_where_a_run_takes_long(ops: OpenCLOps, table: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, run_s=0.01)
    Choices(ops._device).settle([(G, Pass.FORWARD)])
    assert len(clock.measured) == 2
    [entry] = json.loads(table.read_text())["entries"]
    first = favourite(ops, G, Pass.FORWARD)
    assert entry["variant"].split()[0] == first.split()[0] and entry["variant"] != first


def test_what_a_rule_decides_is_not_measured(ops: OpenCLOps, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointwise = dataclasses.replace(G, kernel=(1, 1), pad=(0, 0))
    assert "pointwise" in variants(ops._device, pointwise, Pass.FORWARD)[0].name
    clock = Clock(monkeypatch)
    Choices(ops._device).settle([(pointwise, pass_) for pass_ in Pass])
    assert not clock.measured and not table.exists()
    large = dataclasses.replace(G, kernel=(7, 7), pad=(3, 3))
    for geometry, tried in ((G, False), (large, True)):
        families = choice._families((geometry, Pass.GRAD_WEIGHT), variants(ops._device, geometry, Pass.GRAD_WEIGHT))
        assert (NAME in [variant.name for variant in families]) == tried


def test_variants_that_are_tried_are_built_together(ops: OpenCLOps, table: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are measured, and one that does not build is left for the measuring to tell."""
    counts = []
    complete = ops.context.programs.complete
    monkeypatch.setattr(ops.context.programs, "complete", lambda: counts.append(len(clock.measured)) or complete())
    clock = Clock(monkeypatch)

    def refuse() -> Any:
        raise DeviceError("broken.cl does not build")

    choices = Choices(ops._device)
    choices._lists[G, Pass.FORWARD] = [Variant("broken", refuse), *variants(ops._device, G, Pass.FORWARD)]
    choices.settle([(G, Pass.FORWARD), (G, Pass.GRAD_INPUT)])
    assert counts == [0, 2]
    assert len(clock.measured) == 2


def test_small_passes_are_not_measured(ops: OpenCLOps, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(choice, "LEAST_MACS", G.macs + 1)
    Choices(ops._device).settle([(G, Pass.FORWARD)])
    assert not clock.measured and not table.exists()


def test_ctrl_c_keeps_what_was_measured(ops: OpenCLOps, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    quick = Bench.seconds

    def seconds(bench: Bench, *rest: Any) -> dict[str, float]:
        if bench._geometry == SMALL:
            raise KeyboardInterrupt
        return quick(bench, *rest)

    monkeypatch.setattr(Bench, "seconds", seconds)
    with pytest.raises(KeyboardInterrupt):
        Choices(ops._device).settle([(LARGE, Pass.GRAD_INPUT), (SMALL, Pass.GRAD_INPUT)])
    assert [entry["work"] for entry in json.loads(table.read_text())["entries"]] == [text((LARGE, Pass.GRAD_INPUT))]


def test_nothing_is_measured_nor_read_where_the_environment_says_so(table: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setenv("BARISTA_MEASURE", "0")
    table.parent.mkdir(parents=True)
    table.write_text("not even JSON")
    Net(parse_net(NET), TRAIN, ops=open_opencl()).close()
    assert not clock.measured


def test_other_variants_make_a_choice_void(ops: OpenCLOps, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    Choices(ops._device).settle([(G, Pass.FORWARD)])
    choices = Choices(ops._device)
    choices._lists[G, Pass.FORWARD] = [Variant("new", dict), *variants(ops._device, G, Pass.FORWARD)]
    choices.settle([(G, Pass.FORWARD)])
    assert len(clock.measured) == 2
    [entry] = json.loads(table.read_text())["entries"]
    assert entry["among"].startswith("new, ")


def test_the_earlier_is_taken_but_for_more_than_chance() -> None:
    there = [Variant(name, dict) for name in ("a", "b", "c")]
    assert best({"a": 1.0, "b": 0.99}, there) == "a"
    assert best({"a": 1.0, "b": 0.9, "c": 0.895}, there) == "b"
    assert best({"c": 3.0}, there) == "c"
    assert best({}, there) == "a"


# ---- measuring ------------------------------------------------------------------------------

def test_large_batches_are_measured_with_fewer_images() -> None:
    assert representative(G) == G
    assert representative(dataclasses.replace(G, batch=3000)).batch == 3000
    assert representative(dataclasses.replace(G, batch=5000)).batch == 4096
    heavy = dataclasses.replace(G, batch=100, in_channels=512, out_channels=512, input=(56, 56))
    assert representative(heavy).batch == measure.ENOUGH_IMAGES
    assert representative(dataclasses.replace(G, batch=0)).batch == 1


@pytest.mark.parametrize("pass_", Pass)
def test_measuring_runs_every_variant(ops: OpenCLOps, pass_: Pass, caplog: pytest.LogCaptureFixture) -> None:
    """The real clock; one that fails is left out and said."""
    def refuse() -> Any:
        raise DeviceError("broken.cl does not build")

    there = variants(ops._device, G, pass_)
    seconds = Bench(ops._device, G, pass_).seconds([Variant("broken", refuse), *there], None)
    assert list(seconds) == [variant.name for variant in there]
    assert all(0 < value < 1 for value in seconds.values())
    assert [record.getMessage() for record in caplog.records] == [
        f"{pass_.value} of a convolution of {G.x_shape} to {G.y_shape}: the variant 'broken' is left out: "
        "broken.cl does not build"]


def test_measuring_ends_when_the_time_is_up(ops: OpenCLOps) -> None:
    there = variants(ops._device, G, Pass.FORWARD)
    assert list(Bench(ops._device, G, Pass.FORWARD).seconds(there, 0.0)) == [there[0].name]


def test_what_has_no_memory_to_be_measured_is_said(ops: OpenCLOps, caplog: pytest.LogCaptureFixture) -> None:
    vast = dataclasses.replace(G, input=(1 << 20, 1 << 20))
    assert Bench(ops._device, vast, Pass.FORWARD).seconds([], None) == {}
    assert "cannot be measured: " in caplog.text


# ---- the table ------------------------------------------------------------------------------

def keep_some(path: Path, first: int) -> None:
    table = ChoiceTable(open_opencl().context, np.dtype(np.float32), path)
    for index in range(first, first + 20):
        table.keep({f"work {index}": Chosen(f"variant {first}", "a, b"), "shared": Chosen(f"by {first}", "a, b")})


def test_two_processes_write_one_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(keep_some, [path, path], [0, 20]))
    table = ChoiceTable(open_opencl().context, np.dtype(np.float32), path)
    found = table.read()
    assert set(found) == {*(f"work {index}" for index in range(40)), "shared"}
    # Who came first stays; the other computes with that, too.
    assert table.keep({"shared": Chosen("late", "a, b")}) == {"shared": found["shared"]}
    assert table.keep({"shared": Chosen("late", "a, b")}, replace=True) == {"shared": Chosen("late", "a, b")}
    assert table.keep({"shared": Chosen("new", "a, b, c")}) == {"shared": Chosen("new", "a, b, c")}


def test_each_device_and_type_has_its_own_choices(ops: OpenCLOps, tmp_path: Path) -> None:
    floats, doubles = (ChoiceTable(ops.context, np.dtype(kind), tmp_path / "t.json") for kind in ("f4", "f8"))
    floats.keep({"w": Chosen("one", "")})
    doubles.keep({"w": Chosen("two", "")})
    assert (floats.read(), doubles.read()) == ({"w": Chosen("one", "")}, {"w": Chosen("two", "")})
    path = tmp_path / "t.json"
    path.write_text(path.read_text().replace("driver ", "driver 9"))
    assert floats.read() == {}


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "entries": []}', '{"format": 1, "entries": [7]}',
                                     '{"format": 1, "entries": [{"device": "d"}]}', '{"format": 1}'])
def test_a_table_that_was_spoilt_is_replaced(ops: OpenCLOps, table: Path, content: str,
                                             caplog: pytest.LogCaptureFixture) -> None:
    table.parent.mkdir(parents=True)
    table.write_text(content)
    Choices(ops._device).settle([(G, Pass.FORWARD)])
    assert re.search(f"{re.escape(str(table))} .*; the kernels of convolutions are chosen anew", caplog.text)
    assert ChoiceTable(ops.context, np.dtype(np.float32)).read()


def test_a_variant_that_is_no_more_is_measured_again(ops: OpenCLOps, table: Path) -> None:
    choices = Choices(ops._device)
    choices.settle([(G, Pass.FORWARD)])
    table.write_text(re.sub(r'"variant": "[^"]*"', '"variant": "gone"', table.read_text()))
    again = Choices(ops._device)
    assert again._unknown([(G, Pass.FORWARD)])


def test_a_folder_that_cannot_be_written(ops: OpenCLOps, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"cannot be kept: .*; set XDG_CACHE_HOME to a folder"):
        ChoiceTable(ops.context, np.dtype(np.float32), tmp_path / "file" / "t.json").keep({"w": Chosen("one", "")})


# ---- schedules ------------------------------------------------------------------------------

def plan(*entries: Entry, tmp_path: Path, **more: Any) -> str:
    path = tmp_path / "plan.json"
    Schedule("net", 4, entries, **more).save(path)
    return str(path)


def train_entries(variant: str) -> list[Entry]:
    return [Entry("a", Pass.FORWARD, "opencl", variant=variant), Entry("a", Pass.GRAD_WEIGHT, "cpu"),
            Entry("b", Pass.FORWARD, "opencl"), Entry("b", Pass.GRAD_WEIGHT, "opencl"),
            Entry("b", Pass.GRAD_INPUT, "cpu")]


def run(ops: Any) -> dict[str, Any]:
    net = Net(parse_net(NET), TRAIN, ops=ops)
    rng = np.random.default_rng(5)
    for blob in (*net.params["a"], *net.params["b"]):
        blob.data[...] = 0.1 * rng.normal(size=blob.shape)
    net.blobs["x"].data[...] = rng.normal(size=net.blobs["x"].shape)
    net.forward_pass()
    net.backward_pass()
    return {f"{name}[{index}]": blob.diff.copy() for name, blobs in net.params.items()
            for index, blob in enumerate(blobs)}


def test_a_schedule_names_engines_and_variants(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_opencl()
    ops = make_ops("opencl", schedule=plan(*train_entries(NAME), tmp_path=tmp_path))
    assert ops.describe().endswith(f"convolutions by {tmp_path / 'plan.json'}")
    with caplog.at_level(logging.INFO, "barista.ops.scheduled"):
        results = run(ops)
    assert "a: forward on opencl, grad_weight on cpu" in caplog.text
    for name, expected in run(CpuOps()).items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    below = ops.host
    assert isinstance(below, OpenCLOps)
    net = Net(parse_net(NET), TRAIN, ops=ops)
    assert made(below._convolutions[Owner("net", TRAIN, "a")]) == {Pass.FORWARD: NAME}
    assert set(made(below._convolutions[Owner("net", TRAIN, "b")])) == {Pass.FORWARD, Pass.GRAD_WEIGHT}
    net.close()


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    open_opencl()
    ops = make_ops("opencl", schedule=plan(*train_entries("unroled"), tmp_path=tmp_path))
    with pytest.raises(ScheduleError, match=r"^a \(Convolution\): .*plan\.json: forward: variant 'unroled' is not "
                                            r"there for .*; did you mean 'unrolled'\? there are: .*, unrolled$"):
        Net(parse_net(NET), TRAIN, ops=ops)


@pytest.mark.parametrize(("entry", "more", "problem"), [
    (Entry("a", Pass.FORWARD, "fpga", "one"), {}, "has a forward on a bitstream"),
    (Entry("a", Pass.FORWARD, "cpu"), {"inner_products": "one"}, "has inner_products on a bitstream")])
def test_a_schedule_for_an_array_needs_the_fpga_backend(tmp_path: Path, entry: Entry, more: Mapping[str, str],
                                                        problem: str) -> None:
    open_opencl()
    with pytest.raises(UnsupportedError, match=rf"plan\.json {problem}, which the backend opencl does not have; "
                                               "give --backend fpga"):
        make_ops("opencl", schedule=plan(entry, tmp_path=tmp_path, **more))


def test_a_schedule_must_fit_the_net(tmp_path: Path) -> None:
    open_opencl()
    lacking = make_ops("opencl", schedule=plan(*train_entries("")[:-1], tmp_path=tmp_path))
    with pytest.raises(ScheduleError, match="b: net 'net' runs grad_input, for which"):
        Net(parse_net(NET), TRAIN, ops=lacking)
    Net(parse_net(NET), TEST, ops=lacking).close()


# ---- the command ----------------------------------------------------------------------------

def test_the_command_measures_everything_and_keeps_it(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    clock = Clock(monkeypatch)
    model = tmp_path / "net.prototxt"
    model.write_text(NET)
    assert main(["tune", "--model", str(model)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", out[0]) == ["layer and pass", "images", "kernel", "ms", "GF/s", "share of the best"]
    assert sum("chosen" in line for line in out) == len(clock.measured) == len(set(clock.measured)) == 5
    assert any(line.startswith("b grad_input ") and "unrolled" in line and line.endswith("100 %  chosen")
               for line in out)
    assert {entry["variant"] for entry in json.loads(table.read_text())["entries"]} == {NAME}
    assert main(["tune", "--model", str(model), "--phase", "TEST"]) == 0
    assert len(clock.measured) == 7


def test_other_backends_have_no_variants() -> None:
    with pytest.raises(UnsupportedError, match="the cpu backend has one way to compute a convolution"):
        CpuOps().tune_convolutions([])
