"""A pair of Caffe2 nets as one ONNX model."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from barista.errors import NetError, UnsupportedError, nearest
from barista.proto.caffe2_pb2 import NetDef

from .fills import FILLS, Fills
from .graph import Graph
from .operator import Operator
from .ops import OPS

logger = logging.getLogger(__name__)

# Operators whose first input is data: a single number there is what init nets fill in its place.
_TAKE_IMAGES = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "SpatialBN", "LRN", "FC")
# Elements of the largest blob, as in Caffe.
_MOST_ELEMENTS = 2**31 - 1


def to_onnx(init: NetDef | None, predict: NetDef, input_shapes: Mapping[str, Sequence[int]] | None = None,
            seed: int = 0) -> onnx.ModelProto:
    """Return the ONNX model of a pair of nets.

    Blobs keep their names, those that are written more than once after the last writing.

    Parameters
    ----------
    init : the net that fills the weights; None where `predict` does so itself
    predict : the net that computes
    input_shapes : shapes of the inputs, which Caffe2's nets do not tell
    seed : start of the random numbers of fills such as XavierFill

    Raises
    ------
    NetError : the nets contradict themselves or each other, or an input has no shape
    UnsupportedError : operators that cannot be said in ONNX; the message lists all of them
    """
    return _Conversion(init, predict, input_shapes or {}, seed).model()


class _Conversion:
    """The blobs of one pair of nets on their way through its operators."""

    def __init__(self, init: NetDef | None, predict: NetDef, shapes: Mapping[str, Sequence[int]], seed: int) -> None:
        self._predict, self._shapes, self._fills = predict, shapes, Fills(seed)
        self._operators = [Operator(message, index) for index, message in enumerate(predict.op)]
        if not self._operators:
            raise NetError("the predict net has no operators; give the net that computes, and the one that fills "
                           "weights as the init net")
        if all(operator.type in FILLS for operator in self._operators):
            raise NetError("the predict net only fills blobs: the two nets may have been given in each other's place")
        self._check_operators()
        self._filled: dict[str, npt.NDArray[Any]] = {} if init is None else self._fills.net(init)
        names = {name for operator in self._operators for name in (*operator.inputs, *operator.outputs)}
        self._graph = Graph(names | set(self._filled) | set(predict.external_output))
        self._writes = Counter(operator.outputs[0] for operator in self._operators)
        self._current: dict[str, str] = {}  # blob to the value that it holds now
        self._given: set[str] = set()  # names that a value has already
        self._lost: dict[str, str] = {}  # blob to why nothing may read it
        self._failures: list[str] = []

    def model(self) -> onnx.ModelProto:
        """Go through the operators; raises as `to_onnx`."""
        for name in self._inputs():
            self._current[name] = self._graph.input(name, self._shape(name))
            self._given.add(name)
        for operator in self._operators:
            self._add(operator)
        if self._failures:
            raise UnsupportedError(f"{len(self._failures)} operators of the predict net cannot be converted: "
                                   + "; ".join(self._failures))
        if self._fills.random:
            logger.warning("%d blobs are drawn at random, as the nets say (%s, ...): the model is untrained",
                           len(self._fills.random), self._fills.random[0])
        return self._graph.model(self._predict.name, [self._read(name, "the net's output") for name in self._outputs()])

    def _check_operators(self) -> None:
        """Refuse operators of types that nothing converts, all at once."""
        unknown = [operator for operator in self._operators if operator.type not in OPS and operator.type not in FILLS]
        if unknown:
            hints = {operator.type: nearest(operator.type, [*OPS, *FILLS], 1) for operator in unknown}
            listed = "; ".join(operator.label + (f", {hint}" if (hint := hints[operator.type]) else "")
                               for operator in unknown)
            raise UnsupportedError(f"{len(unknown)} operators of the predict net cannot be converted: {listed}")

    # ---- inputs and outputs -------------------------------------------------------------------------------

    def _inputs(self) -> list[str]:
        """The blobs that come from outside, those first that the net itself lists."""
        read_first, written = dict.fromkeys(self._predict.external_input), set()
        for operator in self._operators:
            for name in operator.inputs:
                if name not in written:
                    read_first.setdefault(name)
            written.update(operator.outputs)
        read = {name for operator in self._operators for name in operator.inputs} | set(self._predict.external_output)
        inputs = [name for name in read_first if name in read and (name not in self._filled or self._is_data(name))]
        if unknown := [name for name in self._shapes if name not in inputs]:
            raise NetError(f"a shape is given for {unknown[0]!r}, which is no input of the net; "
                           f"{nearest(unknown[0], inputs) or 'its inputs are ' + ', '.join(inputs)}")
        listed = set(self._predict.external_input)
        if listed and (missing := [name for name in inputs if name not in listed]):
            reader = next(operator for operator in self._operators if missing[0] in operator.inputs)
            hint = nearest(missing[0], [*self._filled, *listed]) or "the net is damaged, or the init net another's"
            raise NetError(f"{reader.label} needs the blob {missing[0]!r}, which no operator before it writes, the "
                           f"init net does not fill, and external_input does not list; {hint}")
        if shapeless := [name for name in inputs if name not in self._shapes]:
            raise NetError(f"blobs come from outside and have no shape: {', '.join(shapeless)}. Give the shapes of "
                           f"inputs, as in --input {shapeless[0]}=1,3,224,224; weights have to be filled by the init "
                           "net")
        return inputs

    def _is_data(self, name: str) -> bool:
        """Whether a blob that the init net fills is an input: its shape is given, or one number stands for an image."""
        return name in self._shapes or (self._filled[name].size == 1 and any(
            operator.inputs and operator.inputs[0] == name and operator.type.startswith(_TAKE_IMAGES)
            for operator in self._operators))

    def _shape(self, name: str) -> list[int]:
        shape = [int(size) for size in self._shapes[name]]
        if any(size < 1 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
            raise NetError(f"the shape of the input {name!r} is {shape}; sizes are 1 or more, and their product "
                           f"{_MOST_ELEMENTS} at most")
        return shape

    def _outputs(self) -> list[str]:
        """What the net lists, or the blobs that nothing reads."""
        if self._predict.external_output:
            return list(dict.fromkeys(self._predict.external_output))
        read = {name for operator in self._operators for name in operator.inputs}
        made = [operator.outputs[0] for operator in self._operators]
        return list(dict.fromkeys(name for name in made if name not in read)) or made[-1:]

    # ---- operators ----------------------------------------------------------------------------------------

    def _read(self, name: str, reader: str) -> str:
        """The value that a blob holds now; an initialiser is added when it is first read."""
        if name in self._lost:
            raise UnsupportedError(f"{reader}: reads {name!r}, {self._lost[name]}")
        if name not in self._current and name in self._filled:
            self._current[name] = self._graph.constant(self._filled[name], name)
            self._given.add(name)
        if name not in self._current:
            raise NetError(f"{reader} needs the blob {name!r}, which no operator before it writes; "
                           f"{nearest(name, [*self._current, *self._filled]) or 'the net is damaged'}")
        return self._current[name]

    def _add(self, operator: Operator) -> None:
        """Add what says the same as one operator."""
        self._graph.owner = operator.label
        first, *others = operator.outputs
        try:
            if operator.type in FILLS:
                name = self._name(first)
                self._current[first] = self._graph.constant(self._fills.run(operator), name)
                self._lost.pop(first, None)
                return
            op = OPS[operator.type]
            if not op.least <= len(operator.inputs) <= op.most:
                raise operator.error(f"has {len(operator.inputs)} inputs; it takes {op.least}"
                                     + (f" to {op.most}" if op.most < 2**31 - 1 else " or more") * (op.most > op.least))
            inputs = [self._read(name, operator.label) for name in operator.inputs]
            value = op.add(operator, self._graph, inputs)
        except UnsupportedError as error:
            if not self._is_consequence(operator):
                self._failures.append(str(error))
            self._lost.update(dict.fromkeys(operator.outputs, "which an operator writes that cannot be converted"))
            return
        if unread := operator.unread():
            logger.warning("%s: arguments that are not known are ignored: %s", operator.label, ", ".join(unread))
        name = self._name(first)
        self._graph.rename(value, name)
        self._current[first] = name
        self._lost.pop(first, None)
        for other in others:
            if operator.type == "Reshape":
                shape = np.array(self._graph.shape(inputs[0]), np.int64)
                self._current[other] = self._graph.constant(shape, self._graph.fresh(other))
            elif other not in operator.inputs:  # statistics of training are written where they are read
                self._lost[other] = f"which {operator.label} writes beside its result, for training"

    def _is_consequence(self, operator: Operator) -> bool:
        """Whether an operator failed because one before it did."""
        return any(self._lost.get(name, "").endswith("cannot be converted") for name in operator.inputs)

    def _name(self, blob: str) -> str:
        """A name for the value that a blob now gets: its own, if it is the last and no other value has it."""
        self._writes[blob] -= 1
        if self._writes[blob] > 0 or blob in self._given:
            return self._graph.fresh(blob)
        self._given.add(blob)
        return blob
