"""The log of train, test, time and device_query, against logs that Caffe wrote and the way its parsers read.

Not compared are lines with a Python origin (ours), those of threads that read ahead (their place
is chance), and those of the net's construction, which the golden logs lack
or whose own tests hold them.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from opencl_device import open_opencl

from barista.cli.main import main

NET = """
name: "LogNet"
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_lmdb" batch_size: 5 backend: LMDB }
}
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_lmdb" batch_size: 3 backend: LMDB }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer {
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 }
}
layer {
  name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } }
}
layer {
  name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy" include { phase: TEST }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "log_net.prototxt"
test_iter: 3 test_interval: 10
base_lr: 0.01 lr_policy: "inv" gamma: 0.0001 power: 0.75 momentum: 0.9 weight_decay: 0.0005
display: 5 max_iter: 20
snapshot: 10 snapshot_prefix: "lognet"
solver_mode: CPU random_seed: 7
"""

LINE = re.compile(r"^(?P<level>[IWEF])\d{8} \d\d:\d\d:\d\d\.\d{6} +\d+ "
                  r"(?P<origin>[\w.]+:\d+)\] (?P<text>.*)$")
_LEFT_OUT = re.compile(r"\.py:|^(?:net|blocking_queue)\.cpp:|^data_layer\.cpp:73|^layer_factory\.hpp:")
_FIGURE = r"(?:-?\d+(?:\.\d+)?(?:e[+-]\d+)?|inf|nan)"
# What differs from run to run; everything else must be the same to the letter.
_VARYING = [(re.compile(pattern.replace("#", _FIGURE)), replacement) for pattern, replacement in [
    (r"\(# iter/s, #s/(\d+) iters\)", r"(# iter/s, #s/\1 iters)"),
    (r"\b(loss|accuracy) = #", r"\1 = #"),
    (r"\(\* 1 = # loss\)", "(* 1 = # loss)"),
    (r"\b([Ll]oss): #", r"\1: #"),
    (r"# ms\.", "# ms."),
]]


@pytest.fixture
def log_net(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, with what the golden logs were made from."""
    shutil.copytree(golden / "data" / "mnist_lmdb", tmp_path / "mnist_lmdb")
    (tmp_path / "log_net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def structure(log: str) -> list[str]:
    """Level, origin and text of each line, figures that vary replaced by '#'."""
    lines = []
    for line in log.splitlines():
        match = LINE.match(line)
        if match is None:
            lines.append(line)
        elif not _LEFT_OUT.search(match["origin"]):
            text = match["text"]
            for pattern, replacement in _VARYING:
                text = pattern.sub(replacement, text)
            lines.append(f"{match['level']} {match['origin']}] {text}")
    return lines


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must succeed; return what it wrote on standard error."""
    capsys.readouterr()
    status = main(words)
    log = capsys.readouterr().err
    assert status == 0, log
    return log


@pytest.fixture
def trained(log_net: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The log of a training run in `log_net`."""
    return run(capsys, "train", "-solver", "solver.prototxt")


def test_train_logs_what_caffe_logs(trained: str, golden: Path) -> None:
    assert structure(trained) == structure((golden / "logs" / "train.log").read_text())


def test_test_logs_what_caffe_logs(trained: str, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run(capsys, "test", "-model", "log_net.prototxt", "-weights", "lognet_iter_20.caffemodel",
              "-iterations", "4")
    assert structure(log) == structure((golden / "logs" / "test.log").read_text())


def test_time_logs_what_caffe_logs(log_net: Path, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run(capsys, "time", "-model", "log_net.prototxt", "-iterations", "3")
    assert structure(log) == structure((golden / "logs" / "time.log").read_text())


def test_device_query_logs_what_caffe_logs(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run(capsys, "device_query")
    assert structure(log) == structure((golden / "logs" / "device_query.log").read_text())


@pytest.mark.opencl
def test_device_query_lists_the_device_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    name = open_opencl().context.name
    everything, one = run(capsys, "device_query"), run(capsys, "device_query", "--device", name.upper())
    assert 1 == one.count("Taken without --device:") <= everything.count("Taken without --device:")
    assert main(["device_query", "--device", "0", "--gpu", "0"]) == 2
    assert "give --gpu or --device, not both" in capsys.readouterr().err


# ---- what programs that read Caffe's logs look for ----------------------------------------------------

Row = dict[str, float]


def parsed(log: str) -> tuple[list[Row], list[Row]]:
    """Rows of the training and the test phase: iteration, time, learning rate and every output."""
    iteration, rate, started = -1, float("nan"), False
    rows: dict[str, list[Row]] = {"Train": [], "Test": []}
    for line in log.splitlines():
        started |= "Solving" in line
        found = re.search(r"Iteration (\d+)", line)
        if found is None and iteration == -1:
            continue
        if found:
            iteration = int(found[1])
        if found := re.search(r"lr = ([-+]?[\d.]+(?:e[-+]\d+)?)", line):
            rate = float(found[1])
        if found := re.search(rf"(Train|Test) net output #(\d+): (\S+) = ({_FIGURE})", line):
            phase, index, name, value = found.groups()
            if index == "0":
                rows[phase].append({"iteration": iteration, "rate": rate})
            rows[phase][-1][name] = float(value)
    assert started
    return rows["Train"], rows["Test"]


def times(log: str) -> Iterator[float]:
    """Seconds of day of each line with a time, as the parsers take them from the first two fields."""
    for line in log.splitlines():
        if LINE.match(line):
            clock = line.split()[1]
            hours, minutes, seconds = clock.split(":")
            yield 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def test_a_parser_finds_iterations_rates_and_outputs(trained: str, golden: Path) -> None:
    ours = parsed(trained)
    theirs = parsed((golden / "logs" / "train.log").read_text())
    for mine, caffes in zip(ours, theirs, strict=True):
        assert [row["iteration"] for row in mine] == [row["iteration"] for row in caffes]
        assert [list(row) for row in mine] == [list(row) for row in caffes]
    train, test = ours
    assert [row["iteration"] for row in train] == [0, 5, 10, 15]
    assert [row["iteration"] for row in test] == [0, 10, 20]
    assert train[-1]["rate"] == pytest.approx(0.01 * (1 + 0.0001 * 10) ** -0.75, rel=1e-5)
    assert test[-1]["loss"] < test[0]["loss"]


def test_times_do_not_run_backwards(trained: str) -> None:
    clock = list(times(trained))
    assert len(clock) > 40
    # Lines of the reading thread may be a moment out of order; midnight may pass.
    assert all(later - earlier > -1 or later < 60 for earlier, later in itertools.pairwise(clock))


def test_every_line_has_the_form_or_continues_one(trained: str) -> None:
    first = trained.splitlines()[0]
    assert LINE.match(first)
    loose = [line for line in trained.splitlines() if not LINE.match(line)]
    assert all(re.match(r"^ *(\w+: |\w+ \{|\})", line) for line in loose)
