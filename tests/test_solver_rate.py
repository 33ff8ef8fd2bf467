"""Learning rate policies: formulas by hand, and what is refused."""

from __future__ import annotations

import math

import pytest

from barista.errors import SolverError
from barista.frontends.prototxt import parse_solver
from barista.solvers.rate import LearningRate


def rate(text: str) -> LearningRate:
    return LearningRate(parse_solver(f'lr_policy: {text}'))


@pytest.mark.parametrize(("text", "iteration", "expected"), [
    ('"fixed" base_lr: 0.5', 10**6, 0.5),
    ('"step" base_lr: 2 gamma: 0.5 stepsize: 10', 9, 2.0),
    ('"step" base_lr: 2 gamma: 0.5 stepsize: 10', 10, 1.0),
    ('"step" base_lr: 2 gamma: 0.5 stepsize: 10', 35, 0.25),
    ('"exp" base_lr: 2 gamma: 0.5', 0, 2.0),
    ('"exp" base_lr: 2 gamma: 0.5', 3, 0.25),
    ('"inv" base_lr: 1 gamma: 3 power: 0.5', 1, 0.5),
    ('"inv" base_lr: 1 gamma: 3 power: 0.5', 5, 0.25),
    ('"multistep" base_lr: 8 gamma: 0.5 stepvalue: 2 stepvalue: 5', 1, 8.0),
    ('"multistep" base_lr: 8 gamma: 0.5 stepvalue: 2 stepvalue: 5', 2, 4.0),
    ('"multistep" base_lr: 8 gamma: 0.5 stepvalue: 2 stepvalue: 5', 7, 2.0),
    ('"poly" base_lr: 4 power: 2 max_iter: 10', 5, 1.0),
    ('"poly" base_lr: 4 power: 2 max_iter: 10', 10, 0.0),
    ('"sigmoid" base_lr: 4 gamma: 0.5 stepsize: 10', 10, 2.0),
    ('"sigmoid" base_lr: 4 gamma: 0.5 stepsize: 10', 12, 4 / (1 + math.exp(-1))),
    ('"sigmoid" base_lr: 4 gamma: 100 stepsize: 10000', 0, 0.0),
])
def test_formula(text: str, iteration: int, expected: float) -> None:
    assert rate(text)(iteration) == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_steps_are_counted() -> None:
    assert [rate('"step" base_lr: 1 gamma: 1 stepsize: 4').steps(i) for i in (0, 3, 4, 9)] == [0, 0, 1, 2]
    multistep = rate('"multistep" base_lr: 1 gamma: 1 stepvalue: 1 stepvalue: 9')
    assert [multistep.steps(i) for i in (0, 1, 8, 9)] == [0, 1, 1, 2]
    assert rate('"exp" base_lr: 1 gamma: 1').steps(100) == 0


@pytest.mark.parametrize(("text", "message"), [
    ('"" base_lr: 1', "lr_policy is not given; choose one of fixed, step"),
    ('"multi_step" base_lr: 1', "'multi_step' is not known; did you mean 'multistep'"),
    ('"cosine" base_lr: 1', "'cosine' is not known; choose one of fixed"),
    ('"fixed"', "'fixed' needs base_lr"),
    ('"inv" base_lr: 1', "'inv' needs gamma and power"),
    ('"multistep" base_lr: 1 gamma: 0.1', "needs stepvalue"),
    ('"multistep" base_lr: 1 gamma: 0.1 stepvalue: 5 stepvalue: 5', r"\[5, 5\] must increase"),
    ('"step" base_lr: 1 gamma: 0.1 stepsize: 0', "stepsize 0 must be 1 or more"),
    ('"exp" base_lr: 1 gamma: -0.1', "gamma -0.1 is negative"),
    ('"poly" base_lr: 1 power: 1', "needs max_iter"),
])
def test_refused(text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        rate(text)


def test_poly_ends_with_max_iter() -> None:
    with pytest.raises(SolverError, match="iteration 11 lies beyond max_iter 10"):
        rate('"poly" base_lr: 1 power: 1 max_iter: 10')(11)
