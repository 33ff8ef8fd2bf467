"""The contract of every op set: each computation against plain loops, over a table of shapes.

Outputs are full of NaN beforehand, so that an element that nobody writes shows; gradients of
parameters hold numbers beforehand, to which is to be added.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import references as ref
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from little_nets import Probe, inputs, layer, make
from tensors import blank, got, numbers, put
from tolerances import assert_close

import barista
from barista.blob import Tensor
from barista.errors import DataError
from barista.gemm import batching
from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.base import AxisGeometry, LossRule, OpSet
from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]
BOUNDED = settings(max_examples=60, derandomize=True, deadline=None, database=None,
                   suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])


# ---- convolution ------------------------------------------------------------------------------------------


def geometry(batch: int, channels: int, outputs: int, input_: tuple[int, ...], kernel: tuple[int, ...],
             stride: int = 1, pad: int = 0, dilation: int = 1, group: int = 1) -> ConvolutionGeometry:
    axes = len(input_)
    return ConvolutionGeometry(batch, channels, outputs, input_, kernel, (stride,) * axes, (pad,) * axes,
                               (dilation,) * axes, group)


CONVOLUTIONS = {
    "smallest": geometry(1, 1, 1, (1, 1), (1, 1)),
    "one_pixel_out": geometry(2, 3, 4, (3, 3), (3, 3)),
    "plain": geometry(2, 3, 4, (6, 5), (3, 3)),
    "same_size": geometry(3, 2, 3, (5, 7), (3, 3), pad=1),
    "stride": geometry(2, 3, 2, (9, 8), (3, 3), stride=2, pad=1),
    "stride_beyond_kernel": geometry(2, 2, 3, (8, 9), (2, 2), stride=3),
    "large_kernel": geometry(1, 2, 2, (11, 11), (11, 11), stride=4, pad=3),
    "dilation": geometry(2, 2, 2, (7, 8), (3, 3), pad=2, dilation=2),
    "group": geometry(2, 4, 6, (5, 4), (3, 3), pad=1, group=2),
    "depthwise": geometry(2, 5, 5, (4, 4), (3, 3), pad=1, group=5),
    "depthwise_wider": geometry(1, 3, 6, (4, 4), (2, 2), group=3),
    "pointwise": geometry(3, 5, 4, (3, 5), (1, 1)),
    "pointwise_group": geometry(2, 4, 4, (3, 3), (1, 1), group=2),
    "pointwise_stride": geometry(2, 3, 4, (5, 5), (1, 1), stride=2),
    "pointwise_pad": geometry(2, 3, 4, (3, 3), (1, 1), pad=1),
    "kernel_in_padding": geometry(1, 2, 2, (2, 2), (2, 2), stride=2, pad=4),
    "many_channels": geometry(1, 17, 9, (4, 4), (3, 3), pad=1),
    "many_images": geometry(9, 2, 2, (4, 5), (3, 3), pad=1),
    "turned_weights": geometry(5, 8, 3, (4, 5), (3, 3), pad=1),
    "turned_weights_group": geometry(2, 16, 4, (3, 4), (3, 2), pad=1, group=2),
    "rectangle": ConvolutionGeometry(2, 2, 3, (7, 5), (5, 2), (2, 1), (3, 0), (1, 2), 1),
    "one_axis": geometry(2, 3, 4, (9,), (3,), stride=2, pad=1),
    "three_axes": geometry(2, 2, 3, (3, 4, 3), (2, 3, 1), pad=1),
}


def check_convolution(ops: OpSet, g: ConvolutionGeometry) -> None:
    """All three passes, with and without a bias."""
    x, w, b = numbers(g.x_shape, 1), numbers(g.w_shape, 2), numbers((g.out_channels,), 3)
    dy, before = numbers(g.y_shape, 4), numbers(g.w_shape, 5)
    how = (g.stride, g.pad, g.dilation, g.group)
    primitive = ops.convolution(g)

    def scale(k: int) -> float:
        return max(1.0, k**0.5)

    truth = ref.convolution(x, w, b, *how)
    assert truth.shape == g.y_shape
    y = blank(ops, g.y_shape)
    primitive.forward(put(ops, x), put(ops, w), put(ops, b), y)
    assert_close(got(y), truth, g.depth, scale(g.depth))
    primitive.forward(put(ops, x), put(ops, w), None, y)
    assert_close(got(y), ref.convolution(x, w, None, *how), g.depth, scale(g.depth))

    dx, dw, _ = ref.convolution_gradients(x, w, dy, *how)
    weight_gradient = put(ops, before)
    k = g.batch * g.pixels
    primitive.grad_weight(put(ops, x), put(ops, dy), weight_gradient)
    assert_close(got(weight_gradient), before + dw, k, scale(k))
    input_gradient = blank(ops, g.x_shape)
    k = g.out_channels // g.group * int(np.prod(g.kernel))
    primitive.grad_input(put(ops, dy), put(ops, w), input_gradient)
    assert_close(got(input_gradient), dx, k, scale(k))
    # The forward pass still gives what it gave: no pass leaves anything behind in a workspace.
    primitive.forward(put(ops, x), put(ops, w), put(ops, b), y)
    assert_close(got(y), truth, g.depth, scale(g.depth))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str, ops: OpSet) -> None:
    check_convolution(ops, CONVOLUTIONS[name])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 400, 3000])
def test_convolution_in_chunks(size: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's columns cut small: rows, images, and rests of both."""
    monkeypatch.setattr(batching, "CHUNK_COLUMN_BYTES", size)
    ops = CpuOps(np.float32, threads)
    names = ("plain", "stride", "group", "pointwise", "many_images", "turned_weights", "three_axes", "one_axis",
             "kernel_in_padding")
    for name in names:
        check_convolution(ops, CONVOLUTIONS[name])


@st.composite
def convolution_geometries(draw: st.DrawFn) -> ConvolutionGeometry:
    """Small geometries of one or two axes in which the kernel fits."""
    axes = draw(st.integers(1, 2))
    group = draw(st.integers(1, 3))

    def sizes(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(least, most), min_size=axes, max_size=axes)))

    result = ConvolutionGeometry(draw(st.integers(1, 3)), group * draw(st.integers(1, 2)),
                                 group * draw(st.integers(1, 2)), sizes(1, 6), sizes(1, 4), sizes(1, 3), sizes(0, 3),
                                 sizes(1, 2), group)
    assume(min(result.output) >= 1)
    return result


@BOUNDED
@given(g=convolution_geometries())
def test_any_convolution(cpu: CpuOps, g: ConvolutionGeometry) -> None:
    assert g.output == tuple(ref.convolution_size(*sizes)
                             for sizes in zip(g.input, g.kernel, g.stride, g.pad, g.dilation, strict=True))
    check_convolution(cpu, g)


@dataclasses.dataclass
class Run:
    """What one layer gave: tops, gradients of bottoms and of parameters."""

    tops: list[Array]
    bottoms: dict[str, Array]
    params: list[Array]
    seed: Array


def run_layer(ops: OpSet, text: str, arrays: dict[str, Array], params: list[Array]) -> Run:
    """Run one layer forward and backward with a random gradient on its first top."""
    net = make(inputs(**{name: array.shape for name, array in arrays.items()}) + text, ops)
    for name, array in arrays.items():
        net.blobs[name].data[...] = array
    for blob, array in zip(net.params.get("layer", []), params, strict=True):
        blob.data[...] = array.reshape(blob.shape)
    probe = Probe(net, dead=("m",))
    probe.seeds["y"] = probe.seeds["y"].astype(np.float32).astype(np.float64)
    probe.backward()
    return Run([net.blobs[name].data.copy() for name in net.layers[-1].param.top],
               {name: net.blobs[name].diff.copy() for name in arrays},
               [blob.diff.copy() for blob in net.params.get("layer", [])], probe.seeds["y"])


DECONVOLUTIONS = {
    "plain": ((2, 3, 3, 4), 2, (3, 3), 1, 0, 1, 1), "enlarging": ((2, 3, 3, 2), 2, (4, 4), 2, 1, 1, 1),
    "gaps": ((1, 2, 3, 3), 3, (2, 2), 3, 0, 1, 1), "group_dilation": ((2, 4, 3, 3), 6, (3, 3), 2, 1, 2, 2),
    "pointwise": ((2, 3, 3, 3), 4, (1, 1), 1, 0, 1, 1), "one_axis": ((2, 2, 5), 3, (3,), 2, 1, 1, 1),
    "smallest": ((1, 1, 1, 1), 1, (1, 1), 1, 0, 1, 1),
}


@pytest.mark.parametrize("name", DECONVOLUTIONS)
def test_deconvolution(name: str, ops: OpSet) -> None:
    shape, outputs, kernel, stride, pad, dilation, group = DECONVOLUTIONS[name]
    x, w, b = numbers(shape, 1), numbers((shape[1], outputs // group, *kernel), 2), numbers((outputs,), 3)
    axes = len(kernel)
    how = ((stride,) * axes, (pad,) * axes, (dilation,) * axes, group)
    run = run_layer(ops, layer("Deconvolution", more=f"""convolution_param {{
        num_output: {outputs} {" ".join(f"kernel_size: {k}" for k in kernel)} stride: {stride} pad: {pad}
        dilation: {dilation} group: {group} }}"""), {"x": x}, [w, b])
    k = int(np.prod(w.shape[1:])) * shape[1]
    assert_close(run.tops[0], ref.deconvolution(x, w, b, *how), k)
    # Its gradients are those of the convolution that it is the transpose of, with the roles exchanged.
    _, dw, _ = ref.convolution_gradients(run.seed, w, x, *how)
    assert_close(run.bottoms["x"], ref.convolution(run.seed, w, None, *how), k)
    assert_close(run.params[0], dw, k * 10)
    assert_close(run.params[1], run.seed.sum(axis=(0, *range(2, run.seed.ndim))), k * 10)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 3, 2), (17, 33)])
def test_inner_product(shape: tuple[int, ...], transpose: bool, ops: OpSet) -> None:
    x = numbers(shape, 1)
    flat = x.reshape(len(x), -1)
    w, b = numbers((5, flat.shape[1]), 2), numbers((5,), 3)
    run = run_layer(ops, layer("InnerProduct", more="inner_product_param { num_output: 5 transpose: "
                                                    f"{str(transpose).lower()} }}"),
                    {"x": x}, [w.T if transpose else w, b])
    y, dx, dw, db = ref.inner_product(flat, w, b, run.seed)
    assert_close(run.tops[0], y, w.shape[1], 1 + w.shape[1]**0.5)
    assert_close(run.bottoms["x"].reshape(flat.shape), dx, 5, 3)
    assert_close(run.params[0].T if transpose else run.params[0], dw, len(x), 1 + len(x)**0.5)
    assert_close(run.params[1], db, len(x), 1 + len(x)**0.5)


# ---- pooling ----------------------------------------------------------------------------------------------

# Input (N, C, H, W), kernel, stride, pad, rounded down.
POOLINGS = {
    "smallest": ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), False),
    "halves": ((2, 3, 6, 4), (2, 2), (2, 2), (0, 0), False),
    "odd_ceil": ((2, 2, 5, 7), (2, 2), (2, 2), (0, 0), False),
    "odd_floor": ((2, 2, 5, 7), (2, 2), (2, 2), (0, 0), True),
    "overlap": ((1, 3, 7, 7), (3, 3), (2, 2), (0, 0), False),
    "ceil_beyond": ((1, 2, 4, 5), (3, 3), (3, 3), (0, 0), False),
    "pad": ((2, 2, 5, 6), (3, 3), (2, 2), (1, 1), False),
    "pad_drops_window": ((1, 2, 4, 4), (2, 2), (3, 3), (1, 1), False),
    "pad_large": ((1, 2, 4, 3), (5, 5), (2, 2), (4, 4), False),
    "same_size": ((1, 2, 4, 5), (3, 3), (1, 1), (1, 1), False),
    "rectangle": ((2, 2, 7, 5), (3, 2), (1, 3), (2, 0), False),
    "whole_image": ((2, 3, 4, 5), (4, 5), (1, 1), (0, 0), False),
    "window_of_400": ((1, 1, 20, 21), (20, 20), (1, 1), (0, 0), False),
    "stride_beyond_kernel": ((1, 2, 7, 7), (1, 2), (3, 5), (0, 0), True),
}


def check_pooling(ops: OpSet, method: str, case: tuple[Any, ...], seed: int = 1) -> None:
    shape, kernel, stride, pad, floor = case
    param = (f"pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} "
             f"pad_h: {pad[0]} pad_w: {pad[1]} round_mode: {'FLOOR' if floor else 'CEIL'}")
    # Few different values, so that there are ties; most are negative, so that padding must not win.
    x = np.random.default_rng(seed).integers(-6, 1, shape).astype(np.float32)
    tops = "y m" if method == "MAX" else "y"
    run = run_layer(ops, layer("Pooling", top=tops, more=f"pooling_param {{ {param} }}"), {"x": x}, [])
    if method == "MAX":
        y, mask = ref.max_pooling(x, kernel, stride, pad, floor)
        np.testing.assert_array_equal(run.tops[0], y)
        np.testing.assert_array_equal(run.tops[1], mask)
        dx = ref.max_pooling_gradient(x, run.seed, kernel, stride, pad, floor)
    else:
        assert_close(run.tops[0], ref.average_pooling(x, kernel, stride, pad, floor), kernel[0] * kernel[1], 6)
        dx = ref.average_pooling_gradient(x, run.seed, kernel, stride, pad, floor)
    assert_close(run.bottoms["x"], dx, kernel[0] * kernel[1], 1.0)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("name", POOLINGS)
def test_pooling(name: str, method: str, ops: OpSet) -> None:
    check_pooling(ops, method, POOLINGS[name])


@BOUNDED
@given(data=st.data())
def test_any_pooling(cpu: CpuOps, data: st.DataObject) -> None:
    pair = st.tuples
    kernel = data.draw(pair(st.integers(1, 4), st.integers(1, 4)), "kernel")
    stride = data.draw(pair(st.integers(1, 4), st.integers(1, 4)), "stride")
    pad = data.draw(pair(st.integers(0, kernel[0] - 1), st.integers(0, kernel[1] - 1)), "pad")
    sizes = data.draw(pair(st.integers(1, 7), st.integers(1, 7)), "sizes")
    floor = data.draw(st.booleans(), "floor")
    for size, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        assume(k <= size + 2 * p)
        assume((ref.pooled_size(size, k, s, p, floor) - 1) * s - p < size)
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)), *sizes)
    for method in ("MAX", "AVE"):
        check_pooling(cpu, method, (shape, kernel, stride, pad, floor))


def test_max_pooling_of_equal_elements_takes_the_first(ops: OpSet) -> None:
    run = run_layer(ops, layer("Pooling", top="y m", more="pooling_param { kernel_size: 2 stride: 2 }"),
                    {"x": np.full((1, 1, 4, 4), -3, np.float32)}, [])
    np.testing.assert_array_equal(run.tops[1][0, 0], [[0, 2], [8, 10]])
    assert np.count_nonzero(run.bottoms["x"]) == 4


# ---- normalisation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.75, 0.5, 0.6])
@pytest.mark.parametrize(("shape", "size"), [((1, 1, 1, 1), 1), ((2, 5, 2, 3), 3), ((1, 4, 3, 3), 5), ((1, 3, 2, 2),
                                                                                                       15),
                                             ((2, 9, 1, 1), 7)])
def test_lrn_across(shape: tuple[int, ...], size: int, beta: float, ops: OpSet) -> None:
    x, dy = numbers(shape, 1) * 2, numbers(shape, 2)
    primitive = ops.lrn_across(shape, size, 1.5, beta, 2.0)
    y, dx = blank(ops, shape), blank(ops, shape)
    primitive.forward(put(ops, x), y)
    primitive.backward(put(ops, x), put(ops, dy), dx)
    truth = ref.lrn_across(x, dy, size, 1.5, beta, 2.0)
    assert_close(got(y), truth[0], 10)
    assert_close(got(dx), truth[1], 10, 4)


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize(("shape", "size"), [((1, 1, 1, 1), 1), ((1, 1, 1, 1), 3), ((2, 2, 5, 4), 3), ((1, 2, 3, 3),
                                                                                                       9)])
def test_lrn_within(shape: tuple[int, ...], size: int, beta: float, ops: OpSet) -> None:
    x, dy = numbers(shape, 1) * 2, numbers(shape, 2)
    primitive = ops.lrn_within(shape, size, 1.5, beta)
    y, dx = blank(ops, shape), blank(ops, shape)
    primitive.forward(put(ops, x), y)
    primitive.backward(put(ops, x), put(ops, dy), dx)
    truth = ref.lrn_within(x, dy, size, 1.5, beta)
    assert_close(got(y), truth[0], 30)
    assert_close(got(dx), truth[1], 30, 4)


AXES = [(1, 1, 1), (1, 5, 1), (4, 1, 1), (7, 3, 1), (1, 3, 7), (2, 3, 5), (3, 17, 9)]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("shape", AXES)
def test_batch_norm(shape: tuple[int, int, int], offset: float, in_place: bool, ops: OpSet) -> None:
    """The offset makes the mean large against the deviation: sums of squares would cancel."""
    x, dy = numbers(shape, 1) + np.float32(offset), numbers(shape, 2)
    y, mean, variance, dx = ref.batch_norm(x, dy, 1e-3)
    primitive = ops.batch_norm(AxisGeometry(*shape), 1e-3)
    source, gradient = put(ops, x), put(ops, dy)
    result, result_gradient = (source, gradient) if in_place else (blank(ops, shape), blank(ops, shape))
    found_mean, found_variance = blank(ops, shape[1:2]), blank(ops, shape[1:2])
    primitive.forward_train(source, found_mean, found_variance, result)
    # Rounding of the mean reaches y through a division by the deviation, which eps bounds from below.
    loose = 1 + offset * 30
    assert_close(got(found_mean), mean, 64, 1 + offset)
    assert_close(got(found_variance), variance, 64, loose)
    assert_close(got(result), y, 64, loose)
    primitive.backward_train(gradient, result_gradient)
    assert_close(got(result_gradient), dx, 64, max(loose, float(np.abs(dx).max())))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", AXES)
def test_batch_norm_with_given_statistics(shape: tuple[int, int, int], in_place: bool, ops: OpSet) -> None:
    x, dy, mean = numbers(shape, 1), numbers(shape, 2), numbers(shape[1:2], 3)
    variance = np.abs(numbers(shape[1:2], 4)) + np.float32(0.1)
    primitive = ops.batch_norm(AxisGeometry(*shape), 1e-5)
    source, gradient = put(ops, x), put(ops, dy)
    result, result_gradient = (source, gradient) if in_place else (blank(ops, shape), blank(ops, shape))
    primitive.forward_test(source, put(ops, mean), put(ops, variance), result)
    primitive.backward_test(gradient, result_gradient)
    y, dx = ref.batch_norm_test(x, mean, variance, dy, 1e-5)
    assert_close(got(result), y, 4, 4)
    assert_close(got(result_gradient), dx, 4, 4)


# ---- vectors against tensors ------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", AXES)
def test_broadcast(shape: tuple[int, int, int], in_place: bool, ops: OpSet) -> None:
    x, dy = numbers(shape, 1), numbers(shape, 2)
    v, bias, before = (numbers(shape[1:2], seed) for seed in (3, 4, 5))
    added, product, shifted, total, _ = ref.broadcast(x, v, bias, dy)
    primitive = ops.broadcast(AxisGeometry(*shape))
    k = shape[0] * shape[2]

    def target(source: Tensor) -> Tensor:
        return source if in_place else blank(ops, shape)

    for truth, shift in ((product, None), (shifted, put(ops, bias))):
        for saved in (None, blank(ops, shape)):
            source = put(ops, x)
            result = target(source)
            primitive.multiply(source, put(ops, v), result, shift, saved)
            assert_close(got(result), truth, 2, 4)
            if saved is not None:
                np.testing.assert_array_equal(got(saved), x)
    source = put(ops, x)
    result = target(source)
    primitive.add(source, put(ops, v), result)
    assert_close(got(result), added)
    vector = put(ops, before)
    primitive.sum(put(ops, dy), vector)
    assert_close(got(vector), before + total, k, 1 + k**0.5)
    vector.clear()
    primitive.sum(put(ops, dy), vector)
    assert_close(got(vector), total, k, 1 + k**0.5)


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("shape", AXES)
def test_broadcast_gradients(shape: tuple[int, int, int], wanted: tuple[bool, bool, bool], ops: OpSet) -> None:
    """Any of them can be left out; vectors are added to, or overwritten where they were cleared."""
    x, dy = numbers(shape, 1), numbers(shape, 2)
    v, before = (numbers(shape[1:2], seed) for seed in (3, 5))
    _, product, _, _, dot = ref.broadcast(dy, v, v, x)
    total = dy.astype(np.float64).sum((0, 2))
    k = shape[0] * shape[2]
    for cleared, in_place in itertools.product((False, True), repeat=2):
        gradient, dv, dbias = put(ops, dy), put(ops, before), put(ops, before)
        dx = gradient if in_place else blank(ops, shape)
        if cleared:
            dv.clear()
            dbias.clear()
        ops.broadcast(AxisGeometry(*shape)).gradients(
            gradient, put(ops, x), put(ops, v),
            *(tensor if asked else None for tensor, asked in zip((dx, dv, dbias), wanted, strict=True)))
        start = np.zeros_like(before) if cleared else before
        if wanted[0]:
            assert_close(got(dx), product, 2, 4)
        assert_close(got(dv), start + dot if wanted[1] else start, k, 1 + k**0.5)
        assert_close(got(dbias), start + total if wanted[2] else start, k, 1 + k**0.5)


def test_sums_cancel(ops: OpSet) -> None:
    """Large numbers of both signs whose sums are small."""
    half = numbers((50, 3, 11), 1) * 1000
    rest = numbers((1, 3, 11), 2)
    dy = np.concatenate([half, -half, rest])
    vector = put(ops, np.zeros(3))
    ops.broadcast(AxisGeometry(101, 3, 11)).sum(put(ops, dy), vector)
    assert_close(got(vector), rest.astype(np.float64).sum(axis=(0, 2)), 1111, 1000 * 33)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", AXES)
def test_prelu(shape: tuple[int, int, int], in_place: bool, ops: OpSet) -> None:
    x, dy, slope, before = numbers(shape, 1), numbers(shape, 2), numbers(shape[1:2], 3), numbers(shape[1:2], 4)
    y, dx, dslope = ref.prelu(x, slope, dy)
    primitive = ops.prelu(AxisGeometry(*shape))
    source, gradient = put(ops, x), put(ops, dy)
    result, result_gradient = (source, gradient) if in_place else (blank(ops, shape), blank(ops, shape))
    slope_gradient = put(ops, before)
    primitive.grad_slope(source, gradient, slope_gradient)
    primitive.grad_input(source, put(ops, slope), gradient, result_gradient)
    primitive.forward(source, put(ops, slope), result)
    assert_close(got(result), y)
    assert_close(got(result_gradient), dx)
    assert_close(got(slope_gradient), before + dslope, shape[0] * shape[2], 1 + (shape[0] * shape[2])**0.5)


def test_sums_of_a_tensor(ops: OpSet) -> None:
    for shape in ((1,), (3, 5), (70001,)):
        x = numbers(shape, 1)
        tensor = put(ops, x)
        assert ops.sum_squares([tensor]) == pytest.approx(float((x.astype(np.float64)**2).sum()), rel=1e-5)
        assert ops.sum_absolute([tensor]) == pytest.approx(float(np.abs(x.astype(np.float64)).sum()), rel=1e-5)


# ---- several tensors --------------------------------------------------------------------------------------

COMBINATIONS = [("SUM", (1.0, 1.0)), ("SUM", (1.0, 1.0, 1.0)), ("SUM", (0.5, -2.0, 0.0)), ("SUM", (3.0,)),
                ("PROD", (1.0, 1.0)), ("PROD", (1.0, 1.0, 1.0)), ("MAX", (1.0, 1.0)), ("MAX", (1.0, 1.0, 1.0, 1.0))]


@pytest.mark.parametrize("count", [1, 3, 1000])
@pytest.mark.parametrize(("operation", "coefficients"), COMBINATIONS)
def test_combine(operation: str, coefficients: tuple[float, ...], count: int, ops: OpSet) -> None:
    """Whole numbers, so that maxima tie, and zeros, by which a product cannot be divided."""
    rng = np.random.default_rng(1)
    xs = [rng.integers(-2, 3, count).astype(np.float32) for _ in coefficients]
    dy = numbers((count,), 2)
    y, grads = ref.combine(xs, dy, operation, coefficients)
    primitive = ops.combine(operation, coefficients, count)
    tensors, result = [put(ops, x) for x in xs], blank(ops, (count,))
    primitive.forward(tensors, result)
    assert_close(got(result), y)
    for index, truth in enumerate(grads):
        gradient = blank(ops, (count,))
        primitive.backward(index, tensors, result, put(ops, dy), gradient)
        assert_close(got(gradient), truth)


@pytest.mark.parametrize(("operation", "coefficients"), [c for c in COMBINATIONS if c[0] != "MAX"])
def test_combine_in_place(operation: str, coefficients: tuple[float, ...], ops: OpSet) -> None:
    xs = [numbers((70,), seed) for seed in range(len(coefficients))]
    y, _ = ref.combine(xs, xs[0], operation, coefficients)
    tensors = [put(ops, x) for x in xs]
    ops.combine(operation, coefficients, 70).forward(tensors, tensors[0])
    assert_close(got(tensors[0]), y, 4)


def test_unstable_product_gradient_divides(ops: OpSet) -> None:
    xs = [np.abs(numbers((50,), seed, zeros=0)) + np.float32(0.5) for seed in range(3)]
    dy = numbers((50,), 9)
    _, grads = ref.combine(xs, dy, "PROD", (1.0, 1.0, 1.0))
    primitive = ops.combine("PROD", (1.0, 1.0, 1.0), 50, stable=False)
    tensors, result = [put(ops, x) for x in xs], blank(ops, (50,))
    primitive.forward(tensors, result)
    for index, truth in enumerate(grads):
        gradient = blank(ops, (50,))
        primitive.backward(index, tensors, result, put(ops, dy), gradient)
        assert_close(got(gradient), truth, 4)


@pytest.mark.parametrize(("outer", "sizes", "inner"), [(1, (1,), 1), (2, (3, 1, 2), 5), (3, (2, 2), 1), (1, (4, 3), 7)])
def test_join(outer: int, sizes: tuple[int, ...], inner: int, ops: OpSet) -> None:
    parts = [numbers((outer, size, inner), seed) for seed, size in enumerate(sizes)]
    whole = ref.join(parts)
    primitive = ops.join(outer, sizes, inner)
    result = blank(ops, whole.shape)
    primitive.join([put(ops, part) for part in parts], result)
    np.testing.assert_array_equal(got(result), whole)
    targets: list[Tensor | None] = [blank(ops, part.shape) for part in parts]
    if len(targets) > 1:
        targets[0] = None
    primitive.split(result, targets)
    for target, part in zip(targets, parts, strict=True):
        if target is not None:
            np.testing.assert_array_equal(got(target), part)


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout(in_place: bool, ops: OpSet) -> None:
    count, ratio = 20000, 0.3
    primitive = ops.dropout(count, ratio)
    x, dy = np.abs(numbers((count,), 1, zeros=0)) + 1, np.abs(numbers((count,), 2, zeros=0)) + 1
    source, gradient = put(ops, x), put(ops, dy)
    result, result_gradient = (source, gradient) if in_place else (blank(ops, (count,)), blank(ops, (count,)))
    primitive.forward(source, result, np.random.default_rng(3))
    primitive.backward(gradient, result_gradient)
    y, dx = got(result), got(result_gradient)
    kept = y != 0
    assert abs(kept.mean() - (1 - ratio)) < 0.02
    assert_close(y, np.where(kept, x / (1 - ratio), 0), 2)
    assert_close(dx, np.where(kept, dy / (1 - ratio), 0), 2)
    again = blank(ops, (count,))
    ops.dropout(count, ratio).forward(put(ops, x), again, np.random.default_rng(3))
    np.testing.assert_array_equal(got(again) != 0, kept)
    ops.dropout(count, ratio).forward(put(ops, x), again, np.random.default_rng(4))
    assert (got(again) != 0).tolist() != kept.tolist()


# ---- softmax and losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("factor", [1.0, 200.0])
@pytest.mark.parametrize("shape", AXES)
def test_softmax(shape: tuple[int, int, int], factor: float, in_place: bool, ops: OpSet) -> None:
    """Large scores would overflow the exponential without subtracting the maximum."""
    x, dy = numbers(shape, 1) * np.float32(factor), numbers(shape, 2)
    y, dx = ref.softmax(x, dy)
    primitive = ops.softmax(AxisGeometry(*shape))
    source, gradient = put(ops, x), put(ops, dy)
    result, result_gradient = (source, gradient) if in_place else (blank(ops, shape), blank(ops, shape))
    primitive.forward(source, result)
    assert_close(got(result), y, 64, 1)
    primitive.backward(result, gradient, result_gradient)
    assert_close(got(result_gradient), dx, 64, 2)


RULES = [LossRule(mode, ignore) for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE") for ignore in (None, 1, -1)]


def rule_name(rule: LossRule) -> str:
    return f"{rule.normalization}-{rule.ignore_label}"


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("shape", [(1, 2, 1), (5, 4, 1), (2, 3, 6)])
def test_softmax_loss(shape: tuple[int, int, int], rule: LossRule, ops: OpSet) -> None:
    outer, axis, inner = shape
    x = numbers(shape, 1) * 3
    labels = np.random.default_rng(2).integers(0, axis, (outer, inner)).astype(np.float32)
    if rule.ignore_label is not None:
        labels.flat[0] = rule.ignore_label
    loss, dx = ref.softmax_loss(x, labels, rule.normalization, rule.ignore_label)
    probabilities = put(ops, ref.softmax(x, x)[0])
    primitive = ops.softmax_loss(AxisGeometry(*shape), rule)
    result, gradient = blank(ops, ()), blank(ops, shape)
    primitive.forward(probabilities, put(ops, labels), result)
    primitive.backward(probabilities, put(ops, labels), put(ops, np.array(2.5)), gradient)
    assert_close(got(result), loss, 64, 1 + loss)
    assert_close(got(gradient), 2.5 * dx, 4, 2.5)


def test_softmax_loss_of_probability_zero(ops: OpSet) -> None:
    """Caffe: clipped at the smallest normal number of float32."""
    result = blank(ops, ())
    ops.softmax_loss(AxisGeometry(1, 2, 1), LossRule()).forward(
        put(ops, [[[0.0], [1.0]]]), put(ops, [[0.0]]), result)
    assert got(result) == pytest.approx(-np.log(np.finfo(np.float32).tiny), rel=1e-5)


@pytest.mark.parametrize("label", [-1, 3, 100])
@pytest.mark.parametrize("kind", ["softmax", "hinge", "accuracy"])
def test_labels_out_of_range(kind: str, label: int, ops: OpSet) -> None:
    """An error, or NaN from a device that cannot raise; never a number that looks right."""
    g = AxisGeometry(2, 3, 1)
    x, labels, result = put(ops, numbers((2, 3, 1), 1)), put(ops, [[0], [label]]), put(ops, 0.5)
    try:
        if kind == "softmax":
            ops.softmax_loss(g, LossRule()).forward(put(ops, ref.softmax(got(x), got(x))[0]), labels, result)
        elif kind == "hinge":
            ops.hinge_loss(g, "L1").forward(x, labels, blank(ops, (2, 3)), result)
        else:
            ops.accuracy(g, 1, None).forward(x, labels, result, None)
    except DataError as error:
        assert f"label {label} " in str(error) and "3 classes 0 to 2" in str(error)
    else:
        assert ops.name != "cpu"
        assert np.isnan(got(result))


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (1, 7), (5, 3)])
def test_euclidean_loss(batch: int, size: int, ops: OpSet) -> None:
    a, b = numbers((batch, size), 1), numbers((batch, size), 2)
    loss, da = ref.euclidean_loss(a, b)
    primitive = ops.euclidean_loss(batch * size, batch)
    result, gradient = blank(ops, ()), blank(ops, (batch, size))
    primitive.forward(put(ops, a), put(ops, b), result)
    primitive.backward(put(ops, a), put(ops, b), put(ops, np.array(-0.5)), gradient)
    assert_close(got(result), loss, 16)
    assert_close(got(gradient), -0.5 * da, 2)


@pytest.mark.parametrize("rule", [*RULES, LossRule("VALID", 0)], ids=rule_name)
@pytest.mark.parametrize("factor", [1.0, 60.0])
def test_sigmoid_cross_entropy_loss(factor: float, rule: LossRule, ops: OpSet) -> None:
    """Large scores saturate the sigmoid; the loss stays finite.

    Caffe: targets are cut to whole numbers before they are compared with ignore_label.
    """
    x = numbers((4, 5), 1) * np.float32(factor)
    targets = np.random.default_rng(2).random((4, 5)).astype(np.float32)
    targets[0, :2], targets[3, 3] = (0, 1), 1
    if rule.ignore_label == -1:
        targets[2, 2] = -1
    loss, dx = ref.sigmoid_cross_entropy_loss(x, targets, rule.normalization, rule.ignore_label)
    primitive = ops.sigmoid_cross_entropy_loss(20, 4, rule)
    result, gradient = blank(ops, ()), blank(ops, (4, 5))
    primitive.forward(put(ops, x), put(ops, targets), result)
    primitive.backward(put(ops, x), put(ops, targets), put(ops, np.array(3.0)), gradient)
    assert_close(got(result), loss, 64, 1 + loss)
    assert_close(got(gradient), 3 * dx, 4, 3)


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 7)])
def test_hinge_loss(shape: tuple[int, int], norm: str, ops: OpSet) -> None:
    x = numbers(shape, 1) * 2
    labels = np.random.default_rng(2).integers(0, shape[1], shape[0]).astype(np.float32)
    loss, dx = ref.hinge_loss(x, labels, norm)
    primitive = ops.hinge_loss(AxisGeometry(*shape, 1), norm)
    result, margins = blank(ops, ()), blank(ops, shape)
    primitive.forward(put(ops, x), put(ops, labels), margins, result)
    assert_close(got(result), loss, 64, 1 + loss)
    signs = np.ones(shape)
    signs[np.arange(shape[0]), labels.astype(int)] = -1
    assert_close(got(margins), np.maximum(0, 1 + signs * x), 2)
    primitive.backward(put(ops, labels), put(ops, np.array(1.5)), margins)
    assert_close(got(margins), 1.5 * dx, 4)


@pytest.mark.parametrize("ignore", [None, 1, 9])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (9, 1), (2, 6)])
def test_accuracy(outer: int, inner: int, top_k: int, ignore: int | None, ops: OpSet) -> None:
    """Scores are whole numbers, so that they tie: a tie counts against the label."""
    rng = np.random.default_rng(outer + inner)
    x = rng.integers(-2, 3, (outer, 4, inner)).astype(np.float32)
    labels = rng.integers(0, 3, (outer, inner)).astype(np.float32)  # class 3 never occurs
    if ignore == 9:
        labels.flat[0] = 9
    share, per_class = ref.accuracy(x, labels, top_k, ignore)
    primitive = ops.accuracy(AxisGeometry(outer, 4, inner), top_k, ignore)
    result, classes = blank(ops, ()), blank(ops, (4,))
    primitive.forward(put(ops, x), put(ops, labels), result, classes)
    assert_close(got(result), share)
    assert_close(got(classes), per_class)
    primitive.forward(put(ops, x), put(ops, labels), result, None)
    assert_close(got(result), share)


# ---- the whole path: a small net on every op set ----------------------------------------------------------

SMALL_NET = (
    layer("Convolution", "x", "c", "convolution_param { num_output: 6 kernel_size: 3 pad: 1 "
                                   "weight_filler { type: 'xavier' } }", "conv")
    + layer("ReLU", "c", "c", name="relu")
    + layer("Pooling", "c", "p", "pooling_param { kernel_size: 3 stride: 2 }", "pool")
    + layer("LRN", "p", "n", "lrn_param { local_size: 3 alpha: 0.5 }", "norm")
    + layer("InnerProduct", "n", "f", "inner_product_param { num_output: 5 weight_filler { type: 'xavier' } }", "fc")
    + layer("SoftmaxWithLoss", "f t", "loss", name="loss") + layer("Accuracy", "f t", "right", name="accuracy"))


def test_small_net_agrees_with_float64(ops: OpSet, cpu64: CpuOps) -> None:
    nets = []
    for each in (ops, cpu64):
        net = make(inputs(x=(4, 3, 9, 8), t=(4,)) + SMALL_NET, each, barista.TRAIN, head="")
        net.blobs["x"].data[...] = numbers((4, 3, 9, 8), 1)
        net.blobs["t"].data[...] = [0, 4, 2, 2]
        nets.append(net)
    for blob, other in zip(nets[0].learnable, nets[1].learnable, strict=True):
        other.blob.data[...] = blob.blob.data
    for net in nets:
        net.forward_pass()
        net.clear_param_diffs()
        net.backward_pass()
    assert nets[0].loss() == pytest.approx(nets[1].loss(), rel=1e-5)
    assert float(nets[0].blobs["right"].data) == float(nets[1].blobs["right"].data)
    for blob, other in zip(nets[0].learnable, nets[1].learnable, strict=True):
        assert_close(blob.blob.diff, other.blob.diff, 1024)
