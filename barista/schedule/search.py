"""A few designs for many convolutions: the cheapest set of N, and the least number within a penalty.

Every answer comes with a bound that says how far it can be from the best:

- Few rows (`EXACT_ROWS`): a dynamic programme over subsets of rows, which is exact.
- Many rows: `median.py` chooses columns, exactly where rows that share a design leave one another alone.  Where they
  do not, groups are also merged two at a time, on all columns and on parts of them, and rows then move between groups
  one by one.  This finds no proof, and may miss better sets.

What the thesis's heuristic finds is always among the candidates, so that what comes out is never worse.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterable

import numpy as np

from .median import PROVED, Median
from .table import ROUNDING, Floats, Group, Grouping, Table, best_of, own_designs

# Rows up to which subsets are enumerated: 3^9 pairs of subsets for each number of designs.
EXACT_ROWS = 9
# Starts that are improved, the cheapest first.
_STARTS = 4
# Of these, as many have their rows moved, which takes seconds each.
_MOVED = 2
# Random parts of the columns that plans are made from too, and the columns in each.
_SAMPLES, _SAMPLE_COLUMNS = 6, 300
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
        if exact is None:
            return None
        groupings.append(exact)
        return Found(best_of(groupings), min(map(_cost, groupings)))
    search = Median(table, count)
    groupings += search.candidates([grouping.columns for grouping in groupings])
    if not groupings:
        return None
    grouping = best_of(groupings)
    if table.sharing is not None:
        likely = sorted(groupings, key=_cost)[:_MOVED]
        grouping = best_of(_move_rows(table, start, count) for start in likely)
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
        row = allowed[int(np.argmin(np.sum(allowed, axis=1)))]
        allowed = allowed[~(allowed & row).any(axis=1)]
        count += 1
    return count


def merge_pairs(table: Table) -> list[Grouping]:
    """Plans of ever fewer designs: from each row's own, two groups at a time become one, those that lose least.

    The last is that of the least number, below which no two groups fit on one design.
    """
    groups = list(own_designs(table).groups)
    groupings = [Grouping.of(groups)]
    costs = {group: table.totals(group.members) for group in groups}
    # What pairs lose: first at least, as costs of two groups that do not harm each other; when it is a pair's turn, in
    # truth.  Most pairs never have their turn.
    order = itertools.count()
    pairs: list[tuple[float, int, Group, Group, Group | None]] = []
    for a, b in itertools.combinations(groups, 2):
        heapq.heappush(pairs, (float(np.min(costs[a] + costs[b])) - a.cost - b.cost, next(order), a, b, None))
    while pairs:
        loss, _, a, b, merged = heapq.heappop(pairs)
        if a not in costs or b not in costs or math.isinf(loss):
            continue
        if merged is None:
            merged = table.centre((*a.members, *b.members))
            if merged is not None:
                heapq.heappush(pairs, (merged.cost - a.cost - b.cost, next(order), a, b, merged))
            continue
        del costs[a], costs[b]
        new = table.totals(merged.members)
        for group, others in costs.items():
            heapq.heappush(pairs, (float(np.min(new + others)) - merged.cost - group.cost, next(order), merged, group,
                                   None))
        costs[merged] = new
        groupings.append(Grouping.of(costs))
    return groupings


def merge_samples(table: Table) -> list[Grouping]:
    """What `merge_pairs` finds on random parts of the columns, the same parts each time.

    Its first steps decide where it ends.  With other columns to choose from it takes other steps, and the plans, moved
    to all columns, are often better than that from all of them.
    """
    rng = np.random.default_rng(0)
    found: list[Grouping] = []
    total = len(table.sizes)
    for _ in range(_SAMPLES if total > _SAMPLE_COLUMNS else 0):
        columns = np.sort(rng.choice(total, _SAMPLE_COLUMNS, replace=False))
        part = table.only(columns)
        if np.isfinite(part.least).all():
            found += (Grouping.of(dataclasses.replace(group, column=int(columns[group.column])) for group in
                                  grouping.groups) for grouping in merge_pairs(part))
    return found


def _move_rows(table: Table, grouping: Grouping, count: int) -> Grouping:
    """Move one row at a time to another design, or to one of its own, and each design to where it serves best."""
    groups = [table.centre(group.members) or group for group in grouping.groups]
    totals: dict[Group, Floats] = {}
    for _ in range(_ROUNDS):
        before = math.fsum(group.cost for group in groups)
        for row in range(len(table.costs)):
            groups = _move(table, groups, row, count, _WORTH * before, totals)
        if math.fsum(group.cost for group in groups) >= before * (1 - _WORTH):
            break
    return min([grouping, Grouping.of(groups)], key=_cost)


def _move(table: Table, groups: list[Group], row: int, count: int, worth: float,
          totals: dict[Group, Floats]) -> list[Group]:
    """The groups after a row moved to where it saves most, or as they are where that is less than `worth`.

    Parameters
    ----------
    totals : what groups cost on each design, as far as it is known; more is added
    """
    here = next(group for group in groups if row in group.members)
    rest = table.centre([other for other in here.members if other != row]) if len(here.members) > 1 else None
    saved = here.cost - (rest.cost if rest is not None else 0.0)
    if saved - table.counts[row] * table.least[row] < worth:
        return groups
    others = [group for group in groups if group is not here]
    totals |= {group: table.totals(group.members) for group in others if group not in totals}
    # What each place takes at least, as if the row harmed none there; those that may take least are tried first.
    least = sorted((float((totals[group] + table.weighted[row]).min()) - group.cost, place)
                   for place, group in enumerate(others))
    paid, place, grown = math.inf, -1, here
    if len(others) + (rest is not None) < count and (alone := table.centre((row,))) is not None:
        paid, place, grown = alone.cost, len(others), alone
    for bound, other in least:
        if bound >= min(paid, saved - worth):
            break
        found = table.centre((*others[other].members, row))
        if found is not None and found.cost - others[other].cost < paid:
            paid, place, grown = found.cost - others[other].cost, other, found
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
    cheapest, firsts, totals = [math.inf] * len(subsets), [], []
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
        totals.append(cheapest[-1])
    bits, groups = len(subsets) - 1, []
    if not math.isfinite(cheapest[bits]):
        return None
    # No more designs than what is more than rounding needs.
    needed = next(number for number, total in enumerate(totals, 1) if total <= totals[-1] * (1 + ROUNDING))
    for first in reversed(firsts[:needed]):
        group = alone[first[bits]]
        if group is not None:
            groups.append(group)
        bits ^= first[bits]
    return table.joined(groups)


def _cost(grouping: Grouping) -> float:
    return grouping.cost
