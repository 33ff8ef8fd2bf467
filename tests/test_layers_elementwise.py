"""Element-wise layers against scalar functions of Python, and the rules that Caffe has for each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make

from barista.errors import NetError
from barista.net import Net
from barista.ops.cpu import CpuOps

Array = npt.NDArray[np.float64]
Function = Callable[[float], float]

OPS = CpuOps(np.float64, 2)


def net_of(type_: str, param: str, shape: tuple[int, ...], top: str = "y", ops: CpuOps = OPS) -> Net:
    return make(inputs(x=shape) + layer(type_, "x", top, param), ops)


def run(net: Net, x: Array, dy: Array, top: str = "y") -> tuple[Array, Array]:
    """y and dx."""
    net.blobs["x"].data[...] = x
    net.forward_pass()
    y = net.blobs[top].data.copy()
    net.blobs[top].diff[...] = dy
    net.backward_pass()
    return y, net.blobs["x"].diff.copy()


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Type and parameters to the function and its derivative; `positive` where it is defined for positive numbers alone.
FUNCTIONS: dict[str, tuple[str, str, Function, Function, bool]] = {
    "absval": ("AbsVal", "", abs, lambda x: float(np.sign(x)), False),
    "bnll": ("BNLL", "", lambda x: math.log(1 + math.exp(x)), logistic, False),
    "clip": ("Clip", "clip_param { min: -1 max: 2 }", lambda x: min(max(x, -1), 2), lambda x: -1 <= x <= 2, False),
    "clip_nothing": ("Clip", "clip_param { min: 3 max: 1 }", lambda x: 3, lambda x: 0, False),
    "exp": ("Exp", "", math.exp, math.exp, False),
    "exp_base": ("Exp", "exp_param { base: 0.5 scale: 3 shift: -2 }", lambda x: 0.5 ** (3 * x - 2),
                 lambda x: 3 * math.log(0.5) * 0.5 ** (3 * x - 2), False),
    "exp_one": ("Exp", "exp_param { base: 1 }", lambda x: 1, lambda x: 0, False),
    "log": ("Log", "", math.log, lambda x: 1 / x, True),
    "log_base": ("Log", "log_param { base: 10 scale: 4 shift: 0.5 }", lambda x: math.log10(4 * x + 0.5),
                 lambda x: 4 / (4 * x + 0.5) / math.log(10), True),
    "power": ("Power", "", lambda x: x, lambda x: 1, False),
    "power_affine": ("Power", "power_param { scale: -2 shift: 1 }", lambda x: 1 - 2 * x, lambda x: -2, False),
    "power_two": ("Power", "power_param { power: 2 scale: 3 shift: -1 }", lambda x: (3 * x - 1) ** 2,
                  lambda x: 6 * (3 * x - 1), False),
    "power_three": ("Power", "power_param { power: 3 scale: 0.5 }", lambda x: (x / 2) ** 3,
                    lambda x: 1.5 * (x / 2) ** 2, False),
    "power_minus": ("Power", "power_param { power: -1 shift: 4 }", lambda x: 1 / (x + 4), lambda x: -1 / (x + 4) ** 2,
                    True),
    "power_zero": ("Power", "power_param { power: 0 scale: 5 }", lambda x: 1, lambda x: 0, False),
    "power_constant": ("Power", "power_param { power: 3 scale: 0 shift: -2 }", lambda x: -8, lambda x: 0, False),
    "swish": ("Swish", "swish_param { beta: 2 }", lambda x: x * logistic(2 * x),
              lambda x: logistic(2 * x) * (1 + 2 * x * (1 - logistic(2 * x))), False),
    "swish_zero": ("Swish", "swish_param { beta: 0 }", lambda x: x / 2, lambda x: 0.5, False),
    "relu6": ("ReLU6", "", lambda x: min(max(x, 0), 6), lambda x: 0 < x < 6, False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=8, derandomize=True, deadline=None, database=None)
@given(shape=st.lists(st.integers(1, 4), max_size=5).map(tuple), seed=st.integers(0, 999))
def test_function(name: str, shape: tuple[int, ...], seed: int) -> None:
    type_, param, function, slope, positive = FUNCTIONS[name]
    rng = np.random.default_rng(seed)
    # Halves among them hit the ends of the ranges and 0.
    x = rng.integers(-16, 17, shape) / 2 + rng.choice([0.0, 0.1234], shape)
    x = np.abs(x) + 0.25 if positive else x
    dy = rng.uniform(-1, 1, shape)
    y, dx = run(net_of(type_, param, shape), x, dy)
    np.testing.assert_allclose(y, np.vectorize(function, otypes=[np.float64])(x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx, dy * np.vectorize(slope, otypes=[np.float64])(x), rtol=1e-12, atol=1e-14)


def test_threshold_is_strict_and_has_no_gradient() -> None:
    net = make(inputs(x=(4,)) + layer("Threshold", more="threshold_param { threshold: 0.5 }"), OPS, head="")
    net.blobs["x"].data[...] = [-1, 0.5, 0.500001, 3]
    net.forward_pass()
    assert net.blobs["y"].data.tolist() == [0, 0, 1, 1]
    with pytest.raises(NetError, match=r"layer \(Threshold\): has no gradient; set propagate_down: false"):
        run(net_of("Threshold", "", (4,)), np.zeros(4), np.ones(4))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_shape_between_passes(name: str) -> None:
    type_, param, function, _, _ = FUNCTIONS[name]
    net = net_of(type_, param, (2, 3))
    for shape in ((2, 3), (5, 1, 4), (1,)):
        x = np.linspace(0.5, 7, math.prod(shape)).reshape(shape)
        net.blobs["x"].reshape(*shape)
        y, dx = run_reshaped(net, x)
        assert y.shape == dx.shape == shape
        np.testing.assert_allclose(y, np.vectorize(function, otypes=[np.float64])(x), rtol=1e-12)


def run_reshaped(net: Net, x: Array) -> tuple[Array, Array]:
    net.reshape()
    return run(net, x, np.ones(x.shape))


def test_large_numbers_neither_overflow_nor_vanish(cpu: CpuOps) -> None:
    """In float32, where exp(89) is beyond the largest number."""
    x = np.array([-1000, -100, -89, 0, 89, 100, 1000.0])
    with np.errstate(all="raise", under="ignore"):
        for type_, expected, slope in (
                ("BNLL", np.maximum(x, 0) + (x == 0) * math.log(2), (x > 0) + (x == 0) / 2),
                ("Swish", np.maximum(x, 0), (x > 0) + (x == 0) / 2)):
            y, dx = run(net_of(type_, "", (7,), ops=cpu), x, np.ones(7))
            np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(dx, slope, rtol=1e-6, atol=1e-6)


# ---- Power at its edges -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_power_of_negative_numbers() -> None:
    x = np.array([-2.0, -1.0, 0.0, 4.0])
    y, _ = run(net_of("Power", "power_param { power: 3 }", (4,)), x, np.ones(4))
    np.testing.assert_array_equal(y, [-8, -1, 0, 64])
    y, dx = run(net_of("Power", "power_param { power: 0.5 }", (4,)), x, np.ones(4))
    np.testing.assert_array_equal(y, [np.nan, np.nan, 0, 2])
    np.testing.assert_array_equal(dx, [np.nan, np.nan, np.inf, 0.25])


def test_power_has_its_derivative_at_zero() -> None:
    _, dx = run(net_of("Power", "power_param { power: 3 }", (2,)), np.zeros(2), np.ones(2))
    np.testing.assert_array_equal(dx, [0, 0])


@pytest.mark.parametrize(("param", "constant"), [
    ("power: 0", 1), ("power: 0 scale: 0", 1), ("power: 2 scale: 0 shift: -3", 9), ("power: 2 scale: 0", 0),
    ("power: -1 scale: 0", np.inf), ("power: 0.5 scale: 0 shift: -1", np.nan)])
def test_power_without_x_is_a_constant(param: str, constant: float) -> None:
    """Whatever stands in x: infinite numbers and NaN too."""
    y, dx = run(net_of("Power", f"power_param {{ {param} }}", (3,)), np.array([1, np.inf, np.nan]), np.ones(3))
    np.testing.assert_array_equal(y, [constant] * 3)
    np.testing.assert_array_equal(dx, [0] * 3)


# ---- in place ---------------------------------------------------------------------------------------------


def in_place(type_: str, param: str, x: Array) -> tuple[Array, Array]:
    """y and dx of a layer in place on a copy of x."""
    net = make(inputs(x=x.shape) + layer("Power", "x", "h", name="copy") + layer(type_, "h", "h", param), OPS)
    return run(net, x, np.ones(x.shape), "h")


def test_in_place_gradients_of_caffe() -> None:
    """They are taken at y where the layer keeps no copy."""
    x = np.array([-2.0, 0.5, 3.0])
    y, dx = in_place("Clip", "clip_param { min: -1 max: 1 }", x)
    assert y.tolist() == [-1, 0.5, 1]
    assert dx.tolist() == [1, 1, 1]
    y, dx = in_place("BNLL", "", x)
    np.testing.assert_allclose(y, np.log1p(np.exp(x)), rtol=1e-13)
    np.testing.assert_allclose(dx, 1 / (1 + np.exp(-y)), rtol=1e-13)
    y, _ = run(make(inputs(x=(3,)) + layer("Threshold", "x", "x"), OPS, head=""), x, np.ones(3), "x")
    assert y.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["log_base", "power_three", "swish", "exp_base", "relu6"])
def test_in_place_gradients_that_are_kept_right(name: str) -> None:
    type_, param, function, slope, _ = FUNCTIONS[name]
    x = np.array([0.5, 2.0, 7.0])
    y, dx = in_place(type_, param, x)
    np.testing.assert_allclose(y, [function(value) for value in x], rtol=1e-13)
    np.testing.assert_allclose(dx, [float(slope(value)) for value in x], rtol=1e-13)


# ---- wrong arguments --------------------------------------------------------------------------------------

WRONG = {
    "absval_in_place": ("AbsVal", "", "x", "layer (AbsVal): cannot work in place, since |x| does not tell the sign of "
                        "x; give the top a name of its own"),
    "clip": ("Clip", "", "y", "layer (Clip): needs both ends of its range; write clip_param { min: ... max: ... }"),
    "exp_zero": ("Exp", "exp_param { base: 0 }", "y",
                 "layer (Exp): base=0 must be a finite number above 0, or -1 for e"),
    "exp_negative": ("Exp", "exp_param { base: -2 }", "y", "base=-2 must be a finite number above 0"),
    "exp_infinite": ("Exp", "exp_param { base: inf }", "y", "base=inf must be a finite number above 0"),
    "exp_nan": ("Exp", "exp_param { base: nan }", "y", "base=nan must be a finite number above 0"),
    "log_negative": ("Log", "log_param { base: -0.5 }", "y", "layer (Log): base=-0.5 must be a finite number above 0"),
    "log_one": ("Log", "log_param { base: 1 }", "y",
                "layer (Log): base=1 has no logarithms; give another base above 0, or -1 for e"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    type_, param, top, message = WRONG[name]
    with pytest.raises(NetError) as error:
        net_of(type_, param, (2, 3), top)
    assert message in str(error.value)
