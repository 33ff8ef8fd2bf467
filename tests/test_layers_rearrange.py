"""Crop, Permute, Tile and Im2col against loops over single elements, on drawn shapes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make
from one_layer import Array, again, run
from tensors import blank, got, numbers, put

from barista.errors import NetError, ShapeError
from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.base import OpSet, StridedGeometry
from barista.ops.cpu import CpuOps

OPS = CpuOps(np.float64, threads=2)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


def moved(x: Array, dy: Array, places: dict[tuple[int, ...], tuple[int, ...] | None]) -> tuple[Array, Array]:
    """y and dx, where each place of y shows one of x, or nothing."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for to, source in places.items():
        if source is not None:
            y[to] = x[source]
            dx[source] += dy[to]
    return y, dx


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, shape)))


# ---- Crop -------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data(), shapes)
def test_crop(data: st.DataObject, shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    start = axis % len(shape)
    given_ = data.draw(st.sampled_from(("none", "one", "all")))
    largest = [size - 1 for size in shape[start:]]
    if given_ == "none":
        offsets = [0] * len(largest)
    elif given_ == "one":
        offsets = [data.draw(st.integers(0, min(largest)))] * len(largest)
    else:
        offsets = [data.draw(st.integers(0, most)) for most in largest]
    sizes = [data.draw(st.integers(1, size - offset)) for size, offset in zip(shape[start:], offsets, strict=True)]
    like = (*data.draw(st.tuples(*[st.integers(1, 3)] * start)), *sizes, *data.draw(st.sampled_from(((), (2,)))))
    written = {"none": [], "one": offsets[:1], "all": offsets}[given_]
    text = " ".join(f"offset: {offset}" for offset in written)
    x, ref = numbers(shape, 1), numbers(like, 2)
    net, seeds = run(layer("Crop", "x z", more=f"crop_param {{ axis: {axis} {text} }}"), OPS, {"x": x, "z": ref})
    dy = seeds["y"]
    assert dy.shape == (*shape[:start], *sizes)
    begin = [0] * start + offsets
    y, dx = moved(x, dy, {to: tuple(np.add(to, begin)) for to in places(dy.shape)})
    np.testing.assert_array_equal(net.blobs["y"].data, y)
    np.testing.assert_array_equal(net.blobs["x"].diff, dx)
    np.testing.assert_array_equal(net.blobs["z"].diff, np.zeros(like))


def test_crop_as_in_fcn(cpu: CpuOps) -> None:
    """Scores that a Deconvolution enlarged are cut to the image's size; the image may change its size."""
    text = (layer("Deconvolution", "x", "big", "convolution_param { num_output: 2 group: 2 kernel_size: 4 stride: 2 "
                  "bias_term: false weight_filler { type: 'bilinear' } }", name="up")
            + layer("Crop", "big image", "y", "crop_param { offset: 1 }", name="crop"))
    net, _ = run(text, cpu, {"x": np.ones((1, 2, 4, 5)), "image": np.zeros((1, 3, 8, 9))})
    assert net.blobs["y"].shape == (1, 2, 8, 9)
    # Away from the border a constant stays what it is.
    np.testing.assert_allclose(net.blobs["y"].data[:, :, 1:7, 1:9], 1, rtol=1e-6)
    seeds = again(net, {"x": np.ones((1, 2, 3, 3)), "image": np.zeros((1, 3, 5, 6))})
    assert seeds["y"].shape == (1, 2, 5, 6)
    outside = net.blobs["big"].diff.copy()
    np.testing.assert_allclose(outside[:, :, 1:6, 1:7], seeds["y"], rtol=1e-6)
    outside[:, :, 1:6, 1:7] = 0
    assert not outside.any()


def test_a_planned_net_reads_no_stale_gradient_behind_a_crop(cpu64: CpuOps) -> None:
    """The second bottom of a Crop needs a gradient like any other, although it gives its shape alone."""
    text = (layer("InnerProduct", "x", "a", "inner_product_param { num_output: 6 weight_filler { type: 'xavier' } }",
                  name="first")
            + layer("Crop", "x a", "c", "crop_param { axis: 1 }", name="crop")
            + layer("Sigmoid", "a", "s", name="s") + layer("Eltwise", "c s", "e", name="e")
            + layer("EuclideanLoss", "e t", "loss", name="loss"))
    head = inputs(x=(4, 7), t=(4, 6))
    nets = [make(head + text, cpu64, head="", plan_memory=plan) for plan in (False, True)]
    for net in nets:
        net.blobs["x"].value.write(net.ops.space)[...] = numbers((4, 7), 3)
        net.blobs["t"].value.write(net.ops.space)[...] = numbers((4, 6), 4)
        net.params["first"][0].data[...] = numbers((6, 7), 5)
        for _ in range(2):
            net.clear_param_diffs()
            net.forward_pass()
            net.backward_pass()
    np.testing.assert_array_equal(nets[0].params["first"][0].diff, nets[1].params["first"][0].diff)
    assert nets[0].params["first"][0].diff.any()


@pytest.mark.parametrize(("x", "ref", "param", "message"), [
    ((2, 3, 5, 6), (2, 3, 4, 4), "axis: 2 offset: 2 offset: 0",
     r"layer \(Crop\): the crop of axis 2 takes 4 elements from offset 2 on, beyond the bottom's 5; lower the offset"),
    ((2, 3, 5, 6), (2, 3, 5, 7), "", r"the crop of axis 3 takes 7 elements from offset 0 on, beyond the bottom's 6"),
    ((2, 3, 5, 6), (2, 3, 4, 4), "axis: 1 offset: 0 offset: 1",
     r"has 2 offsets; give one for all axes, or one for each of the 3 from axis 1 on of the bottom \(2, 3, 5, 6\)"),
    ((2, 3, 5), (2, 3), "axis: 1", r"cuts the bottom \(2, 3, 5\) on its axes 1 to 2; the second bottom z, .* 2 axes"),
    ((2, 3), (2, 3), "", r"axis 2 does not exist in a blob of 2 axes"),
])
def test_crop_refuses(x: tuple[int, ...], ref: tuple[int, ...], param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=x, z=ref) + layer("Crop", "x z", more=f"crop_param {{ {param} }}"), OPS)


# ---- Permute ----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data(), shapes)
def test_permute(data: st.DataObject, shape: tuple[int, ...]) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    given_ = order[:data.draw(st.integers(0, len(shape)))]
    order = [*given_, *sorted(set(order) - set(given_))]
    text = " ".join(f"order: {axis}" for axis in given_)
    x = numbers(shape, 1)
    net, seeds = run(layer("Permute", more=f"permute_param {{ {text} }}"), OPS, {"x": x})
    dy = seeds["y"]
    assert dy.shape == tuple(shape[axis] for axis in order)
    y, dx = moved(x, dy, {to: tuple(to[order.index(axis)] for axis in range(len(shape))) for to in places(dy.shape)})
    np.testing.assert_array_equal(net.blobs["y"].data, y)
    np.testing.assert_array_equal(net.blobs["x"].diff, dx)


@pytest.mark.parametrize(("param", "message"), [
    ("order: 0 order: 3", r"layer \(Permute\): order \[0, 3\] must name axes of the bottom \(2, 3, 4\), 0 to 2, each"),
    ("order: 1 order: 1", r"order \[1, 1\] must name axes .* each once"),
])
def test_permute_refuses(param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=(2, 3, 4)) + layer("Permute", more=f"permute_param {{ {param} }}"), OPS)


# ---- Tile -------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data(), shapes, st.integers(1, 4))
def test_tile(data: st.DataObject, shape: tuple[int, ...], tiles: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = numbers(shape, 1)
    net, seeds = run(layer("Tile", more=f"tile_param {{ axis: {axis} tiles: {tiles} }}"), OPS, {"x": x})
    dy = seeds["y"]
    along = axis % len(shape)
    y, dx = moved(x, dy, {to: (*to[:along], to[along] % shape[along], *to[along + 1:]) for to in places(dy.shape)})
    assert dy.size == tiles * x.size
    np.testing.assert_array_equal(net.blobs["y"].data, y)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("param", "message"), [
    ("", r"layer \(Tile\): tiles=0; give how many copies there are to be, 1 or more"),
    ("tiles: -2", r"tiles=-2; give"), ("tiles: 2 axis: 2", r"axis 2 does not exist in a blob of 2 axes"),
])
def test_tile_refuses(param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=(2, 3)) + layer("Tile", more=f"tile_param {{ {param} }}"), OPS)


@pytest.mark.parametrize("text", ["Permute", "Tile"])
def test_not_in_place(text: str) -> None:
    with pytest.raises(NetError, match=r"cannot work in place; give the top a name of its own"):
        make(inputs(x=(2, 3)) + layer(text, "x", "x", "tile_param { tiles: 1 }"), OPS)


# ---- Im2col -----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data(), st.integers(1, 3), st.integers(0, 2))
def test_im2col(data: st.DataObject, axes: int, axis: int) -> None:
    def drawn(least: int, most: int) -> list[int]:
        return [data.draw(st.integers(least, most)) for _ in range(axes)]

    kernel, stride, pad, dilation = drawn(1, 3), drawn(1, 3), drawn(0, 2), drawn(1, 2)
    sizes = [max(1, d * (k - 1) + 1 - 2 * p + more)
             for d, k, p, more in zip(dilation, kernel, pad, drawn(0, 4), strict=True)]
    outer = tuple(data.draw(st.integers(1, 3)) for _ in range(axis))
    channels = data.draw(st.integers(1, 3))
    x = numbers((*outer, channels, *sizes), 1)
    fields = {"kernel_size": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    text = " ".join(f"{name}: {list(values)}" for name, values in fields.items())
    net, seeds = run(layer("Im2col", more=f"convolution_param {{ axis: {axis} {text} }}"), OPS, {"x": x})
    dy = seeds["y"]
    output = [len(range(-p, i + p - d * (k - 1), s))
              for i, p, d, k, s in zip(sizes, pad, dilation, kernel, stride, strict=True)]
    assert dy.shape == (*outer, channels * math.prod(kernel), *output)
    sources: dict[tuple[int, ...], tuple[int, ...] | None] = {}
    for to in places(dy.shape):
        channel, *tap = np.unravel_index(to[axis], (channels, *kernel))
        place = [o * s - p + t * d for o, s, p, t, d in zip(to[axis + 1:], stride, pad, tap, dilation, strict=True)]
        inside = all(0 <= i < size for i, size in zip(place, sizes, strict=True))
        sources[to] = (*to[:axis], int(channel), *map(int, place)) if inside else None
    y, dx = moved(x, dy, sources)
    np.testing.assert_array_equal(net.blobs["y"].data, y)
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-12, atol=1e-12)


def test_im2col_takes_other_sizes_later() -> None:
    net, _ = run(layer("Im2col", more="convolution_param { kernel_h: 2 kernel_w: 1 stride: 2 }"), OPS,
                 {"x": numbers((2, 3, 4, 5))})
    x = numbers((1, 3, 2, 7))
    again(net, {"x": x})
    expected = x[0, :, :, ::2].reshape(1, 6, 1, 4)
    np.testing.assert_array_equal(net.blobs["y"].data, expected)


@pytest.mark.parametrize(("shape", "param", "message"), [
    ((2, 3), "kernel_size: 1", r"layer \(Im2col\): needs spatial axes behind channel axis 1; bottom has shape"),
    ((2, 3, 4), "kernel_size: 2 kernel_size: 2", r"kernel_size has 2 entries; give 1 or one for each of the 1 spatial"),
    ((2, 3, 4, 4), "", r"kernel_size is missing"), ((2, 3, 4, 4), "kernel_size: 0", r"kernel_size is \(0, 0\); each"),
    ((2, 3, 4, 4), "kernel_size: 3 dilation: 2", r"kernel_h=3 \(extent 5 with dilation 2\) exceeds the padded size 4"),
    ((2, 3, 4, 4), "kernel_size: 3 kernel_h: 3", r"gives both kernel_size and kernel_h; give one of them"),
])
def test_im2col_refuses(shape: tuple[int, ...], param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=shape) + layer("Im2col", more=f"convolution_param {{ {param} }}"), OPS)


# ---- the primitive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "sizes", "strides", "offset"), [
    ((2, 3, 4), (2, 3, 4), (12, 4, 1), 0), ((2, 3, 4), (4, 2, 3), (1, 12, 4), 0),
    ((5, 6, 7), (3, 2, 4), (42, 7, 1), 52),
    ((2, 6), (2, 3, 6), (6, 0, 1), 0), ((6,), (3, 6), (0, 1), 0), ((4,), (4, 3), (1, 0), 0), ((), (), (), 0),
    ((3, 4), (3, 2, 4, 2), (4, 0, 1, 0), 0), ((3, 0, 2), (0, 3, 2), (2, 0, 1), 0),
    ((40, 90, 80), (80, 40, 90), (1, 7200, 80), 0),
    ((2, 3, 4, 5, 2), (2, 5, 3, 2, 4), (120, 2, 40, 1, 10), 0),
    ((2, 3, 2, 2, 3, 2), (2, 3, 2, 2, 3, 2), (1, 2, 6, 12, 24, 72), 0),
])
def test_rearrange(ops: OpSet, shape: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...],
                   offset: int) -> None:
    geometry = StridedGeometry(sizes, strides, offset, math.prod(shape))
    primitive = ops.rearrange(geometry)
    x, dy = numbers(shape, 1), numbers(sizes, 2)
    flat = np.arange(x.size)
    taken = (np.lib.stride_tricks.as_strided(flat[offset:], sizes, [s * flat.itemsize for s in strides])
             if dy.size else np.zeros(sizes, int))
    y, dx = blank(ops, sizes), blank(ops, shape)
    primitive.forward(put(ops, x), y)
    np.testing.assert_array_equal(got(y), x.reshape(-1)[taken])
    primitive.backward(put(ops, dy), dx)
    expected = np.zeros(x.size)
    np.add.at(expected, taken.reshape(-1), dy.reshape(-1))
    np.testing.assert_allclose(got(dx).reshape(-1), expected, rtol=1e-6, atol=1e-6)


def test_unfold(ops: OpSet) -> None:
    """Large enough for all cores; folding is the transpose of unfolding."""
    geometry = ConvolutionGeometry(8, 4, 1, (40, 40), (3, 3), (1, 1), (1, 1), (1, 1))
    x, dy = numbers(geometry.x_shape, 1), numbers((8, 36, 40, 40), 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    primitive = ops.unfold(geometry)
    for _ in range(2):
        y, dx = blank(ops, dy.shape), blank(ops, x.shape)
        primitive.forward(put(ops, x), y)
        np.testing.assert_array_equal(got(y), windows.transpose(0, 1, 4, 5, 2, 3).reshape(dy.shape))
        primitive.backward(put(ops, dy), dx)
        assert float(np.vdot(got(dx).astype(np.float64), x)) == pytest.approx(
            float(np.vdot(dy.astype(np.float64), got(y))), rel=1e-5)


def test_a_view_beyond_its_tensor_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"sizes \(3, 4\) with strides \(4, 1\) reads the elements 2 to 13 of 12"):
        StridedGeometry((3, 4), (4, 1), 2, 12)


def test_axes_that_lie_as_one_are_merged() -> None:
    assert StridedGeometry((2, 3, 1, 4), (12, 4, 9, 1), 0, 24).merged() == StridedGeometry((24,), (1,), 0, 24)
    assert StridedGeometry((2, 3, 4), (12, 0, 1), 0, 24).merged().sizes == (2, 3, 4)
    assert StridedGeometry((1, 1), (7, 7), 3, 9).merged() == StridedGeometry((1,), (1,), 3, 9)
