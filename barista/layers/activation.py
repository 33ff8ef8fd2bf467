"""Activations: two programs each; PReLU has parameters."""

from __future__ import annotations

from collections.abc import Sequence

from ..ops.base import AxisGeometry
from ..proto.caffe_pb2 import FillerParameter
from .base import Bottoms, Layer, Tops, register
from .elementwise import ElementwiseLayer


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


@register("ReLU6")
class ReLU6(ElementwiseLayer):
    """y = min(max(x, 0), 6), a type of Caffe's forks; no gradient at 0 and at 6."""

    forward_program = "y = min(max(x, 0), 6)"
    backward_program = "dx = where(x > 0, where(x < 6, dy, 0), 0)"


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


@register("Swish")
class Swish(ElementwiseLayer):
    """y = x / (1 + exp(-beta * x)) (Ramachandran et al. 2017).  In place it keeps a copy of x."""

    keeps_bottom = True
    forward_program = "y = x * (0.5 * tanh(half * x) + 0.5)"
    # With t = tanh(half * x) the logistic function of beta * x is (1 + t) / 2, and its derivative half * (1 - t^2) / 2.
    backward_program = "dx = 0.5 * dy * (1 + tanh(half * x)) * (1 + half * x * (1 - tanh(half * x)))"

    def scalars(self) -> dict[str, float]:
        return {"half": 0.5 * self.param.swish_param.beta}


@register("BNLL")
class BNLL(ElementwiseLayer):
    """y = log(1 + exp(x)) (binomial normal log likelihood).

    Caffe: in place its gradient is that at y.
    """

    forward_program = "y = max(x, 0) + log(1 + exp(-abs(x)))"
    # The exponent is kept from overflowing; what lies beyond is 0 anyway.
    backward_program = "dx = dy / (1 + exp(min(-x, 88)))"


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
