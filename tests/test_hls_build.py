"""From a folder to a bitstream: its Makefile with a stand-in for ``v++``, and `barista bitstream import`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import vitis_reports
from card_projects import CONV, LENET, NAME, SHELL, TILES, Capture, configured, say, schedule

from barista.hardware import bitstream as bitstreams
from barista.hardware.bitstream import parse_name
from barista.hardware.board import load_board
from barista.schedule.schedule import Schedule
from barista.synthesis.toolchain import find_compiler, find_headers


@pytest.fixture
def folder(tmp_path: Path, capsys: Capture) -> Path:
    return configured(capsys, tmp_path / "hls_build", "--tile", "4,4,8", "--precision", "fp32", "--board", "u250")


# ---- make -------------------------------------------------------------------------------------------------

def make(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(folder), *words], env=environment, capture_output=True, text=True,
                          check=False)


def log(environment: dict[str, str]) -> list[list[str]]:
    """What ``v++`` was called with so far."""
    return [json.loads(line) for line in Path(environment["VPP_LOG"]).read_text().splitlines()]


def test_make_builds_for_the_card(folder: Path, tmp_path: Path) -> None:
    environment = vitis_reports.install(tmp_path, SHELL)
    done = make(folder, environment, "hw")
    assert done.returncode == 0, done.stderr
    built = folder / "build" / "hw"
    common = ["--target", "hw", "--platform", SHELL, "--temp_dir", "build/hw/_x", "--log_dir", "build/hw/logs",
              "--report_dir", "build/hw/reports"]
    assert log(environment) == [
        ["--compile", *common, "--save-temps", "--config", "compile.cfg", "-I.", "--kernel", "barista_gemm", "--output",
         f"build/hw/{NAME}.xo", "hls/barista_gemm/barista_gemm.cpp"],
        ["--link", *common, "--config", "connectivity.cfg", "--output", f"build/hw/{NAME}.xclbin",
         f"build/hw/{NAME}.xo"]]
    assert sorted(path.name for path in built.iterdir()) == [
        "_x", f"{NAME}.xclbin", f"{NAME}.xclbin.info", f"{NAME}.xo", "reports"]
    assert (built / "reports" / "csynth.xml").read_text() == vitis_reports.CSYNTH
    assert f"barista bitstream import {NAME}/build/hw/{NAME}.xclbin" in done.stdout

    assert make(folder, environment, "hw").returncode == 0
    assert len(log(environment)) == 2, "nothing has changed"
    os.utime(folder / "connectivity.cfg")
    assert make(folder, environment, "hw").returncode == 0
    assert [words[0] for words in log(environment)[2:]] == ["--link"], "a memory or the clock of another link"
    os.utime(folder / "hls" / "common" / "number.h")
    assert make(folder, environment, "hw").returncode == 0
    assert [words[0] for words in log(environment)[3:]] == ["--compile", "--link"]
    assert make(folder, environment, "clean").returncode == 0
    assert not (folder / "build").exists()


def test_make_builds_for_hardware_emulation(folder: Path, tmp_path: Path) -> None:
    environment = vitis_reports.install(tmp_path, "mine")
    xpfm = str(tmp_path / "platforms" / "mine" / "mine.xpfm")
    done = make(folder, environment, "hw_emu", f"PLATFORM={xpfm}")
    assert done.returncode == 0, done.stderr
    assert all(words[words.index("--target") + 1] == "hw_emu" for words in log(environment))
    assert all(words[words.index("--platform") + 1] == xpfm for words in log(environment))
    assert (folder / "build" / "hw_emu" / f"{NAME}.xclbin").exists()
    assert (folder / "build" / "hw_emu" / "emconfig.json").exists()
    assert not (folder / "build" / "hw").exists()


@pytest.mark.parametrize(("words", "message"), [
    (["sw_emu"], r"sw_emu: AMD has withdrawn software emulation from Vitis; `make csim` takes its place"),
    (["xo", "TARGET=sw_emu"], r"AMD has withdrawn software emulation"),
    (["xo", "TARGET=fpga"], r"TARGET=fpga is not known; give hw or hw_emu"),
    (["xo", "VPP=v+++"], r"v\+\+\+ is not found: source settings64\.sh of Vitis 2022\.1 or later, or give VPP="),
    (["hw", "PLATFORM=xilinx_u9"], r"platform xilinx_u9 is not installed, neither as a file nor below .*/platforms"),
    (["csim", "HLS_INCLUDE=/nothing"], r"/nothing has no ap_int\.h: give the folder that has it, make csim HLS_INCLU")])
def test_what_make_refuses(folder: Path, tmp_path: Path, words: list[str], message: str) -> None:
    environment = vitis_reports.install(tmp_path, SHELL)
    done = make(folder, environment, *words)
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "v++.log").exists()


def test_make_csim_finds_the_headers(folder: Path, tmp_path: Path) -> None:
    """Those of Vitis HLS where its environment is set, else those that Python knows."""
    environment = vitis_reports.install(tmp_path, SHELL)
    python = tmp_path / "bin" / "python3"
    python.write_text("#!/bin/sh\necho /python/hls4ml\n")
    python.chmod(0o755)
    for more, place in (({}, "/python/hls4ml/templates/vivado/ap_types"), ({"XILINX_HLS": "/vitis"}, "/vitis/include")):
        done = make(folder, {**environment, **more}, "csim")
        assert done.returncode != 0
        assert done.stderr.startswith(f"{place} has no ap_int.h"), done.stderr


def test_make_explains_itself(folder: Path, tmp_path: Path) -> None:
    done = make(folder, vitis_reports.install(tmp_path, SHELL))
    assert done.returncode == 0
    for word in ("csim", "xo", "hw_emu", "hw", "reports", "clean", "TARGET", "PLATFORM", "HLS_INCLUDE"):
        assert re.search(rf"\b{word}\b", done.stdout), word
    assert "NAME :=" not in done.stdout


@pytest.mark.hls
@pytest.mark.parametrize("kind", ["conv", pytest.param("gemm", marks=pytest.mark.slow)])
def test_make_csim_runs_the_test_bench(tmp_path: Path, capsys: Capture, kind: str) -> None:
    words = ("--tile", "2,3,4", "--precision", "dfxp12", "--board", "u250") if kind == "gemm" else (
        "--from-schedule", str(schedule(tmp_path, ["c"], designs={"c": {"board": "u250", "design": CONV}})))
    folder = configured(capsys, tmp_path / "out", *words)
    done = make(folder, dict(os.environ), "csim", f"HLS_INCLUDE={find_headers()}",
                f"CXX={' '.join(find_compiler())}")
    assert done.returncode == 0, done.stderr
    assert "PASSED" in done.stdout


# ---- import -----------------------------------------------------------------------------------------------

@pytest.fixture
def built(folder: Path, tmp_path: Path) -> Path:
    """The binary that `make hw` leaves."""
    environment = vitis_reports.install(tmp_path, SHELL)
    assert make(folder, environment, "hw").returncode == 0
    return folder / "build" / "hw" / f"{NAME}.xclbin"


def test_import_needs_no_options(built: Path, tmp_path: Path, capsys: Capture) -> None:
    status, _, err = say(capsys, "bitstream", "import", built, "--out", tmp_path / "lib")
    assert status == 0, err
    assert "runs at 231 MHz" not in err, "it was asked for 100"
    assert re.search(r"loops whose II is above the 1 that the code asks for: \S+ in \w+ \(2\)", err)
    loaded = bitstreams.load(tmp_path / "lib" / f"{NAME}.json")
    m = loaded.manifest
    assert (m.tiles, m.precision, m.board, m.kernel) == (TILES, "fp32", load_board("u250").summary, "barista_gemm")
    assert (m.clock_hz, m.tools) == (231e6, {"v++": "2022.1", "Vitis HLS": "2022.1"})
    assert m.report is not None and m.report.link is not None and m.report.synthesis is not None
    assert loaded.binary() == built.read_bytes()
    status, out, _ = say(capsys, "bitstream", "inspect", loaded.path)
    assert status == 0
    assert re.search(r"^Kernel: +barista_gemm \(array\)$", out, re.MULTILINE)
    assert re.search(r"^DSP +144 +1,280 +10\.4% +1,280 +10\.4%$", out, re.MULTILINE)
    assert re.search(r"^products\.steps +mesh +94 +1 +105 +13$", out, re.MULTILINE)
    assert say(capsys, "bitstream", "verify", loaded.path)[0] == 0


def test_one_file_all_the_way(tmp_path: Path, capsys: Capture) -> None:
    """What `explore` writes is what `configure` builds and `import` names, and what training then asks for."""
    file, out, lib = tmp_path / "schedule.json", tmp_path / "out", tmp_path / "lib"
    assert say(capsys, "explore", *LENET, "--board", "u250", "--grid", "tr=4:8:4,tp=8:16:8", "--max-bitstreams", "2",
               "--schedule", file)[0] == 0
    assert say(capsys, "bitstream", "configure", "--from-schedule", file, "--out", out)[0] == 0
    environment = vitis_reports.install(tmp_path, SHELL)
    for folder in out.iterdir():
        assert make(folder, environment, "hw").returncode == 0
        status, _, err = say(capsys, "bitstream", "import", *(folder / "build" / "hw").glob("*.xclbin"), "--out", lib)
        assert status == 0, err
    names = Schedule.load(file).bitstreams
    assert sorted(path.stem for path in lib.glob("*.json")) == sorted(names)
    for name in names:
        assert parse_name(name) == (bitstreams.load(lib / f"{name}.json").manifest.tiles, "fp32", "array", "u250")


def test_a_build_of_another_name_keeps_it(tmp_path: Path, capsys: Capture) -> None:
    lib = tmp_path / "lib"
    bitstreams.write(lib, b"xclbin2\0", TILES, "fp32", load_board("u250"), name="mine", suffix=".bin")
    folder = configured(capsys, tmp_path / "out", "--from-schedule", schedule(tmp_path, ["mine"]), "--bitstreams", lib)
    assert make(folder, vitis_reports.install(tmp_path, SHELL), "hw").returncode == 0
    binary = folder / "build" / "hw" / "mine.xclbin"
    assert say(capsys, "bitstream", "import", binary, "--out", tmp_path / "new")[0] == 0
    assert bitstreams.load(tmp_path / "new" / "mine.json").manifest.tiles == TILES


@pytest.mark.parametrize(("words", "message"), [
    (["--tile", "8,8,8"], r"--tile 8,8,8 contradicts .*design\.json, by which it is 4,4,8; leave the option out, or"),
    (["--precision", "dfxp8"], r"--precision dfxp8 contradicts .*, by which it is fp32"),
    (["--board", "u280"], r"--board u280 contradicts .*, by which it is u250"),
    (["--kernel", "gemm"], r"--kernel gemm contradicts .*, by which it is barista_gemm"),
    (["--design", "nothing.json"], r"nothing\.json cannot be read \(No such file or directory\); give"),
    (["--clock-hz", "2e8"], r"--clock-hz 2e\+08 contradicts the report of .*, by which it runs at 2\.31e\+08 Hz;"),
    (["--clock-hz", "0"], r"--clock-hz 0: give a clock above 0")])
def test_options_may_not_contradict_the_design(built: Path, tmp_path: Path, capsys: Capture, words: list[str],
                                               message: str) -> None:
    status, _, err = say(capsys, "bitstream", "import", built, "--out", tmp_path / "lib", *words)
    assert status == 1
    assert re.search(message, err), err
    assert not (tmp_path / "lib").exists()


def test_options_that_agree_are_fine(built: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ("--tile", "4,4,8", "--precision", "fp32", "--board", "u250", "--kernel", "barista_gemm", "--clock-hz",
             "231e6")
    assert say(capsys, "bitstream", "import", built, "--out", tmp_path / "lib", *words)[0] == 0
    assert bitstreams.load(tmp_path / "lib" / f"{NAME}.json").manifest.clock_hz == 231e6


def test_a_binary_away_from_its_design(built: Path, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    moved = tmp_path / "elsewhere" / "x.xclbin"
    moved.parent.mkdir()
    moved.write_bytes(built.read_bytes())
    (moved.parent / "design.json").write_text('{"somebody": "else"}')
    status, _, err = say(capsys, "bitstream", "import", moved, "--out", tmp_path / "lib")
    assert status == 2
    assert re.search(r"needs --tile, --precision, --board, which cannot be read from the binary, or the design", err)
    for design in (folder, folder / "design.json"):
        status, _, err = say(capsys, "bitstream", "import", moved, "--design", design, "--out", tmp_path / "lib")
        assert status == 0, err
    report = bitstreams.load(tmp_path / "lib" / f"{NAME}.json").manifest.report
    assert report is not None and report.synthesis is not None
    assert report.clock_hz is None, "the clock is that of another binary"


def test_a_slower_clock_than_asked_for(built: Path, tmp_path: Path, capsys: Capture) -> None:
    built.with_name(f"{built.name}.info").write_text(vitis_reports.info(mhz=87))
    _, _, err = say(capsys, "bitstream", "import", built, "--out", tmp_path / "lib")
    assert "runs at 87 MHz, of 100 MHz that were asked for: it did not meet its timing" in err
    assert bitstreams.load(tmp_path / "lib" / f"{NAME}.json").manifest.clock_hz == 87e6


def test_a_binary_of_hardware_emulation(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert make(folder, vitis_reports.install(tmp_path, SHELL), "hw_emu").returncode == 0
    binary = folder / "build" / "hw_emu" / f"{NAME}.xclbin"
    status, _, err = say(capsys, "bitstream", "import", binary, "--out", tmp_path / "lib")
    assert status == 0
    assert "is for hardware emulation (HW Emulation Binary): it runs on no card, and on this machine where XCL_" in err
    manifest = bitstreams.load(tmp_path / "lib" / f"{NAME}.json").manifest
    assert (manifest.clock_hz, manifest.report is not None and manifest.report.link) == (100e6, None)


def test_reports_of_another_design_are_refused(built: Path, tmp_path: Path, capsys: Capture) -> None:
    def refused() -> str:
        status, _, err = say(capsys, "bitstream", "import", built, "--out", tmp_path / "lib")
        assert status == 1
        assert not (tmp_path / "lib").exists()
        return err

    csynth, told = built.parent / "reports" / "csynth.xml", built.with_name(f"{built.name}.info")
    told.write_text(vitis_reports.info(kernel="vadd, vmul"))
    assert re.search(r"has no kernel barista_gemm, but vadd, vmul: it is not of this design; give its own", refused())
    told.unlink()
    csynth.write_text(vitis_reports.CSYNTH.replace("barista_gemm", "vadd"))
    assert re.search(r"csynth\.xml is of the kernel 'vadd', not of 'barista_gemm'", refused())
    csynth.write_text(vitis_reports.CSYNTH.replace("xcu250", "xcu280"))
    assert re.search(r"is of a synthesis for xcu280-figd2104-2L-e, and the board u250 has a xcu250-", refused())
    csynth.write_text(vitis_reports.CSYNTH[:500])
    assert re.search(r"csynth\.xml: no XML: .*it may have been cut off", refused())


def test_a_convolution_array_is_imported(tmp_path: Path, capsys: Capture) -> None:
    file = schedule(tmp_path, ["c"], designs={"c": {"board": "u250", "design": CONV}})
    folder = configured(capsys, tmp_path / "out", "--from-schedule", file)
    (folder / "x.xclbin").write_bytes(b"xclbin2\0")
    words = ("bitstream", "import", folder / "x.xclbin", "--out", tmp_path / "lib")
    status, _, err = say(capsys, *words)
    assert status == 0, err
    manifest = bitstreams.load(tmp_path / "lib" / "c.json").manifest
    assert {"kind": "conv", "precision": manifest.precision, **manifest.sizes.fields()} == CONV
    assert (manifest.kernel, manifest.engine, manifest.resources.dsp) == ("fpgpt_conv", "array", 4 * 3 * 9)
    status, _, err = say(capsys, *words, "--tile", "4,4,4")
    assert (status, "--tile 4,4,4 contradicts" in err, "by which it is of an array 4,3, which has no tiles" in err) == (
        1, True, True)
    larger = schedule(tmp_path, ["c"], designs={"c": {"board": "u250", "design": {**CONV, "out_words": 80}}})
    folder = configured(capsys, tmp_path / "other", "--from-schedule", larger)
    (folder / "x.xclbin").write_bytes(b"xclbin2\0")
    status, _, err = say(capsys, "bitstream", "import", folder / "x.xclbin", "--out", tmp_path / "lib")
    assert status == 1
    assert re.search(r"lib/c\.json is of another array under the same name; remove it, or choose another folder", err)
