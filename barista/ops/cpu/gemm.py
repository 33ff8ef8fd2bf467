"""Matrix products on NumPy's BLAS, cut over the cores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...gemm.shapes import GemmShape
from ..base import Gemm
from .threads import Threads, split

# Multiply-accumulates below which one core is faster than two (measured).
PARALLEL = 2_000_000


class CpuGemm(Gemm):
    """C = alpha op(A) op(B) + beta C; the larger of M and N is cut into one piece a thread."""

    space = HOST

    def __init__(self, shape: GemmShape, trans_a: bool, trans_b: bool, dtype: np.dtype[Any], threads: Threads) -> None:
        self._shape = shape
        self._trans_a, self._trans_b = trans_a, trans_b
        self._threads = threads
        pieces = threads.count if shape.macs >= PARALLEL else 1
        self._by_rows = shape.m >= shape.n
        length = shape.m if self._by_rows else shape.n
        self._pieces = split(length, max(1, -(-length // pieces)))
        self._product: npt.NDArray[Any] | None = None
        self._dtype = dtype

    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0) -> None:
        m, n, k = self._shape.m, self._shape.n, self._shape.k
        left = a.read(HOST).reshape((k, m) if self._trans_a else (m, k))
        right = b.read(HOST).reshape((n, k) if self._trans_b else (k, n))
        left = left.T if self._trans_a else left
        right = right.T if self._trans_b else right
        out = (c.write(HOST) if beta == 0 else c.update(HOST)).reshape(m, n)
        target = out
        if beta != 0:
            if self._product is None:
                self._product = np.empty((m, n), self._dtype)
                self.workspace_bytes = self._product.nbytes
            target = self._product

        def piece(index: int, worker: int) -> None:
            start, stop = self._pieces[index]
            if self._by_rows:
                rows, product, result = left[start:stop], target[start:stop], out[start:stop]
                np.matmul(rows, right, out=product)
            else:
                product, result = target[:, start:stop], out[:, start:stop]
                np.matmul(left, right[:, start:stop], out=product)
            if alpha != 1:
                np.multiply(product, alpha, out=product)
            if beta == 1:
                np.add(result, product, out=result)
            elif beta != 0:
                np.multiply(result, beta, out=result)
                np.add(result, product, out=result)

        if len(self._pieces) > 1:
            self._threads.run(piece, len(self._pieces))
        elif self._pieces:
            self._threads.run_here(piece)
