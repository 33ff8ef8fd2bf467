"""Operators of ONNX become layers that compute the same: arithmetic, activations, shapes, reductions, images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, against which this holds Barista, is not installed")

import onnx
from onnx_nodes import expected, layers, run, types

from barista.errors import UnsupportedError
from barista.frontends.onnx import read_onnx
from barista.net import Net

Array = npt.NDArray[Any]
RNG = np.random.default_rng(3)


def normal(*shape: int) -> Array:
    """Numbers on both sides of 0."""
    return RNG.normal(0, 1.5, shape).astype(np.float32)


def same(op: str, inputs: list[Array | None], **more: Any) -> None:
    """Barista and ONNX Runtime compute the same shapes, types and numbers."""
    for got, wanted in zip(run(op, inputs, **more), expected(op, inputs, **more), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


# ---- activations ------------------------------------------------------------------------------------------

FORMULAS = [
    ("Relu", {}, lambda x: np.maximum(x, 0)),
    ("LeakyRelu", {"alpha": 0.3}, lambda x: np.where(x < 0, 0.3 * x, x)),
    ("Elu", {"alpha": 0.7}, lambda x: np.where(x < 0, 0.7 * np.expm1(x), x)),
    ("Selu", {}, lambda x: 1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.expm1(x), x)),
    ("Selu", {"alpha": 0.5, "gamma": 2.0}, lambda x: 2 * np.where(x < 0, 0.5 * np.expm1(x), x)),
    ("Sigmoid", {}, lambda x: 1 / (1 + np.exp(-x))),
    ("Tanh", {}, np.tanh),
    ("HardSigmoid", {}, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    ("HardSigmoid", {"alpha": 0.6, "beta": 0.1}, lambda x: np.clip(0.6 * x + 0.1, 0, 1)),
    ("Softplus", {}, lambda x: np.log1p(np.exp(x))),
    ("Exp", {}, np.exp),
    ("Abs", {}, np.abs),
    ("Neg", {}, np.negative),
    ("Reciprocal", {}, lambda x: 1 / x),
]


@pytest.mark.parametrize("opset", [6, 13])
@pytest.mark.parametrize(("op", "attributes", "formula"), FORMULAS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FORMULAS)])
def test_functions_of_one_value(op: str, attributes: dict[str, float], formula: Any, opset: int) -> None:
    x = normal(2, 3, 5)
    (y,) = run(op, [x], opset=opset, **attributes)
    np.testing.assert_allclose(y, formula(x.astype(np.float64)), rtol=3e-6, atol=1e-6)


def test_roots_and_logarithms() -> None:
    x = np.array([[0.0, 0.25, 4.0, 9.0]], np.float32)
    np.testing.assert_allclose(run("Sqrt", [x])[0], [[0, 0.5, 2, 3]], rtol=1e-6)
    np.testing.assert_allclose(run("Log", [x + 1])[0], np.log(x + 1), rtol=1e-6)


@pytest.mark.parametrize(("shape", "slope", "opset", "kinds"), [
    ((2, 3, 4), (3,), 6, ["PReLU"]),  # one a channel, before opset 7
    ((2, 3, 4), (1,), 6, ["PReLU"]),
    ((2, 3), (3,), 9, ["PReLU"]),
    ((2, 3, 4, 5), (3, 1, 1), 16, ["PReLU"]),
    ((2, 3, 4, 5), (1,), 16, ["PReLU"]),
    ((2, 3, 4), (4,), 9, ["ReLU", "Function", "ReLU", "Binary", "Binary"]),  # along the last axis
    ((2, 3, 4), (2, 3, 4), 9, ["ReLU", "Function", "ReLU", "Binary", "Binary"]),
])
def test_prelu_slopes(shape: tuple[int, ...], slope: tuple[int, ...], opset: int, kinds: list[str]) -> None:
    x, a = normal(*shape), normal(*slope)
    found = types("PRelu", [x, a], opset=opset, constant=[1])
    assert [kind for kind in found if kind != "Split"] == kinds
    laid = a.reshape(-1, *[1] * (len(shape) - 2)) if opset < 7 and len(slope) == 1 else a
    (y,) = run("PRelu", [x, a], opset=opset, constant=[1])
    np.testing.assert_allclose(y, np.where(x < 0, laid * x, x), rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (None, 0.25), (-0.25, None), (None, None), (1.0, -1.0)])
def test_clip(low: float | None, high: float | None) -> None:
    x = normal(3, 4)
    wanted = np.minimum(np.maximum(x, -math.inf if low is None else low), math.inf if high is None else high)
    bounds = [None if value is None else np.array(value, np.float32) for value in (low, high)]
    np.testing.assert_array_equal(run("Clip", [x, *bounds], constant=[1, 2])[0], wanted)
    np.testing.assert_array_equal(run("Clip", [x, *bounds])[0], wanted)  # what the net is told when it runs
    named = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    np.testing.assert_array_equal(run("Clip", [x], opset=6, **named)[0], wanted)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data(), st.sampled_from(["Softmax", "LogSoftmax"]),
       st.sampled_from([6, 11, 13]))
def test_softmax_of_old_and_new_opsets(shape: list[int], data: st.DataObject, op: str, opset: int) -> None:
    axis = data.draw(st.integers(0 if opset < 11 else -len(shape), len(shape) - 1))
    x = normal(*shape)
    rows = x if opset >= 13 else x.reshape(math.prod(shape[:axis % len(shape)]), -1)
    e = np.exp(rows.astype(np.float64) - rows.max())
    wanted = e / e.sum(axis if opset >= 13 else 1, keepdims=True)
    (y,) = run(op, [x], opset=opset, axis=axis)
    np.testing.assert_allclose(y, (wanted if op == "Softmax" else np.log(wanted)).reshape(shape), rtol=1e-5, atol=1e-6)


def test_casts() -> None:
    x = np.array([[-2.7, -0.0, 0.4, 3.9]], np.float32)
    to = onnx.TensorProto
    for target, wanted in ((to.INT32, [[-2, 0, 0, 3]]), (to.BOOL, [[True, False, True, True]]), (to.DOUBLE, x)):
        (y,) = run("Cast", [x], dtype=onnx.helper.tensor_dtype_to_np_dtype(target), to=target)
        np.testing.assert_array_equal(y, wanted)
    with pytest.raises(UnsupportedError, match="does not know the type bfloat16"):
        run("Cast", [x], dtype=np.float32, to=to.BFLOAT16)


# ---- arithmetic -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 2)),
                                    ((4,), (2, 1, 4))])
def test_arithmetic_broadcasts(op: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (normal(*shape) for shape in shapes)
    a = np.abs(a) + 0.1 if op == "Pow" else a
    for constant in ([], [0], [1]):
        same(op, [a, b], constant=constant)


@pytest.mark.parametrize(("op", "operand", "first", "kind"), [
    ("Add", 2.5, False, "Power"), ("Sub", 2.5, False, "Power"), ("Sub", 2.5, True, "Power"),
    ("Mul", -1.5, True, "Power"), ("Div", 4.0, False, "Power"), ("Div", 1.0, True, "Function"),
    ("Div", 3.0, True, "Binary"), ("Pow", 2.0, False, "Power"), ("Pow", 2.0, True, "Binary"),
    ("Mul", 0.0, False, "Binary"),
    ("Mul", normal(3, 1), False, "Scale"), ("Add", normal(1, 3, 1), True, "Bias"), ("Sub", normal(4), False, "Bias"),
    ("Mul", normal(3, 4), False, "Scale"), ("Sub", normal(3, 1), True, "Binary"),
    ("Div", normal(3, 1), False, "Binary"), ("Mul", normal(5, 2, 3, 4), False, "Binary"),
])
def test_constants_become_layers_of_caffe(op: str, operand: Any, first: bool, kind: str) -> None:
    x, constant = normal(2, 3, 4), np.asarray(operand, np.float32)
    inputs = [constant, x] if first else [x, constant]
    assert types(op, inputs, constant=[0 if first else 1]) == [kind]
    same(op, inputs, constant=[0 if first else 1])


def test_numbers_that_float32_lacks_stay_exact_in_double() -> None:
    x = RNG.normal(0, 1, (2, 3))
    (y,) = run("Mul", [x, np.array(0.1)], constant=[1])
    np.testing.assert_array_equal(y, x * 0.1)
    np.testing.assert_array_equal(run("Clip", [x, np.array(-0.1), np.array(0.3)])[0], np.clip(x, -0.1, 0.3))
    np.testing.assert_allclose(run("Mean", [x, x * x, x + 1])[0], (x + x * x + x + 1) / 3, rtol=1e-14)


@pytest.mark.parametrize(("a", "b", "axis"), [((2, 3, 4, 5), (3, 4), 1), ((2, 3), (2,), 0), ((2, 3, 4), (4,), None),
                                              ((2, 3, 4), (2, 3), 0), ((2, 3), (1,), None), ((2, 3, 4), (3, 1), 1)])
@pytest.mark.parametrize("constant", [[], [1]])
def test_old_broadcasts_from_an_axis(a: tuple[int, ...], b: tuple[int, ...], axis: int | None,
                                     constant: list[int]) -> None:
    x, operand = normal(*a), normal(*b)
    laid = operand if axis is None else operand.reshape(*b, *[1] * (len(a) - axis - len(b)))
    more = {} if axis is None else {"axis": axis}
    for op, function in (("Add", np.add), ("Mul", np.multiply), ("Sub", np.subtract)):
        (y,) = run(op, [x, operand], opset=6, constant=constant, broadcast=1, **more)
        np.testing.assert_allclose(y, function(x, laid), rtol=1e-6)


def test_integers_divide_towards_zero() -> None:
    a, b = np.array([7, -7, 7, -7, 0], np.int32), np.array([2, 2, -2, -2, 3], np.int32)
    np.testing.assert_array_equal(run("Div", [a, b])[0], [3, -3, -3, 3, 0])
    (y,) = run("Pow", [a, np.array([0.5, 2, -1, 3, 2], np.float32)])
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y[1:], [49, 0, -343, 0])


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("shapes", [[(2, 3)], [(2, 3)] * 2, [(2, 3)] * 4, [(2, 3), (3,), (4, 1, 1)]])
def test_any_number_of_values(op: str, shapes: list[tuple[int, ...]]) -> None:
    same(op, [normal(*shape) for shape in shapes])


# ---- shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "wanted", "more"), [
    ((2, 3, 4), (4, 2, 3), {}), ((2, 3, 4), (0, -1), {}), ((2, 3, 4), (2, 0, 2, -1), {}), ((2, 3), (-1,), {}),
    ((1,), (), {}), ((0, 3), (3, 0), {"allowzero": 1}), ((2, 3), (1, 2, 3), {}),
])
def test_reshape(shape: tuple[int, ...], wanted: tuple[int, ...], more: dict[str, int]) -> None:
    x = normal(*shape)
    for constant in ([], [1]):
        same("Reshape", [x, ints(*wanted)], constant=constant, **more)


def test_reshape_of_old_opsets_and_batches_of_another_size() -> None:
    x = normal(1, 3, 4)
    np.testing.assert_array_equal(run("Reshape", [x], opset=4, shape=[0, -1])[0], x.reshape(1, 12))
    net = Net(layers("Reshape", [x, ints(1, 12)], constant=[1]), phase=1)
    net.blobs["x0"].reshape(5, 3, 4)
    net.reshape()
    assert net.blobs["y0"].shape == (5, 12)


def test_flatten_squeeze_unsqueeze_transpose() -> None:
    x = normal(2, 1, 3, 1)
    for axis in (-3, 0, 1, 2, 4):
        same("Flatten", [x], axis=axis)
    same("Squeeze", [x])
    same("Squeeze", [x, ints(-1)], constant=[1])
    same("Squeeze", [x], opset=11, axes=[1])
    same("Unsqueeze", [x, ints(0, -1)])
    same("Unsqueeze", [x], opset=11, axes=[2])
    same("Transpose", [x])
    same("Transpose", [x], perm=[2, 0, 3, 1])


def test_concat_and_split() -> None:
    a, b = normal(2, 3), normal(2, 1)
    same("Concat", [a, b, a], axis=-1)
    same("Concat", [a], axis=0)
    same("Concat", [a, normal(2, 0)], axis=1)
    x = normal(2, 7)
    same("Split", [x, ints(2, 4, 1)], outputs=3, axis=1)
    same("Split", [x, ints(0, 7)], outputs=2, axis=-1, constant=[1])
    same("Split", [x], outputs=2, opset=13)
    same("Split", [x], outputs=3, axis=1, num_outputs=3)
    same("Split", [x], outputs=2, opset=11, axis=1, split=[3, 4])


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), [
    ([1], [3], [1], None), ([0, -2], [2, 2**63 - 1], [0, 2], None), ([-1], [-(2**63)], [1], [-1]),
    ([3, 4], [-10, 1], [1, 2], [-2, -1]), ([1], [1], [0], None), ([0, 0, 0], [9, 9, 9], None, None),
])
def test_slice(starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None) -> None:
    x = normal(3, 4, 5)
    optional = [None if values is None else ints(*values) for values in (axes, steps)]
    same("Slice", [x, ints(*starts), ints(*ends), *optional])
    if steps is None:
        same("Slice", [x], opset=9, starts=starts, ends=ends, **({} if axes is None else {"axes": axes}))


def test_pad() -> None:
    x = normal(2, 4, 5)
    same("Pad", [x, ints(0, 1, 2, 1, 0, 3), np.array(1.5, np.float32)])
    same("Pad", [x, ints(0, -1, 2, 0, 0, -1)], constant=[1])
    same("Pad", [x, ints(1, 2), None, ints(-1)])
    for mode in ("reflect", "edge"):
        same("Pad", [x, ints(0, 2, 1, 0, 1, 3)], mode=mode)
    wanted = np.pad(x, ((0, 0), (0, 2), (1, 0)), constant_values=-3)
    np.testing.assert_array_equal(run("Pad", [x], opset=6, pads=[0, 0, 1, 0, 2, 0], value=-3.0)[0], wanted)
    np.testing.assert_array_equal(run("Pad", [x], opset=1, paddings=[0, 0, 1, 0, 2, 0], value=-3.0)[0], wanted)


def test_tile_and_expand() -> None:
    x = normal(2, 1, 3)
    same("Tile", [x, ints(1, 3, 2)])
    same("Tile", [x, ints(1, 1, 1)], constant=[1])
    same("Expand", [x, ints(2, 1, 4, 1)])
    same("Expand", [x, ints(1)], constant=[1])


def test_gather() -> None:
    x = normal(4, 3, 2)
    same("Gather", [x, np.array([[0, -1], [2, 2]], np.int64)], axis=0)
    same("Gather", [x, np.array(1, np.int64)], axis=-1, constant=[1])
    # Rows of a table by numbers that are computed: an Embed layer, which learns the table.
    assert types("Gather", [x, ints(3, 0)], constant=[0])[0] == "Embed"
    same("Gather", [x, ints(3, 0, 1)], constant=[0])
    with pytest.raises(UnsupportedError, match=r"indices 0 to 4 lie outside of the size 4 of axis 0"):
        run("Gather", [x, ints(0, 4)], constant=[1])


# ---- reductions and images --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data(), st.booleans(),
       st.sampled_from(["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]))
def test_reductions(shape: list[int], data: st.DataObject, keep: bool, what: str) -> None:
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda axis: axis % len(shape)))
    same(f"Reduce{what}", [normal(*shape), ints(*axes) if axes else None], keepdims=int(keep))
    more = {"axes": axes} if axes else {}
    same(f"Reduce{what}", [normal(*shape)], opset=11, keepdims=int(keep), **more)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_arg_max_of_equals(op: str, keep: int, last: int) -> None:
    x = RNG.integers(-2, 2, (3, 5, 4)).astype(np.float32)
    for axis in (-1, 0, 1):
        same(op, [x], dtype=np.int64, axis=axis, keepdims=keep, select_last_index=last)


def test_upsample_and_resize() -> None:
    x = normal(1, 2, 3, 4)
    scales = np.array([1, 1, 2, 1.5], np.float32)
    same("Upsample", [x], opset=7, scales=scales.tolist())
    same("Upsample", [x, scales], opset=9, mode="linear")
    same("Resize", [x, scales], opset=10, mode="linear")
    for mode in ("nearest", "linear", "cubic"):
        same("Resize", [x, None, scales], mode=mode)
        same("Resize", [x, None, None, ints(1, 2, 7, 2)], mode=mode, coordinate_transformation_mode="align_corners")
    same("Resize", [x, None, None, ints(9, 6)], axes=[2, 3], keep_aspect_ratio_policy="not_larger")


def test_depth_to_space() -> None:
    x = normal(2, 8, 3, 2)
    for mode in ("DCR", "CRD"):
        same("DepthToSpace", [x], blocksize=2, mode=mode)
    same("SpaceToDepth", [normal(1, 2, 4, 6)], blocksize=2)


def test_what_must_be_constant_is_named() -> None:
    """The error lists every node, with name, operator and reason."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["x", "shape"], ["y"], name="resize_it"),
         onnx.helper.make_node("Hardmax", ["x"], ["z"], name="pick")], "two",
        [value("x", 1, (2, 3)), value("shape", 7, (1,))], [value("y", 1, (6,)), value("z", 1, (2, 3))])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(proto)
    text = str(caught.value)
    assert "2 node(s) cannot be converted" in text
    assert "'resize_it' (Reshape): the new shape (input 1, 'shape') must be constant" in text
    assert "'pick' (Hardmax): " in text

