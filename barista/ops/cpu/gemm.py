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
# Elements of a product that is added to C afterwards: it stays in the cache until then.
PRODUCT = 1 << 18


class CpuGemm(Gemm):
    """C = alpha op(A) op(B) + bias + beta C; the longer of M and N is cut into pieces.

    NumPy's product overwrites.  With `beta` a piece is computed beside C and added, so that the
    workspace is a piece and not a second C.
    """

    space = HOST

    def __init__(self, shape: GemmShape, trans_a: bool, trans_b: bool, dtype: np.dtype[Any], threads: Threads) -> None:
        self._shape = shape
        self._trans_a, self._trans_b = trans_a, trans_b
        self._dtype = dtype
        self._threads = threads
        self._by_rows = shape.m >= shape.n
        length, other = (shape.m, shape.n) if self._by_rows else (shape.n, shape.m)
        self._parallel = shape.macs >= PARALLEL
        cores = threads.count if self._parallel else 1
        whole = max(1, -(-length // cores))
        self._pieces = split(length, whole)
        self._adding_size = max(1, min(whole, PRODUCT // max(other, 1)))
        self._adding_pieces = split(length, self._adding_size)
        self._buffers: list[npt.NDArray[Any]] = []
        self._buffer_size = self._adding_size * other

    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0,
            bias: Tensor | None = None) -> None:
        m, n, k = self._shape.m, self._shape.n, self._shape.k
        left = a.read(HOST).reshape((k, m) if self._trans_a else (m, k))
        right = b.read(HOST).reshape((n, k) if self._trans_b else (k, n))
        left = left.T if self._trans_a else left
        right = right.T if self._trans_b else right
        shift = None if bias is None else bias.read(HOST).reshape(n)
        out, fresh = c.accumulate(HOST) if beta else (c.write(HOST), True)
        out, beta = out.reshape(m, n), 0.0 if fresh else beta
        if beta != 0 and not self._buffers:
            count = min(self._threads.count, len(self._adding_pieces)) if self._parallel else 1
            self._buffers = [np.empty(self._buffer_size, self._dtype) for _ in range(count)]
            self.workspace_bytes = sum(buffer.nbytes for buffer in self._buffers)
        pieces = self._pieces if beta == 0 else self._adding_pieces

        def piece(index: int, worker: int) -> None:
            place = slice(*pieces[index])
            rows, columns = (place, slice(None)) if self._by_rows else (slice(None), place)
            part = out[rows, columns]
            product = part if beta == 0 else self._buffers[worker][:part.size].reshape(part.shape)
            np.matmul(left[rows], right[:, columns], out=product)
            if alpha != 1:
                np.multiply(product, alpha, out=product)
            if beta != 0:
                if beta != 1:
                    np.multiply(part, beta, out=part)
                np.add(part, product, out=part)
            if shift is not None:
                np.add(part, shift[columns], out=part)

        if self._parallel:
            self._threads.run(piece, len(pieces))
        else:
            self._threads.run_here(piece, len(pieces))
