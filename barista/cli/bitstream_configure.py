"""``barista bitstream configure``: folders that a machine with Vitis builds, of a schedule or of one design."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import BitstreamError, ScheduleError, UnsupportedError, nearest
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import parse_name
from ..hardware.board import EMULATED, Board, board_names, load_board
from ..hardware.library import Library
from ..schedule.schedule import Schedule
from ..synthesis.designs import Design, design_from_json
from ..synthesis.gemm_design import GemmDesign
from ..synthesis.project import PORT_BITS, Project, project_of
from .arguments import UsageError

logger = logging.getLogger(__name__)

PRECISION, OUT = "fp32", "hls_build"


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


def configure(args: argparse.Namespace) -> None:
    """Write a folder for each design.

    Raises
    ------
    UsageError : options that say nothing, or contradict each other
    BitstreamError, ScheduleError, UnsupportedError : a design that cannot be built
    """
    if args.clock_hz is not None and not args.clock_hz > 0:
        raise BitstreamError(f"--clock-hz {args.clock_hz:g}: give a clock above 0")
    for project in list(_projects(args)):
        _warn_beyond(project)
        folder = project.write(args.out or OUT)
        logger.info("Wrote %s: %s for %s at %g MHz; build it where Vitis is: make -C %s hw", folder,
                    project.design.name, project.board.name, project.clock_hz / 1e6, folder)


def _projects(args: argparse.Namespace) -> Iterator[Project]:
    """The designs that the options name, all of them checked before any is written."""
    if args.from_schedule is None:
        missing = [name for name in ("tile", "board") if getattr(args, name) is None]
        if missing:
            raise UsageError("bitstream configure needs --from-schedule, or a design of its own with --tile and "
                             "--board; see: barista bitstream --help")
        if args.bitstreams is not None:
            raise UsageError("--bitstreams says what the names of a schedule are; it goes with --from-schedule")
        board = load_board(args.board)
        design = _gemm(TileSizes.parse(args.tile), args.precision or PRECISION)(board)
        yield project_of(design, board, args.clock_hz)
        return
    for name in ("tile", "precision"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} and --from-schedule contradict each other: the schedule names the designs; "
                             "give one of them")
    schedule = Schedule.load(args.from_schedule)
    if not schedule.bitstreams:
        raise ScheduleError(f"{schedule.source} names no bitstream, since nothing in it runs on engine fpga; make one: "
                            "barista explore --schedule FILE")
    library = None if args.bitstreams is None else Library(args.bitstreams)
    given = None if args.board is None else load_board(args.board)
    for name in schedule.bitstreams:
        wanted = _wanted(schedule, name, library)
        board = _board(wanted, given, schedule.source)
        yield project_of(wanted.design_for(board), board, args.clock_hz, name)


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
        return Wanted(name, manifest.board.name, _gemm(manifest.tiles, manifest.precision))
    named = parse_name(name)
    if named is None:
        raise ScheduleError(f"{schedule.source}: the name {name!r} does not say what the bitstream is, as "
                            "gemm_array_16x16x64_fp32_u250 does; give the folder of its manifest with --bitstreams, or "
                            "rename it")
    return Wanted(name, named.board, _gemm(named.tiles, named.precision))


def _board(wanted: Wanted, given: Board | None, source: str) -> Board:
    """The board of a schedule's bitstream: one that ships, or the one that is given.

    Raises
    ------
    BitstreamError : the board that is given is another
    UnsupportedError : the board does not ship, and is not given
    """
    if given is None:
        if wanted.board not in board_names():
            hint = nearest(wanted.board, board_names())
            raise UnsupportedError(f"{source}: {wanted.name} is for the board {wanted.board!r}, which does not ship; "
                                   f"{hint + ' ' if hint else ''}give its file with --board FILE.toml")
        return load_board(wanted.board)
    if given.name != wanted.board:
        raise BitstreamError(f"{source}: {wanted.name} is for the board {wanted.board}, not for {given.name}; leave "
                             f"--board out, or explore for {given.name}")
    return given


def _gemm(tiles: TileSizes, precision: str) -> Callable[[Board], Design]:
    return lambda board: GemmDesign(tiles, precision, board.port_bits_per_cycle or PORT_BITS)


def _warn_beyond(project: Project) -> None:
    """Say where a design takes more than its board has."""
    board = project.board
    for what, count, held in project.resources.exceeding(board.dsp, board.bram_bits):
        logger.warning("%s takes %d %s by the models' count, and the board %s has %d: it will hardly be placed",
                       project.name, count, what, board.name, held)


def cards() -> str:
    """The boards that ship and are cards, for messages."""
    return ", ".join(name for name in board_names() if name != EMULATED)
