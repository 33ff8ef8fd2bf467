"""What `barista validate` found, as reports: which sentences, tables and charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..gemm.shapes import Pass
from ..latency.published import HOLD, RECORD, PublishedRow, Value
from ..latency.validation import Comparison, ErrorStatistics, grouped, statistics
from ..latency.vectors import VectorFile
from .report import Cell, Chart, Report, Table

_COLOURS = {Pass.FORWARD.value: "#4e79a7", Pass.GRAD_WEIGHT.value: "#f28e2b", Pass.GRAD_INPUT.value: "#59a14f"}
STAGE_COLOURS = {"im2col": "#bab0ac", "tiling": "#f28e2b", "write": "#59a14f", "kernel": "#4e79a7", "read": "#8cd17d",
                 "untiling": "#ffbe7d"}
_STATISTICS = ("count", "mean |error| %", "median %", "deviation %", "max %", "min %", "most optimistic %")


@dataclasses.dataclass(frozen=True)
class Goal:
    """Bounds on relative errors; None is no bound.

    Parameters
    ----------
    mean, median, largest : of absolute errors
    optimistic : how far a prediction may be below what was observed
    """

    mean: float | None = None
    median: float | None = None
    largest: float | None = None
    optimistic: float | None = None

    def missed(self, found: ErrorStatistics) -> list[str]:
        """Which bounds do not hold, in words."""
        pairs = (("mean", found.mean, self.mean), ("median", found.median, self.median),
                 ("largest", found.largest, self.largest),
                 ("most optimistic", max(0.0, -found.most_optimistic), self.optimistic))
        return [f"{name} {100 * value:.2f} % is above {100 * bound:g} %" for name, value, bound in pairs
                if bound is not None and not value <= bound]


# ---- reference values and published figures ---------------------------------------------------------------


def vectors_report(file: VectorFile) -> Report:
    """A file of reference values against what is computed."""
    differences = file.differences()
    compared = sum(file.given(row, column) is not None for row in range(len(file.rows)) for column in file.compared)
    lines = len({difference.line for difference in differences})
    if not compared:
        outcome = f"{file.path} gives no figures; {len(file.rows)} rows of {file.format.name} were computed."
    elif differences:
        outcome = (f"{lines} of {len(file.rows)} rows differ, in {len(differences)} of {compared} figures.")
    else:
        outcome = f"All {compared} figures in {len(file.rows)} rows of {file.format.name} agree."
    by_column: dict[str, int] = dict.fromkeys(file.compared, 0)
    for difference in differences:
        by_column[difference.column] += 1
    details = Table("Figures that differ", ("line", "column", "given", "computed", "relative difference"),
                    [(each.line, each.column, each.given, each.computed, each.relative) for each in differences])
    counts = Table("Rows that differ, by column", ("column", "rows"), list(by_column.items()))

    def draw(axes: Any) -> None:
        axes.barh(list(by_column), list(by_column.values()), color="#4e79a7")
        axes.invert_yaxis()
        axes.set_xlim(0, max(1, *by_column.values()) if by_column else 1)
        axes.set_xlabel(f"rows that differ, of {len(file.rows)}")

    return Report(f"{file.path.name} against the latency models", [outcome], [counts], details,
                  [Chart("Rows that differ, by column", draw)])


def published_report(rows: Sequence[PublishedRow]) -> Report:
    """Published figures against computed ones."""
    held = [row for row in rows if row.use == HOLD]
    reproduced = sum(row.reproduces for row in held)
    columns = ("what", "source", "published", "computed", "verdict", "assumptions")
    tables = [Table(title, columns, [(row.what, row.source, _values(row.published), _values(row.computed), row.verdict,
                                      row.assumptions) for row in rows if (row.use == HOLD) is held_rows])
              for title, held_rows in (("Figures that must be reproduced", True), ("Figures for the record", False))]
    details = Table("Value by value", ("use", "what", "source", "number", "published", "computed", "verdict"),
                    [(row.use, row.what, row.source, number, given, found, row.verdict) for row in rows
                     for number, (given, found) in enumerate(zip(row.published, row.computed, strict=True), start=1)])

    def points(use: str) -> list[tuple[float, float]]:
        return [(given, found) for row in rows if row.use == use
                for given, found in zip(row.published, row.computed, strict=True)
                if not isinstance(given, str) and not isinstance(found, str) and given > 0 and found > 0]

    def draw(axes: Any) -> None:
        _scatter(axes, (("for the record", "#bab0ac", points(RECORD)), ("must be reproduced", "#59a14f", points(HOLD))),
                 "published", "computed")

    return Report("The thesis's figures against the latency models",
                  [f"{reproduced} of {len(held)} figures that must be reproduced are.",
                   "Figures for the record do not follow from the printed equations under any reading tried; they are "
                   "shown with what the models compute, which is tuned to nothing."],
                  tables, details, [Chart("Computed against published", draw)])


def published_lines(rows: Sequence[PublishedRow]) -> Iterator[str]:
    """The figures as text: a paragraph each, since assumptions are long."""
    for row in rows:
        yield ""
        yield f"{row.verdict}: {row.what} ({row.source})"
        yield f"  published  {_values(row.published)}"
        yield f"  computed   {_values(row.computed)}"
        yield f"  assuming   {row.assumptions}"


def _values(values: Iterable[Value]) -> str:
    return "; ".join(each if isinstance(each, str) else f"{each:.4g}" if isinstance(each, float) else str(each)
                     for each in values)


# ---- errors of predictions --------------------------------------------------------------------------------


def errors_report(title: str, comparisons: Sequence[Comparison], goals: Mapping[tuple[str, str], Goal],
                  notes: Sequence[str] = (), charts: Sequence[Chart] = ()) -> Report:
    """Predictions against observations: errors by model, part and pass (thesis, Table 5.4 and Fig. 5.10).

    Parameters
    ----------
    goals : (model, part) to the bounds on its errors over all passes
    notes : sentences behind the summary
    charts : more of them
    """
    rows: list[tuple[Cell, ...]] = []
    summary = []
    for (model, part), some in grouped(comparisons, "model", "part").items():
        rows += [(model, part, pass_, *_cells(statistics(each)), None)
                 for (pass_,), each in grouped(some, "pass_").items()]
        found = statistics(some)
        missed = goals[model, part].missed(found) if (model, part) in goals else None
        verdict = None if missed is None else "missed: " + "; ".join(missed) if missed else "met"
        rows.append((model, part, "all", *_cells(found), verdict))
        if part == "total":
            summary.append(f"{model}: mean error {100 * found.mean:.2f} %, median {100 * found.median:.2f} %, worst "
                           f"{100 * found.largest:.2f} %, lowest {100 * found.most_optimistic:+.2f} %, over "
                           f"{found.count} comparisons" + (f"; goal {verdict}." if verdict else "."))
    by_model = {model: [each for each in some if each.part == "total"]
                for (model,), some in grouped(comparisons, "model").items()}
    details = Table("Every comparison",
                    ("model", "layer", "pass", "configuration", "part", "unit", "predicted", "observed", "error %"),
                    [(each.model, each.layer, each.pass_, each.configuration, each.part, each.unit, each.predicted,
                      each.observed, 100 * each.error) for each in comparisons])
    charts = [*charts, *(chart for model, some in by_model.items() for chart in _error_charts(model, some))]
    columns = ("model", "part", "pass", *_STATISTICS, "goal")
    return Report(title, [*summary, *notes], [Table("Errors by pass", columns, rows)], details, charts)


def _cells(found: ErrorStatistics) -> tuple[float, ...]:
    return (found.count, *(100 * value for value in dataclasses.astuple(found)[1:]))


def _error_charts(model: str, comparisons: Sequence[Comparison]) -> list[Chart]:
    passes = {pass_: some for (pass_,), some in grouped(comparisons, "pass_").items()}

    def histogram(axes: Any) -> None:
        axes.hist([[100 * each.error for each in some] for some in passes.values()], bins=24, stacked=True,
                  label=list(passes), color=[_COLOURS.get(pass_) for pass_ in passes])
        axes.axvline(0, color="#222", linewidth=0.8)
        axes.set_xlabel("(predicted - observed) / observed, %")
        axes.set_ylabel("passes")
        axes.legend(fontsize="small")

    def scatter(axes: Any) -> None:
        _scatter(axes, [(pass_, _COLOURS.get(pass_), [(each.observed, each.predicted) for each in some])
                        for pass_, some in passes.items()],
                 f"observed, {comparisons[0].unit}", f"predicted, {comparisons[0].unit}")

    return [Chart(f"{model}: errors", histogram), Chart(f"{model}: predicted against observed", scatter)]


def _scatter(axes: Any, groups: Iterable[tuple[str, str | None, Sequence[tuple[float, float]]]], x: str,
             y: str) -> None:
    """Draw named groups of points on logarithmic axes, and the line on which x and y are equal."""
    ends: list[float] = []
    for label, colour, points in groups:
        if points:
            axes.scatter(*zip(*points, strict=True), s=16, color=colour, label=label)
            ends += [end for point in points for end in point]
    if ends:
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#222", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend(fontsize="small")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def stages_chart(model: str, comparisons: Sequence[Comparison]) -> Chart:
    """Two bars a pass, stage by stage: predicted above, measured below (thesis, Fig. 4.5)."""
    stages = [each for each in comparisons if each.model == model and each.part != "total"]
    passes = grouped(stages, "layer", "pass_")

    def draw(axes: Any) -> None:
        for row, some in enumerate(passes.values()):
            for place, name in ((row - 0.2, "predicted"), (row + 0.2, "observed")):
                left = 0.0
                for each in some:
                    width = 1e3 * float(getattr(each, name))
                    axes.barh(place, width, 0.36, left, color=STAGE_COLOURS.get(each.part),
                              alpha=1.0 if name == "predicted" else 0.6)
                    left += width
        for part in dict.fromkeys(each.part for each in stages):
            axes.barh(0, 0, color=STAGE_COLOURS.get(part), label=part)
        axes.set_yticks(range(len(passes)), [" ".join(key) for key in passes])
        axes.invert_yaxis()
        axes.set_xlabel("ms; predicted above, measured below")
        axes.legend(fontsize="small")

    return Chart(f"{model}: stages of each pass", draw)
