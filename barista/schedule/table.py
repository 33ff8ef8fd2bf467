"""The table that explorations search: what each convolution costs on each design, alone and beside others.

A row is a pass of a convolution, or all passes of a layer; a column is a design, such as the tile sizes of an array.
`merge.py` and `search.py` choose columns and know nothing of networks, models or boards.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Costs that differ by less than this share are equal: sums in another order do.
ROUNDING = 1e-12


class Sharing(Protocol):
    """What rows that share a design do to one another: it is built for the most demanding of them."""

    def costs(self, members: Sequence[int], columns: slice | Integers) -> Floats:
        """Costs (members, columns) of rows on designs built for all of them.

        Never below what a row costs alone; infinite where a design cannot hold all of them.
        """


@dataclasses.dataclass(frozen=True)
class _Part:
    """A sharing of which only some columns are there, numbered anew."""

    whole: Sharing
    columns: Integers

    def costs(self, members: Sequence[int], columns: slice | Integers) -> Floats:
        return self.whole.costs(members, self.columns[columns])


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that run on one design.

    Parameters
    ----------
    column : the design
    members : the rows, ascending
    cost : of all of them, each as often as it occurs
    """

    column: int
    members: tuple[int, ...]
    cost: float


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Designs, and which rows run on which; the most expensive group first.

    Parameters
    ----------
    groups : each row is in one of them
    """

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> Grouping:
        """The grouping of these groups."""
        return cls(tuple(sorted(groups, key=lambda group: (-group.cost, group.column))))

    @functools.cached_property
    def cost(self) -> float:
        """Of all rows, each as often as it occurs."""
        return math.fsum(group.cost for group in self.groups)

    @property
    def columns(self) -> list[int]:
        """The designs."""
        return [group.column for group in self.groups]


@dataclasses.dataclass(frozen=True)
class Table:
    """Costs of rows on columns.

    Parameters
    ----------
    costs : (rows, columns), of one execution; infinite where the design does not hold the row even alone
    counts : how often each row occurs
    sizes : (columns, parameters), what makes each design; all different
    sharing : None where rows on one design leave one another alone
    limit : largest relative penalty (thesis, Eq. 5.24) that a row may have
    """

    costs: Floats
    counts: Integers
    sizes: Integers
    sharing: Sharing | None = None
    limit: float = math.inf

    @functools.cached_property
    def weighted(self) -> Floats:
        """Costs of all executions of a row."""
        return np.asarray(self.costs * self.counts[:, None])

    @functools.cached_property
    def best(self) -> Integers:
        """Each row's cheapest column."""
        return np.asarray(self.costs.argmin(axis=1))

    @functools.cached_property
    def least(self) -> Floats:
        """What one execution of each row costs on its cheapest column."""
        return np.asarray(self.costs.min(axis=1))

    @functools.cached_property
    def penalties(self) -> Floats:
        """Relative penalty of each row on each column, alone there (thesis, Eq. 5.24)."""
        return np.asarray(self.costs / self.least[:, None] - 1.0)

    @functools.cached_property
    def _columns(self) -> dict[tuple[int, ...], int]:
        return {tuple(sizes): column for column, sizes in enumerate(self.sizes.tolist())}

    def column_of(self, *designs: int) -> int | None:
        """The design that has the largest of each size of some designs, or None where it is not in the table."""
        return self._columns.get(tuple(self.sizes[list(designs)].max(axis=0).tolist()))

    def together(self, members: Sequence[int], columns: slice | Integers) -> Floats:
        """Costs (members, columns) of one execution of each row, all on one design."""
        rows = list(members)
        if self.sharing is None or len(rows) == 1:
            return np.asarray(self.costs[rows][:, columns])
        costs = self.sharing.costs(rows, columns)
        if math.isinf(self.limit):
            return costs
        return np.where(costs <= self.least[rows, None] * (1 + self.limit + ROUNDING), costs, np.inf)

    def joined(self, groups: Iterable[Group]) -> Grouping:
        """The grouping of these groups; where rows leave one another alone, those on one design are one."""
        if self.sharing is not None:  # each is built for its own rows, and two of the same sizes may differ
            return Grouping.of(groups)
        members: dict[int, list[int]] = {}
        for group in groups:
            members.setdefault(group.column, []).extend(group.members)
        together = [self.group(rows, column) for column, rows in members.items()]
        return Grouping.of(group for group in together if group is not None)

    def totals(self, members: Sequence[int]) -> Floats:
        """What all executions of these rows together cost on each design."""
        rows = list(members)
        return np.asarray(self.counts[rows] @ self.together(rows, slice(None)))

    def group(self, members: Sequence[int], column: int) -> Group | None:
        """These rows on the design at `column`, or None where it cannot hold them."""
        rows = sorted(members)
        cost = float(self.counts[rows] @ self.together(rows, np.array([column]))[:, 0])
        return Group(column, tuple(rows), cost) if math.isfinite(cost) else None

    def centre(self, members: Sequence[int]) -> Group | None:
        """These rows on the design that is cheapest for them, or None where none holds them."""
        rows = sorted(members)
        totals = self.totals(rows)
        column = int(np.argmin(totals))
        return Group(column, tuple(rows), float(totals[column])) if math.isfinite(totals[column]) else None

    def only(self, columns: Integers) -> Table:
        """The table of some of the columns, numbered anew."""
        sharing = None if self.sharing is None else _Part(self.sharing, columns)
        return dataclasses.replace(self, costs=self.costs[:, columns], sizes=self.sizes[columns], sharing=sharing)

    def within(self, limit: float) -> Table:
        """The table in which no row has a penalty above `limit`."""
        allowed = np.where(self.penalties <= limit + ROUNDING, self.costs, np.inf)
        return dataclasses.replace(self, costs=allowed, limit=min(limit, self.limit))


def best_of(groupings: Iterable[Grouping]) -> Grouping:
    """The cheapest; among those that differ from it by rounding alone, that of the fewest designs."""
    groupings = list(groupings)
    enough = min(grouping.cost for grouping in groupings) * (1 + ROUNDING)
    return min((grouping for grouping in groupings if grouping.cost <= enough),
               key=lambda grouping: (len(grouping.groups), grouping.cost))


def own_designs(table: Table) -> Grouping:
    """Each row on its cheapest design; rows with the same one share it where that costs nothing."""
    groups: list[Group] = []
    for column in np.unique(table.best).tolist():
        alone = [Group(column, (row,), float(table.weighted[row, column]))
                 for row in np.flatnonzero(table.best == column).tolist()]
        shared = table.group([group.members[0] for group in alone], column)
        if shared is not None and shared.cost <= math.fsum(group.cost for group in alone) * (1 + ROUNDING):
            groups.append(shared)
        else:
            groups += alone
    return Grouping.of(groups)
