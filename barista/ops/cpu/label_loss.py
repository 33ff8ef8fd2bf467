"""Losses of probabilities and labels on the host, softmax's own apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import AxisGeometry, InfogainLoss, Loss, LossRule
from .loss import normalizer, read_labels

Array = npt.NDArray[Any]

# Caffe: probabilities are clipped from below before the logarithm, and before anything is divided by them.
SMALLEST = 1e-20


class CpuInfogainLoss(InfogainLoss):
    """Cross entropy weighed by a row of a matrix for each label."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, rule: LossRule) -> None:
        self._geometry = geometry
        self._rule = rule
        self._normalizer = 1.0

    def _read(self, x: Tensor, target: Tensor, gains: Tensor) -> tuple[Array, Array, Array]:
        """Probabilities, and the weights of their logarithms, (outer, axis, inner); which labels count."""
        g = self._geometry
        labels, counts = read_labels(target, (g.outer, g.inner), g.axis, self._rule.ignore_label)
        weights = np.moveaxis(gains.read(HOST).reshape(g.axis, g.axis)[labels], 2, 1)
        return x.read(HOST).reshape(g.shape), weights, counts

    def forward(self, x: Tensor, target: Tensor, gains: Tensor, loss: Tensor) -> None:
        probabilities, weights, counts = self._read(x, target, gains)
        losses = np.sum(weights * np.log(np.maximum(probabilities, SMALLEST)), axis=1)
        self._normalizer = normalizer(self._rule, int(counts.sum()), counts.size, self._geometry.outer)
        loss.write(HOST)[...] = -np.sum(losses, where=counts) / self._normalizer

    def backward(self, x: Tensor, target: Tensor, gains: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        probabilities, weights, counts = self._read(x, target, gains)
        scale = float(loss_weight.read(HOST).reshape(-1)[0]) / self._normalizer
        result = dx.write(HOST).reshape(self._geometry.shape)
        np.multiply(probabilities, weights.sum(axis=1, keepdims=True), out=result)
        np.subtract(result, weights, out=result)
        np.multiply(result, counts[:, None, :] * result.dtype.type(scale), out=result)


class CpuMultinomialLoss(Loss):
    """-log of the probability of the label."""

    space = HOST

    def __init__(self, geometry: AxisGeometry) -> None:
        self._shape = (geometry.outer, geometry.axis)
        self._share = 1 / max(geometry.outer, 1)

    def _read(self, x: Tensor, target: Tensor) -> tuple[Array, Array]:
        """The labels as a column, and their probabilities."""
        labels = read_labels(target, self._shape[:1], self._shape[1], None)[0][:, None]
        return labels, np.maximum(np.take_along_axis(x.read(HOST).reshape(self._shape), labels, axis=1), SMALLEST)

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        loss.write(HOST)[...] = -np.log(self._read(x, target)[1]).sum() * self._share

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        labels, chosen = self._read(x, target)
        scale = float(loss_weight.read(HOST).reshape(-1)[0]) * self._share
        result = dx.write(HOST).reshape(self._shape)
        result[...] = 0
        np.put_along_axis(result, labels, -scale / chosen, axis=1)
