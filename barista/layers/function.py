"""Function: functions of each element that Caffe has no layer for."""

from __future__ import annotations

from ..errors import NetError
from ..proto.caffe_pb2 import FunctionParameter as F
from .base import register
from .elementwise import ElementwiseLayer

_SOFTPLUS = "(max(x, 0) + log(1 + exp(-abs(x))))"
_SIGMOID = "(0.5 * tanh(0.5 * x) + 0.5)"
_NORMAL = "(0.5 + 0.5 * erf(x * 0.7071067811865476))"
_STEPS = "dx = 0"

# Of each function the program and that of its gradient.
_PROGRAMS = {
    F.SELU: ("y = beta * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))",
             "dx = where(x > 0, beta * dy, dy * (y + alpha * beta))"),
    F.HARD_SIGMOID: ("y = max(min(alpha * x + beta, 1), 0)", "dx = where(y > 0, where(y < 1, alpha * dy, 0), 0)"),
    F.HARD_SWISH: ("y = x * max(min(x / 6 + 0.5, 1), 0)",
                   "dx = where(x >= 3, dy, where(x <= -3, 0, dy * (x / 3 + 0.5)))"),
    # The exponent is kept from overflowing; what lies beyond is 0 anyway.
    F.SOFTPLUS: (f"y = {_SOFTPLUS}", "dx = dy / (1 + exp(min(-x, 88)))"),
    F.SOFTSIGN: ("y = x / (1 + abs(x))", "dx = dy * (1 - abs(y)) * (1 - abs(y))"),
    F.SQRT: ("y = sqrt(x)", "dx = 0.5 * dy / y"),
    F.RECIPROCAL: ("y = 1 / x", "dx = -dy * y * y"),
    F.NEG: ("y = -x", "dx = -dy"),
    F.SIGN: ("y = sign(x)", _STEPS),
    F.FLOOR: ("y = floor(x)", _STEPS),
    F.CEIL: ("y = -floor(-x)", _STEPS),
    F.TRUNC: ("y = sign(x) * floor(abs(x))", _STEPS),
    F.ROUND: ("y = floor(x) + where(x - floor(x) > 0.5, 1, where(x - floor(x) < 0.5, 0, "
              "floor(x) - 2 * floor(0.5 * floor(x))))", _STEPS),
    F.ERF: ("y = erf(x)", "dx = dy * 1.1283791670955126 * exp(-x * x)"),
    F.CELU: ("y = max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)", "dx = where(x > 0, dy, dy * (y + alpha) / alpha)"),
    F.THRESHOLDED_RELU: ("y = where(x > alpha, x, 0)", "dx = where(x > alpha, dy, 0)"),
    F.MISH: (f"y = x * tanh({_SOFTPLUS})",
             f"dx = dy * (tanh({_SOFTPLUS}) + x * {_SIGMOID} * (1 - tanh({_SOFTPLUS}) * tanh({_SOFTPLUS})))"),
    F.GELU: (f"y = x * {_NORMAL}", f"dx = dy * ({_NORMAL} + x * 0.3989422804014327 * exp(-0.5 * x * x))"),
}

# alpha and beta of those that have them.
_CONSTANTS = {
    F.SELU: (1.6732632423543772, 1.0507009873554805),
    F.HARD_SIGMOID: (0.2, 0.5),
    F.CELU: (1.0, 0.0),
    F.THRESHOLDED_RELU: (1.0, 0.0),
}


@register("Function")
class Function(ElementwiseLayer):
    """A function of each element; in place it keeps a copy of x where its gradient reads x.

    SELU beta * (x or alpha * (e^x - 1)); HARD_SIGMOID alpha * x + beta held between 0 and 1; HARD_SWISH x times that
    of 1/6 and 1/2; SOFTPLUS log(1 + e^x); SOFTSIGN x / (1 + |x|); CELU x or alpha * (e^(x / alpha) - 1);
    THRESHOLDED_RELU x where it is above alpha; MISH x tanh(softplus(x)); GELU x times the normal distribution's share
    below x; ERF the error function; SQRT, RECIPROCAL, NEG.  Those that only take steps (SIGN, FLOOR, CEIL, TRUNC
    towards 0, ROUND with halves to the even neighbour) have the gradient 0.
    """

    keeps_bottom = True

    def programs(self) -> tuple[str, str]:
        return _PROGRAMS[self.param.function_param.function]

    def scalars(self) -> dict[str, float]:
        param = self.param.function_param
        if not param.HasField("function"):
            raise self.error("does not say which function; write function_param { function: SQRT }, or another of "
                             f"{', '.join(F.Name.keys())}", NetError)
        given = {name for name in ("alpha", "beta") if param.HasField(name)}
        known = _CONSTANTS.get(param.function)
        name = F.Name.Name(param.function)
        if known is None:
            if given:
                raise self.error(f"{name} has no {' and no '.join(sorted(given))}; leave it out", NetError)
            return {}
        if param.function == F.CELU and param.alpha == 0 and param.HasField("alpha"):
            raise self.error("CELU divides by alpha, which is 0; give another", NetError)
        alpha, beta = known
        return {"alpha": param.alpha if param.HasField("alpha") else alpha,
                "beta": param.beta if param.HasField("beta") else beta}
