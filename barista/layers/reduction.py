"""Reduction: the last axes of a blob summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import AxisGeometry
from ..proto.caffe_pb2 import ReductionParameter
from .base import Bottoms, Layer, Tops, register

# What is summed where it is not x itself, and the slope of what is summed.
_TERMS = {ReductionParameter.ASUM: "t = abs(x)", ReductionParameter.SUMSQ: "t = x * x"}
_SLOPES = {ReductionParameter.ASUM: "dx = sign(x)", ReductionParameter.SUMSQ: "dx = 2 * x"}


@register("Reduction")
class Reduction(Layer):
    """Sum, sum of magnitudes, sum of squares or mean over all axes from `axis` on, times coeff.

    From axis 0 on the top is one number, a blob without axes.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        param = self.param.reduction_param
        shape = bottom[0].shape
        axis = self.axis(bottom[0], param.axis)
        rows, length = math.prod(shape[:axis]), math.prod(shape[axis:])
        top[0].reshape(*shape[:axis])
        self._coeff = param.coeff / max(length, 1) if param.operation == ReductionParameter.MEAN else param.coeff
        self._rows = self.ops.broadcast(AxisGeometry(1, rows, length))
        self._scaled = self.ops.elementwise("t = coeff * s", ("s", "t"), rows)
        self._slopes = self.ops.elementwise(_SLOPES.get(param.operation, "dx = 1"), ("x", "dx"), bottom[0].count)
        self._sums = self.scratch("sums", (rows,))
        self._terms = None
        if param.operation in _TERMS:
            self._make_terms = self.ops.elementwise(_TERMS[param.operation], ("x", "t"), bottom[0].count)
            self._terms = self.scratch("terms", shape)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if self._terms is not None:
            self._make_terms.run({"x": bottom[0].value, "t": self._terms})
        self._sums.clear()
        self._rows.sum(self._terms if self._terms is not None else bottom[0].value, self._sums)
        self._scaled.run({"s": self._sums, "t": top[0].value}, coeff=self._coeff)

    def backward_needs(self) -> tuple[bool, bool]:
        return self._terms is not None, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            dx = bottom[0].grad
            self._scaled.run({"s": top[0].grad, "t": self._sums}, coeff=self._coeff)
            self._slopes.run({"x": bottom[0].value, "dx": dx})
            self._rows.multiply(dx, self._sums, dx)
