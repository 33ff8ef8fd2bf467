"""Pooling of any geometry on OpenCL against the host op set."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from opencl_device import empty, host, numbers, open_opencl, tensor

from barista.blob import HOST
from barista.layers.pooling import pooled_size
from barista.ops.base import PoolingGeometry
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps
from barista.ops.opencl.device import kernel_source
from barista.ops.opencl.pooling import macros

pytestmark = pytest.mark.opencl


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


@st.composite
def geometries(draw: st.DrawFn) -> PoolingGeometry:
    """Geometries that the layer lets through."""
    size, kernel, stride, pad = [], [], [], []
    for most in (12, 40):
        size.append(draw(st.integers(1, most)))
        kernel.append(draw(st.integers(1, 6)))
        stride.append(draw(st.integers(1, 5)))
        pad.append(draw(st.integers(0, kernel[-1] - 1)))
    ceil = draw(st.booleans())
    output = [pooled_size(*axis, ceil, any(pad)) for axis in zip(size, kernel, stride, pad, strict=True)]
    for i, s, p, o in zip(size, stride, pad, output, strict=True):
        assume(o >= 1 and (o - 1) * s - p < i)
    pairs = [(pair[0], pair[1]) for pair in (size, kernel, stride, pad, output)]
    return PoolingGeometry(draw(st.integers(1, 3)), draw(st.integers(1, 30)), *pairs)


def check(ops: OpenCLOps, g: PoolingGeometry, kind: str, tolerance: float = 3e-6) -> None:
    """Both passes, with ties, against the host's."""
    rng = np.random.default_rng(5)
    x, dy = np.round(2 * numbers(rng, *g.x_shape)), numbers(rng, *g.y_shape)
    found = []
    for op_set in (ops, CpuOps(np.float64)):
        pooling, dtype = getattr(op_set, f"{kind}_pooling")(g), op_set.dtype
        y, mask, dx = empty(*g.y_shape, dtype=dtype), empty(*g.y_shape, dtype=dtype), empty(*g.x_shape, dtype=dtype)
        pooling.forward(tensor(x, dtype), y, mask if kind == "max" else None)
        pooling.backward(tensor(dy, dtype), dx)
        found.append((host(y), host(mask), host(dx)))
    for actual, expected in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["max", "average"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries())
def test_any_geometry(ops: OpenCLOps, geometry: PoolingGeometry, kind: str) -> None:
    check(ops, geometry, kind)


WHOLE = {
    "as GoogLeNet's last": PoolingGeometry(2, 70, (7, 7), (7, 7), (1, 1), (0, 0), (1, 1)),
    "many taps": PoolingGeometry(1, 3, (17, 19), (17, 19), (1, 1), (0, 0), (1, 1)),
    "a row": PoolingGeometry(2, 3, (1, 300), (1, 300), (1, 1), (0, 0), (1, 1)),
    "a column": PoolingGeometry(2, 3, (300, 1), (300, 1), (1, 1), (0, 0), (1, 1)),
    "wide strides": PoolingGeometry(1, 2, (40, 40), (9, 11), (12, 13), (0, 0), (3, 3)),
}


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("case", WHOLE)
def test_large_windows(ops: OpenCLOps, case: str, kind: str) -> None:
    check(ops, WHOLE[case], kind)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("columns", "hosted"), [(16_000, False), (17_000, True)])
def test_very_wide_planes_run_on_the_host(ops: OpenCLOps, kind: str, columns: int, hosted: bool) -> None:
    g = PoolingGeometry(1, 1, (2, columns), (2, 2), (2, 2), (0, 0), (1, columns // 2))
    assert (getattr(ops, f"{kind}_pooling")(g).space is HOST) == hosted
    check(ops, g, kind)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_float64(kind: str) -> None:
    check(open_opencl(np.float64), PoolingGeometry(2, 5, (11, 14), (3, 4), (2, 3), (1, 2), (6, 5)), kind, 1e-14)


@pytest.mark.parametrize("place", range(0, 33, 4))
def test_nan_and_infinities(ops: OpenCLOps, place: int) -> None:
    """NaN comes through, and among elements that are all -inf the first has the gradient."""
    g = PoolingGeometry(1, 1, (1, 33), (1, 3), (1, 2), (0, 0), (1, 16))
    x = np.full((1, 33), -np.inf)
    x[0, place] = np.nan
    pooling, y, mask = ops.max_pooling(g), empty(1, 16), empty(1, 16)
    pooling.forward(tensor(x), y, mask)
    starts = 2 * np.arange(16)
    seen = (starts <= place) & (place < starts + 3)
    np.testing.assert_array_equal(host(y)[0], np.where(seen, np.nan, -np.inf))
    np.testing.assert_array_equal(host(mask)[0], np.where(seen, place, starts))


@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_of_nothing(ops: OpenCLOps, kind: str) -> None:
    check(ops, PoolingGeometry(0, 3, (4, 4), (2, 2), (2, 2), (0, 0), (2, 2)), kind)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 0), (5, 3, 1), (7, 7, 0), (2, 1, 0)])
def test_the_compiler_has_nothing_to_say(ops: OpenCLOps, caplog: pytest.LogCaptureFixture, kernel: int, stride: int,
                                         pad: int) -> None:
    """Of a warning PoCL tells the user, too, who can do nothing."""
    output = pooled_size(16, kernel, stride, pad, True, bool(pad))
    geometry = PoolingGeometry(1, 1, (16, 16), (kernel, kernel), (stride, stride), (pad, pad), (output, output))
    new = f"// {uuid.uuid4()}\n"  # that no cache has
    with caplog.at_level("DEBUG", "barista.runtime.programs"):
        ops.context.programs.build("pooling.cl", new + kernel_source("pooling.cl"), macros(geometry, ops.dtype))
    assert "built pooling.cl" in caplog.text
    assert "the compiler says" not in caplog.text
