"""Elements picked axis by axis, and folds of an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import AxisGeometry, Fold, Lookup, LookupGeometry
from .threads import Threads

Array = npt.NDArray[Any]

_UFUNCS = {"MAX": np.maximum, "MIN": np.minimum, "PROD": np.multiply}


class _Picks:
    """One axis whose elements are picked by a table, and the transpose of that."""

    def __init__(self, axis: int, size: int, table: Sequence[int]) -> None:
        self.axis, self._size = axis, size
        self._table = np.array(table, np.intp)
        self.missing = np.flatnonzero(self._table < 0)
        takers = np.flatnonzero(self._table >= 0)
        # Rounds in which each element is taken once at most: the first places that took any, the second ones, ...
        by_element = takers[np.argsort(self._table[takers], kind="stable")]
        ordered = self._table[by_element]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        number = np.arange(ordered.size) - np.repeat(starts, np.diff(starts, append=ordered.size))
        self._rounds = [(_span(by_element[number == turn]), _span(ordered[number == turn]))
                        for turn in range(int(number.max(initial=-1)) + 1)]

    def apply(self, x: Array) -> Array:
        """The axis picked; where the table says -1, anything."""
        if not self._rounds:
            return np.empty((*x.shape[:self.axis], self._table.size, *x.shape[self.axis + 1:]), x.dtype)
        return np.take(x, np.maximum(self._table, 0), axis=self.axis)

    def transpose(self, dy: Array) -> Array:
        """The gradient with respect to what `apply` took."""
        result = np.zeros((*dy.shape[:self.axis], self._size, *dy.shape[self.axis + 1:]), dy.dtype)
        before = (slice(None),) * self.axis
        for takers, taken in self._rounds:
            result[(*before, taken)] += dy[(*before, takers)]
        return result


def _span(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp] | slice:
    """Rising neighbours as a slice, which NumPy copies faster."""
    first, count = int(indices[0]), indices.size
    return slice(first, first + count) if (np.diff(indices) == 1).all() else indices


class CpuLookup(Lookup):
    """Axis after axis; those of which all elements stay where they are cost nothing."""

    space = HOST

    def __init__(self, geometry: LookupGeometry) -> None:
        self._geometry = geometry
        picks = [_Picks(axis, size, table) for axis, (size, table)
                 in enumerate(zip(geometry.sizes, geometry.tables, strict=True)) if table != range(size)]
        # Axes that shrink first: the arrays between are smaller then.
        self._picks = sorted(picks, key=lambda pick: len(geometry.tables[pick.axis])
                             / max(geometry.sizes[pick.axis], 1))

    def forward(self, x: Tensor, y: Tensor) -> None:
        picked = x.read(HOST).reshape(self._geometry.sizes)
        for pick in self._picks:
            picked = pick.apply(picked)
        result = y.write(HOST).reshape(self._geometry.y_shape)
        np.copyto(result, picked)
        for pick in self._picks:
            if pick.missing.size:
                np.moveaxis(result, pick.axis, 0)[pick.missing] = self._geometry.fill

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        gradient = dy.read(HOST).reshape(self._geometry.y_shape)
        for pick in self._picks:
            gradient = pick.transpose(gradient)
        np.copyto(dx.write(HOST).reshape(self._geometry.sizes), gradient)


class CpuFold(Fold):
    """NumPy's reductions, which let NaN pass."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, operation: str, threads: Threads) -> None:
        self._geometry = geometry
        self._ufunc = _UFUNCS[operation]
        self._threads = threads

    def forward(self, x: Tensor, y: Tensor) -> None:
        g = self._geometry
        source, result = x.read(HOST).reshape(g.shape), y.write(HOST).reshape(g.outer, g.inner)

        def work(start: int, stop: int, worker: int) -> None:
            self._ufunc.reduce(source[start:stop], axis=1, out=result[start:stop])

        self._threads.spread(work, g.outer, g.axis * g.inner)
