"""Charts of what the commands measure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import DataError, MissingExtraError
from ..ops.base import StageSeconds
from ..schedule.selector import Candidate, Key, Plan, key_of
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


def require_plot(path: str | os.PathLike[str]) -> None:
    """Make sure that a chart can be drawn into a file, before anything is measured for it.

    Parameters
    ----------
    path : of ``--plot``

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    DataError : an ending that says no format, or a place that cannot be written to
    """
    _figure(1)
    from matplotlib.backend_bases import FigureCanvasBase

    name, formats = os.fspath(path), sorted(FigureCanvasBase.get_supported_filetypes())
    ending = os.path.splitext(name)[1].removeprefix(".").lower()
    if ending not in formats:
        raise DataError(f"--plot {name}: the ending {ending!r} says no format of a chart; give one of "
                        f"{', '.join(formats)}")
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise DataError(f"--plot {name}: there is no folder {folder}; make it, or give another")
    if os.path.isdir(name):
        raise DataError(f"--plot {name} is a folder; give the name of a file")
    if not os.access(name if os.path.exists(name) else folder, os.W_OK):
        raise DataError(f"--plot {name}: it may not be written; give another place")


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
    figure = _figure(len(rows))
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
    _save(figure, path)


def plot_plan(plan: Plan, candidates: Mapping[Key, Sequence[Candidate]], title: str,
              path: str | os.PathLike[str]) -> None:
    """Draw a line for each layer and pass with a mark for what each candidate takes; the chosen ones are joined.

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
    figure = _figure(len(labels))
    axes = figure.add_subplot()
    axes.plot([1e3 * choice.times * choice.candidate.seconds for choice in plan.choices], labels, color="#bab0ac",
              linewidth=4, label="the plan")
    for name in dict.fromkeys(way.name for ways in candidates.values() for way in ways):
        points = [(1e3 * choice.times * way.seconds, choice.workload.name) for choice in plan.choices
                  for way in candidates[key_of(choice.workload)] if way.name == name]
        axes.plot(*zip(*points, strict=True), "o", label=name)
    _from_above(axes, figure, len(labels))
    axes.set_xscale("log")
    axes.set_xlabel("ms per iteration")
    axes.set_title(title, fontsize="small", wrap=True)
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    _save(figure, path)


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
    figure = _figure(14)
    axes = figure.add_subplot()
    counts = range(1, len(ours) + 1)
    for costs, label, style in ((thesis, "thesis's heuristic", "s--"), (ours, "best found", "o-"),
                                (bounds, "no set costs less", "_")):
        axes.plot(counts, costs, style, label=label)
    axes.axhline(own, color="#bab0ac", label="each its own design")
    axes.set_xticks(list(counts))
    axes.set_xlabel("designs")
    axes.set_ylabel(f"{unit} per iteration")
    axes.set_title(title, fontsize="small", wrap=True)
    axes.legend(fontsize="small")
    _save(figure, path)


def _figure(rows: int) -> Figure:
    """An empty figure with room for so many labelled rows.

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "--plot") from None
    return Figure(figsize=(9, min(1.5 + _ROW_INCHES * rows, _TALLEST_INCHES)), layout="constrained")


def _from_above(axes: Axes, figure: Figure, rows: int) -> None:
    """Let rows go down from above, their names as small as the height of the figure demands."""
    room = 0.6 * _POINTS_AN_INCH * figure.get_figheight() / max(rows, 1)
    axes.tick_params(axis="y", labelsize=min(10.0, room))
    axes.margins(y=0.02)
    axes.invert_yaxis()


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    try:
        figure.savefig(os.fspath(path), dpi=150)
    except (OSError, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: the chart cannot be written: {error}") from None
