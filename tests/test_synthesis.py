"""Designs of the GEMM array, the compiler that makes libraries of them, and ``--engine csim`` on the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barista.cli.main import main
from barista.errors import BaristaError, BitstreamError, DataError, DeviceError, MissingExtraError, UnsupportedError
from barista.gemm.shapes import Pass
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import Bitstream, write
from barista.hardware.board import load_board
from barista.hardware.library import Library
from barista.hardware.manifest import LARGEST
from barista.latency.resources import gemm_blocks, gemm_bram_bits, gemm_words
from barista.precision.formats import FORMATS
from barista.resources import find
from barista.schedule import Entry, Schedule
from barista.synthesis import csim_build, toolchain
from barista.synthesis.gemm_design import GemmDesign
from barista.synthesis.simulation import PortUse, SimulationReport, StreamUse
from barista.synthesis.toolchain import build_library, build_testbench, find_compiler, find_headers, machine, tools

Capture = pytest.CaptureFixture[str]
TILE = TileSizes(4, 4, 8)

# ---- designs ----------------------------------------------------------------------------------------------


def macros(text: str) -> dict[str, int]:
    """What a config.h defines."""
    return {name: int(value) for name, value in re.findall(r"^#define (\w+) (\d+)$", text, re.MULTILINE)}


def test_a_design_writes_its_configuration() -> None:
    design = GemmDesign(TileSizes(16, 32, 64), "fp32")
    assert (design.name, design.kernel) == ("gemm_16x32x64_fp32", "barista_gemm")
    assert macros(design.config()) == {"PRECISION": 32, "TR": 16, "TC": 32, "TP": 64, "PARTIAL_SUMS": 11,
                                       "A_PORT_BITS": 512, "B_PORT_BITS": 512, "C_PORT_BITS": 512}
    assert re.search(r"#ifndef (\w+)\n#define \1\n", design.config())
    assert macros(GemmDesign(TileSizes(7, 12, 13), "dfxp12", 128).config()) == {
        "PRECISION": 12, "TR": 7, "TC": 12, "TP": 13, "PARTIAL_SUMS": 1,
        "A_PORT_BITS": 16, "B_PORT_BITS": 64, "C_PORT_BITS": 128}


@given(st.integers(1, 128), st.integers(1, 128), st.integers(1, 1024), st.sampled_from(list(FORMATS)),
       st.sampled_from([32, 64, 128, 256, 512, 1024]))
def test_ports_are_as_wide_as_the_code_allows(tr: int, tc: int, tp: int, precision: str, port_bits: int) -> None:
    """The rules are those of the static_asserts: whole words, no more than lanes, whole beats; none wider fits."""
    design = GemmDesign(TileSizes(tr, tc, tp), precision, port_bits)
    word = 8 * design.format.storage_dtype.itemsize

    def fits(bits: int, lanes: int) -> bool:
        return bits >= word and bits // word <= lanes and tp * lanes % (bits // word) == 0

    for bits, lanes in ((design.a_port_bits, tr), (design.b_port_bits, tc)):
        assert bits <= port_bits and bits & (bits - 1) == 0 and fits(bits, lanes)
        assert not any(fits(wider, lanes) for wider in (2 * bits, 4 * bits, 8 * bits) if wider <= port_bits)
    assert 32 <= design.c_port_bits <= port_bits and tc % (design.c_port_bits // 32) == 0
    assert 2 * design.c_port_bits > port_bits or tc % (design.c_port_bits // 16) != 0
    assert GemmDesign.from_json(json.loads(json.dumps(design.to_json())), "a file") == design


def test_words_on_the_chip_are_the_resource_models() -> None:
    """Two copies of each: the words from which blocks are counted, and without second copies those of Eq. 4.11."""
    assert GemmDesign(TileSizes(3, 5, 7), "fp32").on_chip_words == {"tile_a": 42, "tile_b": 70, "sums_c": 330}
    assert GemmDesign(TileSizes(3, 5, 7), "dfxp8").on_chip_words == {"tile_a": 42, "tile_b": 70, "sums_c": 30}
    words = gemm_words([[3], [4]], 5, [1, 600], 10)
    assert [part.tolist() for part in words] == [[[6, 3600], [8, 4800]], [[10, 6000]] * 2, [[330] * 2, [440] * 2]]
    assert (32 * (words.a + words.b + words.c) == 2 * gemm_bram_bits([[3], [4]], 5, [1, 600])).all()
    assert gemm_blocks(3, 5, 600).a == 12  # 6 banks of 600 words, 512 in a block
    with pytest.raises(UnsupportedError, match=r"gemm_words: tc=0 is below 1"):
        gemm_words(1, 0, 1)


@pytest.mark.parametrize(("tile", "precision", "port_bits", "message"), [
    ((129, 1, 1), "fp32", 512, "Tr=129 exceeds 128, the largest that the kernel barista_gemm is made for"),
    ((1, 1, 1025), "fp32", 512, "Tp=1025 exceeds 1024"),
    ((1, 1, 1), "fp31", 512, "'fp31' is unknown"),
    ((1, 1, 1), "fp32", 500, "gemm_1x1x1_fp32: ports of 500 bits; a width is a power of 2 from 32 to 1024"),
    ((1, 1, 1), "dfxp8", 16, "ports of 16 bits; a width"),
    ((1, 1, 1), "dfxp8", 2048, "ports of 2048 bits; a width")])
def test_what_the_kernel_is_not_made_for(tile: tuple[int, int, int], precision: str, port_bits: int,
                                         message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        GemmDesign(TileSizes(*tile), precision, port_bits)


def test_the_kernel_says_the_same_limits() -> None:
    header = find("hls", "barista_gemm", "barista_gemm.h").read_text()
    limits = [int(re.findall(rf"{name} >= 1 && {name} <= (\d+)", header)[0]) for name in ("TR", "TC", "TP")]
    assert tuple(limits) == LARGEST


@pytest.mark.parametrize(("fields", "message"), [
    ({"tiles": [1, 2]}, r"f.json: a design of kind 'gemm' with tiles \[Tr, Tc, Tp\]"),
    ({"tiles": [1, 2, True]}, "a design of kind 'gemm' with tiles"),
    ({"kind": "conv"}, "a design of kind 'gemm'"), ({"precision": 8}, "the name of a precision"),
    ({"port_bits": "512"}, "port_bits is expected"), ({"more": 1}, "has the fields kind, tiles, precision, port_bits")])
def test_a_design_that_is_not_one(fields: Mapping[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GemmDesign.from_json({**GemmDesign(TILE, "fp32").to_json(), **fields}, "f.json")


def test_reports_are_read() -> None:
    report = SimulationReport.parse("on_chip tile_a 42\nstream rows 2 1\nport a 10 0\nport c 0 4\n")
    assert report == SimulationReport({"tile_a": 42}, {"rows": StreamUse(2, 1)}, {"a": PortUse(10, 0),
                                                                                  "c": PortUse(0, 4)})

# ---- the compiler -----------------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> Path:
    """An executable script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_which_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of CXX, words before its options included; else g++, else clang++."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler, and none of g\+\+, clang\+\+ is found; install"):
        find_compiler()
    program(tmp_path, "clang++", "true")
    assert find_compiler() == ("clang++",)
    program(tmp_path, "g++", "true")
    assert find_compiler() == ("g++",)
    monkeypatch.setenv("CXX", "clang++ -m64")
    assert find_compiler() == ("clang++", "-m64")
    monkeypatch.setenv("CXX", "g++ 'x")
    with pytest.raises(DeviceError, match=r"the variable CXX is \"g\+\+ 'x\" \(No closing quotation\); name"):
        find_compiler()
    monkeypatch.setenv("CXX", "icpc")
    with pytest.raises(DeviceError, match="the compiler 'icpc', which the variable CXX names, is not found"):
        find_compiler()


def test_a_compiler_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers(tmp_path, monkeypatch)
    monkeypatch.setenv("CXX", str(program(tmp_path, "mute", "exit 3")))
    with pytest.raises(DeviceError, match="mute --version` fails: exit status 3; install the compiler again"):
        tools()
    monkeypatch.setenv("CXX", str(program(tmp_path, "lazy", "echo lazy 1.0")))
    with pytest.raises(DeviceError, match=r"C-simulation of gemm_4x4x8_fp32: .*lazy does not compile it \(lazy 1.0\)"):
        build_library(GemmDesign(TILE, "fp32"), tmp_path / "kept")
    many = "; ".join(f"echo 'file.h:{line}: error: no' >&2" for line in range(30))
    monkeypatch.setenv("CXX", str(program(tmp_path, "strict", f"[ $1 = --version ] && echo strict 2 && exit; "
                                                              f"echo 'In file' >&2; {many}; exit 1")))
    with pytest.raises(DeviceError, match=r"strict 2\); install g\+\+ 7 or later, or name another compiler in the "
                                          r"variable CXX:\nfile.h:0: error: no\n(.*\n){19}\.\.\. and 10 more lines$"):
        build_library(GemmDesign(TILE, "fp32"), tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == []
    monkeypatch.setenv("CXX", str(tmp_path / "strict"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"cannot be kept in .*file: .*; set XDG_CACHE_HOME"):
        build_library(GemmDesign(TILE, "fp32"), tmp_path / "file")


def headers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the headers be found, where the package that has them is not installed."""
    monkeypatch.setattr(toolchain, "find_headers", lambda: folder)


def test_headers_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hls4ml", raising=False)
    with pytest.raises(MissingExtraError, match=r"C-simulation.* needs the package 'hls4ml', which is not installed; "
                                                r"run: pip install 'barista-caffe\[hls\]'"):
        find_headers()
    (tmp_path / "hls4ml").mkdir()
    (tmp_path / "hls4ml" / "__init__.py").write_text("raise RuntimeError('imported')")
    with pytest.raises(DeviceError, match=r"has no headers templates/vivado/ap_types; run: pip install --force-rei"):
        find_headers()
    folder = tmp_path / "hls4ml" / "templates" / "vivado" / "ap_types"
    folder.mkdir(parents=True)
    for name in ("ap_int.h", "hls_stream.h"):
        (folder / name).write_text("")
    assert find_headers() == folder


@pytest.mark.hls
def test_a_library_is_compiled_once_and_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    design = GemmDesign(TileSizes(1, 1, 1), "fp32")
    with caplog.at_level("DEBUG", "barista.synthesis"):
        first = build_library(design, tmp_path / "kept")
        assert build_library(design, tmp_path / "kept") == first
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert list((tmp_path / "kept").iterdir()) == [first]
    calls = []
    monkeypatch.setattr(toolchain, "compile_sources", lambda output, *_: calls.append(output.name))
    build_library(dataclasses.replace(design, port_bits=256), tmp_path / "kept")  # the same configuration
    assert calls == []
    build_library(dataclasses.replace(design, precision="dfxp8"), tmp_path / "kept")
    build_testbench(design, tmp_path / "kept")
    build_testbench(design, tmp_path / "kept", sanitize=True)
    monkeypatch.setattr(toolchain, "LIBRARY_FLAGS", (*toolchain.LIBRARY_FLAGS, "-DMORE"))
    build_library(design, tmp_path / "kept")
    assert len(set(calls)) == len(calls) == 4

# ---- the command line -------------------------------------------------------------------------------------


def say(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    status = main([*map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


NAME, FAST = (f"gemm_{engine}_4x4x8_fp32_emulated" for engine in ("csim", "fast"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bitstream:
    return csim_build.build(tmp_path_factory.mktemp("csim"), GemmDesign(TILE, "fp32"), load_board("emulated"))


@pytest.mark.hls
def test_build_list_inspect_verify(tmp_path: Path, capsys: Capture) -> None:
    status, _, err = say(capsys, "bitstream", "build", "--engine", "csim", "--tile", "4,4,8", "--out", tmp_path)
    assert status == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.json", f"{NAME}.so"]
    assert say(capsys, "bitstream", "list", tmp_path)[1].split() == [NAME, "tile", "4,4,8", "fp32", "csim", "emulated"]
    status, out, _ = say(capsys, "bitstream", "inspect", tmp_path / f"{NAME}.so")
    assert status == 0
    assert re.search(r"^Kernel: +barista_gemm \(csim\)$", out, re.MULTILINE)
    assert re.search(r"^Tools: +barista .*, compiler .*, hls4ml \d", out, re.MULTILINE)
    status, _, err = say(capsys, "bitstream", "verify", tmp_path / f"{NAME}.json", "--board", "emulated")
    assert status == 0 and f"{NAME} in C-simulation: the binary is that of the manifest, and computes what" in err
    os.truncate(tmp_path / f"{NAME}.so", 99)
    status, _, err = say(capsys, "bitstream", "verify", tmp_path / f"{NAME}.json")
    assert status == 1 and "is truncated: it has 99 of" in err


@pytest.mark.parametrize(("words", "status", "message"), [
    (["--device", "0"], 2, "bitstream build has no use for --device with --engine csim, which runs on the processor"),
    (["--board", "u250"], 1, "board u250: a bitstream for it is an .xclbin that the vendor's tools build from the"),
    (["--tile", "129,1,1"], 1, "Tr=129 exceeds 128, the largest that the kernel barista_gemm is made for"),
    (["--precision", "fp16"], 1, "number format 'fp16' is unknown")])
def test_what_cannot_be_built(tmp_path: Path, capsys: Capture, words: list[str], status: int, message: str) -> None:
    found, _, err = say(capsys, "bitstream", "build", "--engine", "csim", "--out", tmp_path / "lib", *words)
    assert (found, err.count("\n")) == (status, 1)
    assert message in err
    assert not (tmp_path / "lib").exists()


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, capsys: Capture,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: BaristaError) -> str:
        def tools_() -> None:
            raise error

        monkeypatch.setattr(csim_build, "build_library", lambda _: tools_())
        status, _, err = say(capsys, "bitstream", "build", "--engine", "csim", "--out", tmp_path)
        assert (status, err.count("\n")) == (1, 1)
        return err

    assert "pip install 'barista-caffe[hls]'" in fails(MissingExtraError("hls4ml", "hls", "C-simulation"))
    assert "install one" in fails(DeviceError("C-simulation needs a C++ compiler; install one"))


def card(folder: Path, engine: str = "fast") -> Bitstream:
    """A bitstream of another engine, which nobody loads."""
    return write(folder, b"binary", TILE, "fp32", load_board("emulated"), engine=engine, device="a device")


def simulated(folder: Path) -> Bitstream:
    """A bitstream of engine csim, which nobody loads."""
    return card(folder, "csim")


def test_its_time_is_no_devices(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who asks how fast bitstreams are leaves it out, and says so."""
    simulated(tmp_path)
    library = Library(tmp_path)
    with pytest.raises(BitstreamError, match=rf"measuring: .* holds only bitstreams of engine csim \({NAME}\): a C"):
        library.drop_simulated("measuring")
    other = card(tmp_path)
    library = Library(tmp_path)
    library.drop_simulated("measuring")
    assert list(library.bitstreams) == [other.name]
    assert [f"measuring: {NAME} is left out" in message for message in caplog.messages] == [True]
    library.drop_simulated("measuring")
    assert len(caplog.messages) == 1


PLANNED = ("--model", str(find("prototxt", "lenet", "train_val.prototxt")), "--input-shape", "1,28,28", "--board",
           "emulated")


@pytest.mark.parametrize("words", [
    ("plan", *PLANNED), pytest.param(("calibrate", "--quick"), marks=pytest.mark.opencl),
    pytest.param(("validate", "--against", "device"), marks=pytest.mark.opencl)], ids=lambda words: words[0])
def test_planning_and_measuring_refuse_it(tmp_path: Path, capsys: Capture, words: tuple[str, ...]) -> None:
    simulated(tmp_path)
    status, _, err = say(capsys, *words, "--bitstreams", tmp_path)
    assert status == 1
    assert re.fullmatch(r"barista: error: .* holds only bitstreams of engine csim .*; build one of engine array or "
                        r"fast", err.splitlines()[-1])


NET = """name: "Little"
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 3 dim: 2 dim: 6 dim: 6 }
        shape { dim: 3 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "i"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "i" bottom: "y" top: "loss" }
"""
# Runs the command line where there is no pyopencl.
WITHOUT_OPENCL = "import sys; sys.modules['pyopencl'] = None; from barista.cli.main import main; sys.exit(main())"


@pytest.mark.hls
def test_no_opencl_is_needed(built: Bitstream, tmp_path: Path) -> None:
    """Neither to build it, nor to verify it, nor to train with it."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 solver_mode: FPGA\n'
        f'display: 1 snapshot_after_train: false snapshot_prefix: "{tmp_path / "out"}"\n')

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", WITHOUT_OPENCL, *map(str, words)], capture_output=True, text=True,
                              check=False)

    for words in (["bitstream", "build", "--engine", "csim", "--tile", "4,4,8", "--out", tmp_path],
                  ["bitstream", "verify", built.path], ["bitstream", "inspect", built.path],
                  ["time", "--model", tmp_path / "net.prototxt", "--backend", "fpga", "--bitstream", built.path,
                   "--iterations", "1"]):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    done = run("train", "--solver", tmp_path / "solver.prototxt", "--bitstream", built.path, "--inner-products",
               "--verify-gemm")
    assert done.returncode == 0, done.stderr
    assert "board emulated (C-simulation on " in done.stderr and "the rest on CPU" in done.stderr
    assert "Iteration 1" in done.stderr
    # Those of other engines still say what they need, and so does a device that is asked for.
    done = run("train", "--solver", tmp_path / "solver.prototxt", "--bitstream", card(tmp_path / "other").path)
    assert done.returncode == 1 and "pip install 'barista-caffe[opencl]'" in done.stderr
    done = run("train", "--solver", tmp_path / "solver.prototxt", "--bitstream", built.path, "--device", "0")
    assert done.returncode == 1 and "pip install 'barista-caffe[opencl]'" in done.stderr


@pytest.mark.hls
@pytest.mark.opencl
def test_a_folder_may_hold_both_kinds(built: Bitstream, tmp_path: Path, capsys: Capture) -> None:
    """A schedule gives each pass to a bitstream of one or the other kind."""
    for path in (built.path, built.binary_path):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    status, _, err = say(capsys, "bitstream", "build", "--engine", "fast", "--tile", "4,4,8", "--out", tmp_path)
    assert status == 0, err
    (tmp_path / "net.prototxt").write_text(NET)
    entries = (Entry("conv", Pass.FORWARD, "fpga", NAME), Entry("conv", Pass.GRAD_WEIGHT, "fpga", FAST))
    Schedule("Little", 3, entries, NAME).save(tmp_path / "schedule.json")
    status, _, err = say(capsys, "time", "--model", tmp_path / "net.prototxt", "--backend", "fpga", "--bitstream",
                           tmp_path, "--schedule", tmp_path / "schedule.json", "--iterations", "1", "--verify-gemm")
    assert status == 0, err
    assert f"C-simulation on {machine()})" in err
    assert re.search(rf"Bitstreams: {FAST} is on the board emulated .*; 3 swap\(s\)", err)
