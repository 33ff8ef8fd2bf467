"""Gradients of convolutions' weights by register tiles against NumPy in float64, however the work is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencl_device import numbers, open_opencl

from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.opencl import conv_grad_weight as family
from barista.ops.opencl.conv_pass import GradWeightPass
from barista.ops.opencl.device import Device
from barista.runtime.space import DeviceArray

pytestmark = pytest.mark.opencl

Array = npt.NDArray[np.float64]

# batch, input channels, output channels, input, kernel, stride, pad, dilation, group
CASES: dict[str, tuple[Any, ...]] = {
    "padded": (3, 13, 20, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "not padded, one channel": (5, 1, 20, (12, 11), (5, 5), (1, 1), (0, 0), (1, 1), 1),
    "padded rows only": (2, 3, 9, (7, 9), (3, 4), (1, 2), (2, 0), (1, 1), 1),
    "pointwise": (3, 31, 33, (5, 7), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise, stride": (2, 17, 16, (9, 8), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    "one pixel": (4, 3, 2, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "groups": (2, 12, 54, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    "one channel a group": (2, 3, 6, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 3),
    "unlike axes": (2, 5, 7, (11, 17), (2, 5), (3, 2), (1, 3), (2, 1), 1),
    "padding wider than the kernel": (2, 2, 3, (4, 5), (2, 2), (1, 1), (3, 4), (1, 1), 1),
    "weights that see padding alone": (2, 4, 8, (1, 2), (5, 5), (1, 1), (2, 2), (1, 1), 1),
    "large stride": (1, 3, 24, (43, 43), (11, 11), (4, 4), (0, 0), (1, 1), 1),
    "rows on the same places of the cache": (3, 16, 16, (32, 32), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "the same, stride and dilation": (2, 16, 8, (16, 64), (3, 2), (2, 1), (2, 0), (2, 3), 1),
    "one axis": (2, 4, 6, (21,), (3,), (2,), (1,), (2,), 1),
    "one axis, pointwise": (2, 4, 6, (21,), (1,), (1,), (0,), (1,), 1),
    "several bands": (1, 2, 18, (40, 70), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "one image, many channels": (1, 64, 8, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1),
}


def open_device(dtype: npt.DTypeLike = np.float32) -> Device:
    return Device(open_opencl(dtype).context, np.dtype(dtype))


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device()


def geometry(case: str) -> ConvolutionGeometry:
    return ConvolutionGeometry(*CASES[case])


def expected(g: ConvolutionGeometry, x: Array, dy: Array) -> Array:
    """dw, one place of the kernel after the other."""
    channels, outputs, axes = g.in_channels // g.group, g.out_channels // g.group, len(g.input)
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in g.pad)])
    dw = np.zeros(g.w_shape)
    for place in itertools.product(*map(range, g.kernel)):
        window = tuple(slice(k * d, k * d + (o - 1) * s + 1, s)
                       for k, d, o, s in zip(place, g.dilation, g.output, g.stride, strict=True))
        seen = padded[(..., *window)].reshape(g.batch, g.group, channels, -1)
        sums = np.einsum("ngcp,ngop->goc", seen, dy.reshape(g.batch, g.group, outputs, -1))
        dw[(..., *place)] = sums.reshape(g.out_channels, channels)
    assert dw.ndim == 2 + axes
    return dw


def put(device: Device, values: Array) -> DeviceArray:
    array = device.space.allocate(values.size, device.dtype)
    device.space.upload(np.ascontiguousarray(values, device.dtype), array)
    return array


def run(device: Device, grad_weight: GradWeightPass, x: Array, dy: Array, dw: Array,
        accumulate: bool) -> npt.NDArray[Any]:
    result, values = put(device, dw), np.empty(dw.shape, device.dtype)
    grad_weight.run(put(device, x), put(device, dy), result, accumulate)
    device.space.download(result, values)
    return values


def data(g: ConvolutionGeometry) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return numbers(rng, *g.x_shape), numbers(rng, *g.y_shape)


def check(device: Device, g: ConvolutionGeometry, passes: Sequence[GradWeightPass], tolerance: float) -> None:
    x, dy = data(g)
    dw, before = expected(g, x, dy), numbers(np.random.default_rng(4), *g.w_shape)
    atol = tolerance * max(1.0, np.abs(dw).max())
    for one in passes:
        over = run(device, one, x, dy, np.full(g.w_shape, np.nan), accumulate=False)
        np.testing.assert_allclose(over, dw, tolerance, atol)
        np.testing.assert_allclose(run(device, one, x, dy, before, accumulate=True), before + dw, tolerance, atol)


def check_variants(device: Device, g: ConvolutionGeometry, tolerance: float) -> None:
    variants = family.grad_weight_variants(device, g)
    assert 1 <= len(variants) <= 5 and len({variant.name for variant in variants}) == len(variants)
    # The best of each instruction set; the others are the same kernels with other numbers.
    best = {"avx512" in variant.name: variant for variant in reversed(variants)}
    check(device, g, [variant.make() for variant in best.values()], tolerance)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_numpy(device: Device, case: str) -> None:
    check_variants(device, geometry(case), 3e-6)


@pytest.mark.parametrize("case", ["padded", "unlike axes", "rows on the same places of the cache", "pointwise"])
def test_float64(case: str) -> None:
    check_variants(open_device(np.float64), geometry(case), 1e-13)


sizes = st.tuples(st.integers(1, 12), st.integers(1, 20))
small = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 19), st.integers(1, 3), sizes, small, small,
       st.tuples(st.integers(0, 3), st.integers(0, 3)), small)
def test_any_geometry(batch: int, channels: int, outputs: int, group: int, input_: tuple[int, int],
                      kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int],
                      dilation: tuple[int, int]) -> None:
    # An input that the kernel fits into.
    input_ = tuple(max(i, d * (k - 1) + 1) for i, k, d in zip(input_, kernel, dilation, strict=True))  # type: ignore[assignment]
    g = ConvolutionGeometry(batch, channels * group, outputs * group, input_, kernel, stride, pad, dilation, group)
    device = open_device()
    check(device, g, [family.grad_weight_variants(device, g)[0].make()], 3e-6)


@pytest.mark.parametrize("round_bytes", [1, 3000, 1 << 20])
@pytest.mark.parametrize("case", ["padded", "groups", "unlike axes", "the same, stride and dilation"])
def test_rounds_of_any_size(device: Device, case: str, round_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "ROUND_BYTES", round_bytes)
    g = geometry(case)
    check(device, g, [variant.make() for variant in family.grad_weight_variants(device, g)[-1:]], 3e-6)


@pytest.mark.parametrize("tile", [
    family.Tile(1, 1, 1, 1, 32, False), family.Tile(6, 1, 1, 2, 32, False), family.Tile(3, 1, 1, 4, 32, False),
    family.Tile(13, 1, 1, 1, 16, False), family.Tile(2, 1, 1, 3, 64, False)], ids=lambda tile: tile.name(4))
@pytest.mark.parametrize("case", ["padded", "groups"])
def test_tiles_with_what_is_left_over(device: Device, case: str, tile: family.Tile) -> None:
    g = geometry(case)
    if tile.channels <= g.in_channels // g.group:
        check(device, g, [family.TapsGradWeight(device, g, tile)], 3e-6)


def test_too_many_sums_for_parts_of_the_batch(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    g = geometry("rows on the same places of the cache")
    several, = (variant.make() for variant in family.grad_weight_variants(device, g)[:1])
    monkeypatch.setattr(family, "PARTS_BYTES", 1)
    one, = (variant.make() for variant in family.grad_weight_variants(device, g)[:1])
    assert several.scratch_bytes > one.scratch_bytes > 0
    check(device, g, [one], 3e-6)
    monkeypatch.setattr(family, "MOST_BYTES", one.scratch_bytes - 1)
    assert not family.grad_weight_variants(device, g)


def test_a_nan_reaches_the_weights_that_saw_it_alone(device: Device) -> None:
    g = geometry("padded")
    x, dy = data(g)
    x[1, 4, 0, 0] = np.nan
    reached = np.zeros(g.w_shape, bool)
    # The corner meets dy through the kernel's places that can stand on it.
    reached[:, 4, :2, :2] = True
    for variant in family.grad_weight_variants(device, g)[:2]:
        dw = run(device, variant.make(), x, dy, np.zeros(g.w_shape), accumulate=False)
        assert np.array_equal(np.isnan(dw), reached)


def test_the_same_bits_every_time(device: Device) -> None:
    g = geometry("rows on the same places of the cache")
    x, dy = data(g)
    one = family.grad_weight_variants(device, g)[0].make()
    first, second = (run(device, one, x, dy, np.zeros(g.w_shape), accumulate=False) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_only_tiles_that_the_processor_has(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.context, "processor_flags", frozenset({"avx2"}))
    names = [variant.name for variant in family.grad_weight_variants(device, geometry("pointwise"))]
    assert names and not any("avx512" in name for name in names)


@pytest.mark.parametrize("g", [
    ConvolutionGeometry(1, 2, 2, (5, 5, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ConvolutionGeometry(0, 2, 2, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
], ids=["three axes", "no images"])
def test_offers_nothing_where_it_does_not_fit(device: Device, g: ConvolutionGeometry) -> None:
    assert not family.grad_weight_variants(device, g)


def test_offers_nothing_on_other_devices(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.context, "is_cpu", False)
    assert not family.grad_weight_variants(device, geometry("padded"))
