"""What the exporter builds: nodes, constants and names of an ONNX graph, and the table of what says each layer type."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from barista.proto.caffe_pb2 import LayerParameter

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

# Opset in which ReduceMean and its like, ReduceSum apart, took their axes as an input.
_AXES_AS_INPUT = 18


class UnsayableError(Exception):
    """Why a layer cannot be said in ONNX; caught where all of them are put together."""


@dataclasses.dataclass
class Step:
    """A layer on its way out.

    Attributes
    ----------
    param : the layer as it is defined
    inputs, outputs : names of its values, each of which one step makes
    in_shapes, out_shapes : their shapes
    blobs : its parameters
    """

    param: LayerParameter
    inputs: list[str]
    outputs: list[str]
    in_shapes: list[Shape]
    out_shapes: list[Shape]
    blobs: list[Array]

    @property
    def type(self) -> str:
        """The layer's type."""
        return self.param.type

    def axis(self, axis: int) -> int:
        """An axis of the first input, counted from the front."""
        return axis + len(self.in_shapes[0]) if axis < 0 else axis

    def blob(self, index: int, shape: Sequence[int] | None = None) -> Array:
        """A parameter in single precision, in `shape` where one is given (old files give all of them four axes).

        Raises
        ------
        UnsayableError : there is none, or one of another size
        """
        if index >= len(self.blobs):
            raise UnsayableError(f"it has {len(self.blobs)} parameter blob(s) and needs {index + 1}; load its weights "
                                 "first")
        array = self.blobs[index].astype(np.float32, copy=False)
        if shape is None:
            return array
        if array.size != math.prod(shape):
            raise UnsayableError(f"its parameter {index} has shape {array.shape}, where {tuple(shape)} is needed")
        return array.reshape(shape)


class Graph:
    """The nodes and constants made so far.

    Parameters
    ----------
    opset : version of ONNX's operators
    taken : names that values of the net have
    values : arrays of values that depend on shapes alone
    """

    def __init__(self, opset: int, taken: Sequence[str], values: Mapping[str, Array] | None = None) -> None:
        self.values = values or {}
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        # Values that are one number everywhere.
        self.filled: dict[str, float] = {}
        self._taken = set(taken)
        self._node_names: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._known: dict[tuple[str, Shape, bytes], str] = {}
        self._shared: dict[tuple[str, str, Shape], str] = {}
        self.step: Step | None = None

    # ---- values -----------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A name that no value has: `hint`, or `hint` with a number."""
        name = next(name for name in itertools.chain([hint], (f"{hint}_{i}" for i in itertools.count(1)))
                    if name not in self._taken)
        self._taken.add(name)
        return name

    def alias(self, name: str, other: str) -> None:
        """Let `name` be the same value as `other`: no node is made."""
        self._aliases[name] = self.resolve(other)

    def resolve(self, name: str) -> str:
        """The value that stands behind a name."""
        return self._aliases.get(name, name)

    def constant(self, array: Array | Sequence[float] | float, hint: str = "constant") -> str:
        """A constant in single precision, unless it is an array of whole numbers; equal ones are one."""
        whole = isinstance(array, np.ndarray) and array.dtype.kind == "i"
        values = np.asarray(array, None if whole else np.float32)
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._known:
            self._known[key] = self._keep(values, f"{self._who()}.{hint}")
        return self._known[key]

    def integers(self, *values: int, hint: str = "sizes") -> str:
        """A constant list of 64-bit integers."""
        return self.constant(np.array(values, np.int64), hint)

    def weight(self, array: Array, hint: str, index: int | None = None) -> str:
        """A parameter of the layer; of those that share a name and are equal there is one.

        Parameters
        ----------
        hint : what it is: weight, bias, ...
        index : which parameter blob it is, unless it was computed from several
        """
        values = np.ascontiguousarray(array, np.float32)
        specs = [] if self.step is None else self.step.param.param
        shared = specs[index].name if index is not None and index < len(specs) else ""
        if shared:
            key = (shared, hint, values.shape)
            if key in self._shared and np.array_equal(self.constants[self._shared[key]], values):
                return self._shared[key]
            self._shared[key] = self._keep(values, shared)
            return self._shared[key]
        return self._keep(values, f"{self._who()}.{hint}")

    def _keep(self, values: Array, hint: str) -> str:
        name = self.fresh(hint)
        self.constants[name] = values
        return name

    def _who(self) -> str:
        return "net" if self.step is None else self.step.param.name

    # ---- nodes ------------------------------------------------------------------------------

    def node(self, op: str, inputs: Sequence[str], output: str | None = None, *, more: Sequence[str] = (),
             **attributes: Any) -> str:
        """Add a node and return the name of its first output.

        Parameters
        ----------
        op : ONNX's operator
        output : name of the first output; None makes one up
        more : names of further outputs
        attributes : those that are None are left out
        """
        result = output if output is not None else self.fresh(f"{self._who()}_{op.lower()}")
        last = self.step is not None and output in self.step.outputs
        name = self._who() if last else f"{self._who()}/{op}"
        name = next(n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
                    if n not in self._node_names)
        self._node_names.add(name)
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(onnx.helper.make_node(op, [self.resolve(i) for i in inputs], [result, *more], name=name,
                                                     **given))
        return result

    def fill(self, shape: Sequence[int], value: float, output: str) -> None:
        """One number everywhere."""
        self.filled[output] = value
        tensor = onnx.numpy_helper.from_array(np.array([value], np.float32))
        self.node("ConstantOfShape", [self.integers(*shape, hint="shape")], output, value=tensor)

    def reshape(self, x: str, shape: Sequence[int], new: Sequence[int], output: str | None = None) -> str:
        """`x` of `shape` under the shape `new`; nothing is done where they are the same and no output is named."""
        if tuple(shape) == tuple(new):
            if output is None:
                return x
            self.alias(output, x)
            return output
        sizes = [0 if i == 0 and size == shape[0] else size for i, size in enumerate(new)] if shape else list(new)
        if 0 in shape or 0 in new:
            raise UnsayableError(f"it turns shape {tuple(shape)} into {tuple(new)}: nothing is in it")
        return self.node("Reshape", [x, self.integers(*sizes, hint="shape")], output)

    def reduce(self, op: str, x: str, axes: Sequence[int], output: str | None = None, keepdims: bool = True) -> str:
        """`x` reduced along `axes` by ReduceSum or one of its like."""
        if op == "ReduceSum" or self.opset >= _AXES_AS_INPUT:
            return self.node(op, [x, self.integers(*axes, hint="axes")], output, keepdims=int(keepdims))
        return self.node(op, [x], output, axes=list(axes), keepdims=int(keepdims))

    def slice(self, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int],
              output: str | None = None, steps: Sequence[int] | None = None) -> str:
        """A part of `x` along `axes`."""
        lists = [starts, ends, axes, *([] if steps is None else [steps])]
        return self.node("Slice", [x, *(self.integers(*values) for values in lists)], output)

    def affine(self, x: str, scale: float, shift: float, output: str | None = None) -> str:
        """scale * x + shift, with as few nodes as say it."""
        if scale == 1 and shift == 0:
            if output is not None:
                self.alias(output, x)
            return x if output is None else output
        if scale != 1:
            x = self.node("Mul", [x, self.constant(scale, "scale")], output if shift == 0 else None)
        return self.node("Add", [x, self.constant(shift, "shift")], output) if shift else x

    def to_float(self, x: str, output: str | None = None) -> str:
        """`x` as single-precision numbers."""
        return self.node("Cast", [x], output, to=int(onnx.TensorProto.FLOAT))

    def to_integer(self, x: str) -> str:
        """`x` as 64-bit integers, rounded towards 0."""
        return self.node("Cast", [x], to=int(onnx.TensorProto.INT64))


Handler = Callable[[Graph, Step], None]
# What says each layer type in ONNX.
HANDLERS: dict[str, Handler] = {}


def says(*types: str) -> Callable[[Handler], Handler]:
    """Register what says layers of these types: it adds nodes to the graph that make the step's outputs."""
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(types, handler))
        return handler
    return register


# Layer type -> why no operator of ONNX says it.
REASONS: Mapping[str, str] = {
    "Python": "it is code of the user's",
    "Filter": "how many items pass is known only when it runs, and the exported shapes are fixed",
    "DetectionOutput": "ONNX has no detection with this rule",
}
