"""ONNX's backend interface: `prepare`, `run_model`, `run_node` and `supports_device`.

``onnx.backend.test.BackendTest(barista.frontends.onnx.backend, __name__)`` runs ONNX's own tests against Barista.  A
model becomes a net for each set of input shapes it is run with; what an operator must know beforehand and the model
takes as an input (the new shape of a Reshape, the weights of a Conv) becomes part of the net then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from barista.compose import make_ops
from barista.errors import BaristaError, NetError, UnsupportedError
from barista.net import Net
from barista.proto.caffe_pb2 import Phase

from . import Converted, convert
from .fold import infer
from .model import Value
from .node import Node
from .ops_activation import NUMBERS

Array = npt.NDArray[Any]

# Nets that one prepared model keeps, for the shapes it was last run with.
_KEPT_NETS = 8


class PreparedModel(BackendRep):
    """A model that is ready to run.

    Parameters
    ----------
    model : the model
    op_set : name of the backend that computes: ``cpu``, ``opencl`` or ``fpga``
    """

    def __init__(self, model: onnx.ModelProto, op_set: str = "cpu") -> None:
        given = {tensor.name for tensor in model.graph.initializer}
        self._model = model
        self._inputs = [info.name for info in model.graph.input if info.name not in given]
        self._op_set = op_set
        # By shapes: which inputs became part of the net. By shapes and values of those: the net.
        self._fixed: dict[tuple[object, ...], frozenset[str]] = {}
        self._nets: OrderedDict[tuple[object, ...], tuple[Net, Converted]] = OrderedDict()

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Compute the outputs.

        Parameters
        ----------
        inputs : one array for each input of the graph that is no initialiser, in order or by name; or one array alone

        Returns
        -------
        the outputs in order, which have their names too, in the types that the model declares

        Raises
        ------
        NetError : inputs are missing, or do not fit
        UnsupportedError : nodes that no layer can say
        """
        arrays = self._arrays(inputs)
        net, converted = self._net(arrays)
        # Fixed inputs are in the net already.
        for port in converted.inputs:
            net.blobs[port.blob].data[...] = arrays[port.name]
        net.forward()
        results = [cast(np.array(net.blobs[port.blob].data), port.dtype) for port in converted.outputs]
        named = namedtupledict("Outputs", [port.name for port in converted.outputs])
        return tuple.__new__(named, results)

    def _arrays(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(self._inputs):
                raise NetError(f"the model takes {len(self._inputs)} input(s), {', '.join(self._inputs)}; "
                               f"got {len(inputs)}")
            inputs = dict(zip(self._inputs, inputs, strict=True))
        if set(inputs) != set(self._inputs):
            raise NetError(f"the model takes the inputs {', '.join(self._inputs)}; got {', '.join(map(str, inputs))}")
        arrays = {}
        for name, value in inputs.items():
            try:
                array = arrays[name] = np.asarray(value)
            except ValueError:
                raise UnsupportedError(f"input {name!r} is no array of numbers; Barista knows no sequences") from None
            if array.dtype.name not in NUMBERS:
                raise UnsupportedError(f"input {name!r} is of type {array.dtype}; Barista knows {', '.join(NUMBERS)}")
        return arrays

    def _net(self, arrays: Mapping[str, Array]) -> tuple[Net, Converted]:
        """The net for these inputs, made where there is none yet."""
        shapes = tuple(array.shape for array in arrays.values())
        fixed = self._fixed.get(shapes)
        if fixed is not None:
            key = self._key(shapes, fixed, arrays)
            if key in self._nets:
                self._nets.move_to_end(key)
                return self._nets[key]
        converted = convert(self._model, {name: array.shape for name, array in arrays.items()}, arrays)
        net = Net(converted.net, phase=Phase.Value("TEST"), ops=make_ops(self._op_set, self._dtype(converted)))
        self._fixed[shapes] = converted.fixed
        self._nets[self._key(shapes, converted.fixed, arrays)] = net, converted
        while len(self._nets) > _KEPT_NETS:
            self._nets.popitem(last=False)
        return net, converted

    @staticmethod
    def _key(shapes: tuple[object, ...], fixed: frozenset[str], arrays: Mapping[str, Array]) -> tuple[object, ...]:
        return shapes, tuple((name, arrays[name].tobytes()) for name in sorted(fixed))

    def _dtype(self, converted: Converted) -> npt.DTypeLike:
        """float64 where the processor computes and float32 does not hold all numbers of inputs and outputs."""
        double = any(port.dtype == np.float64 for port in (*converted.inputs, *converted.outputs))
        wide = double or any(port.dtype.kind in "iu" for port in converted.outputs)
        return np.float64 if wide and self._op_set == "cpu" else np.float32


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers that a net computed in the type that a model declares; integers wrap around as ONNX's do."""
    if dtype.kind == "b":
        return array != 0
    if dtype.kind in "iu" and dtype.itemsize < 8:
        return np.rint(array).astype(np.int64).astype(dtype)
    with np.errstate(over="ignore"):
        return array.astype(dtype)


class BaristaBackend(Backend):
    """Barista as a backend of ONNX, see `onnx.backend.base.Backend`.

    Attributes
    ----------
    op_sets : which of Barista's backends computes on a device of ONNX's name
    """

    op_sets: ClassVar[Mapping[str, str]] = {"CPU": "cpu", "OPENCL": "opencl"}

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> PreparedModel:
        """Get a model ready to run; it is checked and converted once the shapes of its inputs are known.

        Parameters
        ----------
        model : the model
        device : ``CPU``, or ``OPENCL`` for an OpenCL device

        Raises
        ------
        UnsupportedError : another device
        """
        name = device.split(":")[0].upper()
        if name not in cls.op_sets:
            raise UnsupportedError(f"device {device!r}: choose one of {', '.join(cls.op_sets)}")
        return PreparedModel(model, cls.op_sets[name])

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepare a model and run it once."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU",
                 outputs_info: Sequence[tuple[npt.DTypeLike, tuple[int, ...]]] | None = None,
                 **kwargs: Any) -> tuple[Any, ...]:
        """Run one node.

        Parameters
        ----------
        node : the node
        inputs : arrays for its inputs, in order (those left out do not count) or by name
        device : as for `prepare`
        outputs_info : types and shapes of its outputs, where ONNX does not infer the types
        kwargs : ``opset_version``, by default the newest
        """
        opset = int(kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        names = [name for name in dict.fromkeys(node.input) if name]
        arrays = {name: np.asarray(array) for name, array in
                  (inputs.items() if isinstance(inputs, Mapping) else zip(names, inputs, strict=True))}
        types = {name: Value(array.dtype, array.shape) for name, array in arrays.items()}
        found = infer(Node(node, opset), opset, types, arrays)
        if outputs_info is not None:
            found |= {name: Value(np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in
                      zip(node.output, outputs_info, strict=False)}
        outputs = [name for name in node.output if name]
        if missing := [name for name in outputs if name not in found]:
            raise UnsupportedError(f"{node.op_type}: ONNX does not infer the type of {', '.join(missing)}; give "
                                   "outputs_info")
        graph = onnx.helper.make_graph([node], node.name or node.op_type, [_info(name, types[name]) for name in names],
                                       [_info(name, found[name]) for name in outputs])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return cls.run_model(model, arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a device of this name is here."""
        op_set = cls.op_sets.get(device.split(":")[0].upper())
        if op_set is None:
            return False
        try:
            make_ops(op_set)
        except BaristaError:
            return False
        return True


def on(op_set: str) -> type[BaristaBackend]:
    """The backend whose device ``CPU``, by which ONNX's tests run, is computed by one of Barista's backends."""
    return type("BaristaBackend", (BaristaBackend,), {"op_sets": {**BaristaBackend.op_sets, "CPU": op_set}})


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


prepare = BaristaBackend.prepare
run_model = BaristaBackend.run_model
run_node = BaristaBackend.run_node
supports_device = BaristaBackend.supports_device
