"""The folder of a design that a machine with Vitis builds, and what `barista bitstream import` reads of it later.

    config.h, hls/         the kernel, complete
    Makefile               csim, xo, hw_emu, hw, reports
    compile.cfg            the clock that C synthesis aims at
    connectivity.cfg       the clock of the card, and which memory each port has
    design.json            what this is a design of
    board.toml             the board, as it was known
    build/                 what `make` makes; never touched from here
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import BitstreamError, DataError, UnsupportedError
from ..hardware.bitstream import require_name
from ..hardware.board import Board, load_board, read_board
from ..hardware.resources import Resources
from ..resources import find
from .designs import PORTS, Design, bitstream_name, design_from_json, resources
from .toolchain import FLAGS

DESIGN, BOARD = "design.json", "board.toml"
# What tells our design.json from those of others, and its version.
MARK, VERSION = "barista_design", 1
# Folders above a binary's in which its design is sought.
LEVELS = 3
# A port's width where the board does not say one.
PORT_BITS = 512
# Sources beside those of the kernel.
SHARED = ("common", "csim")
_FASTEST_HZ = 1e12
# More than any design.json has.
_LARGEST_BYTES = 2**20
# Bits of a block of on-chip memory, the 18 Kb half that can be used alone.
_BITS_A_BLOCK = 18_432


@dataclasses.dataclass(frozen=True)
class Project:
    """A design for a card.

    Parameters
    ----------
    name : what schedules call its bitstream
    design : of which array
    board : the card
    clock_hz : the clock to build for

    Raises
    ------
    BitstreamError : the board is emulated
    UnsupportedError : a name that is no file's, a clock that is no whole number of MHz, or a board without what the
        linker needs
    """

    name: str
    design: Design
    board: Board
    clock_hz: float

    def __post_init__(self) -> None:
        require_name(self.name, "a folder")
        if self.board.is_emulated:
            raise BitstreamError(f"{self.name}: no card's tools build for the board {self.board.name}; `barista "
                                 "bitstream build` does, or give a card")
        if not 0 < self.clock_hz < _FASTEST_HZ or self.clock_hz % 1e6:
            raise UnsupportedError(f"{self.name}: a clock of {self.clock_hz:g} Hz; v++ takes whole MHz, such as 250e6")
        who = f"building {self.name}"
        ports, memories = PORTS[self.design.kernel], self.board.need_words("memories", who).split(", ")
        self.board.need_words("shell", who)
        if len(memories) < len(ports):
            raise UnsupportedError(f"{self.name}: the board {self.board.name} names {len(memories)} memories, and the "
                                   f"ports {', '.join(ports)} need one each; name more in {self.board.path}, or one "
                                   "of them again")

    @property
    def unit(self) -> str:
        """Name of the one compute unit."""
        return f"{self.design.kernel}_1"

    @property
    def resources(self) -> Resources:
        """What the models count for the design."""
        return resources(self.design)

    def files(self) -> dict[str, str]:
        """Every file of the folder, by its path in it."""
        kernel = self.design.kernel
        values = {"NAME": self.name, "BOARD": self.board.name, "KERNEL": kernel, "PLATFORM": str(self.board.shell),
                  "CSIMFLAGS": shlex.join(("-O2", *FLAGS))}
        folders = {folder: find("hls", folder) for folder in (kernel, *SHARED)}
        sources = {f"hls/{folder}/{path.name}": path.read_text(encoding="utf-8")
                   for folder, place in folders.items() for path in sorted(place.iterdir())
                   if path.suffix in (".cpp", ".h")}
        return {DESIGN: self._design_json(), BOARD: self.board.path.read_text(encoding="utf-8"),
                "Makefile": _filled_in(find("hls", "vitis", "Makefile.in").read_text(encoding="utf-8"), values),
                "compile.cfg": self._compile_cfg(), "connectivity.cfg": self._connectivity_cfg(),
                "config.h": self.design.config(), **sources}

    def write(self, out: str | Path) -> Path:
        """Write the folder `out`/`name`, or what has changed of it.

        Files that stay the same are not written, so that `make` does not build again for nothing.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        BitstreamError : there is something else in its place, or it cannot be written
        """
        folder = Path(out) / self.name
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not _is_ours(folder / DESIGN):
            raise BitstreamError(f"{folder} is there, and was not written by `barista bitstream configure`; remove it, "
                                 "or choose another folder with --out")
        try:
            for name, text in self.files().items():
                path = folder / name
                if path.is_file() and path.read_bytes() == text.encode():
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BitstreamError(f"{folder} cannot be written ({error.strerror}); free some space, or choose another "
                                 "folder with --out") from error
        return folder

    def _design_json(self) -> str:
        return json.dumps({MARK: VERSION, "name": self.name, "kernel": self.design.kernel,
                           "design": self.design.to_json(), "board": self.board.name, "clock_hz": self.clock_hz,
                           "barista": __version__}, indent=2) + "\n"

    def _compile_cfg(self) -> str:
        return "\n".join(["# v++ --compile: the clock that C synthesis aims at, in Hz.", "[hls]",
                          f"clock={self.clock_hz:.0f}:{self.design.kernel}"]) + "\n"

    def _connectivity_cfg(self) -> str:
        kernel, unit = self.design.kernel, self.unit
        lines = ["# v++ --link: the kernel's clock in MHz, one kernel, and a memory for each of its ports.",
                 f"kernel_frequency=0:{self.clock_hz / 1e6:.0f}", "", "[connectivity]", f"nk={kernel}:1:{unit}"]
        lines += [f"sp={unit}.{port}:{memory}"
                  for port, memory in zip(PORTS[kernel], str(self.board.memories).split(", "), strict=False)]
        if self.board.kernel_region is not None and self._fits_a_region():
            lines += ["# By the models' count it fits into one region; without the line the linker chooses.",
                      f"slr={unit}:{self.board.kernel_region}"]
        return "\n".join(lines) + "\n"

    def _fits_a_region(self) -> bool:
        """Whether one region holds the design, as far as the board says what a region has."""
        board = self.board
        if board.region_dsp is None or board.region_bram18 is None:
            return False
        bits = 32 * sum(self.design.on_chip_words.values())
        return self.resources.dsp <= board.region_dsp and bits <= board.region_bram18 * _BITS_A_BLOCK


def _filled_in(template: str, values: Mapping[str, str]) -> str:
    """A text with values in the place of names such as ``@NAME@``."""
    return re.sub(r"@([A-Z]+)@", lambda matched: values[matched[1]], template)


# ---- reading ----------------------------------------------------------------------------------------------

def load_project(path: str | Path) -> Project:
    """Read the design of a folder that `Project.write` wrote.

    Parameters
    ----------
    path : the folder, or the design.json in it

    Raises
    ------
    BitstreamError : there is none, or it is damaged
    """
    given = Path(path)
    file = given / DESIGN if given.is_dir() else given
    try:
        said = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise BitstreamError(f"{file}: no JSON: {error}; write it again: barista bitstream configure") from None
    if not isinstance(said, dict) or said.get(MARK) != VERSION:
        found = said.get(MARK) if isinstance(said, dict) else None
        raise BitstreamError(f"{file} is no design that this version reads" + (
            "" if found is None else f": {MARK} is {found!r}, {VERSION} is expected")
            + "; give one that `barista bitstream configure` wrote")
    try:
        return _project(said, file)
    except (DataError, UnsupportedError, ValueError) as error:
        if isinstance(error, BitstreamError):
            raise
        raise BitstreamError(f"{file}: {str(error).removeprefix(f'{file}: ')}; write it again: barista bitstream "
                             "configure") from None


def _project(said: dict[str, Any], file: Path) -> Project:
    """Make a project of what its design.json says.

    Raises
    ------
    ValueError, UnsupportedError : fields that are missing, unknown or senseless
    """
    known = [MARK, "name", "kernel", "design", "board", "clock_hz", "barista"]
    if sorted(said) != sorted(known):
        raise ValueError(f"it has the fields {', '.join(said)}, where {', '.join(known)} are expected")
    clock = said["clock_hz"]
    if isinstance(clock, bool) or not isinstance(clock, int | float) or not 0 < clock < _FASTEST_HZ:
        raise ValueError(f"clock_hz is {clock!r}, no clock of a card")
    design = design_from_json(said["design"], str(file))
    if said["kernel"] != design.kernel:
        raise ValueError(f"kernel is {said['kernel']!r}, and a design of kind {design.kind} has {design.kernel!r}")
    beside = file.with_name(BOARD)
    board = read_board(beside) if beside.is_file() else load_board(str(said["board"]))
    if board.name != said["board"]:
        raise ValueError(f"board is {said['board']!r}, and {beside.name} beside it describes {board.name!r}")
    return Project(str(said["name"]), design, board, float(clock))


def find_project(folder: Path) -> Path | None:
    """The design.json of ours in a folder or in one of the `LEVELS` folders above, nearest first; None without."""
    folder = folder.resolve()
    for place in (folder, *folder.parents[:LEVELS]):
        if _is_ours(place / DESIGN):
            return place / DESIGN
    return None


def _is_ours(path: Path) -> bool:
    """Whether a file is a design.json of ours, be it damaged or not."""
    return path.is_file() and f'"{MARK}"' in _text(path)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise BitstreamError(f"{path} cannot be read ({error.strerror}); give the folder or the {DESIGN} that `barista "
                             "bitstream configure` wrote") from None


def project_of(design: Design, board: Board, clock_hz: float | None = None, name: str = "") -> Project:
    """A project under the standard name, with the board's clock or the fastest of the design, where nothing is said."""
    return Project(name or bitstream_name(design, board.name), design, board,
                   clock_hz or min(board.clock_hz, design.fastest_hz))
