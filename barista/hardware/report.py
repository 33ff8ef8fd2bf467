"""What a vendor's tools reported of a build: cycles, resources and clock, as a manifest keeps them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# Loops that a report may have; a kernel of this package has a dozen.
MOST_LOOPS = 1000

# What can be counted, as C synthesis and the link report name it; both say BRAM, the former in blocks of 18 Kb.
SYNTHESIS_RESOURCES = ("BRAM_18K", "DSP", "FF", "LUT", "URAM")
LINK_RESOURCES = ("LUT", "LUTAsMem", "REG", "BRAM", "URAM", "DSP")
# Beyond any count and any rate of a card.
_END = 10**18
# How far a design had come when it was counted, the furthest first.
STAGES = ("routed", "placed", "synthed")


class Span(NamedTuple):
    """The least and the most of a count that depends on what runs."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop as C synthesis scheduled it; None is what it does not know.

    Parameters
    ----------
    module : the function that it is in
    name : its label, behind those of the loops around it: ``tiles.steps``
    trips : how often its body runs
    interval_cycles : from one body's begin to the next one's (II); None where it is not pipelined
    latency_cycles : of all its bodies
    depth_cycles : of one body
    """

    module: str
    name: str
    trips: Span | None
    interval_cycles: int | None
    latency_cycles: Span | None
    depth_cycles: int | None


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """What C synthesis estimates.

    Parameters
    ----------
    tool : its version
    top : the function that became the kernel
    part : the device that it was synthesised for
    target_hz, estimated_hz : the clock that was asked for, and the one that it expects to reach
    latency_cycles : of one run of the kernel; None where that depends on its arguments
    used, available : resource (`SYNTHESIS_RESOURCES`) to blocks
    loops : all that it lists
    """

    tool: str
    top: str
    part: str
    target_hz: float | None
    estimated_hz: float | None
    latency_cycles: Span | None
    used: Mapping[str, int]
    available: Mapping[str, int]
    loops: tuple[Loop, ...]

    @property
    def slow_loops(self) -> str:
        """A sentence about the loops that begin a body less often than every cycle, which every loop asks for; ''."""
        slow = [f"{loop.name} in {loop.module} ({loop.interval_cycles})" for loop in self.loops
                if loop.interval_cycles is not None and loop.interval_cycles > 1]
        return f"loops whose II is above the 1 that the code asks for: {', '.join(slow)}" if slow else ""


@dataclasses.dataclass(frozen=True)
class Link:
    """What a kernel takes of a card after linking.

    Parameters
    ----------
    stage : one of `STAGES`
    used : resource (`LINK_RESOURCES`) to how many the kernel takes; BRAM in blocks of 36 Kb
    budget : how many the platform leaves
    """

    stage: str
    used: Mapping[str, float]
    budget: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """What is known of a build; None where no report said it.

    Parameters
    ----------
    synthesis, link : see there
    clock_hz : the clock that the binary runs at
    """

    synthesis: Synthesis | None = None
    link: Link | None = None
    clock_hz: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As manifests have it."""
        return dataclasses.asdict(self)


def report_from_json(said: Any) -> BuildReport:
    """Make a report of what `BuildReport.to_json` gives.

    Raises
    ------
    ValueError : something else; the message names the field
    """
    fields = _Fields(said, BuildReport, "report")
    return BuildReport(fields.maybe("synthesis", _synthesis), fields.maybe("link", _link), fields.rate("clock_hz"))


def _synthesis(said: Any, where: str) -> Synthesis:
    fields = _Fields(said, Synthesis, where)
    loops = fields["loops"]
    if not isinstance(loops, list) or len(loops) > MOST_LOOPS:
        raise ValueError(f"{where}.loops is no list of at most {MOST_LOOPS} loops")
    return Synthesis(fields.text("tool"), fields.text("top"), fields.text("part"), fields.rate("target_hz"),
                     fields.rate("estimated_hz"), fields.span("latency_cycles"),
                     fields.table("used", SYNTHESIS_RESOURCES, _count),
                     fields.table("available", SYNTHESIS_RESOURCES, _count),
                     tuple(_loop(loop, f"{where}.loops[{index}]") for index, loop in enumerate(loops)))


def _loop(said: Any, where: str) -> Loop:
    fields = _Fields(said, Loop, where)
    return Loop(fields.text("module"), fields.text("name"), fields.span("trips"),
                fields.maybe("interval_cycles", _count), fields.span("latency_cycles"),
                fields.maybe("depth_cycles", _count))


def _link(said: Any, where: str) -> Link:
    fields = _Fields(said, Link, where)
    if fields["stage"] not in STAGES:
        raise ValueError(f"{where}.stage is {fields['stage']!r}, none of {', '.join(STAGES)}")
    return Link(fields["stage"], fields.table("used", LINK_RESOURCES, _amount),
                fields.table("budget", LINK_RESOURCES, _amount))


class _Fields:
    """The fields of a JSON object, each checked when it is asked for.

    Parameters
    ----------
    said : what should be an object with the fields of `kind`
    where : what it is, for messages
    """

    def __init__(self, said: Any, kind: type[Any], where: str) -> None:
        names = [field.name for field in dataclasses.fields(kind)]
        if not isinstance(said, dict) or sorted(said) != sorted(names):
            raise ValueError(f"{where} is no object with the fields {', '.join(names)}")
        self._said, self._where = said, where

    def __getitem__(self, name: str) -> Any:
        return self._said[name]

    def maybe(self, name: str, read: Callable[[Any, str], T]) -> T | None:
        return None if self._said[name] is None else read(self._said[name], f"{self._where}.{name}")

    def text(self, name: str) -> str:
        if not isinstance(self._said[name], str):
            raise ValueError(f"{self._where}.{name} is {self._said[name]!r}, no text")
        return str(self._said[name])

    def rate(self, name: str) -> float | None:
        value = self.maybe(name, _amount)
        if value == 0:
            raise ValueError(f"{self._where}.{name} is 0, no rate")
        return value

    def span(self, name: str) -> Span | None:
        return self.maybe(name, _span)

    def table(self, name: str, known: tuple[str, ...], read: Callable[[Any, str], T]) -> dict[str, T]:
        said = self._said[name]
        if not isinstance(said, dict) or not set(said) <= set(known):
            raise ValueError(f"{self._where}.{name} is no object with counts of {', '.join(known)}")
        return {key: read(value, f"{self._where}.{name}.{key}") for key, value in said.items()}


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _END:
        raise ValueError(f"{where} is {value!r}, no count")
    return value


def _amount(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _END:
        raise ValueError(f"{where} is {value!r}, no amount")
    return value


def _span(value: Any, where: str) -> Span:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{where} is {value!r}, not the least and the most of a count")
    low, high = (_count(part, where) for part in value)
    if low > high:
        raise ValueError(f"{where} is {value!r}: the least is above the most")
    return Span(low, high)
