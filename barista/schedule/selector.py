"""The selector: which engine and which bitstream compute each pass, so that an iteration takes the least time.

A card holds one bitstream.  A pass on another one waits until that is loaded, so the best choice for one pass depends
on the passes before and after it.  Dynamic programming over the order of execution, with the loaded bitstream as its
state, finds the optimum exactly.

The optimum is that of training: one iteration follows another with the same choices, so the bitstream that an
iteration leaves on the card is the one that the next iteration finds there.  What the very first iteration loads, and
what the test net loads in between, does not count.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from ..errors import ScheduleError
from ..gemm.shapes import Pass
from ..latency.workload import Workload
from .schedule import CPU, FPGA, Entry, Schedule

Key = tuple[str, Pass]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to compute a pass.

    Parameters
    ----------
    engine : one of `schedule.ENGINES`
    seconds : what the pass takes, its bitstream being loaded
    bitstream : for engine fpga its name, else ''
    breakdown : seconds by stage
    im2col : for engine fpga where columns are unrolled
    """

    engine: str
    seconds: float
    bitstream: str = ""
    breakdown: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)
    im2col: str = ""

    @property
    def name(self) -> str:
        """The bitstream, or the engine that needs none."""
        return self.bitstream or self.engine


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was chosen for one pass of one layer.

    Parameters
    ----------
    workload : the pass
    times : how often an iteration runs it: once for each bottom of the layer
    candidate : the choice
    runner_up : what would be best in its place, all other choices being kept; None where there is nothing else
    runner_up_costs_s : by how much an iteration would then be longer, reconfigurations included
    """

    workload: Workload
    times: int
    candidate: Candidate
    runner_up: Candidate | None = None
    runner_up_costs_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an iteration computes where.

    Parameters
    ----------
    choices : one for each layer and pass, in the order in which they first run
    compute_s : all passes of an iteration
    reconfiguration_s : loading of bitstreams in an iteration
    swaps : how often an iteration loads a bitstream
    """

    choices: tuple[Choice, ...]
    compute_s: float
    reconfiguration_s: float
    swaps: int

    @property
    def total_s(self) -> float:
        """An iteration's passes and loading."""
        return self.compute_s + self.reconfiguration_s

    def schedule(self, net: str, batch: int, source: str = "schedule") -> Schedule:
        """The plan as the FPGA op set executes it."""
        return Schedule(net, batch, tuple(Entry(c.workload.layer, c.workload.pass_, c.candidate.engine,
                                                c.candidate.bitstream, c.candidate.im2col) for c in self.choices),
                        source=source)


def select(workloads: Sequence[Workload], candidates: Mapping[Key, Sequence[Candidate]],
           reconfiguration_s: Mapping[str, float]) -> Plan:
    """Find the plan with the least time of an iteration.

    Parameters
    ----------
    workloads : the passes of an iteration in the order of execution; a layer with several bottoms has some of them
        several times, which all run on one engine
    candidates : for each layer and pass the ways to compute it, at least one
    reconfiguration_s : bitstream to what loading it takes

    Raises
    ------
    ScheduleError : a pass without candidates, or a bitstream without a time to load it
    """
    return evaluate(workloads, _optimum(workloads, candidates, reconfiguration_s), reconfiguration_s, candidates)


def evaluate(workloads: Sequence[Workload], chosen: Mapping[Key, Candidate], reconfiguration_s: Mapping[str, float],
             candidates: Mapping[Key, Sequence[Candidate]] | None = None) -> Plan:
    """What given choices take.

    Parameters
    ----------
    workloads, reconfiguration_s : as for `select`
    chosen : a candidate for each layer and pass
    candidates : where given, the runners-up come from here
    """
    keys = [key_of(workload) for workload in workloads]
    compute_s, loading_s, swaps = _iteration(keys, chosen, reconfiguration_s)

    def runner_up(key: Key) -> tuple[Candidate | None, float]:
        best: tuple[Candidate | None, float] = None, math.inf
        for other in (candidates or {}).get(key, ()):
            if other.name != chosen[key].name:
                instead = _iteration(keys, {**chosen, key: other}, reconfiguration_s)
                costs_s = instead[0] + instead[1] - compute_s - loading_s
                if costs_s < best[1]:
                    best = other, costs_s
        return best if best[0] is not None else (None, 0.0)

    first = {key: workload for key, workload in zip(reversed(keys), reversed(workloads), strict=True)}
    choices = tuple(Choice(first[key], keys.count(key), chosen[key], *runner_up(key)) for key in dict.fromkeys(keys))
    return Plan(choices, compute_s, loading_s, swaps)


def alternatives(workloads: Sequence[Workload], candidates: Mapping[Key, Sequence[Candidate]],
                 reconfiguration_s: Mapping[str, float]) -> dict[str, Plan]:
    """What a plan is to be compared with.

    Returns
    -------
    ``CPU only``, ``one bitstream, every pass on it`` and ``one bitstream beside the CPU`` (and OpenCL, where it has
    candidates), each the best of its kind; left out are those that some pass has no candidate for, and the last where
    the best of its kind uses no bitstream
    """
    def best(*kinds: Callable[[Candidate], bool]) -> Plan | None:
        plans = []
        for kind in kinds:
            kept = {key: [one for one in ways if kind(one)] for key, ways in candidates.items()}
            if all(kept.values()):
                chosen = _optimum(workloads, kept, reconfiguration_s)
                plans.append(evaluate(workloads, chosen, reconfiguration_s))
        return min(plans, key=lambda plan: plan.total_s, default=None)

    names = list(reconfiguration_s)
    found = {
        "CPU only": best(lambda one: one.engine == CPU),
        "one bitstream, every pass on it": best(*(partial(_uses_only, name, False) for name in names)),
        "one bitstream beside the CPU": best(*(partial(_uses_only, name, True) for name in names)),
    }
    beside = found["one bitstream beside the CPU"]
    if beside is not None and not any(choice.candidate.bitstream for choice in beside.choices):
        del found["one bitstream beside the CPU"]
    return {name: plan for name, plan in found.items() if plan is not None}


def key_of(workload: Workload) -> Key:
    """What identifies a pass in a schedule."""
    return workload.layer, workload.pass_


# ---- dynamic programming ----------------------------------------------------------------------------------

def _optimum(workloads: Sequence[Workload], candidates: Mapping[Key, Sequence[Candidate]],
             reconfiguration_s: Mapping[str, float]) -> dict[Key, Candidate]:
    """The choices of `select`."""
    keys = [key_of(workload) for workload in workloads]
    _check(keys, candidates, reconfiguration_s)
    steps = [_options(part, candidates, reconfiguration_s) for part in _parts(keys)]
    chosen: dict[Key, Candidate] = {}
    for option in _shortest_cycle(steps, reconfiguration_s):
        chosen.update(option.chosen)
    return chosen


@dataclasses.dataclass(frozen=True)
class _Option:
    """A way to compute a part of the iteration.

    Attributes
    ----------
    chosen : the candidate of each of its passes
    first, last : the bitstream that must be there before it, and the one that it leaves; '' where it uses none
    seconds : what it takes once `first` is there
    """

    chosen: Mapping[Key, Candidate]
    first: str
    last: str
    seconds: float


def _parts(keys: Sequence[Key]) -> Iterator[list[Key]]:
    """Cut the iteration into the shortest parts with all runs of a pass in one part."""
    last = {key: index for index, key in enumerate(keys)}
    start = end = 0
    for index, key in enumerate(keys):
        end = max(end, last[key])
        if index == end:
            yield list(keys[start:index + 1])
            start = index + 1


def _options(part: Sequence[Key], candidates: Mapping[Key, Sequence[Candidate]],
             reconfiguration_s: Mapping[str, float]) -> list[_Option]:
    """The best way through a part for each bitstream that it may need first and leave last."""
    best: dict[tuple[str, str], _Option] = {}
    passes = list(dict.fromkeys(part))
    for combination in itertools.product(*(candidates[key] for key in passes)):
        chosen = dict(zip(passes, combination, strict=True))
        used = [chosen[key].bitstream for key in part if chosen[key].bitstream]
        seconds = sum(chosen[key].seconds for key in part)
        seconds += sum(reconfiguration_s[after] for before, after in itertools.pairwise(used) if before != after)
        option = _Option(chosen, used[0] if used else "", used[-1] if used else "", seconds)
        ends = option.first, option.last
        if ends not in best or seconds < best[ends].seconds:
            best[ends] = option
    return list(best.values())


def _shortest_cycle(steps: Sequence[Sequence[_Option]], reconfiguration_s: Mapping[str, float]) -> list[_Option]:
    """The options of an iteration that ends with the bitstream with which it began, in the least time."""
    cycles = [_shortest_path(steps, reconfiguration_s, start) for start in reconfiguration_s or [""]]
    return min(cycles, key=lambda cycle: cycle[0])[1]


def _shortest_path(steps: Sequence[Sequence[_Option]], reconfiguration_s: Mapping[str, float],
                   start: str) -> tuple[float, list[_Option]]:
    """The least time from `start` on the card through all steps to `start` on the card, and the options."""
    reached = {start: 0.0}
    taken: list[dict[str, tuple[str, _Option]]] = []  # of each step: bitstream after it to that before, and the option
    for options in steps:
        cheapest = min(reached, key=reached.__getitem__)
        after: dict[str, float] = {}
        how: dict[str, tuple[str, _Option]] = {}
        for option in options:
            if not option.first:  # what is on the card stays there
                arrivals = [(before, seconds, before) for before, seconds in reached.items()]
            else:
                loaded = cheapest, reached[cheapest] + reconfiguration_s[option.first]
                there = reached.get(option.first, math.inf)
                before, seconds = (option.first, there) if there <= loaded[1] else loaded
                arrivals = [(before, seconds, option.last)]
            for before, seconds, state in arrivals:
                if seconds + option.seconds < after.get(state, math.inf):
                    after[state], how[state] = seconds + option.seconds, (before, option)
        reached = after
        taken.append(how)
    if start not in reached:
        return math.inf, []
    path, state = [], start
    for how in reversed(taken):
        state, option = how[state]
        path.append(option)
    return reached[start], path[::-1]


def _iteration(keys: Sequence[Key], chosen: Mapping[Key, Candidate],
               reconfiguration_s: Mapping[str, float]) -> tuple[float, float, int]:
    """Seconds of computing, seconds of loading, and the number of loads of an iteration like the one before it."""
    used = [chosen[key].bitstream for key in keys if chosen[key].bitstream]
    loads = [after for before, after in zip(used[-1:] + used, used, strict=False) if before != after]
    return (math.fsum(chosen[key].seconds for key in keys), math.fsum(reconfiguration_s[name] for name in loads),
            len(loads))


def _uses_only(bitstream: str, others: bool, candidate: Candidate) -> bool:
    """Whether a candidate is on this bitstream or, with `others`, on none."""
    return candidate.bitstream == bitstream or (others and not candidate.bitstream)


def _check(keys: Sequence[Key], candidates: Mapping[Key, Sequence[Candidate]],
           reconfiguration_s: Mapping[str, float]) -> None:
    for layer, pass_ in keys:
        ways = candidates.get((layer, pass_), ())
        if not ways:
            raise ScheduleError(f"{layer} {pass_.value}: no engine can compute it; give the CPU as a candidate, or "
                                "bitstreams")
        for way in ways:
            if (way.engine == FPGA) != bool(way.bitstream) or not 0 <= way.seconds < math.inf:
                raise ScheduleError(f"{layer} {pass_.value}: a candidate with engine {way.engine!r}, bitstream "
                                    f"{way.bitstream!r} and {way.seconds} s makes no sense; give engine fpga a "
                                    "bitstream, the others none, and a time of 0 or more")
            if way.bitstream and way.bitstream not in reconfiguration_s:
                raise ScheduleError(f"{layer} {pass_.value}: what loading the bitstream {way.bitstream!r} takes is not "
                                    f"given; there are {', '.join(reconfiguration_s) or 'none'}")
    for name, seconds in reconfiguration_s.items():
        if not 0 <= seconds < math.inf:
            raise ScheduleError(f"bitstream {name!r}: loading it takes {seconds} s; give a time of 0 or more")
