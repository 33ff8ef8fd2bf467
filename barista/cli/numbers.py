"""Costs as tables and summaries say them, in all commands alike."""

from __future__ import annotations

from ..schedule.table import ROUNDING


def number(value: float) -> str:
    """Four digits, or all of them before the point: ``0.1234``, ``12.34``, ``123,456``; never an exponent."""
    if value >= 999.95:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return text if "e" not in text else f"{float(text):.12f}".rstrip("0").rstrip(".")


def above(cost: float, least: float) -> str:
    """How much a cost is above the least there is, such as ``+12.5%``; what only rounding makes is ``+0.0%``."""
    share = cost / least - 1.0
    return f"{share if abs(share) > ROUNDING else 0.0:+.1%}"


def counted(count: int, noun: str) -> str:
    """A number of things: ``1 design``, ``2 designs``, ``1,146 points``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
