"""Predictions held against what was observed: one comparison a pass and configuration, and statistics of the errors.

What is observed comes from elsewhere: a simulator, a device, or a paper.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One figure, predicted and observed, both in `unit`.

    Parameters
    ----------
    model : what predicts
    layer, pass_ : what was computed
    configuration : on what, such as an array's sizes
    part : ``total``, or the stage that is compared
    unit : ``cycles`` or ``s``
    predicted, observed : both above 0
    """

    model: str
    layer: str
    pass_: str
    configuration: str
    part: str
    unit: str
    predicted: float
    observed: float

    @property
    def error(self) -> float:
        """Relative error (predicted - observed) / observed, as in the thesis's Table 5.4; below 0 it is optimistic."""
        return self.predicted / self.observed - 1


@dataclasses.dataclass(frozen=True)
class ErrorStatistics:
    """Errors of a group of comparisons (thesis, Table 5.4).

    Parameters
    ----------
    count : of comparisons
    mean, median, deviation, largest, smallest : of the errors' absolute values; deviation of the population
    most_optimistic : the lowest error with its sign
    """

    count: int
    mean: float
    median: float
    deviation: float
    largest: float
    smallest: float
    most_optimistic: float


def statistics(comparisons: Iterable[Comparison]) -> ErrorStatistics:
    """Statistics of the errors; all NaN where there are none."""
    errors = np.array([comparison.error for comparison in comparisons], dtype=np.float64)
    if errors.size == 0:
        return ErrorStatistics(0, *[math.nan] * 6)
    sizes = np.abs(errors)
    return ErrorStatistics(errors.size, float(sizes.mean()), float(np.median(sizes)), float(sizes.std()),
                           float(np.max(sizes)), float(np.min(sizes)), float(np.min(errors)))


def grouped(comparisons: Iterable[Comparison], *names: str) -> dict[tuple[str, ...], list[Comparison]]:
    """The comparisons by the values of the named fields, in the order in which these come first."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(tuple(getattr(comparison, name) for name in names), []).append(comparison)
    return groups
