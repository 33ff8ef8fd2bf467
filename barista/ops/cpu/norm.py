"""LRN and batch normalisation on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import LRN, AxisGeometry, BatchNorm
from .broadcast import AxisSums
from .threads import Threads

Array = npt.NDArray[Any]


def _power(base: Array, exponent: float) -> Array:
    """base ** exponent; -0.75, the usual one, through square roots, which are ten times faster than powf."""
    if exponent == -0.75:
        root = np.sqrt(base)
        np.multiply(root, np.sqrt(root), out=root)
        return np.divide(1, root, out=root)
    if exponent == -0.5:
        root = np.sqrt(base)
        return np.divide(1, root, out=root)
    power: Array = np.power(base, base.dtype.type(exponent))
    return power


def _window_sums(x: Array, size: int, axis: int) -> Array:
    """Sums over `size` neighbours along an axis, centred, with zeros outside."""
    half = (size - 1) // 2
    length = x.shape[axis]
    total = x.copy()

    def along(start: int, stop: int) -> tuple[slice, ...]:
        return (*(slice(None),) * axis, slice(start, stop))

    for shift in range(1, min(half, length - 1) + 1):
        total[along(shift, length)] += x[along(0, length - shift)]
        total[along(0, length - shift)] += x[along(shift, length)]
    return total


class CpuLRN(LRN):
    """y = x * scale^-beta with scale = k + weight * (sum of x^2 over a window).

    Parameters
    ----------
    shape : x as the window needs it, the first axis being cut over the cores
    axes : the axes along which the window extends
    size : elements of the window along each of them; it is clipped at the borders
    weight : alpha divided by what Caffe divides it by
    """

    space = HOST

    def __init__(self, shape: tuple[int, ...], axes: tuple[int, ...], size: int, weight: float, beta: float, k: float,
                 dtype: np.dtype[Any], threads: Threads) -> None:
        self._shape, self._axes, self._size = shape, axes, size
        self._weight, self._beta, self._k = weight, beta, k
        self._threads = threads
        self._scale = np.zeros(shape, dtype)
        self._factor = np.zeros(shape, dtype)
        self.workspace_bytes = self._scale.nbytes + self._factor.nbytes

    @classmethod
    def across(cls, shape: tuple[int, ...], size: int, alpha: float, beta: float, k: float,
               dtype: np.dtype[Any], threads: Threads) -> CpuLRN:
        """Over neighbouring channels of (N, C, H, W)."""
        folded = (shape[0], shape[1], shape[2] * shape[3])
        return cls(folded, (1,), size, alpha / size, beta, k, dtype, threads)

    @classmethod
    def within(cls, shape: tuple[int, ...], size: int, alpha: float, beta: float,
               dtype: np.dtype[Any], threads: Threads) -> CpuLRN:
        """Over neighbours in the plane of each channel.

        Caffe: the sum is divided by the whole window, also where it is clipped at the border.
        """
        folded = (shape[0] * shape[1], shape[2], shape[3])
        return cls(folded, (1, 2), size, alpha / (size * size), beta, 1.0, dtype, threads)

    def _sums(self, x: Array) -> Array:
        for axis in self._axes:
            x = _window_sums(x, self._size, axis)
        return x

    def _spread(self, work: Any) -> None:
        self._threads.spread(work, self._shape[0], math.prod(self._shape[1:]))

    def forward(self, x: Tensor, y: Tensor) -> None:
        source, result = x.read(HOST).reshape(self._shape), y.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            part, scale = source[start:stop], self._scale[start:stop]
            np.multiply(self._sums(np.square(part)), self._weight, out=scale)
            np.add(scale, self._k, out=scale)
            self._factor[start:stop] = _power(scale, -self._beta)
            np.multiply(part, self._factor[start:stop], out=result[start:stop])

        self._spread(work)

    def backward(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        source, gradient = x.read(HOST).reshape(self._shape), dy.read(HOST).reshape(self._shape)
        result = dx.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            ratio = source[start:stop] * self._factor[start:stop]
            np.multiply(ratio, gradient[start:stop], out=ratio)
            np.divide(ratio, self._scale[start:stop], out=ratio)
            around = self._sums(ratio)
            np.multiply(around, source[start:stop], out=around)
            np.multiply(around, 2 * self._weight * self._beta, out=around)
            np.multiply(gradient[start:stop], self._factor[start:stop], out=ratio)
            np.subtract(ratio, around, out=result[start:stop])

        self._spread(work)


class CpuBatchNorm(BatchNorm):
    """Batch normalisation; the normalised values are kept for the backward pass."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, eps: float, dtype: np.dtype[Any], threads: Threads) -> None:
        self._geometry = geometry
        self._eps = eps
        self._threads = threads
        self._sums = AxisSums(geometry, dtype, threads)
        self._normal = np.zeros(geometry.shape, dtype)
        self._inverse = np.zeros((geometry.axis, 1), dtype)
        self.workspace_bytes = self._normal.nbytes

    def forward_train(self, x: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        source = x.read(HOST).reshape(self._geometry.shape)
        elements = max(self._geometry.outer * self._geometry.inner, 1)
        average = self._sums.of(source) / elements
        mean.write(HOST)[...] = average
        centre = average.reshape(-1, 1)
        normal = self._normal

        def work(start: int, stop: int, worker: int) -> None:
            np.subtract(source[start:stop], centre, out=normal[start:stop])

        self._spread(work)
        squares = self._sums.of_product(normal, normal) / elements
        variance.write(HOST)[...] = squares
        self._finish(squares, y)

    def forward_test(self, x: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> None:
        source = x.read(HOST).reshape(self._geometry.shape)
        centre = mean.read(HOST).reshape(-1, 1)

        def work(start: int, stop: int, worker: int) -> None:
            np.subtract(source[start:stop], centre, out=self._normal[start:stop])

        self._spread(work)
        self._finish(variance.read(HOST), y)

    def _finish(self, variance: Array, y: Tensor) -> None:
        self._inverse[:, 0] = 1 / np.sqrt(variance + self._eps)
        result = y.write(HOST).reshape(self._geometry.shape)

        def work(start: int, stop: int, worker: int) -> None:
            np.multiply(self._normal[start:stop], self._inverse, out=self._normal[start:stop])
            np.copyto(result[start:stop], self._normal[start:stop])

        self._spread(work)

    def backward_train(self, dy: Tensor, dx: Tensor) -> None:
        gradient = dy.read(HOST).reshape(self._geometry.shape)
        elements = max(self._geometry.outer * self._geometry.inner, 1)
        average = (self._sums.of(gradient) / elements).reshape(-1, 1)
        slope = (self._sums.of_product(gradient, self._normal) / elements).reshape(-1, 1)
        result = dx.write(HOST).reshape(self._geometry.shape)

        def work(start: int, stop: int, worker: int) -> None:
            centred = self._normal[start:stop] * slope
            np.subtract(gradient[start:stop], centred, out=centred)
            np.subtract(centred, average, out=centred)
            np.multiply(centred, self._inverse, out=result[start:stop])

        self._spread(work)

    def backward_test(self, dy: Tensor, dx: Tensor) -> None:
        gradient = dy.read(HOST).reshape(self._geometry.shape)
        result = dx.write(HOST).reshape(self._geometry.shape)

        def work(start: int, stop: int, worker: int) -> None:
            np.multiply(gradient[start:stop], self._inverse, out=result[start:stop])

        self._spread(work)

    def _spread(self, work: Any) -> None:
        self._threads.spread(work, self._geometry.outer, self._geometry.axis * self._geometry.inner)
