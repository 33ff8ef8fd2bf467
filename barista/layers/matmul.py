"""MatMul: the product of two bottoms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..blob import Tensor
from ..errors import NetError
from ..gemm.shapes import GemmShape
from ..ops.base import MatMul as Product
from ..ops.base import OpSet
from .base import Bottoms, Layer, Tops, exactly, register
from .rearrange import broadcast


@register("MatMul")
class MatMul(Layer):
    """The product of two bottoms as NumPy's matmul has it.

    The last two axes are matrices, those before stacks of them, which are broadcast.  A bottom of one axis is a row on
    the left, a column on the right, and that axis is not in the top.  `transpose_a` and `transpose_b` swap the last two
    axes of a bottom of two or more.
    """

    bottoms = exactly(2)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if any(blob is top[0] for blob in bottom):
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        a, b = bottom[0].shape, bottom[1].shape
        if not a or not b:
            raise self.error(f"multiplies bottoms of one axis or more, got shapes {a} and {b}")
        param = self.param.matmul_param
        trans_a, trans_b = param.transpose_a and len(a) > 1, param.transpose_b and len(b) > 1
        left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
        rows, inner = left[:-3:-1] if trans_a else left[-2:]
        other, columns = right[:-3:-1] if trans_b else right[-2:]
        if inner != other:
            raise self.error(f"cannot multiply its bottoms {a} and {b}: the left matrices have {inner} columns, the "
                             f"right ones {other} rows" + " (after transposing)" * (trans_a or trans_b))
        stack = broadcast(left[:-2], right[:-2])
        if stack is None:
            raise self.error(f"cannot bring the stacks of its bottoms {a} and {b} to one shape: from the last axis on, "
                             "sizes must be equal, or one of them 1")
        top[0].reshape(*stack, *(rows,) * (len(a) > 1), *(columns,) * (len(b) > 1))
        stacked = math.prod(left[:-2])
        if math.prod(right[:-2]) == 1 and min(stacked, rows, columns, inner) > 0 and not (trans_a and stacked > 1):
            self._product: Product | _OneProduct = _OneProduct(
                self.ops, GemmShape(stacked * rows, columns, inner), trans_a, trans_b)
        else:
            self._product = self.ops.matmul(left, right, trans_a, trans_b)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._product.forward(bottom[0].value, bottom[1].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return True, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._product.grad_a(bottom[1].value, top[0].grad, bottom[0].grad)
        if propagate_down[1]:
            self._product.grad_b(bottom[0].value, top[0].grad, bottom[1].grad)


class _OneProduct:
    """A product with one matrix on the right: all rows of the left stack are those of one matrix."""

    def __init__(self, ops: OpSet, shape: GemmShape, trans_a: bool, trans_b: bool) -> None:
        m, n, k = shape.m, shape.n, shape.k
        self._trans_a, self._trans_b = trans_a, trans_b
        self._forward = ops.gemm(shape, trans_a, trans_b)
        # The gradient of a matrix that lies transposed is made transposed.
        self._grad_a = (ops.gemm(GemmShape(k, m, n), trans_b, True) if trans_a
                        else ops.gemm(GemmShape(m, k, n), False, not trans_b))
        self._grad_b = (ops.gemm(GemmShape(n, k, m), True, trans_a) if trans_b
                        else ops.gemm(GemmShape(k, n, m), not trans_a, False))

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> None:
        """c = the product."""
        self._forward.run(a, b, c)

    def grad_a(self, b: Tensor, dc: Tensor, da: Tensor) -> None:
        """da = the gradient."""
        self._grad_a.run(*((b, dc) if self._trans_a else (dc, b)), da)

    def grad_b(self, a: Tensor, dc: Tensor, db: Tensor) -> None:
        """db = the gradient."""
        self._grad_b.run(*((dc, a) if self._trans_b else (a, dc)), db)
