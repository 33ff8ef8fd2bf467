"""What a command found out, as lines to print and as three files: JSON, CSV and a page of HTML that needs no other."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingExtraError

Cell = str | int | float | bool | None

_STYLE = """body { font: 15px/1.45 system-ui, sans-serif; color: #222 }
body { margin: 2em auto; max-width: 75em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; font-size: .9em }
td, th { padding: .2em .8em; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto }
summary { cursor: pointer }"""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under named columns.

    Parameters
    ----------
    title : above it
    columns : names, units included
    rows : a cell for each column; None is an empty cell
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A picture.

    Parameters
    ----------
    title : above it
    draw : draws on matplotlib's Axes
    """

    title: str
    draw: Callable[[Any], None]


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that one run found out.

    Parameters
    ----------
    title : what was held against what
    summary : sentences, the outcome first
    tables : what a reader looks at
    details : every row; the CSV file holds this one
    charts : pictures
    """

    title: str
    summary: Sequence[str]
    tables: Sequence[Table]
    details: Table
    charts: Sequence[Chart] = ()


def check_charts() -> None:
    """Make sure, before long work, that pictures can be drawn after it.

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "a report") from None


def lines(table: Table) -> Iterator[str]:
    """The table as text, columns aligned, numbers to the right."""
    cells = [[_text(cell) for cell in row] for row in table.rows]
    widths = [max(len(row[column]) for row in [list(table.columns), *cells]) for column in range(len(table.columns))]
    right = [any(_is_number(row[column]) for row in table.rows) for column in range(len(table.columns))]
    yield table.title + ":"
    for row in [list(table.columns), *cells]:
        yield "  ".join(cell.rjust(width) if to_right else cell.ljust(width)
                        for cell, width, to_right in zip(row, widths, right, strict=True)).rstrip()


def write_report(report: Report, folder: Path, stem: str) -> list[Path]:
    """Write ``stem.json``, ``stem.csv`` and ``stem.html`` into a folder and return their paths.

    Raises
    ------
    MissingExtraError : there are charts and matplotlib is not installed
    DataError : a file cannot be written
    """
    texts = {".json": _json(report), ".csv": _csv(report.details), ".html": _html(report)}
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            paths.append(folder / f"{stem}{ending}")
            paths[-1].write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{error.filename or folder}: the report cannot be written: {error.strerror}; "
                        "choose another folder with --report") from None
    return paths


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _json(report: Report) -> str:
    def records(table: Table) -> dict[str, Any]:
        rows = [{name: _finite(cell) for name, cell in zip(table.columns, row, strict=True)} for row in table.rows]
        return {"title": table.title, "rows": rows}

    return json.dumps({"title": report.title, "summary": list(report.summary),
                       "tables": [records(table) for table in report.tables],
                       "details": records(report.details)}, indent=1) + "\n"


def _finite(cell: Cell) -> Cell:
    """JSON has neither infinity nor NaN."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return out.getvalue()


def _html(report: Report) -> str:
    title = html.escape(report.title)
    body = [f"<h1>{title}</h1>", *(f"<p>{html.escape(text)}</p>" for text in report.summary)]
    for table in report.tables:
        body += [f"<h2>{html.escape(table.title)}</h2>", _html_table(table)]
    for chart in report.charts:
        body += [f"<h2>{html.escape(chart.title)}</h2>", _svg(chart)]
    details = report.details
    body += [f"<details><summary>{html.escape(details.title)}</summary>", _html_table(details), "</details>"]
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
            f"<style>\n{_STYLE}\n</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n")


def _html_table(table: Table) -> str:
    def cell_html(cell: Cell) -> str:
        mark = ' class="number"' if _is_number(cell) else ""
        return f"<td{mark}>{html.escape(_text(cell))}</td>"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "\n".join(f"<tr>{''.join(map(cell_html, row))}</tr>" for row in table.rows)
    return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"


def _svg(chart: Chart) -> str:
    """The chart as an SVG element; the same chart gives the same text."""
    check_charts()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    chart.draw(figure.add_subplot())
    out = io.StringIO()
    # Names inside a picture come from the salt: several pictures in one page must not share them.
    with rc_context({"svg.hashsalt": chart.title, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg"):]
