"""From a plan to a folder: the schedule that `explore` writes, and what `barista bitstream configure` makes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from card_projects import CONV, LENET, NAME, TILES, Capture, configured, say, schedule

from barista.cli.proposal import distinct
from barista.errors import BitstreamError, UnsupportedError
from barista.gemm.shapes import Pass
from barista.gemm.tiles import TileSizes
from barista.hardware import bitstream as bitstreams
from barista.hardware.bitstream import parse_name, standard_name
from barista.hardware.board import load_board
from barista.resources import find
from barista.schedule.schedule import Schedule
from barista.synthesis.conv_design import ConvDesign
from barista.synthesis.designs import PORTS, bitstream_name, design_from_json, resources
from barista.synthesis.gemm_design import GemmDesign
from barista.synthesis.project import Project, load_project, project_of


@pytest.fixture
def folder(tmp_path: Path, capsys: Capture) -> Path:
    return configured(capsys, tmp_path / "hls_build", "--tile", "4,4,8", "--precision", "fp32", "--board", "u250")


# ---- schedules of designs that are yet to be built --------------------------------------------------------

@pytest.mark.parametrize("unit", ["pass", "layer"])
def test_explore_writes_its_set_as_a_schedule(tmp_path: Path, capsys: Capture, unit: str) -> None:
    file = tmp_path / "schedule.json"
    status, out, err = say(capsys, "explore", *LENET, "--board", "u250", "--grid", "tr=8:32:8,tp=32:128:32", "--per",
                           unit, "--max-bitstreams", "2", "--precision", "dfxp8", "--schedule", file)
    assert (status, "Schedule of 2 bitstreams written to" in err) == (0, True)
    schedule = Schedule.load(file)
    assert (schedule.net, schedule.batch, schedule.designs) == ("LeNet", 64, {})
    assert {(entry.layer, entry.pass_) for entry in schedule.entries} == {
        (layer, pass_) for layer in ("conv1", "conv2") for pass_ in Pass} - {("conv1", Pass.GRAD_INPUT)}
    sizes = re.search(r"^Best set found.*\n +(\S+) .*\n +(\S+) ", out, re.MULTILINE)
    assert sizes is not None
    assert sorted(schedule.bitstreams) == sorted(
        standard_name(TileSizes.parse(text), "dfxp8", "array", "u250") for text in sizes.groups())
    for entry in schedule.entries:
        named = parse_name(entry.bitstream)
        assert named is not None
        row = f"{entry.layer} {entry.pass_.value}" if unit == "pass" else entry.layer
        assert re.search(rf"^{row} +\d.* {named.tiles} +\+\d[\d.]*%$", out, re.MULTILINE), row


def test_explore_keeps_what_names_of_convolution_arrays_do_not_say(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "schedule.json"
    assert say(capsys, "explore", *LENET, "--board", "u250", "--kind", "conv", "--grid", "x=4:12:4,y=4:12:4",
               "--max-bitstreams", "2", "--schedule", file)[0] == 0
    schedule = Schedule.load(file)
    assert sorted(schedule.bitstreams) == sorted(schedule.designs)
    assert Schedule.from_json(schedule.to_json()) == schedule
    passes: dict[str, int] = {}
    for name, said in schedule.designs.items():
        design = design_from_json(said["design"], name)
        assert isinstance(design, ConvDesign)
        assert name.startswith(bitstream_name(design, "u250"))
        passes[name] = sum(entry.bitstream == name for entry in schedule.entries)
    assert sum(passes.values()) == 5
    assert {entry.im2col for entry in schedule.entries} == {"device"}
    status, _, err = say(capsys, "bitstream", "configure", "--from-schedule", file, "--out", tmp_path / "out")
    assert status == 0, err
    for name in schedule.designs:
        project = load_project(tmp_path / "out" / name)
        assert project.design.to_json() == schedule.designs[name]["design"]
        assert "sp=fpgpt_conv_1.beta:DDR[3]\n" in (tmp_path / "out" / name / "connectivity.cfg").read_text()


def test_two_arrays_of_one_size_have_two_names() -> None:
    small, large = (ConvDesign(4, 3, 8, words, 24, 8) for words in (32, 64))
    name = "conv_array_4x3_fp32_u250"
    assert bitstream_name(small, "u250") == bitstream_name(large, "u250") == name
    assert distinct(name, small, {name: small}) == name
    assert distinct(name, large, {name: small}) == f"{name}_2"


def test_a_schedule_that_cannot_be_written_is_said_before_exploring(tmp_path: Path, capsys: Capture) -> None:
    status, out, err = say(capsys, "explore", *LENET, "--board", "u250", "--schedule", tmp_path / "no" / "s.json")
    assert (status, out) == (1, "")
    assert re.search(r"--schedule .*s\.json: there is no folder .*no; make it", err)


def test_designs_that_no_kernel_is_made_for(tmp_path: Path, capsys: Capture) -> None:
    status, _, err = say(capsys, "explore", *LENET, "--board", "u250", "--grid", "tr=8,tp=2000", "--schedule",
                         tmp_path / "s.json")
    assert (status, "tile 8,8,2000: Tp=2000 exceeds 1024" in err) == (1, True)
    assert not (tmp_path / "s.json").exists()


def test_names_say_what_they_stand_for() -> None:
    for name in ("gemm_array_16x8x64_dfxp12_vu9p_f1", NAME):
        named = parse_name(name)
        assert named is not None
        assert standard_name(*named) == name
        design = GemmDesign(named.tiles, named.precision)
        assert bitstream_name(design, named.board) == name
    assert parse_name("mine") is parse_name("gemm_array_16x8_fp32_u250") is None
    with pytest.raises(UnsupportedError, match=r"Tr=0 is outside 1 to"):
        parse_name("gemm_array_0x8x64_fp32_u250")


# ---- the folder -------------------------------------------------------------------------------------------

def test_a_folder_is_complete(folder: Path) -> None:
    assert folder.name == NAME
    assert sorted(path.name for path in folder.iterdir()) == [
        "Makefile", "board.toml", "compile.cfg", "config.h", "connectivity.cfg", "design.json", "hls"]
    assert (folder / "config.h").read_text() == GemmDesign(TILES, "fp32").config()
    assert (folder / "connectivity.cfg").read_text() == """\
# v++ --link: the kernel's clock in MHz, one kernel, and a memory for each of its ports.
kernel_frequency=0:100

[connectivity]
nk=barista_gemm:1:barista_gemm_1
sp=barista_gemm_1.a:DDR[0]
sp=barista_gemm_1.b:DDR[1]
sp=barista_gemm_1.c:DDR[2]
# By the models' count it fits into one region; without the line the linker chooses.
slr=barista_gemm_1:SLR1
"""
    assert (folder / "compile.cfg").read_text().splitlines()[1:] == ["[hls]", "clock=100000000:barista_gemm"]
    own = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.suffix in (".cpp", ".h")}
    for name in own - {"config.h"}:
        for included in re.findall(r'^#include "(.*)"', (folder / name).read_text(), re.MULTILINE):
            place = os.path.normpath((folder / name).parent / included)
            assert Path(place).is_file() or (folder / included).is_file(), f"{name} includes {included}"
    project = load_project(folder)
    assert project == load_project(folder / "design.json")
    assert (project.name, project.design, project.clock_hz) == (NAME, GemmDesign(TILES, "fp32"), 100e6)
    assert dataclasses.replace(project.board, path=Path()) == dataclasses.replace(load_board("u250"), path=Path())


def test_the_ports_of_kernels_are_those_of_their_code() -> None:
    for kernel, ports in PORTS.items():
        source = find("hls", kernel, f"{kernel}.cpp").read_text()
        assert re.findall(r"mode ?= ?m_axi port ?= ?(\w+)", source) == list(ports)


@pytest.mark.parametrize(("board", "memories", "region"), [
    ("u200", ["DDR[0]", "DDR[1]", "DDR[2]"], None), ("vu9p_f1", ["DDR[0]", "DDR[1]", "DDR[2]"], None),
    ("u280", ["HBM[0:7]", "HBM[8:15]", "HBM[16:23]"], "SLR0"),
    ("u50", ["HBM[0:7]", "HBM[8:15]", "HBM[16:23]"], "SLR0")])
def test_boards_have_their_memories(board: str, memories: list[str], region: str | None) -> None:
    project = project_of(GemmDesign(TILES, "fp32"), load_board(board))
    text = project.files()["connectivity.cfg"]
    assert re.findall(r"^sp=barista_gemm_1\.(\w):(.*)$", text, re.MULTILINE) == list(zip("abc", memories, strict=True))
    assert re.findall(r"^slr=barista_gemm_1:(.*)$", text, re.MULTILINE) == ([] if region is None else [region])
    large = dataclasses.replace(project, design=GemmDesign(TileSizes(32, 32, 64), "fp32"))
    assert "slr=" not in large.files()["connectivity.cfg"], "9,216 DSP blocks are more than a region has"


def test_what_changed_is_written_anew(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """The rest keeps its time, or `make` would compile for nothing; what was built stays."""
    (folder / "build").mkdir()
    (folder / "build" / "kept").write_text("")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    (folder / "config.h").write_text("edited")
    words = ("--tile", "4,4,8", "--board", "u250", "--clock-hz", "200e6")
    assert configured(capsys, tmp_path / "hls_build", *words) == folder
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"config.h", "compile.cfg", "connectivity.cfg", "design.json"}
    assert "kernel_frequency=0:200\n" in (folder / "connectivity.cfg").read_text()
    assert (folder / "build" / "kept").exists()


def test_other_folders_are_left_alone(tmp_path: Path, capsys: Capture) -> None:
    words = ("bitstream", "configure", "--tile", "4,4,8", "--board", "u250", "--out", tmp_path)
    (tmp_path / NAME).mkdir()
    assert say(capsys, *words)[0] == 0, "an empty folder is none of anybody's"
    for name, text in (("design.json", "{}"), ("thesis.tex", "")):
        for path in sorted((tmp_path / NAME).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / NAME / name).write_text(text)
        status, _, err = say(capsys, *words)
        assert status == 1
        assert re.search(rf"{NAME} is there, and was not written by `barista bitstream configure`; remove it", err)
        assert [path.name for path in (tmp_path / NAME).iterdir()] == [name]
    (tmp_path / NAME / "thesis.tex").unlink()
    (tmp_path / NAME).rmdir()
    (tmp_path / NAME).write_text("a file")
    assert say(capsys, *words)[0] == 1


def test_a_schedule_s_designs(tmp_path: Path, capsys: Capture) -> None:
    """By their standard names, by manifests, and by the field designs; each folder once."""
    library = tmp_path / "lib"
    bitstreams.write(library, b"xclbin2\0", TileSizes(2, 3, 4), "dfxp8", load_board("u280"), name="mine", suffix=".bin")
    file = schedule(tmp_path, ["gemm_array_8x8x16_fp32_u250", "mine", "conv_one", NAME, NAME],
                    designs={"conv_one": {"board": "u250", "design": CONV}})
    status, _, err = say(capsys, "bitstream", "configure", "--from-schedule", file, "--bitstreams", library, "--out",
                         tmp_path / "out")
    assert status == 0, err
    found = {path.name: load_project(path) for path in (tmp_path / "out").iterdir()}
    assert sorted(found) == sorted(["gemm_array_8x8x16_fp32_u250", "mine", "conv_one", NAME])
    assert found["mine"].design == GemmDesign(TileSizes(2, 3, 4), "dfxp8")
    assert (found["mine"].board.name, found["conv_one"].design.kernel) == ("u280", "fpgpt_conv")
    assert resources(found["conv_one"].design).dsp == 4 * 3 * 9


@pytest.mark.parametrize(("names", "more", "words", "message"), [
    ([], {}, [], r"schedule\.json names no bitstream, since nothing in it runs on engine fpga; make one"),
    (["mine"], {}, [], r"the name 'mine' does not say what the bitstream is, as gemm_array_16x16x64_fp32_u250"),
    (["mine"], {}, ["--bitstreams", "nothing"], r"nothing: there is no such folder"),
    (["gemm_array_4x4x8_fp32_u25"], {}, [], r"is for the board 'u25', which does not ship; did you mean 'u250' or"),
    (["gemm_array_4x4x8_fp33_u250"], {}, [], r"'fp33' is unknown; did you mean 'fp32'"),
    (["gemm_array_4x4x8_fp32_emulated"], {}, [], r"no card's tools build for the board emulated; `barista bits"),
    (["gemm_array_4x4x2000_fp32_u250"], {}, [], r"Tp=2000 exceeds 1024"),
    ([NAME], {}, ["--board", "u280"], rf"{NAME} is for the board u250, not for u280; leave --board out"),
    ([NAME], {}, ["--clock-hz", "2.5e5"], r"a clock of 250000 Hz; v\+\+ takes whole MHz, such as 250e6"),
    ([NAME], {}, ["--clock-hz", "nan"], r"--clock-hz nan: give a clock above 0"),
    (["../x"], {"designs": {"../x": {"board": "u250", "design": CONV}}}, [], r"the name '\.\./x' becomes that"),
    (["x"], {"designs": {"x": {"board": "u250"}}}, [], r"designs: x: an object with a board and a design is expected"),
    (["x"], {"designs": {"x": {"board": "u250", "design": {"kind": "lstm"}}}}, [], r"designs of kind 'lstm' are"),
    (["x"], {"designs": {"x": {"board": "u250", "design": {"kind": "gemm"}}}}, [], r"the design of a GEMM has"),
    (["x"], {"designs": []}, [], r"designs \[\] is not of the type dict")])
def test_schedules_that_cannot_be_configured(tmp_path: Path, capsys: Capture, names: list[str], more: dict[str, Any],
                                             words: list[str], message: str) -> None:
    file = schedule(tmp_path, names, **more)
    status, _, err = say(capsys, "bitstream", "configure", "--from-schedule", file, "--out", tmp_path / "out", *words)
    assert status == 1
    assert re.search(message, err), err
    assert not (tmp_path / "out").exists(), "nothing is written before all is checked"


def test_a_schedule_of_the_cpu_alone_names_nothing_to_build(tmp_path: Path, capsys: Capture) -> None:
    status, _, err = say(capsys, "bitstream", "configure", "--from-schedule", schedule(tmp_path, ["x"], "cpu"))
    assert (status, "names no bitstream, since nothing in it runs on engine fpga" in err) == (1, True)


@pytest.mark.parametrize(("words", "status", "message"), [
    ([], 2, r"bitstream configure needs --from-schedule, or a design of its own with --tile, or with --array and"),
    (["--tile", "4,4,8"], 2, r"bitstream configure needs --from-schedule"),
    (["x"], 2, r"'x' is one word too many"),
    (["--from-schedule", "nothing.json"], 1, r"nothing\.json: the schedule cannot be read: No such file"),
    (["--from-schedule", "s.json", "--tile", "4,4,8"], 2, r"--tile and --from-schedule contradict each other"),
    (["--from-schedule", "s.json", "--precision", "fp32"], 2, r"--precision and --from-schedule contradict each other"),
    (["--tile", "4,4,8", "--board", "u250", "--bitstreams", "lib"], 2, r"it goes with --from-schedule"),
    (["--tile", "4,4,8", "--board", "emulated"], 1, r"no card's tools build for the board emulated"),
    (["--tile", "4,4", "--board", "u250"], 1, r"tile '4,4' is not three integers"),
    (["--tile", "4,4,8", "--board", "u250", "--precision", "fp16"], 1, r"'fp16' is unknown"),
    (["--tile", "4,4,8", "--board", "u250", "--clock-hz", "-1"], 1, r"--clock-hz -1: give a clock above 0"),
    (["--tile", "4,4,8", "--board", "u250", "--kernel", "x"], 2, r"configure has no use for --kernel")])
def test_what_cannot_be_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str],
                                   status: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = say(capsys, "bitstream", "configure", *words)
    assert found == status
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


def test_a_board_of_one_s_own(tmp_path: Path, capsys: Capture) -> None:
    """Its file goes with the folder, so that the binary is imported without it."""
    text, mine = load_board("u250").path.read_text(encoding="utf-8"), tmp_path / "mine.toml"
    mine.write_text(text.replace('name = "u250"', 'name = "mine"').replace("12_288", "1_000"), encoding="utf-8")
    folder = configured(capsys, tmp_path / "out", "--tile", "16,16,8", "--board", mine)
    assert folder.name == "gemm_array_16x16x8_fp32_mine"
    mine.unlink()
    assert load_project(folder).board.dsp == 1000
    bare = tmp_path / "bare.toml"
    bare.write_text(text.replace('name = "u250"', 'name = "bare"').partition("[shell]")[0], encoding="utf-8")
    status, _, err = say(capsys, "bitstream", "configure", "--tile", "4,4,8", "--board", bare, "--out", tmp_path / "o")
    assert status == 1
    assert re.search(r"board 'bare' has no memories, which building gemm_array_4x4x8_fp32_bare needs; copy .*bare\.toml"
                     r", add a table \[memories\] with a value and its source", err)


def test_a_design_beyond_the_board_is_warned_of(tmp_path: Path, capsys: Capture) -> None:
    _, _, err = say(capsys, "bitstream", "configure", "--tile", "64,64,8", "--board", "u250", "--out", tmp_path)
    assert "takes 36864 DSP blocks by the models' count, and the board u250 has 12288: it will hardly be placed" in err


@pytest.mark.parametrize(("change", "message"), [
    ({"clock_hz": "fast"}, r"clock_hz is 'fast', no clock of a card"),
    ({"clock_hz": 10**400}, r"clock_hz is 10+, no clock of a card"),
    ({"clock_hz": 1}, r"a clock of 1 Hz"),
    ({"kernel": "vadd"}, r"kernel is 'vadd', and a design of kind gemm has 'barista_gemm'"),
    ({"board": "u280"}, r"board is 'u280', and board\.toml beside it describes 'u250'"),
    ({"name": "../x"}, r"the name '\.\./x' becomes that of a folder"),
    ({"design": {"kind": "gemm", "tiles": [4, 4], "precision": "fp32", "port_bits": 512}}, r"a design of kind"),
    ({"design": 3}, r"a design is an object with a kind, one of gemm, conv, this is 3"),
    ({"more": 1}, r"it has the fields .*more, where"),
    ({"barista_design": 2}, r"is no design that this version reads: barista_design is 2, 1 is expected")])
def test_a_damaged_design(folder: Path, change: dict[str, Any], message: str) -> None:
    file = folder / "design.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(BitstreamError, match=message) as caught:
        load_project(folder)
    assert str(caught.value).count(str(file)) == 1


def test_every_truncated_design_is_refused(folder: Path) -> None:
    file = folder / "design.json"
    text = file.read_text().strip()
    for end in range(0, len(text), 5):
        file.write_text(text[:end])
        with pytest.raises(BitstreamError, match=r"design\.json: no JSON: .*; write it again: barista bitstream conf"):
            load_project(folder)
    for text in ('{"barista_design": ' + 5000 * "9" + "}", '{"barista_design": ' + 100_000 * "["):
        file.write_text(text)
        with pytest.raises(BitstreamError, match=r"design\.json: no JSON"):
            load_project(folder)
    file.unlink()
    with pytest.raises(BitstreamError, match=r"design\.json cannot be read \(No such file or directory\); give"):
        load_project(folder)


def test_a_project_names_its_board_s_lack_of_memories() -> None:
    board = dataclasses.replace(load_board("u250"), memories="DDR[0], DDR[1]")
    with pytest.raises(UnsupportedError, match=r"the board u250 names 2 memories, and the ports a, b, c need one each"):
        Project("x", GemmDesign(TILES, "fp32"), board, 100e6)


@pytest.mark.parametrize(("board", "gemm_hz", "conv_hz"), [("u200", 250e6, 100e6), ("u250", 100e6, 100e6)])
def test_the_clock_is_the_boards_or_the_designs_fastest(board: str, gemm_hz: float, conv_hz: float) -> None:
    """Four sums are added up in time at 100 MHz, eleven at any clock."""
    card = load_board(board)
    gemm = GemmDesign(TileSizes(16, 16, 64), "fp32")
    conv = ConvDesign(8, 4, 10, 20, 16, 8)
    assert (project_of(gemm, card).clock_hz, project_of(conv, card).clock_hz) == (gemm_hz, conv_hz)
    assert project_of(conv, card, 150e6).clock_hz == 150e6
