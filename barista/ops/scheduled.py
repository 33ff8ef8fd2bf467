"""What op sets that follow a schedule share: passes on several engines, and whether the schedule fits a net."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from ..blob import HOST, Space, Tensor
from ..errors import ScheduleError, UnsupportedError, nearest
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..schedule import CPU, OPENCL, Schedule
from .base import Convolution, OpSet
from .hosted import WrappedOps, convolution_text

log = logging.getLogger(__name__)

TEST = 1
# The order in which passes are named.
_ORDER = {pass_: place for place, pass_ in enumerate(Pass)}


class ScheduledConvolution(Convolution):
    """Hands each pass to the convolution that computes it.

    Parameters
    ----------
    engines : for each pass what computes it; passes that it lacks cannot run
    names : for each pass what the report calls it
    space : where most of it computes, for the report
    """

    def __init__(self, engines: Mapping[Pass, Convolution], names: Mapping[Pass, str], space: Space = HOST) -> None:
        self.space = space
        self._engines = dict(engines)
        different = dict.fromkeys(self._engines.values())
        self.resolution = max((engine.resolution for engine in different), default=0.0)
        self.variant = ", ".join(f"{pass_.value}: {name}" for pass_, name in names.items())

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        self._engine(Pass.FORWARD).forward(x, w, bias, y, rectify)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        self._engine(Pass.GRAD_WEIGHT).grad_weight(x, dy, dw)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        self._engine(Pass.GRAD_INPUT).grad_input(dy, w, dx)

    def mixes(self, pass_: Pass) -> bool:
        return self._engine(pass_).mixes(pass_)

    def _engine(self, pass_: Pass) -> Convolution:
        """What computes a pass.

        Raises
        ------
        ScheduleError : the schedule does not say
        """
        if pass_ not in self._engines:
            there = ", ".join(p.value for p in self._engines)
            raise ScheduleError(f"the schedule has no entry for its {pass_.value}, only for {there}; "
                                "add one with engine cpu, opencl or fpga")
        return self._engines[pass_]


class ScheduledOps(WrappedOps):
    """An OpenCL op set some of whose convolutions' passes run on the processor, as a schedule says.

    Parameters
    ----------
    ops : computes all else, and the passes with engine opencl; it knows the variants that the schedule names
    cpu : computes the passes with engine cpu
    schedule : for these two engines

    Raises
    ------
    UnsupportedError : the schedule has work for an array
    """

    def __init__(self, ops: OpSet, cpu: OpSet, schedule: Schedule) -> None:
        super().__init__(ops)
        self._engines = {OPENCL: ops, CPU: cpu}
        self._schedule = schedule
        arrays = [f"{entry.layer} {entry.pass_.value}" for entry in schedule.entries
                  if entry.engine not in self._engines]
        arrays += ["inner_products"] if schedule.inner_products else []
        if arrays:
            raise UnsupportedError(f"{schedule.source} has {', '.join(arrays)} on a bitstream, which the backend "
                                   f"{ops.name} does not have; give --backend fpga, or engine {CPU} or {OPENCL}")

    def describe(self) -> str:
        return f"{self.host.describe()}, convolutions by {self._schedule.source}"

    def check_net(self, net: str, phase: int, passes: Mapping[str, frozenset[Pass]]) -> None:
        self._schedule.check(net, None)
        require_fit(self._schedule, net, passes, phase != TEST)
        for line in placement(self._schedule, passes):
            log.info("%s", line)
        self.host.check_net(net, phase, passes_on(self._schedule, OPENCL, passes))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        """A convolution as the schedule has it for the current owner.

        Raises
        ------
        ScheduleError : it was made for another net or batch, or does not know the layer
        """
        self._schedule.check(self.owner.net, None if self.owner.phase == TEST else geometry.batch)
        entries = self._schedule.passes(self.owner.layer)
        made = {name: self._engines[name].convolution(geometry)
                for name in dict.fromkeys(entry.engine for entry in entries.values())}
        primitive = ScheduledConvolution({pass_: made[entry.engine] for pass_, entry in entries.items()},
                                         {pass_: entry.engine for pass_, entry in entries.items()}, self.space)
        return self.placed("convolution", convolution_text(geometry), primitive)


def passes_on(schedule: Schedule, engine: str, passes: Mapping[str, frozenset[Pass]]) -> dict[str, frozenset[Pass]]:
    """Those passes of a net that a schedule gives to one engine."""
    given = {(entry.layer, entry.pass_) for entry in schedule.on(engine).entries}
    return {layer: frozenset(pass_ for pass_ in run if (layer, pass_) in given) for layer, run in passes.items()}


def require_fit(schedule: Schedule, net: str, passes: Mapping[str, frozenset[Pass]], training: bool) -> None:
    """Hold a schedule against the passes of a net.

    Of a net that does not train only the passes of going forward count: whatever else its schedule has is for the
    training net.  Entries for passes that never run are warned of.

    Parameters
    ----------
    net : its name
    passes : for each layer the passes of its convolution that run; none for layers without one
    training : whether it is a training net

    Raises
    ------
    ScheduleError : a pass that runs has no entry, or an entry is for a layer that is no convolution of the net
    """
    convolutions = {layer: run for layer, run in passes.items() if run}
    planned: dict[str, set[Pass]] = {}
    for entry in schedule.entries:
        planned.setdefault(entry.layer, set()).add(entry.pass_)
    if training:
        for layer in planned:
            if layer not in convolutions:
                what = "is no convolution" if layer in passes else "is not there"
                hint = nearest(layer, convolutions) or f"its convolutions are: {', '.join(convolutions) or 'none'}"
                raise ScheduleError(f"{schedule.source} has an entry for layer {layer!r}, which {what} in net {net!r}; "
                                    f"{hint}")
    for layer, run in convolutions.items():
        missing = _names(run - planned.get(layer, set()))
        if missing:
            there = _names(planned.get(layer, set())) or "nothing"
            raise ScheduleError(f"{layer}: net {net!r} runs {missing}, for which {schedule.source} has no entry, only "
                                f"for {there}; add one with engine cpu, opencl or fpga")
        idle = planned[layer] - run
        if training and idle:
            log.warning("%s: %s has an entry for %s, which never runs in net %r", layer, schedule.source, _names(idle),
                        net)


def placement(schedule: Schedule, passes: Mapping[str, frozenset[Pass]]) -> Iterator[str]:
    """A line for each convolution of a net that fits: which pass runs where."""
    for layer, run in passes.items():
        if run:
            entries = schedule.passes(layer)
            yield f"{layer}: " + ", ".join(f"{pass_.value} on {entries[pass_].bitstream or entries[pass_].engine}"
                                           for pass_ in sorted(run, key=_ORDER.__getitem__))


def _names(passes: set[Pass] | frozenset[Pass]) -> str:
    return " and ".join(pass_.value for pass_ in sorted(passes, key=_ORDER.__getitem__))
