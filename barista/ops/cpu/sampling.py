"""Interpolation: planes resampled along rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import Interpolation, Taps
from .threads import Threads

Array = npt.NDArray[Any]


class _Resampling:
    """One axis of arrays resampled, and the transpose of that.

    Parameters
    ----------
    taps : for each output the inputs and their weights
    axis : which axis, counted from the last (-1)
    """

    def __init__(self, taps: Taps, axis: int, dtype: np.dtype[Any]) -> None:
        self._axis = axis
        self._size, self._outputs = taps.size, taps.outputs
        # One row a tap.
        self._indices = np.array(taps.indices, np.intp).T.copy()
        self._weights = np.array(taps.weights, dtype).T.copy()
        inputs, outputs = self._indices.reshape(-1), np.tile(np.arange(taps.outputs), len(self._indices))
        order = np.argsort(inputs, kind="stable")
        ordered = inputs[order]
        # By input: the outputs that take it, with what weight, where an input begins, and which inputs there are.
        self._takers, self._shares = outputs[order], self._weights.reshape(-1)[order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        self._taken = ordered[self._starts]

    def _along(self, weights: Array) -> Array:
        return weights.reshape(-1, *[1] * (-1 - self._axis))

    def apply(self, x: Array) -> Array:
        """The axis resampled."""
        terms = (np.take(x, indices, axis=self._axis) * self._along(weights)
                 for indices, weights in zip(self._indices, self._weights, strict=True))
        total = next(terms)
        for term in terms:
            total += term
        return total

    def transpose(self, dy: Array) -> Array:
        """The gradient with respect to what `apply` took."""
        parts = np.take(dy, self._takers, axis=self._axis)
        parts *= self._along(self._shares)
        shape = list(dy.shape)
        shape[self._axis] = self._size
        result = np.zeros(shape, dy.dtype)
        sums = np.add.reduceat(parts, self._starts, axis=self._axis)
        np.moveaxis(result, self._axis, 0)[self._taken] = np.moveaxis(sums, self._axis, 0)
        return result


class CpuInterpolation(Interpolation):
    """Rows first, then columns, some planes at a time."""

    space = HOST

    def __init__(self, planes: int, rows: Taps, columns: Taps, dtype: np.dtype[Any], threads: Threads) -> None:
        self._x_shape = (planes, rows.size, columns.size)
        self._y_shape = (planes, rows.outputs, columns.outputs)
        self._item = max(rows.size * columns.size, rows.outputs * columns.outputs)
        self._rows, self._columns = _Resampling(rows, -2, dtype), _Resampling(columns, -1, dtype)
        self._threads = threads

    def forward(self, x: Tensor, y: Tensor) -> None:
        source, result = x.read(HOST).reshape(self._x_shape), y.write(HOST).reshape(self._y_shape)

        def work(start: int, stop: int, worker: int) -> None:
            np.copyto(result[start:stop], self._columns.apply(self._rows.apply(source[start:stop])))

        self._threads.spread(work, len(source), self._item)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        gradient, result = dy.read(HOST).reshape(self._y_shape), dx.write(HOST).reshape(self._x_shape)

        def work(start: int, stop: int, worker: int) -> None:
            np.copyto(result[start:stop], self._rows.transpose(self._columns.transpose(gradient[start:stop])))

        self._threads.spread(work, len(gradient), self._item)
