"""Activations: element-wise layers are a row of programs each; PReLU has parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from ..ops.base import AxisGeometry
from ..proto.caffe_pb2 import FillerParameter
from .base import Bottoms, Layer, Tops, register


class ElementwiseLayer(Layer):
    """y = f(x) element by element.

    Subclasses give two programs (see `ops.program`): `forward_program` assigns y from x,
    `backward_program` assigns dx from dy and any of x, y.  In place, x is y: a backward
    program then sees y where it reads x, as in Caffe.
    """

    forward_program: ClassVar[str]
    backward_program: ClassVar[str]

    def scalars(self) -> dict[str, float]:
        """The numbers that the programs name."""
        return {}

    def programs(self) -> tuple[str, str]:
        """The two programs; overridden where a parameter allows cheaper ones."""
        return self.forward_program, self.backward_program

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        self._scalars = self.scalars()

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        top[0].reshape(*bottom[0].shape)
        forward, backward = self.programs()
        self._forward = self.ops.elementwise(forward, ("x", "y"), bottom[0].count)
        self._backward = self.ops.elementwise(backward, ("x", "y", "dy", "dx"), bottom[0].count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._forward.run({"x": bottom[0].value, "y": top[0].value}, **self._scalars)

    def backward_needs(self) -> tuple[bool, bool]:
        names = set(re.findall(r"\w+", self.programs()[1]))
        return "x" in names, "y" in names

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._backward.run({"x": bottom[0].value, "y": top[0].value, "dy": top[0].grad, "dx": bottom[0].grad},
                               **self._scalars)


@register("ReLU")
class ReLU(ElementwiseLayer):
    """y = max(x, 0) + negative_slope * min(x, 0); the gradient at 0 is that of the negative side."""

    def scalars(self) -> dict[str, float]:
        slope = self.param.relu_param.negative_slope
        return {"slope": slope} if slope else {}

    def programs(self) -> tuple[str, str]:
        if self._scalars:
            return "y = max(x, 0) + slope * min(x, 0)", "dx = where(x > 0, dy, slope * dy)"
        return "y = max(x, 0)", "dx = where(x > 0, dy, 0)"

    @property
    def rectifies(self) -> bool:
        return not self._scalars


@register("ELU")
class ELU(ElementwiseLayer):
    """y = x for x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""

    forward_program = "y = max(x, 0) + alpha * (exp(min(x, 0)) - 1)"
    backward_program = "dx = where(x > 0, dy, dy * (y + alpha))"

    def scalars(self) -> dict[str, float]:
        return {"alpha": self.param.elu_param.alpha}


@register("Sigmoid")
class Sigmoid(ElementwiseLayer):
    """y = 1 / (1 + exp(-x)), computed through tanh, which does not overflow."""

    forward_program = "y = 0.5 * tanh(0.5 * x) + 0.5"
    backward_program = "dx = dy * y * (1 - y)"


@register("TanH")
class TanH(ElementwiseLayer):
    """y = tanh(x)."""

    forward_program = "y = tanh(x)"
    backward_program = "dx = dy * (1 - y * y)"


@register("PReLU")
class PReLU(Layer):
    """y = max(x, 0) + slope * min(x, 0) with a learned slope a channel, or one for all (He et al. 2015).

    Caffe: in place it keeps a copy of x, whose sign y does not tell once a slope is negative.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.prelu_param
        if len(bottom[0].shape) < 2:
            raise self.error(f"needs a bottom (N, C, ...) of at least 2 axes, got shape {bottom[0].shape}")
        self._shared = param.channel_shared
        filler = param.filler if param.HasField("filler") else FillerParameter(type="constant", value=0.25)
        self.add_param(() if self._shared else (bottom[0].shape[1],), filler)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        if not self._shared and shape[1] != self.blobs[0].count:
            raise self.error(f"has {self.blobs[0].count} slopes but the bottom {shape} has {shape[1]} channels")
        self._saved = None
        if bottom[0] is top[0]:
            self._saved = self.scratch("saved", shape)
            self._copy = self.ops.elementwise("y = x", ("x", "y"), bottom[0].count)
        top[0].reshape(*shape)
        geometry = AxisGeometry(1, 1, bottom[0].count) if self._shared else AxisGeometry.of(shape, 1)
        self._prelu = self.ops.prelu(geometry)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if self._saved is not None:
            self._copy.run({"x": bottom[0].value, "y": self._saved})
        self._prelu.forward(bottom[0].value, self.blobs[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return self._saved is None, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        x = self._saved if self._saved is not None else bottom[0].value
        if self.param_propagate_down[0]:
            self._prelu.grad_slope(x, top[0].grad, self.blobs[0].grad)
        if propagate_down[0]:
            self._prelu.grad_input(x, self.blobs[0].value, top[0].grad, bottom[0].grad)
