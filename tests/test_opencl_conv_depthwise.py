"""Depthwise convolutions in OpenCL against loops in float64, on both ways over the numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from opencl_device import numbers, open_opencl
from references import convolution, convolution_gradients

from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.opencl import conv_depthwise as family
from barista.ops.opencl.device import Device
from barista.runtime.space import DeviceArray

# batch, channels, multiplier, input, kernel, stride, pad, dilation
CASES = {
    "3x3": (2, 3, 1, (9, 10), (3, 3), (1, 1), (1, 1), (1, 1)),
    "stride 2": (2, 3, 1, (9, 12), (3, 3), (2, 2), (1, 1), (1, 1)),
    "stride 2, even": (1, 2, 1, (8, 18), (3, 3), (2, 2), (1, 1), (1, 1)),
    "two outputs a channel": (2, 2, 2, (6, 17), (3, 3), (1, 1), (1, 1), (1, 1)),
    "smaller than a vector": (3, 5, 1, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "a pixel": (2, 3, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    "unlike axes": (2, 2, 3, (7, 19), (2, 5), (3, 2), (2, 0), (2, 3)),
    "wide padding": (1, 2, 1, (4, 5), (3, 2), (1, 3), (3, 4), (1, 1)),
    "no window reaches the rest": (1, 2, 1, (11, 10), (1, 2), (4, 5), (0, 0), (1, 1)),
    "large kernel": (1, 2, 1, (12, 13), (7, 5), (1, 1), (3, 2), (1, 1)),
    "one axis": (2, 3, 2, (21,), (3,), (2,), (1,), (1,)),
    "several bands": (1, 2, 1, (70, 150), (3, 3), (1, 1), (1, 1), (1, 1)),
    "several bands, stride": (1, 1, 1, (80, 190), (3, 3), (2, 2), (1, 1), (1, 1)),
    "many planes": (17, 3, 1, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
}


def geometry(case: str) -> ConvolutionGeometry:
    batch, channels, multiplier, *axes = CASES[case]
    return ConvolutionGeometry(batch, channels, channels * multiplier, *axes, group=channels)


def open_device(dtype: npt.DTypeLike = np.float32) -> Device:
    return Device(open_opencl(dtype).context, np.dtype(dtype))


class Runner:
    """Runs the passes of a geometry on arrays of the host."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def put(self, values: npt.NDArray[Any]) -> DeviceArray:
        array = self.device.space.allocate(values.size, self.device.dtype)
        self.device.space.upload(np.ascontiguousarray(values, self.device.dtype), array)
        return array

    def get(self, array: DeviceArray, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        values = np.empty(shape, self.device.dtype)
        self.device.space.download(array, values)
        return values

    def forward(self, g: ConvolutionGeometry, x: npt.NDArray[Any], w: npt.NDArray[Any], bias: npt.NDArray[Any] | None,
                rectify: bool = False) -> npt.NDArray[Any]:
        variant, = family.forward_variants(self.device, g)
        y = self.put(np.full(g.y_shape, np.nan))
        variant.make().run(self.put(x), self.put(w), None if bias is None else self.put(bias), y, rectify)
        return self.get(y, g.y_shape)

    def grad_weight(self, g: ConvolutionGeometry, x: npt.NDArray[Any], dy: npt.NDArray[Any], dw: npt.NDArray[Any],
                    accumulate: bool) -> npt.NDArray[Any]:
        variant, = family.grad_weight_variants(self.device, g)
        result = self.put(dw)
        variant.make().run(self.put(x), self.put(dy), result, accumulate)
        return self.get(result, g.w_shape)

    def grad_input(self, g: ConvolutionGeometry, dy: npt.NDArray[Any], w: npt.NDArray[Any]) -> npt.NDArray[Any]:
        variant, = family.grad_input_variants(self.device, g)
        dx = self.put(np.full(g.x_shape, np.nan))
        variant.make().run(self.put(dy), self.put(w), dx)
        return self.get(dx, g.x_shape)


@pytest.fixture(params=["rows", "plain"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The way of CPU devices and that of all others, on whatever device there is."""
    device = open_device()
    monkeypatch.setattr(family, "_rows_fit", lambda *_: request.param == "rows")
    return Runner(device)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_loops(runner: Runner, case: str) -> None:
    check(runner, geometry(case), 1e-5)


def test_float64() -> None:
    device = open_device(np.float64)
    for case in ("unlike axes", "stride 2"):
        check(Runner(device), geometry(case), 1e-13)


def check(runner: Runner, g: ConvolutionGeometry, tolerance: float) -> None:
    rng = np.random.default_rng(3)
    x, w, dy, bias = (numbers(rng, *shape) for shape in (g.x_shape, g.w_shape, g.y_shape, (g.out_channels,)))
    y = convolution(x, w, bias, g.stride, g.pad, g.dilation, g.group)
    dx, dw, _ = convolution_gradients(x, w, dy, g.stride, g.pad, g.dilation, g.group)

    def close(got: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
        np.testing.assert_allclose(got, expected, tolerance, tolerance * max(1.0, np.abs(expected).max()))

    close(runner.forward(g, x, w, bias), y)
    close(runner.forward(g, x, w, None, rectify=True), np.maximum(y - bias.reshape(-1, *[1] * len(g.output)), 0))
    close(runner.grad_input(g, dy, w), dx)
    before = numbers(rng, *g.w_shape)
    close(runner.grad_weight(g, x, dy, before, accumulate=True), before + dw)
    close(runner.grad_weight(g, x, dy, np.full(g.w_shape, np.nan), accumulate=False), dw)


def test_a_nan_reaches_what_reads_it_alone(runner: Runner) -> None:
    g = geometry("smaller than a vector")
    rng = np.random.default_rng(4)
    x, w, dy = (numbers(rng, *shape) for shape in (g.x_shape, g.w_shape, g.y_shape))
    x[1, 2, 0, 6] = dy[1, 2, 0, 6] = np.nan
    y, reached = runner.forward(g, x, w, None, rectify=True), np.zeros(g.y_shape, bool)
    reached[1, 2, 0:2, 5:7] = True
    assert np.array_equal(np.isnan(y), reached)
    assert np.array_equal(np.isnan(runner.grad_input(g, dy, w)), reached)
    dy[1, 2, 0, 6] = 1
    dw = runner.grad_weight(g, x, dy, np.zeros(g.w_shape), accumulate=False)
    assert np.isnan(dw[2, 0, :2, 1:]).all()
    assert np.isfinite(np.delete(dw, 2, axis=0)).all()


def test_the_same_bits_every_time(runner: Runner) -> None:
    g = geometry("many planes")
    rng = np.random.default_rng(5)
    x, dy = numbers(rng, *g.x_shape), numbers(rng, *g.y_shape)
    first, second = (runner.grad_weight(g, x, dy, np.zeros(g.w_shape), accumulate=False) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_no_images(runner: Runner) -> None:
    g = ConvolutionGeometry(0, 2, 2, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1), group=2)
    empty = np.zeros(0)
    assert math.prod(runner.forward(g, empty, np.ones(g.w_shape), None).shape) == 0
    assert not runner.grad_weight(g, empty, empty, np.full(g.w_shape, np.nan), accumulate=False).any()
    assert runner.grad_input(g, empty, np.ones(g.w_shape)).size == 0


@pytest.mark.parametrize("channels, group, axes", [(4, 2, 2), (4, 1, 2), (2, 2, 3)])
def test_offers_nothing_for_other_convolutions(channels: int, group: int, axes: int) -> None:
    device = open_device()
    ones = (1,) * axes
    g = ConvolutionGeometry(1, channels, channels, (5,) * axes, (3,) * axes, ones, ones, ones, group)
    assert not family.forward_variants(device, g)
    assert not family.grad_weight_variants(device, g)
    assert not family.grad_input_variants(device, g)
