"""Maximum and average pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...blob import Tensor
from ..base import Pooling, PoolingGeometry
from .device import Device

# A work-item keeps lines of the padded input in private memory: no wider ones.
MAX_LINE = 16384
TOO_WIDE = f"the kernels go up to {MAX_LINE} padded columns"
# A vector register of most processors.
VECTOR_BYTES = 32
# Work-items on a processor: enough for all its cores, few enough that starting them does not count.
ITEMS = 64


def line(geometry: PoolingGeometry) -> int:
    """Columns that a row of windows or of the padded input has, whichever are more."""
    (_, outputs), (_, stride), (_, kernel) = geometry.output, geometry.stride, geometry.kernel
    return max((outputs - 1) * stride + kernel, geometry.input[1] + geometry.pad[1] + stride)


def macros(geometry: PoolingGeometry, dtype: np.dtype[Any]) -> dict[str, object]:
    """The sizes as pooling.cl names them."""
    seen = min((geometry.output[1] - 1) * geometry.stride[1] + geometry.kernel[1] - geometry.pad[1], geometry.input[1])
    lanes = max(lanes for lanes in (2, 4, 8) if lanes == 2 or lanes <= min(seen, VECTOR_BYTES // dtype.itemsize))
    values: dict[str, object] = {"LANES": lanes, "INTEGER": {4: "int", 8: "long"}[dtype.itemsize]}
    for prefix, pair in (("", geometry.input), ("O", geometry.output), ("K", geometry.kernel),
                         ("S", geometry.stride), ("P", geometry.pad)):
        values.update({f"{prefix}H": pair[0], f"{prefix}W": pair[1]})
    return values


class _Share:
    """How rows or planes are shared out: `items` of a kernel, and `arguments` that say so to it."""

    def __init__(self, device: Device, count: int) -> None:
        each = max(1, count // ITEMS) if device.context.is_cpu else 1
        self.items = -(-count // each)
        self.arguments = (each, count)


class OpenCLMaxPooling(Pooling):
    """Maximum pooling; the taps of the maxima stay on the device."""

    def __init__(self, device: Device, geometry: PoolingGeometry) -> None:
        self.space = device.space
        planes, constants = geometry.batch * geometry.channels, macros(geometry, device.dtype)
        self._rows, self._planes = _Share(device, planes * geometry.output[0]), _Share(device, planes)
        self._forward = device.kernel("pooling.cl", "max_forward", "bbbbii", constants, heavy=True)
        self._backward = device.kernel("pooling.cl", "max_backward", "bbbii", constants, heavy=True)
        self._taps = Tensor(geometry.y_shape, np.uint8 if math.prod(geometry.kernel) < 256 else np.int32)
        self.workspace_bytes = self._taps.memory.nbytes

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        positions = None if mask is None else mask.write(self.space)
        self._forward.run(self._rows.items, x.read(self.space), y.write(self.space), self._taps.write(self.space),
                          positions, *self._rows.arguments)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._planes.items, dy.read(self.space), self._taps.read(self.space), dx.write(self.space),
                           *self._planes.arguments)


class OpenCLAveragePooling(Pooling):
    """Average pooling."""

    def __init__(self, device: Device, geometry: PoolingGeometry) -> None:
        self.space = device.space
        planes, constants = geometry.batch * geometry.channels, macros(geometry, device.dtype)
        self._outputs = _Share(device, planes * geometry.output[0])
        self._inputs = _Share(device, planes * geometry.input[0])
        self._forward = device.kernel("pooling.cl", "average_forward", "bbii", constants, heavy=True)
        self._backward = device.kernel("pooling.cl", "average_backward", "bbii", constants, heavy=True)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        self._forward.run(self._outputs.items, x.read(self.space), y.write(self.space), *self._outputs.arguments)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._inputs.items, dy.read(self.space), dx.write(self.space), *self._inputs.arguments)
