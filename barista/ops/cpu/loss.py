"""Softmax, losses and accuracy on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...errors import DataError, ShapeError
from ..base import Accuracy, AxisGeometry, Loss, LossRule, MarginLoss, Softmax

Array = npt.NDArray[Any]

# Caffe: probabilities are clipped from below before the logarithm (FLT_MIN).
SMALLEST = float(np.finfo(np.float32).tiny)


class CpuSoftmax(Softmax):
    """Softmax over the middle axis."""

    space = HOST

    def __init__(self, geometry: AxisGeometry) -> None:
        self._shape = geometry.shape
        if not self._shape[1]:
            raise ShapeError("the bottom has 0 classes; a softmax needs 1 or more")

    def forward(self, x: Tensor, y: Tensor) -> None:
        source, result = x.read(HOST).reshape(self._shape), y.write(HOST).reshape(self._shape)
        np.subtract(source, source.max(axis=1, keepdims=True), out=result)
        np.exp(result, out=result)
        np.divide(result, result.sum(axis=1, keepdims=True), out=result)

    def backward(self, y: Tensor, dy: Tensor, dx: Tensor) -> None:
        output, gradient = y.read(HOST).reshape(self._shape), dy.read(HOST).reshape(self._shape)
        result = dx.write(HOST).reshape(self._shape)
        np.multiply(gradient - (gradient * output).sum(axis=1, keepdims=True), output, out=result)


def read_labels(tensor: Tensor, shape: tuple[int, ...], classes: int, ignore: int | None) -> tuple[Array, Array]:
    """Integer labels of `shape`, ignored ones replaced by 0, and which of them count.

    Raises
    ------
    DataError : a label that is no class
    """
    labels = tensor.read(HOST).reshape(shape).astype(np.int64)
    counts = np.ones(shape, np.bool_) if ignore is None else labels != ignore
    wrong = counts & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise DataError(f"label {labels[wrong].flat[0]} is none of the {classes} classes 0 to {classes - 1}; "
                        "check the labels, num_output of the last layer, or set ignore_label")
    return np.where(counts, labels, 0), counts


def normalizer(rule: LossRule, valid: int, full: int, batch: int) -> float:
    """What a loss is divided by.

    Caffe: at least 1, so that a batch without any valid label gives 0 and no NaN.
    """
    count = {"FULL": full, "VALID": valid if rule.ignore_label is not None else full,
             "BATCH_SIZE": batch, "NONE": 1}[rule.normalization]
    return max(1.0, float(count))


class CpuSoftmaxLoss(Loss):
    """Cross entropy of probabilities with labels (outer, inner)."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, rule: LossRule) -> None:
        self._geometry = geometry
        self._rule = rule
        self._normalizer = 1.0

    def _read(self, x: Tensor, target: Tensor) -> tuple[Array, Array, Array]:
        g = self._geometry
        labels, counts = read_labels(target, (g.outer, g.inner), g.axis, self._rule.ignore_label)
        return x.read(HOST).reshape(g.shape), labels, counts

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        probabilities, labels, counts = self._read(x, target)
        chosen = np.take_along_axis(probabilities, labels[:, None, :], axis=1)[:, 0, :]
        losses = -np.log(np.maximum(chosen, SMALLEST))
        self._normalizer = normalizer(self._rule, int(counts.sum()), counts.size, self._geometry.outer)
        loss.write(HOST)[...] = np.sum(losses, where=counts) / self._normalizer

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        probabilities, labels, counts = self._read(x, target)
        result = dx.write(HOST).reshape(self._geometry.shape)
        np.copyto(result, probabilities)
        outer = np.arange(labels.shape[0])[:, None]
        inner = np.arange(labels.shape[1])[None, :]
        result[outer, labels, inner] -= 1
        scale = float(loss_weight.read(HOST).reshape(-1)[0]) / self._normalizer
        np.multiply(result, scale, out=result)
        if not counts.all():
            np.multiply(result, counts[:, None, :], out=result)


class CpuEuclideanLoss(Loss):
    """sum((x - target)^2) / (2 batch)."""

    space = HOST

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        difference = (x.read(HOST).reshape(-1) - target.read(HOST).reshape(-1))
        loss.write(HOST)[...] = np.dot(difference, difference) / self._batch / 2

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        source = x.read(HOST)
        result = dx.write(HOST)
        np.subtract(source, target.read(HOST).reshape(source.shape), out=result.reshape(source.shape))
        result *= float(loss_weight.read(HOST).reshape(-1)[0]) / self._batch


class CpuSigmoidCrossEntropyLoss(Loss):
    """Cross entropy of sigmoid(x) with targets in [0, 1]."""

    space = HOST

    def __init__(self, batch: int, rule: LossRule) -> None:
        self._batch = batch
        self._rule = rule
        self._normalizer = 1.0

    def _counts(self, targets: Array) -> Array:
        if self._rule.ignore_label is None:
            return np.ones(targets.shape, np.bool_)
        # Caffe: the target is cut to an integer before it is compared.
        counts: Array = targets.astype(np.int64) != self._rule.ignore_label
        return counts

    def forward(self, x: Tensor, target: Tensor, loss: Tensor) -> None:
        source = x.read(HOST).reshape(-1)
        targets = target.read(HOST).reshape(-1)
        counts = self._counts(targets)
        losses = np.maximum(source, 0) - source * targets + np.log1p(np.exp(-np.abs(source)))
        self._normalizer = normalizer(self._rule, int(counts.sum()), counts.size, self._batch)
        loss.write(HOST)[...] = np.sum(losses, where=counts) / self._normalizer

    def backward(self, x: Tensor, target: Tensor, loss_weight: Tensor, dx: Tensor) -> None:
        source = x.read(HOST).reshape(-1)
        targets = target.read(HOST).reshape(-1)
        result = dx.write(HOST).reshape(-1)
        np.tanh(0.5 * source, out=result)
        np.multiply(result, 0.5, out=result)
        np.add(result, 0.5, out=result)
        np.subtract(result, targets, out=result)
        result *= self._counts(targets)
        result *= float(loss_weight.read(HOST).reshape(-1)[0]) / self._normalizer


class CpuHingeLoss(MarginLoss):
    """sum over classes of max(0, 1 -+ x), squared for L2, divided by the batch."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, norm: str) -> None:
        self._shape = (geometry.outer, geometry.axis)
        self._norm = norm

    def _signs(self, target: Tensor, dtype: np.dtype[Any]) -> Array:
        """-1 at the label, 1 elsewhere."""
        labels, _ = read_labels(target, (self._shape[0],), self._shape[1], None)
        signs = np.ones(self._shape, dtype)
        signs[np.arange(self._shape[0]), labels] = -1
        return signs

    def forward(self, x: Tensor, target: Tensor, margins: Tensor, loss: Tensor) -> None:
        result = margins.write(HOST).reshape(self._shape)
        np.multiply(x.read(HOST).reshape(self._shape), self._signs(target, result.dtype), out=result)
        np.maximum(result + 1, 0, out=result)
        total = result.sum() if self._norm == "L1" else np.vdot(result, result)
        loss.write(HOST)[...] = total / max(self._shape[0], 1)

    def backward(self, target: Tensor, loss_weight: Tensor, margins: Tensor) -> None:
        result = margins.update(HOST).reshape(self._shape)
        slopes = np.sign(result) if self._norm == "L1" else 2 * result
        scale = float(loss_weight.read(HOST).reshape(-1)[0]) / max(self._shape[0], 1)
        np.multiply(slopes, self._signs(target, result.dtype) * result.dtype.type(scale), out=result)


class CpuAccuracy(Accuracy):
    """Top-k accuracy.

    Caffe: a row is right while fewer than top_k other classes score at least as high as its label.
    """

    space = HOST

    def __init__(self, geometry: AxisGeometry, top_k: int, ignore_label: int | None) -> None:
        self._geometry = geometry
        self._top_k = top_k
        self._ignore = ignore_label

    def forward(self, x: Tensor, labels: Tensor, accuracy: Tensor, per_class: Tensor | None) -> None:
        g = self._geometry
        scores = x.read(HOST).reshape(g.shape)
        wanted, counts = read_labels(labels, (g.outer, g.inner), g.axis, self._ignore)
        chosen = np.take_along_axis(scores, wanted[:, None, :], axis=1)
        better = (scores >= chosen).sum(axis=1) - 1
        right = (better < self._top_k) & counts
        accuracy.write(HOST)[...] = right.sum() / max(int(counts.sum()), 1)
        if per_class is not None:
            total = np.bincount(wanted[counts], minlength=g.axis)
            found = np.bincount(wanted[right], minlength=g.axis)
            per_class.write(HOST)[...] = np.where(total > 0, found / np.maximum(total, 1), 0)
