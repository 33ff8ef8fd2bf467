"""Every OpenCL primitive against a plain reference in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from opencl_device import empty, host, numbers, open_opencl, tensor
from tolerances import assert_close

from barista.blob import HOST, Tensor
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.ops.base import AxisGeometry, Convolution, LossRule, OpSet, PoolingGeometry
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps, conv_unrolled
from barista.ops.opencl.convolution import OpenCLConvolution
from barista.ops.opencl.device import kernel_source
from barista.ops.opencl.gemm import PACK_ROWS
from barista.resources import find
from barista.runtime.driver import cl

pytestmark = pytest.mark.opencl

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def close(actual: Tensor, expected: npt.ArrayLike, scale: float = 1.0, tolerance: float = 3e-6) -> None:
    """Compare with an error bound relative to the size of what was summed."""
    np.testing.assert_allclose(host(actual).reshape(-1), np.asarray(expected, np.float64).reshape(-1),
                               rtol=tolerance, atol=tolerance * max(scale, 1e-30))


# ---- element-wise programs ------------------------------------------------------------------

PROGRAMS = {
    "y = max(x, 0) + 0.25 * min(x, 0)": lambda x: np.maximum(x, 0) + 0.25 * np.minimum(x, 0),
    "y = where(x > 0, x, -x / 2)": lambda x: np.where(x > 0, x, -x / 2),
    "y = where(x <= 0.5, 1, where(x != 2, 2, 3))": lambda x: np.where(x <= 0.5, 1, np.where(x != 2, 2, 3)),
    "y = where(x >= 0, where(x == 0, 5, 6), where(x < -1, 7, 8))":
        lambda x: np.where(x >= 0, np.where(x == 0, 5, 6), np.where(x < -1, 7, 8)),
    "y = exp(x) - 1": lambda x: np.exp(x) - 1,
    "y = log(abs(x) + 1e-05)": lambda x: np.log(np.abs(x) + 1e-5),
    "y = sqrt(x * x + 1)": lambda x: np.sqrt(x * x + 1),
    "y = 0.5 * tanh(0.5 * x) + 0.5": lambda x: 0.5 * np.tanh(0.5 * x) + 0.5,
    "y = sign(x) + abs(x)": lambda x: np.sign(x) + np.abs(x),
    "y = pow(abs(x) + 0.5, 1.5)": lambda x: (np.abs(x) + 0.5) ** 1.5,
    "y = 3": lambda x: np.full_like(x, 3),
}


@pytest.mark.parametrize("count", [1, 7, 256, 1001])
@pytest.mark.parametrize("source", PROGRAMS)
def test_elementwise_functions(ops: OpenCLOps, rng: np.random.Generator, source: str, count: int) -> None:
    x = 3 * numbers(rng, count)
    y = empty(count)
    ops.elementwise(source, ("x", "y"), count).run({"x": tensor(x), "y": y})
    close(y, PROGRAMS[source](x), 1)


def test_elementwise_runs_statement_after_statement(ops: OpenCLOps, rng: np.random.Generator) -> None:
    w, g, h = (numbers(rng, 1001) for _ in range(3))
    tensors = {"w": tensor(w), "g": tensor(g), "h": tensor(h)}
    program = ops.elementwise("h = momentum * h + rate * g\nw = w - h", ("w", "g", "h"), 1001)
    for rate in (0.1, 0.01):
        program.run(tensors, momentum=0.9, rate=rate)
        h = 0.9 * h + rate * g
        w = w - h
    close(tensors["h"], h)
    close(tensors["w"], w)


def test_elementwise_in_place_keeps_what_lay_on_the_host(ops: OpenCLOps, rng: np.random.Generator) -> None:
    x = numbers(rng, 33)
    t = tensor(x)
    ops.elementwise("y = max(x, 0)", ("x", "y"), 33).run({"x": t, "y": t})
    close(t, np.maximum(x, 0))


def test_elementwise_lets_nan_through(ops: OpenCLOps) -> None:
    y = empty(2)
    ops.elementwise("y = max(x, 0) + min(0, x)", ("x", "y"), 2).run({"x": tensor([math.nan, -2.0]), "y": y})
    np.testing.assert_array_equal(host(y), [math.nan, -2.0])


def test_elementwise_of_nothing(ops: OpenCLOps) -> None:
    t = Tensor((0,), np.float32)
    ops.elementwise("x = 0", ("x",), 0).run({"x": t})
    assert host(t).shape == (0,)


# ---- matrix products ------------------------------------------------------------------------

SIZES_K = (1, PACK_ROWS, 2 * PACK_ROWS + 1)


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
def test_gemm_at_the_edges_of_tiles(ops: OpenCLOps, rng: np.random.Generator, trans_a: bool, trans_b: bool) -> None:
    rows, columns = ops._device.gemm.tile_m, ops._device.gemm.tile_n(ops.dtype)
    for m, n, k in itertools.product((1, rows - 1, rows, 2 * rows + 1), (1, columns - 1, columns, 2 * columns + 1),
                                     SIZES_K):
        a, b = numbers(rng, m, k), numbers(rng, k, n)
        c = empty(m, n)
        ops.gemm(GemmShape(m, n, k), trans_a, trans_b).run(
            tensor(a.T if trans_a else a), tensor(b.T if trans_b else b), c)
        close(c, a @ b, math.sqrt(k))


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (-0.5, 0), (1, 1), (2, -0.25)])
def test_gemm_alpha_and_beta(ops: OpenCLOps, rng: np.random.Generator, alpha: float, beta: float) -> None:
    a, b, c = numbers(rng, 7, 20), numbers(rng, 20, 19), numbers(rng, 7, 19)
    result = tensor(c if beta else np.full_like(c, np.nan))
    ops.gemm(GemmShape(7, 19, 20), False, False).run(tensor(a), tensor(b), result, alpha=alpha, beta=beta)
    close(result, alpha * (a @ b) + beta * c, 5)


def test_gemm_of_terms_that_cancel(ops: OpenCLOps, rng: np.random.Generator) -> None:
    half, b = numbers(rng, 5, 40), numbers(rng, 40, 9)
    c = empty(5, 9)
    ops.gemm(GemmShape(5, 9, 80), False, False).run(
        tensor(np.hstack([1000 * half, -1000 * half])), tensor(np.vstack([b, b])), c)
    close(c, np.zeros((5, 9)), 1000 * math.sqrt(80))


# ---- convolutions ---------------------------------------------------------------------------

# batch, channels in and out, input, kernel, stride, pad, dilation, group
CONVOLUTIONS = {
    "1x1 image": (1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "kernel as large as the image": (2, 3, 5, (4, 5), (4, 5), (1, 1), (0, 0), (1, 1), 1),
    "pointwise": (3, 5, 7, (5, 3), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise in groups": (2, 6, 4, (3, 3), (1, 1), (1, 1), (0, 0), (1, 1), 2),
    "plain": (2, 3, 8, (9, 7), (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "padded": (2, 2, 3, (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "padding wider than the kernel": (1, 2, 2, (3, 3), (2, 2), (1, 1), (3, 2), (1, 1), 1),
    "stride": (2, 3, 4, (11, 9), (3, 2), (2, 3), (0, 0), (1, 1), 1),
    "stride above the kernel": (1, 2, 3, (9, 9), (2, 2), (4, 3), (1, 0), (1, 1), 1),
    "last rows unseen": (1, 1, 2, (8, 8), (3, 3), (3, 3), (0, 0), (1, 1), 1),
    "dilation": (2, 2, 3, (9, 9), (3, 3), (1, 1), (0, 0), (2, 3), 1),
    "all at once": (3, 4, 6, (10, 11), (3, 2), (2, 3), (2, 1), (2, 3), 2),
    "a group a channel": (2, 4, 8, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 4),
    "many taps": (2, 20, 7, (6, 6), (5, 5), (1, 1), (2, 2), (1, 1), 1),
    "one axis": (2, 3, 4, (17,), (5,), (2,), (2,), (1,), 1),
    "three axes": (2, 2, 4, (4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 0, 1), (1, 1, 2), 2),
}


def convolve(g: ConvolutionGeometry, x: Array, w: Array, dy: Array) -> tuple[Array, Array, Array]:
    """y (without bias), dw and dx by the definition: over all images, outputs and taps."""
    y, dw, dx = np.zeros(g.y_shape), np.zeros(g.w_shape), np.zeros(g.x_shape)
    rows, channels = g.out_channels // g.group, g.in_channels // g.group
    for group in range(g.group):
        out, inn = slice(group * rows, (group + 1) * rows), slice(group * channels, (group + 1) * channels)
        for o in np.ndindex(*g.output):
            for tap in np.ndindex(*g.kernel):
                at = tuple(oo * s - p + t * d for oo, s, p, t, d in
                           zip(o, g.stride, g.pad, tap, g.dilation, strict=True))
                if all(0 <= i < size for i, size in zip(at, g.input, strict=True)):
                    seen, weights = x[:, inn][(..., *at)], w[out][(..., *tap)]
                    gradient = dy[:, out][(..., *o)]
                    y[:, out][(..., *o)] += seen @ weights.T
                    dw[out][(..., *tap)] += gradient.T @ seen
                    dx[:, inn][(..., *at)] += gradient @ weights
    return y, dw, dx


def unrolled(ops: OpenCLOps, g: ConvolutionGeometry) -> Convolution:
    """The variant of last resort, which rounds of few images are about."""
    return OpenCLConvolution(ops._device, g, ops._choices, dict.fromkeys(Pass, "unrolled"))


@pytest.mark.parametrize("way", ["chosen", "unrolled", "unrolled, an image a round"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(ops: OpenCLOps, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, case: str,
                     way: str) -> None:
    if way == "unrolled, an image a round":
        monkeypatch.setattr(conv_unrolled, "ROUND_BYTES_CPU", 1)
        monkeypatch.setattr(conv_unrolled, "ROUND_BYTES", 1)
    g = ConvolutionGeometry(*CONVOLUTIONS[case])
    x, w, bias, dy, dw_before = (numbers(rng, *shape) for shape in
                                 (g.x_shape, g.w_shape, (g.out_channels,), g.y_shape, g.w_shape))
    y, dw, dx = convolve(g, x, w, dy)
    primitive = ops.convolution(g) if way == "chosen" else unrolled(ops, g)
    assert primitive.space is ops.space
    tx, tw, tdy, tdw, ty, tdx = (tensor(x), tensor(w), tensor(dy), tensor(dw_before), empty(*g.y_shape),
                                 empty(*g.x_shape))
    primitive.forward(tx, tw, tensor(bias), ty)
    assert_close(ty.read(HOST), y + bias.reshape(-1, *(1 for _ in g.output)), g.depth)
    primitive.forward(tx, tw, None, ty)
    assert_close(ty.read(HOST), y, g.depth)
    primitive.grad_weight(tx, tdy, tdw)
    assert_close(tdw.read(HOST), dw_before + dw, g.batch * g.pixels)
    primitive.grad_input(tdy, tw, tdx)
    assert_close(tdx.read(HOST), dx, g.out_channels * math.prod(g.kernel))


def test_convolution_in_uneven_rounds(ops: OpenCLOps, rng: np.random.Generator,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    g = ConvolutionGeometry(5, 2, 3, (6, 6), (3, 3), (1, 1), (0, 0), (1, 1))
    two_images = 2 * g.depth * 16 * 4  # 16 pixels: one panel an image
    monkeypatch.setattr(conv_unrolled, "ROUND_BYTES_CPU", two_images)
    monkeypatch.setattr(conv_unrolled, "ROUND_BYTES", two_images)
    x, w, dy = numbers(rng, *g.x_shape), numbers(rng, *g.w_shape), numbers(rng, *g.y_shape)
    y, dw, dx = convolve(g, x, w, dy)
    primitive = unrolled(ops, g)
    tdw, ty, tdx = tensor(np.zeros(g.w_shape)), empty(*g.y_shape), empty(*g.x_shape)
    primitive.forward(tensor(x), tensor(w), None, ty)
    primitive.grad_weight(tensor(x), tensor(dy), tdw)
    primitive.grad_input(tensor(dy), tensor(w), tdx)
    for actual, expected in ((ty, y), (tdw, dw), (tdx, dx)):
        close(actual, expected, 10)


def test_convolution_of_four_axes_runs_on_the_host(ops: OpenCLOps, rng: np.random.Generator) -> None:
    g = ConvolutionGeometry(1, 2, 2, (3, 2, 3, 2), (2, 1, 2, 2), (1,) * 4, (0,) * 4, (1,) * 4)
    x, w = numbers(rng, *g.x_shape), numbers(rng, *g.w_shape)
    primitive = ops.convolution(g)
    assert primitive.space is HOST
    y = empty(*g.y_shape)
    primitive.forward(tensor(x), tensor(w), None, y)
    close(y, convolve(g, x, w, np.zeros(g.y_shape))[0], 3)


# ---- pooling --------------------------------------------------------------------------------

# batch, channels, input, kernel, stride, pad, output
POOLINGS = {
    "one element": (1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    "lenet": (2, 3, (6, 8), (2, 2), (2, 2), (0, 0), (3, 4)),
    "rounded up": (2, 2, (5, 6), (2, 3), (2, 2), (0, 0), (3, 3)),
    "overlapping": (1, 3, (7, 7), (3, 3), (2, 2), (0, 0), (3, 3)),
    "padded": (2, 1, (5, 4), (3, 3), (2, 2), (1, 1), (3, 3)),
    "padded, overlapping": (1, 2, (5, 5), (3, 2), (1, 1), (1, 1), (5, 6)),
    "rows unseen": (1, 2, (9, 8), (2, 2), (3, 4), (0, 0), (3, 2)),
    "whole image": (3, 2, (4, 5), (4, 5), (1, 1), (0, 0), (1, 1)),
}


def windows(g: PoolingGeometry) -> list[tuple[tuple[int, int], list[tuple[int, int]], int]]:
    """For each output its place, the inputs it sees and the window's size clipped to the padded input."""
    found = []
    for o in np.ndindex(*g.output):
        starts = [oo * s - p for oo, s, p in zip(o, g.stride, g.pad, strict=True)]
        ends = [min(a + k, i + p) for a, k, i, p in zip(starts, g.kernel, g.input, g.pad, strict=True)]
        seen = [(h, w) for h in range(max(starts[0], 0), min(ends[0], g.input[0]))
                for w in range(max(starts[1], 0), min(ends[1], g.input[1]))]
        found.append(((o[0], o[1]), seen, math.prod(e - a for a, e in zip(starts, ends, strict=True))))
    return found


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pooling(ops: OpenCLOps, rng: np.random.Generator, case: str, ties: bool) -> None:
    g = PoolingGeometry(*POOLINGS[case])
    x, dy = np.round(numbers(rng, *g.x_shape) - 1, 2), numbers(rng, *g.y_shape)
    x = x.astype(np.float32).astype(np.float64)
    if ties:
        x = np.round(x)
    y, mask, dx = np.zeros(g.y_shape), np.zeros(g.y_shape), np.zeros(g.x_shape)
    for o, seen, _ in windows(g):
        for n, c in np.ndindex(g.batch, g.channels):
            first = max(seen, key=lambda at: x[n, c, at[0], at[1]])  # max keeps the first of equals
            y[n, c, o[0], o[1]] = x[n, c, first[0], first[1]]
            mask[n, c, o[0], o[1]] = first[0] * g.input[1] + first[1]
            dx[n, c, first[0], first[1]] += dy[n, c, o[0], o[1]]
    primitive = ops.max_pooling(g)
    ty, tmask, tdx = empty(*g.y_shape), empty(*g.y_shape), empty(*g.x_shape)
    primitive.forward(tensor(x), ty, tmask)
    np.testing.assert_array_equal(host(ty), y)
    np.testing.assert_array_equal(host(tmask), mask)
    primitive.backward(tensor(dy), tdx)
    close(tdx, dx)
    primitive.forward(tensor(-x), ty)
    np.testing.assert_array_equal(host(tmask), mask)


@pytest.mark.parametrize("place", range(4))
def test_max_pooling_lets_nan_through(ops: OpenCLOps, place: int) -> None:
    x = np.arange(4.0)
    x[place] = math.nan
    y, mask = empty(1), empty(1)
    ops.max_pooling(PoolingGeometry(1, 1, (2, 2), (2, 2), (2, 2), (0, 0), (1, 1))).forward(tensor(x), y, mask)
    assert math.isnan(float(host(y)[0]))
    assert host(mask)[0] == place


@pytest.mark.parametrize("case", POOLINGS)
def test_average_pooling(ops: OpenCLOps, rng: np.random.Generator, case: str) -> None:
    g = PoolingGeometry(*POOLINGS[case])
    x, dy = numbers(rng, *g.x_shape), numbers(rng, *g.y_shape)
    y, dx = np.zeros(g.y_shape), np.zeros(g.x_shape)
    for o, seen, size in windows(g):
        for h, w in seen:
            y[..., o[0], o[1]] += x[..., h, w] / size
            dx[..., h, w] += dy[..., o[0], o[1]] / size
    primitive = ops.average_pooling(g)
    ty, tdx = empty(*g.y_shape), empty(*g.x_shape)
    primitive.forward(tensor(x), ty)
    close(ty, y)
    primitive.backward(tensor(dy), tdx)
    close(tdx, dx)


# ---- softmax and its loss -------------------------------------------------------------------

def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 10, 1), (2, 3, 7), (1, 1001, 1)])
def test_softmax(ops: OpenCLOps, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    x, dy = 5 * numbers(rng, *shape), numbers(rng, *shape)
    x[0, 0, 0] = 90  # exp overflows in float32
    y = softmax(x)
    primitive = ops.softmax(AxisGeometry(*shape))
    result = empty(*shape)
    primitive.forward(tensor(x), result)
    close(result, y)
    dx = y * (dy - (dy * y).sum(1, keepdims=True))
    gradient = empty(*shape)
    primitive.backward(tensor(y), tensor(dy), gradient)
    close(gradient, dx)
    for source, run, expected in ((x, lambda t: primitive.forward(t, t), y),
                                  (dy, lambda t: primitive.backward(tensor(y), t, t), dx)):
        in_place = tensor(source)
        run(in_place)
        close(in_place, expected)


@pytest.mark.parametrize("ignore", [None, 2, 255])
@pytest.mark.parametrize("normalization", ["FULL", "VALID", "BATCH_SIZE", "NONE"])
def test_softmax_loss(ops: OpenCLOps, rng: np.random.Generator, normalization: str, ignore: int | None) -> None:
    shape = outer, axis, inner = 3, 5, 7
    p = softmax(2 * numbers(rng, *shape)).astype(np.float32).astype(np.float64)
    p[0, :, 0] = [0, 0, 1, 0, 0]
    labels = rng.integers(0, axis, (outer, inner))
    labels[0, 0] = 1  # a probability of 0 counts as the smallest float32
    if ignore == 255:
        labels[1, 2:5] = 255
    counts = np.ones((outer, inner), bool) if ignore is None else labels != ignore
    normaliser = {"FULL": outer * inner, "VALID": int(counts.sum()), "BATCH_SIZE": outer, "NONE": 1}[normalization]
    loss, dx = 0.0, np.zeros(shape)
    for n, i in zip(*np.nonzero(counts), strict=True):
        loss -= math.log(max(p[n, labels[n, i], i], float(np.finfo(np.float32).tiny))) / normaliser
        dx[n, :, i] = p[n, :, i]
        dx[n, labels[n, i], i] -= 1
    dx *= 0.5 / normaliser
    primitive = ops.softmax_loss(AxisGeometry(*shape), LossRule(normalization, ignore))
    result, gradient = empty(), empty(*shape)
    primitive.forward(tensor(p), tensor(labels), result)
    assert result.memory.spaces == {ops.space}
    close(result, loss, loss)
    primitive.backward(tensor(p), tensor(labels), tensor(0.5), gradient)
    close(gradient, dx)


def test_softmax_loss_with_nothing_valid(ops: OpenCLOps) -> None:
    primitive = ops.softmax_loss(AxisGeometry(2, 2, 1), LossRule("VALID", 1))
    loss, dx = empty(), empty(2, 2)
    primitive.forward(tensor([[0.5, 0.5], [1, 0]]), tensor([1, 1]), loss)
    assert host(loss) == 0
    primitive.backward(tensor([[0.5, 0.5], [1, 0]]), tensor([1, 1]), tensor(1), dx)
    np.testing.assert_array_equal(host(dx), np.zeros((2, 2)))


@pytest.mark.parametrize("label", [-1, 3])
def test_softmax_loss_of_a_label_that_is_no_class_is_nan(ops: OpenCLOps, label: int) -> None:
    loss = empty()
    ops.softmax_loss(AxisGeometry(2, 3, 1), LossRule()).forward(
        tensor(np.full((2, 3), 1 / 3)), tensor([0, label]), loss)
    assert math.isnan(float(host(loss)))


# ---- the rest -------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [1, 999, 100_003])
def test_sums(ops: OpenCLOps, rng: np.random.Generator, count: int) -> None:
    x = numbers(rng, count)
    assert ops.sum_squares([tensor(x)]) == pytest.approx(float((x * x).sum()), rel=1e-6)
    assert ops.sum_absolute([tensor(x)]) == pytest.approx(float(np.abs(x).sum()), rel=1e-6)


def test_dropout_drops_what_the_host_drops(ops: OpenCLOps, cpu: CpuOps, rng: np.random.Generator) -> None:
    x, dy = numbers(rng, 1001), numbers(rng, 1001)
    results = []
    for op_set in (cpu, ops):
        primitive = op_set.dropout(1001, 0.3)
        t, dx = tensor(x), tensor(dy)
        primitive.forward(t, t, np.random.default_rng(5))
        primitive.backward(dx, dx)
        results.append((host(t), host(dx)))
    (host_y, host_dx), (device_y, device_dx) = results
    np.testing.assert_allclose(device_y, host_y, rtol=1e-6)
    np.testing.assert_allclose(device_dx, host_dx, rtol=1e-6)
    dropped = (np.random.default_rng(5).random(1001, np.float32) < 0.3) | (x == 0)
    np.testing.assert_array_equal(device_y == 0, dropped)
    np.testing.assert_allclose(device_y[~dropped], x[~dropped] / 0.7, rtol=1e-6)


@pytest.mark.parametrize("inputs", [2, 3])
@pytest.mark.parametrize("operation", ["SUM", "PROD", "PROD unstable", "MAX"])
def test_combine(ops: OpenCLOps, rng: np.random.Generator, operation: str, inputs: int) -> None:
    stable, operation = "unstable" not in operation, operation.split()[0]
    coefficients = [1.0, -0.5, 2.0][:inputs] if operation == "SUM" else [1.0] * inputs
    xs = [np.round(2 * numbers(rng, 401)) + (0.25 if operation == "PROD" else 0) for _ in range(inputs)]
    dy = numbers(rng, 401)
    stacked = np.stack(xs)
    if operation == "SUM":
        y = np.tensordot(coefficients, stacked, 1)
        dxs = [c * dy for c in coefficients]
    elif operation == "PROD":
        y = stacked.prod(0)
        dxs = [dy * np.delete(stacked, i, 0).prod(0) for i in range(inputs)]
    else:
        y = stacked.max(0)
        order = [1, 0, *range(2, inputs)]  # of equals the second, then the first, then the others
        owner = np.asarray(order)[stacked[order].argmax(0)]
        dxs = [dy * (owner == i) for i in range(inputs)]
    primitive = ops.combine(operation, coefficients, 401, stable)
    tensors = [tensor(x) for x in xs]
    result = empty(401)
    primitive.forward(tensors, result)
    close(result, y, 5)
    for index, dx in enumerate(dxs):
        gradient = empty(401)
        primitive.backward(index, tensors, result, tensor(dy), gradient)
        close(gradient, dx, 5)
    if operation != "MAX":
        primitive.forward(tensors, tensors[-1])
        close(tensors[-1], y, 5)


@pytest.mark.parametrize(("outer", "sizes", "inner"), [(1, [1], 1), (3, [2, 1, 4], 5), (2, [1, 1], 1), (1, [3, 2], 2)])
def test_join(ops: OpenCLOps, rng: np.random.Generator, outer: int, sizes: list[int], inner: int) -> None:
    parts = [numbers(rng, outer, size, inner) for size in sizes]
    primitive = ops.join(outer, sizes, inner)
    whole = empty(outer, sum(sizes), inner)
    primitive.join([tensor(part) for part in parts], whole)
    np.testing.assert_array_equal(host(whole), np.concatenate(parts, 1))
    targets: list[Tensor | None] = [empty(*part.shape) for part in parts]
    targets[0] = None
    primitive.split(whole, targets)
    for part, target in zip(parts[1:], targets[1:], strict=True):
        assert target is not None
        np.testing.assert_array_equal(host(target), part)


# ---- all of them ----------------------------------------------------------------------------

@pytest.mark.parametrize("file", sorted(path.name for path in find("opencl_kernels").glob("*.cl")))
def test_kernel_files_compile_as_they_stand(ops: OpenCLOps, file: str) -> None:
    program = ops.context.programs.build(file, kernel_source(file))
    assert program.get_build_info(ops.context.device, cl.program_build_info.LOG).strip() == ""


def test_results_are_the_same_each_time(ops: OpenCLOps, rng: np.random.Generator) -> None:
    g = ConvolutionGeometry(9, 3, 8, (20, 20), (3, 3), (1, 1), (1, 1), (1, 1))
    x, w, dy = numbers(rng, *g.x_shape), numbers(rng, *g.w_shape), numbers(rng, *g.y_shape)
    runs = []
    for _ in range(3):
        primitive, dw, dx, db = ops.convolution(g), tensor(np.zeros(g.w_shape)), empty(*g.x_shape), tensor(np.zeros(8))
        primitive.grad_weight(tensor(x), tensor(dy), dw)
        primitive.grad_input(tensor(dy), tensor(w), dx)
        ops.broadcast(AxisGeometry(9, 8, 400)).sum(tensor(dy), db)
        runs.append(np.concatenate([host(t).reshape(-1) for t in (dw, dx, db)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_primitives_run_again_on_other_tensors(ops: OpenCLOps, rng: np.random.Generator) -> None:
    primitive = ops.gemm(GemmShape(3, 4, 5), False, False)
    for _ in range(3):
        a, b, c = numbers(rng, 3, 5), numbers(rng, 5, 4), empty(3, 4)
        primitive.run(tensor(a), tensor(b), c)
        close(c, a @ b, 3)


def test_float64(cpu64: CpuOps, rng: np.random.Generator) -> None:
    """The same kernels in double agree with the host to rounding."""
    ops = open_opencl(np.float64)
    g = ConvolutionGeometry(2, 4, 6, (7, 8), (3, 3), (2, 1), (1, 1), (1, 2), 2)
    pool = PoolingGeometry(2, 6, (4, 6), (2, 2), (2, 2), (0, 0), (2, 3))
    assert pool.x_shape == g.y_shape
    x, w, bias = (rng.normal(size=s) for s in (g.x_shape, g.w_shape, (6,)))
    labels = [1, 5]

    def run(op_set: OpSet) -> list[Array]:
        y, z, p, loss = (empty(*s, dtype="d") for s in (g.y_shape, pool.y_shape, pool.y_shape, ()))
        dz, dy, dx, dw = (empty(*s, dtype="d") for s in (pool.y_shape, g.y_shape, g.x_shape, g.w_shape))
        dw.write(HOST)[...] = 0
        tx, tw, target = tensor(x, "d"), tensor(w, "d"), tensor(labels, "d")
        conv, pooling = op_set.convolution(g), op_set.max_pooling(pool)
        classes = AxisGeometry(2, 36, 1)
        softmax_, loss_ = op_set.softmax(classes), op_set.softmax_loss(classes, LossRule())
        conv.forward(tx, tw, tensor(bias, "d"), y)
        op_set.elementwise("y = 0.1 * tanh(y) + exp(-y * y)", ("y",), y.count).run({"y": y})
        pooling.forward(y, z)
        softmax_.forward(z, p)
        loss_.forward(p, target, loss)
        loss_.backward(p, target, tensor(1.0, "d"), dz)
        pooling.backward(dz, dy)
        conv.grad_weight(tx, dy, dw)
        conv.grad_input(dy, tw, dx)
        return [host(t) for t in (y, loss, dw, dx)]

    for actual, expected in zip(run(ops), run(cpu64), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)
