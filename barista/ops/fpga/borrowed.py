"""Passes of convolutions that another op set computes between those of the array."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...blob import HOST, Tensor
from ...gemm.shapes import Pass
from ..base import Convolution, OpSet
from .stages import PROCESSOR, StageClock


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
        self.variant = convolution.variant

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        self._run(Pass.FORWARD, lambda: self._convolution.forward(x, w, bias, y, rectify), y)

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
