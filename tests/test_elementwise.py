"""Element-wise programs: over groups of tensors, on long and odd counts, how exact their functions are, and the update
of parameters that is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from opencl_device import open_opencl
from tensors import blank, got, numbers, put
from tolerances import assert_close

from barista.blob import HOST, Blob, Tensor
from barista.net import Learnable
from barista.ops.base import OpSet
from barista.ops.opencl.elementwise import LANES, RUN
from barista.proto.caffe_pb2 import SolverParameter
from barista.solvers.rules import RULES
from barista.solvers.update import Update

Array = npt.NDArray[Any]

SGD = "g = g + decay * w\nh = momentum * h + rate * g\ng = h\nw = w - g"
SCALARS = {"momentum": 0.9, "rate": 0.1, "decay": 0.01}


def sets_of(ops: OpSet, counts: list[int]) -> tuple[list[dict[str, Tensor]], list[dict[str, Array]]]:
    arrays = [{name: numbers((count,), 3 * index + number) for number, name in enumerate("wgh")}
              for index, count in enumerate(counts)]
    return [{name: put(ops, array) for name, array in each.items()} for each in arrays], arrays


def sgd(w: Array, g: Array, h: Array) -> dict[str, Array]:
    h = 0.9 * h.astype(np.float64) + 0.1 * (g + 0.01 * w.astype(np.float64))
    return {"w": w - h, "g": h, "h": h}


def hold(tensors: list[dict[str, Tensor]], expected: list[dict[str, Array]]) -> None:
    for actual, truth in zip(tensors, expected, strict=True):
        for name, values in truth.items():
            assert_close(got(actual[name]), values, 4, 1.0)


# ---- groups ---------------------------------------------------------------------------------

@pytest.mark.parametrize("counts", [
    [], [0], [1], [5, 0, 1], [RUN - 1, RUN, RUN + 1, 2 * RUN + 7], [LANES, LANES + 1], list(range(150)),
    [300_001, 3, 262_144], [0] * 70 + [2]], ids=lambda counts: f"{len(counts)} sets of {sum(counts)}")
def test_group(ops: OpSet, counts: list[int]) -> None:
    tensors, arrays = sets_of(ops, counts)
    group = ops.elementwise_group(SGD, ("w", "g", "h", "unused"), counts)
    group.run(tensors, **SCALARS)
    first = [sgd(**each) for each in arrays]
    hold(tensors, first)
    group.run(tensors, **SCALARS)
    hold(tensors, [sgd(**each) for each in first])


def test_group_with_other_scalars_and_other_tensors(ops: OpSet) -> None:
    group = ops.elementwise_group("y = s * x", ("x", "y"), [3, 2])
    for s in (2.0, -1.0):
        sets = [{"x": put(ops, [1, 2, 3]), "y": blank(ops, (3,))}, {"x": put(ops, [[4], [5]]), "y": blank(ops, (2, 1))}]
        group.run(sets, s=s)
        np.testing.assert_array_equal(got(sets[0]["y"]), [s, 2 * s, 3 * s])
        np.testing.assert_array_equal(got(sets[1]["y"]), [[4 * s], [5 * s]])


def test_group_reads_what_was_cleared_as_zeros(ops: OpSet) -> None:
    tensors, arrays = sets_of(ops, [4, 9])
    ops.elementwise_group("g = g + 1", ("g",), [4, 9]).run(tensors)
    tensors[1]["g"].clear()
    ops.elementwise_group("w = w - g", ("w", "g"), [4, 9]).run(tensors)
    hold(tensors, [{"w": arrays[0]["w"] - arrays[0]["g"] - 1.0}, {"w": arrays[1]["w"]}])


@pytest.mark.parametrize("source", ["y = where(x > 0, exp(x), x * tanh(x))", "y = pow(abs(x), 0.5) + max(x, 0.25)"])
def test_in_place(ops: OpSet, source: str) -> None:
    """One tensor under two names, and two tensors on one memory."""
    for count in (7, 2 * RUN + 3):
        x = numbers((count,), 1)
        apart, same, below = blank(ops, (count,)), put(ops, x), put(ops, x)
        above = Tensor((count,), ops.dtype)
        above.share(below)
        program = ops.elementwise(source, ("x", "y"), count)
        for source_, target in ((put(ops, x), apart), (same, same), (below, above)):
            program.run({"x": source_, "y": target})
            np.testing.assert_array_equal(got(target), got(apart))


def test_statements_see_what_earlier_ones_wrote(ops: OpSet) -> None:
    x = numbers((2 * RUN + 1,), 1)
    tensors = {"x": put(ops, x), "y": blank(ops, x.shape)}
    ops.elementwise("y = 2 * x\nx = x + y\ny = y - x", ("x", "y"), x.size).run(tensors)
    np.testing.assert_array_equal(got(tensors["x"]), 3 * x)
    np.testing.assert_array_equal(got(tensors["y"]), 2 * x - 3 * x)


@pytest.mark.opencl
def test_as_on_devices_that_are_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = open_opencl()
    monkeypatch.setattr(ops.context, "is_cpu", False)
    counts = [1, LANES - 1, LANES, LANES + 1, 0, 5 * LANES + 3]
    tensors, arrays = sets_of(ops, counts)
    ops.elementwise_group(SGD, ("w", "g", "h"), counts).run(tensors, **SCALARS)
    hold(tensors, [sgd(**each) for each in arrays])
    x = numbers((1001,), 1)
    y = blank(ops, x.shape)
    ops.elementwise("y = exp(x) + tanh(x) * pow(abs(x), 0.5)", ("x", "y"), 1001).run({"x": put(ops, x), "y": y})
    d = x.astype(np.float64)
    assert_close(got(y), np.exp(d) + np.tanh(d) * np.abs(d)**0.5, 4)


# ---- functions ------------------------------------------------------------------------------

SPECIAL = np.array([0, np.inf, np.nan, 1, 2, 3, 0.5, 1e-45, 1e-40, 1.1754944e-38, 3.4028235e38, 88.72283, 88.73, 103.9,
                    104.1, 150, 0.625, 9.5, 16777215, 16777216, 2147483648, 1e20], np.float32)
SPECIAL = np.concatenate([SPECIAL, -SPECIAL])
# Function, the same in float64, ulp at most, and from where to where it is looked at most closely.
FUNCTIONS: list[tuple[str, Callable[[Array], Array], float, tuple[float, float]]] = [
    ("exp", np.exp, 2, (-105, 90)), ("log", np.log, 2, (0.3, 3)), ("tanh", np.tanh, 2, (-10, 10)),
    ("sqrt", np.sqrt, 0.5, (0, 10)), ("floor", np.floor, 0, (-5, 5)),
    ("erf", np.vectorize(math.erf, otypes=[np.float64]), 16, (-4, 4))]


def hold_to_ulps(actual: Array, truth: Array, ulps: float) -> None:
    """Errors in units of the last place of float32; what is not finite must be the same."""
    with np.errstate(over="ignore"):
        nearest = truth.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(nearest))
    finite = np.isfinite(nearest) & np.isfinite(actual)
    np.testing.assert_array_equal(actual[~finite], nearest[~finite])
    unit = np.spacing(np.abs(nearest[finite])).astype(np.float64)
    assert np.max(np.abs(actual[finite] - truth[finite]) / unit) <= ulps
    signed = ~np.isnan(actual)
    np.testing.assert_array_equal(np.signbit(actual[signed]), np.signbit(nearest[signed]))


def floats(low: float, high: float, rng: np.random.Generator) -> Array:
    """Numbers of all magnitudes, more of them between `low` and `high`, and the special ones."""
    anywhere = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    return np.concatenate([rng.uniform(low, high, 200_000).astype(np.float32), anywhere, SPECIAL])


@pytest.mark.opencl
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "truth", "ulps", "interval"), FUNCTIONS, ids=[row[0] for row in FUNCTIONS])
def test_exactness(name: str, truth: Callable[[Array], Array], ulps: float, interval: tuple[float, float]) -> None:
    ops = open_opencl()
    x = floats(*interval, np.random.default_rng(1))
    y = blank(ops, x.shape)
    ops.elementwise(f"y = {name}(x)", ("x", "y"), x.size).run({"x": put(ops, x), "y": y})
    hold_to_ulps(got(y), truth(x.astype(np.float64)), ulps)


@pytest.mark.opencl
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_exactness_of_powers() -> None:
    ops = open_opencl()
    rng = np.random.default_rng(1)
    x = np.concatenate([floats(0, 3, rng), np.repeat(SPECIAL, SPECIAL.size), rng.integers(-9, 9, 9999)])
    y = np.concatenate([floats(-90, 90, rng), np.tile(SPECIAL, SPECIAL.size), rng.integers(-30, 30, 9999)])
    x, y = x.astype(np.float32), y.astype(np.float32)
    z = blank(ops, x.shape)
    ops.elementwise("z = pow(x, y)", ("x", "y", "z"), x.size).run({"x": put(ops, x), "y": put(ops, y), "z": z})
    hold_to_ulps(got(z), np.power(x.astype(np.float64), y.astype(np.float64)), 1)


# ---- sums -----------------------------------------------------------------------------------

def test_sums_over_several_tensors(ops: OpSet) -> None:
    arrays = [numbers((count,), count) for count in (1, 70_001, 12, 3)]
    tensors = [*(put(ops, array) for array in arrays), Tensor((5,), ops.dtype), Tensor((0,), ops.dtype)]
    tensors[2].clear()
    whole = np.concatenate([arrays[0], arrays[1], arrays[3]]).astype(np.float64)
    for _ in range(2):
        assert ops.sum_squares(tensors) == pytest.approx(float((whole**2).sum()), rel=1e-5)
        assert ops.sum_absolute(tensors) == pytest.approx(float(np.abs(whole).sum()), rel=1e-5)
        tensors.append(put(ops, np.zeros(2000)))
    assert ops.sum_squares([]) == ops.sum_squares([Tensor((3,), ops.dtype)]) == 0


# ---- the update of parameters ---------------------------------------------------------------

MULTIPLIERS = [(1, 1), (2, 0), (1, 1), (0, 1), (0, 0), (0.5, 2)]


def step(ops: OpSet, type_: str, zeros: set[int], write_zeros: bool, **fields: Any) -> list[Array]:
    """Parameters, gradients and history after three updates; gradients in `zeros` are cleared, or written as zeros."""
    momentum = {} if type_ in ("AdaGrad", "RMSProp") else {"momentum": 0.9}
    param = SolverParameter(type=type_, weight_decay=0.01, delta=1e-3, rms_decay=0.9, **momentum, **fields)
    learnable = []
    for index, (lr_mult, decay_mult) in enumerate(MULTIPLIERS):
        blob = Blob((index + 3,))
        blob.data[...] = numbers(blob.shape, index)
        learnable.append(Learnable(blob, f"p[{index}]", lr_mult, decay_mult))
    update = Update(learnable, param, ops)
    for iteration in range(3):
        for index, item in enumerate(learnable):
            if index in zeros and not write_zeros:
                item.blob.grad.clear()
            elif index in zeros:
                item.blob.grad.write(HOST)[...] = 0
            else:
                item.blob.grad.write(HOST)[...] = numbers(item.blob.shape, 50 * iteration + index)
        update.run(0.1, iteration)
    return [got(t) for item in learnable for t in (item.blob.value, item.blob.grad)] + [got(h) for h in update.history]


@pytest.mark.parametrize("fields", [{}, {"iter_size": 2, "regularization_type": "L1"}, {"clip_gradients": 1.0}],
                         ids=["plain", "L1 of two batches", "clipped"])
@pytest.mark.parametrize("type_", RULES)
def test_update_of_gradients_that_nobody_computed(ops: OpSet, cpu: OpSet, type_: str, fields: dict[str, Any]) -> None:
    """They are zeros, whether or not somebody wrote them."""
    without = step(ops, type_, {0, 3, 4}, write_zeros=False, **fields)
    with_zeros = step(cpu, type_, {0, 3, 4}, write_zeros=True, **fields)
    for actual, expected in zip(without, with_zeros, strict=True):
        assert_close(actual, expected, 64, 1.0)


def test_parameters_that_rest_are_left_alone(cpu: OpSet) -> None:
    blob = Blob((3,))
    blob.data[...] = [1, -2, 0]
    update = Update([Learnable(blob, "p[0]", 0, 1)], SolverParameter(type="SGD", momentum=0.9, weight_decay=0.1), cpu)
    update.run(0.1, 0)
    assert update.history[0].memory.is_zero
    np.testing.assert_array_equal(blob.data, [1, -2, 0])
    update.history[0].write(HOST)[...] = [1, 1, 1]
    update.run(0.1, 1)
    np.testing.assert_allclose(blob.data, [0.1, -2.9, -0.9], rtol=1e-6)
