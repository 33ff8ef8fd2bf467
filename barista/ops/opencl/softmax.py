"""Softmax and the cross entropy of its result."""

from __future__ import annotations

from ...blob import Tensor
from ..base import AxisGeometry, Loss, LossRule, Softmax
from .device import Device


class OpenCLSoftmax(Softmax):
    """Softmax over the middle axis."""

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self.space = device.space
        self._columns, self._sizes = geometry.outer * geometry.inner, (geometry.axis, geometry.inner)
        self._forward = device.kernel("softmax.cl", "softmax_forward", "bbii")
        self._backward = device.kernel("softmax.cl", "softmax_backward", "bbbii")

    def forward(self, x: Tensor, y: Tensor) -> None:
        self._forward.run(self._columns, x.read(self.space), y.write(self.space), *self._sizes)

    def backward(self, y: Tensor, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(self._columns, y.read(self.space), dy.read(self.space), dx.write(self.space), *self._sizes)


class OpenCLSoftmaxLoss(Loss):
    """Cross entropy of probabilities with labels; the loss and its normaliser stay on the device.

    A label that is no class makes the loss NaN, since a kernel cannot raise.
    """

    def __init__(self, device: Device, geometry: AxisGeometry, rule: LossRule) -> None:
        self.space = device.space
        self._scratch = device.scratch
        self._outer = geometry.outer
        self._columns, self._sizes = geometry.outer * geometry.inner, (geometry.axis, geometry.inner)
        constants = {"NORMALIZATION": rule.normalization, "IGNORES": int(rule.ignore_label is not None)}
        self._ignore = rule.ignore_label if rule.ignore_label is not None else -1
        self._terms = device.kernel("softmax.cl", "entropy_terms", "bbbiii", constants)
        self._total = device.kernel("softmax.cl", "entropy_total", "bbbbiii", constants, heavy=True)
        self._backward = device.kernel("softmax.cl", "entropy_backward", "bbbbbiii", constants)
        self._normaliser = Tensor((), device.dtype)
        self.workspace_bytes = self._scratch.reserve("partial", self._columns) + self._normaliser.memory.nbytes

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        probabilities, labels = x.read(self.space), target.read(self.space)
        terms = self._scratch.array("partial")
        self._terms.run(self._columns, probabilities, labels, terms, *self._sizes, self._ignore)
        self._total.run(1, terms, labels, loss.write(self.space), self._normaliser.write(self.space),
                        self._columns, self._outer, self._ignore)

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        self._backward.run(self._columns, x.read(self.space), target.read(self.space), loss_weight.read(self.space),
                           self._normaliser.read(self.space), dx.write(self.space), *self._sizes, self._ignore)
