"""Bitstreams for the emulated board that run a card's own C++ code: engine csim."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnsupportedError
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import Bitstream, warn_beyond, write
from ..hardware.board import Board
from ..hardware.manifest import CSIM
from .gemm_design import GemmDesign
from .toolchain import build_library, machine, tools


def build(folder: str | Path, tiles: TileSizes, precision: str, board: Board) -> Bitstream:
    """Compile the GEMM kernel for C-simulation and write the library with its manifest.

    Parameters
    ----------
    folder : made where it does not exist; a bitstream of the same name is replaced
    precision : name of a number format
    board : an emulated one

    Raises
    ------
    UnsupportedError : a board that is a card, or tiles or precision that the kernel does not know
    DeviceError, MissingExtraError : there is no compiler, no headers, or the kernel does not compile
    BitstreamError : the folder takes no files
    """
    if not board.is_emulated:
        raise UnsupportedError(f"board {board.name}: a bitstream for it is an .xclbin that the vendor's tools build "
                               "from the same code; C-simulation takes its place on the board emulated")
    design = GemmDesign(tiles, precision)
    from .. import __version__  # the package's own module imports all others

    warn_beyond(tiles, design.format, board)
    binary = build_library(design).read_bytes()
    return write(folder, binary, tiles, precision, board, engine=CSIM, device=machine(),
                 tools={"barista": __version__, **tools()}, suffix=".so")
