"""Charts of training runs: loss, accuracy and learning rate."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .plot import new_figure, plain, save_figure
from .training_log import Point, Row, TrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that can be told apart in print and by colour-blind readers (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
# A curve of more points than this is drawn faint, with its running mean over it.
_MANY, _MEAN_SHARE = 200, 0.02
# A curve whose values differ by a larger factor needs a logarithmic axis.
_DECADES = 20.0
_ROWS_OF_PANEL = 9
# Points of a line, and how many more the first of several runs gets.
_WIDTH, _WIDER = 1.5, 3.0
_LEGEND_INSIDE = 6


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve.

    Attributes
    ----------
    run : which of several logs
    phase : ``train`` or ``test``, or '' for the learning rate
    name : of the output
    points : in the order of the log
    """

    run: str
    phase: str
    name: str
    points: list[Point]


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves that share an axis.

    Attributes
    ----------
    title : what is drawn, on the axis
    series : the curves
    logarithmic : whether the axis may be logarithmic
    """

    title: str
    series: list[Series]
    logarithmic: bool = False


def panels(logs: Sequence[TrainingLog]) -> list[Panel]:
    """Loss, the other outputs, and the learning rate of training runs; what no log has is left out."""
    runs = list(zip(_names([log.path for log in logs]), logs, strict=True))
    loss = [Series(run, "train", "loss", log.losses) for run, log in runs if log.losses]
    loss += [series for run, log in runs for series in _outputs(run, "test", log.test, True)]
    other = [series for run, log in runs for phase, rows in (("train", log.train), ("test", log.test))
             for series in _outputs(run, phase, rows, False)]
    rates = [Series(run, "", "learning rate", _held(log)) for run, log in runs if log.rates]
    names = list(dict.fromkeys(series.name for series in other))
    found = [Panel("loss", loss, True), Panel(names[0] if len(names) == 1 else "outputs", other),
             Panel("learning rate", rates, True)]
    return [panel for panel in found if panel.series]


def chart(number: int, logs: Sequence[TrainingLog]) -> tuple[Panel, str]:
    """What Caffe's plot_training_log draws as chart `number`, and along which axis (``iterations`` or ``seconds``).

    Raises
    ------
    DataError : no log has what the chart shows
    """
    title, pick, phase = _CHARTS[number // 2]
    along = "seconds" if number % 2 else "iterations"
    series = [series for panel in panels(logs) for series in panel.series
              if series.phase == phase and pick(series.name)]
    if not series:
        raise DataError(f"--chart {number} draws {title} against {along}, of which "
                        f"{', '.join(log.path for log in logs)} has nothing")
    return Panel(title, series, "accuracy" not in title), along


# Of Caffe's charts two in a row: against iterations and against seconds.
_CHARTS: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("test accuracy", lambda name: "accuracy" in name.lower(), "test"),
    ("test loss", lambda name: "loss" in name.lower(), "test"),
    ("learning rate", lambda name: True, ""),
    ("train loss", lambda name: "loss" in name.lower(), "train"))
CHARTS = [f"{2 * place + seconds} {title} against {'seconds' if seconds else 'iterations'}"
          for place, (title, _, _) in enumerate(_CHARTS) for seconds in (0, 1)]


def plot_panels(drawn: Sequence[Panel], along: str, title: str, path: str | os.PathLike[str]) -> None:
    """Draw panels one below the other along one axis.

    Parameters
    ----------
    along : ``iterations`` or ``seconds``
    title : text above the chart
    path : file to write; its ending (.png, .svg, .pdf) says the format

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    DataError : the file cannot be written
    """
    figure = new_figure(_ROWS_OF_PANEL * len(drawn), "plot_log")
    axes = figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0]
    for place, panel in zip(axes, drawn, strict=True):
        _draw(place, panel, along)
    axes[-1].set_xlabel(along)
    axes[0].set_title(title, fontsize="small", wrap=True)
    save_figure(figure, path)


def _draw(axes: Axes, panel: Panel, along: str) -> None:
    runs = list(dict.fromkeys(series.run for series in panel.series))
    names = list(dict.fromkeys(series.name for series in panel.series))
    kinds = list(dict.fromkeys((series.phase, series.name) for series in panel.series))
    for series in panel.series:
        xs = np.array([point.iteration if along == "iterations" else point.seconds for point in series.points], float)
        ys = np.array([point.value for point in series.points], float)
        kind = kinds.index((series.phase, series.name))
        colour = _COLOURS[(runs.index(series.run) if len(runs) > 1 else kind) % len(_COLOURS)]
        # With one run colours tell outputs apart; with several they tell runs apart, and dashes and marks outputs.
        dashes = ("-", "--", ":", "-.")[kind % 4] if len(runs) > 1 else "-"
        label = " ".join([*([series.run] if len(runs) > 1 else []), *([series.phase] if series.phase else []),
                          *([series.name] if len(names) > 1 else [])]) or series.name
        # The first run is the widest: of those that lie on each other each can be seen.
        width = _WIDTH + _WIDER * (len(runs) - 1 - runs.index(series.run)) / max(1, len(runs) - 1)
        mark = "os^Dv*"[kind % 6] if len(runs) > 1 else "o"
        marks = mark if series.phase == "test" and len(xs) <= _MANY else "." if len(xs) == 1 else ""
        if len(xs) > _MANY and series.phase == "train":
            axes.plot(xs, ys, color=colour, linewidth=0.4 * width, alpha=0.3)
            xs, ys = _running_mean(xs, ys)
        if panel.title == "learning rate":
            axes.step(xs, ys, dashes, where="post", color=colour, linewidth=width, label=label)
        else:
            axes.plot(xs, ys, dashes, color=colour, marker=marks, markersize=2.5 + width, linewidth=width, label=label)
    values = [point.value for series in panel.series for point in series.points if math.isfinite(point.value)]
    if panel.logarithmic and values and min(values) > 0 and max(values) > _DECADES * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plain)
    axes.set_ylabel(panel.title)
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    if len(panel.series) > 1:
        if len(panel.series) > _LEGEND_INSIDE:
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
        else:
            axes.legend(fontsize="small")


def _outputs(run: str, phase: str, rows: Sequence[Row], losses: bool) -> list[Series]:
    """A curve for each output, of each test net for itself, that is (or is not) part of the loss."""
    several = len({row.net for row in rows}) > 1
    found: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.outputs.items():
            if (name in row.losses) == losses:
                label = f"{name} (net {row.net})" if several else name
                found.setdefault(label, []).append(Point(row.iteration, row.seconds, value))
    return [Series(run, phase, name, points) for name, points in found.items()]


def _held(log: TrainingLog) -> list[Point]:
    """The rates, the last of which holds until the run ends: Caffe prints none there."""
    iteration, seconds = max([(point.iteration, point.seconds) for point in (*log.losses, *log.rates)]
                             + [(row.iteration, row.seconds) for row in (*log.train, *log.test)])
    last = log.rates[-1]
    return [*log.rates, Point(iteration, seconds, last.value)] if iteration > last.iteration else log.rates


def _names(paths: Sequence[str]) -> list[str]:
    """Short names of files: without their folders, where that tells them apart."""
    short = [os.path.basename(path) for path in paths]
    return short if len(set(short)) == len(short) else list(paths)


def _running_mean(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each few neighbours, at their middle."""
    width = max(3, int(_MEAN_SHARE * len(ys)))
    weights = np.full(width, 1.0 / width)
    return np.convolve(xs, weights, "valid"), np.convolve(ys, weights, "valid")
