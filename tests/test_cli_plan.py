"""``barista plan``: the table, the schedule that it writes and that training executes, and what it refuses."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from lenet import lenet, train
from opencl_device import open_opencl
from tile_arrays import loader
from tolerances import training_tolerance

from barista.cli.main import main
from barista.cli.planning import net_workloads
from barista.compose import make_ops
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import load, write
from barista.hardware.board import load_board
from barista.hardware.host import load_host
from barista.latency import calibration
from barista.latency.engine_model import (
    HOST_STAGES,
    ArrayFigures,
    Costs,
    EngineFigures,
    predict_cpu,
    predict_fpga,
    predict_opencl,
)
from barista.latency.gemm_model import GemmAssumptions, gemm_latency
from barista.latency.workload import Workload
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps
from barista.resources import find
from barista.runtime.bitstream_build import build
from barista.runtime.bitstream_program import device_identity
from barista.schedule import CPU, FPGA, Entry, Schedule
from barista.schedule.costs import calibrated_costs, card_costs
from barista.schedule.selector import key_of

Capture = pytest.CaptureFixture[str]

LENET = find("prototxt", "lenet", "train_val.prototxt")
SHAPE = ("--model", str(LENET), "--input-shape", "1,28,28")
NAMES = ["gemm_array_16x16x64_fp32_u250", "gemm_array_32x32x64_fp32_u250"]


def library(folder: Path, *tiles: str, board: str = "u250", precision: str = "fp32") -> Path:
    """A folder of bitstreams with binaries that no driver has seen."""
    for sizes in tiles:
        write(folder, bytes(range(64)), TileSizes.parse(sizes), precision, load_board(board))
    return folder


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    return library(tmp_path / "library", "16,16,64", "32,32,64")


def say(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``barista plan``."""
    status = main(["plan", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def edited(board: str, folder: Path, drop: str) -> Path:
    """A copy of a board's file without one of its figures."""
    text = load_board(board).path.read_text()
    path = folder / f"{board}.toml"
    path.write_text(re.sub(rf"\[{drop}\]\n(.*\n)*?(?=\[|\Z)", "", text))
    return path


# ---- costs ------------------------------------------------------------------------------------------------

GEOMETRY = ConvolutionGeometry(4, 6, 8, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), 2)


def test_costs_on_a_card_follow_from_its_figures(cards: Path, tmp_path: Path) -> None:
    board, host = load_board("u250"), load_host("xeon_e5_2686v4")
    rates = {"im2col": 3e9, "tiling": 2e9, "untiling": 1e9}
    path = tmp_path / "host.toml"
    path.write_text(host.path.read_text() + "".join(
        f'\n[{stage}_bytes_per_s]\nvalue = {rate}\nsource = "measured"\n' for stage, rate in rates.items()))
    manifest = load(cards / f"{NAMES[0]}.json").manifest
    work = Workload("conv", Pass.GRAD_WEIGHT, GEOMETRY)
    costs = card_costs([work], {"one": manifest}, board, load_host(path))
    cpu, fpga = costs.candidates[key_of(work)]
    assert (cpu.engine, cpu.seconds) == (CPU, pytest.approx(2 * 4 * 8 * 81 * 27 / host.gemm_flops_per_s))
    # Two groups: products of 4 x 27 over 4 images of 81 positions, in one product each.
    one = gemm_latency(4, 27, 4 * 81, 16, 16, 64, GemmAssumptions.of(board, padding="once", tiling_bytes_per_s=2e9,
                                                                     untiling_bytes_per_s=1e9))
    columns_s = 4 * 2 * 27 * 81 * 4 / 3e9
    assert (fpga.engine, fpga.bitstream) == (FPGA, "one")
    assert fpga.seconds == pytest.approx(2 * float(one.total_s) + columns_s)
    assert fpga.breakdown["im2col"] == columns_s
    assert sum(fpga.breakdown.values()) == pytest.approx(fpga.seconds)
    assert costs.notes == () and costs.reconfiguration_s == {"one": 0.0}
    [note] = card_costs([work], {"one": manifest}, board, host).notes
    assert "has a rate for it: im2col, tiling, untiling; the times on bitstreams are too low by that. To count" in note
    assert "run `barista calibrate --out FILE` on the machine with the card and give --calibration FILE, or" in note


def test_the_clock_is_that_of_the_bitstream(tmp_path: Path) -> None:
    board = load_board("u250")
    slow, fast = (write(tmp_path / str(hz), b"binary", TileSizes(16, 16, 64), "fp32", board, clock_hz=hz).manifest
                  for hz in (1e6, 2e6))
    work = Workload("conv", Pass.FORWARD, GEOMETRY)
    costs = card_costs([work], {"slow": slow, "fast": fast}, board, load_host("xeon_e5_2686v4"))
    kernels = [way.breakdown["kernel"] for way in costs.candidates[key_of(work)][1:]]
    assert kernels[0] > 1.9 * kernels[1] > 0
    assert costs.reconfiguration_s == dict.fromkeys(("slow", "fast"), board.reconfiguration_s)


DEVICE = "a processor / 1 / 2"


def figures(device: str, tile_words_s: dict[str, float], opencl_s: float = 1e-3) -> EngineFigures:
    """A made-up calibration, in which only a few things take time."""
    free = Costs({})
    arrays = tuple(ArrayFigures(TileSizes.parse(tiles), "fp32", "fast", 0.25,
                                {"tiling": Costs({"words": seconds, "turned": seconds}), "kernel": free,
                                 "untiling": free}) for tiles, seconds in tile_words_s.items())
    return EngineFigures(device, "a processor", 2, False, 2,
                         {stage: Costs({"calls": 1e-6, "passes": 1e-5}) for stage in HOST_STAGES}, arrays,
                         cpu=Costs({"passes": 2e-3, "calls": 1e-4}), opencl=Costs({"passes": opencl_s, "calls": 1e-4}))


def test_costs_of_a_machine_that_was_calibrated(tmp_path: Path) -> None:
    one, two = (write(tmp_path, b"binary", TileSizes.parse(sizes), "fp32", load_board("emulated"), engine="fast",
                      device=DEVICE).manifest for sizes in ("8,8,32", "16,16,64"))
    measured = figures(DEVICE, {"8,8,32": 1e-9, "16,16,64": 3e-9})
    work = Workload("conv", Pass.GRAD_INPUT, GEOMETRY)
    costs = calibrated_costs([work], {"one": one, "two": two}, measured)
    found = {way.name: way for way in costs.candidates[key_of(work)]}
    assert list(found) == ["cpu", "opencl", "one", "two"]
    assert found["cpu"].seconds == predict_cpu(work, measured)
    assert found["opencl"].seconds == predict_opencl(work, measured)
    for name, manifest in (("one", one), ("two", two)):
        prediction = predict_fpga(work, manifest.tiles, "fp32", measured)
        assert (found[name].seconds, found[name].breakdown) == (prediction.total_s, prediction.stages)
    assert costs.reconfiguration_s == {"one": 0.25, "two": 0.25} and costs.notes == ()
    alone = calibrated_costs([work], {"one": one}, dataclasses.replace(measured, opencl=None))
    assert [way.name for way in alone.candidates[key_of(work)]] == ["cpu", "one"]
    assert alone.notes == ("No candidate: opencl, which was not calibrated",)


def test_a_calibration_says_what_the_host_of_a_card_takes(tmp_path: Path) -> None:
    """Transfers and kernels are those of the board; im2col, tiling and the CPU those of the machine."""
    board, host = load_board("u250"), load_host("xeon_e5_2686v4")
    exact, other = (write(tmp_path, b"binary", TileSizes.parse(sizes), "fp32", board).manifest
                    for sizes in ("16,16,64", "32,32,64"))
    measured = figures(DEVICE, {"8,8,32": 1e-9, "16,16,64": 3e-9})
    work = Workload("conv", Pass.FORWARD, GEOMETRY)
    costs = card_costs([work], {"exact": exact, "other": other}, board, host, measured)
    plain = card_costs([work], {"exact": exact, "other": other}, board, host)
    found = {way.name: way for way in costs.candidates[key_of(work)]}
    without = {way.name: way for way in plain.candidates[key_of(work)]}
    assert list(found) == ["cpu", "exact", "other"]
    assert found["cpu"].seconds == predict_cpu(work, measured)
    prediction = predict_fpga(work, exact.tiles, "fp32", measured).stages
    for stage in ("im2col", "tiling", "untiling"):
        assert found["exact"].breakdown[stage] == prediction[stage]
        assert without["exact"].breakdown[stage] == 0.0
    assert prediction["im2col"] > 0 and prediction["tiling"] > 0
    for name in ("exact", "other"):
        for stage in ("write", "kernel", "read"):
            assert found[name].breakdown[stage] == without[name].breakdown[stage] > 0
        assert found[name].seconds == pytest.approx(sum(found[name].breakdown.values()))
    # Two groups of 4 filters and of 27 x 324 columns: in tiles of 32,32,64 a word costs what it does in 16,16,64.  The
    # columns come straight from the framed input, which costs nothing here; zeros fill the tiles.
    assert found["other"].breakdown["tiling"] == pytest.approx(2 * 3e-9 * (32 * 64 + 352 * 64 - 324 * 27))
    assert costs.notes == ("Tiling for 32,32,64 fp32 counts at what a word costs with 16,16,64, the nearest tiles in "
                           "the calibration",)
    assert costs.reconfiguration_s == dict.fromkeys(("exact", "other"), board.reconfiguration_s)
    slow = card_costs([work], {"exact": exact}, board, host, dataclasses.replace(measured, cpu=None))
    assert slow.candidates[key_of(work)][0].seconds == without["cpu"].seconds
    assert slow.notes == ("The calibration has no figures of the CPU, whose passes count at the rate of host "
                          "xeon_e5_2686v4",)


# ---- the command ------------------------------------------------------------------------------------------

def test_a_plan_for_a_card(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    status, out, err = say(capsys, *SHAPE, "--bitstreams", cards, "--board", "u250", "--out", tmp_path / "plan.json")
    assert status == 0, err
    note, blank, *lines = out.splitlines()
    assert note.startswith("Not counted, because neither board nor host has a rate for it: im2col, tiling, until")
    assert blank == ""
    assert lines[0].split() == ["layer", "pass", "engine", "bitstream", "im2col", "ms", "runner-up", "costs", "ms",
                                "more"]
    rows = [line.split() for line in lines[1:6]]
    assert [row[:2] for row in rows] == [["conv1", "forward"], ["conv2", "forward"], ["conv2", "grad_weight"],
                                         ["conv2", "grad_input"], ["conv1", "grad_weight"]]
    schedule = Schedule.load(tmp_path / "plan.json")
    assert (schedule.net, schedule.batch) == ("LeNet", 64)
    assert [(e.layer, e.pass_.value, e.engine, e.bitstream or "-", e.im2col) for e in schedule.entries] == [
        tuple(row[:5]) for row in rows]
    assert {row[2] for row in rows} == {"cpu", "fpga"}
    assert {row[3] for row in rows} == {"-", NAMES[1]}
    assert all(float(row[7]) >= 0 for row in rows)
    total, cpu, every, beside = (float(re.search(r": ([\d.e+]+) ms", line)[1]) for line in lines[7:11])
    assert total == pytest.approx(sum(float(row[5]) for row in rows), rel=1e-3)
    assert total < every < cpu and total == beside
    assert lines[8].startswith("CPU only: ")
    assert lines[9].startswith(f"one bitstream, every pass on it ({NAMES[1]}): ")
    assert f"; the plan is {cpu / total:.3g} times as fast" in lines[8]
    # Here the best single bitstream beside the CPU is the plan itself.
    assert lines[10].endswith(" ms; the plan is the same") and len(lines) == 11
    assert "Costs from the figures of board u250 and host xeon_e5_2686v4" in err


def test_batch_and_host_count(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text(re.sub(r"(gemm_flops_per_s\]\nvalue = )\S+", r"\g<1>1_000_000",
                           load_host("xeon_e5_2686v4").path.read_text()))
    status, _, err = say(capsys, *SHAPE, "--batch", "7", "--bitstreams", cards, "--board", "u250",
                           "--host-model", slow, "--out", tmp_path / "plan.json")
    assert status == 0, err
    schedule = Schedule.load(tmp_path / "plan.json")
    assert schedule.batch == 7
    assert {entry.engine for entry in schedule.entries} == {"fpga"}


def test_other_precisions_take_part_only_where_they_are_allowed(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    library(cards, "32,32,64", precision="dfxp8")
    words = (*SHAPE, "--bitstreams", cards, "--board", "u250", "--out", tmp_path / "plan.json")
    status, out, err = say(capsys, *words)
    assert status == 0 and "dfxp8" not in out
    assert "gemm_array_32x32x64_dfxp8_u250 is left out: it computes in dfxp8; --precision allows it" in err
    status, out, _ = say(capsys, *words, "--precision", "fp32,dfxp8")
    assert status == 0 and "gemm_array_32x32x64_dfxp8_u250" in out
    status, _, err = say(capsys, *words, "--precision", "dfxp12")
    assert status == 1
    assert "has no bitstream of the precision dfxp12, only of dfxp8, fp32; allow it with --precision dfxp8, fp32" in err


def test_a_plan_for_a_card_in_a_machine_that_was_calibrated(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    calibration.save(figures(DEVICE, {"16,16,64": 1e-9, "32,32,64": 1e-9}), tmp_path / "machine.json")
    words = (*SHAPE, "--bitstreams", cards, "--board", "u250", "--out", tmp_path / "plan.json", "--calibration",
             tmp_path / "machine.json")
    status, out, err = say(capsys, *words)
    assert status == 0, err
    assert out.startswith("layer ")
    assert f"board u250; what its host takes from the calibration {tmp_path / 'machine.json'} with 2 thread(s)" in err
    assert "--host-model" not in err
    # The host's work counts: the array's every pass takes longer than without it.
    every = [float(re.search(r"^one bitstream, every pass on it.*: ([\d.e+]+) ms", text, re.MULTILINE)[1])
             for text in (out, say(capsys, *words[:-2])[1])]
    assert every[0] > every[1]
    _, _, err = say(capsys, *words, "--host-model", "gtx_1080ti")
    assert "--host-model has no effect: the calibration says what the host takes" in err
    library(cards, "32,32,64", precision="dfxp8")
    status, _, err = say(capsys, *words, "--precision", "dfxp8")
    assert status == 1
    assert (f"the calibration of {DEVICE} has no bitstream of dfxp8, so what the host takes to cut matrices into tiles "
            "of dfxp8 is not known; it has fast 16,16,64 fp32; fast 32,32,64 fp32; build one for the board") in err
    status, _, err = say(capsys, *words[:-1], cards / f"{NAMES[0]}.json")
    assert status == 1 and "is a manifest, no calibration; give a file that `barista calibrate --out FILE` wrote" in err


def test_the_place_of_the_schedule_is_tried_first(tmp_path: Path, capsys: Capture) -> None:
    for out, message in ((tmp_path / "none" / "plan.json", r"none/plan.json: there is no folder .*none; make it"),
                         (tmp_path, r" is a folder; give the name of a file")):
        # Neither network nor bitstreams are there: nothing has looked for them yet.
        status, said, err = say(capsys, "--model", "none", "--bitstreams", "none", "--board", "u250", "--out", out)
        assert (status, said) == (1, "")
        assert re.search(rf"^barista: error: --out .*{message}", err, re.MULTILINE), err


def test_a_plan_that_gains_nothing_says_so(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    calibration.save(figures(DEVICE, {"16,16,64": 1.0}), tmp_path / "machine.json")
    status, out, err = say(capsys, *SHAPE, "--bitstreams", cards, "--board", "u250", "--out", tmp_path / "plan.json",
                           "--calibration", tmp_path / "machine.json")
    assert status == 0, err
    assert re.search(r"^CPU only: [\d.]+ ms; the plan is the same$", out, re.MULTILINE)
    assert "1 times" not in out and "beside the CPU" not in out


def test_a_plan_is_drawn(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    status, _, err = say(capsys, *SHAPE, "--bitstreams", cards, "--board", "u250", "--out", tmp_path / "plan.json",
                         "--plot", tmp_path / "plan.svg")
    assert status == 0, err
    assert f"Plan drawn in {tmp_path / 'plan.svg'}" in err
    text = (tmp_path / "plan.svg").read_text()
    for label in ("conv2 grad_weight", NAMES[0], "cpu", "LeNet, batch 64, on u250", "the plan"):
        assert f"<!-- {label} -->" in text


def test_what_is_refused(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    out = ("--out", tmp_path / "plan.json")
    other = library(tmp_path / "other", "16,16,64", board="vu9p_f1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat.prototxt").write_text(
        'name: "flat" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }')
    board = edited("u250", tmp_path, "reconfiguration_s")
    for words, message in (
            ((*SHAPE, "--bitstreams", other, "--board", "u250"), r"is for the board vu9p_f1, not for u250"),
            ((*SHAPE, "--bitstreams", tmp_path / "empty", "--board", "u250"), r"empty holds no bitstream; build one"),
            ((*SHAPE, "--bitstreams", cards, "--board", "u251"), r"board 'u251' is not known; did you mean 'u2"),
            ((*SHAPE, "--bitstreams", cards, "--board", board),
             r"board 'u250' has no reconfiguration_s, which planning with 2 bitstreams needs; copy"),
            ((*SHAPE, "--bitstreams", cards, "--board", "u250", "--host-model", "xeon"), r"host 'xeon' is not known"),
            (("--model", LENET, "--bitstreams", cards, "--board", "u250"), r"data \(Data\): its database 'mnist_train"),
            (("--model", tmp_path / "flat.prototxt", "--bitstreams", cards, "--board", "u250"),
             r"net 'flat' has no convolution, so there is nothing to plan")):
        status, said, err = say(capsys, *words, *out)
        assert (status, said) == (1, ""), err
        assert re.search(rf"^barista: error: .*{message}", err, re.MULTILINE), err
        assert not (tmp_path / "plan.json").exists()


def test_the_emulated_board_is_planned_from_its_calibration(tmp_path: Path, capsys: Capture,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "library"
    for sizes in ("8,8,32", "16,16,64"):
        write(folder, b"binary", TileSizes.parse(sizes), "fp32", load_board("emulated"), engine="fast", device=DEVICE)
    words = (*SHAPE, "--bitstreams", folder, "--board", "emulated", "--out", tmp_path / "plan.json")
    status, _, err = say(capsys, *words)
    assert status == 1 and f"{DEVICE} has not been calibrated; run: barista calibrate" in err
    calibration.save(figures(DEVICE, {"8,8,32": 1e-9, "16,16,64": 3e-9}), calibration.kept_path(DEVICE))
    status, out, err = say(capsys, *words)
    assert status == 0, err
    assert f"Costs from the calibration of {DEVICE} with 2 thread(s)" in err
    assert "Not counted" not in out
    # A file that is given goes before what was kept: here OpenCL is too slow to be chosen, there it is the best.
    calibration.save(figures(DEVICE, {"8,8,32": 1.0, "16,16,64": 1.0}, opencl_s=0.0), tmp_path / "other.json")
    status, _, err = say(capsys, *words, "--calibration", tmp_path / "other.json")
    assert status == 0, err
    assert {entry.engine for entry in Schedule.load(tmp_path / "plan.json").entries} == {"opencl"}
    calibration.save(figures("another", {"8,8,32": 1.0, "16,16,64": 1.0}), tmp_path / "another.json")
    status, _, err = say(capsys, *words, "--calibration", tmp_path / "another.json")
    assert status == 1 and f"is the calibration of another, the bitstreams are for {DEVICE}; calibrate that" in err
    calibration.save(figures(DEVICE, {"8,8,32": 1e-9}), tmp_path / "few.json")
    status, _, err = say(capsys, *words, "--calibration", tmp_path / "few.json")
    assert status == 1 and f"the calibration of {DEVICE} has no bitstream fast 16,16,64 fp32, it has fast 8,8,32" in err
    write(folder, b"binary", TileSizes(4, 4, 4), "fp32", load_board("emulated"), engine="fast", device="another")
    status, _, err = say(capsys, *words)
    assert status == 1 and f"the bitstreams are for several devices: {DEVICE}; another; build them for one" in err


def test_one_bitstream_needs_no_reconfiguration_time(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    board = edited("u250", tmp_path, "reconfiguration_s")
    status, _, err = say(capsys, *SHAPE, "--bitstreams", cards / f"{NAMES[0]}.json", "--board", board,
                         "--out", tmp_path / "plan.json")
    assert status == 0, err


# ---- the schedule that it writes --------------------------------------------------------------------------

@pytest.mark.opencl
def test_a_plan_with_all_engines_trains_as_the_cpu_does(tmp_path: Path, digits: Path, capsys: Capture) -> None:
    """From a calibration to a file, from the file to the backend: two bitstreams, the CPU and OpenCL in one iteration.

    The calibration is made up, so that each engine is the best for some pass.
    """
    context = open_opencl().context
    device = device_identity(context.device)
    for sizes in ("8,8,32", "16,16,64"):
        build(context, tmp_path / "library", TileSizes.parse(sizes), "fp32", load_board("emulated"), "fast")
    net, text = tmp_path / "net.prototxt", find("prototxt", "lenet_digits", "train_val.prototxt").read_text()
    net.write_text(text.replace('source: "', f'source: "{digits}/'))
    calibration.save(figures(device, {"8,8,32": 1e-9, "16,16,64": 3e-9}), tmp_path / "calibration.json")
    status, _, err = say(capsys, "--model", net, "--bitstreams", tmp_path / "library", "--board", "emulated",
                         "--calibration", tmp_path / "calibration.json", "--out", tmp_path / "plan.json")
    assert status == 0, err
    planned = Schedule.load(tmp_path / "plan.json")
    names = [f"gemm_fast_{tiles}_fp32_emulated" for tiles in ("8x8x32", "16x16x64")]
    mixed = zip(planned.entries, (("opencl", ""), ("fpga", names[0]), ("opencl", ""), ("cpu", ""), ("fpga", names[1])),
                strict=True)
    dataclasses.replace(planned, entries=tuple(Entry(entry.layer, entry.pass_, *where) for entry, where in mixed)
                        ).save(tmp_path / "mixed.json")
    expected, truth, _ = train(CpuOps(), digits)
    with lenet(make_ops("fpga", bitstream=str(tmp_path / "library"), schedule=str(tmp_path / "plan.json")),
               digits) as solver:
        solver.step(1)
        assert solver.net.loss() == pytest.approx(expected[0], rel=training_tolerance(0))
    ops = make_ops("fpga", bitstream=str(tmp_path / "library"), schedule=str(tmp_path / "mixed.json"))
    losses, scores, _ = train(ops, digits)
    for step, (loss, other) in enumerate(zip(losses, expected, strict=True)):
        assert loss == pytest.approx(other, rel=training_tolerance(step)), f"step {step}"
    assert scores["loss"] == pytest.approx(truth["loss"], rel=1e-3)
    assert isinstance(ops, FpgaOps)
    assert set(ops.take_stages()) == {(entry.layer, entry.pass_.value) for entry in planned.entries}
    # Both are loaded once an iteration; testing goes without the second.
    assert ops.loader.swaps == 2 * len(losses) - 1 + 1


def test_the_workloads_of_a_plan_are_those_of_its_net(tmp_path: Path, cards: Path, capsys: Capture) -> None:
    """A schedule covers each pass that training runs, and no other."""
    status, _, err = say(capsys, *SHAPE, "--bitstreams", cards, "--board", "u250", "--out", tmp_path / "plan.json")
    assert status == 0, err
    text = LENET.read_text()
    data = re.search(r'layer \{\n  name: "data".*?\n\}\n', text, re.DOTALL)
    inputs = ('layer { name: "data" type: "Input" top: "data" top: "label" input_param { '
              'shape { dim: 64 dim: 1 dim: 28 dim: 28 } shape { dim: 64 } } }\n')
    (tmp_path / "net.prototxt").write_text(text.replace(data[0], inputs, 1))
    schedule = Schedule.load(tmp_path / "plan.json")
    net = Net(str(tmp_path / "net.prototxt"), 0, ops=FpgaOps(CpuOps(), loader(**dict.fromkeys(NAMES, "fp32")),
                                                             schedule=schedule))
    assert [(e.layer, e.pass_) for e in schedule.entries] == [key_of(work) for work in net_workloads(net)]
    net.forward_pass()
    net.backward_pass()
    assert set(net.ops.take_stages()) >= {(e.layer, e.pass_.value) for e in schedule.entries if e.engine == "fpga"}
