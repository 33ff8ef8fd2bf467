"""What products took, by layer, pass and stage (thesis, Fig. 4.5)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...gemm.engine import StageTimes
from ..base import StageSeconds

# Host work around the products of a convolution: columns unrolled and folded, results put into place.
IM2COL = "im2col"
# A bitstream put onto the device.
LOADING = "loading"
# Those of a product.
STAGES = tuple(field.name for field in dataclasses.fields(StageTimes))
# What another op set computes, outside of its device's queue.
PROCESSOR = "processor"


class StageClock:
    """Adds up seconds by layer and pass."""

    def __init__(self) -> None:
        self._seconds: StageSeconds = {}

    def add(self, layer: str, pass_: str, times: StageTimes, loading_s: float = 0.0) -> None:
        """Add what one product took, and what the loading of its bitstream took before it."""
        if loading_s:
            self.count(layer, pass_, LOADING, loading_s)
        for stage in STAGES:
            self.count(layer, pass_, stage, getattr(times, stage))

    @contextmanager
    def host(self, layer: str, pass_: str) -> Iterator[None]:
        """Add what runs inside to `IM2COL`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.count(layer, pass_, IM2COL, time.perf_counter() - started)

    def take(self) -> StageSeconds:
        """What has been added since the last call."""
        taken, self._seconds = self._seconds, {}
        return taken

    def count(self, layer: str, pass_: str, stage: str, seconds: float) -> None:
        """Add seconds to one stage."""
        stages = self._seconds.setdefault((layer, pass_), {})
        stages[stage] = stages.get(stage, 0.0) + seconds
