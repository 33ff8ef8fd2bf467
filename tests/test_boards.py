"""Boards: figures with their sources, and what is said of those that are wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from barista.errors import UnsupportedError
from barista.gemm.tiles import TileSizes
from barista.hardware.board import Board, board_names, load_board, read_board
from barista.hardware.resources import Resources, array_resources
from barista.precision.formats import number_format

REQUIRED = [field.name for field in dataclasses.fields(Board) if field.type in ("int", "float")]
OPTIONAL = [field.name for field in dataclasses.fields(Board) if field.type in ("int | None", "float | None")]
WORDS = [field.name for field in dataclasses.fields(Board) if field.type == "str | None"]
SHIPPED = Path(load_board.__code__.co_filename).parent / "boards"
CARDS = [name for name in board_names() if name != "emulated"]
DOCUMENT = (Path(__file__).parents[1] / "docs" / "boards.md").read_text(encoding="utf-8")
OWN = (SHIPPED / "vu9p_f1.toml").read_text(encoding="utf-8")


def own_file(folder: Path, old: str = "", new: str = "") -> Path:
    """A board file of the user's own: vu9p_f1's, with one piece of text replaced."""
    assert old in OWN
    path = folder / "board.toml"
    path.write_text(OWN.replace(old, new, 1) if old else OWN, encoding="utf-8")
    return path


def test_these_boards_ship() -> None:
    assert board_names() == ["emulated", "u200", "u250", "u280", "u50", "vu9p_f1"]


@pytest.mark.parametrize("name", board_names())
def test_every_figure_has_its_source(name: str) -> None:
    board = load_board(name)
    known = [figure for figure in OPTIONAL if getattr(board, figure) is not None]
    words = [word for word in WORDS if getattr(board, word) is not None]
    assert board.name == name
    assert sorted(board.sources) == sorted(REQUIRED + known + words)
    assert all(getattr(board, figure) > 0 for figure in REQUIRED + known)
    assert board.is_emulated == (name == "emulated")


@pytest.mark.parametrize("name", board_names())
def test_the_figures_of_a_board_agree_with_each_other(name: str) -> None:
    """Blocks hold the bits, regions hold no more than the whole, and the host's link is PCI Express 3.0 x16."""
    board = load_board(name)
    assert board.need_count("bram18", "this test") * 18_432 == board.bram_bits
    regions = board.need_count("regions", "this test")
    assert 0.8 < regions * board.need("region_dsp", "this test") / board.dsp <= 1
    assert 0.8 < regions * board.need("region_bram18", "this test") / board.need("bram18", "this test") <= 1
    assert board.pcie_bytes_per_s < 16 * 8e9 * 128 / 130 / 8


@pytest.mark.parametrize("name", CARDS)
def test_cards_have_what_plans_for_cards_need(name: str) -> None:
    board = load_board(name)
    for figure in ("uram", "port_bits_per_cycle", "axi_latency_cycles", "reconfiguration_s"):
        assert board.need(figure, "this test") > 0
    for word in ("shell", "memories"):
        assert board.need_words(word, "this test")


def test_the_figures_are_those_of_the_evaluations() -> None:
    vu9p, u250 = load_board("vu9p_f1"), load_board("u250")
    assert (vu9p.dsp, vu9p.clock_hz, vu9p.power_w) == (6840, 250e6, 80)
    assert (vu9p.dram_bytes_per_s, vu9p.pcie_bytes_per_s) == (30e9, 4.57e9)
    assert (vu9p.pcie_latency_s, vu9p.launch_s) == (None, None), "chapter 4 counts neither"
    assert vu9p.bram_bits / 2**20 == pytest.approx(75.9, abs=0.05)
    assert (u250.dsp, u250.bram_bits) == (4 * 3072, 4 * 1344 * 18432)
    assert (u250.regions, u250.region_dsp, u250.region_bram18, u250.port_bits_per_cycle) == (4, 3072, 1344, 512)


@pytest.mark.parametrize("name", board_names())
def test_the_document_says_what_the_files_say(name: str) -> None:
    board = load_board(name)
    for figure, source in board.sources.items():
        value = getattr(board, figure)
        shown = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"
        assert f"| `{figure}` | {shown} | {source} |" in DOCUMENT
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(board.sources)
    assert board.part in section


def test_an_unknown_board() -> None:
    with pytest.raises(UnsupportedError, match=r"board 'u25O' is not known; did you mean 'u250'\? known: emulated, .*"
                                               r"or give the path of a \.toml file of your own"):
        load_board("u25O")
    with pytest.raises(UnsupportedError, match=r"board 'zz' is not known; known: emulated"):
        load_board("zz")


def test_a_board_of_ones_own(tmp_path: Path) -> None:
    path = own_file(tmp_path, 'name = "vu9p_f1"', 'name = "mine"')
    board = load_board(path)
    assert board == load_board(str(path))
    assert (board.name, board.path, board.dsp) == ("mine", path, 6840)


def test_the_document_s_sample_is_a_board(tmp_path: Path) -> None:
    """As printed: whoever copies it has a file that every command reads."""
    [sample] = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(sample, encoding="utf-8")
    board = load_board(path)
    assert board.name == "mine"
    assert sorted(board.sources) == sorted(REQUIRED)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"no\.toml: cannot be read \(No such file or directory\); give the path "
                                               r"of a board's \.toml file"):
        load_board(tmp_path / "no.toml")
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(UnsupportedError, match=r"folder\.toml: cannot be read"):
        load_board(folder)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnsupportedError, match=r"binary\.toml: not text in UTF-8"):
        load_board(binary)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("[dsp]", "[dsp", r"board\.toml: not TOML"),
    ("[dsp]", "[dps]", r"a board has no 'dps'; did you mean 'dsp'\?"),
    ("[uram]", "[zzz]", r"a board has no 'zzz'; it has name, .*dsp, .*uram, .*shell, memories, kernel_region"),
    ("value = 6_840", "value = 0", r"dsp is 0; give a number above 0$"),
    ("value = 6_840", "value = -3", r"dsp is -3; give a number above 0$"),
    ("value = 960", "value = 0", r"uram is 0; give a number above 0, or leave the table out"),
    ("value = 960", "value = 960.5", r"uram is 960\.5; give a whole number"),
    ("value = 6_840", "value = true", r"dsp is True; give a number above 0"),
    ("value = 6_840", "value = nan", r"dsp is nan; give a number above 0"),
    ("value = 80", "value = inf", r"power_w is inf; give a number above 0"),
    ("value = 6_840\n", "", r"dsp must be a table \[dsp\] of a value and its source"),
    ("value = 80", "value = 80\nunit = \"W\"", r"power_w must be a table \[power_w\] of a value and its source"),
    ('source = "clock of the thesis\'s design, section 4.3"', 'source = " "',
     r"clock_hz has no source; say where 250000000 comes from"),
    ("part =", "# part =", r"part is missing or is no text"),
    ('"DDR[0], ', '"DDR, ', r"memories is 'DDR, DDR\[1\], DDR\[2\], DDR\[3\]'; see the boards that ship for the form"),
    ('value = "xilinx_aws', 'value = "$(rm) xilinx_aws', r"shell is '\$\(rm\) xilinx_aws.*'; see the boards that ship"),
    (OWN[OWN.index("[bram_bits]"):OWN.index("[clock_hz]")], "",
     r"bram_bits is missing; add a table \[bram_bits\] of a value and its source"),
    ('name = "vu9p_f1"', 'name = "my card"', r"the name 'my card' becomes part of file names; use letters, digits, _"),
    ('name = "vu9p_f1"', 'name = "lab/one"', r"the name 'lab/one' becomes part of file names"),
    ('name = "vu9p_f1"', 'name = ""', r"the name '' becomes part of file names"),
])
def test_a_board_that_cannot_be_read(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read_board(own_file(tmp_path, old, new))


def test_a_figure_that_a_board_lacks(tmp_path: Path) -> None:
    path = own_file(tmp_path, OWN[OWN.index("[uram]"):OWN.index("[regions]")], "")
    board = read_board(path)
    assert board.uram is None
    with pytest.raises(UnsupportedError, match=r"board 'vu9p_f1' has no uram, which the memory model needs; copy "
                                               r".*board\.toml, add a table \[uram\] with a value and its source, and "
                                               r"give the copy's path in the place of 'vu9p_f1'"):
        board.need("uram", "the memory model")
    assert load_board("vu9p_f1").need_count("uram", "the memory model") == 960


def test_what_exceeds_a_board() -> None:
    assert Resources(100, 7).exceeding(100, 7) == []
    assert Resources(101, 7).exceeding(100, 7) == [("DSP blocks", 101, 100)]
    assert Resources(101, 8).exceeding(100, 7) == [("DSP blocks", 101, 100), ("bits of BRAM", 8, 7)]


def test_what_an_array_takes() -> None:
    """Eq. 4.10 and 4.11 by hand."""
    tiles = TileSizes(16, 8, 64)
    assert array_resources(tiles, number_format("fp32")) == Resources(128 * 9, 32 * (16 * 64 + 64 * 8 + 128 * 11))
    assert array_resources(tiles, number_format("dfxp8")) == Resources(128 * 3, 8 * (16 * 64 + 64 * 8 + 128))
