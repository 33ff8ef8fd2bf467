"""Layers as plain loops over scalars in float64: slow, independent of all op sets, and easy to check by eye.

Arrays are (N, C, *I); spatial parameters are tuples with one entry an axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]


def _places(sizes: Sequence[int]) -> Iterator[Sizes]:
    return itertools.product(*(range(size) for size in sizes))


# ---- products ---------------------------------------------------------------------------------------------


def gemm(a: Array, b: Array, c: Array, trans_a: bool, trans_b: bool, alpha: float, beta: float) -> Array:
    """alpha op(a) op(b) + beta c; c is not read where beta is 0."""
    result = np.zeros(c.shape)
    for m, n in _places(c.shape):
        total = 0.0
        for k in range(a.shape[0] if trans_a else a.shape[1]):
            total += float(a[k, m] if trans_a else a[m, k]) * float(b[n, k] if trans_b else b[k, n])
        result[m, n] = alpha * total + (beta * float(c[m, n]) if beta else 0.0)
    return result


def inner_product(x: Array, w: Array, bias: Array | None, dy: Array) -> tuple[Array, Array, Array, Array]:
    """y, dx, dw and db of y(M, N) = x(M, K) w(N, K)^T + b(N)."""
    rows, outputs, inputs = len(x), len(w), x.shape[1]
    y, dx, dw, db = np.zeros((rows, outputs)), np.zeros(x.shape), np.zeros(w.shape), np.zeros(outputs)
    for m, n in _places((rows, outputs)):
        y[m, n] = 0.0 if bias is None else bias[n]
        db[n] += dy[m, n]
        for k in range(inputs):
            y[m, n] += x[m, k] * w[n, k]
            dx[m, k] += dy[m, n] * w[n, k]
            dw[n, k] += dy[m, n] * x[m, k]
    return y, dx, dw, db


# ---- convolution ------------------------------------------------------------------------------------------


def convolution_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Number of places where the dilated kernel fits."""
    return len(range(-pad, size + pad - dilation * (kernel - 1), stride))


def _taps(input_: Sizes, output: Sizes, kernel: Sizes, stride: Sizes, pad: Sizes,
          dilation: Sizes) -> Iterator[tuple[Sizes, Sizes, Sizes]]:
    """All (output place, kernel place, input place) with the input place inside the image."""
    for o in _places(output):
        for k in _places(kernel):
            i = tuple(a * s - p + b * d for a, b, s, p, d in zip(o, k, stride, pad, dilation, strict=True))
            if all(0 <= at < size for at, size in zip(i, input_, strict=True)):
                yield o, k, i


def _channel_pairs(inputs: int, outputs: int, group: int) -> Iterator[tuple[int, int, int]]:
    """(input channel, output channel, input channel within its group)."""
    for d in range(outputs):
        first = d // (outputs // group) * (inputs // group)
        for c in range(inputs // group):
            yield first + c, d, c


def convolution(x: Array, w: Array, bias: Array | None, stride: Sizes, pad: Sizes, dilation: Sizes,
                group: int = 1) -> Array:
    """y(N, D, *O) of x(N, C, *I) and w(D, C/group, *k)."""
    input_, kernel = x.shape[2:], w.shape[2:]
    output = tuple(convolution_size(*sizes) for sizes in zip(input_, kernel, stride, pad, dilation, strict=True))
    y = np.zeros((x.shape[0], w.shape[0], *output))
    if bias is not None:
        for d in range(w.shape[0]):
            y[:, d] = bias[d]
    for o, k, i in _taps(input_, output, kernel, stride, pad, dilation):
        for c, d, within in _channel_pairs(x.shape[1], w.shape[0], group):
            for n in range(x.shape[0]):
                y[(n, d, *o)] += x[(n, c, *i)] * w[(d, within, *k)]
    return y


def convolution_gradients(x: Array, w: Array, dy: Array, stride: Sizes, pad: Sizes, dilation: Sizes,
                          group: int = 1) -> tuple[Array, Array, Array]:
    """dx, dw and db."""
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(w.shape[0])
    for o, k, i in _taps(x.shape[2:], dy.shape[2:], w.shape[2:], stride, pad, dilation):
        for c, d, within in _channel_pairs(x.shape[1], w.shape[0], group):
            for n in range(x.shape[0]):
                dx[(n, c, *i)] += dy[(n, d, *o)] * w[(d, within, *k)]
                dw[(d, within, *k)] += dy[(n, d, *o)] * x[(n, c, *i)]
    for n, d in _places(dy.shape[:2]):
        db[d] += sum(float(dy[(n, d, *o)]) for o in _places(dy.shape[2:]))
    return dx, dw, db


def deconvolution(x: Array, w: Array, bias: Array | None, stride: Sizes, pad: Sizes, dilation: Sizes,
                  group: int = 1) -> Array:
    """y(N, D, *O) of x(N, C, *I) and w(C, D/group, *k): every input element paints a scaled kernel."""
    outputs, kernel = w.shape[1] * group, w.shape[2:]
    output = tuple(s * (i - 1) + d * (k - 1) + 1 - 2 * p
                   for i, k, s, p, d in zip(x.shape[2:], kernel, stride, pad, dilation, strict=True))
    y = np.zeros((x.shape[0], outputs, *output))
    if bias is not None:
        for d in range(outputs):
            y[:, d] = bias[d]
    for i, k, o in _taps(output, x.shape[2:], kernel, stride, pad, dilation):
        for d, c, within in _channel_pairs(outputs, x.shape[1], group):
            for n in range(x.shape[0]):
                y[(n, d, *o)] += x[(n, c, *i)] * w[(c, within, *k)]
    return y


# ---- pooling ----------------------------------------------------------------------------------------------


def pooled_size(size: int, kernel: int, stride: int, pad: int, floor: bool = False) -> int:
    """Caffe's output size: rounded up, less a last window that starts behind input and padding."""
    rounded = math.floor if floor else math.ceil
    pooled = int(rounded((size + 2 * pad - kernel) / stride)) + 1
    if pad > 0 and (pooled - 1) * stride >= size + pad:
        pooled -= 1
    return pooled


def _windows(x: Array, kernel: Sizes, stride: Sizes, pad: Sizes, floor: bool) -> Iterator[tuple[Any, Any, float]]:
    """(place in y, places in x, size of the window clipped to the padded image) of all windows."""
    sizes = x.shape[2:]
    output = [pooled_size(i, k, s, p, floor) for i, k, s, p in zip(sizes, kernel, stride, pad, strict=True)]
    for n, c in _places(x.shape[:2]):
        for o in _places(output):
            starts = [a * s - p for a, s, p in zip(o, stride, pad, strict=True)]
            ends = [min(a + k, i + p) for a, k, i, p in zip(starts, kernel, sizes, pad, strict=True)]
            area = math.prod(b - a for a, b in zip(starts, ends, strict=True))
            inside = itertools.product(*(range(max(a, 0), min(b, i)) for a, b,
                                         i in zip(starts, ends, sizes, strict=True)))
            yield (n, c, *o), [(n, c, *i) for i in inside], float(area)


def _pooled_shape(x: Array, kernel: Sizes, stride: Sizes, pad: Sizes, floor: bool) -> Sizes:
    return (*x.shape[:2], *(pooled_size(i, k, s, p, floor)
                            for i, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True)))


def max_pooling(x: Array, kernel: Sizes, stride: Sizes, pad: Sizes, floor: bool = False) -> tuple[Array, Array]:
    """y and the index h*W+w of each maximum, the first of equals."""
    y, mask = (np.zeros(_pooled_shape(x, kernel, stride, pad, floor)) for _ in range(2))
    for out, places, _ in _windows(x, kernel, stride, pad, floor):
        best = places[0]
        for place in places[1:]:
            if x[place] > x[best]:
                best = place
        y[out], mask[out] = x[best], best[2] * x.shape[3] + best[3]
    return y, mask


def max_pooling_gradient(x: Array, dy: Array, kernel: Sizes, stride: Sizes, pad: Sizes, floor: bool = False) -> Array:
    """dx: each output's gradient goes to its maximum."""
    dx = np.zeros(x.shape)
    _, mask = max_pooling(x, kernel, stride, pad, floor)
    for out in _places(dy.shape):
        dx[(*out[:2], *divmod(int(mask[out]), x.shape[3]))] += dy[out]
    return dx


def average_pooling(x: Array, kernel: Sizes, stride: Sizes, pad: Sizes, floor: bool = False) -> Array:
    """Sum over the input, divided by the window clipped to the padded image."""
    y = np.zeros(_pooled_shape(x, kernel, stride, pad, floor))
    for out, places, area in _windows(x, kernel, stride, pad, floor):
        y[out] = sum(float(x[place]) for place in places) / area
    return y


def average_pooling_gradient(x: Array, dy: Array, kernel: Sizes, stride: Sizes, pad: Sizes,
                             floor: bool = False) -> Array:
    """dx."""
    dx = np.zeros(x.shape)
    for out, places, area in _windows(x, kernel, stride, pad, floor):
        for place in places:
            dx[place] += dy[out] / area
    return dx


# ---- normalisation ----------------------------------------------------------------------------------------


def _lrn(x: Array, dy: Array, neighbours: Any, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
    """y and dx, where scale = k + alpha * sum of x^2 over neighbours(place); alpha is divided already."""
    scale = np.zeros(x.shape)
    for place in _places(x.shape):
        scale[place] = k + alpha * sum(float(x[other]) ** 2 for other in neighbours(place))
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    for place in _places(x.shape):
        y[place] = x[place] * scale[place] ** -beta
        dx[place] += dy[place] * scale[place] ** -beta
        for other in neighbours(place):
            dx[other] -= dy[place] * x[place] * beta * scale[place] ** (-beta - 1) * 2 * alpha * x[other]
    return y, dx


def lrn_across(x: Array, dy: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
    """y and dx of local response normalisation over `size` channels."""
    def neighbours(place: Sizes) -> list[Sizes]:
        n, c, h, w = place
        return [(n, j, h, w) for j in range(max(0, c - size // 2), min(x.shape[1], c + size // 2 + 1))]

    return _lrn(x, dy, neighbours, k, alpha / size, beta)


def lrn_within(x: Array, dy: Array, size: int, alpha: float, beta: float) -> tuple[Array, Array]:
    """y and dx of local response normalisation over size x size positions."""
    def neighbours(place: Sizes) -> list[Sizes]:
        n, c, h, w = place
        half = size // 2
        return [(n, c, i, j) for i in range(max(0, h - half), min(x.shape[2], h + half + 1))
                for j in range(max(0, w - half), min(x.shape[3], w + half + 1))]

    return _lrn(x, dy, neighbours, 1.0, alpha / size**2, beta)


def batch_norm(x: Array, dy: Array, eps: float) -> tuple[Array, Array, Array, Array]:
    """y, mean, biased variance, and dx of x(outer, axis, inner) normalised over outer and inner."""
    outer, axis, inner = x.shape
    mean, variance, y, dx = np.zeros(axis), np.zeros(axis), np.zeros(x.shape), np.zeros(x.shape)
    m = outer * inner
    for c in range(axis):
        values = [(o, c, i) for o in range(outer) for i in range(inner)]
        mean[c] = sum(float(x[p]) for p in values) / m
        variance[c] = sum((float(x[p]) - mean[c]) ** 2 for p in values) / m
        deviation = math.sqrt(variance[c] + eps)
        for p in values:
            y[p] = (x[p] - mean[c]) / deviation
        # By the chain rule through the variance and through the mean (Ioffe and Szegedy 2015, section 3).
        by_variance = sum(dy[p] * (x[p] - mean[c]) for p in values) * -0.5 * deviation**-3
        by_mean = -sum(dy[p] for p in values) / deviation
        for p in values:
            dx[p] = dy[p] / deviation + by_variance * 2 * (x[p] - mean[c]) / m + by_mean / m
    return y, mean, variance, dx


def batch_norm_test(x: Array, mean: Array, variance: Array, dy: Array, eps: float) -> tuple[Array, Array]:
    """y and dx with given statistics."""
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    for o, c, i in _places(x.shape):
        deviation = math.sqrt(variance[c] + eps)
        y[o, c, i] = (x[o, c, i] - mean[c]) / deviation
        dx[o, c, i] = dy[o, c, i] / deviation
    return y, dx


# ---- vectors against tensors ------------------------------------------------------------------------------


def broadcast(x: Array, v: Array, bias: Array, dy: Array) -> tuple[Array, Array, Array, Array, Array]:
    """x + v, x * v, x * v + bias, sum of dy and dot of dy and x over outer and inner."""
    added, product, shifted = np.zeros(x.shape), np.zeros(x.shape), np.zeros(x.shape)
    total, dot = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for place in _places(x.shape):
        c = place[1]
        added[place] = x[place] + v[c]
        product[place] = x[place] * v[c]
        shifted[place] = product[place] + bias[c]
        total[c] += dy[place]
        dot[c] += dy[place] * x[place]
    return added, product, shifted, total, dot


def prelu(x: Array, slope: Array, dy: Array) -> tuple[Array, Array, Array]:
    """y, dx and dslope of x(outer, axis, inner)."""
    y, dx, dslope = np.zeros(x.shape), np.zeros(x.shape), np.zeros(len(slope))
    for place in _places(x.shape):
        c = place[1]
        positive = x[place] > 0
        y[place] = x[place] if positive else slope[c] * x[place]
        dx[place] = dy[place] if positive else slope[c] * dy[place]
        dslope[c] += 0.0 if positive else dy[place] * x[place]
    return y, dx, dslope


# ---- several tensors --------------------------------------------------------------------------------------


def combine(xs: Sequence[Array], dy: Array, operation: str, coefficients: Sequence[float]) -> tuple[Array, list[Array]]:
    """y and the gradient of each of xs; a maximum belongs to the second that holds it, else first, else next."""
    y, grads = np.zeros(dy.shape), [np.zeros(dy.shape) for _ in xs]
    for place in _places(dy.shape):
        values = [float(x[place]) for x in xs]
        if operation == "SUM":
            y[place] = sum(c * v for c, v in zip(coefficients, values, strict=True))
            slopes = list(coefficients)
        elif operation == "PROD":
            y[place] = math.prod(values)
            slopes = [math.prod(values[:i] + values[i + 1:]) for i in range(len(values))]
        else:
            y[place] = max(values)
            owner = next(i for i in [1, 0, *range(2, len(values))] if values[i] == max(values))
            slopes = [float(i == owner) for i in range(len(values))]
        for grad, slope in zip(grads, slopes, strict=True):
            grad[place] = slope * dy[place]
    return y, grads


def join(parts: Sequence[Array]) -> Array:
    """Parts (outer, size, inner) side by side."""
    outer, _, inner = parts[0].shape
    whole = np.zeros((outer, sum(part.shape[1] for part in parts), inner))
    at = 0
    for part in parts:
        for o, a, i in _places(part.shape):
            whole[o, at + a, i] = part[o, a, i]
        at += part.shape[1]
    return whole


# ---- softmax and losses -----------------------------------------------------------------------------------


def softmax(x: Array, dy: Array) -> tuple[Array, Array]:
    """y and dx over the middle axis."""
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    for o, i in _places((x.shape[0], x.shape[2])):
        row = [float(v) for v in x[o, :, i]]
        powers = [math.exp(v - max(row)) for v in row]
        for a, power in enumerate(powers):
            y[o, a, i] = power / sum(powers)
        for a, b in _places((len(row), len(row))):
            dx[o, a, i] += dy[o, b, i] * y[o, b, i] * ((a == b) - y[o, a, i])
    return y, dx


def normalizer(normalization: str, ignoring: bool, valid: int, full: int, batch: int) -> float:
    """What a loss is divided by; without an ignore_label VALID counts all."""
    return max(1.0, {"FULL": full, "VALID": valid if ignoring else full, "BATCH_SIZE": batch,
                     "NONE": 1}[normalization])


def softmax_loss(x: Array, labels: Array, normalization: str, ignore: int | None) -> tuple[float, Array]:
    """Loss and gradient with respect to the scores x(outer, axis, inner) for labels (outer, inner)."""
    loss, dx, valid = 0.0, np.zeros(x.shape), 0
    probabilities, _ = softmax(x, np.zeros(x.shape))
    for o, i in _places(labels.shape):
        label = int(labels[o, i])
        if label == ignore:
            continue
        valid += 1
        loss -= math.log(max(probabilities[o, label, i], float(np.finfo(np.float32).tiny)))
        for a in range(x.shape[1]):
            dx[o, a, i] = probabilities[o, a, i] - (a == label)
    by = normalizer(normalization, ignore is not None, valid, labels.size, x.shape[0])
    return loss / by, dx / by


def euclidean_loss(a: Array, b: Array) -> tuple[float, Array]:
    """Loss and gradient with respect to a."""
    batch = a.shape[0]
    return (sum((float(a[p]) - float(b[p])) ** 2 for p in _places(a.shape)) / (2 * batch),
            (a.astype(np.float64) - b) / batch)


def sigmoid_cross_entropy_loss(x: Array, targets: Array, normalization: str,
                               ignore: int | None) -> tuple[float, Array]:
    """Loss and gradient; FULL and VALID count elements."""
    loss, dx, valid = 0.0, np.zeros(x.shape), 0
    for place in _places(x.shape):
        value, target = float(x[place]), float(targets[place])
        if ignore is not None and int(target) == ignore:
            continue
        valid += 1
        # -t log(s) - (1 - t) log(1 - s), written so that nothing overflows.
        loss += max(value, 0) - value * target + math.log1p(math.exp(-abs(value)))
        sigmoid = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        dx[place] = sigmoid - target
    by = normalizer(normalization, ignore is not None, valid, x.size, x.shape[0])
    return loss / by, dx / by


def hinge_loss(x: Array, labels: Array, norm: str) -> tuple[float, Array]:
    """Loss and gradient of scores (N, classes)."""
    loss, dx = 0.0, np.zeros(x.shape)
    for n, c in _places(x.shape):
        sign = -1.0 if c == int(labels[n]) else 1.0
        margin = max(0.0, 1 + sign * float(x[n, c]))
        loss += margin if norm == "L1" else margin**2
        dx[n, c] = sign * (float(margin > 0) if norm == "L1" else 2 * margin)
    return loss / len(x), dx / len(x)


def accuracy(x: Array, labels: Array, top_k: int, ignore: int | None) -> tuple[float, Array]:
    """Share found, and share found of each class (0 for a class without labels)."""
    found, seen = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for o, i in _places(labels.shape):
        label = int(labels[o, i])
        if label == ignore:
            continue
        rivals = sum(1 for a in range(x.shape[1]) if a != label and x[o, a, i] >= x[o, label, i])
        seen[label] += 1
        found[label] += rivals < top_k
    per_class = np.array([f / s if s else 0.0 for f, s in zip(found, seen, strict=True)])
    return float(found.sum() / seen.sum()) if seen.sum() else 0.0, per_class
