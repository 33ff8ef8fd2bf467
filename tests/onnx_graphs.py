"""Small ONNX graphs for tests, what they compute here, and what ONNX Runtime makes of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from barista.frontends.onnx import convert, fold, read_onnx
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import TEST, NetParameter

Array = npt.NDArray[Any]

# The form of the models, which has been able to hold every opset.
IR_VERSION = 8


def model(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Sequence[int | str]], outputs: Sequence[str],
          weights: Mapping[str, Array] | None = None, opset: int = 21) -> onnx.ModelProto:
    """A model of float inputs with these shapes; outputs have none."""
    graph = helper.make_graph(
        list(nodes), "small",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def one_node(op: str, shape: Sequence[int], weights: Sequence[Array] = (), outputs: int = 1, opset: int = 21,
             **attributes: Any) -> onnx.ModelProto:
    """A model of one node with the input ``x``, weights ``w0``... and outputs ``y``, ``y1``..."""
    names = [f"w{index}" for index in range(len(weights))]
    tops = ["y", *(f"y{index}" for index in range(1, outputs))]
    node = helper.make_node(op, ["x", *names], tops, name="node", **attributes)
    return model([node], {"x": shape}, tops, dict(zip(names, weights, strict=True)), opset)


def small(opset: int = 21) -> onnx.ModelProto:
    """Convolution, ReLU, pooling and an inner product."""
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
             helper.make_node("Relu", ["c"], ["r"], name="relu"),
             helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
             helper.make_node("Flatten", ["p"], ["f"], name="flat"),
             helper.make_node("Gemm", ["f", "v", "d"], ["y"], name="ip", transB=1)]
    weights = {"w": values(2, 1, 3, 3), "b": values(2, seed=1), "v": values(3, 8, seed=2), "d": values(3, seed=3)}
    return model(nodes, {"x": ("batch", 1, 4, 4)}, ["y"], weights, opset)


def fuzz_models() -> list[onnx.ModelProto]:
    """Models that fuzzing begins with."""
    shaped = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("ConstantOfShape", ["s"], ["c"]),
              helper.make_node("Expand", ["c", "e"], ["d"]), helper.make_node("Add", ["x", "d"], ["a"]),
              helper.make_node("Reshape", ["a", "t"], ["r"]), helper.make_node("Slice", ["r", "b", "f"], ["l"]),
              helper.make_node("Concat", ["l", "l"], ["n"], axis=0), helper.make_node("Pad", ["n", "p"], ["y"])]
    numbers = {"e": np.array([2, 3]), "t": np.array([3, -1]), "b": np.array([0]), "f": np.array([2]),
               "p": np.array([0, 1, 1, 0])}
    return [small(), small(7), model(shaped, {"x": (2, 3)}, ["y"], numbers),
            one_node("ConvTranspose", (1, 2, 3, 3), [values(2, 2, 3, 3)], output_padding=[0, 0], strides=[2, 1]),
            one_node("AveragePool", (1, 2, 5, 4), kernel_shape=[2, 2], pads=[1, 0, 0, 1], ceil_mode=1)]


def read_limited(source: str | bytes | os.PathLike[str]) -> NetParameter:
    """Read a model that may hold anything: constants are computed only where they are small."""
    limit, fold.MAX_CONSTANT_BYTES = fold.MAX_CONSTANT_BYTES, 2**20
    try:
        return read_onnx(source)
    finally:
        fold.MAX_CONSTANT_BYTES = limit


def values(*shape: int, seed: int = 0) -> Array:
    """Numbers of both signs, with zeros among them."""
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return np.where(np.abs(array) < 0.1, np.float32(0), array)


def outputs(proto: onnx.ModelProto, feeds: Mapping[str, Array] | None = None) -> list[Array]:
    """What the net of a model computes at TEST; its outputs must be those of the graph, with the shapes inferred."""
    converted = convert(proto)
    net = Net(converted.net, TEST, ops=CpuOps())
    for port in converted.inputs:
        net.blobs[port.blob].data[...] = (feeds or {})[port.name]
    net.forward()
    assert sorted(net.outputs) == sorted(port.blob for port in converted.outputs)
    results = [np.array(net.blobs[port.blob].data) for port in converted.outputs]
    for port, result in zip(converted.outputs, results, strict=True):
        assert port.shape is None or port.shape == result.shape, port
    return results


def types(proto: onnx.ModelProto) -> list[str]:
    """The types of the layers of a model's net, without those of its inputs."""
    return [layer.type for layer in convert(proto).net.layer if layer.type != "Input"]


def compare(proto: onnx.ModelProto, feeds: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    """Hold the outputs of a model against those of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for ours, theirs in zip(outputs(proto, feeds), session.run(None, dict(feeds)), strict=True):
        assert ours.shape == theirs.shape
        scale = max(1.0, np.abs(theirs).max(initial=0))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale)
