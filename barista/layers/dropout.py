"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NetError
from ..proto.caffe_pb2 import TRAIN
from .base import Bottoms, Layer, Tops, register


@register("Dropout")
class Dropout(Layer):
    """At TRAIN drops elements with probability dropout_ratio and divides the others by 1 - dropout_ratio.

    Caffe: at TEST it copies, so that nothing is to be scaled there.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            raise self.error(f"dropout_ratio={ratio} must be at least 0 and less than 1", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        top[0].reshape(*bottom[0].shape)
        count = bottom[0].count
        self._copy = self.ops.elementwise("y = x", ("x", "y"), count)
        if self.phase == TRAIN:
            self._dropout = self.ops.dropout(count, self.param.dropout_param.dropout_ratio)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if self.phase == TRAIN:
            self._dropout.forward(bottom[0].value, top[0].value, self.rng)
        elif bottom[0] is not top[0]:
            self._copy.run({"x": bottom[0].value, "y": top[0].value})

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if not propagate_down[0]:
            return
        if self.phase == TRAIN:
            self._dropout.backward(top[0].grad, bottom[0].grad)
        elif bottom[0] is not top[0]:
            self._copy.run({"x": top[0].grad, "y": bottom[0].grad})
