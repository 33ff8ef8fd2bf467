"""Local response normalisation on OpenCL against the definition in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opencl_device import empty, host, numbers, open_opencl, tensor

from barista.ops.opencl import OpenCLOps

pytestmark = pytest.mark.opencl

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


def window_sums(a: Array, half: int, axes: tuple[int, ...]) -> Array:
    """Sums over what lies at most `half` away along each of the axes."""
    for axis in axes:
        n = a.shape[axis]
        near = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :]) <= half
        a = np.moveaxis(np.tensordot(near.astype(float), a, (1, axis)), 0, axis)
    return a


def check(ops: OpenCLOps, region: str, shape: tuple[int, int, int, int], size: int, alpha: float, beta: float, k: float,
          tolerance: float = 5e-6) -> None:
    rng = np.random.default_rng(3)
    x, dy = 3 * numbers(rng, *shape), numbers(rng, *shape)
    axes = (1,) if region == "across" else (2, 3)
    weight = alpha / size ** len(axes)
    scale = k + weight * window_sums(x * x, (size - 1) // 2, axes)
    y = x * scale ** -beta
    around = window_sums(dy * y / scale, (size - 1) // 2, axes)
    dx = dy * scale ** -beta - 2 * weight * beta * x * around
    lrn = (ops.lrn_across(shape, size, alpha, beta, k) if region == "across"
           else ops.lrn_within(shape, size, alpha, beta))
    assert lrn.space is ops.space
    dtype = ops.dtype
    tx, ty, tdx = tensor(x, dtype), empty(*shape, dtype=dtype), empty(*shape, dtype=dtype)
    lrn.forward(tx, ty)
    np.testing.assert_allclose(host(ty), y, rtol=tolerance, atol=tolerance)
    lrn.backward(tx, tensor(dy, dtype), tdx)
    np.testing.assert_allclose(host(tdx), dx, rtol=tolerance, atol=tolerance * max(1, float(np.abs(dx).max())))


CASES = {
    "one element": ("across", (1, 1, 1, 1), 3, 1.0, 0.75, 1.0),
    "AlexNet": ("across", (2, 16, 13, 13), 5, 1e-4, 0.75, 1.0),
    "columns in blocks": ("across", (1, 7, 31, 33), 5, 0.5, 0.75, 2.0),
    "window of one": ("across", (2, 3, 4, 5), 1, 1.0, 0.75, 1.0),
    "window wider than the channels": ("across", (2, 3, 4, 5), 9, 1.0, 0.75, 1.0),
    "any beta": ("across", (2, 6, 5, 5), 3, 0.7, 0.6, 1.5),
    "a quarter": ("across", (2, 6, 5, 5), 3, 0.7, 0.25, 1.5),
    "a half": ("across", (2, 6, 5, 5), 3, 0.7, 0.5, 1.5),
    "one": ("across", (2, 6, 5, 5), 3, 0.7, 1.0, 1.5),
    "two": ("across", (2, 6, 5, 5), 3, 0.7, 2.0, 1.5),
    "CIFAR-10": ("within", (2, 8, 16, 16), 3, 5e-5, 0.75, 1.0),
    "wide window": ("within", (1, 2, 6, 7), 5, 2.0, 0.75, 1.0),
    "window wider than the plane": ("within", (2, 2, 3, 2), 7, 2.0, 0.75, 1.0),
    "plane in blocks": ("within", (1, 1, 5, 700), 5, 2.0, 0.75, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_lrn(ops: OpenCLOps, case: str) -> None:
    check(ops, *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_lrn_in_float64(case: str) -> None:
    check(open_opencl(np.float64), *CASES[case], tolerance=1e-13)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(*(st.integers(1, n) for n in (3, 9, 12, 40))), half=st.integers(0, 4),
       region=st.sampled_from(["across", "within"]))
def test_lrn_of_any_shape(ops: OpenCLOps, shape: tuple[int, int, int, int], half: int, region: str) -> None:
    check(ops, region, shape, 2 * half + 1, 1.0, 0.75, 1.0)


def test_lrn_lets_nan_through_where_its_window_is(ops: OpenCLOps) -> None:
    x = np.ones((1, 5, 1, 1))
    x[0, 1] = np.nan
    y = empty(1, 5, 1, 1)
    ops.lrn_across((1, 5, 1, 1), 3, 1.0, 0.75, 1.0).forward(tensor(x), y)
    np.testing.assert_array_equal(np.isnan(host(y)).ravel(), [True, True, True, False, False])


def test_lrn_of_nothing(ops: OpenCLOps) -> None:
    y = empty(0, 3, 2, 2)
    ops.lrn_across((0, 3, 2, 2), 3, 1.0, 0.75, 1.0).forward(empty(0, 3, 2, 2), y)
    assert host(y).shape == (0, 3, 2, 2)
