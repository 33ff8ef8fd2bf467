"""Products of stacks of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ..base import MatMul, Shape

Array = npt.NDArray[Any]


class CpuMatMul(MatMul):
    """NumPy's matmul; gradients of what was repeated are products first, and summed then."""

    space = HOST

    def __init__(self, a_shape: Shape, b_shape: Shape, trans_a: bool, trans_b: bool) -> None:
        self._a_shape, self._b_shape = a_shape, b_shape
        self._trans_a, self._trans_b = trans_a, trans_b
        rows = a_shape[-1] if trans_a else a_shape[-2]
        columns = b_shape[-2] if trans_b else b_shape[-1]
        self._c_shape = (*np.broadcast_shapes(a_shape[:-2], b_shape[:-2]), rows, columns)

    def _a(self, a: Tensor) -> Array:
        return _turned(a.read(HOST).reshape(self._a_shape), self._trans_a)

    def _b(self, b: Tensor) -> Array:
        return _turned(b.read(HOST).reshape(self._b_shape), self._trans_b)

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> None:
        left, right = self._a(a), self._b(b)
        np.matmul(left, right, out=c.write(HOST).reshape(self._c_shape))

    def grad_a(self, b: Tensor, dc: Tensor, da: Tensor) -> None:
        right, gradient = self._b(b), dc.read(HOST).reshape(self._c_shape)
        _sum_to(np.matmul(gradient, right.swapaxes(-1, -2)), _turned(da.write(HOST).reshape(self._a_shape),
                                                                     self._trans_a))

    def grad_b(self, a: Tensor, dc: Tensor, db: Tensor) -> None:
        left, gradient = self._a(a), dc.read(HOST).reshape(self._c_shape)
        _sum_to(np.matmul(left.swapaxes(-1, -2), gradient), _turned(db.write(HOST).reshape(self._b_shape),
                                                                    self._trans_b))


def _turned(matrices: Array, transpose: bool) -> Array:
    return matrices.swapaxes(-1, -2) if transpose else matrices


def _sum_to(whole: Array, target: Array) -> None:
    """Write `whole`, summed over the axes along which `target` was repeated."""
    missing = whole.ndim - target.ndim
    axes = (*range(missing), *(missing + axis for axis, size in enumerate(target.shape)
                               if size == 1 != whole.shape[missing + axis]))
    np.copyto(target, whole.sum(axis=axes).reshape(target.shape) if axes else whole)
