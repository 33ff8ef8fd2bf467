"""Reports of a build as text: what `barista bitstream inspect` and tools/read_hls_report.py show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..hardware.report import SYNTHESIS_RESOURCES, BuildReport, Link, Synthesis
from ..hardware.resources import Resources

# Resource of C synthesis to what the link report calls it, and how many of its blocks are one of the link's.
_LINKED = {"BRAM_18K": ("BRAM", 2), "DSP": ("DSP", 1), "FF": ("REG", 1), "LUT": ("LUT", 1), "URAM": ("URAM", 1)}


def describe_report(report: BuildReport, declared: Resources | None = None) -> Iterator[str]:
    """Say what a build's tools reported, in lines.

    Parameters
    ----------
    declared : what the models count for the design, to stand beside
    """
    if report.clock_hz is not None:
        yield f"Clock of the binary: {_mhz(report.clock_hz)}"
    if report.synthesis is not None:
        yield from _synthesis(report.synthesis)
    if report.synthesis is not None or report.link is not None:
        yield ""
        yield from _resources(report.synthesis, report.link, declared)
    if report.synthesis is not None and report.synthesis.loops:
        yield ""
        yield from _loops(report.synthesis)


def _synthesis(found: Synthesis) -> Iterator[str]:
    yield f"C synthesis: {found.top or '?'} for {found.part or '?'}, Vitis HLS {found.tool or '?'}"
    yield f"  clock   {_mhz(found.target_hz)} asked for, {_mhz(found.estimated_hz)} estimated"
    latency = found.latency_cycles
    yield f"  latency {'as its arguments say' if latency is None else f'{latency} cycles'}"


def _resources(synthesis: Synthesis | None, link: Link | None, declared: Resources | None) -> Iterator[str]:
    """A line for each resource: the model's count, the estimate, what was linked, and shares of what there is."""
    head = ["resource"]
    if declared is not None:
        head.append("model")
    if synthesis is not None:
        head += ["C synthesis", "of the device"]
    if link is not None:
        head += [link.stage, "of the budget"]
    rows = [head]
    for name in SYNTHESIS_RESOURCES:
        row = [name]
        linked, blocks = _LINKED[name]
        if declared is not None:
            row.append(f"{declared.dsp:,}" if name == "DSP" else "-")
        if synthesis is not None:
            row += _share(synthesis.used.get(name), synthesis.available.get(name))
        if link is not None:
            used, budget = (blocks * counts[linked] if linked in counts else None
                            for counts in (link.used, link.budget))
            row += _share(used, budget)
        rows.append(row)
    if link is not None and "LUTAsMem" in link.used:
        rows.append(["LUTAsMem", *[""] * (len(head) - 3),
                     *_share(link.used["LUTAsMem"], link.budget.get("LUTAsMem"))])
    yield from aligned(rows, left=1)


def _loops(found: Synthesis) -> Iterator[str]:
    rows = [["loop", "in", "trips", "II", "cycles", "depth"]]
    rows += [[loop.name, loop.module, *("-" if value is None else str(value) if not isinstance(value, int) else
                                        f"{value:,}" for value in (loop.trips, loop.interval_cycles,
                                                                   loop.latency_cycles, loop.depth_cycles))]
             for loop in found.loops]
    yield from aligned(rows, left=2)
    if found.slow_loops:
        yield f"There are {found.slow_loops}."


def aligned(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Lines of a table whose first `left` columns begin, and whose others end, below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) if index < left else cell.rjust(width)
                        for index, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()


def _share(used: float | None, budget: float | None) -> list[str]:
    """How many are taken, and of how many."""
    if used is None:
        return ["-", "-"]
    return [f"{used:,g}" if used % 1 else f"{int(used):,}", "-" if not budget else f"{used / budget:.1%}"]


def _mhz(clock_hz: float | None) -> str:
    return "?" if clock_hz is None else f"{clock_hz / 1e6:.4g} MHz"
