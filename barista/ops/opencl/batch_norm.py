"""Batch normalisation on a device."""

from __future__ import annotations

from ...blob import Tensor
from ...runtime.space import DeviceArray
from ..base import AxisGeometry, BatchNorm
from .broadcast import PIECE, PIECE_CPU, VECTOR, Parts, Rows
from .device import Device


class OpenCLBatchNorm(BatchNorm):
    """Batch normalisation; x is kept for the backward pass, as a copy where it is overwritten."""

    def __init__(self, device: Device, geometry: AxisGeometry, eps: float, in_place: bool = False) -> None:
        self.space = device.space
        self._axis, self._eps = geometry.axis, eps
        if geometry.axis == 1:
            geometry = AxisGeometry(1, 1, geometry.outer * geometry.inner)
        self._share = 1 / max(1, geometry.outer * geometry.inner)
        is_cpu = device.context.is_cpu
        self._rows = Rows(geometry, PIECE_CPU if is_cpu else PIECE)
        self._parts = parts = Parts(device, geometry)
        self._parts_sizes = (self._axis, parts.count, parts.pieces, parts.most, parts.last)
        file, macros = "batch_norm.cl", {**parts.macros, "PIECE": PIECE_CPU if is_cpu else PIECE}
        self._moments = device.kernel(file, "moments", "bbbiii", parts.macros, heavy=True)
        self._statistics = device.kernel(file, "statistics", "bbbbbbiiiiirr", parts.macros, heavy=True)
        self._given = device.kernel(file, "given", "bbbbr", macros)
        self._normalise = device.kernel(file, "normalise", "bbbbbiii", macros, heavy=is_cpu)
        self._sums = device.kernel(file, "sums", "bbbbbiii", parts.macros, heavy=True)
        self._backward = device.kernel(file, "backward", "bbbbbbbiiir", macros, heavy=is_cpu)
        self._multiply = device.kernel("broadcast.cl", "multiply", "bbbbbiii", macros, heavy=is_cpu)
        self._centre, self._inverse, self._gradient, self._slope = (
            Tensor((geometry.axis,), device.dtype).write(self.space) for _ in range(4))
        self._copy = Tensor(geometry.shape, device.dtype)  # takes memory where it is used
        self._kept = self._copy
        self.workspace_bytes = 4 * geometry.axis * device.dtype.itemsize + (self._copy.memory.nbytes if in_place else 0)
        self.scratch_bytes = parts.scratch_bytes

    def forward_train(self, x: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        source, parts = x.read(self.space), self._parts
        means, squares = parts.arrays()
        self._moments.run(parts.items, source, means, squares, *parts.rows.sizes)
        self._statistics.run(-(-self._axis // VECTOR), means, squares, mean.write(self.space),
                             variance.write(self.space), self._centre, self._inverse, *self._parts_sizes,
                             self._share, self._eps)
        copy: DeviceArray | None = None
        self._kept = x
        if x.memory is y.memory:
            self._kept = self._copy
            copy = self._copy.write(self.space)
        self._normalised(source, copy, y)

    def forward_test(self, x: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        source = x.read(self.space)
        self._given.run(self._axis, mean.read(self.space), variance.read(self.space), self._centre, self._inverse,
                        self._eps)
        self._normalised(source, None, y)

    def _normalised(self, source: DeviceArray, copy: DeviceArray | None, y: Tensor) -> None:
        self._normalise.run(self._rows.items, source, self._centre, self._inverse, copy, y.write(self.space),
                            *self._rows.sizes)

    def backward_train(self, dy: Tensor, dx: Tensor) -> None:
        gradient, source, parts = dy.read(self.space), self._kept.read(self.space), self._parts
        self._sums.run(parts.items, gradient, source, self._centre, *parts.arrays(), *parts.rows.sizes)
        parts.add((self._gradient, True), (self._slope, True))
        self._backward.run(self._rows.items, gradient, source, self._centre, self._inverse, self._gradient,
                           self._slope, dx.write(self.space), *self._rows.sizes, self._share)

    def backward_test(self, dy: Tensor, dx: Tensor) -> None:
        self._multiply.run(self._rows.items, dy.read(self.space), self._inverse, None, None, dx.write(self.space),
                           *self._rows.sizes)
