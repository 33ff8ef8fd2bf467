"""Caffe2 models: each operator against NumPy, fills, blobs that are written again, both forms of files."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe2_nets import init_net, little_pair, one, operator
from google.protobuf import text_format

pytest.importorskip("onnx", reason="the onnx extra is not installed")

from barista.frontends.caffe2 import read_caffe2, to_onnx
from barista.frontends.caffe2.fills import Fills
from barista.frontends.onnx import read_onnx
from barista.net import Net
from barista.proto.caffe2_pb2 import NetDef
from barista.proto.caffe_pb2 import TEST, NetParameter

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(7)


def draw(*shape: int) -> Array:
    """Numbers around 0, some of them 0."""
    values = RANDOM.standard_normal(shape).astype(np.float32)
    return np.where(np.abs(values) < 0.05, np.float32(0), values)


def outputs(net: NetParameter, **inputs: Array) -> dict[str, Array]:
    """What a net computes."""
    made = Net(net, TEST)
    for name, array in inputs.items():
        made.blobs[name].data[...] = array
    return {name: array.copy() for name, array in made.forward().items()}


def computed(kind: str, x: Array, weights: dict[str, Array], **arguments: Any) -> Array:
    """The result of a net of one operator."""
    model = to_onnx(init_net(weights), one(kind, weights, **arguments), {"x": x.shape})
    return outputs(read_onnx(model), x=x)["y"]


# ---- what Caffe2 computes, in NumPy -----------------------------------------------------------------------


def windows(x: Array, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int],
            fill: float) -> Array:
    """(N, C, *windows, *kernel): what lies under each window of images whose edges are padded with `fill`."""
    axes = len(kernel)
    framed = np.pad(x, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)], constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(framed, spans, axis=tuple(range(2, 2 + axes)))
    steps = [1, 1, *stride, *dilation]
    return view[tuple(slice(None, None, step) for step in steps)]


def conv(x: Array, w: Array, b: Array, stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int],
         group: int = 1) -> Array:
    under = windows(x, w.shape[2:], stride, pads, dilation, 0)
    axes = w.ndim - 2
    parts = [np.tensordot(inputs, filters, ([1, *range(-axes, 0)], list(range(1, w.ndim))))
             for inputs, filters in zip(np.split(under, group, 1), np.split(w, group), strict=True)]
    return np.moveaxis(np.concatenate(parts, -1) + b, -1, 1)


def conv_transpose(x: Array, w: Array, b: Array, stride: int, pad: int, adj: int) -> Array:
    """Each number paints a scaled filter; `adj` pixels are added at the ends."""
    kernel, (height, width) = w.shape[2], x.shape[2:]
    sizes = [(size - 1) * stride + kernel + adj for size in (height, width)]
    canvas = np.zeros((len(x), w.shape[1], *sizes))
    for i, j in itertools.product(range(height), range(width)):
        canvas[:, :, i * stride:i * stride + kernel, j * stride:j * stride + kernel] += \
            np.tensordot(x[:, :, i, j], w, (1, 0))
    cut = canvas[:, :, pad:canvas.shape[2] - pad, pad:canvas.shape[3] - pad]
    return cut + b[:, None, None]


def pooled(x: Array, kernel: int, stride: int, pads: Sequence[int], average: bool,
           count_padding: bool = False) -> Array:
    under = windows(x, [kernel] * 2, [stride] * 2, pads, [1, 1], 0 if average else -np.inf)
    if not average:
        return under.max((-2, -1))
    inside = windows(np.ones_like(x), [kernel] * 2, [stride] * 2, pads, [1, 1], 0).sum((-2, -1))
    return under.sum((-2, -1)) / (kernel**2 if count_padding else inside)


def lrn(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    near = [np.square(x[:, max(c - size // 2, 0):c + size // 2 + 1]).sum(1) for c in range(x.shape[1])]
    return x * (bias + alpha / size * np.stack(near, 1)) ** -beta


def softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def last(x: Array) -> Array:
    """Channels last."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


X, SQUARE, IMAGE3D = draw(2, 4, 9, 7), draw(2, 4, 8, 8), draw(2, 2, 4, 5, 6)
W, B, GROUPED, LINE = draw(6, 4, 3, 3), draw(6), draw(6, 2, 3, 3), draw(5, 4, 3)
UP, UP_B, CUBE = draw(4, 3, 3, 3), draw(3), draw(3, 2, 2, 2, 2)
FOUR, SLOPES = draw(4), draw(4)
MEAN, VARIANCE, SCALE = draw(4), np.square(draw(4)) + np.float32(0.1), draw(4)
FC, FC_B, FC_LAST = draw(5, 4 * 9 * 7), draw(5), draw(5, 7)
ROWS = X.reshape(2, -1)

Case = tuple[str, Array, dict[str, Array], dict[str, Any], Callable[[], Array]]
CASES: list[Case] = [
    ("Conv", X, {"w": W, "b": B}, {"kernel": 3, "stride": 2, "pad": 1},
     lambda: conv(X, W, B, [2, 2], [1] * 4, [1, 1])),
    ("Conv", X, {"w": W}, {"kernels": [3, 3], "strides": [1, 2], "pads": [0, 1, 2, 3]},
     lambda: conv(X, W, np.zeros(6), [1, 2], [0, 1, 2, 3], [1, 1])),
    ("Conv", X, {"w": GROUPED, "b": B}, {"kernel_h": 3, "kernel_w": 3, "group": 2, "dilation": 2, "pad_t": 2,
                                          "pad_l": 1, "pad_b": 0, "pad_r": 3},
     lambda: conv(X, GROUPED, B, [1, 1], [2, 1, 0, 3], [2, 2], 2)),
    ("Conv", last(X), {"w": last(W), "b": B}, {"kernel": 3, "pad": 1, "order": "NHWC"},
     lambda: last(conv(X, W, B, [1, 1], [1] * 4, [1, 1]))),
    # SAME: a window for each two pixels begun; an odd pixel of padding is at the end.
    ("Conv", X, {"w": W, "b": B}, {"kernel": 3, "stride": 2, "legacy_pad": 2},
     lambda: conv(X, W, B, [2, 2], [1, 1, 1, 1], [1, 1])),
    ("Conv", SQUARE, {"w": W, "b": B}, {"kernel": 3, "stride": 2, "legacy_pad": 2},
     lambda: conv(SQUARE, W, B, [2, 2], [0, 0, 1, 1], [1, 1])),
    ("Conv", X, {"w": W, "b": B}, {"kernel": 3, "legacy_pad": 1}, lambda: conv(X, W, B, [1, 1], [0] * 4, [1, 1])),
    ("Conv1D", X.reshape(2, 4, 63), {"w": LINE, "b": FC_B}, {"kernels": [3], "pads": [1, 1]},
     lambda: conv(X.reshape(2, 4, 63), LINE, FC_B, [1], [1, 1], [1])),
    ("Conv", IMAGE3D, {"w": CUBE, "b": UP_B}, {"kernels": [2, 2, 2], "strides": [1, 2, 1]},
     lambda: conv(IMAGE3D, CUBE, UP_B, [1, 2, 1], [0] * 6, [1] * 3)),
    ("ConvTranspose", X, {"w": UP, "b": UP_B}, {"kernel": 3, "stride": 2, "pad": 1},
     lambda: conv_transpose(X, UP, UP_B, 2, 1, 0)),
    ("ConvTranspose", X, {"w": UP, "b": UP_B}, {"kernel": 3, "stride": 2, "adj": 1},
     lambda: conv_transpose(X, UP, UP_B, 2, 0, 1)),
    ("ConvTranspose", last(X), {"w": last(UP), "b": UP_B}, {"kernel": 3, "stride": 2, "order": "NHWC"},
     lambda: last(conv_transpose(X, UP, UP_B, 2, 0, 0))),
    ("MaxPool", X, {}, {"kernel": 3, "stride": 2, "pad": 1}, lambda: pooled(X, 3, 2, [1] * 4, False)),
    ("MaxPool", X, {}, {"kernel": 2, "stride": 2, "pads": [0, 1, 1, 0]}, lambda: pooled(X, 2, 2, [0, 1, 1, 0], False)),
    ("AveragePool", X, {}, {"kernel": 3, "stride": 2, "pad": 1}, lambda: pooled(X, 3, 2, [1] * 4, True)),
    ("AveragePool", X, {}, {"kernel": 3, "stride": 2, "pad": 1, "count_include_pad": 1},
     lambda: pooled(X, 3, 2, [1] * 4, True, True)),
    ("AveragePool", last(X), {}, {"kernel": 3, "stride": 1, "order": "NHWC"},
     lambda: last(pooled(X, 3, 1, [0] * 4, True))),
    # Caffe's rule: ceil((8 - 3) / 2) + 1 windows; with padding the fifth would begin behind the image.
    ("MaxPool", SQUARE, {}, {"kernel": 3, "stride": 2, "legacy_pad": 3},
     lambda: pooled(SQUARE, 3, 2, [0, 0, 1, 1], False)),
    ("AveragePool", SQUARE, {}, {"kernel": 3, "stride": 2, "legacy_pad": 3},
     lambda: pooled(SQUARE, 3, 2, [0, 0, 1, 1], True)),
    ("MaxPool", SQUARE, {}, {"kernel": 3, "stride": 2, "pad": 1, "legacy_pad": 3},
     lambda: pooled(SQUARE, 3, 2, [1, 1, 2, 2], False)),
    ("MaxPool", SQUARE, {}, {"kernel": 2, "stride": 2, "pad": 1, "legacy_pad": 3},
     lambda: pooled(SQUARE, 2, 2, [1, 1, 1, 1], False)),
    ("AveragePool", X, {}, {"kernel": 2, "stride": 2, "legacy_pad": 2}, lambda: pooled(X, 2, 2, [0, 0, 1, 1], True)),
    ("MaxPool", X, {}, {"global_pooling": 1}, lambda: X.max((2, 3), keepdims=True)),
    ("AveragePool", last(X), {}, {"global_pooling": 1, "order": "NHWC"}, lambda: last(X.mean((2, 3), keepdims=True))),
    ("FC", X, {"w": FC, "b": FC_B}, {}, lambda: ROWS @ FC.T + FC_B),
    ("FC", X, {"w": FC.reshape(5, 4, 63), "b": FC_B}, {}, lambda: ROWS @ FC.T + FC_B),
    ("FC", X, {"w": FC_LAST, "b": FC_B}, {"axis": 3}, lambda: X @ FC_LAST.T + FC_B),
    ("FC", ROWS, {"w": FC.reshape(1, 5, 252), "b": FC_B}, {"axis_w": 2}, lambda: ROWS @ FC.T + FC_B),
    ("Relu", X, {}, {}, lambda: np.maximum(X, 0)),
    ("LeakyRelu", X, {}, {}, lambda: np.where(X > 0, X, 0.01 * X)),
    ("LeakyRelu", X, {}, {"alpha": 0.3}, lambda: np.where(X > 0, X, 0.3 * X)),
    ("PRelu", X, {"s": SLOPES}, {}, lambda: np.where(X > 0, X, SLOPES[:, None, None] * X)),
    ("PRelu", last(X), {"s": SLOPES}, {"order": "NHWC"}, lambda: last(np.where(X > 0, X, SLOPES[:, None, None] * X))),
    ("PRelu", X, {"s": SLOPES[:1]}, {}, lambda: np.where(X > 0, X, SLOPES[0] * X)),
    ("Sigmoid", X, {}, {}, lambda: 1 / (1 + np.exp(-X))),
    ("Tanh", X, {}, {}, lambda: np.tanh(X)),
    ("Softmax", ROWS, {}, {}, lambda: softmax(ROWS)),
    ("Softmax", X, {}, {}, lambda: softmax(ROWS).reshape(X.shape)),
    ("Softmax", X, {}, {"axis": 2}, lambda: softmax(X.reshape(8, -1)).reshape(X.shape)),
    ("LRN", X, {}, {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 2.0}, lambda: lrn(X, 3, 0.5, 0.75, 2)),
    ("LRN", last(X), {}, {"size": 3, "alpha": 0.5, "beta": 0.75, "order": "NHWC"},
     lambda: last(lrn(X, 3, 0.5, 0.75, 1))),
    ("SpatialBN", X, {"s": SCALE, "b": FOUR, "m": MEAN, "v": VARIANCE}, {"is_test": 1, "epsilon": 0.01},
     lambda: np.moveaxis((last(X) - MEAN) / np.sqrt(VARIANCE + 0.01) * SCALE + FOUR, -1, 1)),
    ("SpatialBN", last(X), {"s": SCALE, "b": FOUR, "m": MEAN, "v": VARIANCE}, {"is_test": 1, "order": "NHWC"},
     lambda: (last(X) - MEAN) / np.sqrt(VARIANCE + 1e-5) * SCALE + FOUR),
    ("Dropout", X, {}, {"ratio": 0.7, "is_test": 1}, lambda: X),
    ("Concat", X, {"w": SQUARE[:, :2, :1, :7].repeat(9, 2)}, {},
     lambda: np.concatenate([X, SQUARE[:, :2, :1, :7].repeat(9, 2)], 1)),
    ("Concat", X, {"w": X + 1}, {"order": "NHWC"}, lambda: np.concatenate([X, X + 1], 3)),
    ("Concat", X, {"w": X + 1}, {"axis": -1}, lambda: np.concatenate([X, X + 1], 3)),
    ("Concat", X, {"w": X + 1}, {"axis": 0, "add_axis": 1}, lambda: np.stack([X, X + 1])),
    ("Sum", X, {"w": X + 1, "v": -X}, {}, lambda: X + 1),
    ("Add", X, {"w": FOUR}, {"broadcast": 1, "axis": 1}, lambda: X + FOUR[:, None, None]),
    ("Add", X, {"w": X[0, 0]}, {"broadcast": 1}, lambda: X + X[0, 0]),
    ("Add", X, {"w": FOUR[:1]}, {"broadcast": 1}, lambda: X + FOUR[0]),
    ("Add", X, {"w": FOUR.reshape(4, 1, 1)}, {}, lambda: X + FOUR[:, None, None]),
    ("Mul", X, {"w": FOUR}, {"broadcast": 1, "axis_str": "C"}, lambda: X * FOUR[:, None, None]),
    ("Mul", X, {"w": X + 1}, {}, lambda: X * (X + 1)),
    ("Mul", X, {"w": X[:, :, 0, 0]}, {"broadcast": 1, "axis": 0}, lambda: X * X[:, :, :1, :1]),
    ("Reshape", X, {}, {"shape": [0, -1, 7]}, lambda: X.reshape(2, 36, 7)),
    ("Reshape", X, {"s": np.array([4, -1])}, {}, lambda: X.reshape(4, 126)),
    ("Flatten", X, {}, {}, lambda: ROWS),
    ("Flatten", X, {}, {"axis": 2}, lambda: X.reshape(8, 63)),
    ("Transpose", X, {}, {"axes": [1, 0, 3, 2]}, lambda: X.transpose(1, 0, 3, 2)),
    ("Transpose", X, {}, {}, lambda: X.transpose()),
    ("NCHW2NHWC", X, {}, {}, lambda: last(X)),
    ("NHWC2NCHW", last(X), {}, {}, lambda: X),
    ("ChannelShuffle", X, {}, {"group": 2}, lambda: X[:, [0, 2, 1, 3]]),
    ("ResizeNearest", X, {}, {"height_scale": 2.0, "width_scale": 3.0}, lambda: X.repeat(2, 2).repeat(3, 3)),
    ("ResizeNearest", SQUARE, {}, {"height_scale": 0.5, "width_scale": 1.5},
     lambda: SQUARE[:, :, ::2][:, :, :, (np.arange(12) / 1.5).astype(int)]),
    ("Copy", X, {}, {}, lambda: X),
]


@pytest.mark.parametrize(("kind", "x", "weights", "arguments", "expected"), CASES,
                         ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)])
def test_operator(kind: str, x: Array, weights: dict[str, Array], arguments: dict[str, Any],
                  expected: Callable[[], Array]) -> None:
    wanted = expected()
    y = computed(kind, x, weights, **arguments)
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


# ---- nets -------------------------------------------------------------------------------------------------


def reference(x: Array, weights: dict[str, Array]) -> Array:
    """What the little net computes."""
    y = np.maximum(conv(x, weights["conv1_w"], weights["conv1_b"], [1, 1], [1] * 4, [1, 1]), 0)
    y = pooled(y, 3, 2, [0, 0, 1, 1], False).reshape(len(x), -1)
    return softmax(y @ weights["fc_w"].T + weights["fc_b"])


@pytest.mark.parametrize("as_text", [False, True])
def test_a_pair_of_files(as_text: bool, tmp_path: Path) -> None:
    init, net, weights = little_pair()
    for name, message in (("init_net", init), ("predict_net", net)):
        data = text_format.MessageToString(message).encode() if as_text else message.SerializeToString()
        (tmp_path / name).write_bytes(data)
    x = draw(2, 3, 6, 6)
    made = read_caffe2(tmp_path / "init_net", tmp_path / "predict_net", {"data": x.shape})
    result = outputs(made, data=x)
    assert list(result) == ["prob"]
    np.testing.assert_allclose(result["prob"], reference(x, weights), rtol=1e-4, atol=1e-6)
    types = {layer.type for layer in made.layer}
    assert types >= {"Input", "Convolution", "ReLU", "Pooling", "InnerProduct", "Softmax"}


def test_shapes_beside_the_nets(tmp_path: Path) -> None:
    init, net, _ = little_pair()
    (tmp_path / "init_net.pb").write_bytes(init.SerializeToString())
    (tmp_path / "predict_net.pb").write_bytes(net.SerializeToString())
    (tmp_path / "value_info.json").write_text('{"data": [1, [3, 3, 6, 6]]}')
    made = read_caffe2(tmp_path / "init_net.pb", tmp_path / "predict_net.pb")
    assert list(made.layer[0].input_param.shape[0].dim) == [3, 3, 6, 6]
    made = read_caffe2(tmp_path / "init_net.pb", tmp_path / "predict_net.pb", {"data": [1, 3, 6, 6]})
    assert list(made.layer[0].input_param.shape[0].dim) == [1, 3, 6, 6]


def test_blobs_that_are_written_again() -> None:
    """The last value has the blob's name; what was read before the last writing is what was there then."""
    net = NetDef(external_input=["x"], external_output=["a", "b", "x"])
    operator(net, "Sigmoid", ["x"], ["a"])
    operator(net, "Tanh", ["a"], ["b"])
    operator(net, "Relu", ["a"], ["a"])
    operator(net, "Add", ["a", "b"], ["a"])
    operator(net, "Tanh", ["x"], ["x"])
    x = draw(2, 3)
    model = to_onnx(None, net, {"x": x.shape})
    assert [info.name for info in model.graph.output] == ["a", "b", "x_1"]  # an input keeps its name
    result = outputs(read_onnx(model), x=x)
    middle = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(result["a"], middle + np.tanh(middle), rtol=1e-5)
    np.testing.assert_allclose(result["b"], np.tanh(middle), rtol=1e-5)
    np.testing.assert_allclose(result["x_1"], np.tanh(x), rtol=1e-5)


def test_without_external_outputs_the_ends_are_outputs() -> None:
    net = NetDef()
    operator(net, "Relu", ["x"], ["a"])
    operator(net, "Tanh", ["a"], ["b"])
    operator(net, "Copy", ["a"], ["c"])
    assert [info.name for info in to_onnx(None, net, {"x": [1, 2]}).graph.output] == ["b", "c"]


def test_the_old_shape_takes_a_blob_back() -> None:
    net = NetDef(external_input=["x"], external_output=["y"])
    operator(net, "Reshape", ["x"], ["flat", "shape"], shape=[0, -1])
    operator(net, "Relu", ["flat"], ["flat"])
    operator(net, "Reshape", ["flat", "shape"], ["y", "_"])
    x = draw(2, 3, 4)
    np.testing.assert_array_equal(outputs(read_onnx(to_onnx(None, net, {"x": x.shape})), x=x)["y"], np.maximum(x, 0))


def test_fills_inside_the_predict_net() -> None:
    net = NetDef(external_input=["x"], external_output=["y"])
    operator(net, "ConstantFill", [], ["two"], shape=[1], value=2.0)
    operator(net, "Mul", ["x", "two"], ["y"], broadcast=1)
    x = draw(2, 3)
    np.testing.assert_array_equal(outputs(read_onnx(to_onnx(None, net, {"x": x.shape})), x=x)["y"], 2 * x)


# ---- fills ------------------------------------------------------------------------------------------------


def filled(kind: str, **arguments: Any) -> Array:
    net = NetDef()
    operator(net, kind, [], ["w"], **arguments)
    return Fills().net(net)["w"]


def test_given_and_constant_fills() -> None:
    values = [-1.5, 0.0, 2.0, 1e-30, 3.0, -7.0]
    given = filled("GivenTensorFill", shape=[2, 3], values=values)
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, np.array(values, np.float32).reshape(2, 3))
    assert filled("GivenTensorIntFill", shape=[2], values=[-(2**31), 5]).tolist() == [-(2**31), 5]
    long = filled("GivenTensorInt64Fill", shape=[1, 2], values=[2**40, -1])
    assert (long.dtype, long.tolist()) == (np.int64, [[2**40, -1]])
    for arguments, value, dtype in (({"value": 0.5}, 0.5, "float32"), ({}, 0, "float32"), ({"value": 3}, 3, "int64"),
                                    ({"value": 3, "dtype": 1}, 3, "float32"), ({"value": -2, "dtype": 2}, -2, "int32"),
                                    ({"value": 1, "dtype": 5}, True, "bool")):
        constant = filled("ConstantFill", shape=[2, 2], **arguments)
        assert (constant.dtype, constant.tolist()) == (np.dtype(dtype), [[value] * 2] * 2)
    assert filled("ConstantFill", value=4.0).shape == ()


def test_random_fills_have_caffe2s_spread(caplog: pytest.LogCaptureFixture) -> None:
    shape = [50, 20, 5, 5]
    xavier, msra = filled("XavierFill", shape=shape), filled("MSRAFill", shape=shape)
    limit = np.sqrt(3 / 500)
    assert 0.99 * limit < np.abs(xavier).max() <= limit and abs(xavier.mean()) < 0.01 * limit
    assert abs(msra.std() / np.sqrt(2 / 1250) - 1) < 0.02
    normal = filled("GaussianFill", shape=shape, mean=3.0, std=0.5)
    assert abs(normal.mean() - 3) < 0.02 and abs(normal.std() / 0.5 - 1) < 0.02
    assert abs(filled("GaussianFill", shape=shape).std() - 1) < 0.02
    uniform = filled("UniformFill", shape=shape, min=-2.0, max=6.0)
    assert -2 <= uniform.min() < -1.99 and 5.99 < uniform.max() <= 6
    net = one("FC", {"w": xavier[:3, :4, 0, 0], "b": xavier[:3, 0, 0, 0]})
    init = NetDef()
    operator(init, "XavierFill", [], ["w"], shape=[3, 4])
    operator(init, "XavierFill", [], ["b"], shape=[3])
    with caplog.at_level(logging.WARNING):
        models = [to_onnx(init, net, {"x": [1, 4]}, seed).SerializeToString() for seed in (0, 0, 1)]
    assert models[0] == models[1] != models[2]
    assert "2 blobs are drawn at random, as the nets say (w, ...): the model is untrained" in caplog.text
    first, second = Fills(0), Fills(0)
    operator(init, "XavierFill", [], ["again"], shape=[3, 4])
    assert not np.array_equal(first.net(init)["w"], second.net(init)["again"])
