"""InnerProduct: a fully connected layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..blob import Blob
from ..errors import NetError
from ..gemm.shapes import GemmShape, Pass
from ..ops.base import AxisGeometry, Gemm
from .base import Bottoms, Layer, Tops, register


@register("InnerProduct")
class InnerProduct(Layer):
    """y(M, N) = x(M, K) w(N, K)^T + b(N), with the axes before `axis` folded into M.

    Caffe: with ``transpose`` the weights have shape (K, N).
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.inner_product_param
        if param.num_output < 1:
            raise self.error("num_output is missing; give 1 or more", NetError)
        self._outputs = param.num_output
        self._transpose = param.transpose
        self._inputs = self._folded(bottom[0])[1].axis
        shape = (self._inputs, self._outputs) if self._transpose else (self._outputs, self._inputs)
        self.weight = self.add_param(shape, param.weight_filler)
        self.bias = self.add_param((self._outputs,), param.bias_filler) if param.bias_term else None

    def _folded(self, bottom: Blob) -> tuple[int, AxisGeometry]:
        """The axis where the inputs begin, and the bottom folded around all axes from there on."""
        axis = self.axis(bottom, self.param.inner_product_param.axis)
        return axis, AxisGeometry.of(bottom.shape, axis, len(bottom.shape) - axis)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        axis, folded = self._folded(bottom[0])
        if folded.axis != self._inputs:
            raise self.error(f"was set up for {self._inputs} inputs; the bottom {shape} has {folded.axis} "
                             f"from axis {axis} on")
        rows, inputs, outputs = folded.outer, self._inputs, self._outputs
        top[0].reshape(*shape[:axis], outputs)
        transpose = self._transpose
        self._forward = self._product(Pass.FORWARD, GemmShape(rows, outputs, inputs), False, not transpose)
        self._grad_input = self._product(Pass.GRAD_INPUT, GemmShape(rows, inputs, outputs), False, transpose)
        weight = (inputs, outputs) if transpose else (outputs, inputs)
        self._grad_weight = self._product(Pass.GRAD_WEIGHT, GemmShape(*weight, rows), True, False)
        self._bias = self.ops.broadcast(AxisGeometry(rows, outputs, 1))

    def _product(self, pass_: Pass, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        """Ask the op set for the product of one pass, by whose name reports go."""
        owner = self.ops.owner
        self.ops.owner = dataclasses.replace(owner, pass_=pass_)
        product = self.ops.gemm(shape, trans_a, trans_b)
        self.ops.owner = owner
        return product

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._forward.run(bottom[0].value, self.weight.value, top[0].value,
                          bias=None if self.bias is None else self.bias.value)

    def backward_needs(self) -> tuple[bool, bool]:
        return self.param_propagate_down[0], False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        x, dy = bottom[0].value, top[0].grad
        if self.param_propagate_down[0]:
            a, b = (x, dy) if self._transpose else (dy, x)
            self._grad_weight.run(a, b, self.weight.grad, beta=1.0)
        if self.bias is not None and self.param_propagate_down[1]:
            self._bias.sum(dy, self.bias.grad)
        if propagate_down[0]:
            self._grad_input.run(dy, self.weight.value, bottom[0].grad)
