"""``barista calibrate``: measure what an OpenCL device, and the host beside it, take for convolutions."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..compose import make_ops
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import Bitstream
from ..hardware.board import EMULATED, Board, load_board
from ..hardware.library import Library
from ..latency import calibration
from ..latency.engine_model import ARRAY_STAGES, HOST_STAGES, ArrayFigures, Costs, EngineFigures, elapsed_s
from ..latency.engine_work import COUNTED, Counts, cpu_work, fpga_work, opencl_work
from ..latency.workload import Workload
from ..ops.base import OpSet
from ..runtime.bitstream_build import build
from ..runtime.bitstream_program import DeviceArrayEngine, device_identity
from ..runtime.context import Context
from .arguments import Parser
from .measure import RUNS, Measurement, measure
from .progress import progress

logger = logging.getLogger(__name__)

DESCRIPTION = """Measure what convolutions take on an OpenCL device and on the host beside it: transfers, kernels of
each bitstream, tiling, im2col, and whole passes on the processor and on the OpenCL backend. What each thing costs is
kept in the user's cache folder, or in --out, for `barista plan` and `barista validate`. Takes less than a minute with
one bitstream on an idle machine; on a busy one the result is worth little."""

EXAMPLES = """  barista calibrate
  barista calibrate --bitstreams bitstreams --out machine.json
  barista calibrate --quick --device 1"""

# What is measured: (batch, channels, filters, size, kernel, stride, pad, group), squares.  Wide and narrow products,
# runs short and long, one image a product and a hundred, with borders and without, at addresses that collide in
# caches and at others.
CONVOLUTIONS = (
    (64, 1, 16, 28, 3, 1, 1, 1), (60, 2, 16, 32, 3, 1, 1, 1), (16, 3, 64, 32, 7, 2, 3, 1),
    (48, 24, 24, 16, 3, 1, 1, 1), (8, 64, 128, 14, 3, 1, 1, 1), (32, 64, 32, 8, 1, 1, 0, 1),
    (20, 8, 12, 24, 5, 1, 0, 1), (64, 32, 48, 9, 5, 1, 2, 1), (100, 3, 24, 24, 3, 1, 1, 1),
    (32, 16, 32, 14, 5, 1, 2, 1), (100, 32, 32, 12, 3, 2, 1, 1), (2, 48, 96, 28, 5, 1, 2, 1),
    (3, 16, 64, 56, 3, 1, 1, 1), (70, 32, 8, 16, 1, 2, 0, 1), (128, 16, 24, 7, 3, 1, 1, 1),
    (1, 96, 64, 27, 3, 1, 1, 1), (4, 3, 32, 63, 11, 4, 0, 1), (50, 20, 40, 10, 5, 1, 0, 1),
    (10, 128, 128, 7, 3, 1, 1, 1), (6, 32, 64, 28, 1, 1, 0, 1), (80, 6, 16, 20, 5, 1, 0, 1),
    (24, 40, 56, 11, 3, 1, 0, 1), (96, 8, 32, 32, 3, 4, 1, 1), (16, 48, 64, 13, 5, 1, 2, 2),
    (100, 48, 32, 4, 3, 1, 1, 1), (70, 5, 50, 16, 3, 2, 1, 1), (12, 24, 20, 40, 5, 1, 2, 1))
# How many of them --quick takes, from the first on.
QUICK = 9
# Seconds that one pass may take: on a slow array a pass of fewer images is measured, or none.
LONGEST_S = 0.3
# Stages that a device has which does not work in the host's memory.
TRANSFERS = ("write", "read")
# The bitstream of those who give none: what the FPGA backend builds for itself.
TILES, PRECISION, ENGINE = TileSizes(16, 16, 16), "fp32", "fast"


@dataclasses.dataclass(frozen=True)
class Engine:
    """Something that computes convolutions.

    Parameters
    ----------
    ops : the op set
    bitstream : of an array, else None
    """

    ops: OpSet
    bitstream: Bitstream | None = None

    @property
    def name(self) -> str:
        """As reports show it."""
        if self.bitstream is None:
            return self.ops.name
        manifest = self.bitstream.manifest
        return f"array {manifest.engine} {manifest.tiles} {manifest.precision}"

    def bearable(self, workloads: Sequence[Workload]) -> list[Workload]:
        """The passes that it is to be measured on: on an array, which may be slow, of fewer images."""
        return list(workloads) if self.bitstream is None else bearable(self.ops, workloads)


Observed = list[tuple[Engine, list[Measurement]]]


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--device", default=None, metavar="ID",
                        help="number of the OpenCL device in `barista device_query`, or part of its name")
    parser.add_argument("--bitstreams", default=None, metavar="PATH",
                        help="a bitstream's manifest, or a folder of them (default: the one that the FPGA backend "
                             "builds for the emulated board)")
    parser.add_argument("--out", default=None, metavar="FILE",
                        help="where to write (default: the user's cache folder, where other commands look)")
    parser.add_argument("--board-out", default=None, metavar="FILE",
                        help="also write the board 'emulated' with the measured figures into this file (.toml), for "
                             "commands that take a --board")
    parser.add_argument("--quick", action="store_true",
                        help="measure a third of the shapes: a coarser result in a third of the time")


def run(args: argparse.Namespace) -> None:
    """Measure, fit and keep."""
    context = Context(args.device)
    logger.info("Calibrating %s", context.describe())
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > _cores() / 2:
        logger.warning("the machine is busy (load %.1f on %d cores): stop what else runs, or the calibration says how "
                       "fast a busy machine is", busy, _cores())
    with open_library(args.bitstreams, context) as library:
        figures, _ = calibrate(context, args.device, library, geometries(QUICK if args.quick else len(CONVOLUTIONS)),
                               args.quiet)
    path = calibration.kept_path(figures.device) if args.out is None else Path(args.out)
    calibration.save(figures, path)
    for line in table(figures):
        logger.info("%s", line)
    logger.info("Wrote %s", path)
    if args.board_out is not None:
        board = calibration.calibrated_board(load_board(EMULATED), figures, figures.arrays[0])
        Path(args.board_out).write_text(board_text(board), encoding="utf-8")
        logger.info("Wrote %s: the board %s as measured with %s", args.board_out, board.name, figures.arrays[0].title)


def geometries(count: int = len(CONVOLUTIONS)) -> list[ConvolutionGeometry]:
    """The first `count` convolutions that are measured."""
    return [ConvolutionGeometry(batch, channels, filters, (size, size), (kernel, kernel), (stride, stride), (pad, pad),
                                (1, 1), group)
            for batch, channels, filters, size, kernel, stride, pad, group in CONVOLUTIONS[:count]]


def engines(library: Library, device: str | None, threads: int) -> list[Engine]:
    """The processor, the OpenCL op set and the array of each bitstream.

    Raises
    ------
    BitstreamError : a bitstream for another board or device
    """
    return [Engine(make_ops("cpu", threads=threads)), Engine(make_ops("opencl", device=device)),
            *(Engine(make_ops("fpga", bitstream=str(bitstream.path), device=device), bitstream)
              for bitstream in library.bitstreams.values())]


def calibrate(context: Context, device: str | None, library: Library, shapes: Sequence[ConvolutionGeometry],
              quiet: bool = False, runs: int = RUNS + 2, others: Sequence[Workload] = ()
              ) -> tuple[EngineFigures, Observed]:
    """Measure bitstreams, the processor and the OpenCL op set in turns, and fit what things cost.

    Parameters
    ----------
    context, device : the device, and what the command line calls it
    library : the bitstreams
    shapes : convolutions whose three passes are measured
    quiet : draw no progress bar
    runs : whose medians count
    others : passes that are measured in the same turns and fit nothing, to hold predictions against

    Returns
    -------
    (figures, observed) : what was fitted, and what the others took on each engine

    Raises
    ------
    BitstreamError : a bitstream for another board or device
    DeviceError : the device failed
    """
    workloads = [Workload(f"shape {index}", pass_, shape) for index, shape in enumerate(shapes) for pass_ in Pass]
    threads = _cores()
    tried = [(engine, engine.bearable(workloads), engine.bearable(others) if others else [])
             for engine in engines(library, device, threads)]
    tasks = [(engine.ops, workload) for engine, *parts in tried for part in parts for workload in part]
    with progress(len(tasks) * (runs + 1), "measuring", quiet) as bar:
        taken = iter(measure(tasks, runs, bar.update))
    results: list[list[Measurement]] = []
    observed: Observed = []
    for engine, fitted, held_out in tried:
        results.append(list(itertools.islice(taken, len(fitted))))
        observed.append((engine, list(itertools.islice(taken, len(held_out)))))
    # Where the device is the processor itself, the host's cores are not free while it computes.
    overlaps, units = not context.is_cpu, int(context.device.max_compute_units)
    arrays = [(engine.bitstream, result) for (engine, *_), result in zip(tried, results, strict=True)
              if engine.bitstream is not None]
    host, own = fit_arrays(arrays, units, overlaps)
    found = tuple(ArrayFigures(bitstream.manifest.tiles, bitstream.manifest.precision, bitstream.manifest.engine,
                               _load_s(context, bitstream), stages)
                  for (bitstream, _), stages in zip(arrays, own, strict=True))
    figures = EngineFigures(
        device_identity(context.device), _processor(), units, overlaps, threads, host, found,
        cpu=_fit([cpu_work(one.workload.geometry, one.workload.pass_, threads) for one in results[0]], results[0]),
        opencl=_fit([opencl_work(one.workload.geometry, one.workload.pass_) for one in results[1]], results[1]))
    return figures, observed


def fit_arrays(measured: Sequence[tuple[Bitstream, Sequence[Measurement]]], units: int,
               overlaps: bool) -> tuple[dict[str, Costs], list[dict[str, Costs]]]:
    """What the stages cost: those that all arrays share, and for each array its own."""
    shared: dict[str, list[tuple[Counts, float]]] = {stage: [] for stage in HOST_STAGES}
    own: list[dict[str, Costs]] = []
    for bitstream, measurements in measured:
        mine: dict[str, list[tuple[Counts, float]]] = {stage: [] for stage in ARRAY_STAGES}
        for one in measurements:
            workload, manifest = one.workload, bitstream.manifest
            work = fpga_work(workload.geometry, workload.pass_, manifest.tiles, manifest.format, units)
            seconds = {**one.stages, "overhead": one.total_s - elapsed_s(workload, one.stages, overlaps)}
            for stage, rows in (*shared.items(), *mine.items()):
                rows.append((work[stage], seconds[stage]))
        own.append({stage: _fit_rows(rows) for stage, rows in mine.items()})
    return {stage: _fit_shared(stage, rows) for stage, rows in shared.items()}, own


def table(figures: EngineFigures) -> Iterator[str]:
    """What was found, a line for each stage: what things cost, and how well that fits what was measured."""
    rows = [["", "stage", "what things cost", "median error", "worst"]]
    parts = [("host", figures.host), *((array.title, array.stages) for array in figures.arrays)]
    parts += [(name, {"pass": costs}) for name, costs in (("cpu", figures.cpu), ("opencl", figures.opencl))
              if costs is not None]
    for title, stages in parts:
        for stage, costs in stages.items():
            rows.append([title, stage, ", ".join(_cost(name, seconds) for name, seconds in costs.seconds.items()
                                                 if seconds), f"{costs.median_error:.1%}", f"{costs.worst_error:.0%}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for array in figures.arrays:
        yield f"{array.title}: on the device in {1e3 * array.load_s:.1f} ms"


def board_text(board: Board) -> str:
    """A board as the text of its file."""
    texts = {name: getattr(board, name) for name in ("name", "description", "part", "platform")}
    figures = {name: getattr(board, name) for name in board.sources}
    return ("".join(f"{name} = {json.dumps(text)}\n" for name, text in texts.items())
            + "".join(f"\n[{name}]\nvalue = {figure}\nsource = {json.dumps(board.sources[name])}\n"
                      for name, figure in figures.items() if figure is not None))


def _cost(name: str, seconds: float) -> str:
    """One cost, as people read it."""
    if name == "bytes":
        return f"{1e-9 / seconds:.1f} GB/s"
    if name == "macs":
        return f"{1e-9 / seconds:.1f} GMAC/s"
    unit, factor = ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6) if seconds >= 1e-7 else ("ns", 1e9)
    return f"{name.replace('_', ' ')} {factor * seconds:.3g} {unit}"


def _fit(counts: Sequence[Counts], measured: Sequence[Measurement]) -> Costs:
    return calibration.fit(counts, [one.total_s for one in measured])


def _fit_rows(rows: Sequence[tuple[Counts, float]]) -> Costs:
    counts, seconds = zip(*rows, strict=True)
    return calibration.fit(counts, seconds)


def _fit_shared(stage: str, rows: Sequence[tuple[Counts, float]]) -> Costs:
    """As `_fit_rows`; a device that works in the host's memory may transfer in no time."""
    if stage in TRANSFERS and max(seconds for _, seconds in rows) <= calibration.SHORTEST_S:
        return Costs(dict.fromkeys(COUNTED[stage], 0.0), measured=len(rows))
    return _fit_rows(rows)


def bearable(ops: OpSet, workloads: Sequence[Workload]) -> list[Workload]:
    """The passes with as many images as an array computes in `LONGEST_S`, by what the smallest takes."""
    smallest = min(workloads, key=lambda workload: workload.ops)
    [pilot] = measure([(ops, smallest)], runs=1)
    macs = LONGEST_S * smallest.geometry.macs / pilot.total_s
    found = []
    for workload in workloads:
        g = workload.geometry
        batch = min(g.batch, int(macs / (g.macs / g.batch)))
        if batch:
            found.append(dataclasses.replace(workload, geometry=dataclasses.replace(g, batch=batch)))
    return found or [smallest]


def _load_s(context: Context, bitstream: Bitstream) -> float:
    """Seconds until a bitstream is on the device, the median of several times."""
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        DeviceArrayEngine(context, bitstream)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@contextmanager
def open_library(path: str | None, context: Context) -> Iterator[Library]:
    """The bitstreams of a manifest or folder; for None one as the FPGA backend builds it, which goes again.

    Raises
    ------
    BitstreamError, DeviceError : they cannot be read or built
    """
    if path is not None:
        library = Library(path)
        library.drop_simulated("measuring bitstreams")
        library.drop_whole("measuring bitstreams")
        yield library
        return
    with tempfile.TemporaryDirectory() as folder:
        build(context, folder, TILES, PRECISION, load_board(EMULATED), ENGINE)
        yield Library(folder)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    """The processor's name, as the system gives it."""
    return platform.processor() or platform.machine()
