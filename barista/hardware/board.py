"""Boards: what a card offers to a bitstream, a TOML file each with a source for each figure."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnsupportedError, nearest

EMULATED = "emulated"
"""The board that every machine with an OpenCL device has."""

_FOLDER = Path(__file__).parent / "boards"
_TEXTS = ("name", "description", "part", "platform")
_FIGURES = ("dsp", "bram_bits", "clock_hz", "pcie_bytes_per_s", "dram_bytes_per_s", "power_w")


@dataclasses.dataclass(frozen=True)
class Board:
    """A card, or what stands in for one.

    Parameters
    ----------
    name : as manifests and the command line say it
    description : one line
    part : the vendor's number of the device, ``none`` where there is none
    platform : part of the name of its OpenCL platform, ``any`` for an emulation
    dsp : multiplier blocks
    bram_bits : on-chip block memory
    clock_hz : clock that designs reach on it
    pcie_bytes_per_s, dram_bytes_per_s : rates of the host link and of the card's own memory
    power_w : while it computes
    sources : figure to where it comes from
    """

    name: str
    description: str
    part: str
    platform: str
    dsp: int
    bram_bits: int
    clock_hz: float
    pcie_bytes_per_s: float
    dram_bytes_per_s: float
    power_w: float
    sources: Mapping[str, str]

    @property
    def is_emulated(self) -> bool:
        """Whether bitstreams for it are built from the OpenCL kernels, for any device."""
        return self.platform == "any"


def board_names() -> list[str]:
    """The boards that ship, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_board(name: str) -> Board:
    """Return the board of this name.

    Raises
    ------
    UnsupportedError : no such board; the message lists those there are
    """
    known = board_names()
    if name not in known:
        hint = nearest(name, known)
        raise UnsupportedError(f"board {name!r} is not known; {hint + ' ' if hint else ''}known: {', '.join(known)}")
    return read_board(_FOLDER / f"{name}.toml")


def read_board(path: Path) -> Board:
    """Return the board that a file describes.

    Raises
    ------
    UnsupportedError : no TOML, a figure is missing, not positive or without its source, or an unknown name
    """
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UnsupportedError(f"{path}: not TOML ({error}); see the boards that ship for the form") from None
    for name in table:
        if name not in (*_TEXTS, *_FIGURES):
            hint = nearest(name, (*_TEXTS, *_FIGURES)) or f"it has {', '.join((*_TEXTS, *_FIGURES))}"
            raise UnsupportedError(f"{path}: a board has no {name!r}; {hint}")
    for name in _TEXTS:
        if not isinstance(table.get(name), str):
            raise UnsupportedError(f"{path}: {name} is missing or is no text; write {name} = \"...\"")
    for name in _FIGURES:
        figure = table.get(name)
        if not isinstance(figure, dict) or set(figure) != {"value", "source"}:
            raise UnsupportedError(f"{path}: {name} must be a table [{name}] of a value and its source")
        value, source = figure["value"], figure["source"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UnsupportedError(f"{path}: {name} is {value!r}; give a number above 0")
        if not isinstance(source, str) or not source.strip():
            raise UnsupportedError(f"{path}: {name} has no source; say where {value} comes from")
    return Board(**{name: table[name] for name in _TEXTS}, **{name: table[name]["value"] for name in _FIGURES},
                 sources={name: table[name]["source"] for name in _FIGURES})
