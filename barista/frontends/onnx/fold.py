"""What is known before a net runs: shapes and types of values, and values that depend on constants alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from barista.errors import NetError, UnsupportedError

from .model import Value, one_line, type_value
from .node import Node

Array = npt.NDArray[Any]

# What constants that are computed may take: as much as a caffemodel can hold.
MAX_CONSTANT_BYTES = 2**31 - 1

# What a blob can hold.
MAX_ELEMENTS = 2**31 - 1

# Constants of up to so many elements may be shapes, axes or scales, which inference looks at.
_SMALL = 4096

# Operators that are computed where all inputs are constant: none takes much more than its inputs and outputs.
FOLDED = frozenset((
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Cos", "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "IsInf", "IsNaN", "Less", "LessOrEqual",
    "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot", "Or", "Pad", "Pow", "Range",
    "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round",
    "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Split", "Sqrt", "Squeeze",
    "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor"))

# Whose outputs may be larger than their inputs: they are computed only where inference tells how large.
_GROWING = frozenset(("ConstantOfShape", "Expand", "EyeLike", "Gather", "GatherElements", "GatherND", "MatMul",
                      "OneHot", "Pad", "Range", "Tile"))

# Operators that only lay the elements of a weight out anew.
LAYOUT = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))

# Before opset 7 these said in attributes which axes of the first input the second one covers.
_OLD_BROADCAST = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}


def infer(node: Node, opset: int, types: Mapping[str, Value], constants: Mapping[str, Array]) -> dict[str, Value]:
    """Types and shapes of the outputs of a node, those that ONNX can infer.

    Parameters
    ----------
    node, opset : the node, and the opset of its model
    types : what is known of its inputs
    constants : those of its inputs that are known

    Raises
    ------
    NetError : its inputs do not fit together, or its outputs are larger than any blob
    """
    if node.schema is None:
        return {}
    given = {name: _type_proto(types[name]) for name in node.inputs if name in types}
    data = {name: onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
            if value.size <= _SMALL and name in given}
    if len(given) < len({*node.inputs} - {""}):
        return {}
    if node.op == "Split" and node.attr("num_outputs") not in (None, len(node.outputs)):
        # Asked to infer this, ONNX ends the process.
        raise NetError(f"{node.label}: has num_outputs={node.attr('num_outputs')} and {len(node.outputs)} outputs; "
                       "these must be the same")
    try:
        found = onnx.shape_inference.infer_node_outputs(node.schema, node.proto, given, data,
                                                        opset_imports=[onnx.helper.make_opsetid("", opset)])
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise NetError(f"{node.label}: its inputs do not fit together ({_shapes(node, types)}): "
                       f"{one_line(error)}") from error
    values = {name: type_value(proto) for name, proto in found.items()}
    for name, value in values.items():
        if value and value.concrete and math.prod(size or 0 for size in value.shape or ()) > MAX_ELEMENTS:
            raise NetError(f"{node.label}: its output {name!r} has the shape {value.shape}; the most elements that a "
                           f"blob can have are {MAX_ELEMENTS}")
    return {name: value for name, value in values.items() if value is not None}


def evaluate(node: Node, opset: int, inputs: list[Array | None], shape: tuple[int | None, ...] | None,
             types: Mapping[str, Value]) -> list[Array] | None:
    """The outputs of a node, where they depend on constants alone; None where they do not, or are not computed here.

    Parameters
    ----------
    node, opset : the node, and the opset of its model
    inputs : its inputs, None where one is unknown or left out
    shape : the shape of its first input, None where unknown
    types : what is known of its outputs

    Raises
    ------
    UnsupportedError : they would take more memory than constants may
    """
    if node.domain or node.op not in FOLDED:
        return None
    if node.op in ("Shape", "Size"):
        return _shape(node, shape)
    if any(array is None and name for name, array in zip(node.inputs, inputs, strict=True)):
        return None
    known = [types.get(name) for name in node.outputs if name]
    concrete = [value for value in known if value is not None and value.concrete]
    total = sum(math.prod(size or 0 for size in value.shape or ()) * value.dtype.itemsize for value in concrete)
    if total > MAX_CONSTANT_BYTES:
        raise UnsupportedError(f"its constant outputs would take {total} bytes, the most are {MAX_CONSTANT_BYTES}")
    if len(concrete) < len(known) and node.op in _GROWING and not _small_range(node, inputs):
        return None
    return _by_hand(node, opset, inputs) or _by_reference(node, opset, inputs)


def _shape(node: Node, shape: tuple[int | None, ...] | None) -> list[Array] | None:
    if shape is None or None in shape:
        return None
    sizes = np.array(shape, np.int64)
    if node.op == "Size":
        return [np.array(math.prod(sizes.tolist()), np.int64)]
    return [sizes[slice(node.attr("start", 0), node.attr("end"))]]


def _small_range(node: Node, inputs: list[Array | None]) -> bool:
    """Whether a Range, whose length inference may not tell, is a short one."""
    if node.op != "Range" or any(array is None or array.size != 1 for array in inputs):
        return False
    start, limit, step = (float(array.reshape(())) for array in inputs if array is not None)
    return step != 0 and abs(limit - start) <= abs(step) * _SMALL**2


def _by_hand(node: Node, opset: int, inputs: list[Array | None]) -> list[Array] | None:
    """What the reference of ONNX does not know of old opsets."""
    if opset < 7 and node.op in _OLD_BROADCAST and inputs[0] is not None and inputs[1] is not None:
        a, b = inputs[0], inputs[1]
        if node.attr("broadcast") and node.attr("axis") is not None:
            axis = node.attr("axis") % a.ndim
            b = b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))
        return [np.asarray(_OLD_BROADCAST[node.op](a, b)).astype(a.dtype)]
    if opset < 5 and node.op == "Reshape" and inputs[0] is not None:
        shape = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(node.attr("shape") or [])]
        return [inputs[0].reshape(shape)]
    return None


def _by_reference(node: Node, opset: int, inputs: list[Array | None]) -> list[Array]:
    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True) if array is not None}
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(_model(node, opset, feeds)).run(None, feeds)
    except MemoryError:
        raise
    except Exception as error:  # the reference raises whatever NumPy does
        raise NetError(f"{node.label}: cannot be computed from its constant inputs: {one_line(error)}") from error
    if not all(isinstance(result, np.ndarray | np.generic | int | float) for result in results):
        raise UnsupportedError("its constant outputs are no tensors of numbers")
    return [np.asarray(result) for result in results]


def _model(node: Node, opset: int, feeds: Mapping[str, Array]) -> onnx.ModelProto:
    """A model of one node: given the node alone, the reference computes its newest form."""
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in feeds.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    return onnx.helper.make_model(onnx.helper.make_graph([node.proto], "one", inputs, outputs),
                                  opset_imports=[onnx.helper.make_opsetid("", opset)])


def _type_proto(value: Value) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _shapes(node: Node, types: Mapping[str, Value]) -> str:
    return ", ".join(f"{name!r} {types[name].shape}" for name in node.inputs if name in types)
