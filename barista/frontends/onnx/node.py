"""A node of a graph as handlers see it."""

from __future__ import annotations

from typing import Any

import onnx

from barista.errors import NetError

from .model import one_line, tensor_array


class Node:
    """One node.

    Attributes
    ----------
    op, domain, name : type of operator, whose it is ('' is ONNX), and name ('' where it has none)
    inputs, outputs : names of values; '' where an optional one is left out
    version : the opset in which this form of the operator came to be; 0 for operators that are not ONNX's
    proto : the message
    """

    def __init__(self, proto: onnx.NodeProto, opset: int) -> None:
        self.proto = proto
        self.op, self.name = proto.op_type, proto.name
        self.domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.schema: onnx.defs.OpSchema | None = None
        if not self.domain and onnx.defs.has(self.op, max_inclusive_version=opset):
            self.schema = onnx.defs.get_schema(self.op, opset)
        self.version = self.schema.since_version if self.schema else 0
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    @property
    def label(self) -> str:
        """The name of the node, or else of its first output, and its operator, for messages."""
        name = self.name or next(filter(None, self.outputs), "")
        return f"{name!r} ({self.domain + '.' if self.domain else ''}{self.op})"

    def input(self, index: int) -> str:
        """The name of an input; '' where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def output(self, index: int) -> str:
        """The name of an output; '' where it is left out."""
        return self.outputs[index] if index < len(self.outputs) else ""

    def has(self, name: str) -> bool:
        """Whether an attribute is given."""
        return name in self._attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute: int, float, str, list of these, array, or a message for what else there is.

        Parameters
        ----------
        name : of the attribute
        default : the value where it is not given; None takes what this opset says, or None where it says nothing
        """
        attribute = self._attributes.get(name)
        if attribute is None and default is None and self.schema is not None and name in self.schema.attributes:
            attribute = self.schema.attributes[name].default_value
            if attribute.type == onnx.AttributeProto.UNDEFINED:
                return None
        if attribute is None:
            return default
        if attribute.type == onnx.AttributeProto.TENSOR:
            return tensor_array(attribute.t, f"attribute {name!r} of {self.label}")
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except ValueError as error:
            raise NetError(f"{self.label}: attribute {name!r} has no value: {one_line(error)}") from error
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if attribute.type == onnx.AttributeProto.STRINGS:
            return [text.decode("utf-8", "replace") for text in value]
        return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value
