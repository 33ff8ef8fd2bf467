"""Local response normalisation, across channels and within each."""

from __future__ import annotations

from ...blob import Tensor
from ..base import LRN, Shape
from .device import Device

# Elements that a work-item keeps in private memory for the window's rows: half a core's first cache.
KEPT = 4096
# Work-items that keep all cores of a processor busy, and the fewest columns that are worth one.
ITEMS = 16
LEAST_BLOCK = 32


class OpenCLLRN(LRN):
    """y = x * scale^-beta with scale = k + weight * (sum of x^2 over a window).

    Parameters
    ----------
    planes, rows, columns : x as lrn.cl sees it
    half : how many rows and columns the window reaches to each side
    weight : alpha divided by what Caffe divides it by
    """

    def __init__(self, device: Device, planes: int, rows: int, columns: int, half: tuple[int, int], weight: float,
                 beta: float, k: float) -> None:
        self.space = device.space
        # Beyond the plane there is nothing to reach.
        half_rows, half_columns = min(half[0], max(rows - 1, 0)), min(half[1], max(columns - 1, 0))
        block = 8
        if device.context.is_cpu:
            enough = -(-planes * columns // ITEMS)
            block = max(LEAST_BLOCK, min(KEPT // (2 * half_rows + 1), -(-enough // 8) * 8))
        block = max(1, min(block, columns))
        self._items = planes * -(-columns // block)
        self._numbers = (weight, beta, k)
        macros = {**device.functions, "ROWS": max(rows, 1), "COLUMNS": max(columns, 1), "HALF_ROWS": half_rows,
                  "HALF_COLUMNS": half_columns, "BLOCK": block,
                  "QUARTERS": int(4 * beta) if 4 * beta in (1, 2, 3, 4) else 0}
        self._forward = device.kernel("lrn.cl", "lrn_forward", "bbrrr", macros, heavy=True)
        self._backward = device.kernel("lrn.cl", "lrn_backward", "bbbrrr", macros, heavy=True)

    @classmethod
    def across(cls, device: Device, shape: Shape, size: int, alpha: float, beta: float, k: float) -> OpenCLLRN:
        """Over neighbouring channels of (N, C, H, W)."""
        return cls(device, shape[0], shape[1], shape[2] * shape[3], ((size - 1) // 2, 0), alpha / size, beta, k)

    @classmethod
    def within(cls, device: Device, shape: Shape, size: int, alpha: float, beta: float) -> OpenCLLRN:
        """Over neighbours in the plane of each channel.

        Caffe: the sum is divided by the whole window, also where it is clipped at the border.
        """
        return cls(device, shape[0] * shape[1], shape[2], shape[3], ((size - 1) // 2,) * 2, alpha / (size * size),
                   beta, 1.0)

    def forward(self, x: Tensor, y: Tensor) -> None:
        self._forward.run(self._items, x.read(self.space), y.write(self.space), *self._numbers)

    def backward(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._items, x.read(self.space), dy.read(self.space), dx.write(self.space), *self._numbers)
