"""Operators of convolutional networks, each held against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_graphs import compare, model, one_node, outputs, types, values

from barista.errors import NetError, UnsupportedError
from barista.frontends.onnx import convert, read_onnx
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import TRAIN

quick = settings(deadline=None, max_examples=25, derandomize=True,
                 suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])

PADDINGS = st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])


@st.composite
def windows(draw: st.DrawFn, pooling: bool = False) -> tuple[list[int], dict[str, Any]]:
    """Sizes of spatial axes and attributes of windows that fit into them."""
    axes = draw(st.integers(1, 3))
    kernel = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    dilation = draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = [draw(st.integers(e, e + 4)) for e in extent]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "dilations": dilation,
                                  "strides": draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes)),
                                  "auto_pad": draw(PADDINGS)}
    if attributes["auto_pad"].startswith("SAME"):
        attributes["dilations"] = [1] * axes  # what ONNX Runtime knows
    if attributes["auto_pad"] == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, k - 1 if pooling else 2)) for k in (*kernel, *kernel)]
    return sizes, attributes


@quick
@given(windows(), st.sampled_from([(1, 3, 2), (2, 1, 2), (3, 2, 1)]), st.booleans())
def test_conv(shapes: tuple[list[int], dict[str, Any]], groups: tuple[int, int, int], biased: bool) -> None:
    sizes, attributes = shapes
    group, inputs, each = groups
    weights = [values(group * each, inputs, *attributes["kernel_shape"], seed=1)]
    if biased:
        weights.append(values(group * each, seed=2))
    proto = one_node("Conv", (2, group * inputs, *sizes), weights, group=group, **attributes)
    compare(proto, {"x": values(2, group * inputs, *sizes)})


@quick
@given(windows(), st.sampled_from([(1, 3, 2), (2, 2, 1)]), st.booleans(), st.data())
def test_conv_transpose(shapes: tuple[list[int], dict[str, Any]], groups: tuple[int, int, int], biased: bool,
                        data: st.DataObject) -> None:
    sizes, attributes = shapes
    group, inputs, each = groups
    extra = [data.draw(st.integers(0, s - 1)) for s in attributes["strides"]]
    assume(attributes["auto_pad"] == "NOTSET")
    attributes["output_padding"] = extra
    begin, end = attributes["pads"][:len(sizes)], attributes["pads"][len(sizes):]
    whole = [s * (n - 1) + d * (k - 1) + 1 + e - a - b for s, n, d, k, e, a, b in
             zip(attributes["strides"], sizes, attributes["dilations"], attributes["kernel_shape"], extra, begin, end,
                 strict=True)]
    assume(min(whole) > 0)
    weights = [values(group * inputs, each, *attributes["kernel_shape"], seed=1)]
    if biased:
        weights.append(values(group * each, seed=2))
    proto = one_node("ConvTranspose", (2, group * inputs, *sizes), weights, group=group, **attributes)
    compare(proto, {"x": values(2, group * inputs, *sizes)})


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("wanted", [[10, 8], [9, 7], [8, 6], None])
def test_output_shape_of_conv_transpose(auto: str, wanted: list[int] | None) -> None:
    attributes: dict[str, Any] = {"auto_pad": auto, "strides": [3, 2]}
    if wanted:
        attributes["output_shape"] = wanted
    if wanted == [10, 8]:
        attributes["output_padding"] = [1, 1]
    proto = one_node("ConvTranspose", (1, 2, 3, 3), [values(2, 2, 3, 3, seed=1), values(2, seed=3)], **attributes)
    compare(proto, {"x": values(1, 2, 3, 3)})


def _last_windows_differ(sizes: list[int], attributes: dict[str, Any]) -> bool:
    """Whether a window of the largest number that fits would begin behind the input, where runtimes disagree."""
    pads = attributes.get("pads", [0] * 2 * len(sizes))
    for size, kernel, stride, dilation, begin, end in zip(
            sizes, attributes["kernel_shape"], attributes["strides"], attributes["dilations"], pads[:len(sizes)],
            pads[len(sizes):], strict=True):
        count = -(-(size + begin + end - dilation * (kernel - 1) - 1) // stride)
        if count * stride >= size + begin:
            return True
    return False


@quick
@given(windows(pooling=True), st.booleans())
def test_max_pool(shapes: tuple[list[int], dict[str, Any]], ceil: bool) -> None:
    sizes, attributes = shapes
    assume(not (ceil and _last_windows_differ(sizes, attributes)))
    if attributes["auto_pad"].startswith("SAME"):  # else padding may be negative, which ONNX Runtime refuses here
        attributes["strides"] = [*map(min, attributes["strides"], attributes["kernel_shape"])]
    ceil_mode = int(ceil and attributes["auto_pad"] == "NOTSET")
    proto = one_node("MaxPool", (2, 3, *sizes), ceil_mode=ceil_mode, **attributes)
    compare(proto, {"x": values(2, 3, *sizes)})


@quick
@given(windows(pooling=True), st.booleans(), st.booleans())
def test_average_pool(shapes: tuple[list[int], dict[str, Any]], ceil: bool, counts: bool) -> None:
    sizes, attributes = shapes
    attributes["dilations"] = [1] * len(sizes)
    assume(not (ceil and _last_windows_differ(sizes, attributes)))
    proto = one_node("AveragePool", (2, 3, *sizes), ceil_mode=int(ceil and attributes["auto_pad"] == "NOTSET"),
                     count_include_pad=int(counts), **attributes)
    compare(proto, {"x": values(2, 3, *sizes)})


def test_max_pool_with_a_stride_beyond_its_windows() -> None:
    x = values(1, 1, 4, 9)
    proto = one_node("MaxPool", x.shape, kernel_shape=[1, 2], strides=[2, 5], auto_pad="SAME_UPPER")
    expected = x[:, :, ::2].reshape(1, 1, 2, 9)[..., [[1, 2], [6, 7]]].max(-1)
    np.testing.assert_array_equal(outputs(proto, {"x": x})[0], expected)


@pytest.mark.parametrize(("attributes", "layer"), [
    ({"kernel_shape": [3, 3], "strides": [2, 2]}, "Pooling"),
    ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, "Pooling"),  # Caffe's own, as Caffe2 wrote it
    ({"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1}, "Pooling"),
    ({"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 1]}, "Pooling"),
    ({"kernel_shape": [3, 3], "pads": [0, 0, 2, 2]}, "PoolingNd"),
    ({"kernel_shape": [3, 3], "dilations": [2, 1]}, "PoolingNd")])
def test_caffes_pooling_where_it_says_the_same(attributes: dict[str, Any], layer: str) -> None:
    proto = one_node("MaxPool", (2, 2, 8, 9), **attributes)
    assert types(proto) == [layer]
    compare(proto, {"x": values(2, 2, 8, 9)})


def test_indices_of_a_max_pool() -> None:
    x = np.random.default_rng(1).permutation(2 * 2 * 5 * 6).reshape(2, 2, 5, 6).astype(np.float32)
    for order in (0, 1):
        proto = one_node("MaxPool", x.shape, outputs=2, kernel_shape=[2, 3], storage_order=order)
        proto.graph.output[1].type.tensor_type.elem_type = 7
        compare(proto, {"x": x})


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(op: str, shape: tuple[int, ...]) -> None:
    compare(one_node(op, shape), {"x": values(*shape)})


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_lrn(size: int) -> None:
    proto = one_node("LRN", (2, 6, 3, 4), size=size, alpha=0.5, beta=0.7, bias=1.5)
    x = values(2, 6, 3, 4)
    sums = np.zeros_like(x)
    for channel in range(6):
        sums[:, channel] = (x[:, max(channel - (size - 1) // 2, 0):channel + size // 2 + 1]**2).sum(1)
    expected = x / (1.5 + 0.5 / size * sums)**0.7
    np.testing.assert_allclose(outputs(proto, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)
    assert types(proto) == (["LRN"] if size % 2 else ["Power", "Reshape", "PoolingNd", "Reshape", "Power", "Eltwise"])


def test_lrn_of_other_axes() -> None:
    x = values(2, 6, 3, 2, 2)
    flat = outputs(one_node("LRN", (2, 6, 3, 4), size=3, alpha=0.5), {"x": x.reshape(2, 6, 3, 4)})[0]
    np.testing.assert_array_equal(outputs(one_node("LRN", x.shape, size=3, alpha=0.5), {"x": x})[0],
                                  flat.reshape(x.shape))


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 5), (2, 4, 3, 2)])
def test_batch_normalization(shape: tuple[int, ...]) -> None:
    weights = [values(4, seed=seed) for seed in (1, 2, 3)] + [np.abs(values(4, seed=4)) + 0.1]
    proto = one_node("BatchNormalization", shape, weights, epsilon=1e-3)
    compare(proto, {"x": values(*shape)})
    assert types(proto) == ["BatchNorm", "Scale"]


def test_batch_normalization_of_each_element() -> None:
    x, weights = values(3, 2, 2), [values(2, 2, seed=seed) for seed in (1, 2, 3)] + [np.full((2, 2), 0.5, np.float32)]
    proto = one_node("BatchNormalization", x.shape, weights, opset=7, spatial=0, epsilon=0.5)
    expected = (x - weights[2]) / np.sqrt(1.0) * weights[0] + weights[1]
    np.testing.assert_allclose(outputs(proto, {"x": x})[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 2)])
def test_instance_normalization(shape: tuple[int, ...]) -> None:
    compare(one_node("InstanceNormalization", shape, [values(3, seed=1), values(3, seed=2)], epsilon=0.1),
            {"x": values(*shape)})


def test_dropout_drops_when_training() -> None:
    proto = model([helper.make_node("Dropout", ["x"], ["y", "mask"], name="drop")], {"x": (4, 50)}, ["y", "mask"],
                  opset=10)
    proto.graph.output[1].type.tensor_type.elem_type = 9
    x = values(4, 50)
    y, mask = outputs(proto, {"x": x})
    np.testing.assert_array_equal(y, x)
    assert mask.min() == 1
    net = Net(read_onnx(proto), TRAIN, ops=CpuOps())
    net.blobs["x"].data[...] = 1
    net.forward()
    assert set(np.unique(net.blobs["y"].data)) == {0.0, 2.0}


@pytest.mark.parametrize("attributes", [{}, {"transA": 1}, {"transB": 1, "alpha": 0.5}, {"transA": 1, "beta": -2.0}])
@pytest.mark.parametrize("term", [None, (), (1,), (4,), (1, 4), (3, 1), (3, 4)])
def test_gemm(attributes: dict[str, Any], term: tuple[int, ...] | None) -> None:
    weights = [values(*((4, 5) if attributes.get("transB") else (5, 4)), seed=1)]
    if term is not None:
        weights.append(values(*term, seed=2))
    shape = (5, 3) if attributes.get("transA") else (3, 5)
    compare(one_node("Gemm", shape, weights, **attributes), {"x": values(*shape)})


@pytest.mark.parametrize(("left", "right"), [((3, 5), (5, 4)), ((2, 3, 5), (5, 4)), ((5,), (5, 4)), ((3, 5), (5,)),
                                             ((2, 3, 5), (2, 5, 4)), ((2, 1, 3, 5), (3, 5, 4))])
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    compare(one_node("MatMul", left, [values(*right, seed=1)]), {"x": values(*left)})
    both = model([helper.make_node("MatMul", ["x", "z"], ["y"])], {"x": left, "z": right}, ["y"])
    compare(both, {"x": values(*left), "z": values(*right, seed=1)})
    turned = helper.make_node("MatMul", ["w", "x"], ["y"])
    compare(model([turned], {"x": right}, ["y"], {"w": values(*left)}), {"x": values(*right)})


def test_gemm_of_two_inputs() -> None:
    node = helper.make_node("Gemm", ["x", "z", "c"], ["y"], alpha=2.0, beta=-0.5, transA=1, transB=1)
    compare(model([node], {"x": (5, 3), "z": (4, 5), "c": (3, 1)}, ["y"]),
            {"x": values(5, 3), "z": values(4, 5, seed=1), "c": values(3, 1, seed=2)})


def test_imported_layers_learn() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv"), helper.make_node("Flatten", ["c"], ["f"]),
             helper.make_node("MatMul", ["f", "v"], ["y"], name="ip")]
    net = Net(read_onnx(model(nodes, {"x": (2, 1, 4, 4)}, ["y"],
                              {"w": values(2, 1, 3, 3), "v": values(8, 3, seed=1)})), TRAIN, ops=CpuOps())
    assert [(name, [blob.shape for blob in net.params[name]]) for name in net.params] == [
        ("conv", [(2, 1, 3, 3)]), ("ip", [(3, 8)])]
    assert [item.lr_mult for item in net.learnable] == [1.0, 1.0]


@pytest.mark.parametrize(("op", "shape", "weights", "attributes", "message"), [
    ("Conv", (1, 3, 5, 5), [(4, 2, 3, 3)], {}, "'node' (Conv): weights (4, 2, 3, 3) in group=1 take 2 channels; the "
                                               "input (1, 3, 5, 5) has 3"),
    ("Conv", (1, 2, 5, 5), [(4, 2, 3, 3), (3,)], {}, "'node' (Conv): 4 output channels need biases of shape (4,), got "
                                                     "(3,)"),
    ("Conv", (1, 2, 5, 5), [(4, 2, 3, 3)], {"kernel_shape": [3, 2]}, "kernel_shape=[3, 2] and weights with a kernel "
                                                                     "[3, 3] contradict each other"),
    ("Conv", (1, 2, 5, 5), [(4, 2, 3, 3)], {"auto_pad": "SAME"}, "auto_pad='SAME' is none of NOTSET, VALID"),
    ("ConvTranspose", (1, 2, 2, 2), [(2, 2, 3, 3)], {"pads": [3, 3, 3, 3]}, "pads leave an output of [-2, -2]"),
    ("MaxPool", (1, 2, 5, 5), [], {"kernel_shape": [3, 0]}, "(MaxPool)"),
    ("BatchNormalization", (1, 2, 5), [(2,), (2,), (3,), (2,)], {},
     "'node' (BatchNormalization): its inputs do not fit together ('x' (1, 2, 5), 'w0' (2,), 'w1' (2,), 'w2' (3,)"),
    ("Gemm", (2, 3), [(4, 5)], {}, "'node' (Gemm)"),
])
def test_wrong_shapes(op: str, shape: tuple[int, ...], weights: list[tuple[int, ...]], attributes: dict[str, Any],
                      message: str) -> None:
    proto = one_node(op, shape, [values(*size) for size in weights], **attributes)
    with pytest.raises(NetError) as error:
        convert(proto)
    assert message in str(error.value)


def test_random_outputs_are_refused() -> None:
    proto = model([helper.make_node("Dropout", ["x", "r", "t"], ["y"], name="d")], {"x": (2,)}, ["y"],
                  {"r": np.array(0.5, np.float32), "t": np.array(True)})
    with pytest.raises(UnsupportedError, match=r"'d' \(Dropout\): in training mode its output is random"):
        convert(proto)
