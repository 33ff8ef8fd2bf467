"""Charts of what the commands measure."""

from __future__ import annotations

import os

from ..errors import DataError, MissingExtraError
from ..ops.base import StageSeconds
from .stages import TITLES, present

# Blue for the kernel, green for transfers and orange for tiling, as the thesis has them.
_COLOURS = {"loading": "#e15759", "im2col": "#bab0ac", "tiling": "#f28e2b", "write": "#59a14f", "kernel": "#4e79a7",
            "read": "#8cd17d", "untiling": "#ffbe7d", "processor": "#76b7b2"}


def plot_stages(stages: StageSeconds, title: str, path: str | os.PathLike[str]) -> None:
    """Draw a stacked bar for each layer and pass, in milliseconds.

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
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "--plot") from None
    labels = [f"{layer} {pass_}" for layer, pass_ in stages]
    figure = Figure(figsize=(9, 1.5 + 0.28 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    left = [0.0] * len(labels)
    for stage in present(stages):
        widths = [1e3 * seconds.get(stage, 0.0) for seconds in stages.values()]
        axes.barh(labels, widths, left=left, color=_COLOURS[stage], label=TITLES.get(stage, stage))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms an iteration")
    axes.set_title(title, fontsize="small", wrap=True)
    axes.legend(fontsize="small")
    try:
        figure.savefig(os.fspath(path), dpi=150)
    except (OSError, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: the chart cannot be written: {error}") from None
