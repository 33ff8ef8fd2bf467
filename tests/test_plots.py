"""Charts: which rows they have, room around them, and what stands in the way of drawing them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from barista.cli import plot
from barista.errors import DataError, MissingExtraError
from barista.latency.networks import network_workloads
from barista.ops.base import StageSeconds
from barista.schedule.selector import Candidate, key_of, select

pytest.importorskip("matplotlib", reason="the plot extra is not installed")

STAGES: StageSeconds = {
    ("data", "forward"): {"processor": 1e-9},
    ("conv1", "forward"): {"tiling": 0.002, "kernel": 0.003},
    ("conv1", "backward rest"): {"processor": 0.0},
    ("conv1", "grad_weight"): {"processor": 0.004, "kernel": 0.0},
}


def drawn(monkeypatch: pytest.MonkeyPatch, stages: StageSeconds) -> Any:
    """The figure of some stages."""
    figures: list[Any] = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.plot_stages(stages, "a title", "stages.png")
    return figures[0]


def test_a_chart_has_rows_only_for_what_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, STAGES).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1 forward", "conv1 grad_weight"]
    bars = sorted((bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in axes.patches)
    assert bars == [pytest.approx(bar) for bar in [(0, 0, 2), (0, 2, 3), (1, 0, 4)]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tiling", "kernel", "processor"]
    assert axes.get_xlabel() == "ms per iteration"
    # There is room behind the longest bar, and none before the first.
    assert axes.get_xlim() == (0, pytest.approx(5.25))


def test_a_chart_of_many_rows_is_no_taller_than_a_page_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    few = drawn(monkeypatch, {("conv", str(row)): {"kernel": 0.001} for row in range(20)})
    many = drawn(monkeypatch, {("conv", str(row)): {"kernel": 0.001} for row in range(1000)})
    assert few.get_figheight() < 8 and many.get_figheight() == 24
    sizes = [figure.axes[0].get_yticklabels()[0].get_fontsize() for figure in (few, many)]
    assert sizes[0] == 10 and sizes[1] * 1000 / 72 < 24


def designs(monkeypatch: pytest.MonkeyPatch, *curves: list[float], own: float = 9e5) -> Any:
    """The axes of the chart of some sets."""
    figures: list[Any] = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.plot_designs(*curves, own, "ms", "a title", "designs.png")
    figures[0].draw_without_rendering()
    return figures[0].axes[0]


def test_designs_are_drawn_in_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    nan = float("nan")
    axes = designs(monkeypatch, [nan, 1.05e6, 1.02e6], [nan] * 3, [nan, 1.0e6, 1.0e6])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "best found", "no set costs less", "each its own design"]
    assert axes.get_ylabel() == "s per iteration" and axes.yaxis.get_offset_text().get_text() == ""
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels and all(800 <= float(label.replace(",", "")) <= 1100 for label in labels)
    assert axes.get_xlim() == (0.5, 3.5)
    marks = {line.get_label(): (line.get_marker(), line.get_markersize()) for line in axes.lines}
    assert marks["no set costs less"] == ("_", 16.0)
    assert designs(monkeypatch, [9.0, 8.0], [9.5, 8.5], [9.0, 8.0], own=7.5).get_ylabel() == "ms per iteration"


def test_a_plan_has_rings_and_plain_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    workloads = network_workloads("lenet", 1)[:2]
    ways = [Candidate("cpu", 0.004), Candidate("opencl", 0.03)]
    candidates = {key_of(workload): ways for workload in workloads}
    figures: list[Any] = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.plot_plan(select(workloads, candidates, {}), candidates, "a title", "plan.png")
    figures[0].draw_without_rendering()
    axes = figures[0].axes[0]
    ring = next(line for line in axes.lines if line.get_label() == "the plan")
    assert ring.get_linestyle() == "None" and ring.get_fillstyle() == "none"
    assert list(ring.get_xdata()) == [4.0, 4.0]
    assert axes.get_ylim() == (pytest.approx(1.7), pytest.approx(-0.7)), "room around the first and the last row"
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert {"5", "10", "20"} <= set(shown) and not any("$" in text or "e" in text for text in shown)


def test_nothing_to_draw_is_an_empty_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, {("data", "forward"): {"processor": 0.0}}).axes[0].patches[:] == []


@pytest.mark.parametrize("name", ["stages.png", "stages.SVG", "there.pdf"])
def test_a_chart_that_can_be_drawn(tmp_path: Path, name: str) -> None:
    (tmp_path / "there.pdf").write_bytes(b"")
    plot.require_plot(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there.pdf"]


def test_a_place_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(DataError, match=r"--plot .*stages\.png: it may not be written; give another place"):
        plot.require_plot(tmp_path / "stages.png")
    assert asked == [(str(tmp_path), os.W_OK)]


def test_the_extra_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"--plot needs the package 'matplotlib'.*barista-caffe\[plot\]"):
        plot.require_plot(tmp_path / "no format")
