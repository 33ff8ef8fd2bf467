"""Which designs of arrays are asked for: by a schedule, by tile sizes, or by the network that an array is for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from ..errors import ScheduleError, UnsupportedError
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import parse_name
from ..hardware.board import Board
from ..hardware.library import Library
from ..schedule.schedule import Schedule
from ..synthesis.conv_design import ConvDesign
from ..synthesis.designs import Design, design_from_json, design_of
from ..synthesis.gemm_design import GemmDesign
from ..synthesis.project import PORT_BITS
from .arguments import UsageError
from .planning import net_workloads, open_planning_net

PRECISION = "fp32"
# Options that say which convolutions an array is for.
NETWORK = ("model", "phase", "batch", "input_shape")


# ---- of options -------------------------------------------------------------------------------------------


def gemm_design(tiles: TileSizes, precision: str) -> Callable[[Board], Design]:
    """A GEMM array, with ports as wide as a board's memory."""
    return lambda board: GemmDesign(tiles, precision, board.port_bits_per_cycle or PORT_BITS)


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


def _columns_and_rows(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--array {text!r} is not two whole numbers X,Y such as 16,16")
    x, y = map(int, parts)
    return x, y


# ---- of a schedule ----------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """A bitstream that a schedule names.

    Parameters
    ----------
    name : as the schedule says it
    board : name of the board that it is for
    design_for : makes the design that it is to be built of, given the board
    """

    name: str
    board: str
    design_for: Callable[[Board], Design]


def scheduled(args: argparse.Namespace) -> list[Wanted]:
    """The bitstreams that a schedule names, all of them known.

    Raises
    ------
    UsageError : options that say what the schedule says
    ScheduleError, BitstreamError : it names none, or nothing says what one is
    """
    for name in ("tile", "array", "precision", "name", *NETWORK):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} and --from-schedule contradict each other: the schedule "
                             "names the designs; give one of them")
    schedule = Schedule.load(args.from_schedule)
    if not schedule.bitstreams:
        raise ScheduleError(f"{schedule.source} names no bitstream, since nothing in it runs on engine fpga; make one: "
                            "barista explore --schedule FILE")
    library = None if args.bitstreams is None else Library(args.bitstreams)
    return [_wanted(schedule, name, library) for name in schedule.bitstreams]


def _wanted(schedule: Schedule, name: str, library: Library | None) -> Wanted:
    """What a name of a schedule stands for: by its field designs, by a bitstream of this name, or by the name itself.

    Raises
    ------
    ScheduleError, BitstreamError : nothing says it
    """
    if name in schedule.designs:
        where = f"{schedule.source}: designs: {name}"
        said = schedule.designs[name]
        if not isinstance(said, dict) or sorted(said) != ["board", "design"] or not isinstance(said["board"], str):
            raise ScheduleError(f"{where}: an object with a board and a design is expected, this is {said!r}; make the "
                                "schedule again: barista explore --schedule FILE")
        design = design_from_json(said["design"], where)
        return Wanted(name, said["board"], lambda board: design)
    if library is not None and (name in library.bitstreams or parse_name(name) is None):
        manifest = library.find(name).manifest
        return Wanted(name, manifest.board.name, lambda board: design_of(
            manifest.array, manifest.precision, board.port_bits_per_cycle or PORT_BITS))
    named = parse_name(name)
    if named is None:
        raise ScheduleError(f"{schedule.source}: the name {name!r} does not say what the bitstream is, as "
                            "gemm_array_16x16x64_fp32_u250 does; give the folder of its manifest with --bitstreams, or "
                            "rename it")
    return Wanted(name, named.board, gemm_design(named.tiles, named.precision))
