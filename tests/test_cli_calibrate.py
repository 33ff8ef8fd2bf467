"""``barista calibrate`` on the OpenCL device at hand, and the measuring that it stands on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from opencl_device import open_opencl
from tile_arrays import quick_ops

from barista.cli import calibrate
from barista.cli.main import main
from barista.cli.measure import Measurement, measure, measure_passes
from barista.compose import make_ops
from barista.errors import DataError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.gemm.tiles import TileSizes
from barista.hardware.board import load_board
from barista.latency import calibration
from barista.latency.engine_model import predict_cpu, predict_fpga, predict_opencl
from barista.latency.workload import Workload
from barista.ops.base import OpSet

GEOMETRY = ConvolutionGeometry(3, 4, 6, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1))
SMALL = ((4, 2, 6, 10, 3, 1, 1, 1), (1, 8, 16, 8, 1, 1, 0, 1), (2, 4, 8, 9, 5, 2, 2, 2), (6, 3, 20, 12, 3, 1, 0, 1))


# ---- measuring ----------------------------------------------------------------------------------------------


def test_passes_take_turns_and_stages_are_those_of_the_array() -> None:
    ops = quick_ops()
    workloads = [Workload("conv", pass_, GEOMETRY) for pass_ in Pass]
    steps: list[int] = []
    found = measure_passes(ops, workloads, runs=3, step=steps.append)
    assert [one.workload for one in found] == workloads
    assert steps == [1] * (3 + 1) * 3
    for one in found:
        # What the array of the tests says that a product takes.
        assert (one.stages["write"], one.stages["kernel"], one.stages["read"]) == (0.001, 0.002, 0.003)
        assert one.stages["im2col"] > 0
        assert one.total_s > one.stages["im2col"] + one.stages["tiling"] + one.stages["untiling"]
        assert "loading" not in one.stages


def test_medians_are_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = make_ops("cpu")
    # One call drops what came before the run, the next takes what it took; the first run counts nothing.
    taken = iter([{}, {"kernel": 9.0}, {}, {"kernel": 3.0, "read": 1.0}, {}, {"kernel": 1.0}, {},
                  {"kernel": 2.0, "read": 5.0}])
    monkeypatch.setattr(ops, "take_stages", lambda: {("conv", "forward"): next(taken)})
    [found] = measure([(ops, Workload("conv", Pass.FORWARD, GEOMETRY))], runs=3)
    assert found.stages == {"kernel": 2.0, "read": 1.0}


def test_an_op_set_without_stages_gives_the_whole() -> None:
    [found] = measure_passes(make_ops("cpu"), [Workload("conv", Pass.GRAD_INPUT, GEOMETRY)], runs=1)
    assert found.total_s > 0
    assert found.stages == {}


# ---- the command --------------------------------------------------------------------------------------------


@pytest.mark.opencl
def test_calibrate_keeps_what_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "CONVOLUTIONS", SMALL)
    board = tmp_path / "measured.toml"
    assert main(["calibrate", "--board-out", str(board)]) == 0
    said = capsys.readouterr().err
    figures = calibration.find()
    assert f"Wrote {calibration.kept_path(figures.device)}" in said
    for stage in ("im2col", "write", "kernel", "overhead"):
        assert re.search(rf"{stage} +\w.* (us|ns|ms|GB/s) +\d+\.\d% +\d+%\n", said), stage
    assert figures.arrays[0].title == "fast 16,16,16 fp32"
    assert figures.arrays[0].load_s > 0
    assert figures.cpu is not None
    assert figures.cpu.measured == 3 * len(SMALL)
    for pass_ in Pass:
        workload = Workload("conv", pass_, GEOMETRY)
        found = predict_fpga(workload, TileSizes(16, 16, 16), "fp32", figures)
        # A second would be wrong by orders of magnitude on any machine.
        for seconds in (found.total_s, predict_cpu(workload, figures), predict_opencl(workload, figures)):
            assert seconds is not None
            assert 0 < seconds < 1
    read = load_board(board)
    assert read.name == "emulated"
    assert read.sources["reconfiguration_s"].startswith("measured by barista calibrate on ")
    assert read.dsp == load_board("emulated").dsp


@pytest.mark.opencl
def test_calibrate_measures_each_bitstream_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    monkeypatch.setattr(calibrate, "CONVOLUTIONS", SMALL[:2])
    folder, out = tmp_path / "lib", tmp_path / "machine.json"
    for words in (["--tile", "8,8,16", "--engine", "fast"], ["--tile", "4,8,16", "--engine", "array"],
                  ["--tile", "8,8,16", "--engine", "fast", "--precision", "dfxp8"]):
        assert main(["bitstream", "build", *words, "--out", str(folder)]) == 0
    assert main(["calibrate", "--quick", "--bitstreams", str(folder), "--out", str(out)]) == 0
    figures = calibration.load(out)
    assert sorted(array.title for array in figures.arrays) == ["array 4,8,16 fp32", "fast 8,8,16 dfxp8",
                                                               "fast 8,8,16 fp32"]
    assert figures.host["write"].measured == 3 * 3 * 2
    assert f"Wrote {out}" in capsys.readouterr().err


@pytest.mark.opencl
def test_calibrate_says_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_opencl()
    (tmp_path / "card.xclbin").write_bytes(b"xclbin2\0" + bytes(100))
    assert main(["bitstream", "import", str(tmp_path / "card.xclbin"), "--board", "u250", "--tile", "16,16,64",
                 "--precision", "fp32", "--out", str(tmp_path / "lib")]) == 0
    for words, message in ((["--bitstreams", str(tmp_path / "nowhere")], "nowhere"),
                           (["--bitstreams", str(tmp_path / "lib")], "u250"),
                           (["--device", "99"], "99")):
        assert main(["calibrate", "--quick", "--out", str(tmp_path / "x.json"), *words]) == 1
        said = capsys.readouterr().err
        assert re.search(rf"^barista: error: .*{message}", said, re.MULTILINE)
    assert not (tmp_path / "x.json").exists()


def test_slow_arrays_compute_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an array of a million multiply-accumulates a second, none is asked for longer than it may take."""
    def pretended(tasks: Sequence[tuple[OpSet, Workload]], runs: int) -> list[Measurement]:
        return [Measurement(workload, workload.geometry.macs * 1e-6, {}) for _, workload in tasks]

    monkeypatch.setattr(calibrate, "measure", pretended)
    workloads = [Workload("conv", pass_, shape) for shape in calibrate.geometries() for pass_ in Pass]
    found = calibrate.bearable(make_ops("cpu"), workloads)
    assert 0 < len(found) < len(workloads)
    assert all(one.geometry.macs * 1e-6 <= calibrate.LONGEST_S for one in found)


def test_transfers_that_take_no_time_cost_nothing() -> None:
    """A device that works in the host's memory has nothing to transfer; a kernel always takes time."""
    rows = [({"transfers": 2.0, "bytes": 64.0}, 0.0), ({"transfers": 4.0, "bytes": 256.0}, 1e-8)]
    costs = calibrate._fit_shared("write", rows)
    assert costs.seconds == {"transfers": 0.0, "bytes": 0.0} and costs.of(rows[1][0]) == 0
    with pytest.raises(DataError, match="none of 2 measurements took more than"):
        calibrate._fit_shared("im2col", rows)
    slow = calibrate._fit_shared("read", [({"transfers": 1.0, "bytes": 10.0 * n}, 1e-6 * n) for n in (1, 2, 3)])
    assert slow.of({"transfers": 1.0, "bytes": 1000.0}) == pytest.approx(1e-4, rel=1e-3)
