"""``barista bitstream build``: bitstreams for the emulated board, of GEMM arrays and of convolution arrays."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..errors import BitstreamError
from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import SUFFIX, Bitstream, load, require_name, standard_name
from ..hardware.board import EMULATED, Board, load_board
from ..hardware.manifest import CSIM, check_build
from .arguments import UsageError
from .bitstream_designs import PRECISION, conv_design, require_no_network, scheduled

# What is built unless told otherwise.
TILE, ENGINE = "16,16,64", "array"


def run_build(args: argparse.Namespace, out: str) -> Iterator[Bitstream]:
    """Build what the options say.

    Parameters
    ----------
    out : where to, if no option says so

    Raises
    ------
    UsageError : options that say nothing together, or contradict each other
    UnsupportedError, BitstreamError, DeviceError : it cannot be built
    """
    folder, board = args.out or out, load_board(args.board or EMULATED)
    if args.name is not None:
        require_name(args.name)  # before anything is compiled
    if args.from_schedule is None and args.bitstreams is not None:
        raise UsageError("--bitstreams says what the names of a schedule are; it goes with --from-schedule")
    if args.from_schedule is not None:
        yield from _of_schedule(args, folder, board)
    elif args.array is not None:
        yield _whole(args, folder, board)
    else:
        yield _gemm(args, folder, board)


def require_no_device(args: argparse.Namespace, action: str, why: str) -> None:
    """Refuse an OpenCL device where none computes.

    Raises
    ------
    UsageError : one is given
    """
    if args.device is not None:
        raise UsageError(f"bitstream {action} has no use for --device {why}, which runs on the processor itself")


def unused_name(folder: str | Path, name: str, array: ConvSizes) -> str:
    """A name in a folder that no other array has: two of the same X and Y may have other memories."""
    found, number = name, 1
    while is_another(Path(folder) / (found + SUFFIX), array):
        number += 1
        found = f"{name}_{number}"
    return found


def is_another(path: Path, array: TileSizes | ConvSizes) -> bool:
    """Whether there is a manifest of another array; one that is damaged is replaced."""
    try:
        return path.exists() and load(path).manifest.array != array
    except BitstreamError:
        return False


def _gemm(args: argparse.Namespace, folder: str, board: Board) -> Bitstream:
    require_no_network(args)
    tiles, engine, precision = TileSizes.parse(args.tile or TILE), args.engine or ENGINE, args.precision or PRECISION
    check_build(tiles, engine)
    if engine == CSIM:
        from ..synthesis import csim_build
        from ..synthesis.gemm_design import GemmDesign

        require_no_device(args, "build", "with --engine csim")
        return csim_build.build(folder, GemmDesign(tiles, precision), board, args.name or "")
    from ..runtime.bitstream_build import build
    from ..runtime.context import Context

    return build(Context(args.device), folder, tiles, precision, board, engine, args.name or "")


def _whole(args: argparse.Namespace, folder: str, board: Board) -> Bitstream:
    from ..synthesis import csim_build

    _require_csim(args, "an array that takes whole convolutions")
    design = conv_design(args, board)
    name = args.name or unused_name(folder, standard_name(design, design.precision, CSIM, board.name), design.sizes)
    return csim_build.build(folder, design, board, name)


def _of_schedule(args: argparse.Namespace, folder: str, board: Board) -> Iterator[Bitstream]:
    """Every design of a schedule under the name that it has there, whatever board that is for."""
    from ..synthesis import csim_build
    _require_csim(args, "what a schedule names")
    for wanted in scheduled(args):
        yield csim_build.build(folder, wanted.design_for(board), board, wanted.name)


def _require_csim(args: argparse.Namespace, what: str) -> None:
    """Refuse another engine than the one that `what` has on this machine."""
    if args.engine not in (None, CSIM):
        raise UsageError(f"--engine {args.engine} does not build {what}; on this machine that is --engine {CSIM}, or "
                         "configure it for a card")
    require_no_device(args, "build", f"with --engine {CSIM}")
