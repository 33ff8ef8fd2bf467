"""Stochastic pooling against loops over single elements, and the elements that it draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make
from one_layer import Array, again, run
from tensors import numbers

import barista
from barista.layers.pooling import pooled_size
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.rng import set_seed

OPS = CpuOps(np.float64, threads=2)
Pair = tuple[int, int]


def stochastic(param: str) -> str:
    return layer("Pooling", more=f"pooling_param {{ pool: STOCHASTIC {param} }}")


def windows(x: Array, kernel: Pair, stride: Pair) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """(place in y, places in x row by row) of all windows, which end where the image ends."""
    sizes = [pooled_size(i, k, s, 0, True, False) for i, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    result = []
    for n, c, h, w in np.ndindex(*x.shape[:2], *sizes):
        rows = range(h * stride[0], min(h * stride[0] + kernel[0], x.shape[2]))
        columns = range(w * stride[1], min(w * stride[1] + kernel[1], x.shape[3]))
        result.append(((n, c, h, w), [(n, c, i, j) for i in rows for j in columns]))
    return result


def drawn(x: Array, places: list[tuple[int, ...]], u: float) -> tuple[int, ...]:
    """The first place up to which the sum reaches u times the sum over all; the first of all where none does."""
    goal = u * sum(float(x[place]) for place in places)
    reached = 0.0
    for place in places:
        reached += float(x[place])
        if reached >= goal:
            return place
    return places[0]


shapes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(3, 7), st.integers(3, 7))
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60)
@given(shapes, pairs, pairs, st.integers(0, 99), st.booleans())
def test_stochastic_pooling(shape: tuple[int, ...], kernel: Pair, stride: Pair, seed: int, positive: bool) -> None:
    stride = (min(stride[0], kernel[0]), min(stride[1], kernel[1]))
    x = numbers(shape, seed, zeros=0.4).astype(np.float64)
    x = np.abs(x) if positive else x
    text = stochastic(f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]}")
    net = make(inputs(x=(1, 1, 3, 3)) + text, OPS)
    net.layers[-1].rng = np.random.default_rng(seed)
    dy = again(net, {"x": x})["y"]
    draws = 1 - np.random.default_rng(seed).random(dy.shape)
    y, dx = np.zeros(dy.shape), np.zeros(shape)
    for out, places in windows(x, kernel, stride):
        place = drawn(x, places, draws[out])
        y[out] = x[place]
        dx[place] += dy[out]
    np.testing.assert_array_equal(net.blobs["y"].data, y)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(shapes, pairs, pairs, st.integers(0, 99))
def test_stochastic_pooling_at_test(shape: tuple[int, ...], kernel: Pair, stride: Pair, seed: int) -> None:
    stride = (min(stride[0], kernel[0]), min(stride[1], kernel[1]))
    x = np.abs(numbers(shape, seed, zeros=0.4)).astype(np.float64)
    net, seeds = run(stochastic(f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} "
                                f"stride_w: {stride[1]}"), OPS, {"x": x}, barista.TEST)
    y, dx = np.zeros(seeds["y"].shape), np.zeros(shape)
    for out, places in windows(x, kernel, stride):
        total, squares = sum(x[place] for place in places), sum(x[place]**2 for place in places)
        if total:
            y[out] = squares / total
            for place in places:
                dx[place] += seeds["y"][out] * (2 * x[place] * total - squares) / total**2
    np.testing.assert_allclose(net.blobs["y"].data, y, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-9, atol=1e-12)


def test_elements_are_drawn_in_proportion_to_their_values() -> None:
    x = np.tile(np.array([[1.0, 0.0], [5.0, 4.0]]), (4000, 1, 1, 1))
    net, _ = run(stochastic("kernel_size: 2"), OPS, {"x": x})
    values, counts = np.unique(net.blobs["y"].data, return_counts=True)
    assert values.tolist() == [1, 4, 5]  # never the 0
    np.testing.assert_allclose(counts / 4000, [0.1, 0.4, 0.5], atol=0.03)
    mean, _ = run(stochastic("kernel_size: 2"), OPS, {"x": x[:1]}, barista.TEST)
    assert mean.blobs["y"].data.item() == pytest.approx(0.1 * 1 + 0.4 * 4 + 0.5 * 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("phase", [barista.TRAIN, barista.TEST])
def test_windows_of_zeros_and_of_nan(dtype: type, phase: int) -> None:
    """A window of zeros is 0 and has a gradient that is a number; a NaN is seen."""
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1, 3] = np.nan
    net, seeds = run(stochastic("kernel_size: 2 stride: 2"), CpuOps(dtype), {"x": x}, phase)
    np.testing.assert_array_equal(net.blobs["y"].data, [[[[0, np.nan]]]])
    first = net.blobs["x"].diff[0, 0, :, :2]
    expected = [[seeds["y"].flat[0], 0], [0, 0]] if phase == barista.TRAIN else np.zeros((2, 2))
    np.testing.assert_allclose(first, expected, rtol=1e-6)


def test_draws_follow_the_seed_and_go_on_from_a_state() -> None:
    def made() -> Net:
        set_seed(11)
        net = make(inputs(x=(2, 3, 8, 8)) + stochastic("kernel_size: 3 stride: 2"), OPS)
        net.blobs["x"].data[...] = np.abs(numbers((2, 3, 8, 8), 4))
        return net

    first, second = made(), made()
    values = []
    for _ in range(2):
        first.forward_pass()
        values.append(first.blobs["y"].data.copy())
    assert (values[0] != values[1]).any()
    second.forward_pass()
    np.testing.assert_array_equal(second.blobs["y"].data, values[0])
    state = second.layers[-1].state()
    third = made()
    third.layers[-1].restore(state)
    third.forward_pass()
    np.testing.assert_array_equal(third.blobs["y"].data, values[1])
