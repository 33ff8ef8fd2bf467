"""Few designs for many rows: the thesis's heuristic, our search against brute force, and that it is never worse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.schedule import search
from barista.schedule.merge import LIMITS, Merger, cheapest
from barista.schedule.search import best_set, fewest, least_number, merge_pairs, merge_samples
from barista.schedule.table import Floats, Group, Grouping, Integers, Table, own_designs


class Neighbours:
    """A sharing of the tests' own: memory adds up to a capacity, and a larger neighbour slows the others."""

    def __init__(self, costs: Floats, needs: Integers, kinds: Integers, capacity: int) -> None:
        self._costs, self._needs, self._kinds, self._capacity = costs, needs, kinds, capacity

    def costs(self, members: Sequence[int], columns: slice | Integers) -> Floats:
        rows = list(members)
        needs = self._needs[rows]
        slower = 1 + 0.1 * (needs.max() - needs)
        taken = sum(needs[self._kinds[rows] == kind].max(initial=0) for kind in (0, 1))
        costs = self._costs[rows][:, columns] * slower[:, None]
        return costs if taken <= self._capacity else np.full_like(costs, np.inf)


def random_table(seed: int, rows: int, side: int, shared: bool = False) -> Table:
    """Costs with holes on a square of two sizes; every row fits on the first column."""
    rng = np.random.default_rng(seed)
    sizes = np.array(list(itertools.product(range(1, side + 1), repeat=2)))
    costs = rng.random((rows, len(sizes))) * 10 + rng.random((rows, 1)) * 20 + 0.1
    costs[rng.random(costs.shape) < 0.2] = np.inf
    costs[:, 0] = np.where(np.isfinite(costs[:, 0]), costs[:, 0], 99.0)
    counts = rng.integers(1, 4, rows)
    sharing = Neighbours(costs, rng.integers(1, 6, rows), rng.integers(0, 2, rows), 8) if shared else None
    return Table(costs, counts, sizes, sharing)


def partitions(rows: list[int]) -> Iterator[list[list[int]]]:
    """All ways to put rows into groups."""
    if not rows:
        yield []
        return
    first, *rest = rows
    for found in partitions(rest):
        yield [[first], *found]
        for place in range(len(found)):
            yield [*found[:place], [first, *found[place]], *found[place + 1:]]


def best_by_columns(table: Table, count: int) -> float:
    """The least cost over all sets of columns, where rows leave one another alone."""
    columns = range(len(table.sizes))
    return float(min(table.weighted[:, list(chosen)].min(axis=1).sum()
                     for chosen in itertools.combinations(columns, min(count, len(columns)))))


def best_by_partitions(table: Table, count: int) -> float:
    """The least cost over all partitions of the rows, each part on each column."""
    rows = list(range(len(table.costs)))
    costs: dict[tuple[int, ...], float] = {}
    for size in range(1, len(rows) + 1):
        for part in itertools.combinations(rows, size):
            costs[part] = min(float(table.counts[list(part)] @ table.together(part, np.array([column]))[:, 0])
                              for column in range(len(table.sizes)))
    return min(sum(costs[tuple(sorted(part))] for part in found)
               for found in partitions(rows) if len(found) <= count)


def check(table: Table, grouping: Grouping) -> None:
    """Every row is in one group, on a design that holds the group, at the cost that is said."""
    assert sorted(row for group in grouping.groups for row in group.members) == list(range(len(table.costs)))
    for group in grouping.groups:
        again = table.group(group.members, group.column)
        assert again is not None and again.cost == pytest.approx(group.cost)
    assert grouping.cost == pytest.approx(sum(group.cost for group in grouping.groups))


# ---- the search -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 14), side=st.integers(1, 4), count=st.integers(1, 3))
def test_the_best_set_is_that_of_brute_force(seed: int, rows: int, side: int, count: int) -> None:
    table = random_table(seed, rows, side)
    found = best_set(table, count)
    assert found is not None
    check(table, found.grouping)
    assert found.grouping.cost == pytest.approx(best_by_columns(table, count))
    assert len(found.grouping.groups) <= count
    assert found.is_optimal
    assert found.bound <= found.grouping.cost


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 5), count=st.integers(1, 4))
def test_the_best_set_of_rows_that_share_is_that_of_brute_force(seed: int, rows: int, count: int) -> None:
    table = random_table(seed, rows, 2, shared=True)
    found, least = best_set(table, count), best_by_partitions(table, count)
    if found is None:
        assert math.isinf(least)
        return
    check(table, found.grouping)
    assert found.grouping.cost == pytest.approx(least)
    assert found.is_optimal


@pytest.mark.parametrize("seed", range(8))
def test_many_rows_that_share(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for many rows, made to take few: near the best, and its bound below it."""
    table = random_table(seed, 8, 3, shared=True)
    exact = best_set(table, 3)
    assert exact is not None
    monkeypatch.setattr(search, "EXACT_ROWS", 0)
    found = best_set(table, 3, merge_pairs(table))
    assert found is not None
    check(table, found.grouping)
    assert found.bound <= exact.grouping.cost * (1 + 1e-9)
    assert exact.grouping.cost * (1 - 1e-9) <= found.grouping.cost <= 1.1 * exact.grouping.cost


def test_no_set_where_one_design_cannot_hold_all() -> None:
    costs = np.array([[1.0, np.inf], [np.inf, 2.0]])
    table = Table(costs, np.array([1, 1]), np.array([[1], [2]]))
    assert best_set(table, 1) is None
    both = best_set(table, 2)
    assert both is not None and both.grouping.cost == 3.0
    many = Table(np.tile(costs, (8, 1)), np.ones(16, np.int64), np.array([[1], [2]]))
    assert best_set(many, 1) is None


def test_more_designs_than_columns() -> None:
    table = random_table(3, 12, 2)
    found = best_set(table, 50)
    assert found is not None
    assert found.grouping.cost == pytest.approx(float((table.least * table.counts).sum()))
    assert found.is_optimal


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 12), limit=st.sampled_from([0.0, 0.05, 0.3, 1.0, 4.0]))
def test_the_fewest_within_a_penalty_are_those_of_brute_force(seed: int, rows: int, limit: float) -> None:
    table = random_table(seed, rows, 3)
    start = Merger(table).merge(limit)
    found = fewest(table, limit, start).grouping
    check(table, found)
    allowed = np.isfinite(table.within(limit).costs)
    columns = range(len(table.sizes))
    least = next(count for count in range(1, len(columns) + 1)
                 if any(allowed[:, list(chosen)].any(axis=1).all()
                        for chosen in itertools.combinations(columns, count)))
    assert least_number(table, limit) <= least == len(found.groups) <= len(start.groups)
    for group in found.groups:
        assert (table.penalties[list(group.members), group.column] <= limit + 1e-9).all()


@pytest.mark.parametrize("shared", [False, True])
def test_pairs_merge_until_none_can(shared: bool) -> None:
    table = random_table(5, 7, 3, shared)
    groupings = merge_pairs(table)
    counts = [len(grouping.groups) for grouping in groupings]
    assert counts == list(range(counts[0], counts[0] - len(counts), -1))
    assert groupings[0].cost == own_designs(table).cost
    for grouping in groupings:
        check(table, grouping)
    assert all(table.centre((*a.members, *b.members)) is None
               for a, b in itertools.combinations(groupings[-1].groups, 2))


def test_samples_of_the_columns_make_plans_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(7, 8, 3, shared=True)
    assert merge_samples(table) == [], "fewer columns than a sample has"
    monkeypatch.setattr(search, "_SAMPLE_COLUMNS", len(table.sizes) - 2)
    groupings = merge_samples(table)
    assert groupings
    for grouping in groupings:
        check(table, grouping)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 12), count=st.integers(1, 4))
def test_rounding_makes_no_design(seed: int, rows: int, count: int) -> None:
    """Equal columns and costs of which sums round: one design is enough, and none is there twice."""
    rng = np.random.default_rng(seed)
    table = Table(np.repeat(0.1 + rng.random((rows, 1)), 2, axis=1), rng.integers(1, 4, rows), np.array([[1], [2]]))
    starts = Merger(table).merge_at()
    for start in starts:
        assert len(set(start.columns)) == len(start.columns)
    found = best_set(table, count, starts)
    assert found is not None
    assert len(found.grouping.groups) == 1 and found.is_optimal


def test_groups_on_one_design_are_one_where_they_share_nothing() -> None:
    table = line([[1, 2], [3, 4], [9, 5]])
    groups = [Group(0, (1,), 3.0), Group(1, (2,), 5.0), Group(0, (0,), 1.0)]
    assert table.joined(groups).groups == (Group(1, (2,), 5.0), Group(0, (0, 1), 4.0))


# ---- the thesis's heuristic -------------------------------------------------------------------------------


def line(costs: list[list[float]], counts: list[int] | None = None) -> Table:
    """A table whose designs have one size, 1 and up."""
    array = np.array(costs)
    return Table(array, np.array(counts or [1] * len(costs)), np.arange(1, array.shape[1] + 1)[:, None])


def test_equal_designs_merge_without_a_penalty() -> None:
    grouping = Merger(line([[1, 2], [3, 4], [9, 5]])).merge(0.0)
    assert [(group.column, group.members, group.cost) for group in grouping.groups] == [(1, (2,), 5), (0, (0, 1), 4)]


def test_a_group_takes_the_largest_sizes() -> None:
    table = line([[1.0, 1.1, 9.0], [9.0, 9.0, 2.0], [5.0, 3.0, 3.3]])
    grouping = Merger(table).merge(0.1)
    assert {group.members: group.column for group in grouping.groups} == {(1, 2): 2, (0,): 0}


def test_a_penalty_equal_to_the_limit_is_legal() -> None:
    table = line([[8.0, 10.0], [9.0, 4.0]])
    assert len(Merger(table).merge(0.25).groups) == 1
    assert len(Merger(table).merge(0.2499).groups) == 2


def test_the_largest_sizes_of_two_designs_may_be_in_no_table() -> None:
    """A wide and a tall design: 2 x 2 would be both, and is not legal."""
    table = Table(np.array([[1.0, 3.0], [3.0, 1.0]]), np.array([1, 1]), np.array([[1, 2], [2, 1]]))
    groupings = Merger(table).merge_at()
    assert cheapest(groupings, 1) is None
    assert {len(grouping.groups) for grouping in groupings} == {2}
    found = best_set(table, 1)
    assert found is not None and found.grouping.cost == 4.0


def test_what_merges_with_none_goes_back_and_the_next_is_tried() -> None:
    """The slowest row suits no other design; the others merge all the same."""
    table = line([[100.0, 900.0], [9.0, 1.0], [8.0, 1.0]])
    grouping = Merger(table).merge(0.5)
    assert [(group.column, group.members) for group in grouping.groups] == [(0, (0,)), (1, (1, 2))]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 10), limit=st.sampled_from(LIMITS), shared=st.booleans())
def test_the_heuristic_keeps_its_limit(seed: int, rows: int, limit: float, shared: bool) -> None:
    table = random_table(seed, rows, 3, shared)
    grouping = Merger(table).merge(limit)
    check(table, grouping)
    for group in grouping.groups:
        costs = table.together(group.members, np.array([group.column]))[:, 0]
        assert (costs <= table.least[list(group.members)] * (1 + limit) * (1 + 1e-9)).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 14), shared=st.booleans(), count=st.integers(1, 4))
def test_the_search_is_never_worse_than_the_heuristic(seed: int, rows: int, shared: bool, count: int) -> None:
    table = random_table(seed, rows, 3, shared)
    groupings = Merger(table).merge_at((0.0, 0.1, 1.0, 1e6))
    thesis = cheapest(groupings, count)
    if thesis is not None:
        found = best_set(table, count, groupings)
        assert found is not None
        assert found.grouping.cost <= thesis.cost * (1 + 1e-12)


# ---- tables -----------------------------------------------------------------------------------------------


def test_the_penalty_is_relative_to_the_best_design() -> None:
    table = line([[2.0, 3.0, 4.0]])
    assert table.penalties.tolist() == [[0.0, 0.5, 1.0]]
    assert table.within(0.5).costs.tolist() == [[2.0, 3.0, math.inf]]


def test_rows_count_as_often_as_they_occur() -> None:
    table = line([[1.0, 2.0], [4.0, 1.0]], [10, 1])
    assert table.centre((0, 1)) == Group(0, (0, 1), 14.0)
    assert own_designs(table).cost == 11.0


def test_equal_best_designs_share_only_where_that_costs_nothing() -> None:
    costs = np.array([[1.0, 5.0], [2.0, 5.0]])
    kinds = np.array([0, 0])
    free = Table(costs, np.array([1, 1]), np.array([[1], [2]]), Neighbours(costs, np.array([2, 2]), kinds, 8))
    dear = Table(costs, np.array([1, 1]), np.array([[1], [2]]), Neighbours(costs, np.array([1, 2]), kinds, 8))
    assert [group.members for group in own_designs(free).groups] == [(0, 1)]
    assert [group.members for group in own_designs(dear).groups] == [(1,), (0,)]
