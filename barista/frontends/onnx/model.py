"""Reading an ONNX model: from a file, bytes or a message to a graph that can be relied on."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import onnx.parser
from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from barista.errors import NetError, PrototxtError, UnsupportedError, nearest
from barista.proto.wire import parse

from .external import read_external

Source = str | os.PathLike[str] | bytes | onnx.ModelProto

# protobuf's limit for one message.
LARGEST_FILE_BYTES = 2**31 - 1

# Endings of files that hold text: ONNX's own notation, or the text form of the message.
_NOTATION, _TEXT = (".onnxtxt", ".onnxtext"), (".textproto", ".pbtxt")


@dataclasses.dataclass(frozen=True)
class Value:
    """What a model says of a value: element type, and shape where it is known.

    A dimension without a number is None.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def concrete(self) -> bool:
        """Whether all dimensions have a number."""
        return self.shape is not None and None not in self.shape


@dataclasses.dataclass(frozen=True)
class Model:
    """A checked model.

    Attributes
    ----------
    source : the file's name, for messages
    graph : the graph, whose nodes stand after those that they need
    opsets : version of each domain; '' is ONNX's own
    inputs : the inputs that are no initialisers, with shapes that are numbers throughout
    outputs : the outputs; shapes as declared
    declared : what the model says of values between them
    initialisers : name to message
    """

    source: str
    graph: onnx.GraphProto
    opsets: dict[str, int]
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    declared: dict[str, Value]
    initialisers: dict[str, onnx.TensorProto]

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return self.opsets.get("", 1)


def load_model(source: Source, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Read and check a model.

    Files may be binary, in ONNX's notation (``.onnxtxt``) or in the text form of the message (``.textproto``).

    Parameters
    ----------
    source : path, bytes or message; external data are looked for beside a path, and nowhere else
    input_shapes : shapes of inputs by name; other dimensions without a number become 1

    Raises
    ------
    PrototxtError : the file cannot be read, or is no model
    NetError : the graph contradicts itself
    DataError : external data that are missing, too short, or not beside the model
    UnsupportedError : an opset of the future, sparse weights, inputs that are no tensors
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the model"
    proto = _read(source, name)
    if not proto.HasField("graph"):
        raise PrototxtError("holds no graph: this is no ONNX model", name)
    opsets = _opsets(proto, name)
    if proto.functions:
        proto = _inlined(proto, name)
    graph = proto.graph
    if graph.sparse_initializer:
        raise UnsupportedError(f"{name}: has sparse initialisers; store them as dense tensors")
    folder = os.path.dirname(os.path.abspath(name)) if isinstance(source, str | os.PathLike) else None
    initialisers = _initialisers(graph, folder, name)
    _sort(graph, initialisers, name)
    _check(proto, name)
    inputs = {info.name: _value(info, name) for info in graph.input if info.name not in initialisers}
    return Model(name, graph, opsets, _concrete(inputs, input_shapes or {}, name),
                 {info.name: _value(info, name) for info in graph.output}, _declared(graph), initialisers)


def tensor_array(tensor: onnx.TensorProto, who: str) -> npt.NDArray[Any]:
    """The values of a tensor, after a look at whether it holds as many as its shape says.

    Raises
    ------
    NetError : it does not
    UnsupportedError : strings
    """
    check_tensor(tensor, who)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise NetError(f"{who} lies outside of the model, where only initialisers may")
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise NetError(f"{who} cannot be read: {one_line(error)}") from error


def check_tensor(tensor: onnx.TensorProto, who: str) -> None:
    """See whether a tensor is one of numbers and holds, where it holds them itself, as many as its shape says.

    Raises
    ------
    NetError : it does not
    UnsupportedError : other elements than numbers
    """
    shape = tuple(tensor.dims)
    try:
        element_type(tensor.data_type)
    except UnsupportedError as error:
        raise UnsupportedError(f"{who}: {error}") from None
    if any(size < 0 for size in shape):
        raise NetError(f"{who} has the shape {shape}, with sizes below 0: the model is damaged")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    held = max(len(tensor.raw_data), len(tensor.float_data), len(tensor.int32_data), len(tensor.int64_data),
               len(tensor.double_data), len(tensor.uint64_data))
    if math.prod(shape) > 4 * held:  # the smallest numbers lie four in a byte
        raise NetError(f"{who} of shape {shape} needs {math.prod(shape)} numbers; the model holds no more than {held} "
                       f"{'bytes' if tensor.raw_data else 'of them'}: it is damaged or was cut short")


def element_type(code: int) -> np.dtype[Any]:
    """NumPy's type for a type of elements in ONNX.

    Raises
    ------
    UnsupportedError : there is none, or it is none of numbers
    """
    try:
        if code in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            raise KeyError(code)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, TypeError, ValueError):
        raise UnsupportedError(f"{code} is no type of numbers that ONNX {onnx.__version__} knows") from None


def one_line(error: object) -> str:
    """A message of ONNX's, without its line breaks."""
    return " ".join(str(error).split())


# ---- reading ----------------------------------------------------------------------------------------------


def _read(source: Source, name: str) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        return copy
    if not isinstance(source, bytes):
        try:
            if os.path.getsize(source) > LARGEST_FILE_BYTES:
                raise PrototxtError(f"has {os.path.getsize(source)} bytes; a model of 2 GiB or more must keep its "
                                    "weights in external data", name)
            with open(source, "rb") as file:
                data = file.read()
        except (OSError, ValueError) as error:
            raise PrototxtError(f"cannot be read: {getattr(error, 'strerror', None) or error} (in {os.getcwd()})",
                                name) from error
    else:
        data = source
    ending = os.path.splitext(name)[1].lower()
    try:
        if ending in _NOTATION:
            return onnx.parser.parse_model(data.decode("utf-8"))
        if ending in _TEXT:
            return text_format.Parse(data.decode("utf-8"), onnx.ModelProto())
        return parse(data, onnx.ModelProto)
    except DecodeError as error:
        raise PrototxtError(f"is no ONNX model, or is damaged or cut short: {one_line(error)}", name) from error
    except (UnicodeDecodeError, text_format.ParseError, onnx.parser.ParseError) as error:
        raise PrototxtError(f"is no ONNX model in text: {one_line(error)}", name) from error


def _opsets(proto: onnx.ModelProto, name: str) -> dict[str, int]:
    opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import}
    if proto.ir_version < 3 and not opsets:
        opsets[""] = 1  # before opsets were written down
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("", 1) > newest:
        raise UnsupportedError(f"{name}: is of opset {opsets['']}, which is newer than the newest that onnx "
                               f"{onnx.__version__} knows, {newest}; run: pip install --upgrade onnx, or export the "
                               f"model for opset {newest}")
    if opsets.get("", 1) < 1:
        raise NetError(f"{name}: is of opset {opsets['']}; opsets are counted from 1")
    return opsets


def _inlined(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with the bodies of its functions in place of their calls."""
    try:
        return onnx.inliner.inline_local_functions(proto)
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise NetError(f"{name}: its functions cannot be put in place: {one_line(error)}") from error


def _initialisers(graph: onnx.GraphProto, folder: str | None, name: str) -> dict[str, onnx.TensorProto]:
    initialisers: dict[str, onnx.TensorProto] = {}
    for tensor in graph.initializer:
        if not tensor.name:
            raise NetError(f"{name}: an initialiser has no name")
        if tensor.name in initialisers:
            raise NetError(f"{name}: two initialisers are named {tensor.name!r}")
        initialisers[tensor.name] = tensor
        check_tensor(tensor, f"{name}: initialiser {tensor.name!r}")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            read_external(tensor, folder, name)
    return initialisers


# ---- the graph --------------------------------------------------------------------------------------------


def _label(node: onnx.NodeProto) -> str:
    return f"{node.name or next(iter(node.output), '')!r} ({node.op_type})"


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node take from around them."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
            own.update(output for inner in graph.node for output in inner.output)
            used = {name for inner in graph.node for name in {*inner.input, *_captured(inner)}}
            names |= (used | {info.name for info in graph.output}) - own
    return names - {""}


def _check_text(graph: onnx.GraphProto, name: str) -> None:
    """Refuse names that are no text: protobuf gives them as bytes."""
    names: list[str | bytes] = [info.name for info in (*graph.input, *graph.output, *graph.value_info)]
    names += [tensor.name for tensor in graph.initializer]
    for node in graph.node:
        names += [node.op_type, node.name, node.domain, *node.input, *node.output, *_captured(node)]
    for text in names:
        if isinstance(text, bytes):
            raise NetError(f"{name}: the name {text!r} is no text (UTF-8); the model is damaged")


def _sort(graph: onnx.GraphProto, initialisers: Mapping[str, object], name: str) -> None:
    """Put the nodes of a graph into an order in which each stands behind those that it needs."""
    _check_text(graph, name)
    maker: dict[str, int] = {}
    given = {info.name for info in graph.input} | set(initialisers)
    if len({info.name for info in graph.input}) < len(graph.input):
        names = [info.name for info in graph.input]
        raise NetError(f"{name}: two inputs are named {next(n for n in names if names.count(n) > 1)!r}")
    for index, node in enumerate(graph.node):
        for output in node.output:
            if output in maker:
                raise NetError(f"{name}: nodes {_label(graph.node[maker[output]])} and {_label(node)} both write the "
                               f"value {output!r}; each value may be written once")
            if output in given:
                raise NetError(f"{name}: node {_label(node)} writes {output!r}, which is an input or initialiser of "
                               "the graph; each value may be written once")
            if output:
                maker[output] = index
    needs = [sorted({*node.input, *_captured(node)} - {""}) for node in graph.node]
    for node, names in zip(graph.node, needs, strict=True):
        for wanted in names:
            if wanted not in given and wanted not in maker:
                raise NetError(f"{name}: node {_label(node)} needs the value {wanted!r}, which is no input, "
                               "initialiser or output of a node; "
                               f"{nearest(wanted, [*given, *maker]) or 'an initialiser is missing'}")
    for info in graph.output:
        if info.name not in given and info.name not in maker:
            raise NetError(f"{name}: the output {info.name!r} of the graph is written by no node; "
                           f"{nearest(info.name, [*given, *maker]) or 'the model is damaged'}")
    before = [{maker[wanted] for wanted in names if wanted in maker} for names in needs]
    _reorder(graph, before, name)


def _reorder(graph: onnx.GraphProto, before: list[set[int]], name: str) -> None:
    """Reorder nodes, given for each the indices of those that must stand before it."""
    if all(index > max(others, default=-1) for index, others in enumerate(before)):
        return
    after: list[list[int]] = [[] for _ in before]
    waiting = [len(others) for others in before]
    for index, others in enumerate(before):
        for other in others:
            after[other].append(index)
    order = [index for index, count in enumerate(waiting) if not count]
    for index in order:
        for other in after[index]:
            waiting[other] -= 1
            if not waiting[other]:
                order.append(other)
    if len(order) < len(before):
        raise NetError(f"{name}: has a cycle: {' needs '.join(_cycle(graph, before, set(order)))}; a graph of ONNX has "
                       "none")
    nodes = [graph.node[index] for index in order]
    copies = onnx.GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def _cycle(graph: onnx.GraphProto, before: list[set[int]], done: set[int]) -> list[str]:
    """The labels of nodes along a cycle among those that are not done."""
    index = min(set(range(len(before))) - done)
    path: list[int] = []
    while index not in path:
        path.append(index)
        index = min(before[index] - done)
    return [_label(graph.node[i]) for i in [*path[path.index(index):], index]]


def _check(proto: onnx.ModelProto, name: str) -> None:
    """Let ONNX check the model; its weights, which it would copy, stand among the inputs meanwhile."""
    light = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _put(light, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _put(light.graph, field.name, value)
    known = {info.name for info in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name not in known:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for info in [*light.graph.input, *light.graph.value_info, *light.graph.output]:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.shape.SetInParent()  # where the model does not say it, it is found out here
    try:
        onnx.checker.check_model(light)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise NetError(f"{name}: is no valid ONNX model: {one_line(error)}") from error


def _put(message: Message, field: str, value: Any) -> None:
    """Set a field of a message to the value that another of its kind has there."""
    if hasattr(value, "CopyFrom"):
        getattr(message, field).CopyFrom(value)
    elif hasattr(value, "extend"):
        getattr(message, field).extend(value)
    else:
        setattr(message, field, value)


# ---- types and shapes -------------------------------------------------------------------------------------


def type_value(proto: onnx.TypeProto) -> Value | None:
    """Element type and shape of a type, or None where it is no tensor of numbers."""
    tensor = proto.tensor_type
    if not proto.HasField("tensor_type"):
        return None
    try:
        dtype = element_type(tensor.elem_type)
    except UnsupportedError:
        return None
    if not tensor.HasField("shape"):
        return Value(dtype, None)
    return Value(dtype, tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
                              for dim in tensor.shape.dim))


def _value(info: onnx.ValueInfoProto, name: str) -> Value:
    value = type_value(info.type)
    if value is None:
        raise UnsupportedError(f"{name}: {info.name!r} is no tensor of numbers; Barista knows no sequences, maps, "
                               "optional values or strings")
    return value


def _declared(graph: onnx.GraphProto) -> dict[str, Value]:
    values = {info.name: type_value(info.type) for info in [*graph.value_info, *graph.output]}
    return {name: value for name, value in values.items() if value is not None}


def _concrete(inputs: Mapping[str, Value], shapes: Mapping[str, Sequence[int]], name: str) -> dict[str, Value]:
    """Inputs with shapes that are numbers throughout."""
    for wanted in shapes:
        if wanted not in inputs:
            raise NetError(f"{name}: has no input {wanted!r} to give a shape to; "
                           f"{nearest(wanted, inputs) or 'its inputs are: ' + ', '.join(inputs)}")
    found = {}
    for key, value in inputs.items():
        if value.shape is None and key not in shapes:
            raise NetError(f"{name}: says nothing of the shape of its input {key!r}; give one")
        shape = tuple(int(size) for size in shapes[key]) if key in shapes else tuple(
            1 if size is None else size for size in value.shape or ())
        if value.shape is not None and (len(shape) != len(value.shape)):
            raise NetError(f"{name}: its input {key!r} has {len(value.shape)} axes, {_shown(value.shape)}; the shape "
                           f"{shape} that was given has {len(shape)}")
        if any(size < 0 for size in shape):
            raise NetError(f"{name}: its input {key!r} cannot have the shape {shape}; sizes are 0 or more")
        found[key] = Value(value.dtype, shape)
    return found


def _shown(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
