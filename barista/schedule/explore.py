"""Design space exploration: the table of what a network costs on each design of a grid, and what is best in it.

    workloads ── rows ──┐
    grid, board ── legal points ──> Table ──> best of each row, best single one, best few (merge.py, search.py)

Latencies are those of `latency.gemm_model` and `latency.conv_model`, resources those of `latency.resources`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import UnsupportedError
from ..latency.conv_model import ConvAssumptions
from ..latency.gemm_model import GemmAssumptions, pass_latency
from ..latency.resources import BRAM18, URAM, gemm_blocks, gemm_bram_bits, gemm_dsp
from .merge import LIMITS, Merger, cheapest
from .rows import Row
from .search import Found, best_set, fewest, merge_pairs, merge_samples
from .sharing import ConvSharing
from .space import KINDS, Exclusions, Limits, legal
from .table import Group, Grouping, Integers, Table, own_designs

OBJECTIVES = ("latency", "energy")

Done = Callable[[], object]


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Power:
    """What computing takes: the board's power while it works, and its host's while that cuts and joins tiles."""

    board_w: float
    host_w: float = 0.0


@dataclasses.dataclass(frozen=True)
class Space:
    """A network on the legal designs of a grid.

    Parameters
    ----------
    kind : ``gemm`` or ``conv``
    rows : that some design holds
    homeless : rows that no design holds, each with what excludes how many designs
    table : seconds, or joules, of the rows
    exclusions : designs of the grid that no row can have
    """

    kind: str
    rows: tuple[Row, ...]
    homeless: tuple[tuple[Row, str], ...]
    table: Table
    exclusions: Exclusions

    def design(self, column: int) -> str:
        """A design as its sizes, such as ``32,32,64``."""
        return ",".join(map(str, self.table.sizes[column].tolist()))

    @property
    def sizes(self) -> str:
        """What the sizes are, such as ``Tr,Tc,Tp``."""
        return ",".join(name.capitalize() for name in KINDS[self.kind])


def gemm_space(rows: Sequence[Row], points: Integers, limits: Limits, assumptions: GemmAssumptions, dsp_an_element: int,
               power: Power | None = None, products: str = "image", done: Done = _nothing) -> Space:
    """The space of Barista's array: every design that the board holds computes every product.

    Parameters
    ----------
    points : Tr, Tc and Tp of each design
    dsp_an_element : V (Eq. 4.10)
    power : to count joules; None to count seconds
    products : see `pass_latency`
    done : called after each workload

    Raises
    ------
    UnsupportedError : no legal point
    """
    tr, tc, tp = points.T
    a = assumptions
    constraints = {f"DSP (at most {limits.dsp:,})": gemm_dsp(tr, tc, dsp_an_element) <= limits.dsp,
                   f"on-chip memory (at most {limits.bram_bits:,} bits)":
                       gemm_bram_bits(tr, tc, tp, a.word_bits, a.partial_sums) <= limits.bram_bits}
    if limits.bram18 is not None:
        blocks = [gemm_blocks(tr, tc, tp, a.word_bits, a.partial_sums, a.result_bits, ram) for ram in (BRAM18, URAM)]
        constraints[f"blocks (at most {limits.memory})"] = limits.hold(*blocks)
    points, exclusions = legal(points, constraints)
    tr, tc, tp = points.T
    costs = np.zeros((len(rows), len(points)))
    for row, cost in zip(rows, costs, strict=True):
        for workload in row.workloads:
            found = pass_latency(workload, tr, tc, tp, assumptions, products)
            host_s = found.tiling_s + found.untiling_s
            cost += (found.total_s if power is None else
                     power.board_w * (found.total_s - host_s) + power.host_w * host_s)
            done()
    return Space("gemm", tuple(rows), (), Table(costs, _counts(rows), points), exclusions)


def conv_space(rows: Sequence[Row], points: Integers, limits: Limits, assumptions: ConvAssumptions,
               dsp_an_element: int, power: Power | None = None, done: Done = _nothing) -> Space:
    """The space of FPGPT's array: a design has the memory that the convolutions on it need.

    Parameters
    ----------
    points : X and Y of each design
    dsp_an_element : 9 for float32, 3 for fixed point
    power : to count joules; None to count seconds
    done : called after each workload

    Raises
    ------
    UnsupportedError : no legal point, or not one of the rows fits anywhere
    """
    points, exclusions = legal(points, {
        f"DSP (at most {limits.dsp:,})": gemm_dsp(points[:, 0], points[:, 1], dsp_an_element) <= limits.dsp})
    factor = 1.0 if power is None else power.board_w
    sharing = ConvSharing(rows, points, assumptions, limits, factor, done)
    costs = np.concatenate([sharing.costs([index], slice(None)) for index in range(len(rows))])
    fits = np.isfinite(costs).any(axis=1)
    reason = f"{exclusions}; of the {len(points):,} left memory (at most {limits.memory}) excludes all"
    homeless = tuple((row, reason) for row, held in zip(rows, fits, strict=True) if not held)
    kept = np.flatnonzero(fits).tolist()
    if not kept:
        raise UnsupportedError(f"{rows[0].names[0]} and all others: the grid has no legal point: {reason}; give a "
                               "larger board, more of it (--limits card), or another --grid")
    rows = [rows[index] for index in kept]
    return Space("conv", tuple(rows), homeless, Table(costs[kept], _counts(rows), points, sharing.only(kept)),
                 exclusions)


def _counts(rows: Sequence[Row]) -> Integers:
    return np.array([len(row.names) for row in rows], np.int64)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Few designs by our search, and beside them what the thesis's heuristic finds.

    Parameters
    ----------
    found : ours
    thesis : the heuristic's, None where it has none
    """

    found: Found
    thesis: Grouping | None


class Explorer:
    """Asks a space for its best designs; what several questions need is computed once.

    Parameters
    ----------
    space : to explore
    done : called once for each of the limits while the first set is sought
    limits : that the thesis's heuristic tries for a set of a given size
    """

    def __init__(self, space: Space, done: Done = _nothing, limits: Sequence[float] = LIMITS) -> None:
        self.space, self._done, self._limits = space, done, limits
        self._table = space.table
        self._merger = Merger(space.table)

    @property
    def own(self) -> Grouping:
        """Each row on its own best design."""
        return own_designs(self._table)

    @functools.cached_property
    def single(self) -> Group | None:
        """The design that is best for all rows together, None where none holds all."""
        return self._table.centre(range(len(self._table.costs)))

    def best_set(self, count: int) -> Choice:
        """The best of at most `count` designs.

        Raises
        ------
        UnsupportedError : none was found
        """
        found = best_set(self._table, count, self._starts)
        if found is None:
            least = min(len(start.groups) for start in self._starts)
            raise UnsupportedError(f"no {count} design{' was' if count == 1 else 's were'} found that hold"
                                   f"{'s' if count == 1 else ''} all {len(self._table.costs)} different convolutions, "
                                   f"since those that share one share its memory; {least} were: give "
                                   f"--max-bitstreams {least}, or a larger board")
        return Choice(found, cheapest(self._merged, count))

    def within(self, limit: float) -> Choice:
        """The fewest designs with which no row is more than `limit` slower than on its own best one."""
        thesis = self._merger.merge(limit)
        return Choice(fewest(self._table, limit, thesis), thesis)

    @functools.cached_property
    def _merged(self) -> list[Grouping]:
        return self._merger.merge_at(self._limits, self._done)

    @functools.cached_property
    def _starts(self) -> list[Grouping]:
        if self._table.sharing is None:
            return self._merged
        return [*self._merged, *merge_pairs(self._table), *merge_samples(self._table)]
