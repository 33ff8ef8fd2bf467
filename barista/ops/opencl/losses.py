"""Losses; the loss and its normaliser stay on the device.

A label that is no class makes the loss NaN, since a kernel cannot raise.
"""

from __future__ import annotations

from ...blob import Tensor
from ...runtime.kernel import Kernel
from ...runtime.space import DeviceArray
from ..base import AxisGeometry, Loss, LossRule, MarginLoss
from .device import Device

# Terms of one work-item: many against the price of a work-item, few enough that their sum rounds little.
PIECE = 16384
# Labels of one, each of which takes a logarithm.
PIECE_LABELS = 1024


class _Parts:
    """What losses share: `count` things in pieces, and the normalised sum over them.

    Parameters
    ----------
    count, piece : things, terms or rows of them, and how many a work-item has
    terms, batch : what the rule may divide by

    Attributes
    ----------
    pieces : work-items
    sizes : what a kernel is told of them
    ignored : the target that counts nothing, if the rule has one
    normaliser : what the last loss was divided by
    """

    def __init__(self, device: Device, rule: LossRule, count: int, piece: int, terms: int, batch: int,
                 macros: dict[str, object] | None = None) -> None:
        self._device = device
        self._macros = {"NORMALIZATION": rule.normalization, "IGNORES": int(rule.ignore_label is not None),
                        **(macros or {})}
        self.pieces, self.sizes = -(-count // piece), (piece, count)
        self.ignored = rule.ignore_label if rule.ignore_label is not None else -1
        self._counts = (self.pieces, terms, batch)
        self._total = self.kernel("total", "bbbiii")
        self.normaliser = Tensor((), device.dtype)
        self.workspace_bytes = self.normaliser.memory.nbytes
        self.scratch_bytes = device.scratch.reserve("partial", 2 * max(self.pieces, 1))

    def kernel(self, name: str, signature: str) -> Kernel:
        """A kernel of losses.cl."""
        return self._device.kernel("losses.cl", name, signature, {**self._device.functions, **self._macros}, heavy=True)

    @property
    def partial(self) -> DeviceArray:
        """Where the sums of the pieces go."""
        return self._device.scratch.array("partial")

    def total(self, loss: Tensor) -> None:
        """Make the loss of what lies in `partial`."""
        space = self._device.space
        self._total.run(1, self.partial, loss.write(space), self.normaliser.write(space), *self._counts)


class OpenCLSoftmaxLoss(Loss):
    """Cross entropy of probabilities with labels."""

    def __init__(self, device: Device, geometry: AxisGeometry, rule: LossRule) -> None:
        self.space, g = device.space, geometry
        columns = g.outer * g.inner
        self._parts = _Parts(device, rule, columns, PIECE_LABELS, columns, g.outer)
        self._terms = self._parts.kernel("entropy_terms", "bbbiiiii")
        self._gradient = self._parts.kernel("entropy_gradient", "bbbbbiiiii")
        self._sizes = (g.axis, g.inner, self._parts.ignored)
        rows, length = (g.outer * g.axis, g.inner) if g.inner > 1 else (g.outer, g.axis)
        piece = max(1, PIECE // max(length, 1))
        self._rows, self._pieces = (piece, rows), -(-rows // piece)
        self.workspace_bytes, self.scratch_bytes = self._parts.workspace_bytes, self._parts.scratch_bytes

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        parts = self._parts
        self._terms.run(parts.pieces, x.read(self.space), target.read(self.space), parts.partial, *self._sizes,
                        *parts.sizes)
        parts.total(loss)

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        self._gradient.run(self._pieces, x.read(self.space), target.read(self.space), loss_weight.read(self.space),
                           self._parts.normaliser.read(self.space), dx.write(self.space), *self._sizes, *self._rows)


class _ElementLoss(Loss):
    """A loss of one term an element, with kernels `name`_terms and `name`_gradient."""

    def __init__(self, device: Device, name: str, count: int, batch: int, rule: LossRule, ignores: bool) -> None:
        self.space = device.space
        self._parts = _Parts(device, rule, count, PIECE, count, batch)
        self._sizes = ((self._parts.ignored,) if ignores else ()) + self._parts.sizes
        letters = "i" * len(self._sizes)
        self._terms = self._parts.kernel(f"{name}_terms", "bbb" + letters)
        self._gradient = self._parts.kernel(f"{name}_gradient", "bbbbb" + letters)
        self.workspace_bytes, self.scratch_bytes = self._parts.workspace_bytes, self._parts.scratch_bytes

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        parts = self._parts
        self._terms.run(parts.pieces, x.read(self.space), target.read(self.space), parts.partial, *self._sizes)
        parts.total(loss)

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        self._gradient.run(self._parts.pieces, x.read(self.space), target.read(self.space),
                           loss_weight.read(self.space), self._parts.normaliser.read(self.space),
                           dx.write(self.space), *self._sizes)


class OpenCLEuclideanLoss(_ElementLoss):
    """sum((x - target)^2) / (2 batch)."""

    def __init__(self, device: Device, count: int, batch: int) -> None:
        super().__init__(device, "euclidean", count, batch, LossRule("BATCH_SIZE"), ignores=False)


class OpenCLSigmoidCrossEntropyLoss(_ElementLoss):
    """Cross entropy of sigmoid(x) with targets in [0, 1]."""

    def __init__(self, device: Device, count: int, batch: int, rule: LossRule) -> None:
        super().__init__(device, "sigmoid", count, batch, rule, ignores=True)


class OpenCLHingeLoss(MarginLoss):
    """One-against-all hinge loss; `norm` is L1 or L2."""

    def __init__(self, device: Device, geometry: AxisGeometry, norm: str) -> None:
        self.space, g = device.space, geometry
        self._parts = _Parts(device, LossRule("BATCH_SIZE"), g.outer, max(1, PIECE // max(g.axis, 1)),
                             g.outer * g.axis, g.outer, {"SQUARED": int(norm == "L2")})
        self._terms = self._parts.kernel("hinge_terms", "bbbbiii")
        self._gradient = self._parts.kernel("hinge_gradient", "bbbbiii")
        self._sizes = (g.axis, *self._parts.sizes)
        self.workspace_bytes, self.scratch_bytes = self._parts.workspace_bytes, self._parts.scratch_bytes

    def forward(self, x: Tensor, target: Tensor, margins: Tensor, loss: Tensor) -> None:
        parts = self._parts
        self._terms.run(parts.pieces, x.read(self.space), target.read(self.space), margins.write(self.space),
                        parts.partial, *self._sizes)
        parts.total(loss)

    def backward(self, target: Tensor, loss_weight: Tensor, margins: Tensor) -> None:
        self._gradient.run(self._parts.pieces, target.read(self.space), loss_weight.read(self.space),
                           self._parts.normaliser.read(self.space), margins.update(self.space), *self._sizes)
