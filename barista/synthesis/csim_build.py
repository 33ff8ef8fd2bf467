"""Bitstreams for the emulated board that run a card's own C++ code: engine csim."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnsupportedError
from ..hardware.bitstream import Bitstream, warn_beyond, write
from ..hardware.board import Board
from ..hardware.manifest import CSIM
from .designs import Design, array_of
from .toolchain import build_library, machine, tools


def build(folder: str | Path, design: Design, board: Board, name: str = "") -> Bitstream:
    """Compile a kernel for C-simulation and write the library with its manifest.

    Parameters
    ----------
    folder : made where it does not exist; a bitstream of the same name is replaced
    board : an emulated one
    name : what schedules call it; '' takes the standard name

    Raises
    ------
    UnsupportedError : a board that is a card
    DeviceError, MissingExtraError : there is no compiler, no headers, or the kernel does not compile
    BitstreamError : the folder takes no files
    """
    if not board.is_emulated:
        raise UnsupportedError(f"board {board.name}: a bitstream for it is an .xclbin that the vendor's tools build "
                               "from the same code; C-simulation takes its place on the board emulated")
    from .. import __version__  # the package's own module imports all others

    array = array_of(design)
    warn_beyond(array, design.format, board)
    binary = build_library(design).read_bytes()
    return write(folder, binary, array, design.precision, board, engine=CSIM, device=machine(),
                 tools={"barista": __version__, **tools()}, suffix=".so", name=name)
