"""Sums over all elements of tensors, read back to the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...blob import HOST, Tensor
from .device import Device

# Partial sums of a tensor at most: enough for every core of a device, few enough to read back at once.
PIECES = 1024
LEAST_PIECE = 1024


class Reduction:
    """A sum over a function of all elements; the device makes partial sums, the host adds them in float64.

    Parameters
    ----------
    name : the kernel of reduce.cl
    """

    def __init__(self, device: Device, name: str) -> None:
        self._device = device
        self._kernel = device.kernel("reduce.cl", name, "bbiii", heavy=True)
        self._partial = Tensor((0,), device.dtype)

    def __call__(self, tensors: Sequence[Tensor]) -> float:
        """The sum over all of `tensors`, read back at once."""
        space = self._device.space
        # What was cleared adds nothing, and need not be written as zeros to be read.
        tensors = [x for x in tensors if x.count and not x.memory.is_zero]
        lengths = [max(LEAST_PIECE, -(-x.count // PIECES)) for x in tensors]
        pieces = [-(-x.count // length) for x, length in zip(tensors, lengths, strict=True)]
        self._partial.reshape((sum(pieces),))
        first = 0
        for x, length, own in zip(tensors, lengths, pieces, strict=True):
            self._kernel.run(own, x.read(space), self._partial.write(space), first, x.count, length)
            first += own
        return float(np.sum(self._partial.read(HOST), dtype=np.float64))
