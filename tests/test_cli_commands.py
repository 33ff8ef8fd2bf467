"""Commands from end to end: training, resuming, signals, errors and exit statuses, data tools, demo."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import barista
from barista.cli import demo as demo_command
from barista.cli import main as cli
from barista.cli.main import main
from barista.data import open_database, read_mean
from barista.frontends.prototxt import read_binary_net
from barista.proto.blobs import blob_to_array

NET = """
name: "Line"
layer {
  name: "data" type: "DummyData" top: "x" top: "y"
  dummy_data_param {
    shape { dim: 4 dim: 3 } shape { dim: 4 dim: 1 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 0.5 }
  }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line; return its status and what it wrote on standard output and error."""
    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err
    return run


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, with a network that trains in milliseconds."""
    (tmp_path / "net.prototxt").write_text(NET)
    solver(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def solver(folder: Path, name: str = "solver.prototxt", **fields: object) -> None:
    """Write a solver file with some fields replaced; None leaves one out."""
    values: dict[str, object] = {
        "net": '"net.prototxt"', "base_lr": 0.1, "lr_policy": '"fixed"', "max_iter": 20, "display": 10,
        "snapshot_prefix": '"line"', "random_seed": 3, "solver_mode": "CPU"} | fields
    (folder / name).write_text("".join(f"{k}: {v}\n" for k, v in values.items() if v is not None))


def weights(path: Path) -> np.ndarray:
    """All parameters of a caffemodel."""
    return np.concatenate([blob_to_array(blob).ravel() for layer in read_binary_net(path).layer
                           for blob in layer.blobs])


# ---- train ------------------------------------------------------------------------------------------------

def test_training_lowers_the_loss_and_leaves_a_snapshot(line: Path, say: Say) -> None:
    status, _, log = say("train", "-solver", "solver.prototxt")
    assert status == 0, log
    losses = [float(value) for value in re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", log)]
    assert losses[-1] < losses[0]
    assert (line / "line_iter_20.caffemodel").exists()
    assert (line / "line_iter_20.solverstate").exists()


def test_a_solver_is_found_and_finds_its_files_from_elsewhere(line: Path, say: Say,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    (line / "elsewhere").mkdir()
    monkeypatch.chdir(line / "elsewhere")
    assert say("train", "-solver", "../solver.prototxt")[0] == 0


def test_the_seed_of_the_command_line_counts(line: Path, say: Say) -> None:
    found = []
    for seed in ("5", "5", "6"):
        assert say("train", "--solver", "solver.prototxt", "--seed", seed)[0] == 0
        found.append(weights(line / "line_iter_20.caffemodel"))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_resuming_goes_on_where_the_snapshot_was_made(line: Path, say: Say) -> None:
    solver(line, snapshot=10)
    assert say("train", "-solver", "solver.prototxt")[0] == 0
    status, _, log = say("train", "-solver", "solver.prototxt", "-snapshot", "line_iter_10.solverstate")
    assert status == 0, log
    assert "Resuming from line_iter_10.solverstate" in log
    assert re.findall(r"Iteration (\d+), lr", log) == ["10"]


def test_weights_are_the_start_of_finetuning(line: Path, say: Say) -> None:
    assert say("train", "-solver", "solver.prototxt")[0] == 0
    before = weights(line / "line_iter_20.caffemodel")
    solver(line, base_lr=0, snapshot_prefix='"tuned"', max_iter=1, random_seed=9)
    assert say("train", "-solver", "solver.prototxt", "-weights", "line_iter_20.caffemodel")[0] == 0
    np.testing.assert_array_equal(weights(line / "tuned_iter_1.caffemodel"), before)


def test_snapshot_and_weights_exclude_each_other(line: Path, say: Say) -> None:
    status, _, log = say("train", "-solver", "solver.prototxt", "-snapshot", "a", "-weights", "b")
    assert status == 2
    assert "not both" in log


@pytest.mark.opencl
def test_an_opencl_device_computes_where_it_is_asked_for(line: Path, say: Say) -> None:
    pytest.importorskip("pyopencl", reason="the opencl extra is not installed")
    found = []
    for words in (["--backend", "cpu"], ["--backend", "opencl"], ["--backend=OpenCL", "--device", "0"]):
        status, _, log = say("train", "-solver", "solver.prototxt", *words)
        assert status == 0, log
        assert ("caffe.cpp:197] Use OpenCL." in log) is (words[-1] != "cpu")
        found.append(weights(line / "line_iter_20.caffemodel"))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[2], found[1])


@pytest.mark.opencl
def test_time_splits_what_an_opencl_device_does(line: Path, say: Say) -> None:
    pytest.importorskip("pyopencl", reason="the opencl extra is not installed")
    status, _, log = say("time", "-model", "net.prototxt", "--backend", "opencl", "-iterations", "2")
    assert status == 0, log
    head = next(row for row in log.splitlines() if re.search(r"\] layer +pass", row))
    assert re.search(r"(host to device +)?kernel +(device to host +)?processor +sum$", head), head


@pytest.mark.opencl
def test_an_unknown_device_is_named_with_those_there_are(line: Path, say: Say) -> None:
    pytest.importorskip("pyopencl", reason="the opencl extra is not installed")
    status, _, err = say("time", "-model", "net.prototxt", "--backend", "opencl", "--device", "nowhere", "--quiet")
    assert status == 1
    assert re.fullmatch(r"barista: error: no OpenCL device or platform has 'nowhere' in its name; .*\n", err)


def test_options_without_effect_are_said(line: Path, say: Say) -> None:
    status, _, log = say("train", "-solver", "solver.prototxt", "-iterations", "5", "--device", "1")
    assert status == 0
    assert "--iterations has no effect on `barista train`" in log
    assert "--device 1 has no effect on the backend cpu" in log


def test_threads_are_those_asked_for(line: Path, say: Say) -> None:
    _, _, log = say("train", "-solver", "solver.prototxt", "--threads", "1")
    assert re.search(r"chosen by .*\b1 thread", log)


@pytest.mark.parametrize("words", [["--quiet"], ["--log-level", "warning"]])
def test_quiet_says_nothing_of_what_goes_well(line: Path, say: Say, words: list[str]) -> None:
    assert say("train", "-solver", "solver.prototxt", *words) == (0, "", "")


def test_stage_and_level_choose_layers(line: Path, say: Say) -> None:
    rule = 'include { stage: "more" min_level: 2 }'
    extra = f'layer {{ name: "extra" type: "Sigmoid" bottom: "ip" top: "more" {rule} }}'
    (line / "net.prototxt").write_text(NET + extra)
    both = ["-stage", "a,more", "-level", "2"]
    for words, there in (([], False), (both[:2], False), (both, True)):
        status, _, log = say("train", "-solver", "solver.prototxt", *words)
        assert status == 0, log
        assert ('name: "extra"' in log) is there


def test_unknown_fields_can_be_skipped(line: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    solver(line, fancy=1)
    (line / "net.prototxt").write_text(NET.replace('name: "ip"', 'name: "ip" glitter: true'))
    (line / "elsewhere").mkdir()
    monkeypatch.chdir(line / "elsewhere")
    assert say("train", "-solver", "../solver.prototxt")[0] == 1
    status, _, log = say("train", "-solver", "../solver.prototxt", "--ignore-unknown-fields")
    assert status == 0, log
    for name in ("fancy", "glitter"):
        assert re.search(rf"^W.*{name}", log, re.MULTILINE)
    for command in ("time", "test"):
        words = [command, "-model", "../net.prototxt", "-iterations", "1"]
        words += ["-weights", "line_iter_20.caffemodel"] if command == "test" else []
        assert say(*words)[0] == 1
        assert say(*words, "--ignore-unknown-fields")[0] == 0


# ---- errors -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("words", "message"), [
    (["train", "-solver", "nowhere.prototxt"], r"nowhere\.prototxt"),
    (["train", "-solver", "no_net.prototxt"], r"nt\.prototxt"),
    (["train", "-solver", "typo.prototxt"], r"typo\.prototxt:\d+:\d+: .*'base_lrr'.*did you mean 'base_lr'"),
    (["train", "-solver", "fpga.prototxt", "--bitstream", "none.json"],
     r"none\.json: there is no manifest none\.json; `barista bitstream build` makes"),
    (["train", "-solver", "fpga.prototxt", "--schedule", "none.json"], r"none\.json: the schedule cannot be read"),
    (["train", "-solver", "wild.prototxt"], r"training diverged: at iteration \d+"),
    (["train", "-solver", "solver.prototxt", "--backend", "opnecl"], r"'opnecl'.*did you mean 'opencl'"),
    (["train", "-solver", "solver.prototxt", "-snapshot", "none.solverstate"], r"none\.solverstate"),
    (["train", "-solver", "solver.prototxt", "-weights", "none.caffemodel"], r"none\.caffemodel"),
    (["test", "-model", "net.prototxt", "-weights", "net.prototxt"], r"net\.prototxt"),
    (["time", "-model", "solver.prototxt"], r"solver\.prototxt"),
    (["convert_imageset", "/", "none.txt", "db"], r"none\.txt.* cannot be read"),
    (["convert_imageset", "--backend", "levledb", "/", "list.txt", "db"], "unknown backend 'levledb'; did you mean"),
    (["compute_image_mean", "none_lmdb"], r"none_lmdb"),
    (["device_query", "-gpu", "x"], r"--gpu x: give device numbers"),
    (["device_query", "-gpu", "99"], r"no OpenCL device 99|pyopencl"),
    (["device_query", "--device", "99"], r"OpenCL device 99 does not exist; choose by index|pyopencl")])
def test_what_cannot_be_done_is_one_line_and_status_1(line: Path, say: Say, words: list[str],
                                                      message: str) -> None:
    solver(line, "no_net.prototxt", net='"nt.prototxt"')
    solver(line, "typo.prototxt", base_lrr=1)
    solver(line, "fpga.prototxt", solver_mode="FPGA")
    solver(line, "wild.prototxt", base_lr=1e30)
    (line / "list.txt").write_text("a.png 0\n")
    status, _, err = say(*words, "--quiet")
    assert status == 1, err
    assert re.fullmatch(rf"barista: error: .*(?:{message}).*\n", err), err
    assert "Traceback" not in err


def test_an_error_of_the_system_is_one_line(line: Path, say: Say) -> None:
    (line / "file").write_text("")
    status, _, err = say("digits", "file/folder")
    assert (status, err) == (1, "barista: error: file/folder: Not a directory\n")


def test_memory_that_is_not_there_is_one_line(line: Path, say: Say) -> None:
    huge = NET.replace("dim: 4", "dim: 2000000000").replace("dim: 3", "dim: 1000000")
    (line / "net.prototxt").write_text(huge)
    status, _, err = say("time", "-model", "net.prototxt", "--quiet")
    assert status == 1, err
    assert err.count("\n") == 1
    assert err.startswith("barista: error: ")


def test_a_fault_of_ours_keeps_its_traceback(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: object) -> None:
        raise ZeroDivisionError("a fault")
    monkeypatch.setattr("barista.cli.device_query.run", broken)
    status, _, err = say("device_query")
    assert status == cli.FAULT
    assert "Traceback" in err
    assert "ZeroDivisionError: a fault" in err
    assert "please report it" in err.splitlines()[-1]


# ---- signals and terminals --------------------------------------------------------------------------------

def start(*words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "barista", *words], stderr=stderr, text=True,
                            env={**os.environ, "PYTHONPATH": str(Path(barista.__file__).parents[1])})


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read standard error up to the line that holds `text`."""
    assert process.stderr is not None
    read = ""
    for found in process.stderr:
        read += found
        if text in found:
            return read
    raise AssertionError(f"{text!r} did not come; got:\n{read}")


def test_ctrl_c_stops_after_the_iteration_and_keeps_the_work(line: Path) -> None:
    solver(line, max_iter=100_000_000, display=100)
    process = start("train", "-solver", "solver.prototxt")
    read_until(process, "Iteration 100,")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Optimization stopped early." in rest
    [state] = line.glob("line_iter_*.solverstate")
    assert 100 < int(re.findall(r"\d+", state.name)[0]) < 100_000_000


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_effects_of_signals_can_be_chosen(line: Path) -> None:
    solver(line, max_iter=100_000_000, display=100)
    process = start("train", "-solver", "solver.prototxt", "-sigint_effect=snapshot", "-sighup_effect=stop")
    read_until(process, "Iteration 100,")
    process.send_signal(signal.SIGINT)
    read_until(process, "Snapshotting solver state")
    process.send_signal(signal.SIGHUP)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert len(list(line.glob("line_iter_*.solverstate"))) == 2


def test_ctrl_c_ends_other_commands_with_status_130(line: Path) -> None:
    process = start("time", "-model", "net.prototxt", "-iterations", "100000000")
    read_until(process, "Iteration: 10 ")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "barista: interrupted"
    assert "Traceback" not in rest


def test_a_terminal_gets_a_bar_and_whole_log_lines(line: Path) -> None:
    termios = pytest.importorskip("termios", reason="this system has no pseudo-terminals")
    solver(line, max_iter=3000, display=500)
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    process = start("train", "-solver", "solver.prototxt", stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(controller)
    assert process.wait(60) == 0
    text = shown.decode()
    assert re.search(r"train: 100%.*3000/3000 .*loss=.*lr=0\.1", text)
    lines = re.findall(r"(?:^|[\r\n])(I\d{8} [^\r\n]*solver\.cpp:239\][^\r\n]*)", text)
    assert len(lines) == 6
    assert all(re.search(r"loss = \S+$", found) for found in lines)


# ---- data tools and demo ----------------------------------------------------------------------------------

def test_images_become_a_database_and_a_mean(golden: Path, tmp_path: Path, say: Say) -> None:
    images = golden / "data" / "png"
    database = tmp_path / "images_lmdb"
    status, _, log = say("convert_imageset", "-gray", "-resize_width=8", "-resize_height", "6", f"{images}/",
                         f"{images / 'list.txt'}", f"{database}")
    assert status == 0, log
    assert "A total of 10 images." in log
    assert "Processed 10 files." in log
    with open_database(database) as records:
        assert len(records) == 10
    mean = tmp_path / "mean.binaryproto"
    status, _, log = say("compute_image_mean", f"{database}", f"{mean}")
    assert status == 0, log
    assert read_mean(mean).shape == (1, 6, 8)
    assert "Number of channels: 1" in log


def test_the_mean_equals_that_of_caffes_own_tool(golden: Path, tmp_path: Path, say: Say) -> None:
    mean = tmp_path / "mean.binaryproto"
    assert say("compute_image_mean", f"{golden / 'data' / 'png_lmdb'}", f"{mean}")[0] == 0
    np.testing.assert_array_equal(read_mean(mean), read_mean(golden / "data" / "png_mean.binaryproto"))


def test_digits_writes_both_databases(tmp_path: Path, say: Say) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    assert say("digits", f"{tmp_path / 'new'}")[0] == 0
    for name, count in (("digits_train_lmdb", 1437), ("digits_test_lmdb", 360)):
        with open_database(tmp_path / "new" / name) as records:
            assert len(records) == count


def test_the_demo_learns_and_its_advice_works(tmp_path: Path, say: Say,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    start_s = time.monotonic()
    status, out, err = say("demo")
    assert status == 0, err
    assert time.monotonic() - start_s < 180
    found = re.search(r"Test accuracy: ([\d.]+) % of 360 images", out)
    assert found is not None
    assert float(found[1]) >= 97
    assert "Optimization Done." in (tmp_path / "demo" / demo_command.LOG).read_text()
    advice = [line.split() for line in out.splitlines() if line.startswith("  barista")]
    assert [words[1] for words in advice] == ["test", "time", "train", "train"]
    monkeypatch.chdir(tmp_path / "demo")
    solver_text = Path("solver.prototxt").read_text()
    Path("solver.prototxt").write_text(solver_text.replace("max_iter: 300", "max_iter: 301"))
    for _, *words in (advice[0], [*advice[1][:-1], "1"], advice[3]):
        status, _, err = say(*words)
        assert status == 0, err
    assert Path("lenet_digits_iter_301.caffemodel").exists()


def test_the_demo_finds_what_lies_where_it_was_given(tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is another one than the user's."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    Path("cpu.json").write_text("no JSON")
    status, _, err = say("demo", "--folder", "there", "--backend", "fpga", "--schedule", "cpu.json")
    assert status == 1
    assert f"{tmp_path / 'cpu.json'}:1:1: no JSON" in err



def test_the_demo_keeps_what_its_folder_holds(tmp_path: Path, say: Say) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    (tmp_path / "solver.prototxt").write_text(
        'net: "train_val.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "mine"\n')
    for _ in range(2):
        status, out, err = say("demo", "--folder", f"{tmp_path}")
        assert status == 0, err
    assert f"the databases that are in {tmp_path} already" in out
    assert (tmp_path / "mine_iter_2.caffemodel").exists()
