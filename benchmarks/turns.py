"""Contenders that take turns in one process: how every comparison here is made."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Call = Callable[[], object]

# Pause before each turn, so that the other contenders' threads have gone to sleep: OpenBLAS's spin for 0.1 s.
PAUSE_S = 0.2


def seconds(call: Call, count: int, warm_s: float = 0.0) -> float:
    """Seconds of one call, of `count` that follow a pause and at least one call that is not counted.

    Parameters
    ----------
    warm_s : calls are not counted for as long as this; a core that slept is slow at first
    """
    time.sleep(PAUSE_S)
    end = time.perf_counter() + warm_s
    call()
    while time.perf_counter() < end:
        call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def compare(contenders: Mapping[str, Call], rounds: int, turn_s: float = 0.02) -> dict[str, list[float]]:
    """Seconds of a call of each contender in each round.

    Parameters
    ----------
    turn_s : a contender is called as often in one turn as fills this time, to be above the clock's grain
    """
    counts = {name: max(1, round(turn_s / max(seconds(call, 1), 1e-7))) for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            times[name].append(seconds(call, counts[name]))
    return times


def ratio(numerator: list[float], denominator: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the ratios of the rounds."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(numerator, denominator, strict=True)], n=4)
    return low, middle, high


def spread(times: list[float], digits: int = 3) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = (value * 1e3 for value in statistics.quantiles(times, n=4))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same columns, numbers to four digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
                         for row in rows)
