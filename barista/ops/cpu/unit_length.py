"""Division by the length on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...blob import HOST, Tensor
from ..base import AxisGeometry, UnitLength
from .threads import Threads


class CpuUnitLength(UnitLength):
    """x / sqrt(sum of x^2 + eps) along the middle axis; it keeps the lengths for the gradient."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, eps: float, dtype: np.dtype[Any], threads: Threads) -> None:
        self._shape = geometry.shape
        self._eps = eps
        self._threads = threads
        self._item = geometry.axis * geometry.inner
        self._lengths = np.ones((geometry.outer, 1, geometry.inner), dtype)
        self.workspace_bytes = self._lengths.nbytes

    def forward(self, x: Tensor, u: Tensor) -> None:
        source, result = x.read(HOST).reshape(self._shape), u.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            lengths = self._lengths[start:stop]
            np.sum(np.square(source[start:stop]), axis=1, keepdims=True, out=lengths)
            np.sqrt(lengths + lengths.dtype.type(self._eps), out=lengths)
            np.divide(source[start:stop], lengths, out=result[start:stop])

        self._threads.spread(work, self._shape[0], self._item)

    def backward(self, u: Tensor, du: Tensor, dx: Tensor) -> None:
        directions, gradient = u.read(HOST).reshape(self._shape), du.read(HOST).reshape(self._shape)
        result = dx.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            # What points along u would change the length alone, which is divided out.
            along = np.sum(directions[start:stop] * gradient[start:stop], axis=1, keepdims=True)
            np.subtract(gradient[start:stop], directions[start:stop] * along, out=result[start:stop])
            np.divide(result[start:stop], self._lengths[start:stop], out=result[start:stop])

        self._threads.spread(work, self._shape[0], self._item)
