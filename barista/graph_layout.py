"""Where the boxes of a directed graph go, and which way its edges take, in layers (Sugiyama's method).

Four steps: each node's layer is its longest path from a source; edges over several layers get a place to pass in each;
the order in a layer puts every node near the mean of its neighbours, so that few edges cross; then places follow,
as near to the neighbours as the widths allow.  Pure arithmetic, without anything that draws.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

# Times that orders and places are improved, down and up.
_ORDER_SWEEPS, _PLACE_SWEEPS = 16, 24
# How much straighter than others an edge over several layers is drawn, where it passes.
_STRAIGHT = 8.0


class Point(NamedTuple):
    """A place: along the flow, and across it."""

    along: float
    across: float


@dataclasses.dataclass
class Layout:
    """A drawing's geometry.

    Attributes
    ----------
    middles : of each node
    routes : for each edge, from the middle of its source to that of its target, the points where it enters and leaves
        each layer between
    length, width : of all of it, along and across
    """

    middles: list[Point]
    routes: list[list[Point]]
    length: float
    width: float


@dataclasses.dataclass
class _Place:
    """A node, or where edges of one source pass a layer: its size across, its neighbours, and where it is."""

    size: float
    passing: bool = False
    above: list[int] = dataclasses.field(default_factory=list)
    below: list[int] = dataclasses.field(default_factory=list)
    middle: float = 0.0


def lay_out(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], gap_along: float,
            gap_across: float) -> Layout:
    """Lay a graph without cycles out in layers.

    Parameters
    ----------
    sizes : of each node, along and across
    edges : source and target of each
    gap_along, gap_across : room between layers, and between two nodes of one

    Raises
    ------
    ValueError : the graph has a cycle
    """
    ranks = _ranks(len(sizes), edges)
    places = [_Place(across) for _, across in sizes]
    layers: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for node, rank in enumerate(ranks):
        layers[rank].append(node)
    chains = _add_passing(edges, ranks, places, layers, gap_across / 2)
    _order(layers, places)
    _place(layers, places, gap_across)
    starts, ends, position = [], [], 0.0
    for layer in layers:
        starts.append(position)
        ends.append(position + max((sizes[node][0] for node in layer if node < len(sizes)), default=0.0))
        position = ends[-1] + gap_along
    edge = min((place.middle - place.size / 2 for place in places), default=0.0)
    middles = [Point((starts[rank] + ends[rank]) / 2, places[node].middle - edge) for node, rank in enumerate(ranks)]
    routes = []
    for (source, target), chain in zip(edges, chains, strict=True):
        route = [middles[source]]
        for rank, node in enumerate(chain, ranks[source] + 1):
            across = places[node].middle - edge
            route += [Point(starts[rank], across), Point(ends[rank], across)]
        routes.append([*route, middles[target]])
    return Layout(middles, routes, ends[-1] if ends else 0.0,
                  max((place.middle + place.size / 2 for place in places), default=0.0) - edge)


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each node: the longest path from a source; sources stand right before what they feed."""
    below: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for source, target in edges:
        below[source].append(target)
        waiting[target] += 1
    sources = [node for node in range(count) if not waiting[node]]
    ranks = [0] * count
    ahead = list(sources)
    for node in ahead:
        for target in below[node]:
            ranks[target] = max(ranks[target], ranks[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ahead.append(target)
    if len(ahead) < count:
        raise ValueError("the graph has a cycle")
    for node in sources:
        ranks[node] = min((ranks[target] - 1 for target in below[node]), default=0)
    return ranks


def _add_passing(edges: Sequence[tuple[int, int]], ranks: Sequence[int], places: list[_Place],
                 layers: list[list[int]], size: float) -> list[list[int]]:
    """Give edges over several layers a place in each, those of one source the same one; link all neighbours.

    Returns
    -------
    for each edge the places it passes
    """
    lanes: dict[int, list[int]] = {}
    chains = []
    for source, target in edges:
        lane = lanes.setdefault(source, [])
        while len(lane) < ranks[target] - ranks[source] - 1:
            layers[ranks[source] + 1 + len(lane)].append(len(places))
            places.append(_Place(size, passing=True))
            before = lane[-1] if lane else source
            _link(places, before, len(places) - 1)
            lane.append(len(places) - 1)
        chains.append(lane[:ranks[target] - ranks[source] - 1])
        _link(places, chains[-1][-1] if chains[-1] else source, target)
    return chains


def _link(places: Sequence[_Place], upper: int, lower: int) -> None:
    places[upper].below.append(lower)
    places[lower].above.append(upper)


def _order(layers: list[list[int]], places: Sequence[_Place]) -> None:
    """Order each layer by the means of its neighbours' positions; the order with the fewest crossings stays."""
    position = [0.0] * len(places)
    for layer in layers:
        _number(layer, position)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, places, position)
    for sweep in range(_ORDER_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            means = {node: _mean(places[node].above if down else places[node].below, position, position[node])
                     for node in layer}
            layer.sort(key=means.__getitem__)
            _number(layer, position)
        crossings = _crossings(layers, places, position)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
        if not fewest:
            break
    layers[:] = best


def _number(layer: Sequence[int], position: list[float]) -> None:
    for number, node in enumerate(layer):
        position[node] = float(number)


def _mean(nodes: Sequence[int], position: Sequence[float], default: float) -> float:
    return sum(position[node] for node in nodes) / len(nodes) if nodes else default


def _crossings(layers: Sequence[Sequence[int]], places: Sequence[_Place], position: Sequence[float]) -> int:
    """How many pairs of edges between neighbouring layers cross."""
    total = 0
    for layer in layers:
        lower = [position[below] for node in layer for below in sorted(places[node].below, key=position.__getitem__)]
        total += sum(first > second for i, first in enumerate(lower) for second in lower[i + 1:])
    return total


def _place(layers: Sequence[Sequence[int]], places: Sequence[_Place], gap: float) -> None:
    """Move every node towards the mean of its neighbours, keeping order and distances."""
    for layer in layers:
        start = 0.0
        for node in layer:
            places[node].middle = start + places[node].size / 2
            start += places[node].size + gap
        for node in layer:
            places[node].middle -= (start - gap) / 2
    for sweep in range(_PLACE_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            wanted, weights = [], []
            for node in layer:
                here = places[node]
                # The last sweeps look both ways.
                near = here.above + here.below if sweep >= _PLACE_SWEEPS - 4 else here.above if down else here.below
                pull = [_STRAIGHT if here.passing and places[other].passing else 1.0 for other in near]
                middles = [places[other].middle for other in near]
                wanted.append(sum(p * m for p, m in zip(pull, middles, strict=True)) / sum(pull) if near
                              else here.middle)
                weights.append(sum(pull) if near else 0.1)
            distances = [(places[one].size + places[two].size) / 2 + gap
                         for one, two in itertools.pairwise(layer)]
            for node, middle in zip(layer, _spread(wanted, weights, distances), strict=True):
                places[node].middle = middle


def _spread(wanted: Sequence[float], weights: Sequence[float], distances: Sequence[float]) -> list[float]:
    """Places in order, at least so far apart, nearest to the wanted ones (least squares, pooling neighbours)."""
    offsets = [0.0]
    for distance in distances:
        offsets.append(offsets[-1] + distance)
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of nodes
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        pool = (want - offset, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, before, count = pools.pop()
            pool = ((mean * before + pool[0] * pool[1]) / (before + pool[1]), before + pool[1], count + pool[2])
        pools.append(pool)
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]
