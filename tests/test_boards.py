"""Boards: figures with their sources, and what is said of those that are wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from barista.errors import UnsupportedError
from barista.gemm.tiles import TileSizes
from barista.hardware.board import Board, board_names, load_board, read_board
from barista.hardware.resources import Resources, array_resources
from barista.precision.formats import number_format

FIGURES = [field.name for field in dataclasses.fields(Board) if field.type in ("int", "float")]
SHIPPED = Path(load_board.__code__.co_filename).parent / "boards"


def test_these_boards_ship() -> None:
    assert board_names() == ["emulated", "u250", "vu9p_f1"]


@pytest.mark.parametrize("name", board_names())
def test_every_figure_has_its_source(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert sorted(board.sources) == sorted(FIGURES)
    assert all(getattr(board, figure) > 0 for figure in FIGURES)
    assert board.is_emulated == (name == "emulated")


def test_the_figures_are_those_of_the_evaluations() -> None:
    vu9p, u250 = load_board("vu9p_f1"), load_board("u250")
    assert (vu9p.dsp, vu9p.clock_hz, vu9p.power_w) == (6840, 250e6, 80)
    assert vu9p.bram_bits / 2**20 == pytest.approx(75.9, abs=0.05)
    assert (u250.dsp, u250.bram_bits) == (4 * 3072, 4 * 1344 * 18432)


def test_an_unknown_board() -> None:
    with pytest.raises(UnsupportedError, match=r"board 'u25O' is not known; did you mean 'u250'\? known: emulated, "):
        load_board("u25O")
    with pytest.raises(UnsupportedError, match=r"board 'zz' is not known; known: emulated"):
        load_board("zz")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("[dsp]", "[dsp", r"board\.toml: not TOML"),
    ("[dsp]", "[dps]", r"a board has no 'dps'; did you mean 'dsp'\?"),
    ("value = 6_840", "value = 0", r"dsp is 0; give a number above 0"),
    ("value = 6_840", "value = true", r"dsp is True; give a number above 0"),
    ("value = 6_840", "value = nan", r"dsp is nan; give a number above 0"),
    ("value = 6_840\n", "", r"dsp must be a table \[dsp\] of a value and its source"),
    ('source = "thesis, section 4.3"', 'source = " "', r"dsp has no source; say where 6840 comes from"),
    ("part =", "# part =", r"part is missing or is no text"),
])
def test_a_board_that_cannot_be_read(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (SHIPPED / "vu9p_f1.toml").read_text()
    assert old in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UnsupportedError, match=message):
        read_board(path)


def test_what_an_array_takes() -> None:
    """Eq. 4.10 and 4.11 by hand."""
    tiles = TileSizes(16, 8, 64)
    assert array_resources(tiles, number_format("fp32")) == Resources(128 * 9, 32 * (16 * 64 + 64 * 8 + 128 * 11))
    assert array_resources(tiles, number_format("dfxp8")) == Resources(128 * 3, 8 * (16 * 64 + 64 * 8 + 128))
