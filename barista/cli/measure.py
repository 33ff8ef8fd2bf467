"""Measuring passes of convolutions on an op set: medians of runs that take turns, stage by stage."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..blob import HOST, Tensor
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..latency.workload import Workload
from ..ops.base import Convolution, OpSet

# Runs whose median counts.
RUNS = 5


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one pass took.

    Parameters
    ----------
    workload : the pass
    total_s : from its call to its result in the host's memory
    stages : seconds by stage, where the op set measures its stages; empty elsewhere
    """

    workload: Workload
    total_s: float
    stages: Mapping[str, float]


def measure_passes(ops: OpSet, workloads: Sequence[Workload], runs: int = RUNS,
                   step: Callable[[int], object] | None = None) -> list[Measurement]:
    """Measure passes of convolutions on one op set; see `measure`."""
    return measure([(ops, workload) for workload in workloads], runs, step)


def measure(tasks: Sequence[tuple[OpSet, Workload]], runs: int = RUNS,
            step: Callable[[int], object] | None = None) -> list[Measurement]:
    """Run passes of convolutions, all of them in turn and that `runs` times, after one turn that counts nothing.

    Turns meet whatever else the machine does alike, and a pass finds in the caches what it finds there in a net:
    little of its own.  Operands are in the host's memory before, and the result after.

    Parameters
    ----------
    tasks : which pass on which op set
    runs : whose medians are given
    step : called with 1 after each run

    Returns
    -------
    list : a measurement for each task, in their order

    Raises
    ------
    DeviceError, BitstreamError : an op set failed
    """
    passes: dict[tuple[int, ConvolutionGeometry], _Passes] = {}
    for ops, workload in tasks:
        if (id(ops), workload.geometry) not in passes:
            passes[id(ops), workload.geometry] = _Passes(ops, workload.geometry)
    taken: list[list[tuple[float, dict[str, float]]]] = [[] for _ in tasks]
    for turn in range(runs + 1):
        for (ops, workload), seconds in zip(tasks, taken, strict=True):
            lapse = passes[id(ops), workload.geometry].run(workload.pass_)
            if turn:
                seconds.append(lapse)
            if step is not None:
                step(1)
    return [_median(workload, seconds) for (_, workload), seconds in zip(tasks, taken, strict=True)]


def _median(workload: Workload, taken: Sequence[tuple[float, dict[str, float]]]) -> Measurement:
    """The medians of several runs, each stage by itself."""
    names = dict.fromkeys(name for _, stages in taken for name in stages)
    stages = {name: statistics.median(stages.get(name, 0.0) for _, stages in taken) for name in names}
    return Measurement(workload, statistics.median(total for total, _ in taken), stages)


class _Passes:
    """The three passes of one convolution on an op set, with operands to run them on."""

    def __init__(self, ops: OpSet, geometry: ConvolutionGeometry) -> None:
        g = geometry
        self._ops = ops
        self._convolution: Convolution = ops.convolution(g)
        x, w, y = (_numbers(shape, ops) for shape in (g.x_shape, g.w_shape, g.y_shape))
        bias = _numbers((g.out_channels,), ops)
        # Results have tensors of their own, or numbers would grow from run to run.
        result_y, dw, dx = (_numbers(shape, ops) for shape in (g.y_shape, g.w_shape, g.x_shape))
        made = self._convolution
        self._calls: dict[Pass, tuple[Callable[[], None], tuple[Tensor, ...], Tensor]] = {
            Pass.FORWARD: (lambda: made.forward(x, w, bias, result_y), (x, w, bias), result_y),
            Pass.GRAD_WEIGHT: (lambda: made.grad_weight(x, y, dw), (x, y, dw), dw),
            Pass.GRAD_INPUT: (lambda: made.grad_input(y, w, dx), (y, w), dx)}

    def run(self, pass_: Pass) -> tuple[float, dict[str, float]]:
        """Seconds of one run, and of its stages."""
        call, operands, result = self._calls[pass_]
        for tensor in operands:
            tensor.update(HOST)
        self._ops.finish()
        self._ops.take_stages()  # what came before does not count
        start = time.perf_counter()
        call()
        result.read(HOST)
        total_s = time.perf_counter() - start
        stages: dict[str, float] = {}
        for taken in self._ops.take_stages().values():
            for name, seconds in taken.items():
                stages[name] = stages.get(name, 0.0) + seconds
        return total_s, stages


def _numbers(shape: tuple[int, ...], ops: OpSet) -> Tensor:
    """A tensor of numbers of both signs."""
    tensor = Tensor(shape, ops.dtype)
    tensor.write(HOST)[...] = np.random.default_rng(1).uniform(-1, 1, shape)
    return tensor
