"""``barista plan``: where each pass of each convolution is computed best, as a schedule that ``train`` executes."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import BitstreamError, UnsupportedError
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
from .planning import add_planning, net_workloads, open_planning_net

logger = logging.getLogger(__name__)

DESCRIPTION = """Plan where the passes of a network's convolutions are computed: on the CPU, on an OpenCL device, or on
which bitstream of a library. The plan is the one with the least time of a training iteration, the loading of bitstreams
included. It is written as a schedule, which `barista train --backend fpga --schedule FILE` executes.

The costs on a card come from the figures of the board and its host; those on the board 'emulated' from what `barista
calibrate` measured."""

EXAMPLES = """  barista plan --model train_val.prototxt --bitstreams bitstreams --board u250 --out schedule.json
  barista plan --model train_val.prototxt --input-shape 3,32,32 --bitstreams bitstreams --board emulated"""

HOST = "xeon_e5_2686v4"


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_planning(parser)
    group = parser.add_argument_group("what computes")
    group.add_argument("--bitstreams", required=True, metavar="DIR", help="folder of bitstreams, or one bitstream")
    group.add_argument("--board", required=True, metavar="NAME",
                       help="the board that they are for: one that ships, or a .toml file")
    group.add_argument("--host-model", default=HOST, metavar="NAME",
                       help=f"the host of the card: one that ships, or a .toml file (default {HOST})")
    group.add_argument("--calibration", default=None, metavar="FILE",
                       help="what `barista calibrate` measured (default, for the board emulated: what it kept last)")
    group.add_argument("--precision", default=["fp32"], type=comma_list, metavar="A,B",
                       help="number formats that the plan may compute in (default fp32)")
    group = parser.add_argument_group("the plan")
    group.add_argument("--out", default="schedule.json", metavar="FILE",
                       help="the schedule to write (default schedule.json)")
    group.add_argument("--plot", default=None, metavar="FILE",
                       help="draw what each pass takes on each engine into this file (.png, .svg, .pdf)")


def run(args: argparse.Namespace) -> None:
    """Plan one network."""
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
    print("\n".join((*table(plan), "", *summary(plan, others, costs))))
    plan.schedule(net.name, batch).save(args.out)
    logger.info("Schedule written to %s", args.out)
    if args.plot is not None:
        from .plot import plot_plan

        plot_plan(plan, costs.candidates, f"{net.name}, batch {batch}, on {board.name}", args.plot)
        logger.info("Plan drawn in %s", args.plot)


def usable(args: argparse.Namespace, board: Board) -> dict[str, Manifest]:
    """The manifests of the library that are for the board, in a precision that is allowed.

    Raises
    ------
    BitstreamError : no bitstream there, one for another board, or none of that precision
    """
    library = Library(Path(args.bitstreams))
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
    UnsupportedError : a figure that is missing, or a device or bitstream that was not calibrated
    DataError : the calibration cannot be read
    """
    if args.calibration is not None or board.is_emulated:
        figures = _measured(args.calibration, manifests)
        logger.info("Costs from the calibration of %s with %d thread(s)", figures.device, figures.threads)
        return calibrated_costs(workloads, manifests, figures)
    host = load_host(args.host_model)
    logger.info("Costs from the figures of board %s and host %s", board.name, host.name)
    return card_costs(workloads, manifests, board, host)


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
                     IM2COL[chosen.engine], f"{1e3 * choice.times * chosen.seconds:.4g}",
                     *((other.name, f"{1e3 * choice.runner_up_costs_s:.4g}") if other is not None else ("-", "-"))])
    numbers = {rows[0].index("ms"), rows[0].index("costs ms more")}
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) if column in numbers else cell.ljust(width)
                        for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()


def summary(plan: Plan, others: Mapping[str, Plan], costs: CostTable) -> Iterator[str]:
    """What an iteration takes, what the plan gains over simpler ones, and what was not counted."""
    yield (f"Convolutions of an iteration: {1e3 * plan.total_s:.4g} ms, of which {1e3 * plan.reconfiguration_s:.4g} ms "
           f"load bitstreams ({plan.swaps} swap(s))")
    for name, other in others.items():
        used = next((choice.candidate.bitstream for choice in other.choices if choice.candidate.bitstream), "")
        which = f" ({used})" if used else ""
        gain = f"; the plan is {other.total_s / plan.total_s:.3g} times as fast" if plan.total_s else ""
        yield f"{name}{which}: {1e3 * other.total_s:.4g} ms{gain}"
    yield from costs.notes
