"""Which values and gradients of a net may lie on one memory, because they are never needed at one time.

The plan is made from the graph and the sizes alone; nothing is allocated for it.  A step runs the layers 0 to n - 1
forward and n - 1 to 0 backward: layer i works at the times i and 2n - 1 - i.  What is on one memory anyway (Split,
Flatten, Reshape, layers in place) counts as one.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Mapping, Sequence

from .blob import Blob, SyncedMemory
from .layers import Layer


class Part(enum.Enum):
    """Of which tensor of a blob something is said."""

    VALUE = "value"
    GRAD = "gradient"


# A tensor of the net, by its blob's name.
Name = tuple[str, Part]


@dataclasses.dataclass(frozen=True)
class Use:
    """What the plan must know of one layer.

    Attributes
    ----------
    bottoms, tops : names of its blobs
    backward : whether its backward pass runs
    down : for which bottoms it writes the gradient
    needs_bottoms, needs_tops : whether its backward pass reads their values
    shares_value, shares_grad : whether its tops lie on the memory of its bottom
    early_grad : whether its forward pass writes the gradient of bottom 0
    """

    bottoms: Sequence[str]
    tops: Sequence[str]
    backward: bool
    down: Sequence[bool]
    needs_bottoms: bool = True
    needs_tops: bool = True
    shares_value: bool = False
    shares_grad: bool = False
    early_grad: bool = False


@dataclasses.dataclass(frozen=True)
class Life:
    """From when to when tensors that lie on one memory are needed.

    Attributes
    ----------
    names : the tensors
    count : elements of each
    first, last : times of the first write and of the last use
    """

    names: tuple[Name, ...]
    count: int
    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both are needed at some time."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Plan:
    """Memories with the lives that follow one another on each.

    Attributes
    ----------
    memories : the lives on each memory, the largest first; only of those that take turns or could
    """

    memories: tuple[tuple[Life, ...], ...]

    @property
    def count_apart(self) -> int:
        """Elements that the tensors take where each has memory of its own."""
        return sum(life.count for lives in self.memories for life in lives)

    @property
    def count(self) -> int:
        """Elements that they take by this plan."""
        return sum(max(life.count for life in lives) for lives in self.memories)

    @property
    def saved_count(self) -> int:
        """Elements that the plan saves."""
        return self.count_apart - self.count


def uses(layers: Sequence[Layer], top_names: Sequence[Sequence[str]], need_backward: Sequence[bool],
         propagate_down: Sequence[Sequence[bool]]) -> list[Use]:
    """What the plan must know of the layers of a net.

    Parameters
    ----------
    top_names : names of the tops of each layer, those that the definition leaves out included
    need_backward, propagate_down : which layers run backward, and for which bottoms
    """
    result = []
    for layer, tops, backward, down in zip(layers, top_names, need_backward, propagate_down, strict=True):
        needs_bottoms, needs_tops = layer.backward_needs()
        result.append(Use(tuple(layer.param.bottom), tuple(tops), backward, tuple(down), needs_bottoms, needs_tops,
                          layer.shares_value, layer.shares_grad, layer.early_grad))
    return result


def make_plan(steps: Sequence[Use], counts: Mapping[str, int], keep: Collection[str], backward: bool) -> Plan:
    """Let tensors that are not needed at one time lie on one memory, large ones first, each where it wastes least.

    Parameters
    ----------
    steps : the layers in order
    counts : elements of each blob
    keep : blobs that are to stay as they are: outputs, losses and what else is read after a step
    backward : whether backward passes run at all
    """
    kept = frozenset(keep).union(*(step.tops for step in steps if not step.bottoms))
    lives = _values(steps, counts, kept, backward)
    if backward:
        lives += _gradients(steps, counts, kept)
    memories: list[list[Life]] = []
    for life in sorted(lives, key=lambda life: (-life.count, life.first, life.names[0][0])):
        # Memories are made by falling size, so that the last one that is free fits best.
        free = [memory for memory in memories if not any(life.meets(other) for other in memory)]
        if free:
            free[-1].append(life)
        else:
            memories.append([life])
    return Plan(tuple(tuple(sorted(memory, key=lambda life: life.first)) for memory in memories))


def apart(steps: Sequence[Use], counts: Mapping[str, int], backward: bool) -> tuple[int, int]:
    """Elements of all values and of all gradients, each in memory of its own; arguments as for `make_plan`."""
    values = sum(life.count for life in _values(steps, counts, frozenset(), backward))
    return values, sum(life.count for life in _gradients(steps, counts, frozenset())) if backward else 0


def apply_plan(plan: Plan, blobs: Mapping[str, Blob]) -> None:
    """Lay the tensors of a net, whose shapes are set and whose memory is not yet used, on the memories of a plan."""
    for lives in plan.memories:
        if len(lives) < 2:
            continue
        tensors = [blobs[name].value if part is Part.VALUE else blobs[name].grad
                   for life in lives for name, part in life.names]
        memory = SyncedMemory(max(life.count for life in lives), tensors[0].dtype, by_turns=True)
        for tensor in tensors:
            tensor.lie_on(memory)


def _values(steps: Sequence[Use], counts: Mapping[str, int], kept: frozenset[str], backward: bool) -> list[Life]:
    """The lives of values: from the first layer that writes one to the last pass that reads it."""
    groups = _Groups()
    times: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        if step.shares_value:
            for top in step.tops:
                groups.unite(step.bottoms[0], top)
        for name in (*step.bottoms, *step.tops):
            times.setdefault(name, []).append(index)
        if backward and step.backward:
            needed = (*(step.bottoms if step.needs_bottoms else ()), *(step.tops if step.needs_tops else ()))
            for name in needed:
                times[name].append(2 * len(steps) - 1 - index)
    return [Life(tuple((name, Part.VALUE) for name in names), counts[names[0]],
                 min(min(times[name]) for name in names), max(max(times[name]) for name in names))
            for names in groups.of(times) if not kept.intersection(names)]


def _gradients(steps: Sequence[Use], counts: Mapping[str, int], kept: frozenset[str]) -> list[Life]:
    """The lives of gradients that are written before they are read.

    One that is read although nobody writes it reads as zeros: it needs memory of its own.
    """
    groups = _Groups()
    # (time, 0 for a read and 1 for a write), so that a layer in place reads before it writes.
    events: dict[str, list[tuple[int, int]]] = {}
    for index, step in enumerate(steps):
        time = 2 * len(steps) - 1 - index
        if step.early_grad:
            events.setdefault(step.bottoms[0], []).append((index, 1))
        if not step.backward:
            continue
        if step.shares_grad and step.down[0]:
            groups.unite(step.bottoms[0], step.tops[0])
            continue
        for name in step.tops:
            events.setdefault(name, []).append((time, 0))
        for name, written in zip(step.bottoms, step.down, strict=True):
            if written:
                events.setdefault(name, []).append((time, 1))
    lives = []
    for names in groups.of(events):
        own = sorted(event for name in names for event in events.get(name, ()))
        if own[0][1] and not kept.intersection(names):
            lives.append(Life(tuple((name, Part.GRAD) for name in names), counts[names[0]], own[0][0], own[-1][0]))
    return lives


class _Groups:
    """Blobs that lie on one memory."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def unite(self, one: str, other: str) -> None:
        self._first[self._find(other)] = self._find(one)

    def of(self, names: Collection[str]) -> list[list[str]]:
        """The groups that hold any of `names`, with all that are in them."""
        members: dict[str, list[str]] = {}
        for name in dict.fromkeys((*names, *self._first)):
            members.setdefault(self._find(name), []).append(name)
        return [group for group in members.values() if any(name in names for name in group)]

    def _find(self, name: str) -> str:
        while self._first.get(name, name) != name:
            name = self._first[name]
        return name
