"""RNN and LSTM in ONNX: step by step, since ONNX's own know no place inside a sequence where a state is forgotten.

Where the second bottom is a constant that is 0 at the first step and 1 afterwards, ONNX's own LSTM and RNN say it.
The states before the first step are 0 where the layer does not expose them, as in a net's first forward pass.
"""

from __future__ import annotations

import math

import numpy as np

from barista.frontends.onnx.export_graph import Array, Graph, Step, says

# Caffe's gates stand in the order i, f, o, g; ONNX's in i, o, f, c.
_ONNX_GATES = (0, 2, 1, 3)


@says("RNN", "LSTM")
def _recurrent(graph: Graph, step: Step) -> None:
    states = ("h", "c") if step.type == "LSTM" else ("h",)
    exposed = step.param.recurrent_param.expose_hidden
    hidden = step.param.recurrent_param.num_output
    steps, streams = step.in_shapes[0][:2]
    static = len(step.inputs) == 3 + len(states) * exposed
    gates = 4 if step.type == "LSTM" else 1
    width = gates * hidden
    if exposed:
        before = [graph.node("Reshape", [name, graph.integers(streams, hidden, hint="shape")])
                  for name in step.inputs[-len(states):]]
    else:
        before = [graph.constant(np.zeros((streams, hidden)), "zeros")] * len(states)
    own = _is_whole_sequence(graph, step.inputs[1], exposed) and not static
    if own:
        shown, last = _by_onnx(graph, step, before, exposed)
    else:
        shown, last = _by_steps(graph, step, before, static, width)
    if step.type == "RNN":
        first = 4 if static else 3
        shown = _product(graph, shown, (steps * streams, hidden), step.blob(first, (hidden, hidden)),
                         step.blob(first + 1, (hidden,)), "output")
        shown = graph.node("Tanh", [shown])
    graph.node("Reshape", [shown, graph.integers(steps, streams, hidden, hint="shape")], step.outputs[0])
    for name, state in zip(step.outputs[1:], last, strict=False):
        graph.node("Reshape", [state, graph.integers(1, streams, hidden, hint="shape")], name)


def _product(graph: Graph, x: str, rows: tuple[int, int], weight: Array, bias: Array | None, hint: str) -> str:
    """x, as a matrix of `rows`, times the transposed weights, with a bias."""
    flat = graph.node("Reshape", [x, graph.integers(*rows, hint="shape")])
    inputs = [flat, graph.weight(weight, f"weight_{hint}")]
    if bias is not None:
        inputs.append(graph.weight(bias, f"bias_{hint}"))
    return graph.node("Gemm", inputs, transB=1)


def _is_whole_sequence(graph: Graph, cont: str, exposed: bool) -> bool:
    """Whether the states are known to be forgotten nowhere inside the sequence, and to begin as ONNX's do."""
    name = graph.resolve(cont)
    if name in graph.filled:
        return graph.filled[name] == 1
    values = graph.constants.get(name)
    if values is None:
        return False
    # What is forgotten before the first step is 0 already, unless it comes from outside.
    return bool(np.all(values[1:] == 1) and (not exposed or np.all(values[:1] == 1)))


def _by_onnx(graph: Graph, step: Step, before: list[str], exposed: bool) -> tuple[str, list[str]]:
    """ONNX's own operator: all steps' h, and the states after the last."""
    hidden = step.param.recurrent_param.num_output
    steps, streams = step.in_shapes[0][:2]
    inputs = math.prod(step.in_shapes[0][2:])
    order = _ONNX_GATES if step.type == "LSTM" else (0,)
    width = len(order) * hidden

    def ordered(array: Array) -> Array:
        """The gates in ONNX's order, with an axis for the one direction."""
        return array.reshape(len(order), hidden, -1)[list(order)].reshape(1, width, -1)

    x = graph.reshape(step.inputs[0], step.in_shapes[0], (steps, streams, inputs))
    bias = ordered(step.blob(1, (width,))).reshape(1, width)
    names = [x, graph.weight(ordered(step.blob(0, (width, inputs))), "weight_x"),
             graph.weight(ordered(step.blob(2, (width, hidden))), "weight_h"),
             graph.weight(np.concatenate([bias, np.zeros_like(bias)], axis=1), "bias")]
    if exposed:
        names += ["", *(graph.node("Reshape", [name, graph.integers(1, streams, hidden, hint="shape")])
                        for name in before)]
    last = [graph.fresh(f"{step.param.name}_{name}") for name in ("h", "c")[:len(before)]]
    shown = graph.node(step.type, names, more=last, hidden_size=hidden)
    return shown, last


def _by_steps(graph: Graph, step: Step, before: list[str], static: bool, width: int) -> tuple[str, list[str]]:
    """The steps one by one: all steps' h, and the states after the last."""
    hidden = step.param.recurrent_param.num_output
    steps, streams = step.in_shapes[0][:2]
    inputs = math.prod(step.in_shapes[0][2:])
    all_x = _product(graph, step.inputs[0], (steps * streams, inputs), step.blob(0, (width, inputs)),
                     step.blob(1, (width,)), "x")
    all_x = graph.node("Reshape", [all_x, graph.integers(steps, streams, width, hint="shape")])
    if static:
        size = math.prod(step.in_shapes[2][1:])
        same = _product(graph, step.inputs[2], (streams, size), step.blob(2, (width, size)), None, "static")
        all_x = graph.node("Add", [all_x, same])
    weight = graph.weight(step.blob(3 if static else 2, (width, hidden)), "weight_h")
    cont = graph.node("Reshape", [step.inputs[1], graph.integers(steps, streams, 1, hint="shape")])
    h, c = before[0], before[-1]
    shown = []
    for number in range(steps):
        x_now, cont_now = (graph.node("Squeeze", [graph.slice(name, [number], [number + 1], [0]), graph.integers(0)])
                           for name in (all_x, cont))
        kept = graph.node("Mul", [h, cont_now])
        gates = graph.node("Gemm", [kept, weight, x_now], transB=1)
        if step.type == "LSTM":
            h, c = unit(graph, gates, c, cont_now, hidden, 1)
        else:
            h = graph.node("Tanh", [gates])
        shown.append(h)
    joined = graph.node("Concat", shown, axis=0)
    return joined, [h, c][:len(before)]


def unit(graph: Graph, gates: str, c: str, cont: str, hidden: int, axis: int) -> tuple[str, str]:
    """One step of an LSTM: h and c from the gates before their non-linearities, and c before."""
    parts = [graph.fresh(f"{gates}_{name}") for name in ("f", "o", "g")]
    i = graph.node("Split", [gates, graph.integers(*[hidden] * 4)], more=parts, axis=axis)
    f, o, g = parts
    i, f, o = (graph.node("Sigmoid", [name]) for name in (i, f, o))
    kept = graph.node("Mul", [graph.node("Mul", [f, cont]), c])
    c = graph.node("Add", [kept, graph.node("Mul", [i, graph.node("Tanh", [g])])])
    return graph.node("Mul", [o, graph.node("Tanh", [c])]), c


@says("LSTMUnit")
def _lstm_unit(graph: Graph, step: Step) -> None:
    c, gates, cont = step.inputs
    rows, hidden = step.in_shapes[0][1:]
    wide = graph.reshape(cont, step.in_shapes[2], (1, rows, 1))
    h, after = unit(graph, gates, c, wide, hidden, 2)
    graph.alias(step.outputs[0], after)
    graph.alias(step.outputs[1], h)
