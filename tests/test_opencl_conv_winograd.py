"""Winograd's convolutions in OpenCL against sums in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from opencl_device import numbers, open_opencl
from references import convolution, convolution_gradients

from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.opencl import conv_winograd as family
from barista.ops.opencl.device import Device
from barista.runtime.space import DeviceArray

Array = npt.NDArray[Any]

# batch, channels of a group, outputs of a group, groups, input, window, pad
CASES: dict[str, tuple[int, int, int, int, tuple[int, ...], int, tuple[int, ...]]] = {
    "one tile": (1, 1, 1, 1, (6, 6), 3, (0, 0)),
    "a pixel": (2, 3, 2, 1, (1, 1), 3, (1, 1)),
    "images share a block": (5, 4, 9, 1, (5, 7), 3, (1, 1)),
    "more than a panel": (2, 17, 33, 1, (5, 4), 3, (1, 1)),
    "groups": (3, 5, 6, 2, (7, 5), 3, (1, 1)),
    "no padding": (2, 3, 8, 1, (9, 6), 3, (0, 0)),
    "unlike padding": (1, 2, 3, 1, (6, 9), 3, (2, 0)),
    "wide padding": (1, 2, 2, 1, (3, 4), 3, (4, 6)),
    "rows apart": (1, 1, 2, 1, (70, 19), 3, (1, 1)),
    "parts of rows": (1, 1, 2, 1, (3, 301), 3, (1, 1)),
    "5x5, no padding": (3, 17, 34, 1, (9, 8), 5, (0, 0)),
    "5x5, groups": (3, 5, 6, 2, (7, 5), 5, (2, 1)),
    "5x5, wide padding": (1, 4, 5, 1, (4, 3), 5, (6, 5)),
    "7x7": (2, 6, 5, 1, (9, 10), 7, (3, 2)),
}


# Each case builds kernels of its own, which takes seconds.
RARE = {"images share a block", "unlike padding", "rows apart", "parts of rows", "5x5, no padding"}


def geometry(case: str) -> ConvolutionGeometry:
    batch, inputs, outputs, group, input_, window, pad = CASES[case]
    return ConvolutionGeometry(batch, inputs * group, outputs * group, input_, (window, window), (1, 1), pad, (1, 1),
                               group)


def open_device(dtype: npt.DTypeLike = np.float32) -> Device:
    return Device(open_opencl(dtype).context, np.dtype(dtype))


def put(device: Device, values: Array) -> DeviceArray:
    array = device.space.allocate(values.size, device.dtype)
    device.space.upload(np.ascontiguousarray(values, device.dtype), array)
    return array


def get(device: Device, array: DeviceArray, shape: tuple[int, ...]) -> Array:
    values = np.empty(shape, device.dtype)
    device.space.download(array, values)
    return values


def names(variants: list[Any]) -> list[str]:
    return [variant.name for variant in variants]


def check(device: Device, g: ConvolutionGeometry, tolerance: float) -> None:
    """All variants of all passes."""
    rng = np.random.default_rng(1)
    x, w, dy, bias = (numbers(rng, *shape) for shape in (g.x_shape, g.w_shape, g.y_shape, (g.out_channels,)))
    before = numbers(rng, *g.w_shape)
    y = convolution(x, w, bias, g.stride, g.pad, g.dilation, g.group)
    dx, dw, _ = convolution_gradients(x, w, dy, g.stride, g.pad, g.dilation, g.group)
    source, weights, gradient, shift = (put(device, values) for values in (x, w, dy, bias))

    def close(result: DeviceArray, expected: Array, name: str) -> None:
        np.testing.assert_allclose(get(device, result, expected.shape), expected, 0,
                                   tolerance * max(1.0, np.abs(expected).max()), err_msg=name)

    for forward in family.forward_variants(device, g):
        made, result = forward.make(), put(device, np.full(g.y_shape, np.nan))
        made.run(source, weights, shift, result, rectify=False)
        close(result, y, forward.name)
        made.run(source, weights, None, result, rectify=True)
        close(result, np.maximum(y - bias.reshape(-1, 1, 1), 0), forward.name)
    for grad_input in family.grad_input_variants(device, g):
        result = put(device, np.full(g.x_shape, np.nan))
        grad_input.make().run(gradient, weights, result)
        close(result, dx, grad_input.name)
    for grad_weight in family.grad_weight_variants(device, g):
        sums, result = grad_weight.make(), put(device, np.full(g.w_shape, np.nan))
        sums.run(source, gradient, result, accumulate=False)
        close(result, dw, grad_weight.name)
        result = put(device, before)
        sums.run(source, gradient, result, accumulate=True)
        close(result, before + dw, grad_weight.name)


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in RARE else case
                                  for case in CASES])
def test_agrees_with_loops(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "LEAST_SUM_CHANNELS", 1)
    check(open_device(), geometry(case), 1e-5)


@pytest.mark.parametrize("case", [pytest.param("more than a panel", marks=pytest.mark.slow), "5x5, wide padding"])
def test_float64(case: str) -> None:
    check(open_device(np.float64), geometry(case), 1e-13)


def test_panels_whose_windows_memory_holds_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    device, g = open_device(), geometry("more than a panel")
    whole = {variant.name: variant.make().scratch_bytes for variant in family.forward_variants(device, g)}
    monkeypatch.setattr(family, "MOST_BYTES", max(whole.values()) // 2)
    parts = {variant.name: variant.make().scratch_bytes for variant in family.forward_variants(device, g)}
    assert max(parts.values()) <= max(whole.values()) // 2
    assert any(parts[name] < whole[name] for name in parts)
    check(device, g, 1e-5)


def test_offers_nothing_where_the_windows_of_one_panel_need_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "MOST_BYTES", 1 << 10)
    device, g = open_device(), geometry("5x5, groups")
    assert not family.forward_variants(device, g) and not family.grad_input_variants(device, g)
    assert not family.grad_weight_variants(device, g)


def test_channels_that_local_memory_holds_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "LOCAL_BYTES", 150 << 10)
    device, g = open_device(), ConvolutionGeometry(1, 34, 66, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1))
    assert any(name.startswith("winograd 4x4") for name in names(family.grad_weight_variants(device, g)))
    check(device, g, 1e-5)


def test_the_tile_of_a_nan_is_nan_and_no_other() -> None:
    device, g = open_device(), ConvolutionGeometry(2, 2, 2, (12, 12), (3, 3), (1, 1), (1, 1), (1, 1))
    rng = np.random.default_rng(2)
    x, w = numbers(rng, *g.x_shape), rng.normal(size=g.w_shape)
    x[1, 0, 5, 6] = np.nan
    for variant in family.forward_variants(device, g):
        y = put(device, np.zeros(g.y_shape))
        variant.make().run(put(device, x), put(device, w), None, y, rectify=True)
        got = get(device, y, g.y_shape)
        assert np.isnan(got[1, :, 4:7, 5:8]).all(), variant.name
        assert np.isfinite(got[0]).all() and np.isfinite(got[1, :, 8:]).all(), variant.name


def test_the_same_bits_every_time() -> None:
    device, g = open_device(), geometry("more than a panel")
    rng = np.random.default_rng(3)
    x, dy = put(device, numbers(rng, *g.x_shape)), put(device, numbers(rng, *g.y_shape))
    for variant in family.grad_weight_variants(device, g):
        made, dw = variant.make(), put(device, np.zeros(g.w_shape))
        bits = set()
        for _ in range(3):
            made.run(x, dy, dw, accumulate=False)
            bits.add(get(device, dw, g.w_shape).tobytes())
        assert len(bits) == 1, variant.name


@pytest.mark.parametrize(("window", "most"), [(3, 1e-5), (5, 2e-5), (7, 2e-5)])
def test_rounding_stays_small_where_channels_are_many(window: int, most: float) -> None:
    """A relative error of 3e-5 of the largest number would show in training; direct sums have about 1e-6."""
    device = open_device()
    g = ConvolutionGeometry(1, 256, 32, (8, 8), (window, window), (1, 1), (window // 2, window // 2), (1, 1))
    rng = np.random.default_rng(4)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in (g.x_shape, g.w_shape))
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in g.pad)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, g.kernel, (2, 3))
    exact = np.einsum("ncyxij,dcij->ndyx", patches.astype(np.float64), w.astype(np.float64))
    for variant in family.forward_variants(device, g):
        y = put(device, np.zeros(g.y_shape))
        variant.make().run(put(device, x), put(device, w), None, y, rectify=False)
        assert np.abs(get(device, y, g.y_shape) - exact).max() < most * np.abs(exact).max(), variant.name


def test_no_images() -> None:
    device, g = open_device(), ConvolutionGeometry(0, 4, 4, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1))
    none, w = put(device, np.zeros(0)), put(device, np.ones(g.w_shape))
    for forward in family.forward_variants(device, g):
        forward.make().run(none, w, None, none, rectify=False)
    for grad_input in family.grad_input_variants(device, g):
        grad_input.make().run(none, w, none)
    for grad_weight in family.grad_weight_variants(device, g):
        dw = put(device, np.full(g.w_shape, np.nan))
        grad_weight.make().run(none, none, dw, accumulate=False)
        assert not get(device, dw, g.w_shape).any()


@pytest.mark.parametrize("window", [3, 5])
def test_every_cpu_device_has_variants_of_both_tiles(window: int) -> None:
    device = open_device()
    if not device.context.is_cpu:
        pytest.skip("made for CPU devices")
    g = ConvolutionGeometry(8, 64, 64, (8, 8), (window, window), (1, 1), (1, 1), (1, 1))
    for variants in (family.forward_variants, family.grad_input_variants, family.grad_weight_variants):
        offered = names(variants(device, g))
        assert any("4x4" in name for name in offered) and any("2x2" in name for name in offered), offered
        assert len(set(offered)) == len(offered)


@pytest.mark.parametrize("change", [{"kernel": (9, 9)}, {"kernel": (4, 4)}, {"kernel": (1, 1)},
                                    {"kernel": (3, 1)}, {"stride": (2, 1)}, {"dilation": (2, 2)},
                                    {"kernel": (3,), "input": (9,), "stride": (1,), "pad": (1,), "dilation": (1,)}])
def test_offers_nothing_for_other_convolutions(change: dict[str, tuple[int, ...]]) -> None:
    values: dict[str, Any] = {"batch": 1, "in_channels": 16, "out_channels": 16, "input": (9, 9), "kernel": (3, 3),
                              "stride": (1, 1), "pad": (1, 1), "dilation": (1, 1)}
    device, g = open_device(), ConvolutionGeometry(**{**values, **change})
    assert not family.forward_variants(device, g)
    assert not family.grad_weight_variants(device, g)
    assert not family.grad_input_variants(device, g)


def test_what_a_rule_holds_for_the_fastest_comes_first() -> None:
    device = open_device()
    if not device.context.is_cpu:
        pytest.skip("made for CPU devices")
    small, large = (ConvolutionGeometry(8, 64, 64, (size, size), (3, 3), (1, 1), (1, 1), (1, 1)) for size in (2, 8))
    assert names(family.forward_variants(device, small))[0].startswith("winograd 2x2")
    assert names(family.forward_variants(device, large))[0].startswith("winograd 4x4")


def test_few_channels_have_no_gradient_of_weights() -> None:
    device = open_device()
    for inputs, outputs in ((3, 64), (64, 3)):
        g = ConvolutionGeometry(1, inputs, outputs, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
        assert not family.grad_weight_variants(device, g)
