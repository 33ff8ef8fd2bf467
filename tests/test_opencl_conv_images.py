"""Convolutions with images, strips or pixels side by side, against NumPy in float64, however the work is cut."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencl_device import numbers, open_opencl

from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.opencl import conv_images as family
from barista.ops.opencl.device import Device
from barista.runtime.space import DeviceArray

pytestmark = pytest.mark.opencl

Array = npt.NDArray[np.float64]

# batch, input channels, output channels, input, kernel, stride, pad, dilation, group
CASES: dict[str, tuple[Any, ...]] = {
    "a set of images": (16, 13, 20, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "sets, the last half full": (35, 3, 9, (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "sets, the last more than half full": (30, 3, 50, (6, 5), (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "one image in strips": (1, 6, 17, (13, 13), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "strips that leave the image": (3, 4, 5, (21, 9), (5, 3), (1, 1), (2, 1), (1, 1), 1),
    "strips, stride": (2, 3, 24, (43, 43), (11, 11), (4, 4), (0, 0), (1, 1), 1),
    "strips, stride and dilation": (1, 5, 6, (37, 14), (3, 3), (2, 3), (2, 4), (3, 2), 1),
    "groups": (16, 12, 54, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    "one channel a group": (2, 3, 6, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 3),
    "unlike axes": (9, 5, 7, (11, 17), (2, 5), (3, 2), (1, 3), (2, 1), 1),
    "pixels between the windows": (16, 3, 4, (10, 11), (2, 2), (4, 3), (0, 1), (1, 1), 1),
    "padding wider than the kernel": (4, 2, 3, (4, 5), (2, 2), (1, 1), (3, 4), (1, 1), 1),
    "blocks of channels": (16, 300, 18, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "wide rows": (1, 16, 16, (8, 400), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "pointwise": (3, 31, 33, (5, 7), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise, stride and groups": (2, 18, 16, (9, 8), (1, 1), (2, 2), (0, 0), (1, 1), 2),
    "pointwise, padded": (2, 8, 16, (9, 8), (1, 1), (1, 2), (1, 1), (1, 1), 1),
    "one pixel": (4, 3, 2, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "one axis": (2, 4, 6, (21,), (3,), (2,), (1,), (2,), 1),
    "one axis, pointwise": (2, 4, 6, (21,), (1,), (1,), (0,), (1,), 1),
}


def open_device(dtype: npt.DTypeLike = np.float32) -> Device:
    return Device(open_opencl(dtype).context, np.dtype(dtype))


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device()


def put(device: Device, values: Array) -> DeviceArray:
    array = device.space.allocate(values.size, device.dtype)
    device.space.upload(np.ascontiguousarray(values, device.dtype), array)
    return array


def get(device: Device, array: DeviceArray, shape: tuple[int, ...]) -> Array:
    values = np.empty(shape, device.dtype)
    device.space.download(array, values)
    return values.astype(np.float64)


def reference(g: ConvolutionGeometry, x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """y without bias, and dx, one place of the kernel after the other."""
    channels, outputs = g.in_channels // g.group, g.out_channels // g.group
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in g.pad)])
    y, dx = np.zeros(g.y_shape), np.zeros_like(padded)
    for place in itertools.product(*map(range, g.kernel)):
        window = (..., *(slice(k * d, k * d + (o - 1) * s + 1, s)
                         for k, d, o, s in zip(place, g.dilation, g.output, g.stride, strict=True)))
        weights = w[(..., *place)].reshape(g.group, outputs, channels)
        seen = padded[window].reshape(g.batch, g.group, channels, -1)
        y += np.einsum("goc,ngcp->ngop", weights, seen).reshape(g.y_shape)
        back = np.einsum("goc,ngop->ngcp", weights, dy.reshape(g.batch, g.group, outputs, -1))
        dx[window] += back.reshape(dx[window].shape)
    return y, dx[(..., *(slice(p, p + i) for p, i in zip(g.pad, g.input, strict=True)))]


def check(device: Device, g: ConvolutionGeometry) -> list[str]:
    """Compare all variants; returns their names."""
    rng = np.random.default_rng(7)
    x, w, dy = numbers(rng, *g.x_shape), numbers(rng, *g.w_shape), numbers(rng, *g.y_shape)
    bias = numbers(rng, g.out_channels)
    y, dx = reference(g, x, w, dy)
    shifted = y + bias.reshape(-1, *(1 for _ in g.input))
    tolerance = 3e-6 if device.dtype == np.float32 else 1e-13
    x_there, w_there, bias_there, dy_there = (put(device, values) for values in (x, w, bias, dy))
    forward, grad_input = family.forward_variants(device, g), family.grad_input_variants(device, g)
    for variant in forward:
        run = variant.make()
        for shift, rectify, expected in ((bias_there, False, shifted), (None, True, np.maximum(y, 0))):
            result = put(device, np.full(g.y_shape, np.nan))
            run.run(x_there, w_there, shift, result, rectify)
            np.testing.assert_allclose(get(device, result, g.y_shape), expected, rtol=tolerance,
                                       atol=tolerance * (1 + np.abs(y).max()), err_msg=variant.name)
    for turned in grad_input:
        result = put(device, np.full(g.x_shape, np.nan))
        turned.make().run(dy_there, w_there, result)
        np.testing.assert_allclose(get(device, result, g.x_shape), dx, rtol=tolerance,
                                   atol=tolerance * (1 + np.abs(dx).max()), err_msg=turned.name)
    return [variant.name for variant in (*forward, *grad_input)]


@pytest.mark.parametrize("case", CASES)
def test_passes(device: Device, case: str) -> None:
    g = ConvolutionGeometry(*CASES[case])
    names = check(device, g)
    pointwise = case.startswith(("pointwise", "one pixel", "one axis, pointwise")) and not any(g.pad)
    assert any(name.startswith("pointwise") for name in names) == (device.context.is_cpu and pointwise)
    assert any(name.startswith("images") for name in names) == device.context.is_cpu


@pytest.mark.parametrize("case", ["sets, the last half full", "strips, stride and dilation", "blocks of channels",
                                  "pointwise, stride and groups"])
def test_passes_in_double(case: str) -> None:
    check(open_device(np.float64), ConvolutionGeometry(*CASES[case]))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_geometry(device: Device, data: st.DataObject) -> None:
    group = data.draw(st.integers(1, 2))
    kernel, dilation, stride = (tuple(data.draw(st.integers(1, most)) for _ in range(2)) for most in (4, 3, 4))
    pad = tuple(data.draw(st.integers(0, 4)) for _ in range(2))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, pad, strict=True)]
    size = tuple(low + data.draw(st.integers(0, 12)) for low in least)
    batch, channels, outputs = (data.draw(st.integers(1, most)) for most in (18, 5, 20))
    check(device, ConvolutionGeometry(batch, group * channels, group * outputs, size, kernel, stride, pad, dilation,
                                      group))


@pytest.mark.parametrize("budget", [3, 12, 40])
def test_little_local_memory(device: Device, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """Bands, spans, shares and blocks, all at once."""
    monkeypatch.setattr(family, "LOCAL_BYTES", budget * 1024)
    check(device, ConvolutionGeometry(17, 10, 40, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), 1))
    check(device, ConvolutionGeometry(2, 40, 40, (9, 9), (1, 1), (1, 1), (0, 0), (1, 1), 1))


def test_nothing_where_nothing_fits(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "LOCAL_BYTES", 256)
    g = ConvolutionGeometry(2, 4, 4, (9, 9), (1, 1), (1, 1), (0, 0), (1, 1), 1)
    assert not family.forward_variants(device, g) and not family.grad_input_variants(device, g)


@pytest.mark.parametrize("shape", [(2, 4, 4, (5, 5, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
                                   (0, 4, 4, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1), 1)])
def test_not_for_three_axes_nor_for_no_images(device: Device, shape: tuple[Any, ...]) -> None:
    g = ConvolutionGeometry(*shape)
    assert not family.forward_variants(device, g) and not family.grad_input_variants(device, g)


@pytest.mark.parametrize("case", ["a set of images", "one image in strips", "pointwise"])
def test_nan_passes_through_and_stays_where_it_belongs(device: Device, case: str) -> None:
    g = ConvolutionGeometry(*CASES[case])
    rng = np.random.default_rng(3)
    x, w = numbers(rng, *g.x_shape), np.ones(g.w_shape)
    x[-1, 0, 0, 0] = np.nan
    reached, _ = reference(g, x, w, np.zeros(g.y_shape))
    for variant in family.forward_variants(device, g):
        y = put(device, np.zeros(g.y_shape))
        variant.make().run(put(device, x), put(device, w), None, y, True)
        np.testing.assert_array_equal(np.isnan(get(device, y, g.y_shape)), np.isnan(reached), err_msg=variant.name)


def test_the_same_bits_again(device: Device) -> None:
    g = ConvolutionGeometry(*CASES["sets, the last half full"])
    rng = np.random.default_rng(5)
    x, w = put(device, numbers(rng, *g.x_shape)), put(device, numbers(rng, *g.w_shape))
    for variant in family.forward_variants(device, g):
        run, results = variant.make(), []
        for _ in range(3):
            y = put(device, np.full(g.y_shape, np.nan))
            run.run(x, w, None, y, False)
            results.append(get(device, y, g.y_shape))
        assert np.isfinite(results[0]).all()
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])
