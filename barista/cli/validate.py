"""``barista validate``: hold the models against a simulator, HLS code, a device, reference values and papers."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path

from ..errors import DataError, nearest
from ..gemm.tiles import TileSizes
from ..latency.networks import network_workloads
from ..latency.published import HOLD, ROW_MAKERS, published_rows
from ..latency.simulated import CONV_MODELS, GEMM_MODELS, SimulatorComparison
from ..latency.vectors import read_vectors
from ..latency.workload import Workload
from .arguments import Parser, UsageError, at_least, comma_list
from .findings import Goal, errors_report, published_lines, published_report, stages_chart, vectors_report
from .measure import RUNS
from .progress import progress
from .report import Report, Table, check_charts, lines, write_report

logger = logging.getLogger(__name__)

DESCRIPTION = """Hold the models of arrays against something else, and write what comes of it as JSON, CSV and a page of
HTML with charts.

  simulator        simulate both arrays cycle by cycle, and compare each pass with the models
  csim             run the HLS code of both arrays on this machine (g++), and compare the words that it moves and keeps
                   with the models
  device           calibrate on an OpenCL device, then measure passes of other shapes and compare stage by stage
  vectors FILE     compute a CSV file of reference values again and list what differs
  published        the figures of the thesis, published and computed, with the assumptions taken"""

EXAMPLES = """  barista validate --against simulator --network lenet,cifar10_full --array 16,16
  barista validate --against csim --network lenet --tile 16,16,64 --array 16,16
  barista validate --against device --bitstreams bitstreams
  barista validate --against vectors gemm_vectors.csv --out recomputed.csv
  barista validate --against published --report validation"""

# What is compared where the command line does not say: networks and batch by target, tiles, arrays of X, Y.
NETWORKS = {"simulator": "lenet,cifar10_full,resnet20_cifar10,inception_3a",
            "csim": "lenet,cifar10_full,resnet20_cifar10", "device": "lenet,cifar10_full"}
BATCHES = {"simulator": 2, "csim": 2, "device": 64}
TILES = ("16,16,64", "32,32,64")
ARRAYS = ("16,16", "32,8", "64,16")
# Those of the HLS code, which are compiled first.
CSIM_TILES, CSIM_ARRAYS = TILES[:1], ARRAYS[:1]

# The thesis's model had mean errors of 5.5 to 9.4 % on hardware and a worst one of 15.8 % (Table 5.4).  Predictions
# that are too low mislead a planner more than those that are too high.
REFINED_GOAL = Goal(mean=0.05, largest=0.15, optimistic=0.02)

# Lines of a list that are printed; the report has all.
_PRINTED = 20
# Options that belong to some targets only.
_OF_TARGETS = {"file": ("vectors",), "out": ("vectors",), "network": ("simulator", "csim", "device"),
               "batch": ("simulator", "csim", "device"), "tile": ("simulator", "csim"), "array": ("simulator", "csim"),
               "device": ("device",), "bitstreams": ("device",), "calibration": ("device",), "runs": ("device",)}


def add_arguments(parser: Parser) -> None:
    """Declare what to hold the models against, and how."""
    parser.add_argument("file", metavar="FILE", nargs="?", default=None, help="vectors: the CSV file")
    parser.add_argument("--against", required=True, metavar="WHAT", help=", ".join(TARGETS))
    parser.add_argument("--report", default="validation", metavar="DIR",
                        help="folder for the report's three files (default validation)")
    parser.add_argument("--out", default=None, metavar="FILE",
                        help="vectors: write the file with the figures that are computed")
    parser.add_argument("--network", default=None, metavar="A,B",
                        help="simulator, csim, device: networks whose passes are compared (default for the simulator "
                             f"{NETWORKS['simulator']}, for HLS code {NETWORKS['csim']}, for a device "
                             f"{NETWORKS['device']})")
    parser.add_argument("--batch", default=None, type=at_least(1), metavar="N",
                        help=f"simulator, csim, device: images (default {BATCHES['simulator']}, {BATCHES['csim']} and "
                             f"{BATCHES['device']})")
    parser.add_argument("--tile", default=None, action="append", metavar="TR,TC,TP",
                        help="simulator, csim: tiles of Barista's array; may be given again (default "
                             f"{' and '.join(TILES)}, for HLS code {CSIM_TILES[0]})")
    parser.add_argument("--array", default=None, action="append", metavar="X,Y",
                        help="simulator, csim: columns and rows of FPGPT's array; may be given again (default "
                             f"{', '.join(ARRAYS[:-1])} and {ARRAYS[-1]}, for HLS code {CSIM_ARRAYS[0]})")
    parser.add_argument("--device", default=None, metavar="ID",
                        help="device: number of the OpenCL device in `barista device_query`, or part of its name")
    parser.add_argument("--bitstreams", default=None, metavar="PATH",
                        help="device: a bitstream's manifest, or a folder of them (default: one as the FPGA backend "
                             "builds it)")
    parser.add_argument("--calibration", default=None, metavar="FILE",
                        help="device: predict from what `barista calibrate` wrote (default: calibrate now)")
    parser.add_argument("--runs", default=None, type=at_least(1), metavar="N",
                        help=f"device: runs whose medians count (default {RUNS})")


def run(args: argparse.Namespace) -> None:
    """Compare, print, write the report; raise where what must hold does not."""
    target = TARGETS.get(args.against)
    if target is None:
        hint = nearest(args.against, TARGETS) or f"it takes {', '.join(TARGETS)}"
        raise UsageError(f"--against has no {args.against!r}; {hint}; see: barista validate --help")
    for name, targets in _OF_TARGETS.items():
        if getattr(args, name) is not None and args.against not in targets:
            spelt = repr(args.file) if name == "file" else f"--{name}"
            raise UsageError(f"{spelt} has no place in --against {args.against}; it belongs to --against "
                             f"{' or '.join(targets)}")
    check_charts()
    target(args)


def _simulator(args: argparse.Namespace) -> None:
    tiles = [TileSizes.parse(text) for text in args.tile or TILES]
    arrays = [_array_size(text) for text in args.array or ARRAYS]
    workloads = _workloads(args)
    comparison = SimulatorComparison()
    found = []
    with progress(len(workloads) * (len(tiles) + len(arrays)), "simulating", args.quiet) as bar:
        for workload in workloads:
            for size in tiles:
                found += comparison.products(workload, size)
                bar.update()
            for x, y in arrays:
                found += comparison.convolutions(workload, x, y)
                bar.update()
    goals = {(model, "total"): REFINED_GOAL for model in (*CONV_MODELS, *GEMM_MODELS) if "refined" in model}
    report = errors_report("The latency models against the cycle-level simulator", found, goals, [
        "Every simulated result was compared with NumPy's.",
        "The equations take the busiest component for the whole; the refined models add how components begin, wait for "
        "one another and end."])
    _publish(report, args, "simulator", ["", *lines(report.tables[0])])


def _csim(args: argparse.Namespace) -> None:
    from .validate_csim import counted, counted_goals

    found = counted(_workloads(args), [TileSizes.parse(text) for text in args.tile or CSIM_TILES],
                    [_array_size(text) for text in args.array or CSIM_ARRAYS], args.quiet)
    report = errors_report("The models against the HLS code in C-simulation", found, counted_goals(found), [
        "Every result was compared with NumPy's.",
        "Words, not cycles: what moves between array and memory, and what lies on the chip.",
        "Goals: what is counted in whole tiles and on the chip is equal, and the convolution array reads no more than "
        "the model says. That counts bursts as Vitis HLS made them for the thesis, three outer turns at least, where "
        "the code reads what it needs; and Eq. 4.2 counts matrices, where whole tiles move."])
    _publish(report, args, "csim", ["", *lines(report.tables[0])])


def _device(args: argparse.Namespace) -> None:
    from ..runtime.context import Context
    from .calibrate import open_library
    from .validate_device import calibrated_before, calibrated_now, device_goals

    workloads, runs, context = _workloads(args), args.runs or RUNS, Context(args.device)
    with open_library(args.bitstreams, context) as library:
        if args.calibration is None:
            figures, found = calibrated_now(context, args.device, library, workloads, runs, args.quiet)
            when = "in the same turns"
        else:
            figures, found = calibrated_before(args.calibration, context, args.device, library, workloads, runs,
                                               args.quiet)
            when = f"before, {args.calibration}"
    arrays = dict.fromkeys(each.model for each in found if each.model.startswith("array "))
    report = errors_report(f"Predictions against measurements on {figures.device}", found, device_goals(found),
                           [f"Medians of {runs} runs; the calibration was made from other shapes, {when}."],
                           [stages_chart(name, found) for name in arrays])
    _publish(report, args, "device", ["", *lines(report.tables[0])])


def _vectors(args: argparse.Namespace) -> None:
    if args.file is None:
        raise UsageError("--against vectors needs a file: barista validate --against vectors FILE.csv")
    file = read_vectors(args.file)
    if args.out is not None:
        try:
            Path(args.out).write_text(file.recomputed(), encoding="utf-8", newline="")
        except OSError as error:
            raise DataError(f"{args.out}: cannot be written: {error.strerror}") from None
        logger.info("Wrote %s", args.out)
    report = vectors_report(file)
    differing = len({row[0] for row in report.details.rows})
    _publish(report, args, f"vectors_{file.path.stem}", _beginning(report.details) if differing else [])
    if differing:
        raise DataError(f"{file.path}: {differing} of {len(file.rows)} rows differ from what is computed; the report "
                        "lists them all")


def _published(args: argparse.Namespace) -> None:
    with progress(len(ROW_MAKERS), "published", args.quiet) as bar:
        rows = published_rows(bar.update)
    _publish(published_report(rows), args, "published", published_lines(rows))
    missed = [row.what for row in rows if row.use == HOLD and not row.reproduces]
    if missed:
        raise DataError(f"{len(missed)} published figures that follow from the equations are not reproduced: "
                        f"{'; '.join(missed)}; one of the models has changed")


def _workloads(args: argparse.Namespace) -> list[Workload]:
    """The passes of the networks asked for, each layer with its network's name before its own."""
    batch = args.batch or BATCHES[args.against]
    return [workload if workload.layer.startswith(network)
            else dataclasses.replace(workload, layer=f"{network}/{workload.layer}")
            for network in comma_list(args.network or NETWORKS[args.against])
            for workload in network_workloads(network, batch)]


def _array_size(text: str) -> tuple[int, int]:
    """Read ``16,16``."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise UsageError(f"--array {text!r} is not two whole numbers X,Y such as 16,16")
    return int(parts[0]), int(parts[1])


def _beginning(table: Table) -> list[str]:
    """A table as text, cut where it gets long."""
    text = list(lines(table))
    rest = len(table.rows) - _PRINTED
    return text if rest <= 0 else [*text[:-rest], f"... and {rest} more"]


def _publish(report: Report, args: argparse.Namespace, stem: str, text: Iterable[str]) -> None:
    """Print a report's summary and some text, and write the report's files, which are called `stem`."""
    print("\n".join([*report.summary, *text]))
    logger.info("Wrote %s", ", ".join(map(str, write_report(report, Path(args.report), stem))))


TARGETS = {"simulator": _simulator, "csim": _csim, "device": _device, "vectors": _vectors, "published": _published}
