"""``barista bitstream build``: bitstreams for the emulated board, of GEMM arrays and of convolution arrays."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..errors import BitstreamError, UnsupportedError
from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import SUFFIX, Bitstream, load, require_name, standard_name
from ..hardware.board import EMULATED, Board, load_board
from ..hardware.manifest import CSIM, check_build
from ..synthesis.conv_design import ConvDesign
from ..synthesis.project import PORT_BITS
from .arguments import UsageError
from .planning import net_workloads, open_planning_net

# What is built unless told otherwise.
TILE, PRECISION, ENGINE = "16,16,64", "fp32", "array"
# Options that say which convolutions an array is for.
NETWORK = ("model", "phase", "batch", "input_shape")


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


def conv_design(args: argparse.Namespace, board: Board) -> ConvDesign:
    """The least design of ``--array`` for all convolutions of ``--model``.

    Raises
    ------
    UsageError : no network, or tiles beside it
    UnsupportedError : sizes or convolutions that the array is not made for
    """
    if args.tile is not None:
        raise UsageError("--array and --tile contradict each other: one takes whole convolutions, the other multiplies "
                         "tiles; give one of them")
    if args.model is None:
        raise UsageError("--array needs --model FILE, the network whose convolutions the array is to take: its "
                         "memories are made for them")
    x, y = _columns_and_rows(args.array)
    net = open_planning_net(args)
    passes = list(dict.fromkeys((one.geometry, one.pass_) for one in net_workloads(net)))
    if not passes:
        raise UnsupportedError(f"{net.name} has no convolution to build an array for")
    return ConvDesign.for_passes(x, y, passes, args.precision or PRECISION, board.port_bits_per_cycle or PORT_BITS)


def require_no_network(args: argparse.Namespace) -> None:
    """Refuse options of a network where there is no array that they are for.

    Raises
    ------
    UsageError : one is given
    """
    for name in NETWORK:
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} says which convolutions an array is for; it goes with "
                             "--array X,Y")


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


def _columns_and_rows(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--array {text!r} is not two whole numbers X,Y such as 16,16")
    x, y = map(int, parts)
    return x, y


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
    from .bitstream_configure import scheduled

    _require_csim(args, "what a schedule names")
    for option in ("tile", "array", "precision", "name", *NETWORK):
        if getattr(args, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} and --from-schedule contradict each other: the schedule "
                             "names the designs; give one of them")
    for wanted in scheduled(args):
        yield csim_build.build(folder, wanted.design_for(board), board, wanted.name)


def _require_csim(args: argparse.Namespace, what: str) -> None:
    """Refuse another engine than the one that `what` has on this machine."""
    if args.engine not in (None, CSIM):
        raise UsageError(f"--engine {args.engine} does not build {what}; on this machine that is --engine {CSIM}, or "
                         "configure it for a card")
    require_no_device(args, "build", f"with --engine {CSIM}")
