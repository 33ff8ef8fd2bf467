"""A convolution whose passes run where a schedule says: on the array, on the processor, on an OpenCL device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ...blob import HOST, Tensor
from ...errors import ScheduleError
from ...gemm.shapes import Pass
from ..base import Convolution, OpSet
from .stages import PROCESSOR, StageClock


class ScheduledConvolution(Convolution):
    """Hands each pass to the convolution that computes it.

    Parameters
    ----------
    engines : for each pass what computes it; passes that it lacks cannot run
    names : for each pass what the report calls it
    """

    space = HOST

    def __init__(self, engines: Mapping[Pass, Convolution], names: Mapping[Pass, str]) -> None:
        self._engines = dict(engines)
        different = dict.fromkeys(self._engines.values())
        self.resolution = max((engine.resolution for engine in different), default=0.0)
        self.workspace_bytes = sum(engine.workspace_bytes for engine in different)
        self.variant = ", ".join(f"{pass_.value}: {name}" for pass_, name in names.items())

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor) -> None:
        self._engine(Pass.FORWARD).forward(x, w, bias, y)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        self._engine(Pass.GRAD_WEIGHT).grad_weight(x, dy, dw)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        self._engine(Pass.GRAD_INPUT).grad_input(dy, w, dx)

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


class BorrowedConvolution(Convolution):
    """A convolution of another op set: waited for, measured, its results brought to the host.

    A pass thus ends where passes of the array end, and what it costs does not depend on what comes after it, which
    planners rely on.

    Parameters
    ----------
    ops : the op set that computes
    convolution : made by it
    clock, layer : where what the passes take is counted
    """

    space = HOST

    def __init__(self, ops: OpSet, convolution: Convolution, clock: StageClock, layer: str) -> None:
        self._ops, self._convolution = ops, convolution
        self._clock, self._layer = clock, layer
        self.variant, self.workspace_bytes = convolution.variant, convolution.workspace_bytes

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor) -> None:
        self._run(Pass.FORWARD, lambda: self._convolution.forward(x, w, bias, y), y)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        self._run(Pass.GRAD_WEIGHT, lambda: self._convolution.grad_weight(x, dy, dw), dw)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        self._run(Pass.GRAD_INPUT, lambda: self._convolution.grad_input(dy, w, dx), dx)

    def _run(self, pass_: Pass, compute: Callable[[], None], result: Tensor) -> None:
        started = time.perf_counter()
        compute()
        self._ops.finish()
        result.read(HOST)
        lapse_s = time.perf_counter() - started
        queue = self._ops.take_queue()
        for stage, seconds in {**queue, PROCESSOR: max(lapse_s - sum(queue.values()), 0.0)}.items():
            self._clock.count(self._layer, pass_.value, stage, seconds)
