"""Measuring the variants of one pass of a convolution against each other."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import DeviceError
from ...gemm.shapes import ConvolutionGeometry, Pass
from ...runtime.space import DeviceArray
from .conv_pass import Variant
from .device import Device

log = logging.getLogger(__name__)

# Multiply-accumulates and images that a measurement has at least, where the batch has them.
ENOUGH_MACS = 200_000_000
ENOUGH_IMAGES = 32
# A variant whose first run takes this much longer than the best's takes no further part.
HOPELESS = 1.5
ROUNDS = 5
# A turn runs a variant as often as fills this time, to be longer than the clock's and the scheduler's grain.
TURN_S = 0.003
MOST_RUNS = 20


def representative(geometry: ConvolutionGeometry) -> ConvolutionGeometry:
    """The same convolution of fewer images, a power of 2, where those suffice to tell the variants apart.

    Thus batches of different sizes share their choice.
    """
    images = max(1, geometry.batch)
    an_image = max(1, geometry.macs // images)
    enough = 2 ** math.ceil(math.log2(max(ENOUGH_IMAGES, ENOUGH_MACS / an_image)))
    return dataclasses.replace(geometry, batch=min(images, enough))


class Bench:
    """Arrays for one pass of a geometry, on which its variants take turns."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry, pass_: Pass) -> None:
        self._device, self._geometry, self._pass = device, geometry, pass_

    def seconds(self, variants: Sequence[Variant[Any]], deadline: float | None) -> dict[str, float]:
        """The time of a run of each variant, by name: the shortest of some turns.

        A variant that fails is left out, with a warning; one that is hopeless has the time of its first run.

        Parameters
        ----------
        deadline : by `time.perf_counter`; once it is over, what is not yet measured is left out; None: never
        """
        # What is tried here is not what the net will run, and is not to leave it the largest workspace of all.
        with self._device.scratch.aside():
            return self._seconds(variants, deadline)

    def _seconds(self, variants: Sequence[Variant[Any]], deadline: float | None) -> dict[str, float]:
        try:
            arrays = self._arrays()
        except DeviceError as error:
            log.warning("%s cannot be measured: %s", self._name(), error)
            return {}
        runs: dict[str, Callable[[], None]] = {}
        times: dict[str, float] = {}
        for variant in variants:
            if deadline is not None and times and time.perf_counter() > deadline:
                break
            try:
                run = self._call(variant.make(), arrays)
                _seconds(self._device, run, 1)  # touches its workspace
                times[variant.name] = _seconds(self._device, run, 1)
            except DeviceError as error:
                log.warning("%s: the variant %r is left out: %s", self._name(), variant.name, error)
                continue
            runs[variant.name] = run
        hopeful = [name for name in runs if times[name] <= HOPELESS * min(times.values())]
        for _ in range(ROUNDS if len(hopeful) > 1 else 0):
            for name in hopeful:
                count = min(MOST_RUNS, math.ceil(TURN_S / max(times[name], 1e-6)))
                times[name] = min(times[name], _seconds(self._device, runs[name], count))
        return times

    def _arrays(self) -> dict[str, DeviceArray]:
        """x, w, the bias and y, or what stands in their places, with numbers of both signs."""
        g, space, dtype = self._geometry, self._device.space, self._device.dtype
        some = np.random.default_rng(1).uniform(-1, 1, 4096).astype(dtype)
        arrays = {}
        for name, shape in (("x", g.x_shape), ("w", g.w_shape), ("bias", (g.out_channels,)), ("y", g.y_shape)):
            count = math.prod(shape)
            arrays[name] = space.allocate(count, dtype)
            space.upload(np.resize(some, count), arrays[name])
        return arrays

    def _call(self, made: Any, arrays: dict[str, DeviceArray]) -> Callable[[], None]:
        x, w, bias, y = (arrays[name] for name in ("x", "w", "bias", "y"))
        if self._pass is Pass.FORWARD:
            return lambda: made.run(x, w, bias, y, False)
        if self._pass is Pass.GRAD_WEIGHT:
            return lambda: made.run(x, y, w, False)
        return lambda: made.run(y, w, x)

    def _name(self) -> str:
        g = self._geometry
        return f"{self._pass.value} of a convolution of {g.x_shape} to {g.y_shape}"


def _seconds(device: Device, run: Callable[[], None], count: int) -> float:
    """Seconds of a run, the average of `count`."""
    start = time.perf_counter()
    for _ in range(count):
        run()
    device.context.finish()
    return (time.perf_counter() - start) / count
