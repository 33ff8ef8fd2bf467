"""Stochastic pooling, a group of image planes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import Tensor
from ..base import StochasticPooling
from .pooling import ChoosingPooling

Array = npt.NDArray[Any]

# Caffe: what the sum over a window starts with, or a window of zeros would be divided by 0.
LEAST_SUM = float(np.finfo(np.float32).tiny)


class CpuStochasticPooling(ChoosingPooling, StochasticPooling):
    """Draws with one number of the generator for each element of y, in its order."""

    def forward_train(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        source = self._flat(x, self.geometry.input)
        result = self._flat(y, self.geometry.output, write=True)
        # Never 0, which an element of 0 would reach.
        draws = 1 - rng.random(result.shape, self.dtype.type)

        def work(group: slice) -> None:
            framed = self._enframe(source[group])
            total = self._sum(framed)
            goal = draws[group].transpose(1, 2, 0) * total
            index = self._index_of(group)
            index[...] = 0
            reached = np.zeros(total.shape, total.dtype)
            before = np.ones(total.shape, np.bool_)
            for tap in self._taps():
                np.add(reached, self._tap(framed, *tap), out=reached)
                np.logical_and(before, reached < goal, out=before)
                np.add(index, before.view(np.uint8), out=index)
            index[before] = 0
            drawn = self._tap(framed, 0, 0).copy()
            for number, tap in enumerate(self._taps()):
                np.copyto(drawn, self._tap(framed, *tap), where=index == number)
            np.copyto(drawn, total, where=np.isnan(total))
            result[group] = drawn.transpose(2, 0, 1)

        self._each_group(work)

    def backward_train(self, dy: Tensor, dx: Tensor) -> None:
        self._to_chosen(dy, dx)

    def forward_test(self, x: Tensor, y: Tensor) -> None:
        source = self._flat(x, self.geometry.input)
        result = self._flat(y, self.geometry.output, write=True)

        def work(group: slice) -> None:
            framed = self._enframe(source[group])
            result[group] = self._mean(framed, self._sum(framed) + LEAST_SUM).transpose(2, 0, 1)

        self._each_group(work)

    def backward_test(self, x: Tensor, dy: Tensor, dx: Tensor) -> None:
        source = self._flat(x, self.geometry.input)
        gradient = self._flat(dy, self.geometry.output)
        result = self._flat(dx, self.geometry.input, write=True)

        def work(group: slice) -> None:
            framed = self._enframe(source[group])
            total = self._sum(framed) + LEAST_SUM
            mean = self._mean(framed, total)
            part = gradient[group].transpose(1, 2, 0)
            change = np.zeros(framed.shape, self.dtype)
            for tap in self._taps():
                # In this order, or the gradient over a window of zeros would be beyond the largest number.
                place = self._tap(change, *tap)
                np.add(place, (2 * self._tap(framed, *tap) - mean) / total * part, out=place)
            self._unframe(change, result[group])

        self._each_group(work)

    def _sum(self, framed: Array) -> Array:
        """Sum over each window, tap by tap as the elements are drawn: (Ho, Wo, planes)."""
        total = self._tap(framed, 0, 0).copy()
        for tap in self._taps(1):
            np.add(total, self._tap(framed, *tap), out=total)
        return total

    def _mean(self, framed: Array, total: Array) -> Array:
        """Mean of what is drawn, each element weighted with its value."""
        squares = np.zeros(total.shape, total.dtype)
        for tap in self._taps():
            values = self._tap(framed, *tap)
            np.add(squares, values * values, out=squares)
        return squares / total
