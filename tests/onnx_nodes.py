"""Little ONNX models for tests: one node on given arrays, run by Barista and by something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from barista.frontends.onnx import convert
from barista.frontends.onnx.backend import run_model
from barista.proto.caffe_pb2 import NetParameter

Array = npt.NDArray[Any]

NEWEST = 22  # opset of the models here, unless they are of an older one


def model(op: str, inputs: Sequence[Array | None], outputs: int = 1, opset: int = NEWEST, constant: Sequence[int] = (),
          dtype: npt.DTypeLike | None = None, **attributes: Any) -> onnx.ModelProto:
    """A model of one node.

    Parameters
    ----------
    inputs : arrays that its inputs have the types and shapes of; None leaves one out
    constant : which of them are initialisers, with these values
    dtype : of the outputs, by default that of the first input
    """
    names = ["" if array is None else f"x{index}" for index, array in enumerate(inputs)]
    node = onnx.helper.make_node(op, names, [f"y{index}" for index in range(outputs)], name="node", **attributes)
    given = [(name, np.asarray(array)) for name, array in zip(names, inputs, strict=True) if array is not None]
    fixed = [f"x{index}" for index in constant]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype) if dtype is not None else given[0][1].dtype)
    graph = onnx.helper.make_graph(
        [node], "little",
        [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
         for name, array in given if name not in fixed],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name in node.output],
        [onnx.numpy_helper.from_array(array, name) for name, array in given if name in fixed])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def run(op: str, inputs: Sequence[Array | None], outputs: int = 1, opset: int = NEWEST, constant: Sequence[int] = (),
        **more: Any) -> list[Array]:
    """The outputs of one node as Barista computes them."""
    proto = model(op, inputs, outputs, opset, constant, **more)
    return list(run_model(proto, feeds(proto, inputs)))


def feeds(proto: onnx.ModelProto, inputs: Sequence[Array | None]) -> dict[str, Array]:
    """The arrays of a model's inputs by name."""
    return {info.name: np.asarray(inputs[int(info.name[1:])]) for info in proto.graph.input}


def expected(op: str, inputs: Sequence[Array | None], outputs: int = 1, opset: int = NEWEST,
             constant: Sequence[int] = (), **more: Any) -> list[Array]:
    """The outputs of one node as ONNX Runtime computes them."""
    import onnxruntime

    proto = model(op, inputs, outputs, opset, constant, **more)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds(proto, inputs)))


def layers(op: str, inputs: Sequence[Array | None], outputs: int = 1, opset: int = NEWEST, constant: Sequence[int] = (),
           **more: Any) -> NetParameter:
    """The net that one node becomes."""
    proto = model(op, inputs, outputs, opset, constant, **more)
    return convert(proto, values=feeds(proto, inputs)).net


def types(*args: Any, **more: Any) -> list[str]:
    """The types of the layers that one node becomes, without inputs and constants."""
    return [layer.type for layer in layers(*args, **more).layer if layer.type not in ("Input", "Parameter")]
