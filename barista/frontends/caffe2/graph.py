"""An ONNX graph that grows node by node and knows the shape of each value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from barista.errors import NetError

# Of this age operators are closest to Caffe2's: Softmax takes the axes from `axis` on together.
OPSET, IR_VERSION = 12, 7


class Graph:
    """Nodes, constants and inputs under names that are never given twice.

    Parameters
    ----------
    taken : names that `fresh` must not give
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._types: dict[str, onnx.TypeProto] = {}
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self.owner = "the net"  # whose nodes are being added, for messages

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet."""
        name, count = hint, 0
        while name in self._taken:
            count += 1
            name = f"{hint}_{count}"
        self._taken.add(name)
        return name

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Declare an input of float numbers."""
        self._inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)))
        self._types[name] = self._inputs[-1].type
        return name

    def constant(self, array: npt.NDArray[Any], name: str) -> str:
        """Add an initialiser; `name` is taken as it stands."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self._constants[name] = array
        self._types[name] = helper.make_tensor_type_proto(kind, array.shape)
        return name

    def constants(self, values: Sequence[int] | Sequence[float], hint: str) -> str:
        """Add a short list of numbers that a node takes as an input."""
        return self.constant(np.array(values, np.float32 if all(isinstance(v, float) for v in values) else np.int64),
                             self.fresh(hint))

    def value(self, name: str) -> npt.NDArray[Any] | None:
        """The array of an initialiser, None for everything else."""
        return self._constants.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(dim.dim_value for dim in self._types[name].tensor_type.shape.dim)

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node, and return the name of its first output.

        Raises
        ------
        NetError : the operator cannot take values of these shapes
        """
        output = self.fresh(f"{inputs[0]}__{kind.lower()}" if inputs else kind.lower())
        node = helper.make_node(kind, list(inputs), [output], **attributes)
        schema = onnx.defs.get_schema(kind, OPSET, "")
        types = {name: self._types[name] for name in inputs if name}
        data = {name: numpy_helper.from_array(self._constants[name], name) for name in inputs
                if name in self._constants and self._constants[name].size <= 64}
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
            raise self._misfit(inputs, " ".join(str(error).split())) from None
        known = inferred.get(output)
        sizes = [] if known is None else list(known.tensor_type.shape.dim)
        if known is None or not known.tensor_type.HasField("shape") or not all(d.HasField("dim_value") for d in sizes):
            raise self._misfit(inputs, "no shape follows from them")
        if any(size.dim_value < 0 for size in sizes) or math.prod(size.dim_value for size in sizes) >= 2**31:
            raise self._misfit(inputs, f"the result would have the shape {[size.dim_value for size in sizes]}")
        self._types[output] = known
        self._nodes.append(node)
        return output

    def rename(self, name: str, wanted: str) -> None:
        """Give the output of the newest nodes another name, which nothing has yet."""
        self._types[wanted] = self._types.pop(name)
        for node in reversed(self._nodes):
            node.input[:] = [wanted if used == name else used for used in node.input]
            if name in node.output:
                node.output[:] = [wanted if made == name else made for made in node.output]
                break
        node.name = wanted

    def model(self, name: str, outputs: Sequence[str]) -> onnx.ModelProto:
        """The whole as a model, with those constants that a node or an output takes."""
        used = {taken for node in self._nodes for taken in node.input} | set(outputs)
        graph = helper.make_graph(
            self._nodes, name or "caffe2", self._inputs,
            [helper.make_value_info(output, self._types[output]) for output in outputs],
            [numpy_helper.from_array(array, key) for key, array in self._constants.items() if key in used])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                 producer_name="barista")

    def _misfit(self, inputs: Sequence[str], why: str) -> NetError:
        shapes = ", ".join(f"{name!r} {self.shape(name)}" for name in inputs if name)
        return NetError(f"{self.owner} cannot take the shapes of its inputs, {shapes}: {why}")
