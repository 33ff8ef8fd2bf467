"""Vectors against tensors (outer, axis, inner): Bias, Scale and PReLU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import AxisGeometry, Broadcast, PReLU, Primitive
from .threads import Threads

Array = npt.NDArray[Any]


class AxisSums:
    """Sums over outer and inner of functions of (outer, axis, inner) tensors, in a fixed order."""

    def __init__(self, geometry: AxisGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        self._geometry = geometry
        self._threads = threads
        self._sums = np.zeros((threads.count, geometry.axis), dtype)

    def of(self, rows: Array) -> Array:
        """Sum of x over outer and inner: (axis,)."""
        return self._reduce(lambda start, stop: rows[start:stop].sum(axis=2).sum(axis=0))

    def of_product(self, a: Array, b: Array) -> Array:
        """Sum of a * b over outer and inner: (axis,)."""
        return self._reduce(lambda start, stop: np.einsum("oai,oai->a", a[start:stop], b[start:stop]))

    def _reduce(self, function: Any) -> Array:
        self._sums[...] = 0

        def work(start: int, stop: int, worker: int) -> None:
            self._sums[worker] += function(start, stop)

        self._threads.spread(work, self._geometry.outer, self._geometry.axis * self._geometry.inner)
        total: Array = self._sums.sum(axis=0)
        return total


class _AgainstVector(Primitive):
    """What both primitives below are made of."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, dtype: np.dtype[Any], threads: Threads) -> None:
        self._shape = geometry.shape
        self._item = geometry.axis * geometry.inner
        self._threads = threads
        self._sums = AxisSums(geometry, dtype, threads)


class CpuBroadcast(_AgainstVector, Broadcast):
    """A vector against a tensor on the host."""

    def add(self, x: Tensor, v: Tensor, y: Tensor) -> None:
        source, vector = x.read(HOST).reshape(self._shape), v.read(HOST).reshape(-1, 1)
        result = y.write(HOST).reshape(self._shape)
        self._threads.spread(lambda a, b, _: np.add(source[a:b], vector, out=result[a:b]), self._shape[0], self._item)

    def multiply(self, x: Tensor, v: Tensor, y: Tensor, bias: Tensor | None = None,
                 saved: Tensor | None = None) -> None:
        source, vector = x.read(HOST).reshape(self._shape), v.read(HOST).reshape(-1, 1)
        shift = None if bias is None else bias.read(HOST).reshape(-1, 1)
        copy = None if saved is None else saved.write(HOST).reshape(self._shape)
        result = y.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            if copy is not None:
                np.copyto(copy[start:stop], source[start:stop])
            np.multiply(source[start:stop], vector, out=result[start:stop])
            if shift is not None:
                np.add(result[start:stop], shift, out=result[start:stop])

        self._threads.spread(work, self._shape[0], self._item)

    def sum(self, dy: Tensor, dv: Tensor) -> None:
        _add_to(dv, self._sums.of(dy.read(HOST).reshape(self._shape)))

    def gradients(self, dy: Tensor, x: Tensor, v: Tensor, dx: Tensor | None, dv: Tensor | None,
                  dbias: Tensor | None) -> None:
        gradient, vector = dy.read(HOST).reshape(self._shape), v.read(HOST).reshape(-1, 1)
        if dbias is not None:
            _add_to(dbias, self._sums.of(gradient))
        if dv is not None:
            _add_to(dv, self._sums.of_product(gradient, x.read(HOST).reshape(self._shape)))
        if dx is not None:
            result = dx.write(HOST).reshape(self._shape)
            self._threads.spread(lambda a, b, _: np.multiply(gradient[a:b], vector, out=result[a:b]), self._shape[0],
                                 self._item)


def _add_to(dv: Tensor, total: Array) -> None:
    result, fresh = dv.accumulate(HOST)
    if fresh:
        result[...] = total.reshape(result.shape)
    else:
        result += total.reshape(result.shape)


class CpuPReLU(_AgainstVector, PReLU):
    """PReLU on the host."""

    def forward(self, x: Tensor, slope: Tensor, y: Tensor) -> None:
        source, slopes = x.read(HOST).reshape(self._shape), slope.read(HOST).reshape(-1, 1)
        result = y.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            part = source[start:stop]
            np.add(np.maximum(part, 0), slopes * np.minimum(part, 0), out=result[start:stop])

        self._threads.spread(work, self._shape[0], self._item)

    def grad_input(self, x: Tensor, slope: Tensor, dy: Tensor, dx: Tensor) -> None:
        source, slopes = x.read(HOST).reshape(self._shape), slope.read(HOST).reshape(-1, 1)
        gradient, result = dy.read(HOST).reshape(self._shape), dx.write(HOST).reshape(self._shape)

        def work(start: int, stop: int, worker: int) -> None:
            np.multiply(gradient[start:stop], np.where(source[start:stop] > 0, 1, slopes), out=result[start:stop],
                        casting="same_kind")

        self._threads.spread(work, self._shape[0], self._item)

    def grad_slope(self, x: Tensor, dy: Tensor, dslope: Tensor) -> None:
        source = x.read(HOST).reshape(self._shape)
        total = self._sums.of_product(dy.read(HOST).reshape(self._shape), np.minimum(source, 0))
        _add_to(dslope, total)
