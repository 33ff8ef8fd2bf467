"""Learning rate policies: the rate as a pure function of the iteration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from ..errors import SolverError, nearest
from ..proto.caffe_pb2 import SolverParameter

_Formula = Callable[[SolverParameter, int], float]


def _steps(param: SolverParameter, iteration: int) -> int:
    """How often the rate has been multiplied by gamma."""
    if param.lr_policy == "step":
        return iteration // param.stepsize
    if param.lr_policy == "multistep":
        return sum(iteration >= value for value in param.stepvalue)
    return 0


def _stepped(param: SolverParameter, iteration: int) -> float:
    return param.base_lr * math.pow(param.gamma, _steps(param, iteration))


def _fixed(param: SolverParameter, iteration: int) -> float:
    return param.base_lr


def _exp(param: SolverParameter, iteration: int) -> float:
    return param.base_lr * math.pow(param.gamma, iteration)


def _inv(param: SolverParameter, iteration: int) -> float:
    return param.base_lr * math.pow(1 + param.gamma * iteration, -param.power)


def _poly(param: SolverParameter, iteration: int) -> float:
    if iteration > param.max_iter:
        raise SolverError(f"iteration {iteration} lies beyond max_iter {param.max_iter}, where lr_policy "
                          "'poly' has brought the learning rate to 0; raise max_iter")
    return param.base_lr * math.pow(1 - iteration / param.max_iter, param.power)


def _sigmoid(param: SolverParameter, iteration: int) -> float:
    # exp of a large positive number overflows in Python, where the rate is simply 0.
    exponent = min(-param.gamma * (iteration - param.stepsize), 700.0)
    return param.base_lr / (1 + math.exp(exponent))


# Policy: its formula, and the fields that it needs beside base_lr.
_POLICIES: dict[str, tuple[_Formula, tuple[str, ...]]] = {
    "fixed": (_fixed, ()),
    "step": (_stepped, ("gamma", "stepsize")),
    "exp": (_exp, ("gamma",)),
    "inv": (_inv, ("gamma", "power")),
    "multistep": (_stepped, ("gamma", "stepvalue")),
    "poly": (_poly, ("power", "max_iter")),
    "sigmoid": (_sigmoid, ("gamma", "stepsize")),
}


class LearningRate:
    """The learning rate of a solver at any iteration.

    ============ ==============================================
    fixed        base_lr
    step         base_lr gamma^floor(iter / stepsize)
    exp          base_lr gamma^iter
    inv          base_lr (1 + gamma iter)^-power
    multistep    base_lr gamma^(number of stepvalues <= iter)
    poly         base_lr (1 - iter / max_iter)^power
    sigmoid      base_lr / (1 + exp(-gamma (iter - stepsize)))
    ============ ==============================================

    Raises
    ------
    SolverError : unknown policy, or a field that it needs is missing or out of range
    """

    def __init__(self, param: SolverParameter) -> None:
        if not param.lr_policy:
            raise SolverError(f"lr_policy is not given; choose one of {', '.join(_POLICIES)}")
        if param.lr_policy not in _POLICIES:
            hint = nearest(param.lr_policy, _POLICIES) or f"choose one of {', '.join(_POLICIES)}"
            raise SolverError(f"lr_policy {param.lr_policy!r} is not known; {hint}")
        self._formula, needed = _POLICIES[param.lr_policy]
        who = f"lr_policy {param.lr_policy!r}"
        missing = [name for name in ("base_lr", *needed)
                   if not (len(param.stepvalue) if name == "stepvalue" else param.HasField(name))]
        if missing:
            raise SolverError(f"{who} needs {' and '.join(missing)}, which the solver does not give")
        if "gamma" in needed and param.gamma < 0:
            raise SolverError(f"{who}: gamma {param.gamma:g} is negative; give 0 or more")
        for name in ("stepsize", "max_iter"):
            if name in needed and getattr(param, name) <= 0:
                raise SolverError(f"{who}: {name} {getattr(param, name)} must be 1 or more")
        values = list(param.stepvalue)
        if "stepvalue" in needed and any(b <= a for a, b in itertools.pairwise(values)):
            raise SolverError(f"{who}: stepvalue {values} must increase from each to the next")
        self._param = param

    def __call__(self, iteration: int) -> float:
        """The rate at `iteration`, counted from 0."""
        return self._formula(self._param, iteration)

    def steps(self, iteration: int) -> int:
        """How many steps a stepped policy has made by `iteration` (0 for the others)."""
        return _steps(self._param, iteration)
