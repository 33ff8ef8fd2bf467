"""Batch normalisation on a device."""

from __future__ import annotations

from ...blob import Tensor
from ...runtime.space import DeviceArray
from ..base import AxisGeometry, BatchNorm
from .broadcast import VECTOR, Cut
from .device import Device


class OpenCLBatchNorm(BatchNorm):
    """Batch normalisation; x is kept for the backward pass, as a copy where it is overwritten."""

    def __init__(self, device: Device, geometry: AxisGeometry, eps: float, in_place: bool = False) -> None:
        self.space = device.space
        cut = Cut(device, geometry)
        geometry, parts = cut.geometry, cut.parts
        self._rows, self._parts = cut.rows, parts
        self._axis, self._eps = geometry.axis, eps
        self._share = 1 / max(1, geometry.outer * geometry.inner)
        self._parts_sizes = (self._axis, parts.count, parts.pieces, parts.most, parts.last)
        file = "batch_norm.cl"
        self._moments = cut.over_parts(file, "moments", "bbbiii")
        self._statistics = cut.over_parts(file, "statistics", "bbbbbbiiiiirr")
        self._given = device.kernel(file, "given", "bbbbr", parts.macros)
        self._normalise = cut.over_rows(file, "normalise", "bbbbbiii")
        self._sums = cut.over_parts(file, "sums", "bbbbbiii")
        self._backward = cut.over_rows(file, "backward", "bbbbbbbiiir")
        self._multiply = cut.over_rows("broadcast.cl", "multiply", "bbbbbiii")
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
