"""Layers that arrange and pick in ONNX: joining, cutting, reshaping, looking up; and those that make constants."""

from __future__ import annotations

import math
from collections.abc import Callable

from barista.frontends.onnx.export_graph import Graph, Step, UnsayableError, says
from barista.proto.caffe_pb2 import DummyDataParameter


@says("Concat")
def _concat(graph: Graph, step: Step) -> None:
    param = step.param.concat_param
    graph.node("Concat", step.inputs, step.outputs[0],
               axis=step.axis(param.concat_dim if param.HasField("concat_dim") else param.axis))


@says("Slice")
def _slice(graph: Graph, step: Step) -> None:
    param = step.param.slice_param
    axis = step.axis(param.slice_dim if param.HasField("slice_dim") else param.axis)
    if len(step.outputs) == 1:
        graph.alias(step.outputs[0], step.inputs[0])
        return
    sizes = [shape[axis] for shape in step.out_shapes]
    graph.node("Split", [*step.inputs, graph.integers(*sizes)], step.outputs[0], more=step.outputs[1:], axis=axis)


@says("Flatten")
def _flatten(graph: Graph, step: Step) -> None:
    param, shape = step.param.flatten_param, step.in_shapes[0]
    if len(shape) > 1 and step.axis(param.axis) == 1 and step.axis(param.end_axis) == len(shape) - 1:
        graph.node("Flatten", step.inputs, step.outputs[0], axis=1)
    else:
        graph.reshape(step.inputs[0], shape, step.out_shapes[0], step.outputs[0])


@says("Reshape")
def _reshape(graph: Graph, step: Step) -> None:
    graph.reshape(step.inputs[0], step.in_shapes[0], step.out_shapes[0], step.outputs[0])


@says("Permute")
def _permute(graph: Graph, step: Step) -> None:
    given = list(step.param.permute_param.order)
    order = [*given, *(axis for axis in range(len(step.in_shapes[0])) if axis not in given)]
    graph.node("Transpose", step.inputs, step.outputs[0], perm=order)


@says("Tile")
def _tile(graph: Graph, step: Step) -> None:
    repeats = [1] * len(step.in_shapes[0])
    repeats[step.axis(step.param.tile_param.axis)] = step.param.tile_param.tiles
    graph.node("Tile", [*step.inputs, graph.integers(*repeats, hint="repeats")], step.outputs[0])


@says("Crop")
def _crop(graph: Graph, step: Step) -> None:
    """The second input gives its shape alone, which is known."""
    param, shape, result = step.param.crop_param, step.in_shapes[0], step.out_shapes[0]
    start = step.axis(param.axis)
    axes = list(range(start, len(shape)))
    offsets = list(param.offset) or [0]
    offsets = offsets * len(axes) if len(offsets) == 1 else offsets
    graph.slice(step.inputs[0], offsets, [offset + result[axis] for offset, axis in zip(offsets, axes, strict=True)],
                axes, step.outputs[0])


@says("Embed")
def _embed(graph: Graph, step: Step) -> None:
    param = step.param.embed_param
    rows = graph.weight(step.blob(0, (param.input_dim, param.num_output)), "weight", 0)
    picked = graph.node("Gather", [rows, graph.to_integer(step.inputs[0])],
                        None if param.bias_term else step.outputs[0], axis=0)
    if param.bias_term:
        graph.node("Add", [picked, graph.weight(step.blob(1, (param.num_output,)), "bias", 1)], step.outputs[0])


@says("BatchReindex")
def _batch_reindex(graph: Graph, step: Step) -> None:
    graph.node("Gather", [step.inputs[0], graph.to_integer(step.inputs[1])], step.outputs[0], axis=0)


@says("ArgMax")
def _arg_max(graph: Graph, step: Step) -> None:
    """Along an axis indices or values; without one, of each item, indices and maybe values behind them."""
    param, x, shape, result = step.param.argmax_param, step.inputs[0], step.in_shapes[0], step.out_shapes[0]
    if param.HasField("axis"):
        index, value = _largest(graph, x, step.axis(param.axis), shape[step.axis(param.axis)], param.top_k)
        graph.alias(step.outputs[0], value() if param.out_max_val else index())
        return
    flat = (shape[0], math.prod(shape[1:]))
    index, value = _largest(graph, graph.reshape(x, shape, flat), 1, flat[1], param.top_k)
    found = graph.node("Concat", [index(), value()], axis=1) if param.out_max_val else index()
    graph.node("Reshape", [found, graph.integers(*result, hint="shape")], step.outputs[0])


def _largest(graph: Graph, x: str, axis: int, size: int, top_k: int) -> tuple[Callable[[], str], Callable[[], str]]:
    """What makes the indices of the largest elements along an axis, and what makes their values."""
    if top_k == 1:
        return (lambda: graph.to_float(graph.node("ArgMax", [x], axis=axis, keepdims=1, select_last_index=1)),
                lambda: graph.reduce("ReduceMax", x, [axis]))
    # Of equal elements the last comes first, so that they are looked for from the end.
    turned = graph.slice(x, [size - 1], [-(size + 1)], [axis], steps=[-1])
    places = graph.fresh(f"{x}_places")
    values = graph.node("TopK", [turned, graph.integers(top_k, hint="top_k")], more=[places], axis=axis)
    return lambda: graph.affine(graph.to_float(places), -1, size - 1), lambda: values


# ---- constants ----------------------------------------------------------------------------------------------


@says("Parameter")
def _parameter(graph: Graph, step: Step) -> None:
    graph.alias(step.outputs[0], graph.weight(step.blob(0, step.out_shapes[0]), "value", 0))


@says("PriorBox")
def _prior_box(graph: Graph, step: Step) -> None:
    """Its boxes depend on shapes alone."""
    if step.outputs[0] not in graph.values:
        raise UnsayableError("its boxes come from no operator of ONNX; hand in the values that it computes")
    graph.alias(step.outputs[0], graph.weight(graph.values[step.outputs[0]], "boxes"))


@says("DummyData")
def _dummy_data(graph: Graph, step: Step) -> None:
    for index, (name, shape) in enumerate(zip(step.outputs, step.out_shapes, strict=True)):
        value = filled_with(step.param.dummy_data_param, index)
        if value is None:
            raise UnsayableError("it draws random numbers; use an Input layer for what is no constant")
        graph.fill(shape, value, name)


def filled_with(param: DummyDataParameter, index: int) -> float | None:
    """The number that a top of a DummyData layer is filled with; None if it is filled with others."""
    fillers = list(param.data_filler)
    filler = fillers[index if len(fillers) > 1 else 0] if fillers else None
    if filler is None:
        return 0.0
    return filler.value if filler.type == "constant" else None
