"""Sums over all elements of a tensor, read back to the host."""

from __future__ import annotations

import numpy as np

from ...blob import HOST, Tensor
from .device import Device

# Partial sums: enough for every core of a device, few enough to read back at once.
PIECES = 1024
LEAST_PIECE = 1024


class Reduction:
    """A sum over a function of all elements; the device makes partial sums, the host adds them in float64.

    Parameters
    ----------
    name : the kernel of reduce.cl
    """

    def __init__(self, device: Device, name: str) -> None:
        self._space = device.space
        self._kernel = device.kernel("reduce.cl", name, "bbii", heavy=True)
        self._partial = Tensor((PIECES,), device.dtype)

    def __call__(self, x: Tensor) -> float:
        """The sum over `x`."""
        count = x.count
        piece = max(LEAST_PIECE, -(-count // PIECES))
        pieces = -(-count // piece)
        self._kernel.run(pieces, x.read(self._space), self._partial.write(self._space), count, piece)
        return float(np.sum(self._partial.read(HOST)[:pieces], dtype=np.float64))
