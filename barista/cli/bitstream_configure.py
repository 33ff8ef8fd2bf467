"""``barista bitstream configure``: folders that a machine with Vitis builds, of a schedule or of one design."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from ..errors import BitstreamError, UnsupportedError, nearest
from ..gemm.tiles import TileSizes
from ..hardware.board import EMULATED, Board, board_names, load_board
from ..synthesis.designs import Design
from ..synthesis.project import DESIGN, Project, load_project, project_of
from .arguments import UsageError
from .bitstream_designs import PRECISION, Wanted, conv_design, gemm_design, require_no_network, scheduled

logger = logging.getLogger(__name__)

OUT = "hls_build"


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
        yield _alone(args)
        return
    given = None if args.board is None else load_board(args.board)
    for wanted in scheduled(args):
        board = _board(wanted, given, args.from_schedule)
        yield project_of(wanted.design_for(board), board, args.clock_hz, wanted.name)


def _alone(args: argparse.Namespace) -> Project:
    """The one design that options say."""
    if args.board is None or args.tile is args.array is None:
        raise UsageError("bitstream configure needs --from-schedule, or a design of its own with --tile, or with "
                         "--array and --model, and --board; see: barista bitstream --help")
    if args.bitstreams is not None:
        raise UsageError("--bitstreams says what the names of a schedule are; it goes with --from-schedule")
    board = load_board(args.board)
    if args.array is None:
        require_no_network(args)
        design: Design = gemm_design(TileSizes.parse(args.tile), args.precision or PRECISION)(board)
    else:
        design = conv_design(args, board)
    project = project_of(design, board, args.clock_hz, args.name or "")
    if args.name is None and args.array is not None:
        return _unused(project, Path(args.out or OUT))
    return project


def _unused(project: Project, out: Path) -> Project:
    """A project under a name that no folder of another design has: arrays of one X and Y may have other memories."""
    name, number = project.name, 1
    while (out / name / DESIGN).is_file() and load_project(out / name).design != project.design:
        number += 1
        name = f"{project.name}_{number}"
    return dataclasses.replace(project, name=name)


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


def _warn_beyond(project: Project) -> None:
    """Say where a design takes more than its board has."""
    board = project.board
    for what, count, held in project.resources.exceeding(board.dsp, board.bram_bits):
        logger.warning("%s takes %d %s by the models' count, and the board %s has %d: it will hardly be placed",
                       project.name, count, what, board.name, held)


def cards() -> str:
    """The boards that ship and are cards, for messages."""
    return ", ".join(name for name in board_names() if name != EMULATED)
