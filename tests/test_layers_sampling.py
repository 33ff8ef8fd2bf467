"""Interp and SPP against loops over single elements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make
from one_layer import Array, again, run
from references import average_pooling, average_pooling_gradient, max_pooling, max_pooling_gradient
from tensors import blank, got, numbers, put

from barista.errors import NetError, UnsupportedError
from barista.ops.base import OpSet, Taps
from barista.ops.cpu import CpuOps

OPS = CpuOps(np.float64, threads=2)


# ---- Interp -----------------------------------------------------------------------------------------------


def bilinear(x: Array, dy: Array, begin: int, end: int) -> tuple[Array, Array]:
    """y and dx of planes (N, C, H, W) cut by `begin` and `end` and resized with aligned corners."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    spans = [size - begin - end for size in x.shape[2:]]
    for n, c, h, w in np.ndindex(*dy.shape):
        sides = []
        for place, span, outputs in zip((h, w), spans, dy.shape[2:], strict=True):
            position = place * (span - 1) / (outputs - 1) if outputs > 1 else 0.0
            low = min(math.floor(position + 1e-9), span - 1)
            sides.append([(low, 1 - (position - low)), (min(low + 1, span - 1), position - low)])
        for i, a in sides[0]:
            for j, b in sides[1]:
                y[n, c, h, w] += a * b * x[n, c, begin + i, begin + j]
                dx[n, c, begin + i, begin + j] += a * b * dy[n, c, h, w]
    return y, dx


sizes = st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=60)
@given(sizes, st.integers(1, 9), st.integers(1, 9), st.integers(0, 2), st.integers(0, 2))
def test_interp(shape: tuple[int, ...], height: int, width: int, begin: int, end: int) -> None:
    x = numbers((*shape[:2], *(size + begin + end for size in shape[2:])), 1).astype(np.float64)
    net, seeds = run(layer("Interp", more=f"interp_param {{ height: {height} width: {width} pad_beg: {-begin} "
                                          f"pad_end: {-end} }}"), OPS, {"x": x})
    assert seeds["y"].shape == (*shape[:2], height, width)
    y, dx = bilinear(x, seeds["y"], begin, end)
    np.testing.assert_allclose(net.blobs["y"].data, y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("param", "expected"), [
    ("zoom_factor: 3", (13, 16)), ("shrink_factor: 2", (3, 3)), ("shrink_factor: 3 zoom_factor: 4", (5, 5)),
    ("height: 7 width: 4", (7, 4)), ("height: 7 width: 4 zoom_factor: 2", (9, 11)),
    ("height: 7 width: 4 shrink_factor: 2", (3, 3)), ("height: 7 width: 4 shrink_factor: 2 zoom_factor: 2", (7, 4)),
    ("height: 7 shrink_factor: 2 zoom_factor: 2", (5, 5)), ("zoom_factor: 2 pad_beg: -1 pad_end: -2", (3, 5)),
    ("shrink_factor: 1", (5, 6)),
])
def test_which_field_of_interp_counts(param: str, expected: tuple[int, int]) -> None:
    net = make(inputs(x=(2, 3, 5, 6)) + layer("Interp", more=f"interp_param {{ {param} }}"), OPS)
    assert net.blobs["y"].shape == (2, 3, *expected)


def test_interp_copies_where_nothing_changes() -> None:
    x = numbers((1, 2, 3, 4))
    x[0, 0, 1, 1] = np.inf
    net, _ = run(layer("Interp", more="interp_param { height: 3 width: 4 }"), OPS, {"x": x})
    np.testing.assert_array_equal(net.blobs["y"].data, x)


def test_interp_takes_other_sizes_later_and_fewer_axes() -> None:
    net, _ = run(layer("Interp", more="interp_param { zoom_factor: 2 }"), OPS, {"x": numbers((1, 1, 2, 2))})
    x = numbers((2, 1, 3, 5), 3).astype(np.float64)
    seeds = again(net, {"x": x})
    y, dx = bilinear(x, seeds["y"], 0, 0)
    np.testing.assert_allclose(net.blobs["y"].data, y, atol=1e-12)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, atol=1e-12)
    again(net, {"x": numbers((2, 3, 4))})
    assert net.blobs["y"].shape == (2, 3, 7, 1)


@pytest.mark.parametrize(("param", "message"), [
    ("", r"layer \(Interp\): does not say how large its top is; give height and width, zoom_factor or shrink_factor"),
    ("height: 4", r"does not say how large its top is"), ("pad_beg: 1 zoom_factor: 2", r"pad_beg=1 and pad_end=0 must"),
    ("zoom_factor: 0", r"shrink_factor=1 and zoom_factor=0 must be 1 or more"),
    ("height: 0 width: 3", r"height=0; give 1 or more"),
    ("height: 2 width: 2000000000", r"asks for a width of 2000000000; the limit is 100000"),
    ("zoom_factor: 2 pad_beg: -3 pad_end: -3", r"pad_beg=-3 and pad_end=-3 leave nothing of height 5"),
])
def test_interp_refuses(param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=(2, 3, 5, 6)) + layer("Interp", more=f"interp_param {{ {param} }}"), OPS)


def test_interpolation(ops: OpSet) -> None:
    """With tables of other kinds too: the nearest, and one that leaves inputs out."""
    rows = Taps(4, ((0,), (0,), (2,), (2,), (3,)), ((1.0,),) * 5)
    columns = Taps(3, ((0, 1, 2), (1, 1, 0)), ((0.5, 0.25, -1.0), (0.5, 0.25, 2.0)))
    matrices = [np.zeros((taps.outputs, taps.size)) for taps in (rows, columns)]
    for matrix, taps in zip(matrices, (rows, columns), strict=True):
        for output, (indices, weights) in enumerate(zip(taps.indices, taps.weights, strict=True)):
            for index, weight in zip(indices, weights, strict=True):
                matrix[output, index] += weight
    x, dy = numbers((6, 4, 3), 1), numbers((6, 5, 2), 2)
    primitive = ops.interpolation(6, rows, columns)
    y, dx = blank(ops, dy.shape), blank(ops, x.shape)
    primitive.forward(put(ops, x), y)
    primitive.backward(put(ops, dy), dx)
    np.testing.assert_allclose(got(y), matrices[0] @ x @ matrices[1].T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got(dx), matrices[0].T @ dy @ matrices[1], rtol=1e-5, atol=1e-6)


# ---- SPP --------------------------------------------------------------------------------------------------


def windows(size: int, bins: int) -> tuple[int, int]:
    """Width of each window of a level, and what is padded on either side."""
    kernel = math.ceil(size / bins)
    return kernel, math.ceil((kernel * bins - size) / 2)


@pytest.mark.parametrize(("shape", "levels"), [
    ((2, 3, 9, 8), 3), ((1, 1, 1, 1), 1), ((2, 2, 4, 5), 1), ((1, 2, 3, 3), 2), ((2, 1, 7, 10), 2), ((1, 2, 11, 9), 3),
    ((1, 1, 16, 15), 4)])
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_spp(shape: tuple[int, int, int, int], levels: int, pool: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.permutation(math.prod(shape)).reshape(shape) / 7 - 5
    net, seeds = run(layer("SPP", more=f"spp_param {{ pyramid_height: {levels} pool: {pool} }}"), OPS, {"x": x})
    dy = seeds["y"]
    parts, dx, at = [], np.zeros(shape), 0
    for level in range(levels):
        (kernel_h, pad_h), (kernel_w, pad_w) = (windows(size, 2**level) for size in shape[2:])
        geometry = ((kernel_h, kernel_w), (kernel_h, kernel_w), (pad_h, pad_w))
        y = max_pooling(x, *geometry)[0] if pool == "MAX" else average_pooling(x, *geometry)
        assert y.shape[2:] == (2**level, 2**level)
        parts.append(y.reshape(shape[0], -1))
        gradient = dy.reshape(shape[0], -1)[:, at:at + parts[-1].shape[1]].reshape(y.shape)
        dx += (max_pooling_gradient if pool == "MAX" else average_pooling_gradient)(x, gradient, *geometry)
        at += parts[-1].shape[1]
    expected = np.concatenate(parts, axis=1)
    assert net.blobs["y"].shape == ((*shape[:2], 1, 1) if levels == 1 else expected.shape)
    np.testing.assert_allclose(net.blobs["y"].data.reshape(expected.shape), expected, rtol=1e-12)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-12, atol=1e-12)


def test_spp_gives_the_same_size_for_other_images() -> None:
    net, _ = run(layer("SPP", more="spp_param { pyramid_height: 2 }"), OPS, {"x": numbers((2, 3, 5, 6))})
    x = numbers((1, 3, 8, 4), 2)
    again(net, {"x": x})
    assert net.blobs["y"].shape == (1, 15)
    np.testing.assert_array_equal(net.blobs["y"].data[0, :3], x[0].max((1, 2)))
    quarters = [x[0, 0, i:i + 4, j:j + 2].max() for i in (0, 4) for j in (0, 2)]
    np.testing.assert_array_equal(net.blobs["y"].data[0, 3:7], quarters)


@pytest.mark.parametrize(("shape", "param", "message"), [
    ((2, 3, 5, 6), "", r"layer \(SPP\): pyramid_height is missing; give how many levels there are, 1 or more"),
    ((2, 3, 5), "pyramid_height: 1", r"needs a bottom \(N, C, H, W\) with images of at least one pixel, got"),
    ((2, 3, 5, 6), "pyramid_height: 3", r"level 2 of the pyramid cuts height 5 into 4 windows of 2, some of which lie "
                                        r"in the padding of 2 alone; lower pyramid_height to 2 or"),
    ((2, 3, 5, 6), "pyramid_height: 4000000000", r"level 2 of the pyramid"),
])
def test_spp_refuses(shape: tuple[int, ...], param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=shape) + layer("SPP", more=f"spp_param {{ {param} }}"), OPS)


def test_spp_refuses_stochastic_pooling() -> None:
    with pytest.raises(UnsupportedError, match=r"layer \(SPP\): pool: STOCHASTIC exists in Caffe on the GPU alone"):
        make(inputs(x=(1, 1, 4, 4)) + layer("SPP", more="spp_param { pyramid_height: 1 pool: STOCHASTIC }"), OPS)
