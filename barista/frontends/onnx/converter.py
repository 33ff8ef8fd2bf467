"""From the nodes of a model to the layers of a net.

A handler turns one node into layers; it is a function ``handler(converter, node)`` that is registered with
``@handler("Type", ...)`` in one of the files ``ops_*``.  It speaks in names of ONNX's values alone: which blob a value
is, and whether there is a blob at all, is the converter's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from barista.errors import NetError, UnsupportedError
from barista.proto.blobs import array_to_blob
from barista.proto.caffe_pb2 import LayerParameter, NetParameter

from . import fold
from .model import Model, Value, element_type, one_line, tensor_array
from .node import Node

Array = npt.NDArray[Any]
Handler = Callable[["Converter", Node], None]

HANDLERS: dict[str, Handler] = {}


def handler(*operators: str) -> Callable[[Handler], Handler]:
    """Register a function as what converts nodes of these types."""
    def register(function: Handler) -> Handler:
        for operator in operators:
            if operator in HANDLERS:
                raise ValueError(f"{operator} has a handler already: {HANDLERS[operator].__name__}")
            HANDLERS[operator] = function
        return function
    return register


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output of a model: its name there, its blob in the net, and its type and shape in the model."""

    name: str
    blob: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Converted:
    """A net, and how the inputs and outputs of its model are called in it.

    Attributes
    ----------
    net : the net
    inputs, outputs : in the order of the model
    fixed : inputs of the model whose values became part of the net
    """

    net: NetParameter
    inputs: list[Port]
    outputs: list[Port]
    fixed: frozenset[str]


class _UnsayableError(UnsupportedError):
    """A node that cannot be converted: the reason."""


class _UnknownError(_UnsayableError):
    """A node that cannot be converted because something before it is not known."""


class Converter:
    """One conversion.

    Parameters
    ----------
    model : what is converted
    values : what inputs of the graph are going to hold; taken where they must be known (see `convert`)
    """

    def __init__(self, model: Model, values: Mapping[str, Array]) -> None:
        self.model = model
        self.opset = model.opset
        self.net = NetParameter(name=model.graph.name)
        self._offered = {name: np.asarray(values[name]) for name in values if name in model.inputs}
        self._fixed: set[str] = set()
        self._types: dict[str, Value] = {}
        self._constants: dict[str, Array] = {}
        self._weights: set[str] = set(model.initialisers)
        self._aliases: dict[str, str] = {}
        self._names = {name for node in model.graph.node for name in [*node.input, *node.output]} | {*model.inputs}
        self._blobs: dict[str, str] = {}
        self._taken_blobs: set[str] = set()
        self._taken_layers: set[str] = set()
        self._node: Node | None = None
        self._failures: dict[str, str] = {}
        self._made: set[str] = set()
        self._broken: set[str] = set()
        self._wanted: set[str] = set(model.outputs)

    # ---- what handlers ask --------------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        value = self._type(name)
        if value is None or value.shape is None or None in value.shape:
            raise _UnknownError(f"the shape of {name!r} is not known before the net runs")
        return tuple(size for size in value.shape if size is not None)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The element type of a value."""
        value = self._type(name)
        if value is None:
            raise _UnknownError(f"the type of {name!r} is not known before the net runs")
        return value.dtype

    def set_shape(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> None:
        """Say what a value is where ONNX's inference does not know, or for one between layers."""
        self._types[name] = Value(np.dtype(dtype), tuple(int(size) for size in shape))

    def constant(self, name: str) -> Array | None:
        """The value of a constant; None for what is computed when the net runs, and for ''."""
        name = self._root(name)
        if name not in self._constants and name in self.model.initialisers:
            self._constants[name] = tensor_array(self.model.initialisers[name], f"initialiser {name!r}")
        return self._constants.get(name)

    def need(self, node: Node, index: int, what: str) -> Array:
        """The value of an input that must be constant.

        Parameters
        ----------
        node, index : which input
        what : what it is, for the message: "the weights"
        """
        name = node.input(index)
        value = self.constant(name)
        if value is None and self._root(name) in self._offered:
            value = self._fix(self._root(name))
        if value is None:
            self.unsupported(node, f"{what} (input {index}, {name!r}) must be constant, but they are computed when the "
                                   "net runs" if name else f"{what} (input {index}) are missing")
        return value

    def weight(self, name: str) -> bool:
        """Whether a constant is an initialiser, or one laid out anew: something that may be learnt."""
        return self._root(name) in self._weights

    def unsupported(self, node: Node, why: str) -> NoReturn:
        """Give a node up; all that were given up are told at the end, in one error."""
        raise _UnsayableError(why)

    # ---- what handlers make -------------------------------------------------------------------------------

    def layer(self, type: str, bottoms: Sequence[str], tops: Sequence[str], *, blobs: Sequence[Array] = (),
              name: str | None = None, **params: Any) -> LayerParameter:
        """Add a layer.

        Parameters
        ----------
        type : of the layer
        bottoms, tops : names of values; a constant among the bottoms becomes a Parameter layer, and '' among the tops
            a blob that nobody uses
        blobs : its parameters; what is not float64 becomes float32
        name : of the layer; by default that of the node, or else of its first output
        params : other fields of the LayerParameter, such as ``convolution_param=dict(num_output=2)``
        """
        below = [self.value(bottom) for bottom in bottoms]
        layer = self.net.layer.add(name=self._layer_name(name, type, tops), type=type, bottom=below, **params)
        for top in tops:
            top = top or self.fresh(f"{layer.name}_unused")
            self._made.add(top)
            layer.top.append(self._blob(top))
        for array in blobs:
            array_to_blob(_floating(array), layer.blobs.add())
        return layer

    def fresh(self, hint: str) -> str:
        """A name for a value between layers, which no other value has."""
        name, count = hint, 0
        while name in self._names or name in self._types:
            count += 1
            name = f"{hint}_{count}"
        self._names.add(name)
        return name

    def alias(self, name: str, other: str) -> None:
        """Let a value be another one; its type stays its own where it has one."""
        if not other:
            raise _UnsayableError("its input is left out")
        self._aliases[name] = self._root(other)

    def set_constant(self, name: str, value: Array, weight: bool = False) -> None:
        """Let a value be a constant; `weight` tells whether it may be learnt."""
        value = np.asarray(value)
        self._constants[name] = value
        self._types[name] = Value(value.dtype, value.shape)
        if weight:
            self._weights.add(name)

    def value(self, name: str, trainable: bool = False) -> str:
        """The blob of a value.

        A constant gets a Parameter layer the first time; `trainable` tells whether a solver changes it.
        """
        root = self._root(name)
        if root not in self._made and self.constant(root) is not None:
            self._parameter(root, self._constants[root], trainable)
        if root not in self._made:
            raise _UnknownError(f"its input {name!r} is not known")
        return self._blob(root)

    def reshaped(self, name: str, sizes: Sequence[int], top: str = "") -> str:
        """Add a Reshape layer (0 keeps a size, one may be -1) and return its top, a new value where none is given."""
        top = top or self.fresh(f"{name}_reshaped")
        self.layer("Reshape", [name], [top], reshape_param={"shape": {"dim": [int(size) for size in sizes]}})
        return top

    def permuted(self, name: str, order: Sequence[int], top: str = "") -> str:
        """Add a Permute layer and return its top, a new value where none is given."""
        top = top or self.fresh(f"{name}_permuted")
        self.layer("Permute", [name], [top], permute_param={"order": [int(axis) for axis in order]})
        return top

    # ---- names --------------------------------------------------------------------------------------------

    def _root(self, name: str) -> str:
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def _type(self, name: str) -> Value | None:
        """What is known of a value; one that is another by name may be of another type."""
        return self._types.get(name) or self._types.get(self._root(name))

    def _blob(self, name: str) -> str:
        """The name of a value's blob: that of the value, without what would break a line of text."""
        if name not in self._blobs:
            self._blobs[name] = _unused(re.sub(r"[\x00-\x1f\x7f]", "_", name) or "_", self._taken_blobs)
        return self._blobs[name]

    def _layer_name(self, name: str | None, type: str, tops: Sequence[str]) -> str:
        """A name for a layer, one that is also a path within a file of weights."""
        node = self._node
        base = name or (node and (node.name or next(filter(None, node.outputs), ""))) or next(iter(tops), "") or type
        base = re.sub(r"[\x00-\x1f\x7f]", "_", base).strip("/") or type
        if name is None and base in self._taken_layers:
            base = f"{base}_{type.lower()}"
        return _unused(base, self._taken_layers)

    def _parameter(self, name: str, value: Array, trainable: bool) -> None:
        layer = self.net.layer.add(name=self._layer_name(name, "Parameter", ()), top=[self._blob(name)])
        self._hold(layer, value, trainable)
        self._made.add(name)

    @staticmethod
    def _hold(layer: LayerParameter, value: Array, trainable: bool) -> None:
        """Make a layer one that holds a value."""
        layer.type = "Parameter"
        layer.ClearField("input_param")
        layer.parameter_param.shape.dim.extend(value.shape)
        layer.parameter_param.shape.SetInParent()
        if not trainable:
            layer.param.add(lr_mult=0, decay_mult=0)
        array_to_blob(_floating(value), layer.blobs.add())

    # ---- the conversion -----------------------------------------------------------------------------------

    def convert(self) -> Converted:
        """Convert the whole model.

        Raises
        ------
        NetError : the model contradicts itself
        UnsupportedError : nodes that no layer can say; the message lists all of them
        """
        for name, tensor in self.model.initialisers.items():
            self._types[name] = Value(element_type(tensor.data_type), tuple(tensor.dims))
        for name, value in self.model.inputs.items():
            self._types[name] = value
        nodes = self._live([Node(proto, self.opset) for proto in self.model.graph.node])
        inputs = self._add_inputs()
        for node in nodes:
            self._convert(node)
        if self._failures:
            raise UnsupportedError(f"{self.model.source}: {len(self._failures)} node(s) cannot be converted to layers:"
                                   + "".join(f"\n  {label}: {why}" for label, why in self._failures.items()))
        outputs = self._add_outputs()
        self._drop_fixed()
        self._silence([port.blob for port in outputs])
        return Converted(self.net, [port for port in inputs if port.name not in self._fixed], outputs,
                         frozenset(self._fixed))

    def _live(self, nodes: list[Node]) -> list[Node]:
        """The nodes that outputs of the graph depend on."""
        kept = []
        for node in reversed(nodes):
            if self._wanted.intersection(node.outputs):
                kept.append(node)
                self._wanted.update(filter(None, node.inputs))
        return kept[::-1]

    def _add_inputs(self) -> list[Port]:
        ports = []
        for name, value in self.model.inputs.items():
            shape = self.shape(name)
            layer = self.net.layer.add(name=self._layer_name(name, "Input", ()), type="Input", top=[self._blob(name)])
            layer.input_param.shape.add(dim=shape)
            self._made.add(name)
            ports.append(Port(name, self._blob(name), value.dtype, shape))
        return ports

    def _fix(self, name: str) -> Array:
        """Make an input of the graph a constant."""
        value = self._offered[name]
        self._fixed.add(name)
        self.set_constant(name, value, weight=True)
        return value

    def _convert(self, node: Node) -> None:
        self._node = node
        try:
            self._infer(node)
            if self._evaluate(node):
                return
            if node.domain or node.op not in HANDLERS:
                raise _UnsayableError("no layer says this operator"
                                 + (f" of domain {node.domain!r}; ONNX's own are known alone" if node.domain else ""))
            HANDLERS[node.op](self, node)
            self._check_outputs(node)
        except UnsupportedError as error:
            self._fail(node, error)
        except NetError as error:
            raise NetError(f"{self.model.source}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Numbers in attributes, and how many there are, may be anything.
            raise NetError(f"{self.model.source}: {node.label}: its attributes and inputs make no sense: "
                           f"{one_line(error)}") from error
        finally:
            self._node = None

    def _check_outputs(self, node: Node) -> None:
        """See whether a handler made what others need."""
        for index, name in enumerate(node.outputs):
            root = self._root(name)
            if name in self._wanted and root not in self._made and self.constant(root) is None:
                raise _UnsayableError(f"its output {index}, {name!r}, exists while a model is trained in ONNX alone"
                                 if index else "its output could not be made")

    def _fail(self, node: Node, error: UnsupportedError) -> None:
        """Remember a node that cannot be converted; what depends on it is treated as if it could."""
        behind = any(self._root(name) in self._broken for name in node.inputs)
        if not (behind and isinstance(error, _UnknownError)):
            label, count = node.label, 1
            while label in self._failures:
                count += 1
                label = f"{node.label} #{count}"
            self._failures[label] = str(error)
        self._broken.update(filter(None, node.outputs))
        self._made.update(filter(None, node.outputs))

    def _infer(self, node: Node) -> None:
        """Find out types and shapes of a node's outputs."""
        types = {name: value for name in node.inputs if (value := self._type(name)) is not None}
        known = {name: array for name in node.inputs if (array := self._light(name)) is not None}
        found = fold.infer(node, self.opset, types, known)
        if not _concrete(found, node):
            # Shapes may hang on the values of inputs.
            hints = [root for name in node.inputs if (root := self._root(name)) in self._offered and name not in known
                     and types[name].dtype.kind in "iu"]
            values = {name: self._offered[root] for name in node.inputs if (root := self._root(name)) in hints}
            better = fold.infer(node, self.opset, types, {**known, **values}) if hints else {}
            if _concrete(better, node):
                found = better
                for root in hints:
                    self._fix(root)
        for name in filter(None, node.outputs):
            declared = self.model.declared.get(name)
            if name in found and (found[name].concrete or declared is None or not declared.concrete):
                self._types[name] = found[name]
            elif declared is not None and name not in self._types:
                self._types[name] = declared

    def _light(self, name: str) -> Array | None:
        """The value of a constant that is small enough to be a shape; weights stay unread."""
        root = self._root(name)
        tensor = self.model.initialisers.get(root)
        if tensor is not None and root not in self._constants and np.prod(tensor.dims, dtype=float) > 4096:
            return None
        return self.constant(name) if name else None

    def _evaluate(self, node: Node) -> bool:
        """Compute a node whose inputs are constant, and tell whether it was."""
        if node.domain or node.op not in fold.FOLDED:
            return False
        first = self._type(node.input(0))
        results = fold.evaluate(node, self.opset, [self.constant(name) for name in node.inputs],
                                first.shape if first else None, self._types)
        if results is None:
            return False
        weight = node.op in fold.LAYOUT and self.weight(node.input(0))
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                self.set_constant(name, result, weight and result.dtype.kind == "f")
        return True

    # ---- the ends -----------------------------------------------------------------------------------------

    def _add_outputs(self) -> list[Port]:
        """Make each output of the graph a blob of its name that no layer reads."""
        ports = []
        for name, declared in self.model.outputs.items():
            root = self._root(name)
            read = any(self._blobs.get(root) in layer.bottom for layer in self.net.layer)
            shared = any(self._root(other) == root for other in self.model.outputs if other != name)
            if root == name and not read and not shared:
                blob = self.value(name)
            else:
                blob = self._copied_output(name, root)
            known = self._type(name)
            ports.append(Port(name, blob, declared.dtype, known.shape if known else None))
        return ports

    def _copied_output(self, name: str, root: str) -> str:
        """A blob for an output that is also something else: an input, a constant, or what layers read."""
        if root == name and name not in self.model.inputs:
            # What layers read takes another name, and the output the one that it must have.
            blob, below = self.value(name), _unused(f"{self._blob(name)}_value", self._taken_blobs)
            for layer in self.net.layer:
                for names in (layer.bottom, layer.top):
                    for index, other in enumerate(names):
                        if other == blob:
                            names[index] = below
            self._blobs[name] = below
        elif root == name:
            below, blob = self.value(name), _unused(f"{self._blob(name)}_output", self._taken_blobs)
        else:
            below, blob = self.value(root), self._blob(name)
        self.net.layer.add(name=_unused(f"{blob}_output".strip("/"), self._taken_layers), type="Split", bottom=[below],
                           top=[blob])
        return blob

    def _drop_fixed(self) -> None:
        """Take the Input layers of fixed inputs out; those that layers read become parameters."""
        read = {bottom for layer in self.net.layer for bottom in layer.bottom}
        for name in self._fixed:
            index = next(i for i, layer in enumerate(self.net.layer)
                         if layer.type == "Input" and layer.top[0] == self._blob(name))
            layer = self.net.layer[index]
            if self._blob(name) not in read and name not in self.model.outputs:
                del self.net.layer[index]
            else:
                self._hold(layer, self._constants[name], False)

    def _silence(self, outputs: Sequence[str]) -> None:
        """Let no blob but the outputs be one that no layer reads."""
        read = {bottom for layer in self.net.layer for bottom in layer.bottom}
        loose = [top for layer in self.net.layer for top in layer.top if top not in read and top not in outputs]
        if loose:
            self.net.layer.add(name=_unused("unused", self._taken_layers), type="Silence", bottom=loose)


def _unused(name: str, taken: set[str]) -> str:
    """`name`, or with a number behind it, as nobody has it yet."""
    wanted, count = name, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name


def _concrete(found: Mapping[str, Value], node: Node) -> bool:
    """Whether the shapes of all outputs are numbers."""
    return all(name in found and found[name].concrete for name in node.outputs if name)


def _floating(array: Array) -> Array:
    return np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32)
