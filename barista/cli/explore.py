"""``barista explore``: which designs of an array suit a network: one each, one for all, and few for all."""

from __future__ import annotations

import argparse
import csv
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ScheduleError, UnsupportedError
from ..files import why_unwritable
from ..hardware.board import Board, load_board
from ..hardware.host import Host, load_host
from ..hardware.resources import DSP_FIXED, DSP_FLOAT
from ..latency.conv_model import ConvAssumptions
from ..latency.gemm_model import PADDINGS, PRODUCTS, GemmAssumptions
from ..precision.formats import number_format
from ..schedule.explore import OBJECTIVES, Choice, Explorer, Power, Space, conv_space, gemm_space
from ..schedule.merge import LIMITS as TRIED
from ..schedule.rows import UNITS, Row, rows_of
from ..schedule.search import Found
from ..schedule.space import KINDS, Grid, Limits
from ..schedule.table import Group
from .arguments import Parser, at_least
from .numbers import above, counted, number
from .planning import add_planning, net_workloads, open_planning_net
from .progress import progress
from .proposal import propose

logger = logging.getLogger(__name__)

DESCRIPTION = """Explore the designs of an array for a network on a board, with no device: the best design of each
convolution, the best single one, and the best few, beside what the thesis's heuristic finds. Two arrays are known:
Barista's, which multiplies tiles (--kind gemm), and FPGPT's, which takes whole convolutions (--kind conv)."""

EXAMPLES = """  barista explore --model train_val.prototxt --input-shape 3,224,224 --board u250 --kind gemm
  barista explore --model train_val.prototxt --board u250 --kind conv --max-penalty 10% --csv designs.csv
  barista explore --model train_val.prototxt --board u250 --max-bitstreams 2 --schedule schedule.json
  barista explore --model train_val.prototxt --board vu9p_f1 --grid tr=4:48:4,tc=4:48:4,tp=16:256:16"""

# Designs of a set where nothing else is asked for.
COUNT = 4
LIMITS = ("card", "region")
# Rates of what a host does for a design of gemm, to how it is called.
HOST_RATES = {"tiling_bytes_per_s": "tiling", "untiling_bytes_per_s": "untiling"}

# Objective to the unit that tables show, how many of them a second or a joule is, and what operations are divided by.
UNIT = {"latency": ("ms", 1e3, "GOPS"), "energy": ("J", 1.0, "GOPS/W")}


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_planning(parser)
    group = parser.add_argument_group("the designs")
    group.add_argument("--board", required=True, metavar="NAME",
                       help="the board to build for: one that ships, or a .toml file")
    group.add_argument("--kind", default="gemm", choices=tuple(KINDS),
                       help="gemm, Barista's array, or conv, FPGPT's (default gemm)")
    group.add_argument("--grid", default="", metavar="AXES",
                       help="sizes to try, NAME=FIRST:LAST:STEP separated by ',': tr, tc and tp of gemm, where tc=tr "
                            "makes square tiles; x and y of conv, with pe for their product (default "
                            "tr=4:64:4,tc=tr,tp=2:512:2 and x=1:341,y=1:96,pe=4:4096)")
    group.add_argument("--limits", default=None, choices=LIMITS,
                       help="what a design may take: the card, or one of its regions (default: gemm the card, conv a "
                            "region where the board has some, as the thesis does)")
    group.add_argument("--precision", default="fp32", metavar="NAME",
                       help="fp32, dfxp8, dfxp12, dfxp14 or dfxp16 (default fp32)")
    group.add_argument("--dsp-per-element", default=None, type=at_least(1), metavar="N",
                       help=f"multiplier blocks of an element of the array (default {DSP_FLOAT}, and {DSP_FIXED} for "
                            "fixed point)")
    group = parser.add_argument_group("what a design costs")
    group.add_argument("--objective", default="latency", choices=OBJECTIVES, help="what to save (default latency)")
    group.add_argument("--host-model", default=None, metavar="NAME",
                       help="gemm: count tiling on this host too, as far as it has rates: one that ships, or a .toml "
                            "file")
    group.add_argument("--padding", default="once", choices=PADDINGS,
                       help="gemm: what is transferred: the matrices (none, as the thesis has it), results in whole "
                            "tiles (output), all in whole tiles (once, as --backend fpga does), or those both ways "
                            "(tiles) (default once)")
    group.add_argument("--products", default="batched", choices=PRODUCTS,
                       help="gemm: a product for each image, as the thesis has it, or for several at once, as "
                            "--backend fpga does (default batched)")
    group.add_argument("--overlap", action="store_true", help="transfers run beside the kernel")
    group = parser.add_argument_group("the choice")
    group.add_argument("--per", default="pass", choices=UNITS,
                       help="what gets designs: each pass of a convolution, or each layer (default pass)")
    few = group.add_mutually_exclusive_group()
    few.add_argument("--max-bitstreams", default=None, type=at_least(1), metavar="N",
                     help=f"the best set of at most N designs (default {COUNT})")
    few.add_argument("--max-penalty", default=None, type=share, metavar="P",
                     help="the fewest designs with which nothing costs more than P above its own best, such as 10%% or "
                          "0.1")
    group = parser.add_argument_group("files")
    group.add_argument("--csv", default=None, metavar="FILE", help="write the table of designs into this file")
    group.add_argument("--schedule", default=None, metavar="FILE",
                       help="write the set as a schedule, which `barista bitstream configure --from-schedule` builds "
                            "and `barista train --schedule` executes")
    group.add_argument("--plot", default=None, metavar="FILE",
                       help="draw the cost of the best sets of 1 design and more into this file (.png, .svg, .pdf)")


def share(text: str) -> float:
    """Read ``10%`` or ``0.1``.

    Raises
    ------
    argparse.ArgumentTypeError : no number, below 0, or above 1 without a %, which may mean either
    """
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 10% or 0.1") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no penalty; give 0 or more")
    if value > 1 and not text.endswith("%"):
        raise argparse.ArgumentTypeError(f"{text} as a share is {100 * value:g} %; write {text}% or {100 * value:g}%, "
                                         "whichever is meant")
    return value


def run(args: argparse.Namespace) -> None:
    """Explore one network."""
    if args.plot is not None:
        from .plot import require_plot

        require_plot(args.plot)
    if args.schedule is not None and (problem := why_unwritable(args.schedule)):
        raise ScheduleError(f"--schedule {args.schedule}{problem}")
    board = load_board(args.board)
    grid = Grid.parse(args.kind, args.grid)
    net = open_planning_net(args)
    workloads = net_workloads(net)
    if not workloads:
        raise UnsupportedError(f"{net.name} has no convolution to explore designs for")
    rows = rows_of(workloads, args.per)
    steps = sum(len(row.workloads) for row in rows) + (len(TRIED) if args.max_penalty is None else 0)
    with progress(steps, "explore", args.quiet) as bar:
        space = open_space(args, rows, grid, board, bar.update)
        explorer = Explorer(space, bar.update)
        choice = (explorer.within(args.max_penalty) if args.max_penalty is not None
                  else explorer.best_set(args.max_bitstreams or COUNT))
    for row, reason in space.homeless:
        logger.warning("%s is left out: no design holds it: %s", ", ".join(row.names), reason)
    report = Report(explorer, choice, args.objective, board)
    print("\n".join((*report.table(), "", *report.summary(), *notes(args, grid, board, choice.found))))
    if args.csv is not None:
        report.write(args.csv)
        logger.info("Designs written to %s", args.csv)
    if args.schedule is not None:
        schedule = propose(net.name, workloads, args.per, space, choice.found.grouping, args.precision, board)
        schedule.save(args.schedule)
        logger.info("Schedule of %s written to %s", counted(len(schedule.bitstreams), "bitstream"), args.schedule)
    if args.plot is not None:
        from .plot import plot_designs

        unit, factor, _ = UNIT[args.objective]
        ours, thesis, bounds = report.curve(args.max_bitstreams)
        plot_designs(ours, thesis, bounds, factor * explorer.own.cost, unit, f"{net.name} on {board.name}, {args.kind}",
                     args.plot)
        logger.info("Costs drawn in %s", args.plot)


def scope_of(args: argparse.Namespace, board: Board) -> str:
    """What a design may take: what the option says, else as the thesis has it."""
    return args.limits or ("region" if args.kind == "conv" and board.regions is not None else "card")


def open_space(args: argparse.Namespace, rows: list[Row], grid: Grid, board: Board,
               done: Callable[[], object]) -> Space:
    """The space of the command line's options.

    Raises
    ------
    UnsupportedError : no legal design, or a figure that the board or the host lacks
    """
    limits = Limits.of(board, scope_of(args, board))
    fixed = number_format(args.precision).is_fixed
    dsp = args.dsp_per_element or (DSP_FIXED if fixed else DSP_FLOAT)
    points = grid.points()
    if args.kind == "conv":
        board.need("bram18", "exploring --kind conv")
        power = Power(board.power_w) if args.objective == "energy" else None
        conv = ConvAssumptions.of(board, args.precision, overlap=args.overlap)
        return conv_space(rows, points, limits, conv, dsp, power, done)
    host = None if args.host_model is None else load_host(args.host_model)
    gemm = GemmAssumptions.of(board, args.precision, padding=args.padding, overlap=args.overlap,
                              **host_rates(host, board))
    power = Power(board.power_w, 0.0 if host is None else host.power_w) if args.objective == "energy" else None
    return gemm_space(rows, points, limits, gemm, dsp, power, args.products, done)


def host_rates(host: Host | None, board: Board) -> dict[str, float]:
    """The rates of tiling and untiling that a host has and the board does not have for its own."""
    rates = {name: getattr(host, name, None) for name in HOST_RATES if getattr(board, name) is None}
    return {name: rate for name, rate in rates.items() if rate is not None}


def notes(args: argparse.Namespace, grid: Grid, board: Board, found: Found) -> Iterator[str]:
    """Which designs were looked at and how to look at others, and what their costs leave out."""
    scope = scope_of(args, board)
    other = "card" if scope == "region" else "region"
    more = ["--grid widens it"]
    if args.kind == "gemm" and grid.ties.get("tc") == "tr":
        more.append("tc=4:64:4 in it makes tiles that are not square")
    if other == "card" or board.regions is not None:
        more.append(f"--limits {other} takes {'all of the card' if other == 'card' else 'one of its regions'}")
    yield f"Limits: {Limits.of(board, scope).name}; grid {grid} ({'; '.join(more)})"
    if args.kind == "conv":
        if args.host_model is not None:
            yield "--host-model has no effect: FPGPT's array takes whole convolutions, and no host cuts them into tiles"
        if not found.is_optimal:
            yield ("The set is the best that the search came across, not proved the best: another --grid, even a "
                   "smaller one, may lead it to a better set")
        return
    host = None if args.host_model is None else load_host(args.host_model)
    rates = host_rates(host, board)
    unknown = [stage for name, stage in HOST_RATES.items() if getattr(board, name) is None and name not in rates]
    why = ""
    if unknown:
        where = (f"board {board.name}" if host is None else f"neither board {board.name} nor host {host.name}")
        why = (f", and {' and '.join(unknown)}, for which {where} has {'no' if host is None else 'a'} rate: "
               "--host-model FILE with a host file of your own counts them")
    yield f"Not counted: im2col on the host, the same for every design{why}"


class Line(NamedTuple):
    """What is said of a row; costs in the objective's unit, of one execution.

    Parameters
    ----------
    row : the passes
    best, best_cost : its best design
    single, single_cost : the best single design for all rows, None where there is none
    chosen, chosen_cost : its design of the set
    """

    row: Row
    best: str
    best_cost: float
    single: str | None
    single_cost: float | None
    chosen: str
    chosen_cost: float


class Report:
    """What is said of an exploration."""

    def __init__(self, explorer: Explorer, choice: Choice, objective: str, board: Board) -> None:
        self._explorer, self._space, self._choice = explorer, explorer.space, choice
        self._objective, self._board = objective, board
        self._unit, self._factor, self._rate = UNIT[objective]

    def lines(self) -> Iterator[Line]:
        """What is said of each row."""
        space, single = self._space, self._explorer.single
        in_single = {} if single is None else self._costs(single)
        chosen = {row: (group, cost) for group in self._choice.found.grouping.groups
                  for row, cost in self._costs(group).items()}
        for index, row in enumerate(space.rows):
            group, cost = chosen[index]
            yield Line(row, space.design(int(space.table.best[index])), self._factor * float(space.table.least[index]),
                       None if single is None else space.design(single.column), in_single.get(index),
                       space.design(group.column), cost)

    def table(self) -> Iterator[str]:
        """The lines as text, aligned."""
        cells = [["", f"best {self._space.sizes}", self._unit, self._rate, "on the single one", "in the set", ""]]
        for line in self.lines():
            more = len(line.row.names) - 1
            cells.append([line.row.names[0] + (f" and {more} more" if more else ""), line.best,
                          number(line.best_cost), number(self._rate_of(line.row.ops, line.best_cost)),
                          "-" if line.single_cost is None else above(line.single_cost, line.best_cost),
                          line.chosen, above(line.chosen_cost, line.best_cost)])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        texts = (0, 1, 5)
        for row in cells:
            yield "  ".join(cell.ljust(width) if column in texts else cell.rjust(width)
                            for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()

    def write(self, path: str) -> None:
        """Write the lines as CSV, costs with all their digits."""
        unit = self._unit.lower()
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["names", "count", "ops", "best", f"best_{unit}", "single", f"single_{unit}", "set",
                             f"set_{unit}", "set_penalty"])
            for line in self.lines():
                writer.writerow([";".join(line.row.names), len(line.row.names), line.row.ops, line.best,
                                 line.best_cost, line.single, line.single_cost, line.chosen, line.chosen_cost,
                                 line.chosen_cost / line.best_cost - 1])

    def summary(self) -> Iterator[str]:
        """The costs of an iteration where each row has its own design, where all have one, and on the set."""
        space, own, single = self._space, self._explorer.own, self._explorer.single
        found, thesis = self._choice.found, self._choice.thesis
        count = len(found.grouping.groups)
        yield f"Designs: {space.exclusions}; {len(space.table.sizes):,} legal"
        yield f"Each on its own best design ({counted(len(own.groups), 'design')}): {self._said(own.cost)}"
        yield ("Best single design: none holds all" if single is None else
               f"Best single design {space.design(single.column)}: {self._said(single.cost, own.cost)}")
        proof = ("no set is better" if found.is_optimal else
                 f"no set of {count} takes less than {number(self._factor * found.bound)} {self._unit}")
        yield f"Best set found, of {count}: {self._said(found.grouping.cost, own.cost)}; {proof}"
        for group in found.grouping.groups:
            yield f"  {space.design(group.column):<12} {self._members(group)}"
        yield ("The thesis's heuristic: no set as small" if thesis is None else
               f"The thesis's heuristic, {counted(len(thesis.groups), 'design')}: {self._said(thesis.cost, own.cost)}")

    def curve(self, most: int | None) -> tuple[list[float], list[float], list[float]]:
        """Costs of the best sets of 1 design and more: ours, the thesis's, what none can beat; NaN where none holds.

        Parameters
        ----------
        most : designs of the largest set; None for those of the set that was found
        """
        rows: list[tuple[float, float, float]] = []
        for count in range(1, (most or max(COUNT, len(self._choice.found.grouping.groups))) + 1):
            try:
                choice = self._explorer.best_set(count)
            except UnsupportedError:  # fewer designs than hold all convolutions
                rows.append((math.nan,) * 3)
                continue
            thesis = math.nan if choice.thesis is None else choice.thesis.cost
            rows.append((choice.found.grouping.cost, thesis, choice.found.bound))
        ours, heuristic, bounds = ([self._factor * cost for cost in column] for column in zip(*rows, strict=True))
        return ours, heuristic, bounds

    def _costs(self, group: Group) -> dict[int, float]:
        """What each row of a group costs."""
        costs = self._space.table.together(group.members, slice(group.column, group.column + 1))[:, 0]
        return {row: self._factor * float(cost) for row, cost in zip(group.members, costs, strict=True)}

    def _rate_of(self, ops: int, cost: float) -> float:
        return ops / (cost / self._factor) / 1e9

    def _said(self, cost: float, least: float | None = None) -> str:
        """The cost of an iteration, what it performs, and how much it is above the least."""
        ops = sum(row.ops * len(row.names) for row in self._space.rows)
        rates = f"{number(ops / cost / 1e9)} {self._rate}"
        if self._objective == "latency":
            rates += f", {number(ops / cost / self._board.power_w / 1e9)} GOPS/W"
        more = "" if least is None else f", {above(cost, least)}"
        return f"{number(self._factor * cost)} {self._unit} ({rates}{more})"

    def _members(self, group: Group) -> str:
        """The names in a group, those that cost most first."""
        rows = sorted(group.members, key=lambda row: -self._space.table.weighted[row, group.column])
        names = [name for row in rows for name in self._space.rows[row].names]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
