"""Softmax."""

from __future__ import annotations

from ...blob import Tensor
from ..base import AxisGeometry, Softmax
from .device import Device

# Rows side by side in a work-item, where their elements lie apart.
BLOCK = 64
# Elements that are worth a work-item.
PIECE = 4096


class OpenCLSoftmax(Softmax):
    """Softmax over the middle axis."""

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self.space = device.space
        g, way = geometry, "rows" if geometry.inner == 1 else "blocks"
        self._sizes: tuple[int, ...]
        if g.inner == 1:
            rows = max(1, PIECE // max(g.axis, 1)) if device.context.is_cpu else 1
            self._items, self._sizes = -(-g.outer // rows), (g.axis, rows, g.outer)
        else:
            self._items, self._sizes = g.outer * -(-g.inner // BLOCK), (g.axis, g.inner)
        macros, sizes = {**device.functions, "BLOCK": BLOCK}, "i" * len(self._sizes)
        self._forward = device.kernel("softmax.cl", f"forward_{way}", "bb" + sizes, macros, heavy=True)
        self._backward = device.kernel("softmax.cl", f"backward_{way}", "bbb" + sizes, macros, heavy=True)

    def forward(self, x: Tensor, y: Tensor) -> None:
        self._forward.run(self._items, x.read(self.space), y.write(self.space), *self._sizes)

    def backward(self, y: Tensor, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._items, y.read(self.space), dy.read(self.space), dx.write(self.space), *self._sizes)
