"""Maximum and average pooling."""

from __future__ import annotations

import math

import numpy as np

from ...blob import Tensor
from ..base import Pooling, PoolingGeometry
from .device import Device


def macros(geometry: PoolingGeometry) -> dict[str, object]:
    """The sizes as pooling.cl names them."""
    values: dict[str, object] = {}
    for prefix, pair in (("", geometry.input), ("O", geometry.output), ("K", geometry.kernel),
                         ("S", geometry.stride), ("P", geometry.pad)):
        values.update({f"{prefix}H": pair[0], f"{prefix}W": pair[1]})
    return values


class OpenCLMaxPooling(Pooling):
    """Maximum pooling; the places of the maxima stay on the device."""

    def __init__(self, device: Device, geometry: PoolingGeometry) -> None:
        self.space = device.space
        self._planes, self._outputs = geometry.batch * geometry.channels, math.prod(geometry.y_shape)
        self._forward = device.kernel("pooling.cl", "max_forward", "bbbb", macros(geometry))
        self._backward = device.kernel("pooling.cl", "max_backward", "bbb", macros(geometry), heavy=True)
        self._where = Tensor(geometry.y_shape, np.int32)
        self.workspace_bytes = self._where.memory.nbytes

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        places = None if mask is None else mask.write(self.space)
        self._forward.run(self._outputs, x.read(self.space), y.write(self.space), self._where.write(self.space), places)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._planes, dy.read(self.space), self._where.read(self.space), dx.write(self.space))


class OpenCLAveragePooling(Pooling):
    """Average pooling."""

    def __init__(self, device: Device, geometry: PoolingGeometry) -> None:
        self.space = device.space
        self._planes, self._outputs = geometry.batch * geometry.channels, math.prod(geometry.y_shape)
        self._forward = device.kernel("pooling.cl", "average_forward", "bb", macros(geometry))
        self._backward = device.kernel("pooling.cl", "average_backward", "bb", macros(geometry), heavy=True)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        self._forward.run(self._outputs, x.read(self.space), y.write(self.space))

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._planes, dy.read(self.space), dx.write(self.space))
