"""Several tensors into one and back: Combine, Join; and Dropout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import Combine, Dropout, Join
from .threads import CHUNK, Threads, split

Array = npt.NDArray[Any]


class CpuCombine(Combine):
    """Sum, product or maximum over a list of tensors, chunk by chunk."""

    space = HOST

    def __init__(self, operation: str, coefficients: Sequence[float], count: int, stable: bool,
                 dtype: np.dtype[Any], threads: Threads) -> None:
        self._operation = operation
        self._coefficients = [float(c) for c in coefficients]
        self._count = count
        self._stable = stable
        self._threads = threads
        # Caffe: which bottom holds the maximum is decided in the forward pass; of equals the second
        # bottom comes before the first, and both before the later ones.
        self._winner = np.zeros(count if operation == "MAX" else 0, np.int32)
        self.workspace_bytes = self._winner.nbytes
        self._dtype = dtype

    def forward(self, xs: Sequence[Tensor], y: Tensor) -> None:
        sources = [x.read(HOST).reshape(-1) for x in xs]
        result = y.write(HOST).reshape(-1)
        combine = {"SUM": self._sum, "PROD": self._product, "MAX": self._maximum}[self._operation]
        self._threads.spread(lambda a, b, _: combine([s[a:b] for s in sources], result[a:b], self._winner[a:b]),
                             self._count, 1)

    def _sum(self, parts: list[Array], out: Array, winner: Array) -> None:
        if all(c == 1 for c in self._coefficients) and len(parts) > 1:
            np.add(parts[0], parts[1], out=out)
            for part in parts[2:]:
                np.add(out, part, out=out)
            return
        total = parts[0] * self._dtype.type(self._coefficients[0])
        for part, coefficient in zip(parts[1:], self._coefficients[1:], strict=True):
            np.add(total, part * self._dtype.type(coefficient), out=total)
        np.copyto(out, total)

    def _product(self, parts: list[Array], out: Array, winner: Array) -> None:
        np.multiply(parts[0], parts[1], out=out)
        for part in parts[2:]:
            np.multiply(out, part, out=out)

    def _maximum(self, parts: list[Array], out: Array, winner: Array) -> None:
        np.maximum(parts[0], parts[1], out=out)
        np.copyto(winner, parts[1] >= parts[0])
        for index, part in enumerate(parts[2:], start=2):
            np.copyto(winner, index, where=part > out)
            np.maximum(out, part, out=out)

    def backward(self, index: int, xs: Sequence[Tensor], y: Tensor, dy: Tensor, dx: Tensor) -> None:
        gradient, result = dy.read(HOST).reshape(-1), dx.write(HOST).reshape(-1)
        sources = [x.read(HOST).reshape(-1) for x in xs]
        product = y.read(HOST).reshape(-1)

        def work(start: int, stop: int, worker: int) -> None:
            out, part = result[start:stop], gradient[start:stop]
            if self._operation == "SUM":
                np.multiply(part, self._dtype.type(self._coefficients[index]), out=out)
            elif self._operation == "MAX":
                np.multiply(part, self._winner[start:stop] == index, out=out)
            elif self._stable:
                others = part.copy()
                for number, source in enumerate(sources):
                    if number != index:
                        np.multiply(others, source[start:stop], out=others)
                np.copyto(out, others)
            else:
                np.multiply(part, product[start:stop] / sources[index][start:stop], out=out)

        self._threads.spread(work, self._count, 1)


class CpuJoin(Join):
    """Parts side by side along the middle axis."""

    space = HOST

    def __init__(self, outer: int, sizes: Sequence[int], inner: int) -> None:
        self._outer, self._inner = outer, inner
        self._sizes = list(sizes)
        self._total = sum(sizes)

    def _places(self) -> list[slice]:
        edges = np.cumsum([0, *self._sizes])
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]

    def join(self, parts: Sequence[Tensor], whole: Tensor) -> None:
        result = whole.write(HOST).reshape(self._outer, self._total, self._inner)
        for part, place, size in zip(parts, self._places(), self._sizes, strict=True):
            result[:, place] = part.read(HOST).reshape(self._outer, size, self._inner)

    def split(self, whole: Tensor, parts: Sequence[Tensor | None]) -> None:
        source = whole.read(HOST).reshape(self._outer, self._total, self._inner)
        for part, place, size in zip(parts, self._places(), self._sizes, strict=True):
            if part is not None:
                part.write(HOST).reshape(self._outer, size, self._inner)[...] = source[:, place]


class CpuDropout(Dropout):
    """Dropout with the mask kept as one byte an element."""

    space = HOST

    def __init__(self, count: int, ratio: float, dtype: np.dtype[Any]) -> None:
        self._ratio = ratio
        self._scale = dtype.type(1 / (1 - ratio))
        self._mask = np.ones(count, np.bool_)
        self.workspace_bytes = self._mask.nbytes

    def forward(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        np.greater_equal(rng.random(self._mask.size, np.float32), self._ratio, out=self._mask)
        self._apply(x, y)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._apply(dy, dx)

    def _apply(self, x: Tensor, y: Tensor) -> None:
        source, result = x.read(HOST).reshape(-1), y.write(HOST).reshape(-1)
        for start, stop in split(self._mask.size, CHUNK):
            np.multiply(source[start:stop], self._mask[start:stop], out=result[start:stop])
            np.multiply(result[start:stop], self._scale, out=result[start:stop])
