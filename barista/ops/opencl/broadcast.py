"""Vectors against tensors (outer, axis, inner)."""

from __future__ import annotations

from ...blob import Tensor
from ..base import AxisGeometry, Broadcast
from .device import Device


class OpenCLBroadcast(Broadcast):
    """A vector against a tensor on a device; sums go over inner first, then over outer."""

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self.space = device.space
        self._geometry = geometry
        self._scratch = device.scratch
        file, constants = "broadcast.cl", {"AXIS": geometry.axis, "INNER": geometry.inner}
        self._add = device.kernel(file, "add", "bbb", constants)
        self._multiply = device.kernel(file, "multiply", "bbbb", constants)
        self._sum_inner = device.kernel(file, "sum_inner", "bbb", constants, heavy=True)
        self._sum_outer = device.kernel(file, "sum_outer", "bbbii", constants)
        self._rows = geometry.outer * geometry.axis
        self._count = self._rows * geometry.inner
        if geometry.inner > 1:
            self.workspace_bytes = self._scratch.reserve("partial", self._rows)

    def add(self, x: Tensor, v: Tensor, y: Tensor) -> None:
        self._add.run(self._count, x.read(self.space), v.read(self.space), y.write(self.space))

    def multiply(self, x: Tensor, v: Tensor, y: Tensor, bias: Tensor | None = None) -> None:
        shift = None if bias is None else bias.read(self.space)
        self._multiply.run(self._count, x.read(self.space), v.read(self.space), shift, y.write(self.space))

    def sum(self, dy: Tensor, dv: Tensor, accumulate: bool = True) -> None:
        self._reduce(dy, None, dv, accumulate)

    def dot(self, dy: Tensor, x: Tensor, dv: Tensor, accumulate: bool = True) -> None:
        self._reduce(dy, x, dv, accumulate)

    def _reduce(self, dy: Tensor, x: Tensor | None, dv: Tensor, accumulate: bool) -> None:
        first, second = dy.read(self.space), None if x is None else x.read(self.space)
        if self._geometry.inner > 1:
            partial = self._scratch.array("partial")
            self._sum_inner.run(self._rows, first, second, partial)
            first, second = partial, None
        result, fresh = dv.accumulate(self.space) if accumulate else (dv.write(self.space), True)
        self._sum_outer.run(self._geometry.axis, first, second, result, self._geometry.outer, int(not fresh))
