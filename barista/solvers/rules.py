"""The six solvers as element-wise programs.

A program runs once over each parameter: it turns the gradient ``g``, already scaled and
regularised, into the update, keeping what it must remember in ``h`` (and ``h2``); `program`
puts the common first and last lines around it.

Caffe: when it is done the gradient of a parameter holds the update that was subtracted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ..errors import SolverError, nearest
from ..proto.caffe_pb2 import SolverParameter


def _no_scalars(param: SolverParameter, iteration: int) -> dict[str, float]:
    return {}


def _momentum(param: SolverParameter, iteration: int) -> dict[str, float]:
    return {"momentum": param.momentum}


def _delta(param: SolverParameter, iteration: int) -> dict[str, float]:
    return {"delta": param.delta}


def _rms(param: SolverParameter, iteration: int) -> dict[str, float]:
    return {"rms_decay": param.rms_decay, "delta": param.delta}


def _adadelta(param: SolverParameter, iteration: int) -> dict[str, float]:
    return {"momentum": param.momentum, "delta": param.delta}


def _adam(param: SolverParameter, iteration: int) -> dict[str, float]:
    t = iteration + 1
    correction = math.sqrt(1 - param.momentum2**t) / (1 - param.momentum**t)
    return {"beta1": param.momentum, "beta2": param.momentum2, "delta": param.delta, "correction": correction}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One way to turn gradients into updates.

    Attributes
    ----------
    source : program over ``g``, ``h`` and, of two moments, ``h2``; ``rate`` is the parameter's own rate
    scalars : the other numbers of the program at an iteration
    moments : history arrays for each parameter
    takes_momentum : whether the field momentum has a meaning
    fractions : fields that must lie in [0, 1)
    rests : whether at rate 0 a parameter without history keeps both, whatever its weight decay
    """

    source: str
    scalars: Callable[[SolverParameter, int], dict[str, float]] = _no_scalars
    moments: int = 1
    takes_momentum: bool = True
    fractions: tuple[str, ...] = ()
    rests: bool = False


RULES: dict[str, Rule] = {
    "SGD": Rule("h = momentum * h + rate * g\n"
                "g = h", _momentum, rests=True),
    # The update (1 + momentum) h_new - momentum h_old, with momentum h_old = h_new - rate g.
    "Nesterov": Rule("h = momentum * h + rate * g\n"
                     "g = momentum * h + rate * g", _momentum, rests=True),
    "AdaGrad": Rule("h = h + g * g\n"
                    "g = rate * g / (sqrt(h) + delta)", _delta, takes_momentum=False),
    "RMSProp": Rule("h = rms_decay * h + (1 - rms_decay) * g * g\n"
                    "g = rate * g / (sqrt(h) + delta)", _rms, takes_momentum=False, fractions=("rms_decay",)),
    "AdaDelta": Rule("h = momentum * h + (1 - momentum) * g * g\n"
                     "g = g * sqrt((h2 + delta) / (h + delta))\n"
                     "h2 = momentum * h2 + (1 - momentum) * g * g\n"
                     "g = rate * g", _adadelta, moments=2, fractions=("momentum",)),
    "Adam": Rule("h = beta1 * h + (1 - beta1) * g\n"
                 "h2 = beta2 * h2 + (1 - beta2) * g * g\n"
                 "g = rate * correction * h / (sqrt(h2) + delta)", _adam, moments=2,
                 fractions=("momentum", "momentum2")),
}

# What weight decay adds to a gradient.
_REGULARIZATION = {"L2": "decay * w", "L1": "decay * sign(w)"}


def make_rule(param: SolverParameter) -> Rule:
    """The rule of a solver's type, after checking its fields.

    Raises
    ------
    SolverError : unknown type or regularization_type, or a field that the type refuses
    """
    if param.type not in RULES:
        hint = nearest(param.type, RULES) or f"choose one of {', '.join(RULES)}"
        raise SolverError(f"solver type {param.type!r} is not known; {hint}")
    rule = RULES[param.type]
    if param.momentum and not rule.takes_momentum:
        # Caffe: refuses it too.
        raise SolverError(f"solver type {param.type} takes no momentum, got {param.momentum:g}; "
                          "take the line out, or choose SGD, Nesterov or Adam")
    for name in rule.fractions:
        if not 0 <= getattr(param, name) < 1:
            raise SolverError(f"solver type {param.type}: {name} {getattr(param, name):g} must be at least 0 "
                              "and less than 1")
    if param.regularization_type not in _REGULARIZATION:
        hint = nearest(param.regularization_type, _REGULARIZATION) or "choose L1 or L2"
        raise SolverError(f"regularization_type {param.regularization_type!r} is not known; {hint}")
    return rule


def program(rule: Rule, regularization: str | None, scaled: bool, zero: bool = False) -> str:
    """The whole program for one parameter.

    Parameters
    ----------
    regularization : L1, L2, or None for a parameter without weight decay
    scaled : whether gradients are multiplied by ``scale`` first (iter_size, clipping)
    zero : whether the gradient stands for zeros, which are then not read
    """
    terms = [] if zero else ["scale * g" if scaled else "g"]
    if regularization is not None:
        terms.append(_REGULARIZATION[regularization])
    first = " + ".join(terms) or "0"
    lines = [f"g = {first}"] if first != "g" else []
    return "\n".join([*lines, rule.source, "w = w - g"])
