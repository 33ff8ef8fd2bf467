"""Vectors against tensors, batch normalisation and PReLU on an OpenCL device, against float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opencl_device import empty, host, numbers, open_opencl, tensor

from barista.blob import Tensor
from barista.ops.base import AxisGeometry
from barista.ops.opencl import OpenCLOps
from barista.ops.opencl.broadcast import COLUMNS, SUM_BLOCK, SUM_PIECE, VECTOR

pytestmark = pytest.mark.opencl

Array = npt.NDArray[np.float64]
Axes = tuple[int, int, int]

# Whole and broken vectors, strips, blocks, pieces; long rows, many short ones; one element of the axis.
AXES: list[Axes] = [(1, 1, 1), (3, 5, 1), (2, 3, 7), (4, 2, VECTOR), (3, 4, 2 * VECTOR + 5), (1, 1, 1000), (1, 9, 1),
                    (SUM_BLOCK + 1, VECTOR + 3, 1), (2, COLUMNS + 1, 1), (2, 2, SUM_PIECE + 1), (1, 2, 3 * SUM_PIECE),
                    (700, 20, 2), (SUM_PIECE + 3, 1, 1), (3, 1, SUM_PIECE)]


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def ops(request: pytest.FixtureRequest) -> OpenCLOps:
    return open_opencl(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def close(actual: Tensor, expected: npt.ArrayLike, scale: float = 1.0) -> None:
    """Compare with an error bound relative to the size of what was summed."""
    tolerance = 50 * float(np.finfo(actual.dtype).eps)
    np.testing.assert_allclose(host(actual).reshape(-1), np.asarray(expected, np.float64).reshape(-1),
                               rtol=tolerance, atol=tolerance * max(scale, 1e-30))


# ---- vectors against tensors ----------------------------------------------------------------


@pytest.mark.parametrize("shape", AXES)
def test_broadcast(ops: OpenCLOps, rng: np.random.Generator, shape: Axes) -> None:
    x, v, bias = numbers(rng, *shape), numbers(rng, shape[1]), numbers(rng, shape[1])
    column, kind = v[:, None], ops.dtype
    primitive = ops.broadcast(AxisGeometry(*shape))
    y, saved, in_place = empty(*shape, dtype=kind), empty(*shape, dtype=kind), tensor(x, kind)
    primitive.add(tensor(x, kind), tensor(v, kind), y)
    close(y, x + column)
    for shift in (None, bias):
        expected = x * column + (0 if shift is None else bias[:, None])
        operand = None if shift is None else tensor(bias, kind)
        primitive.multiply(tensor(x, kind), tensor(v, kind), y, operand)
        close(y, expected, 2)
        in_place = tensor(x, kind)
        primitive.multiply(in_place, tensor(v, kind), in_place, operand, saved)
        close(in_place, expected, 2)
        np.testing.assert_array_equal(host(saved), x)


@pytest.mark.parametrize("shape", AXES)
def test_broadcast_gradients(ops: OpenCLOps, rng: np.random.Generator, shape: Axes) -> None:
    x, dy = numbers(rng, *shape), numbers(rng, *shape)
    v, before = numbers(rng, shape[1]), numbers(rng, shape[1])
    primitive, kind, scale = ops.broadcast(AxisGeometry(*shape)), ops.dtype, math.sqrt(shape[0] * shape[2])
    sums, dots = dy.sum((0, 2)), (dy * x).sum((0, 2))
    for cleared in (False, True):
        start = np.zeros(shape[1]) if cleared else before
        results = [tensor(before, kind) for _ in range(3)]
        for result in results:
            if cleared:
                result.clear()
        in_place = tensor(dy, kind)
        primitive.gradients(in_place, tensor(x, kind), tensor(v, kind), in_place, results[0], results[1])
        primitive.sum(tensor(dy, kind), results[2])
        close(in_place, dy * v[:, None])
        for result, expected in zip(results, (dots, sums, sums), strict=True):
            close(result, start + expected, scale)


def test_what_is_not_asked_for_stays(ops: OpenCLOps, rng: np.random.Generator) -> None:
    shape, kind = (3, 4, 5), ops.dtype
    x, dy, v = numbers(rng, *shape), numbers(rng, *shape), numbers(rng, 4)
    for wanted in itertools.product((False, True), repeat=3):
        given_ = [empty(*shape, dtype=kind), tensor(v, kind), tensor(v, kind)]
        ops.broadcast(AxisGeometry(*shape)).gradients(
            tensor(dy, kind), tensor(x, kind), tensor(v, kind),
            *(t if asked else None for t, asked in zip(given_, wanted, strict=True)))
        expected = [dy * v[:, None], v + (dy * x).sum((0, 2)), v + dy.sum((0, 2))]
        untouched = [np.full(shape, np.nan), v, v]
        for t, asked, new, old in zip(given_, wanted, expected, untouched, strict=True):
            close(t, new if asked else old, 4)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 3, 1), (0, 1, 1)])
def test_nothing_to_sum_gives_zeros(ops: OpenCLOps, shape: Axes) -> None:
    kind = ops.dtype
    t, v = Tensor(shape, kind), tensor(np.ones(shape[1]), kind)
    primitive, norm = ops.broadcast(AxisGeometry(*shape)), ops.batch_norm(AxisGeometry(*shape), 1e-5)
    primitive.multiply(t, v, t, v)
    results = [empty(shape[1], dtype=kind) for _ in range(3)]
    for result in results:
        result.clear()
    primitive.gradients(t, t, v, t, results[0], results[1])
    primitive.sum(t, results[2])
    mean, variance = empty(shape[1], dtype=kind), empty(shape[1], dtype=kind)
    norm.forward_train(t, mean, variance, t)
    norm.backward_train(t, t)
    for result in (*results, mean, variance):
        np.testing.assert_array_equal(host(result), np.zeros(shape[1]))


# ---- batch normalisation --------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("shape", [shape for shape in AXES if shape[0] * shape[2] > 4])
def test_batch_norm(ops: OpenCLOps, rng: np.random.Generator, shape: Axes, offset: float, in_place: bool) -> None:
    """The variance is exact to rounding of x where the mean is a thousand times the deviation."""
    x, dy, kind = (numbers(rng, *shape) + offset).astype(ops.dtype), numbers(rng, *shape), ops.dtype
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 2)), exact.var((0, 2))
    deviation = np.sqrt(variance + 1e-3)[:, None]
    normal = (exact - mean[:, None]) / deviation
    dx = (dy - dy.mean((0, 2))[:, None] - normal * (dy * normal).mean((0, 2))[:, None]) / deviation
    primitive = ops.batch_norm(AxisGeometry(*shape), 1e-3)
    source, gradient = tensor(x, kind), tensor(dy, kind)
    y, slope = (source, gradient) if in_place else (empty(*shape, dtype=kind), empty(*shape, dtype=kind))
    found_mean, found_variance = empty(shape[1], dtype=kind), empty(shape[1], dtype=kind)
    primitive.forward_train(source, found_mean, found_variance, y)
    close(found_mean, mean, 1 + offset / 100)
    close(found_variance, variance, 1 + offset / 100)
    close(y, normal, 1 + offset / 10)
    if in_place:
        source.write(ops.space)  # the next layer may overwrite it
    primitive.backward_train(gradient, slope)
    close(slope, dx, (1 + offset / 10) * float(np.abs(dx).max()))


@pytest.mark.parametrize("shape", AXES)
def test_batch_norm_with_given_statistics(ops: OpenCLOps, rng: np.random.Generator, shape: Axes) -> None:
    x, dy, mean, kind = numbers(rng, *shape), numbers(rng, *shape), numbers(rng, shape[1]), ops.dtype
    variance = np.abs(numbers(rng, shape[1])) + 0.1
    deviation = np.sqrt(variance + 1e-5)[:, None]
    primitive = ops.batch_norm(AxisGeometry(*shape), 1e-5)
    y, dx = tensor(x, kind), tensor(dy, kind)
    primitive.forward_test(y, tensor(mean, kind), tensor(variance, kind), y)
    primitive.backward_test(dx, dx)
    close(y, (x - mean[:, None]) / deviation, 4)
    close(dx, dy / deviation, 4)


def test_nan_stays_in_its_channel(ops: OpenCLOps, rng: np.random.Generator) -> None:
    x = numbers(rng, 4, 3, 40)
    x[1, 1, 7] = math.nan
    y = empty(4, 3, 40, dtype=ops.dtype)
    mean, variance = empty(3, dtype=ops.dtype), empty(3, dtype=ops.dtype)
    ops.batch_norm(AxisGeometry(4, 3, 40), 1e-5).forward_train(tensor(x, ops.dtype), mean, variance, y)
    for t in (mean, variance):
        np.testing.assert_array_equal(np.isnan(host(t)), [False, True, False])
    np.testing.assert_array_equal(np.isnan(host(y)).any((0, 2)), [False, True, False])


# ---- PReLU ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", AXES)
def test_prelu(ops: OpenCLOps, rng: np.random.Generator, shape: Axes) -> None:
    x, dy, kind = numbers(rng, *shape), numbers(rng, *shape), ops.dtype
    slope, before = numbers(rng, shape[1]), numbers(rng, shape[1])
    primitive = ops.prelu(AxisGeometry(*shape))
    y, dx = tensor(x, kind), tensor(dy, kind)
    primitive.grad_input(y, tensor(slope, kind), dx, dx)
    close(dx, np.where(x > 0, dy, slope[:, None] * dy))
    expected = (dy * np.minimum(x, 0)).sum((0, 2))
    dslope = tensor(before, kind)
    for start in (before, 0):
        primitive.grad_slope(y, tensor(dy, kind), dslope)
        close(dslope, start + expected, math.sqrt(shape[0] * shape[2]))
        dslope.clear()
    primitive.forward(y, tensor(slope, kind), y)
    close(y, np.where(x > 0, x, slope[:, None] * x))


def test_prelu_lets_nan_through(ops: OpenCLOps) -> None:
    x, y, kind = tensor([math.nan, 2.0], ops.dtype), empty(2, dtype=ops.dtype), ops.dtype
    primitive = ops.prelu(AxisGeometry(1, 2, 1))
    primitive.forward(x, tensor([0.5, 0.5], kind), y)
    np.testing.assert_array_equal(host(y), [math.nan, 2])
    dslope = tensor([1.0, 1.0], kind)
    primitive.grad_slope(x, tensor([1.0, 1.0], kind), dslope)
    np.testing.assert_array_equal(host(dslope), [math.nan, 1])


# ---- all of them ----------------------------------------------------------------------------


@settings(max_examples=60, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outer=st.integers(1, 6), axis=st.integers(1, 70), inner=st.integers(1, 90), seed=st.integers(0, 99))
def test_any_shape_gives_the_same_bits_twice(ops: OpenCLOps, outer: int, axis: int, inner: int, seed: int) -> None:
    shape, kind, random = (outer, axis, inner), ops.dtype, np.random.default_rng(seed)
    x, dy, v = numbers(random, *shape), numbers(random, *shape), numbers(random, axis)
    runs: list[list[Array]] = []
    for _ in range(2):
        dv, dbias, dslope, mean, variance = (tensor(v, kind) for _ in range(5))
        dx, y = tensor(dy, kind), empty(*shape, dtype=kind)
        source = tensor(x, kind)
        ops.broadcast(AxisGeometry(*shape)).gradients(dx, source, tensor(v, kind), dx, dv, dbias)
        ops.prelu(AxisGeometry(*shape)).grad_slope(source, tensor(dy, kind), dslope)
        norm = ops.batch_norm(AxisGeometry(*shape), 0.1)
        norm.forward_train(source, mean, variance, y)
        norm.backward_train(dx, dx)
        runs.append([host(t).copy() for t in (dv, dbias, dslope, mean, variance, y, dx)])
        scale = math.sqrt(outer * inner)
        for t, expected in ((dv, v + (dy * x).sum((0, 2))), (dbias, v + dy.sum((0, 2))), (mean, x.mean((0, 2))),
                            (dslope, v + (dy * np.minimum(x, 0)).sum((0, 2))), (variance, x.var((0, 2)))):
            close(t, expected, scale)
        close(y, (x - x.mean((0, 2))[:, None]) / np.sqrt(x.var((0, 2)) + 0.1)[:, None], 4)
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)
