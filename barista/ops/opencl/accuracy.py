"""Accuracy."""

from __future__ import annotations

from ...blob import Tensor
from ..base import Accuracy, AxisGeometry
from .device import Device

# Labels side by side in a work-item.
BLOCK = 64


class OpenCLAccuracy(Accuracy):
    """Top-k accuracy; it stays on the device.

    A label that is no class makes it NaN, since a kernel cannot raise.
    """

    def __init__(self, device: Device, geometry: AxisGeometry, top_k: int, ignore_label: int | None) -> None:
        self.space, g = device.space, geometry
        self._scratch = device.scratch
        self._labels, self._classes = g.outer * g.inner, g.axis
        block = BLOCK if g.inner > 1 else 1
        self._items = g.outer * -(-g.inner // block)
        self._sizes = (g.axis, g.inner, top_k, ignore_label if ignore_label is not None else -1)
        macros = {"IGNORES": int(ignore_label is not None), "BLOCK": block}
        self._verdicts = device.kernel("accuracy.cl", "verdicts", "bbbiiii", macros, heavy=True)
        self._share = device.kernel("accuracy.cl", "share", "bbi", macros, heavy=True)
        self._share_of_class = device.kernel("accuracy.cl", "share_of_class", "bbbi", macros, heavy=True)
        self.scratch_bytes = self._scratch.reserve("partial", max(self._labels, 1))

    def forward(self, x: Tensor, labels: Tensor, accuracy: Tensor, per_class: Tensor | None) -> None:
        scores, wanted, verdicts = x.read(self.space), labels.read(self.space), self._scratch.array("partial")
        self._verdicts.run(self._items, scores, wanted, verdicts, *self._sizes)
        self._share.run(1, verdicts, accuracy.write(self.space), self._labels)
        if per_class is not None:
            self._share_of_class.run(self._classes, verdicts, wanted, per_class.write(self.space), self._labels)
