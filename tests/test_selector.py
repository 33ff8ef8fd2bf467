"""The selector's plan is the best there is: held against all plans, one by one, wherever they can be counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.errors import ScheduleError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.latency.workload import Workload
from barista.schedule.schedule import Entry
from barista.schedule.selector import Candidate, Key, alternatives, evaluate, key_of, select

GEOMETRY = ConvolutionGeometry(2, 3, 4, (5, 5), (3, 3), (1, 1), (0, 0), (1, 1))


def work(layer: str, pass_: Pass = Pass.FORWARD) -> Workload:
    return Workload(layer, pass_, GEOMETRY)


def iteration_s(workloads: Sequence[Workload], chosen: Mapping[Key, Candidate], loads_s: Mapping[str, float]) -> float:
    """What the second of two equal iterations takes, run pass by pass; independent of the selector."""
    loaded, seconds = "", 0.0
    for _ in range(2):
        seconds = 0.0
        for workload in workloads:
            candidate = chosen[workload.layer, workload.pass_]
            if candidate.bitstream and candidate.bitstream != loaded:
                loaded = candidate.bitstream
                seconds += loads_s[loaded]
            seconds += candidate.seconds
    return seconds


def brute_force(workloads: Sequence[Workload], candidates: Mapping[Key, Sequence[Candidate]],
                loads_s: Mapping[str, float]) -> float:
    """The least time of an iteration over all plans."""
    keys = list(candidates)
    return min(iteration_s(workloads, dict(zip(keys, plan, strict=True)), loads_s)
               for plan in itertools.product(*candidates.values()))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Workload], dict[Key, list[Candidate]], dict[str, float]]:
    """Small nets: forward, then backward; whole seconds, so that ties and zeros occur and sums are exact."""
    seconds = st.integers(0, 9).map(float)
    bitstreams = ["a", "b", "c"][:draw(st.integers(0, 3))]
    loads_s = {name: float(draw(st.integers(0, 12))) for name in bitstreams}
    layers = ["conv1", "conv2"][:draw(st.integers(1, 2))]
    bottoms = {layer: draw(st.integers(1, 3)) for layer in layers}
    workloads = [work(layer) for layer in layers for _ in range(bottoms[layer])]
    for layer in reversed(layers):
        passes = draw(st.sampled_from([[], [Pass.GRAD_WEIGHT], [Pass.GRAD_WEIGHT, Pass.GRAD_INPUT]]))
        workloads += [work(layer, pass_) for _ in range(bottoms[layer]) for pass_ in passes]
    candidates = {}
    for workload in workloads:
        engines = [("cpu", ""), ("opencl", ""), *(("fpga", name) for name in bitstreams)]
        kept = draw(st.lists(st.sampled_from(engines), min_size=1, max_size=4, unique=True))
        candidates[key_of(workload)] = [Candidate(engine, draw(seconds), name) for engine, name in kept]
    return workloads, candidates, loads_s


@settings(max_examples=300, deadline=None)
@given(problems())
def test_the_plan_is_the_best_of_all(problem: tuple[list[Workload], dict[Key, list[Candidate]],
                                                    dict[str, float]]) -> None:
    workloads, candidates, loads_s = problem
    plan = select(*problem)
    chosen = {key_of(choice.workload): choice.candidate for choice in plan.choices}
    assert all(chosen[key] in ways for key, ways in candidates.items())
    assert plan.total_s == iteration_s(workloads, chosen, loads_s) == brute_force(workloads, candidates, loads_s)
    assert plan.total_s == plan.compute_s + plan.reconfiguration_s
    for other in alternatives(*problem).values():
        assert other.total_s >= plan.total_s


@settings(max_examples=100, deadline=None)
@given(problems())
def test_the_runner_up_is_the_best_change_of_one_pass(problem: tuple[list[Workload], dict[Key, list[Candidate]],
                                                                     dict[str, float]]) -> None:
    workloads, candidates, loads_s = problem
    plan = select(*problem)
    chosen = {key_of(choice.workload): choice.candidate for choice in plan.choices}
    for choice in plan.choices:
        key = key_of(choice.workload)
        costs = [iteration_s(workloads, {**chosen, key: other}, loads_s) - plan.total_s
                 for other in candidates[key] if other != choice.candidate]
        assert (choice.runner_up is None) == (not costs)
        assert choice.runner_up_costs_s == min(costs, default=0.0) >= 0


def four(loading_s: float) -> tuple[list[Workload], dict[Key, list[Candidate]], dict[str, float]]:
    """Two layers, each of which is faster on a bitstream of its own."""
    workloads = [work("conv1"), work("conv2"), work("conv2", Pass.GRAD_WEIGHT), work("conv1", Pass.GRAD_WEIGHT)]
    times = {"conv1": {"small": 1.0, "large": 4.0}, "conv2": {"small": 4.0, "large": 2.0}}
    candidates = {key_of(w): [Candidate("cpu", 6.0), *(Candidate("fpga", seconds, name)
                                                       for name, seconds in times[w.layer].items())] for w in workloads}
    return workloads, candidates, {"small": loading_s, "large": loading_s}


@pytest.mark.parametrize(("loading_s", "names", "total_s", "swaps"), [
    (0.0, ["small", "large", "large", "small"], 6.0, 2),
    (1.0, ["small", "large", "large", "small"], 8.0, 2),
    # Loading costs more than it gains: one bitstream for all.
    (3.0, ["small", "small", "small", "small"], 10.0, 0)])
def test_loading_is_part_of_the_optimum(loading_s: float, names: list[str], total_s: float, swaps: int) -> None:
    plan = select(*four(loading_s))
    assert [choice.candidate.name for choice in plan.choices] == names
    assert (plan.total_s, plan.swaps) == (total_s, swaps)


def test_the_next_iteration_begins_where_this_one_ended() -> None:
    """One after the other, small, large costs two loads an iteration; the way back to `small` is one of them."""
    workloads = [work("conv1"), work("conv2")]
    candidates = {key_of(workloads[0]): [Candidate("fpga", 1.0, "small")],
                  key_of(workloads[1]): [Candidate("fpga", 1.0, "large"), Candidate("cpu", 5.0)]}
    assert select(workloads, candidates, {"small": 1.0, "large": 1.0}).total_s == 4.0
    plan = select(workloads, candidates, {"small": 3.0, "large": 3.0})
    assert [choice.candidate.name for choice in plan.choices] == ["small", "cpu"]
    assert (plan.total_s, plan.swaps) == (6.0, 0)


def test_what_a_plan_is_compared_with() -> None:
    others = alternatives(*four(1.0))
    assert {name: plan.total_s for name, plan in others.items()} == {
        "CPU only": 24.0, "one bitstream, every pass on it": 10.0, "one bitstream beside the CPU": 10.0}
    workloads, candidates, loads_s = four(1.0)
    candidates[key_of(workloads[0])] = candidates[key_of(workloads[0])][:1]
    assert {name: plan.total_s for name, plan in alternatives(workloads, candidates, loads_s).items()} == {
        "CPU only": 24.0, "one bitstream beside the CPU": 6.0 + 2.0 + 2.0 + 4.0}


def test_one_bitstream_beside_the_cpu_that_is_the_cpu_alone_is_no_comparison() -> None:
    workloads = [work("conv1")]
    candidates = {key_of(workloads[0]): [Candidate("cpu", 1.0), Candidate("fpga", 2.0, "small")]}
    assert {name: plan.total_s for name, plan in alternatives(workloads, candidates, {"small": 1.0}).items()} == {
        "CPU only": 1.0, "one bitstream, every pass on it": 2.0}


def test_a_plan_becomes_a_schedule() -> None:
    workloads = [work("conv1"), work("conv1"), work("conv1", Pass.GRAD_WEIGHT)]
    candidates = {key_of(workloads[0]): [Candidate("opencl", 1.0)],
                  key_of(workloads[2]): [Candidate("fpga", 1.0, "small"), Candidate("cpu", 2.0)]}
    plan = select(workloads, candidates, {"small": 1.0})
    assert [choice.times for choice in plan.choices] == [2, 1]
    assert plan.total_s == 3.0
    schedule = plan.schedule("LeNet", 64)
    assert (schedule.net, schedule.batch) == ("LeNet", 64)
    assert schedule.entries == (Entry("conv1", Pass.FORWARD, "opencl", im2col="device"),
                                Entry("conv1", Pass.GRAD_WEIGHT, "fpga", "small"))


def test_no_passes_make_an_empty_plan() -> None:
    plan = select([], {}, {"small": 1.0})
    assert (plan.choices, plan.total_s, plan.swaps) == ((), 0, 0)


def test_given_choices_are_evaluated() -> None:
    workloads, candidates, loads_s = four(1.0)
    chosen = {key: ways[1] for key, ways in candidates.items()}
    plan = evaluate(workloads, chosen, loads_s)
    assert (plan.compute_s, plan.reconfiguration_s, plan.swaps) == (10.0, 0.0, 0)
    assert all(choice.runner_up is None for choice in plan.choices)


@pytest.mark.parametrize(("ways", "loads_s", "message"), [
    ([], {}, r"conv1 forward: no engine can compute it"),
    ([Candidate("fpga", 1.0, "x")], {"y": 1.0}, r"loading the bitstream 'x' takes is not given; there are y"),
    ([Candidate("cpu", math.nan)], {}, r"engine 'cpu', bitstream '' and nan s makes no sense"),
    ([Candidate("cpu", -1.0)], {}, r"-1.0 s makes no sense"),
    ([Candidate("fpga", 1.0)], {}, r"give engine fpga a bitstream"),
    ([Candidate("cpu", 1.0)], {"y": math.inf}, r"bitstream 'y': loading it takes inf s; give a time of 0 or more")])
def test_what_cannot_be_planned(ways: list[Candidate], loads_s: dict[str, float], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        select([work("conv1")], {("conv1", Pass.FORWARD): ways}, loads_s)
