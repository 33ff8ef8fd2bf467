"""Charts of what the commands measure."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DataError, MissingExtraError
from ..files import why_unwritable
from ..ops.base import StageSeconds
from ..schedule.selector import Candidate, Key, Plan, key_of
from .numbers import number
from .stages import TITLES, present

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue for the kernel, green for transfers and orange for tiling, as the thesis has them.
_COLOURS = {"loading": "#e15759", "im2col": "#bab0ac", "tiling": "#f28e2b", "write": "#59a14f", "kernel": "#4e79a7",
            "read": "#8cd17d", "untiling": "#ffbe7d", "processor": "#76b7b2"}


# A row of a chart whose bar would be shorter than this part of the longest is left out.
_SHORTEST = 1e-3
_ROW_INCHES, _TALLEST_INCHES = 0.28, 24.0
_POINTS_AN_INCH = 72


def require_plot(path: str | os.PathLike[str], option: str = "--plot") -> None:
    """Make sure that a chart can be drawn into a file, before anything is measured for it.

    Parameters
    ----------
    path : the file
    option : of the command line, that names it

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    DataError : an ending that says no format, or a place that cannot be written to
    """
    new_figure(1, option)
    from matplotlib.backend_bases import FigureCanvasBase

    name, formats = os.fspath(path), sorted(FigureCanvasBase.get_supported_filetypes())
    ending = os.path.splitext(name)[1].removeprefix(".").lower()
    if ending not in formats:
        raise DataError(f"{option} {name}: the ending {ending!r} says no format of a chart; give one of "
                        f"{', '.join(formats)}")
    if problem := why_unwritable(name):
        raise DataError(f"{option} {name}{problem}")


def plot_stages(stages: StageSeconds, title: str, path: str | os.PathLike[str]) -> None:
    """Draw a stacked bar for each layer and pass that takes some time, in milliseconds.

    Parameters
    ----------
    stages : seconds by layer and pass, and stage
    title : text above the chart
    path : file to write; its ending (.png, .svg, .pdf) says the format

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    DataError : the file cannot be written
    """
    sums = {key: sum(seconds.values()) for key, seconds in stages.items()}
    rows = [key for key in stages if sums[key] > _SHORTEST * max(sums.values())]
    figure = new_figure(len(rows))
    axes = figure.add_subplot()
    ends = [0.0] * len(rows)
    for stage in present({key: stages[key] for key in rows}):
        # A bar of no width would hold the axis' end where it stands, and take the margin behind it.
        bars = [(row, 1e3 * stages[key][stage]) for row, key in enumerate(rows) if stages[key].get(stage, 0.0) > 0]
        axes.barh([row for row, _ in bars], [width for _, width in bars], left=[ends[row] for row, _ in bars],
                  color=_COLOURS[stage], label=TITLES.get(stage, stage))
        for row, width in bars:
            ends[row] += width
    axes.set_yticks(range(len(rows)), [f"{layer} {pass_}" for layer, pass_ in rows])
    _from_above(axes, figure, len(rows))
    axes.set_xlabel("ms per iteration")
    axes.set_title(title, fontsize="small", wrap=True)
    if rows:
        axes.legend(fontsize="small")
    save_figure(figure, path)


def plot_plan(plan: Plan, candidates: Mapping[Key, Sequence[Candidate]], title: str,
              path: str | os.PathLike[str]) -> None:
    """Draw a line for each layer and pass with a mark for what each candidate takes, and a ring around the chosen one.

    Parameters
    ----------
    plan, candidates : the plan, and what it chose from
    title : text above the chart
    path : file to write; its ending (.png, .svg, .pdf) says the format

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    DataError : the file cannot be written
    """
    labels = [choice.workload.name for choice in plan.choices]
    figure = new_figure(len(labels))
    axes = figure.add_subplot()
    axes.plot([1e3 * choice.times * choice.candidate.seconds for choice in plan.choices], labels, "o",
              color="#555555", fillstyle="none", markersize=13, markeredgewidth=1.5, label="the plan")
    for name in dict.fromkeys(way.name for ways in candidates.values() for way in ways):
        points = [(1e3 * choice.times * way.seconds, choice.workload.name) for choice in plan.choices
                  for way in candidates[key_of(choice.workload)] if way.name == name]
        axes.plot(*zip(*points, strict=True), "o", label=name)
    _from_above(axes, figure, len(labels))
    axes.set_ylim(len(labels) - 0.3, -0.7)
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.grid(axis="y", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.set_xlabel("ms per iteration")
    axes.set_title(title, fontsize="small", wrap=True)
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    save_figure(figure, path)


def plot_designs(ours: Sequence[float], thesis: Sequence[float], bounds: Sequence[float], own: float, unit: str,
                 title: str, path: str | os.PathLike[str]) -> None:
    """Draw what an iteration costs on the best sets of 1 design and more (thesis, Fig. 5.14).

    Parameters
    ----------
    ours, thesis, bounds : cost by number of designs: the search's, that of the thesis's heuristic, and what no set can
        beat; NaN where no set holds everything
    own : cost where each convolution has its own design
    unit : of the costs
    title : text above the chart
    path : file to write; its ending (.png, .svg, .pdf) says the format

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    DataError : the file cannot be written
    """
    figure = new_figure(14)
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    counts = range(1, len(ours) + 1)
    drawn = [cost for costs in (ours, thesis, bounds) for cost in costs if math.isfinite(cost)]
    if unit == "ms" and max([own, *drawn]) >= 1e4:
        unit, ours, thesis, bounds, own = "s", *([cost / 1e3 for cost in costs] for costs in (ours, thesis, bounds)), (
            own / 1e3)
    for costs, label, style in ((thesis, "thesis's heuristic", _Style("#f28e2b", "s--", 5.0)),
                                (ours, "best found", _Style("#4e79a7", "o-", 6.0)),
                                (bounds, "no set costs less", _Style("#e15759", "_", 16.0))):
        if any(map(math.isfinite, costs)):
            axes.plot(counts, costs, style.line, color=style.colour, markersize=style.size, markeredgewidth=2.0,
                      label=label)
    axes.axhline(own, color="#bab0ac", zorder=1, label="each its own design")
    axes.set_xlim(0.5, len(ours) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(plain)
    axes.set_xlabel("designs")
    axes.set_ylabel(f"{unit} per iteration")
    axes.set_title(title, fontsize="small", wrap=True)
    axes.legend(fontsize="small")
    save_figure(figure, path)


class _Style(NamedTuple):
    """How a curve is drawn: the colour, matplotlib's line and mark, and the mark's size in points."""

    colour: str
    line: str
    size: float


def plain(value: float, place: float) -> str:
    """A tick as tables say numbers, without exponents or offsets; `place` is what matplotlib passes too."""
    return number(value) if value >= 0 else f"-{number(-value)}"


def _plain_ticks(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten of a logarithmic axis of x, none that stand too close."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())


def new_figure(rows: int, who: str = "--plot") -> Figure:
    """An empty figure with room for so many labelled rows.

    Raises
    ------
    MissingExtraError : matplotlib is not installed; `who` needs it
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", who) from None
    return Figure(figsize=(9, min(1.5 + _ROW_INCHES * rows, _TALLEST_INCHES)), layout="constrained")


def _from_above(axes: Axes, figure: Figure, rows: int) -> None:
    """Let rows go down from above, their names as small as the height of the figure demands."""
    room = 0.6 * _POINTS_AN_INCH * figure.get_figheight() / max(rows, 1)
    axes.tick_params(axis="y", labelsize=min(10.0, room))
    axes.margins(y=0.02)
    axes.invert_yaxis()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the ending of `path` says the format.

    Raises
    ------
    DataError : it cannot be written
    """
    try:
        figure.savefig(os.fspath(path), dpi=150)
    except (OSError, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: the chart cannot be written: {error}") from None
