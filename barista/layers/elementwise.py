"""Element-wise layers are a row of programs each: here what they are made of, and the plain functions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar

from ..errors import NetError
from ..proto.caffe_pb2 import ExpParameter, LogParameter, PowerParameter
from .base import Bottoms, Layer, Tops, register


class ElementwiseLayer(Layer):
    """y = f(x) element by element.

    Subclasses give two programs (see `ops.program`): `forward_program` assigns y from x,
    `backward_program` assigns dx from dy and any of x, y.  In place, x is y: a backward
    program then sees y where it reads x, as in Caffe, unless the layer `keeps_bottom`.
    """

    forward_program: ClassVar[str]
    backward_program: ClassVar[str]
    # Whether it keeps a copy of x in place, where its backward program reads x.
    keeps_bottom: ClassVar[bool] = False

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
        self._saved = None
        if self.keeps_bottom and bottom[0] is top[0] and "x" in _names(backward):
            self._saved = self.scratch("saved", bottom[0].shape)
            forward = f"saved = x\n{forward}"
        self._forward = self.ops.elementwise(forward, ("x", "y", "saved"), bottom[0].count)
        self._backward = self.ops.elementwise(backward, ("x", "y", "dy", "dx"), bottom[0].count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        tensors = {"x": bottom[0].value, "y": top[0].value}
        if self._saved is not None:
            tensors["saved"] = self._saved
        self._forward.run(tensors, **self._scalars)

    def backward_needs(self) -> tuple[bool, bool]:
        names = _names(self.programs()[1])
        return "x" in names and self._saved is None, "y" in names

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            x = self._saved if self._saved is not None else bottom[0].value
            self._backward.run({"x": x, "y": top[0].value, "dy": top[0].grad, "dx": bottom[0].grad}, **self._scalars)


def _names(program: str) -> set[str]:
    return set(re.findall(r"\w+", program))


@register("AbsVal")
class AbsVal(ElementwiseLayer):
    """y = |x|; the gradient at 0 is 0.

    Caffe: not in place.
    """

    forward_program = "y = abs(x)"
    backward_program = "dx = sign(x) * dy"

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        super().setup(bottom, top)
        if bottom[0] is top[0]:
            raise self.error("cannot work in place, since |x| does not tell the sign of x; give the top a name of its "
                             "own", NetError)


@register("Clip")
class Clip(ElementwiseLayer):
    """y = x held between min and max; the gradient passes where min <= x <= max.

    Caffe: in place the gradient passes everywhere, since y is never outside.
    """

    forward_program = "y = max(min(x, high), low)"
    backward_program = "dx = where(x >= low, where(x <= high, dy, 0), 0)"

    def scalars(self) -> dict[str, float]:
        if not self.param.HasField("clip_param"):
            raise self.error("needs both ends of its range; write clip_param { min: ... max: ... }", NetError)
        return {"low": self.param.clip_param.min, "high": self.param.clip_param.max}


@register("Exp")
class Exp(ElementwiseLayer):
    """y = base ^ (scale * x + shift), with base e where it is -1."""

    backward_program = "dx = inner * dy * y"

    def programs(self) -> tuple[str, str]:
        outer = "outer * " if self._scalars["outer"] != 1 else ""
        return f"y = {outer}exp(inner * x)", self.backward_program

    def scalars(self) -> dict[str, float]:
        param = self.param.exp_param
        base = math.e if param.base == -1 else param.base
        return {"inner": _logarithm(self, param) * param.scale, "outer": _power(base, param.shift)}


@register("Log")
class Log(ElementwiseLayer):
    """y = log to `base` of (scale * x + shift), with base e where it is -1.

    NaN where the argument is negative, as in Caffe.  In place it keeps a copy of x.
    """

    keeps_bottom = True

    def programs(self) -> tuple[str, str]:
        inside = _inside(self.param.log_param)
        outer = "outer * " if self._scalars["outer"] != 1 else ""
        return f"y = {outer}log({inside})", f"dx = slope * dy / ({inside})"

    def scalars(self) -> dict[str, float]:
        param = self.param.log_param
        logarithm = _logarithm(self, param)
        if logarithm == 0:
            raise self.error("base=1 has no logarithms; give another base above 0, or -1 for e", NetError)
        return {"outer": 1 / logarithm, "slope": param.scale / logarithm, "scale": param.scale, "shift": param.shift}


def _logarithm(layer: Layer, param: ExpParameter | LogParameter) -> float:
    """The natural logarithm of a layer's base; -1, the default, means e."""
    if param.base == -1:
        return 1.0
    if not 0 < param.base < math.inf:
        raise layer.error(f"base={param.base:g} must be a finite number above 0, or -1 for e", NetError)
    return math.log(param.base)


def _inside(param: LogParameter | PowerParameter) -> str:
    """scale * x + shift, without what does nothing."""
    scaled = "scale * x" if param.scale != 1 else "x"
    return f"{scaled} + shift" if param.shift else scaled


def _power(base: float, exponent: float) -> float:
    """base ^ exponent, infinite or NaN where there is none, as C has it."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:  # 0 to a negative power, or a negative number to one that is no integer
        return math.inf if base == 0 else math.nan


@register("Power")
class Power(ElementwiseLayer):
    """y = (shift + scale * x) ^ power.

    A negative number to a power that is no integer is NaN, as in Caffe.  In place it keeps a copy of x.  Where
    shift + scale * x is 0, the gradient is the derivative there (Caffe: 0 / 0 where shift is 0).
    """

    keeps_bottom = True

    def scalars(self) -> dict[str, float]:
        param = self.param.power_param
        return {"power": param.power, "scale": param.scale, "shift": param.shift, "less": param.power - 1,
                "slope": param.power * param.scale, "constant": _power(param.shift, param.power)}

    def programs(self) -> tuple[str, str]:
        param = self.param.power_param
        if param.power == 0 or param.scale == 0:
            return "y = constant", "dx = 0"  # whatever x is, NaN included
        inside = _inside(param)
        if param.power == 1:
            return f"y = {inside}", "dx = slope * dy"
        if param.power == 2:
            return f"y = ({inside}) * ({inside})", f"dx = slope * dy * ({inside})"
        return f"y = pow({inside}, power)", f"dx = slope * dy * pow({inside}, less)"


@register("Threshold")
class Threshold(ElementwiseLayer):
    """y = 1 where x > threshold, else 0; no gradient."""

    forward_program = "y = where(x > threshold, 1, 0)"
    backward_program = "dx = 0"

    def scalars(self) -> dict[str, float]:
        return {"threshold": self.param.threshold_param.threshold}

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        Layer.backward(self, top, propagate_down, bottom)
