"""The thesis's heuristic for few designs: merge groups of convolutions while none loses too much (Algorithms 1 and 2).

Every convolution begins with its own best design.  The slowest of them, later the smallest group, gives its members
to the group that they harm least.  A group's design has, in each size, the largest value of any member's own best
design.

The printed listings are mended where they do not run, or do not say what the text says:

- Nothing to compare with is infinity, and merged is a group that grew.
- What did not fit elsewhere keeps the design that it had, which is legal for it.
- Where the group taken out merges with none, it goes back, and the next smallest is tried: the text merges "until the
  remaining groups can no longer be merged", while the listing stops at the first that does not.  Members go only to
  groups that are at least as large, so that the sum of the squared sizes grows and the loop ends.
- Among groups to merge into, that with the least change of its penalty is taken, then the fastest (the text; the
  listing has only "perf").
- A penalty equal to the limit is legal (<=).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .table import ROUNDING, Group, Grouping, Table, best_of

# Limits that are tried where a number of designs is asked for, which the heuristic does not know: from no penalty to
# any, each half as large again as the one before.
LIMITS = (0.0, *(round(0.01 * 1.5 ** step, 4) for step in range(18)), 1e6)


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """A group, and the largest penalty of its rows; each is one of its own, so that pairs can be remembered."""

    group: Group
    penalty: float


# What a group becomes by taking rows of another, and the rows that it does not take.
Taken = dict[tuple[Merged, Merged], tuple[Merged, list[int]]]


class Merger:
    """The heuristic on one table; what was found about a group serves all limits."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[tuple[int, tuple[int, ...]], Merged | None] = {}
        self._joined: dict[tuple[int, int], int | None] = {}

    def merge(self, limit: float) -> Grouping:
        """Merge designs while no convolution is more than `limit` slower than on its own best one (Algorithm 1).

        Parameters
        ----------
        limit : largest relative penalty (Eq. 5.24) of any convolution; 0.1 for 10 %
        """
        waiting = [Merged(Group(column, (row,), float(self._table.weighted[row, column])), 0.0)
                   for row, column in enumerate(self._table.best.tolist())]
        waiting.sort(key=lambda merged: -merged.group.cost)  # the slowest first; later the smallest
        taken: Taken = {}
        while True:
            for place, giving in enumerate(waiting):
                found = self._give(giving, waiting[:place] + waiting[place + 1:], limit, taken)
                if found is not None:
                    waiting = sorted(found, key=lambda merged: len(merged.group.members))
                    break
            else:
                return self._table.joined(merged.group for merged in waiting)

    def merge_at(self, limits: Iterable[float] = LIMITS, done: Callable[[], object] = lambda: None) -> list[Grouping]:
        """What the heuristic finds over a range of limits; `cheapest` takes from it one of a given number of designs.

        Parameters
        ----------
        limits : largest relative penalties
        done : called after each
        """
        groupings = []
        for limit in limits:
            groupings.append(self.merge(limit))
            done()
        return groupings

    def _give(self, giving: Merged, others: list[Merged], limit: float, taken: Taken) -> list[Merged] | None:
        """All groups after `giving` gave what it can to the group that it harms least; None where none takes any."""
        least: tuple[float, float] = math.inf, math.inf
        after: list[Merged] | None = None
        for place, target in enumerate(others):
            if len(target.group.members) < len(giving.group.members):
                continue
            if (target, giving) not in taken:
                taken[target, giving] = self._take(target, giving.group, limit)
            grown, left = taken[target, giving]
            harm = grown.penalty - target.penalty, grown.group.cost
            if grown is not target and harm < least:
                rest = self._on(giving.group.column, left) if left else None
                least, after = harm, [*others[:place], grown, *others[place + 1:], *([] if rest is None else [rest])]
        return after

    def _take(self, target: Merged, giving: Group, limit: float) -> tuple[Merged, list[int]]:
        """What `target` becomes, and the rows of `giving` that it does not take (Algorithm 2)."""
        left = []
        for row in giving.members:
            grown = self._with(target, row, limit)
            if grown is None:
                left.append(row)
            else:
                target = grown
        return target, left

    def _with(self, target: Merged, row: int, limit: float) -> Merged | None:
        """What `target` becomes with another row, None where that is not legal."""
        table, here = self._table, target.group.column
        pair = here, int(table.best[row])
        if pair not in self._joined:
            self._joined[pair] = table.column_of(*pair)
        column = self._joined[pair]
        if column is None:
            return None
        # Penalties without what sharing costs are quickly looked up, and rule most merges out.
        rows = [row] if column == here else [*target.group.members, row]
        if np.max(table.penalties[rows, column]) > limit + ROUNDING:
            return None
        grown = self._on(column, (*target.group.members, row))
        return grown if grown is not None and grown.penalty <= limit + ROUNDING else None

    def _on(self, column: int, members: Sequence[int]) -> Merged | None:
        """Rows on a design, or None where it cannot hold them."""
        key = column, tuple(sorted(members))
        if key not in self._known:
            rows = list(key[1])
            costs = self._table.together(rows, np.array([column]))[:, 0]
            total = float(self._table.counts[rows] @ costs)
            self._known[key] = None if math.isinf(total) else Merged(
                Group(column, key[1], total), float(np.max(costs / self._table.least[rows]) - 1.0))
        return self._known[key]


def cheapest(groupings: Iterable[Grouping], count: int) -> Grouping | None:
    """The cheapest of the groupings with at most `count` designs, or None where there is none.

    The heuristic may have none, however high its limit: the largest sizes of two designs may make one that no board
    holds.
    """
    few = [grouping for grouping in groupings if len(grouping.groups) <= count]
    return best_of(few) if few else None
