"""Eltwise: bottoms of one shape combined element by element."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NetError
from ..proto.caffe_pb2 import EltwiseParameter
from .base import Bottoms, Count, Layer, Tops, register


@register("Eltwise")
class Eltwise(Layer):
    """Sum (with coefficients), product or maximum.

    Caffe: the gradient of a maximum goes to one bottom that holds it, the second before the first and both before
    the later ones, and coeff does nothing there; stable_prod_grad multiplies the other bottoms, its opposite divides
    the product by the bottom.
    """

    bottoms = Count(2)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.eltwise_param
        if param.coeff and len(param.coeff) != len(bottom):
            raise self.error(f"has {len(bottom)} bottoms and {len(param.coeff)} coeff; give one a bottom, or none",
                             NetError)
        if param.coeff and param.operation == EltwiseParameter.PROD:
            raise self.error("coeff is for operation: SUM alone", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        for index, blob in enumerate(bottom):
            if blob.shape != bottom[0].shape:
                raise self.error(f"all bottoms must have one shape: bottom 0 has {bottom[0].shape}, "
                                 f"bottom {index} ({self.param.bottom[index]}) has {blob.shape}")
        top[0].reshape(*bottom[0].shape)
        param = self.param.eltwise_param
        self._combine = self.ops.combine(EltwiseParameter.EltwiseOp.Name(param.operation),
                                         list(param.coeff) or [1.0] * len(bottom), bottom[0].count,
                                         param.stable_prod_grad)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._combine.forward([blob.value for blob in bottom], top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        needed = self.param.eltwise_param.operation != EltwiseParameter.SUM
        return needed, needed

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        values = [blob.value for blob in bottom]
        for index, (blob, wanted) in enumerate(zip(bottom, propagate_down, strict=True)):
            if wanted:
                self._combine.backward(index, values, top[0].value, top[0].grad, blob.grad)
