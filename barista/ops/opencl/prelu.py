"""PReLU on a device."""

from __future__ import annotations

from ...blob import Tensor
from ..base import AxisGeometry, PReLU
from .broadcast import Cut
from .device import Device


class OpenCLPReLU(PReLU):
    """PReLU with a slope for each element of the axis."""

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self.space = device.space
        cut = Cut(device, geometry)
        self._rows, self._parts = cut.rows, cut.parts
        self.scratch_bytes = cut.parts.scratch_bytes
        self._forward = cut.over_rows("prelu.cl", "forward", "bbbiii")
        self._grad_input = cut.over_rows("prelu.cl", "grad_input", "bbbbiii")
        self._grad_slope = cut.over_parts("prelu.cl", "grad_slope", "bbbiii")

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
