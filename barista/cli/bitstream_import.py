"""``barista bitstream import``: a binary that a vendor's tools built, its manifest, and what they reported of it."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import NamedTuple

from ..errors import BitstreamError
from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..hardware import bitstream as bitstreams
from ..hardware.bitstream import Bitstream
from ..hardware.board import Board, load_board
from ..hardware.report import BuildReport
from ..synthesis.designs import array_of
from ..synthesis.gemm_design import GemmDesign
from ..synthesis.project import Project, find_project, load_project
from ..synthesis.reports import Info, read_info, read_report, seek_reports
from .arguments import UsageError
from .bitstream_build import is_another
from .bitstream_configure import cards

logger = logging.getLogger(__name__)

# What an .xclbin begins with.
XCLBIN_MAGIC = b"xclbin2\0"
# What a binary does not say of itself.
NEEDED = ("tile", "precision", "board")


class Said(NamedTuple):
    """What is known of a binary, by its design and by the options.

    Parameters
    ----------
    project : its design, where there is one
    """

    array: TileSizes | ConvSizes
    precision: str
    board: Board
    kernel: str | None
    project: Project | None


def run_import(args: argparse.Namespace, out: str) -> Bitstream:
    """Copy a binary and write its manifest.

    Parameters
    ----------
    out : where to, if no option says so

    Raises
    ------
    UsageError : neither a design nor options say what it is
    BitstreamError : no binary, or one that is something else than its design or the options say
    DataError : a report that cannot be read
    """
    path = Path(args.path)
    design = _design_file(args, path)
    missing = [name for name in NEEDED if getattr(args, name) is None]
    if design is None and missing:
        options = ", ".join(f"--{name}" for name in missing)
        raise UsageError(f"bitstream import needs {options}, which cannot be read from the binary, or the design.json "
                         "that `barista bitstream configure` wrote, beside it, in a folder above or with --design; "
                         "see: barista bitstream --help")
    if args.clock_hz is not None and not 0 < args.clock_hz < math.inf:
        raise BitstreamError(f"--clock-hz {args.clock_hz:g}: give a clock above 0")
    said = _said(args, design)
    if said.board.is_emulated:
        raise BitstreamError(f"{path}: a binary that is imported is for a card; give one of {cards()} or a .toml file "
                             f"with --board (those for the board {said.board.name} are built)")
    binary = _read(path)
    report, info = _reports(path, design, said)
    reported_hz = None if report is None else report.clock_hz
    if None not in (args.clock_hz, reported_hz) and args.clock_hz != reported_hz:
        raise BitstreamError(f"--clock-hz {args.clock_hz:g} contradicts the report of {path}, by which it runs at "
                             f"{reported_hz:g} Hz; leave the option out")
    clock_hz = args.clock_hz or reported_hz
    if said.project is not None:
        clock_hz = clock_hz or said.project.clock_hz
        place = Path(args.out or out) / (said.project.name + bitstreams.SUFFIX)
        if is_another(place, said.array):
            raise BitstreamError(f"{place} is of another array under the same name; remove it, or choose another "
                                 "folder with --out")
    return bitstreams.write(args.out or out, binary, said.array, said.precision, said.board, kernel=said.kernel,
                            clock_hz=clock_hz, tools=_tools(report, info), suffix=path.suffix or ".bin",
                            name="" if said.project is None else said.project.name, report=report)


# ---- what it is -------------------------------------------------------------------------------------------

def _design_file(args: argparse.Namespace, path: Path) -> Path | None:
    if args.design is None:
        return find_project(path.parent)
    given = Path(args.design)
    return given / "design.json" if given.is_dir() else given


def _said(args: argparse.Namespace, design: Path | None) -> Said:
    """What the design says, and the options where there is none; they may not contradict each other."""
    if design is None:
        return Said(TileSizes.parse(args.tile), args.precision, load_board(args.board), args.kernel, None)
    project = load_project(design)
    array = project.design
    known_tiles = array.tiles if isinstance(array, GemmDesign) else f"of an array {array}, which has no tiles"
    board = project.board if args.board is None else load_board(args.board)
    for option, given, known in (
            ("tile", args.tile and TileSizes.parse(args.tile), known_tiles), ("precision", args.precision,
                                                                              array.precision),
            ("board", args.board and board.name, project.board.name), ("kernel", args.kernel, array.kernel)):
        if given is not None and given != known:
            raise BitstreamError(f"--{option} {given} contradicts {design}, by which it is {known}; leave the option "
                                 "out, or give the binary's own design with --design")
    return Said(array_of(array), array.precision, board, array.kernel, project)


def _read(path: Path) -> bytes:
    """The binary.

    Raises
    ------
    BitstreamError : it cannot be read, or is none
    """
    try:
        binary = path.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{path} cannot be read ({error.strerror}); give the file that v++ wrote") from None
    if path.suffix == bitstreams.SUFFIX:
        raise BitstreamError(f"{path} has the suffix of a manifest; give the binary")
    if path.suffix == ".xclbin" and not binary.startswith(XCLBIN_MAGIC):
        raise BitstreamError(f"{path}: not an .xclbin: it does not begin with {XCLBIN_MAGIC[:-1].decode()!r}; give the "
                             "file that v++ wrote")
    return binary


# ---- what was reported ------------------------------------------------------------------------------------

def _reports(path: Path, design: Path | None, said: Said) -> tuple[BuildReport | None, Info | None]:
    """What the tools reported: of a binary with a design the reports that lie around it.

    Raises
    ------
    BitstreamError : they are of another design
    DataError : one cannot be read
    """
    if design is None or said.project is None:
        return None, None
    binary, home = path.resolve(), design.resolve().parent
    files = seek_reports(binary.parent if binary.is_relative_to(home) else home)
    beside = path.with_name(f"{path.name}.info")
    files = files._replace(info=beside if beside.is_file() else None)
    if not any(files):
        return None, None
    report = read_report(files, said.project.design.kernel)
    info = None if files.info is None else read_info(files.info)
    if info is not None:
        _check_info(path, info, said)
    check_synthesis(report, files.synthesis, str(said.kernel), said.board)
    for file in filter(None, files):
        logger.info("Read %s", file)
    asked = said.project.clock_hz
    if report.clock_hz is not None and report.clock_hz < asked:
        logger.warning("%s runs at %g MHz, of %g MHz that were asked for: it did not meet its timing", path,
                       report.clock_hz / 1e6, asked / 1e6)
    if report.synthesis is not None and (slow := report.synthesis.slow_loops):
        logger.warning("%s: %s", path, slow)
    return report, info


def _check_info(path: Path, info: Info, said: Said) -> None:
    if info.kernels and said.kernel not in info.kernels:
        raise BitstreamError(f"{path} has no kernel {said.kernel}, but {', '.join(info.kernels)}: it is not of this "
                             "design; give its own with --design")
    if info.is_emulation:
        logger.warning("%s is for hardware emulation (%s): it runs on no card, and on this machine where "
                       "XCL_EMULATION_MODE=hw_emu is set", path, info.content)


def check_synthesis(report: BuildReport, file: Path | None, kernel: str, board: Board | None = None) -> None:
    """Refuse a report of another kernel, or of a synthesis for another device than the board's.

    Raises
    ------
    BitstreamError : it is one
    """
    found = report.synthesis
    if found is None:
        return
    if found.top != kernel:
        raise BitstreamError(f"{file} is of the kernel {found.top!r}, not of {kernel!r}; move it away, or give the one "
                             "of this binary")
    if board is None:
        return
    device, wanted = found.part.partition("-")[0], board.part.partition("-")[0]
    if device and wanted not in ("none", device):
        raise BitstreamError(f"{file} is of a synthesis for {found.part}, and the board {board.name} has a "
                             f"{board.part}; move it away, or give the board that the binary was built for")


def _tools(report: BuildReport | None, info: Info | None) -> dict[str, str]:
    tools = {}
    if info is not None and info.tool:
        name, _, version = info.tool.partition(" ")
        tools[name] = version
    if report is not None and report.synthesis is not None and report.synthesis.tool:
        tools["Vitis HLS"] = report.synthesis.tool
    return tools
