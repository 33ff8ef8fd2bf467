"""Nets out as ONNX: what they compute in the phase TEST, with their weights.

The layers are put into a form in which each value is made once (`_steps`), BatchNorm takes in its Scale
(`export_fold`), and then each layer's type finds what says it in ONNX (`export_ops_*`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from barista.errors import NetError, ShapeError, UnsupportedError, nearest
from barista.frontends.onnx import (  # noqa: F401 (imported for what they register)
    export_ops_activation,
    export_ops_extension,
    export_ops_normalise,
    export_ops_recurrent,
    export_ops_structure,
    export_ops_windows,
)
from barista.frontends.onnx.export_fold import absorb_scales, fold_into_weights
from barista.frontends.onnx.export_graph import HANDLERS, REASONS, Array, Graph, Shape, Step, UnsayableError
from barista.proto.blobs import blob_to_array
from barista.proto.caffe_pb2 import LayerParameter, NetParameter

# The oldest version of ONNX's operators that is written: Softmax, Squeeze and ReduceSum are as they are now.
OLDEST_OPSET = 13
# Read by everything that was made since 2022.
DEFAULT_OPSET = 17

# What a message of protocol buffers holds.
LARGEST_BYTES = 2**31 - 1

# Types that compute nothing for those who only use a net, beside the losses.
_MEASURES = ("Accuracy", "HDF5Output", "Silence")
# Types that make values out of nothing and yet are no inputs.
_MAKERS = ("Parameter", "DummyData")


def to_onnx(net: NetParameter, shapes: Mapping[str, Sequence[int]], *, outputs: Sequence[str] = (),
            opset: int = DEFAULT_OPSET, fold_batch_norm: bool = False, softmax: bool = False,
            values: Mapping[str, Array] | None = None) -> Any:
    """Return the net as an ONNX model, an `onnx.ModelProto` that the checker has passed.

    Losses, accuracies and what only they need (the labels) are left out; what they look at becomes an output.
    Layers that read images become inputs.

    Parameters
    ----------
    net : the layers of the phase TEST with their weights, as `Net.to_proto` gives them
    shapes : the shape of each blob
    outputs : names of the blobs that are the model's outputs; none means those that no layer uses
    opset : version of ONNX's operators, 13 or more
    fold_batch_norm : let BatchNorm and Scale behind a convolution or an inner product go into its weights
    softmax : let a SoftmaxWithLoss become a Softmax, rather than nothing
    values : what blobs hold that depend on shapes alone: the tops of PriorBox layers

    Raises
    ------
    UnsupportedError : layers that ONNX cannot say, all of them with the reasons; an opset that cannot be written; a
        model of 2 GiB or more
    NetError : nothing is left, or an output that is none of the net's blobs
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UnsupportedError(f"opset {opset} cannot be written; give one from {OLDEST_OPSET} to {newest}, the newest "
                               f"that onnx {onnx.__version__} knows")
    blobs = _Values(net.layer, shapes, softmax)
    wanted = blobs.chosen(outputs) if outputs else blobs.outputs()
    steps = _needed(blobs.steps, list(wanted.values()))
    if not steps or not wanted:
        raise NetError(f"net {net.name!r} has no output beside its losses; there is nothing to export")
    steps = absorb_scales(steps, wanted.values())
    if fold_batch_norm:
        steps = fold_into_weights(steps, wanted.values())
    graph = Graph(opset, [name for step in steps for name in (*step.inputs, *step.outputs)], values)
    inputs = _say(graph, steps)
    model = _model(graph, net.name or "net", inputs,
                   [(name, value, blobs.shapes[name]) for name, value in wanted.items()])
    size = model.ByteSize()
    if size > LARGEST_BYTES:
        raise UnsupportedError(f"net {net.name!r} makes a model of {size} bytes; one message holds at most "
                               f"{LARGEST_BYTES}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedError(f"net {net.name!r} makes no valid model of opset {opset}: {error}") from error
    return model


# ---- which layers -------------------------------------------------------------------------------------------


class _Values:
    """The layers as steps that make each value once.

    What a blob holds before a layer overwrites it in place takes a name of its own; a Split makes no step.

    Attributes
    ----------
    steps : the layers that compute something
    shapes : the shape of each blob
    """

    def __init__(self, layers: Sequence[LayerParameter], shapes: Mapping[str, Sequence[int]], softmax: bool) -> None:
        self.steps: list[Step] = []
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        # The value that each blob holds at last.
        self._value: dict[str, str] = {}
        # Values that steps read; that losses and measures read, and those of them that they read first.
        self._used: set[str] = set()
        self._measured: set[str] = set()
        self._predictions: set[str] = set()
        # Tops of Splits, the values that they are, and the blobs that other layers read.
        self._splits: list[str] = []
        self._copied: set[str] = set()
        self._read: set[str] = set()
        self._left = Counter(name for layer in layers for name in layer.top)
        self._names = set(self._left)
        for index, layer in enumerate(layers):
            if layer.type == "SoftmaxWithLoss" and softmax:
                layer = self._without_label(layer)
            self._add(layer, layers[index + 1:])

    def outputs(self) -> dict[str, str]:
        """Blobs that no layer uses, and predictions that only a loss or an accuracy looks at; with their values."""
        found = {}
        for step in self.steps:
            for value in step.outputs:
                if value in self._measured:
                    last = value in self._predictions and bool(step.inputs)
                else:
                    last = value not in self._copied
                if last and value not in self._used:
                    found[value] = value
        found.update((name, self._value[name]) for name in self._splits if name not in self._read)
        return found

    def chosen(self, names: Sequence[str]) -> dict[str, str]:
        """The values of the blobs that the caller wants."""
        for name in names:
            if name not in self._value:
                own = [blob for blob in self._value if blob not in self._splits]
                hint = nearest(name, own) or f"blobs: {', '.join(own)}"
                raise NetError(f"there is no blob {name!r} that could be an output; {hint}")
        return {name: self._value[name] for name in names}

    def _without_label(self, layer: LayerParameter) -> LayerParameter:
        """The Softmax in a SoftmaxWithLoss; the label is what only a loss looks at."""
        self._read.update(layer.bottom)
        self._measured.update(self._value[label] for label in layer.bottom[1:] if label in self._value)
        name = layer.top[1] if len(layer.top) > 1 else f"{layer.name}_prob" if "prob" in self._names else "prob"
        self._names.add(name)
        self._left[name] = 1
        self.shapes[name] = self.shapes.get(layer.bottom[0], ())
        return LayerParameter(name=layer.name, type="Softmax", bottom=layer.bottom[:1], top=[name],
                              softmax_param=layer.softmax_param)

    def _add(self, layer: LayerParameter, later: Sequence[LayerParameter]) -> None:
        who = f"{layer.name} ({layer.type})"
        for name in layer.bottom:
            if name not in self._value:
                raise NetError(f"{who}: no layer before it makes its bottom {name!r}")
        inputs = [self._value[name] for name in layer.bottom]
        if layer.type == "Split":
            self._value.update(dict.fromkeys(layer.top, inputs[0]))
            self._left.subtract(layer.top)
            self._splits += layer.top
            self._copied.add(inputs[0])
            return
        self._read.update(layer.bottom)
        if layer.type.endswith("Loss") or layer.type in _MEASURES:
            self._measured.update(inputs)
            if layer.type != "Silence":
                self._predictions.update(inputs[:1])
            return
        self._used.update(inputs)
        in_shapes = [self._shape(name, who) for name in layer.bottom]
        outputs = [self._make(name, later) for name in layer.top]
        self.steps.append(Step(layer, inputs, outputs, in_shapes, [self._shape(name, who) for name in layer.top],
                               [blob_to_array(blob) for blob in layer.blobs]))

    def _make(self, blob: str, later: Sequence[LayerParameter]) -> str:
        """The name of a new value of a blob: the blob's own, if it is its last."""
        self._left[blob] -= 1
        value = blob
        if self._left[blob]:
            value = f"{blob}_before_{next(other.name for other in later if blob in other.top)}"
            while value in self._names:
                value += "_"
            self._names.add(value)
        self._value[blob] = value
        return value

    def _shape(self, name: str, who: str) -> Shape:
        if name not in self.shapes:
            raise ShapeError(f"{who}: the shape of blob {name!r} is not known; give those of all blobs of the net")
        return self.shapes[name]


def _needed(steps: Sequence[Step], outputs: Sequence[str]) -> list[Step]:
    """The steps that the outputs come from."""
    needed = set(outputs)
    kept = []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(step.inputs)
            kept.append(step)
    return kept[::-1]


# ---- saying them ----------------------------------------------------------------------------------------------


def _say(graph: Graph, steps: Sequence[Step]) -> list[tuple[str, Shape]]:
    """Let each step's type add its nodes; returns names and shapes of the inputs.

    Raises
    ------
    UnsupportedError : types that ONNX cannot say, and layers with settings that it cannot
    """
    inputs: list[tuple[str, Shape]] = []
    problems = []
    for step in steps:
        graph.step = step
        if not step.inputs and step.type not in _MAKERS and step.type not in REASONS:
            inputs += zip(step.outputs, step.out_shapes, strict=True)
            continue
        try:
            if step.type not in HANDLERS:
                raise UnsayableError(REASONS.get(step.type, "no operator of ONNX does what this type does"))
            HANDLERS[step.type](graph, step)
        except UnsayableError as error:
            problems.append(f"{step.param.name} ({step.type}): {error}")
    graph.step = None
    if problems:
        count = "1 layer" if len(problems) == 1 else f"{len(problems)} layers"
        raise UnsupportedError(f"ONNX cannot say {count} of the net: {'; '.join(problems)}. Cut the net before "
                               "them, or replace them")
    return inputs


def _model(graph: Graph, name: str, inputs: Sequence[tuple[str, Shape]],
           outputs: Sequence[tuple[str, str, Shape]]) -> Any:
    """The whole message; outputs are given by their name, the value that they are, and their shape.

    A value that is an output under another name, as behind a Dropout, takes the output's.
    """
    helper, floating = onnx.helper, onnx.TensorProto.FLOAT
    made = {output for node in graph.nodes for output in node.output}
    own = {output for output, _, _ in outputs}
    names: dict[str, str] = {}
    results = []
    for output, value, shape in outputs:
        value = graph.resolve(value)
        if value in made and value not in own and value not in names:
            names[value] = output
        elif value != output:
            graph.node("Identity", [value], output)
        elif value not in made:  # an input or a constant, of whose name there can be one
            output = graph.node("Identity", [value], graph.fresh(f"{output}_output"))
        results.append(helper.make_tensor_value_info(output, floating, shape))
    for node in graph.nodes:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    used = {value for node in graph.nodes for value in node.input}
    declared = [helper.make_tensor_value_info(value, floating, shape) for value, shape in inputs if value in used]
    constants = [onnx.numpy_helper.from_array(array, value) for value, array in graph.constants.items()
                 if value in used]
    opsets = [helper.make_opsetid("", graph.opset)]
    return helper.make_model(helper.make_graph(graph.nodes, name, declared, results, constants), opset_imports=opsets,
                             ir_version=helper.find_min_ir_version_for(opsets), producer_name="barista")
