"""Element-wise layers in ONNX: activations, functions, Scale, Bias, Eltwise."""

from __future__ import annotations

import math

import numpy as np

from barista.frontends.onnx.export_graph import Graph, Shape, Step, UnsayableError, says
from barista.proto.caffe_pb2 import EltwiseParameter

# Types that are an operator without settings.
PLAIN = {"AbsVal": "Abs", "Sigmoid": "Sigmoid", "TanH": "Tanh", "BNLL": "Softplus"}


@says(*PLAIN)
def _plain(graph: Graph, step: Step) -> None:
    graph.node(PLAIN[step.type], step.inputs, step.outputs[0])


@says("Dropout")
def _same(graph: Graph, step: Step) -> None:
    graph.alias(step.outputs[0], step.inputs[0])


@says("ReLU")
def _relu(graph: Graph, step: Step) -> None:
    slope = step.param.relu_param.negative_slope
    if slope:
        graph.node("LeakyRelu", step.inputs, step.outputs[0], alpha=slope)
    else:
        graph.node("Relu", step.inputs, step.outputs[0])


@says("ReLU6", "Clip")
def _clip(graph: Graph, step: Step) -> None:
    low, high = (0, 6) if step.type == "ReLU6" else (step.param.clip_param.min, step.param.clip_param.max)
    if low > high:
        # What is lower than low becomes low, whatever high says.
        graph.node("Max", [graph.node("Min", [*step.inputs, graph.constant(high, "high")]), graph.constant(low, "low")],
                   step.outputs[0])
        return
    graph.node("Clip", [*step.inputs, graph.constant(low, "low"), graph.constant(high, "high")], step.outputs[0])


@says("ELU")
def _elu(graph: Graph, step: Step) -> None:
    graph.node("Elu", step.inputs, step.outputs[0], alpha=step.param.elu_param.alpha)


@says("PReLU")
def _prelu(graph: Graph, step: Step) -> None:
    shape = step.in_shapes[0]
    count = 1 if step.param.prelu_param.channel_shared else shape[1]
    slope = step.blob(0, (count, *[1] * (len(shape) - 2)))
    graph.node("PRelu", [*step.inputs, graph.weight(slope, "slope", 0)], step.outputs[0])


@says("Swish")
def _swish(graph: Graph, step: Step) -> None:
    inside = graph.affine(step.inputs[0], step.param.swish_param.beta, 0)
    graph.node("Mul", [step.inputs[0], graph.node("Sigmoid", [inside])], step.outputs[0])


@says("Threshold")
def _threshold(graph: Graph, step: Step) -> None:
    limit = graph.constant(step.param.threshold_param.threshold, "threshold")
    graph.to_float(graph.node("Greater", [step.inputs[0], limit]), step.outputs[0])


@says("Exp")
def _exp(graph: Graph, step: Step) -> None:
    param = step.param.exp_param
    base = math.e if param.base == -1 else param.base
    x = graph.affine(step.inputs[0], math.log(base) * param.scale if param.base != -1 else param.scale, 0)
    factor = base ** param.shift
    if factor == 1:
        graph.node("Exp", [x], step.outputs[0])
    else:
        graph.affine(graph.node("Exp", [x]), factor, 0, step.outputs[0])


@says("Log")
def _log(graph: Graph, step: Step) -> None:
    param = step.param.log_param
    x = graph.affine(step.inputs[0], param.scale, param.shift)
    if param.base == -1:
        graph.node("Log", [x], step.outputs[0])
    else:
        graph.affine(graph.node("Log", [x]), 1 / math.log(param.base), 0, step.outputs[0])


@says("Power")
def _power(graph: Graph, step: Step) -> None:
    param = step.param.power_param
    if param.power == 0 or param.scale == 0:
        with np.errstate(all="ignore"):
            graph.fill(step.out_shapes[0], float(np.float64(param.shift) ** param.power), step.outputs[0])
    elif param.power == 1:
        graph.affine(step.inputs[0], param.scale, param.shift, step.outputs[0])
    else:
        x = graph.affine(step.inputs[0], param.scale, param.shift)
        if param.power == 2:
            graph.node("Mul", [x, x], step.outputs[0])
        else:
            graph.node("Pow", [x, graph.constant(param.power, "power")], step.outputs[0])


def _operand(graph: Graph, step: Step, axis: int, hint: str) -> str:
    """The smaller tensor of a Scale or Bias, a parameter or the second input, in a shape that broadcasts."""
    shape = step.in_shapes[0]
    if len(step.inputs) > 1:
        small = step.in_shapes[1]
        start = step.axis(axis) if small else len(shape)
        wide = (*small, *[1] * (len(shape) - start - len(small)))
        return graph.reshape(step.inputs[1], small, wide)
    return graph.weight(step.blob(0, _wide(step, axis)), hint, 0)


def _wide(step: Step, axis: int) -> Shape:
    """The shape of a parameter with the sizes of 1 behind it by which it broadcasts."""
    shape = step.in_shapes[0]
    param = step.param.scale_param if step.type == "Scale" else step.param.bias_param
    start = step.axis(axis) if shape and param.num_axes else 0
    end = len(shape) if param.num_axes == -1 else start + param.num_axes
    if not param.num_axes:
        return ()
    return (*shape[start:end], *[1] * (len(shape) - end))


@says("Scale")
def _scale(graph: Graph, step: Step) -> None:
    param = step.param.scale_param
    operand = _operand(graph, step, param.axis, "scale")
    product = graph.node("Mul", [step.inputs[0], operand], None if param.bias_term else step.outputs[0])
    if not param.bias_term:
        return
    if len(step.inputs) > 1:
        small = step.in_shapes[1]
        start = step.axis(param.axis) if small else len(step.in_shapes[0])
        bias = step.blob(0, (*small, *[1] * (len(step.in_shapes[0]) - start - len(small))))
    else:
        bias = step.blob(1, _wide(step, param.axis))
    index = 0 if len(step.inputs) > 1 else 1
    graph.node("Add", [product, graph.weight(bias, "bias", index)], step.outputs[0])


@says("Bias")
def _bias(graph: Graph, step: Step) -> None:
    graph.node("Add", [step.inputs[0], _operand(graph, step, step.param.bias_param.axis, "bias")], step.outputs[0])


@says("Axpy")
def _axpy(graph: Graph, step: Step) -> None:
    a, x, y = step.inputs
    wide = (*step.in_shapes[1][:2], *[1] * (len(step.in_shapes[1]) - 2))
    scaled = graph.node("Mul", [x, graph.reshape(a, step.in_shapes[0], wide)])
    graph.node("Add", [scaled, y], step.outputs[0])


@says("Eltwise")
def _eltwise(graph: Graph, step: Step) -> None:
    param, inputs = step.param.eltwise_param, step.inputs
    if param.operation == EltwiseParameter.MAX:
        graph.node("Max", inputs, step.outputs[0])
    elif param.operation == EltwiseParameter.PROD:
        product = inputs[0]
        for index, other in enumerate(inputs[1:], start=2):
            product = graph.node("Mul", [product, other], step.outputs[0] if index == len(inputs) else None)
    elif list(param.coeff) == [1, -1]:
        graph.node("Sub", inputs, step.outputs[0])
    else:
        coefficients = list(param.coeff) or [1.0] * len(inputs)
        if len(coefficients) != len(inputs):
            raise UnsayableError(f"it has {len(inputs)} bottoms and {len(coefficients)} coeff")
        scaled = [graph.affine(x, coeff, 0) for x, coeff in zip(inputs, coefficients, strict=True)]
        graph.node("Add" if len(scaled) == 2 else "Sum", scaled, step.outputs[0])
