"""PReLU on a device."""

from __future__ import annotations

from ...blob import Tensor
from ..base import AxisGeometry, PReLU
from .broadcast import PIECE, PIECE_CPU, Parts, Rows
from .device import Device


class OpenCLPReLU(PReLU):
    """PReLU with a slope for each element of the axis."""

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self.space = device.space
        if geometry.axis == 1:
            geometry = AxisGeometry(1, 1, geometry.outer * geometry.inner)
        is_cpu = device.context.is_cpu
        self._rows = Rows(geometry, PIECE_CPU if is_cpu else PIECE)
        self._parts = Parts(device, geometry)
        self.scratch_bytes = self._parts.scratch_bytes
        file, macros = "prelu.cl", {**self._parts.macros, "PIECE": PIECE_CPU if is_cpu else PIECE}
        self._forward = device.kernel(file, "forward", "bbbiii", macros, heavy=is_cpu)
        self._grad_input = device.kernel(file, "grad_input", "bbbbiii", macros, heavy=is_cpu)
        self._grad_slope = device.kernel(file, "grad_slope", "bbbiii", self._parts.macros, heavy=True)

    def forward(self, x: Tensor, slope: Tensor, y: Tensor) -> None:
        self._forward.run(self._rows.items, x.read(self.space), slope.read(self.space), y.write(self.space),
                          *self._rows.sizes)

    def grad_input(self, x: Tensor, slope: Tensor, dy: Tensor, dx: Tensor) -> None:
        self._grad_input.run(self._rows.items, x.read(self.space), slope.read(self.space), dy.read(self.space),
                             dx.write(self.space), *self._rows.sizes)

    def grad_slope(self, x: Tensor, dy: Tensor, dslope: Tensor) -> None:
        sums, _ = self._parts.arrays()
        self._grad_slope.run(self._parts.items, x.read(self.space), dy.read(self.space), sums,
                             *self._parts.rows.sizes)
        self._parts.add(dslope.accumulate(self.space), None)
