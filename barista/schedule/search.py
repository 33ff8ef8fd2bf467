"""A few designs for many convolutions: the cheapest set of N, and the least number within a penalty.

Every answer comes with a bound that says how far it can be from the best:

- Few rows (`EXACT_ROWS`): a dynamic programme over subsets of rows, which is exact.
- Many rows: `median.py` chooses columns, exactly where rows that share a design leave one another alone.  Where they
  do not, groups are also merged two at a time, and rows then move between groups one by one.

What the thesis's heuristic finds is always among the candidates, so that what comes out is never worse.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable

import numpy as np

from .median import PROVED, Median
from .table import Group, Grouping, Table, own_designs

# Rows up to which subsets are enumerated: 3^9 pairs of subsets for each number of designs.
EXACT_ROWS = 9
# Starts that are improved, the cheapest first.
_STARTS = 4
# Rounds in which each row may move to another design.
_ROUNDS = 5
# Share of a grouping's cost below which a move is not worth the time to find it.
_WORTH = 1e-4


@dataclasses.dataclass(frozen=True)
class Found:
    """A grouping, and what is proved of it.

    Parameters
    ----------
    grouping : the best that was found
    bound : no grouping with as many designs costs less
    """

    grouping: Grouping
    bound: float

    @property
    def gap(self) -> float:
        """Share of the bound by which the grouping may be from the best; 0 where it is the best."""
        return max(0.0, self.grouping.cost / self.bound - 1.0) if self.bound > 0 else float(self.grouping.cost > 0)

    @property
    def is_optimal(self) -> bool:
        """Whether the grouping is proved to be the best."""
        return self.gap <= PROVED


def best_set(table: Table, count: int, starts: Iterable[Grouping] = ()) -> Found | None:
    """The cheapest grouping of at most `count` designs.

    Parameters
    ----------
    starts : groupings to do no worse than; those of more designs are left out

    Returns
    -------
    Found | None : None where no grouping of `count` designs was found that holds every row
    """
    if count == 1:
        single = table.centre(range(len(table.costs)))
        return None if single is None else Found(Grouping((single,)), single.cost)
    few = [grouping for grouping in starts if len(grouping.groups) <= count]
    groupings = sorted(few, key=_cost)[:_STARTS]
    if len(table.costs) <= EXACT_ROWS:
        exact = _by_subsets(table, count)
        return None if exact is None else Found(min([exact, *groupings], key=_cost), exact.cost)
    search = Median(table, count)
    groupings += search.candidates([grouping.columns for grouping in groupings])
    if not groupings:
        return None
    grouping = min(groupings, key=_cost)
    if table.sharing is not None:
        grouping = _move_rows(table, grouping, count)
    elif grouping.cost > search.bound * (1 + PROVED):
        grouping = search.branch(grouping)
    return Found(grouping, min(search.bound, grouping.cost))


def fewest(table: Table, limit: float, start: Grouping) -> Found:
    """The grouping of the least number of designs with which no row is more than `limit` slower than on its best one.

    Among groupings of that number it is the cheapest that was found, and no more expensive than `start` if that has as
    many.  The bound is of its cost, not of the number.

    Parameters
    ----------
    start : a grouping within the limit
    """
    allowed = table.within(limit)
    starts = [start, *(merge_pairs(allowed) if table.sharing is not None else [])]
    found = best_set(allowed, min(len(grouping.groups) for grouping in starts), starts)
    assert found is not None  # start is one
    while len(found.grouping.groups) > 1:
        smaller = best_set(allowed, len(found.grouping.groups) - 1, starts)
        if smaller is None:
            break
        found = smaller
    return found


def least_number(table: Table, limit: float) -> int:
    """A number of designs below which no grouping keeps every row within the penalty.

    It counts rows of which no two have a design in common.
    """
    allowed = np.isfinite(table.within(limit).costs)
    count = 0
    while allowed.size:
        row = allowed[int(allowed.sum(axis=1).argmin())]
        allowed = allowed[~(allowed & row).any(axis=1)]
        count += 1
    return count


def merge_pairs(table: Table) -> list[Grouping]:
    """Plans of ever fewer designs: from each row's own, two groups at a time become one, those that lose least.

    The last is that of the least number, below which no two groups fit on one design.
    """
    groups = list(own_designs(table).groups)
    groupings = [Grouping.of(groups)]
    pairs = {frozenset((a, b)): _together(table, a, b) for a, b in itertools.combinations(groups, 2)}
    while pairs:
        pair, (_, merged) = min(pairs.items(), key=lambda item: item[1][0])
        if merged is None:
            break
        groups = [group for group in groups if group not in pair]
        pairs = {other: found for other, found in pairs.items() if not other & pair}
        pairs |= {frozenset((merged, group)): _together(table, merged, group) for group in groups}
        groups.append(merged)
        groupings.append(Grouping.of(groups))
    return groupings


def _together(table: Table, a: Group, b: Group) -> tuple[float, Group | None]:
    """What two groups lose on one design, and that design."""
    merged = table.centre((*a.members, *b.members))
    return (math.inf, None) if merged is None else (merged.cost - a.cost - b.cost, merged)


def _move_rows(table: Table, grouping: Grouping, count: int) -> Grouping:
    """Move one row at a time to another design, or to one of its own, and each design to where it serves best."""
    groups = [table.centre(group.members) or group for group in grouping.groups]
    for _ in range(_ROUNDS):
        before = math.fsum(group.cost for group in groups)
        for row in range(len(table.costs)):
            groups = _move(table, groups, row, count, _WORTH * before)
        if math.fsum(group.cost for group in groups) >= before * (1 - _WORTH):
            break
    return min([grouping, Grouping.of(groups)], key=_cost)


def _move(table: Table, groups: list[Group], row: int, count: int, worth: float) -> list[Group]:
    """The groups after a row moved to where it saves most, or as they are where that is less than `worth`."""
    here = next(group for group in groups if row in group.members)
    rest = table.centre([other for other in here.members if other != row]) if len(here.members) > 1 else None
    saved = here.cost - (rest.cost if rest is not None else 0.0)
    if saved - table.counts[row] * table.least[row] < worth:
        return groups
    others = [group for group in groups if group is not here]
    options = [(grown.cost - group.cost, place, grown) for place, group in enumerate(others)
               if (grown := table.centre((*group.members, row))) is not None]
    if len(others) + (rest is not None) < count and (alone := table.centre((row,))) is not None:
        options.append((alone.cost, len(others), alone))
    paid, place, grown = min(options, default=(math.inf, -1, here), key=lambda option: option[0])
    if saved - paid < worth:
        return groups
    return [*others[:place], grown, *others[place + 1:], *([rest] if rest is not None else [])]


def _by_subsets(table: Table, count: int) -> Grouping | None:
    """The best of at most `count` designs: each subset of the rows on its best one, then the best partition."""
    rows = range(len(table.costs))
    subsets = [tuple(row for row in rows if bits >> row & 1) for bits in range(1 << len(rows))]
    alone: list[Group | None] = [None, *(table.centre(members) for members in subsets[1:])]
    costs = [math.inf if group is None else group.cost for group in alone]
    # Cheapest partition of each subset into at most n groups, and the group that has the subset's first row.
    cheapest, firsts = [math.inf] * len(subsets), []
    cheapest[0] = 0.0
    for _ in range(min(count, len(rows))):
        below, cheapest, first = cheapest, [0.0] + [math.inf] * (len(subsets) - 1), [0] * len(subsets)
        for bits in range(1, len(subsets)):
            lowest = bits & -bits
            part = bits
            while part:
                if part & lowest and costs[part] + below[bits ^ part] < cheapest[bits]:
                    cheapest[bits], first[bits] = costs[part] + below[bits ^ part], part
                part = (part - 1) & bits
        firsts.append(first)
    bits, groups = len(subsets) - 1, []
    if not math.isfinite(cheapest[bits]):
        return None
    for first in reversed(firsts):
        group = alone[first[bits]]
        if group is not None:
            groups.append(group)
        bits ^= first[bits]
    return Grouping.of(groups)


def _cost(grouping: Grouping) -> float:
    return grouping.cost
