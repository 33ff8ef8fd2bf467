"""``barista plan``: where each pass of each convolution is computed best, as a schedule that ``train`` executes."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import BitstreamError, ScheduleError, UnsupportedError
from ..files import why_unwritable
from ..hardware.board import Board, load_board
from ..hardware.host import load_host
from ..hardware.library import Library
from ..hardware.manifest import Manifest
from ..latency import calibration
from ..latency.engine_model import EngineFigures
from ..latency.workload import Workload
from ..schedule.costs import CostTable, calibrated_costs, card_costs, one_batch, require_usable
from ..schedule.schedule import IM2COL
from ..schedule.selector import Plan, alternatives, select
from .arguments import Parser, comma_list
from .numbers import counted, number
from .planning import add_planning, net_workloads, open_planning_net

logger = logging.getLogger(__name__)

DESCRIPTION = """Plan where the passes of a network's convolutions are computed: on the CPU, on an OpenCL device, or on
which bitstream of a library. The plan is the one with the least time of a training iteration, the loading of bitstreams
included. It is written as a schedule, which `barista train --backend fpga --schedule FILE` executes.

The costs on a card come from the figures of the board and its host; with --calibration the host's share comes from what
`barista calibrate` measured on this machine. All costs on the board 'emulated' come from there."""

EXAMPLES = """  barista plan --model train_val.prototxt --bitstreams bitstreams --board u250 --out schedule.json
  barista plan --model train_val.prototxt --bitstreams bitstreams --board u250 --calibration machine.json
  barista plan --model train_val.prototxt --input-shape 3,32,32 --bitstreams bitstreams --board emulated"""

HOST = "xeon_e5_2686v4"


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_planning(parser)
    group = parser.add_argument_group("what computes")
    group.add_argument("--bitstreams", required=True, metavar="DIR", help="folder of bitstreams, or one bitstream")
    group.add_argument("--board", required=True, metavar="NAME",
                       help="the board that they are for: one that ships, or a .toml file")
    group.add_argument("--host-model", default=None, metavar="NAME",
                       help="the host of the card, where no calibration says what it takes: one that ships, or a .toml "
                            f"file (default {HOST})")
    group.add_argument("--calibration", default=None, metavar="FILE",
                       help="what `barista calibrate` measured: for a card what its host takes, for the board emulated "
                            "everything (default there: what it kept last)")
    group.add_argument("--precision", default=["fp32"], type=comma_list, metavar="A,B",
                       help="number formats that the plan may compute in (default fp32)")
    group = parser.add_argument_group("the plan")
    group.add_argument("--out", default="schedule.json", metavar="FILE",
                       help="the schedule to write (default schedule.json)")
    group.add_argument("--plot", default=None, metavar="FILE",
                       help="draw what each pass takes on each engine into this file (.png, .svg, .pdf)")


def run(args: argparse.Namespace) -> None:
    """Plan one network."""
    require_out(args.out)
    if args.plot is not None:
        from .plot import require_plot

        require_plot(args.plot)
    board = load_board(args.board)
    manifests = usable(args, board)
    net = open_planning_net(args)
    workloads = net_workloads(net)
    batch = one_batch(workloads, net.name)
    costs = estimate(args, workloads, manifests, board)
    plan = select(workloads, costs.candidates, costs.reconfiguration_s)
    others = alternatives(workloads, costs.candidates, costs.reconfiguration_s)
    notes = [*costs.notes, ""] if costs.notes else []
    print("\n".join((*notes, *table(plan), "", *summary(plan, others))))
    plan.schedule(net.name, batch).save(args.out)
    logger.info("Schedule written to %s", args.out)
    if args.plot is not None:
        from .plot import plot_plan

        plot_plan(plan, costs.candidates, f"{net.name}, batch {batch}, on {board.name}", args.plot)
        logger.info("Plan drawn in %s", args.plot)


def require_out(path: str) -> None:
    """Make sure that the schedule can be written, before anything is planned.

    Raises
    ------
    ScheduleError : no such folder, a folder itself, or a place that may not be written
    """
    if problem := why_unwritable(path):
        raise ScheduleError(f"--out {path}{problem}")


def usable(args: argparse.Namespace, board: Board) -> dict[str, Manifest]:
    """The manifests of the library that are for the board, in a precision that is allowed.

    Raises
    ------
    BitstreamError : no bitstream there, one for another board, or none of that precision
    """
    library = Library(Path(args.bitstreams))
    library.drop_simulated("barista plan")
    library.drop_whole("barista plan")
    for bitstream in library.bitstreams.values():
        bitstream.require_board(board.name)
    manifests = {name: bitstream.manifest for name, bitstream in library.bitstreams.items()}
    kept = require_usable(manifests, args.precision, str(library.folder))
    for name in sorted(set(manifests) - set(kept)):
        logger.info("%s is left out: it computes in %s; --precision allows it", name, manifests[name].precision)
    return kept


def estimate(args: argparse.Namespace, workloads: list[Workload], manifests: Mapping[str, Manifest],
             board: Board) -> CostTable:
    """What each pass takes on each engine: from figures of the board and its host, or from a calibration.

    Raises
    ------
    UnsupportedError : a figure that is missing, or a device, bitstream or number format that was not calibrated
    DataError : the calibration cannot be read
    """
    if board.is_emulated:
        if args.host_model is not None:
            logger.warning("--host-model has no effect: all costs on the board %s are calibrated", board.name)
        figures = _measured(args.calibration, manifests)
        logger.info("Costs from the calibration of %s with %d thread(s)", figures.device, figures.threads)
        return calibrated_costs(workloads, manifests, figures)
    host = load_host(args.host_model or HOST)
    if args.calibration is None:
        logger.info("Costs from the figures of board %s and host %s", board.name, host.name)
        return card_costs(workloads, manifests, board, host)
    figures = calibration.load(args.calibration)
    if args.host_model is not None and figures.cpu is not None:
        logger.warning("--host-model has no effect: the calibration says what the host takes")
    logger.info("Costs from the figures of board %s; what its host takes from the calibration %s with %d thread(s)",
                board.name, args.calibration, figures.threads)
    return card_costs(workloads, manifests, board, host, figures)


def _measured(path: str | None, manifests: Mapping[str, Manifest]) -> EngineFigures:
    """The calibration of the file, or what was kept of the device that the bitstreams are for.

    Raises
    ------
    BitstreamError : the bitstreams are for several devices
    UnsupportedError : their device was not calibrated, or the file is of another device
    DataError : the file cannot be read
    """
    devices = sorted({manifest.device for manifest in manifests.values()} - {""})
    if len(devices) > 1:
        raise BitstreamError(f"the bitstreams are for several devices: {'; '.join(devices)}; build them for one")
    if path is None:
        return calibration.find(devices[0] if devices else None)
    figures = calibration.load(path)
    if devices and devices[0] != figures.device:
        raise UnsupportedError(f"{path} is the calibration of {figures.device}, the bitstreams are for {devices[0]}; "
                               "calibrate that device, or build the bitstreams again")
    return figures


def table(plan: Plan) -> Iterator[str]:
    """The plan, a line for each layer and pass, aligned."""
    rows = [["layer", "pass", "engine", "bitstream", "im2col", "ms", "runner-up", "costs ms more"]]
    for choice in plan.choices:
        chosen, other = choice.candidate, choice.runner_up
        rows.append([choice.workload.layer, choice.workload.pass_.value, chosen.engine, chosen.bitstream or "-",
                     chosen.im2col or IM2COL[chosen.engine][0], number(1e3 * choice.times * chosen.seconds),
                     *((other.name, number(1e3 * choice.runner_up_costs_s)) if other is not None else ("-", "-"))])
    numbers = {rows[0].index("ms"), rows[0].index("costs ms more")}
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) if column in numbers else cell.ljust(width)
                        for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()


def summary(plan: Plan, others: Mapping[str, Plan]) -> Iterator[str]:
    """What an iteration takes, and what the plan gains over simpler ones."""
    yield (f"Convolutions of an iteration: {number(1e3 * plan.total_s)} ms, of which "
           f"{number(1e3 * plan.reconfiguration_s)} ms load bitstreams ({counted(plan.swaps, 'swap')})")
    for name, other in others.items():
        used = next((choice.candidate.bitstream for choice in other.choices if choice.candidate.bitstream), "")
        which = f" ({used})" if used else ""
        yield f"{name}{which}: {number(1e3 * other.total_s)} ms{_gain(plan, other)}"


def _gain(plan: Plan, other: Plan) -> str:
    """How much faster the plan is than another, in words."""
    if [choice.candidate.name for choice in plan.choices] == [choice.candidate.name for choice in other.choices]:
        return "; the plan is the same"
    gain = f"{other.total_s / plan.total_s:.3g}" if plan.total_s else "1"
    return "; the plan takes as long" if gain == "1" else f"; the plan is {gain} times as fast"
