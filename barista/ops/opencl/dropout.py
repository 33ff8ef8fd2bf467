"""Dropout with the host's masks."""

from __future__ import annotations

import numpy as np

from ...blob import Tensor
from ..base import Dropout
from .device import Device

# Elements of a work-item on a processor.
RUN = 8192


class OpenCLDropout(Dropout):
    """Dropout; the mask is drawn on the host and travels as one byte an element."""

    def __init__(self, device: Device, count: int, ratio: float) -> None:
        self.space = device.space
        run = RUN if device.context.is_cpu else 1
        self._items, self._sizes = -(-count // run), (run, count)
        self._ratio = ratio
        self._scale = 1 / (1 - ratio)
        self._kernel = device.kernel("dropout.cl", "drop", "bbbrii", heavy=True)
        self._drawn = np.empty(count, np.float32)
        self._keep = Tensor((count,), np.uint8)
        self.workspace_bytes = self._drawn.nbytes + self._keep.memory.nbytes

    def forward(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        # The same draw as on the host: every op set drops the same elements.
        rng.random(dtype=np.float32, out=self._drawn)
        self._keep.assign(np.greater_equal(self._drawn, self._ratio).view(np.uint8), self.space)
        self._apply(x, y)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._apply(dy, dx)

    def _apply(self, x: Tensor, y: Tensor) -> None:
        self._kernel.run(self._items, x.read(self.space), self._keep.read(self.space), y.write(self.space),
                         self._scale, *self._sizes)
