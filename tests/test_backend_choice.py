"""Which backend computes: the command line, else the solver's mode; what is missing is said, never replaced."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opencl_device import open_opencl
from tile_arrays import quick_ops

import barista
from barista import compose
from barista.cli.arguments import Parser, add_compute
from barista.cli.compute import Choice, choose
from barista.cli.main import main
from barista.errors import BitstreamError, DeviceError, UnsupportedError
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps
from barista.ops.fpga.device import cache_folder
from barista.ops.verify import VerifiedOps
from barista.proto.caffe_pb2 import SolverParameter

NET = """
name: "Small"
layer {
  name: "data" type: "DummyData" top: "x" top: "y"
  dummy_data_param {
    shape { dim: 4 dim: 2 dim: 6 dim: 6 } shape { dim: 4 dim: 3 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 0.5 }
  }
}
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


@pytest.fixture(autouse=True)
def _same_mode_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "_mode", "cpu")
    monkeypatch.setattr(compose, "_default", {})
    monkeypatch.setattr(compose, "_tailored", set())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, with a network and its solver; bitstreams are cached there too."""
    (tmp_path / "net.prototxt").write_text(NET)
    write_solver(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def write_solver(folder: Path, more: str = "") -> None:
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 display: 1 snapshot_prefix: "small" '
        f"random_seed: 3 {more}")


def say(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    return main(words), capsys.readouterr().err


def arguments(*words: str) -> object:
    parser = Parser("barista train", "", "")
    add_compute(parser)
    return parser.read(words)


OPENCL, CPU, FPGA = "opencl", "cpu", "fpga"


@pytest.mark.parametrize(("words", "mode", "backend", "reason"), [
    ([], None, OPENCL, "the solver, which gives no solver_mode: that means GPU in Caffe, which is OpenCL here"),
    ([], "GPU", OPENCL, "solver_mode: GPU, which is OpenCL here"),
    ([], "CPU", CPU, "solver_mode: CPU"),
    ([], "FPGA", FPGA, "solver_mode: FPGA"),
    (["--backend", "cpu"], None, CPU, "--backend"),
    (["--backend", "FPGA"], "GPU", FPGA, "--backend"),
    (["--gpu", "0"], "CPU", OPENCL, "--gpu, which is OpenCL here"),
    (["--gpu", "0", "--backend", "cpu"], None, CPU, "--backend")])
def test_who_decides(words: list[str], mode: str | None, backend: str, reason: str) -> None:
    solver = SolverParameter()
    if mode is not None:
        solver.solver_mode = SolverParameter.SolverMode.Value(mode)
    assert choose(arguments(*words), solver) == Choice(backend, reason)


def test_without_a_solver_the_cpu_computes() -> None:
    assert choose(arguments()).backend == CPU
    assert choose(arguments("--gpu", "all")).backend == OPENCL


@pytest.mark.opencl
@pytest.mark.parametrize(("mode", "words", "first", "second"), [
    ("solver_mode: CPU", [], r"Backend cpu, chosen by solver_mode: CPU; CPU: NumPy \S+, \d+ thread", "Use CPU."),
    ("", [], r"Backend opencl, chosen by the solver, which gives no solver_mode: .*; OpenCL: ", "Use OpenCL."),
    ("solver_mode: GPU", [], r"Backend opencl, chosen by solver_mode: GPU, which is OpenCL here; OpenCL: ",
     "Use OpenCL."),
    ("solver_mode: FPGA", [],
     r"Backend fpga, chosen by solver_mode: FPGA; FPGA: board emulated \(.*\), bitstream gemm_", "Use FPGA."),
    ("solver_mode: FPGA", ["--backend", "cpu"], r"Backend cpu, chosen by --backend; CPU: ", "Use CPU.")])
def test_the_log_says_what_computes_and_why(small: Path, capsys: pytest.CaptureFixture[str], mode: str,
                                            words: list[str], first: str, second: str) -> None:
    open_opencl()
    write_solver(small, mode)
    status, log = say(capsys, "train", "-solver", "solver.prototxt", *words)
    assert status == 0, log
    lines = log.splitlines()
    while "Building the bitstream" in lines[0] or "device.py" in lines[0]:  # at the first use
        del lines[0]
    assert re.search(rf"\] {first}", lines[0])
    assert lines[1].endswith(f"caffe.cpp:197] {second}")
    assert ("] Bitstreams: gemm_fast" in log) is (second == "Use FPGA.")


@pytest.mark.opencl
def test_the_backends_train_to_the_same_weights(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    found = []
    for words in (["cpu"], ["opencl"], ["fpga"], ["fpga", "--inner-products", "--verify-gemm"]):
        status, log = say(capsys, "train", "-solver", "solver.prototxt", "--backend", *words)
        assert status == 0, log
        assert ("Verified: 5 passes of convolutions and 7 other products were compared" in log) is (len(words) == 3)
        net = barista.Net("net.prototxt", barista.TRAIN, weights="small_iter_2.caffemodel", ops=CpuOps())
        found.append(net.params["conv"][0].data.copy())
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["", "solver_mode: GPU", "solver_mode: FPGA"])
def test_nothing_takes_the_place_of_what_is_missing(small: Path, mode: str) -> None:
    write_solver(small, mode)
    script = ("import sys\nsys.modules['pyopencl'] = None\nfrom barista.cli.main import main\n"
              "sys.exit(main(['train', '-solver', 'solver.prototxt', '--quiet']))")
    root = str(Path(barista.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 1
    assert re.fullmatch(r"barista: error: backend \w+, chosen by .*: OpenCL, on which the backends opencl and "
                        r"fpga stand, needs the package 'pyopencl', "
                        r".*pip install 'barista-caffe\[opencl\]'; or give --backend cpu to compute on the processor\n",
                        done.stderr)


def test_a_device_that_fails_to_open_is_an_error_with_the_reason(small: Path, capsys: pytest.CaptureFixture[str],
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> OpSet:
        raise DeviceError("no OpenCL platform was found (PLATFORM_NOT_FOUND_KHR)")

    monkeypatch.setattr("barista.cli.compute.make_ops", refuse)
    status, log = say(capsys, "train", "-solver", "solver.prototxt")
    assert status == 1
    assert "error: backend opencl, chosen by the solver, which gives no solver_mode" in log
    assert "no OpenCL platform was found" in log and "or give --backend cpu" in log


@pytest.mark.opencl
@pytest.mark.parametrize(("words", "more", "warning"), [
    (["--gpu", "1"], "", r"--gpu 1: the numbers are CUDA's and are not followed"),
    ([], "solver_mode: GPU device_id: 2", r"device_id: 2: the numbers are CUDA's"),
    (["--backend", "cpu", "--device", "0"], "", r"--device 0 has no effect on the backend cpu"),
    (["--backend", "cpu", "--verify-gemm"], "", r"--verify-gemm has no effect on the backend cpu"),
    (["--backend", "cpu", "--schedule", "x.json"], "", r"--schedule has no effect on the backend cpu"),
    (["--backend", "opencl", "--bitstream", "x"], "", r"--bitstream has no effect on the backend opencl"),
    (["--backend", "opencl", "--inner-products"], "", r"--inner-products has no effect on the backend opencl")])
def test_options_without_effect_are_said(small: Path, capsys: pytest.CaptureFixture[str], words: list[str], more: str,
                                         warning: str) -> None:
    open_opencl()
    write_solver(small, more)
    status, log = say(capsys, "train", "-solver", "solver.prototxt", *words)
    assert status == 0, log
    assert re.search(f"^W.*{warning}", log, re.MULTILINE)


# ---- time -------------------------------------------------------------------------------------------------

@pytest.mark.opencl
@pytest.mark.parametrize(("backend", "columns", "passes"), [
    ("cpu", ["processor", "sum"], {"forward", "backward"}),
    ("opencl", ["host to device", "kernel", "device to host", "processor", "sum"], {"forward", "backward"}),
    ("fpga", ["im2col", "tiling", "host to device", "kernel", "device to host", "untiling", "processor", "sum"],
     {"forward", "forward rest", "grad_weight", "backward rest"})])
def test_time_says_where_each_layer_spends_it(small: Path, capsys: pytest.CaptureFixture[str], backend: str,
                                              columns: list[str], passes: set[str]) -> None:
    if backend == "opencl" and open_opencl().space.shares_host:
        columns = [column for column in columns if " to " not in column]  # nothing travels
    status, log = say(capsys, "time", "--model", "net.prototxt", "--iterations", "2", "--backend", backend)
    assert status == 0, log
    rows = [line.partition("] ")[2] for line in log.splitlines()]
    start = next(index for index, row in enumerate(rows) if row.startswith("Average time of each layer and pass"))
    head = re.split(r" {2,}", rows[start + 1].strip())
    assert head == ["layer", "pass", *columns]
    end = next(index for index, row in enumerate(rows) if row.startswith("share"))
    table = [re.split(r" {2,}", row.strip()) for row in rows[start + 2:end + 1]]
    conv = [row for row in table if row[0] == "conv"]
    assert {row[1] for row in conv} == passes
    for row in conv:
        parts = [float(cell) for cell in row[2:-1] if cell != "-"]
        assert sum(parts) == pytest.approx(float(row[-1]), rel=0.01)
        assert float(row[-1]) > 0
    # The rows of a layer add up to Caffe's lines, those of all layers to the total.
    layer_ms = sum(float(found) for found in re.findall(r"conv\t\w+: (\S+) ms", log))
    assert sum(float(row[-1]) for row in conv) == pytest.approx(layer_ms, rel=0.01)
    total, share = table[-2], table[-1]
    assert total[0] == "total" and share[0] == "share" and share[-1] == "100.0 %"
    assert float(total[-1]) == pytest.approx(sum(float(row[-1]) for row in table[:-2]), rel=0.01)
    assert sum(float(cell.removesuffix(" %")) for cell in share[1:-1]) == pytest.approx(100, abs=0.5)


@pytest.mark.opencl
def test_time_names_the_passes_of_inner_products(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    status, log = say(capsys, "time", "--model", "net.prototxt", "--iterations", "1", "--backend", "fpga",
                      "--inner-products")
    assert status == 0, log
    assert re.findall(r"\] ip +(\w+(?: rest)?)  ", log) == ["forward", "forward rest", "grad_weight", "grad_input",
                                                            "backward rest"]


def test_time_draws_the_stages(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    status, log = say(capsys, "time", "--model", "net.prototxt", "--iterations", "1", "--plot", "stages.png")
    assert status == 0, log
    assert "Stages drawn in stages.png" in log
    assert (small / "stages.png").read_bytes().startswith(b"\x89PNG")


def test_a_chart_that_cannot_be_drawn_is_refused_before_measuring(small: Path,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    (small / "there.png").mkdir()
    for path, message in (("none/stages.png", r"--plot none/stages.png: there is no folder none; make it"),
                          ("stages.chart", r"--plot stages.chart: the ending 'chart' .*one of .*pdf, .*png, .*svg"),
                          ("stages", r"--plot stages: the ending '' says no format"),
                          ("there.png", r"--plot there.png is a folder")):
        status, log = say(capsys, "time", "--model", "net.prototxt", "--iterations", "1", "--plot", path)
        assert status == 1 and re.search(message, log), log
        assert "Benchmark" not in log


def test_a_chart_needs_its_extra(small: Path, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, log = say(capsys, "time", "--model", "net.prototxt", "--iterations", "1", "--plot", "stages.png")
    assert status == 1 and "pip install 'barista-caffe[plot]'" in log
    assert "Benchmark" not in log


# ---- composition and pycaffe ------------------------------------------------------------------------------

def test_an_unknown_backend_is_named_with_the_nearest() -> None:
    with pytest.raises(UnsupportedError, match=r"'fgpa' is not in this version.*did you mean 'fpga'"):
        compose.make_ops("fgpa")


def test_modes_of_pycaffe(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make_ops(backend: str = "cpu", *_: object, **options: object) -> OpSet:
        made.append((backend, options))
        return CpuOps()

    monkeypatch.setattr(compose, "make_ops", make_ops)
    barista.set_mode_gpu()
    barista.set_mode_opencl()
    barista.set_mode_fpga("bitstreams", Path("plan.json"), device=1)
    barista.set_mode_cpu()
    barista.set_mode_opencl("pocl", verify_gemm=True)
    barista.set_mode_opencl()
    barista.set_mode_opencl()
    barista.set_mode_fpga(inner_products=True, verify_gemm=True)
    fpga = {"bitstream": "bitstreams", "schedule": Path("plan.json"), "device": "1"}
    assert made == [("opencl", {}), ("fpga", fpga), ("cpu", {}), ("opencl", {"device": "pocl", "verify": True}),
                    ("opencl", {}), ("fpga", {"inner_products": True, "verify": True})]


def test_scripts_are_told_what_computes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "barista.compose"):
        compose.default_ops()
        compose.default_ops()
        barista.set_mode_cpu()
    assert [re.sub(r"; CPU: .*", "", message) for message in caplog.messages] == [
        "Backend cpu, the present mode", "Backend cpu, chosen by set_mode"]


@pytest.mark.opencl
def test_the_fpga_mode_computes_nets(small: Path) -> None:
    open_opencl()
    barista.set_mode_fpga()
    net = barista.Net("net.prototxt", barista.TRAIN)
    assert isinstance(net.ops, FpgaOps)
    net.forward()
    assert net.ops.loader.current.startswith("gemm_fast")


@pytest.mark.opencl
def test_the_cpu_has_nothing_to_verify() -> None:
    open_opencl()
    assert isinstance(compose.make_ops("cpu", verify=True), CpuOps)
    assert isinstance(compose.make_ops("opencl", verify=True), VerifiedOps)


@pytest.mark.opencl
def test_of_several_bitstreams_one_must_be_chosen(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    for tile in ("8,8,16", "8,16,16"):
        assert main(["bitstream", "build", "--tile", tile, "--engine", "fast", "--out", "bits"]) == 0
    with pytest.raises(BitstreamError, match=r"bits holds 2 bitstreams \(.*8x16x16.*\): give one of them, or a sched"):
        compose.make_ops("fpga", bitstream="bits")
    [one] = Path("bits").glob("*8x8x16*.json")
    assert "tile 8,8,16, fp32" in compose.make_ops("fpga", bitstream=str(one)).describe()
    plan: dict[str, Any] = {"format": 1, "net": "Small", "batch": 4, "entries": [
        {"layer": "conv", "pass": "forward", "engine": "fpga", "bitstream": one.stem},
        {"layer": "conv", "pass": "grad_weight", "engine": "fpga", "bitstream": one.stem.replace("8x8", "8x16")}]}
    Path("plan.json").write_text(json.dumps(plan))
    status, log = say(capsys, "train", "-solver", "solver.prototxt", "--backend", "fpga", "--bitstream", "bits",
                      "--schedule", "plan.json")
    assert status == 0, log
    assert re.search(r"FPGA: board emulated \(.*\), 2 bitstream\(s\) by plan\.json", log)
    # Two steps and the report at the end: forward, gradient, forward, gradient, forward.
    assert re.search(r"Bitstreams: \S+8x8x16\S+ is on the board emulated \(.*; 4 swap\(s\)", log)
    assert re.search(r"\] conv: forward on \S+8x8x16\S+, grad_weight on \S+8x16x16\S+$", log, re.MULTILINE)
    status, log = say(capsys, "train", "-solver", "solver.prototxt", "--backend", "fpga", "--bitstream", "bits",
                      "--schedule", "plan.json", "--inner-products")
    assert status == 0, log
    assert re.search(r"^W.*\(--inner-products\), which has no effect with a schedule; .*plan\.json", log, re.MULTILINE)
    for change, message in (
            ({"layer": "cnov"}, r"an entry for layer 'cnov', which is not there in net 'Small'; did you mean 'conv'"),
            ({"bitstream": "none"}, r"plan\.json: conv grad_weight: there is no bitstream 'none' among those given")):
        wrong = {**plan, "entries": [*plan["entries"][:1], {**plan["entries"][1], **change}]}
        Path("wrong.json").write_text(json.dumps(wrong))
        status, log = say(capsys, "train", "-solver", "solver.prototxt", "--backend", "fpga", "--bitstream", "bits",
                          "--schedule", "wrong.json")
        assert status == 1 and re.search(message.replace("plan", "wrong"), log), log


def test_the_cache_follows_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "barista" / "bitstreams"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "barista" / "bitstreams"


def test_the_summary_of_a_run_that_loaded_nothing() -> None:
    assert quick_ops().summary().startswith("Bitstreams: none is on the board of the tests; 0 swap(s)")
