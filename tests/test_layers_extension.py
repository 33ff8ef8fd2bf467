"""Barista's own layer types against NumPy and loops, and what they say to wrong arguments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from extension_cases import EXTENSIONS, one
from little_nets import inputs, make
from one_layer import again, run
from test_functions_planned import on
from test_memory_plan import DATA, LOSS, assert_same, conv, ip

from barista.errors import NetError
from barista.frontends.prototxt import parse_net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]
RNG = np.random.default_rng(3)
X = RNG.normal(0, 2, (2, 3, 5, 4))
X.flat[::7] = 0


def numbers(name: str, values: Sequence[int]) -> str:
    return f"{name}: [{', '.join(map(str, values))}]" if values else ""


def forward(text: str, ops: OpSet, *arrays: Array) -> Array:
    net, _ = run(text, ops, dict(zip("xz", arrays, strict=False)))
    return net.blobs["y"].data


# ---- element by element -----------------------------------------------------------------------------------

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide, "MAX": np.maximum, "MIN": np.minimum,
    "POW": lambda a, b: np.abs(a) ** b}


@pytest.mark.parametrize("operation", BINARY)
@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((), (2, 3)), ((4, 1, 1), (1, 2, 3)),
                                    ((1, 1), (1,)), ((0, 3), (3,))])
def test_binary(operation: str, shapes: tuple[tuple[int, ...], ...], cpu64: CpuOps) -> None:
    a, b = (RNG.normal(0, 2, shape) for shape in shapes)
    a = np.abs(a) if operation == "POW" else a
    actual = forward(one("Binary", f"binary_param {{ operation: {operation} }}", "x z"), cpu64, a, b)
    expected = BINARY[operation](a, b)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_equal_extremes_send_their_gradient_to_the_first(cpu64: CpuOps) -> None:
    for operation in ("MAX", "MIN"):
        net, seeds = run(one("Binary", f"binary_param {{ operation: {operation} }}", "x z"), cpu64,
                         {"x": np.zeros(3), "z": np.zeros(3)})
        np.testing.assert_array_equal(net.blobs["x"].diff, seeds["y"])
        np.testing.assert_array_equal(net.blobs["z"].diff, np.zeros(3))


def test_power_at_and_below_zero(cpu64: CpuOps) -> None:
    net, seeds = run(one("Binary", "binary_param { operation: POW }", "x z"), cpu64,
                     {"x": np.array([0.0, -2, 0, -2]), "z": np.array([2.0, 3, 0, 0])})
    np.testing.assert_array_equal(net.blobs["y"].data, [0, -8, 1, 1])
    np.testing.assert_allclose(net.blobs["x"].diff, seeds["y"] * [0, 12, 0, 0])
    np.testing.assert_array_equal(net.blobs["z"].diff, np.zeros(4))


VALUES = np.array([-1e4, -100, -6, -3.5, -3, -2.5, -1.5, -1, -0.5, -0.1, 0, 1e-8, 0.3, 0.49999999999999994, 0.5, 1, 1.5,
                   2.5, 3, 4.25, 100, 1e4])
PLAIN: dict[str, Callable[[Array], Array]] = {
    "HARD_SIGMOID": lambda x: np.clip(0.2 * x + 0.5, 0, 1), "HARD_SWISH": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "SOFTPLUS": lambda x: np.logaddexp(0, x), "SOFTSIGN": lambda x: x / (1 + np.abs(x)), "NEG": np.negative,
    "SIGN": np.sign, "FLOOR": np.floor, "CEIL": np.ceil, "TRUNC": np.trunc, "ROUND": np.round,
    "SELU": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "CELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "THRESHOLDED_RELU": lambda x: np.where(x > 1, x, 0), "MISH": lambda x: x * np.tanh(np.logaddexp(0, x))}


@pytest.mark.parametrize("name", PLAIN)
def test_functions(name: str, cpu64: CpuOps) -> None:
    actual = forward(one("Function", f"function_param {{ function: {name} }}"), cpu64, VALUES)
    np.testing.assert_allclose(actual, PLAIN[name](VALUES), rtol=1e-14, atol=1e-15)


def test_functions_of_positive_numbers_and_the_error_function(cpu64: CpuOps) -> None:
    x = np.array([0.25, 1, 4])
    np.testing.assert_array_equal(forward(one("Function", "function_param { function: SQRT }"), cpu64, x), [0.5, 1, 2])
    np.testing.assert_array_equal(forward(one("Function", "function_param { function: RECIPROCAL }"), cpu64, x),
                                  [4, 1, 0.25])
    # From Abramowitz and Stegun, table 7.1.
    x, erf = np.array([-1.0, 0, 0.5, 2]), np.array([-0.8427007929, 0, 0.5204998778, 0.9953222650])
    np.testing.assert_allclose(forward(one("Function", "function_param { function: ERF }"), cpu64, x), erf, atol=1e-10)
    np.testing.assert_allclose(forward(one("Function", "function_param { function: GELU }"), cpu64, x * np.sqrt(2)),
                               x * np.sqrt(2) * (1 + erf) / 2, atol=1e-10)


def test_function_s_own_constants(cpu64: CpuOps) -> None:
    actual = forward(one("Function", "function_param { function: SELU alpha: 2 beta: 3 }"), cpu64, VALUES)
    np.testing.assert_allclose(actual, 3 * np.where(VALUES > 0, VALUES, 2 * np.expm1(np.minimum(VALUES, 0))))
    actual = forward(one("Function", "function_param { function: HARD_SIGMOID alpha: 0.5 beta: 0 }"), cpu64, VALUES)
    np.testing.assert_allclose(actual, np.clip(VALUES / 2, 0, 1))


# ---- elements in other places -----------------------------------------------------------------------------

@pytest.mark.parametrize(("mode", "numpy_mode"), [("CONSTANT", "constant"), ("EDGE", "edge"), ("REFLECT", "reflect"),
                                                  ("WRAP", "wrap")])
@pytest.mark.parametrize("widths", [((0, 0), (1, 2), (0, 7), (9, 0)), ((1, 0), (0, 0), (-2, 3), (1, -1)),
                                    ((0, 0), (-1, -1), (-4, 9), (0, 0))])
def test_pad(mode: str, numpy_mode: Any, widths: tuple[tuple[int, int], ...], cpu64: CpuOps) -> None:
    begin, end = zip(*widths, strict=True)
    cut = X[tuple(slice(max(0, -b), size - max(0, -e)) for size, b, e in zip(X.shape, begin, end, strict=True))]
    added = [(max(0, b), max(0, e)) for b, e in widths]
    for value in (0, -1.5) if mode == "CONSTANT" else (0,):
        more = {"constant_values": value} if mode == "CONSTANT" else {}
        actual = forward(one("Pad", f"pad_param {{ mode: {mode} {numbers('begin', begin)} {numbers('end', end)} "
                                    f"value: {value} }}"), cpu64, X)
        np.testing.assert_array_equal(actual, np.pad(cut, added, mode=numpy_mode, **more))


@pytest.mark.parametrize("slices", [
    (slice(None), slice(2, None, -2), slice(1, -1, 3), slice(-2, -9, -1)),
    (slice(0, 0), slice(None), slice(9, None), slice(None)), (slice(-9, 9),), (slice(1, 0, -1), slice(2, 1, -5))])
def test_strided_slice(slices: tuple[slice, ...], cpu64: CpuOps) -> None:
    far = 2**63 - 1
    start = [s.start if s.start is not None else -far if (s.step or 1) > 0 else far for s in slices]
    end = [s.stop if s.stop is not None else far if (s.step or 1) > 0 else -far - 1 for s in slices]
    param = f"{numbers('start', start)} {numbers('end', end)} {numbers('step', [s.step or 1 for s in slices])}"
    net, seeds = run(one("StridedSlice", f"strided_slice_param {{ {param} }}"), cpu64, {"x": X})
    np.testing.assert_array_equal(net.blobs["y"].data, X[slices])
    gradient = np.zeros_like(X)
    gradient[slices] = seeds["y"]
    np.testing.assert_array_equal(net.blobs["x"].diff, gradient)


def test_expand_and_take(cpu64: CpuOps) -> None:
    x = X[:, :, :1]
    np.testing.assert_array_equal(forward(one("Expand", "expand_param { shape: [4, 1, 3, 5, 4] }"), cpu64, x),
                                  np.broadcast_to(x, (4, 2, 3, 5, 4)))
    np.testing.assert_array_equal(forward(one("Take", "take_param { axis: -2 index: [-1, 0, 0, 3] shape: [2, 2] }"),
                                          cpu64, X), np.take(X, [[-1, 0], [0, 3]], axis=2))
    np.testing.assert_array_equal(forward(one("Take", "take_param { index: -2 scalar: true }"), cpu64, X), X[0])


# ---- folds and products -----------------------------------------------------------------------------------

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "SUM": np.sum, "MEAN": np.mean, "MAX": np.max, "MIN": np.min, "PROD": np.prod,
    "L1": lambda x, **k: np.abs(x).sum(**k), "L2": lambda x, **k: np.sqrt((x * x).sum(**k)),
    "SUMSQ": lambda x, **k: (x * x).sum(**k), "LOGSUM": lambda x, **k: np.log(x.sum(**k)),
    "LOGSUMEXP": lambda x, **k: np.logaddexp.reduce(np.moveaxis(x, k["axis"], range(len(k["axis"]))).reshape(
        -1, *[s for a, s in enumerate(x.shape) if a not in {i % x.ndim for i in k["axis"]}]), axis=0).reshape(
            x.sum(**k).shape)}


@pytest.mark.parametrize("operation", REDUCTIONS)
def test_reduce(operation: str, cpu64: CpuOps) -> None:
    x = np.abs(X) + 0.1 if operation == "LOGSUM" else X
    for axes, keepdims in itertools.product([(), (1,), (0, 2), (-1, 1), (2, 3), (0,)], (True, False)):
        param = f"operation: {operation} {numbers('axis', axes)} keepdims: {str(keepdims).lower()}"
        actual = forward(one("Reduce", f"reduce_param {{ {param} }}"), cpu64, x)
        expected = REDUCTIONS[operation](x, axis=axes or (0, 1, 2, 3), keepdims=keepdims)
        assert actual.shape == np.shape(expected)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13, err_msg=param)


def test_reductions_of_nothing_and_of_infinities(cpu64: CpuOps) -> None:
    for operation, result in {"SUM": 0, "PROD": 1, "MAX": -np.inf, "MIN": np.inf, "MEAN": np.nan, "L2": 0,
                              "LOGSUMEXP": -np.inf}.items():
        text = one("Reduce", f"reduce_param {{ operation: {operation} axis: 1 }}")
        np.testing.assert_array_equal(forward(text, cpu64, np.zeros((2, 0))), np.full((2, 1), result))
    text = one("Reduce", "reduce_param { operation: LOGSUMEXP axis: 1 keepdims: false }")
    rows = np.array([[1000.0, 1000], [-np.inf, -np.inf], [np.inf, 1], [-1000, -1001]])
    with np.errstate(divide="ignore", invalid="ignore"):
        actual = forward(text, cpu64, rows)
    np.testing.assert_allclose(actual, [1000 + np.log(2), -np.inf, np.inf, -1000 + np.log1p(np.exp(-1))])


def test_equal_extremes_share_the_gradient(cpu64: CpuOps) -> None:
    net, seeds = run(one("Reduce", "reduce_param { operation: MAX axis: 1 }"), cpu64, {"x": np.array([[2.0, 1, 2]])})
    np.testing.assert_array_equal(net.blobs["x"].diff, seeds["y"] * [[0.5, 0, 0.5]])


def test_log_softmax_far_from_zero(cpu: CpuOps) -> None:
    x = np.array([[1e4, 0, -1e4], [0, 0, 0]])
    np.testing.assert_allclose(forward(one("LogSoftmax"), cpu, x), [[0, -1e4, -2e4], [-np.log(3)] * 3], rtol=1e-6)


@pytest.mark.parametrize(("left", "right", "turned"), [
    ((2, 3, 4), (4, 5), ""), ((4,), (4,), ""), ((4,), (2, 4, 5), ""), ((2, 1, 3, 4), (5, 4, 2), ""),
    ((4, 3), (4,), "a"), ((2, 4, 3), (4, 5), "a"), ((4, 3), (5, 4), "ab"), ((2, 3, 4), (1, 5, 4), "b"),
    ((2, 3, 0), (0, 2), "")])
def test_matmul(left: tuple[int, ...], right: tuple[int, ...], turned: str, cpu64: CpuOps) -> None:
    a, b = RNG.normal(size=left), RNG.normal(size=right)
    param = " ".join(f"transpose_{side}: true" for side in turned)
    actual = forward(one("MatMul", f"matmul_param {{ {param} }}", "x z"), cpu64, a, b)
    expected = np.matmul(np.swapaxes(a, -1, -2) if "a" in turned else a, np.swapaxes(b, -1, -2) if "b" in turned else b)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


# ---- life in a net ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["reduce_MAX", "reduce_last_PROD", "log_softmax", "resize_linear", "max_nd", "ave_nd",
                                  "pad_reflect", "slice_steps", "binary_scalar"])
def test_other_sizes_afterwards(name: str, cpu64: CpuOps) -> None:
    """A net that was reshaped does what one made so does."""
    case = EXTENSIONS[name]
    shapes = {blob: shape[0] if shape and isinstance(shape[-1], str) else shape for blob, shape in case.inputs.items()}
    larger = {blob: RNG.normal(0, 1, (3, *shape[1:]) if shape else ()) for blob, shape in shapes.items()}
    net, _ = run(case.layers, cpu64, {blob: RNG.normal(0, 1, shape) for blob, shape in shapes.items()})
    again(net, larger)
    other, _ = run(case.layers, cpu64, larger)
    for blob in ("x", "y"):
        np.testing.assert_array_equal(net.blobs[blob].data, other.blobs[blob].data)
        np.testing.assert_array_equal(net.blobs[blob].diff, other.blobs[blob].diff)


def test_what_gradients_need_is_enough_where_memory_is_planned(cpu: CpuOps) -> None:
    text = DATA + conv("x", "a")
    blob = "a"
    for step, (type_, param) in enumerate((
            ("Function", "function_param { function: SELU }"),
            ("Function", "function_param { function: HARD_SIGMOID }"),
            ("Pad", "pad_param { mode: EDGE begin: [0, 0, 1, 0] end: [0, 0, 0, 1] }"),
            ("PoolingNd", "pooling_nd_param { kernel: 2 }"), ("LogSoftmax", ""),
            ("PoolingNd", "pooling_nd_param { pool: AVE kernel: 2 pad_end: 1 }"),
            ("Resize", "resize_param { axis: 2 size: 3 }"),
            ("StridedSlice", "strided_slice_param { axis: 3 start: -1 end: -9 step: -1 }"))):
        text += on(type_, blob, f"b{step}", param)
        blob = f"b{step}"
    text += conv(blob, "c") + on("Reduce", "c", "r", "reduce_param { operation: L2 axis: 2 }")
    for step, operation in enumerate(("MUL", "DIV", "ADD", "MAX", "SUB")):
        text += on("Binary", "c r" if step % 2 else "r c", f"d{step}", f"binary_param {{ operation: {operation} }}")
        text += conv(f"d{step}", f"c{step}")
        text += on("Reduce", f"c{step}", f"s{step}", "reduce_param { operation: LOGSUMEXP axis: [1, 2, 3] } "
                   "loss_weight: 0.01")
    text += on("MatMul", "c1 c2", "m", "matmul_param { transpose_b: true }")
    assert_same(parse_net(text + ip("m", "f") + LOSS), cpu)


# ---- wrong arguments --------------------------------------------------------------------------------------

IMAGE = {"x": (2, 3, 5, 4)}
WRONG = {
    "binary": ("Binary", "", {"x": (2, 3), "z": (2,)}, "cannot bring its bottoms (2, 3) and (2,) to one shape"),
    "expand": ("Expand", "expand_param { shape: 2 }", {"x": (3,)}, "cannot bring the bottom (3,) to shape (2,)"),
    "matmul": ("MatMul", "", {"x": (2, 3), "z": (2, 3)}, "the left matrices have 3 columns, the right ones 2 rows"),
    "matmul stacks": ("MatMul", "", {"x": (2, 1, 3), "z": (3, 3, 1)}, "cannot bring the stacks of its bottoms"),
    "matmul scalar": ("MatMul", "", {"x": (), "z": (3,)}, "multiplies bottoms of one axis or more, got shapes () and"),
    "pad": ("Pad", "pad_param { begin: 1 end: 1 }", IMAGE, "has 1 numbers in begin and 1 in end; give one for each of "
                                                           "the 4 axes"),
    "pad too short": ("Pad", "pad_param { begin: -2 end: -2 }", {"x": (3,)}, "cut more off axis 0 than its 3 elements"),
    "pad nothing": ("Pad", "pad_param { mode: EDGE begin: 1 end: -3 }", {"x": (3,)},
                    "has nothing on axis 0 to continue"),
    "take": ("Take", "take_param { index: 2 }", IMAGE, "takes element 2 of axis 0, which has 2; give -2 to 1"),
    "take shape": ("Take", "take_param { index: 1 shape: [1, 2] }", IMAGE, "has 1 numbers for the shape (1, 2)"),
    "slice": ("StridedSlice", "strided_slice_param { start: [0, 1] end: 2 }", IMAGE,
              "has 2 axes, 2 starts, 1 ends and 2 steps"),
    "slice twice": ("StridedSlice", "strided_slice_param { axis: [1, -3] start: [0, 1] end: [1, 2] }", IMAGE,
                    "axes [1, 1] must be named once each"),
    "no kernel": ("PoolingNd", "", IMAGE, "has no kernel; give the size of its windows"),
    "zero stride": ("PoolingNd", "pooling_nd_param { kernel: 2 stride: 0 }", IMAGE, "stride [0] has a 0"),
    "kernels": ("PoolingNd", "pooling_nd_param { kernel: [1, 2, 3] }", IMAGE, "kernel has 3 numbers; give one, or one "
                                                                              "for each of the 2 axes"),
    "large kernel": ("PoolingNd", "pooling_nd_param { kernel: 3 dilation: 3 }", IMAGE,
                     "a window of 3 elements, dilation 3, reaches over 7: more than axis 2 has, 5 with padding"),
    "no axes": ("PoolingNd", "pooling_nd_param { kernel: 3 }", {"x": (2, 3)}, "needs a bottom (N, C, ...)"),
    "reduce": ("Reduce", "reduce_param { axis: 4 }", IMAGE, "axis 4 does not exist in a blob of 4 axes"),
    "reduce twice": ("Reduce", "reduce_param { axis: 1 axis: -3 }", IMAGE, "name one axis of the bottom (2, 3, 5, 4) "
                                                                           "twice"),
    "resize": ("Resize", "resize_param { axis: 1 }", IMAGE, "has 1 axes, 0 scales and 0 sizes"),
    "resize to nothing": ("Resize", "resize_param { axis: 1 scale: 0.2 }", IMAGE, "cannot resize axis 1 of the bottom "
                                                                                  "(2, 3, 5, 4) to 0 elements"),
    "resize beyond": ("Resize", "resize_param { axis: 1 scale: 1e38 }", {"x": (1, 9)},
                      "elements; the limit is 2**31 - 1"),
    "pad beyond": ("Pad", "pad_param { begin: [0, 2147483647] end: [0, 1] }", {"x": (1, 9)},
                   "elements; the limit is 2**31 - 1"),
    "resize scale": ("Resize", "resize_param { axis: 1 scale: -1 }", IMAGE, "scales [-1.0] must be numbers above 0"),
    "resize crop": ("Resize", "resize_param { axis: 1 size: 1 coordinates: TF_CROP_AND_RESIZE }", IMAGE,
                    "has 0 numbers in roi_begin and 0 in roi_end"),
    "function": ("Function", "", IMAGE, "does not say which function; write function_param { function: SQRT }"),
    "function constant": ("Function", "function_param { function: SQRT alpha: 1 }", IMAGE, "SQRT has no alpha"),
    "celu": ("Function", "function_param { function: CELU alpha: 0 }", IMAGE, "CELU divides by alpha, which is 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str, cpu: CpuOps) -> None:
    type_, param, shapes, message = WRONG[name]
    with pytest.raises(NetError) as caught:
        make(inputs(**shapes) + one(type_, param, " ".join(shapes)), cpu)
    assert str(caught.value).startswith(f"layer ({type_}): ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["expand", "pad", "reduce_all", "resize_linear", "slice_steps", "take", "matmul",
                                  "binary_ADD"])
def test_not_in_place(name: str, cpu: CpuOps) -> None:
    case = EXTENSIONS[name]
    case = type(case)(case.layers.replace("top: 'y'", "top: 'x'"), case.inputs)
    with pytest.raises(NetError, match="cannot work in place; give the top a name of its own"):
        case.net(cpu)


def test_means_have_no_numbers(cpu: CpuOps) -> None:
    with pytest.raises(NetError, match="numbers maxima in its second top, and a mean has none; drop the top"):
        make(inputs(x=(1, 1, 3)) + one("PoolingNd", "pooling_nd_param { pool: AVE kernel: 2 }", top="y i"), cpu)
