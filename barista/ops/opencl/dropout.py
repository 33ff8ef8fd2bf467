"""Dropout with the host's masks."""

from __future__ import annotations

import numpy as np

from ...blob import HOST, Tensor
from ..base import Dropout
from .device import Device


class OpenCLDropout(Dropout):
    """Dropout; the mask is drawn on the host and travels as one byte an element."""

    def __init__(self, device: Device, count: int, ratio: float) -> None:
        self.space = device.space
        self._count = count
        self._ratio = ratio
        self._scale = 1 / (1 - ratio)
        self._kernel = device.kernel("dropout.cl", "drop", "bbbr")
        self._keep = Tensor((count,), np.uint8)
        self.workspace_bytes = self._keep.memory.nbytes

    def forward(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        # The same draw as on the host: every op set drops the same elements.
        np.greater_equal(rng.random(self._count, np.float32), self._ratio, out=self._keep.write(HOST).view(np.bool_))
        self._apply(x, y)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._apply(dy, dx)

    def _apply(self, x: Tensor, y: Tensor) -> None:
        self._kernel.run(self._count, x.read(self.space), self._keep.read(self.space), y.write(self.space),
                         self._scale)
