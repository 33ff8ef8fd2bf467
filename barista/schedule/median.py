"""The k-median problem on a table: which N columns serve all rows at the least cost, and a proof of how good that is.

- **Bound**, by Lagrangian relaxation: each row pays a price, a column earns what it saves on the prices, and the N
  columns that earn most give a cost that no set of N can beat.  Prices follow the subgradient.
- **Candidates**: columns added greedily, those that earn most under the best prices, and what the caller has, each
  improved by exchanging one column for another until none helps.
- **Branch and bound** over what is left: columns that the bound rules out go, and one more is decided at a time.

Where rows that share a design harm one another, the bound holds all the same, since sharing only adds to costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .table import ROUNDING, Floats, Grouping, Integers, Table

# Steps of the subgradient, and how many without progress until they become half as long.
_STEPS, _PATIENCE = 300, 12
# Nodes of branch and bound, and steps at each of them: a second or two at most.
_NODES, _NODE_STEPS = 200, 40
# A bound this close to the cost proves it.
PROVED = 1e-9


class Median:
    """Sets of columns by price, exchange, and branch and bound.

    Attributes
    ----------
    costs : finite: where a row cannot be it costs more than all rows together can, so that holding it comes first
    bound : no set of `count` columns costs less
    """

    def __init__(self, table: Table, count: int) -> None:
        self._table, self._count = table, min(count, len(table.sizes))
        finite = np.isfinite(table.weighted)
        worst = float(np.where(finite, table.weighted, 0.0).max(axis=1).sum())
        self.costs: Floats = np.where(finite, table.weighted, 2 * worst + 1.0)
        self.bound = -np.inf
        self._prices: Floats = self.costs.min(axis=1)

    def candidates(self, starts: list[list[int]]) -> list[Grouping]:
        """Plans from the starts, greedy addition and prices, each improved by exchanges."""
        greedy = self._exchange(self._greedy())
        upper = self._cost(greedy)
        self.bound, self._prices, priced = self._price(self.costs, self._count, self._prices, upper, _STEPS,
                                                        self._served(()))
        sets = {tuple(sorted(greedy)), *(tuple(sorted(self._exchange(start))) for start in (*starts, priced))}
        found = []
        for columns in sorted(sets, key=self._cost):
            grouping = settle(self._table, columns)
            if grouping is not None:
                found.append(grouping)
        return found

    def branch(self, grouping: Grouping) -> Grouping:
        """Improve a grouping, or prove it by raising the bound; depth first, up to `_NODES` nodes."""
        nodes = 0
        ahead: list[tuple[tuple[int, ...], Integers, Floats]] = [((), np.arange(self.costs.shape[1]), self._prices)]
        unproved: list[float] = []
        while ahead:
            taken, columns, prices = ahead.pop()
            nodes += 1
            free = min(self._count - len(taken), len(columns))
            bound, prices, priced = self._price(self.costs[:, columns], free, prices, grouping.cost, _NODE_STEPS,
                                                self._served(taken))
            if bound >= grouping.cost * (1 - PROVED):
                continue
            reached = settle(self._table, [*taken, *(int(columns[index]) for index in priced)])
            if reached is not None and reached.cost < grouping.cost * (1 - ROUNDING):
                grouping = reached
            if free == len(columns) or free == 0:
                continue  # all of them were tried together
            if nodes >= _NODES:
                unproved.append(bound)
                continue
            earned = np.minimum(self.costs[:, columns] - prices[:, None], 0.0).sum(axis=0)
            order = earned.argsort(kind="stable")
            kept = bound + earned - earned[order[free - 1]] < grouping.cost
            kept[order[:free]] = True
            kept[order[0]] = False
            rest = columns[kept]
            ahead.append((taken, rest, prices))
            ahead.append(((*taken, int(columns[order[0]])), rest, prices))
        self.bound = min([grouping.cost, *unproved])
        return grouping

    def _price(self, costs: Floats, count: int, prices: Floats, upper: float, steps: int,
               ceiling: Floats) -> tuple[float, Floats, list[int]]:
        """The highest bound that prices give, those prices, and the columns that earn most under them.

        Parameters
        ----------
        costs : of the columns that may be taken, `count` of them
        upper : a cost that is reached
        ceiling : what each row costs on columns that are taken anyway; no row pays more
        """
        prices = np.minimum(prices, ceiling)
        best: tuple[float, Floats, list[int]] = (-np.inf, prices, [])
        pace, idle = 1.0, 0
        for _ in range(steps):
            saved = np.minimum(costs - prices[:, None], 0.0)
            earned = saved.sum(axis=0)
            chosen = np.argpartition(earned, count)[:count] if count < earned.size else np.arange(earned.size)
            bound = float(prices.sum() + earned[chosen].sum())
            if bound > best[0]:
                best, idle = (bound, prices, [int(column) for column in chosen]), 0
            else:
                idle += 1
                if idle == _PATIENCE:
                    pace, idle = pace / 2, 0
            slope = 1.0 - (saved[:, chosen] < 0).sum(axis=1)
            slope[(slope > 0) & (prices >= ceiling)] = 0.0
            size = float(slope @ slope)
            if size == 0 or bound >= upper:
                break
            prices = np.minimum(prices + pace * (upper - bound) / size * slope, ceiling)
        return best

    def _greedy(self) -> list[int]:
        """Columns added one by one, each the one that saves most."""
        columns: list[int] = []
        served = np.full(len(self.costs), np.inf)
        for _ in range(self._count):
            totals = np.minimum(served[:, None], self.costs).sum(axis=0)
            column = int(np.argmin(totals))
            if columns and totals[column] >= served.sum() * (1 - ROUNDING):
                break
            columns.append(column)
            served = np.minimum(served, self.costs[:, column])
        return columns

    def _exchange(self, columns: Sequence[int]) -> list[int]:
        """Add while there is room, then exchange one column for another while it helps."""
        columns = list(dict.fromkeys(columns))
        cost = self._cost(columns)
        place, unhelpful = 0, 0
        while unhelpful <= self._count:
            without = columns[:place] + columns[place + 1:]
            served = self._served(without)
            totals = np.minimum(served[:, None], self.costs).sum(axis=0)
            column = int(np.argmin(totals))
            if totals[column] < cost * (1 - ROUNDING):
                columns, cost, unhelpful = without[:place] + [column] + without[place:], float(totals[column]), 0
            else:
                unhelpful += 1
            place = (place + 1) % (min(self._count, len(columns) + 1))
        return columns

    def _cost(self, columns: Sequence[int]) -> float:
        return float(self._served(columns).sum())

    def _served(self, columns: Sequence[int]) -> Floats:
        """What each row costs on the cheapest of some columns."""
        return np.asarray(self.costs[:, list(columns)].min(axis=1, initial=np.inf))


def settle(table: Table, columns: Sequence[int]) -> Grouping | None:
    """Give each row to the cheapest of the columns that holds it beside those already there.

    Where rows harm one another, those that lose most by going elsewhere choose first.

    Returns
    -------
    Grouping | None : None where some row finds no place
    """
    columns = list(dict.fromkeys(columns))
    costs = table.weighted[:, columns]
    if not np.isfinite(costs.min(axis=1)).all():
        return None
    members: list[list[int]] = [[] for _ in columns]
    if table.sharing is None:
        for row, place in enumerate(costs.argmin(axis=1).tolist()):
            members[place].append(row)
    else:
        ranked = np.sort(costs, axis=1)
        loss = ranked[:, 1] - ranked[:, 0] if len(columns) > 1 else np.zeros(len(costs))
        for row in np.argsort(-loss, kind="stable").tolist():
            for place in costs[row].argsort(kind="stable").tolist():
                if np.isfinite(costs[row, place]) and table.group([*members[place], row], columns[place]) is not None:
                    members[place].append(row)
                    break
            else:
                return None
    groups = [table.group(rows, column) for column, rows in zip(columns, members, strict=True) if rows]
    return Grouping.of(group for group in groups if group is not None)
