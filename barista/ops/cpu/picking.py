"""What is picked by number or by size: Gather and ArgMax."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...errors import DataError
from ..base import ArgMax, AxisGeometry, Gather
from .threads import Threads

Array = npt.NDArray[Any]

# Elements of a row from which on adding rows one by one is faster than `np.add.at` (measured).
LONG_ROW = 64


class CpuGather(Gather):
    """Rows of a table; those that several indices share are added up in the order of the indices."""

    space = HOST

    def __init__(self, rows: int, inner: int, threads: Threads) -> None:
        self._shape = (rows, inner)
        self._threads = threads

    def _rows(self, indices: Tensor) -> Array:
        """The indices as integers.

        Raises
        ------
        DataError : one is no row, or not a number
        """
        given, rows = indices.read(HOST).reshape(-1), self._shape[0]
        wrong = ~((given >= 0) & (given < rows))
        if wrong.any():
            place = int(np.argmax(wrong))
            raise DataError(f"index {given[place]:g} (number {place} of {given.size}) is none of the {rows} rows 0 to "
                            f"{rows - 1}; check the data that gives the indices")
        return given.astype(np.intp)

    def gather(self, table: Tensor, indices: Tensor, y: Tensor) -> None:
        source, picked = table.read(HOST).reshape(self._shape), self._rows(indices)
        result = y.write(HOST).reshape(picked.size, self._shape[1])
        # The indices are checked: "clip" only saves a buffer.
        self._threads.spread(lambda a, b, _: np.take(source, picked[a:b], axis=0, out=result[a:b], mode="clip"),
                             picked.size, self._shape[1])

    def scatter(self, dy: Tensor, indices: Tensor, dtable: Tensor) -> None:
        picked = self._rows(indices)
        gradient = dy.read(HOST).reshape(picked.size, self._shape[1])
        array, fresh = dtable.accumulate(HOST)
        result = array.reshape(self._shape)
        if fresh:
            result[...] = 0
        if self._shape[1] < LONG_ROW:
            np.add.at(result, picked, gradient)
        else:
            for index, row in zip(picked, gradient, strict=True):
                result[index] += row


class CpuArgMax(ArgMax):
    """The largest by one look for k = 1, by sorting for more."""

    space = HOST

    def __init__(self, geometry: AxisGeometry, top_k: int, threads: Threads) -> None:
        self._geometry = geometry
        self._top_k = top_k
        self._threads = threads

    def forward(self, x: Tensor, indices: Tensor | None, values: Tensor | None) -> None:
        g, shape = self._geometry, (self._geometry.outer, self._top_k, self._geometry.inner)
        source = x.read(HOST).reshape(g.shape)
        places = None if indices is None else indices.write(HOST).reshape(shape)
        largest = None if values is None else values.write(HOST).reshape(shape)

        def work(start: int, stop: int, worker: int) -> None:
            part = source[start:stop]
            picked = self._pick(part)
            if places is not None:
                np.copyto(places[start:stop], picked, casting="unsafe")
            if largest is not None:
                np.copyto(largest[start:stop], np.take_along_axis(part, picked, axis=1))

        self._threads.spread(work, g.outer, g.axis * g.inner)

    def _pick(self, part: Array) -> Array:
        """Integer places along axis 1, (outer, k, inner)."""
        if self._top_k == 1:
            return part.shape[1] - 1 - part[:, ::-1].argmax(axis=1, keepdims=True)
        return np.argsort(part, axis=1, kind="stable")[:, :-self._top_k - 1:-1]
