"""Normalisation, softmax and reductions in ONNX."""

from __future__ import annotations

import numpy as np

from barista.frontends.onnx.export_fold import batch_norm_statistics, uses_batch_statistics
from barista.frontends.onnx.export_graph import Graph, Step, says
from barista.proto.caffe_pb2 import LRNParameter, ReductionParameter

_REDUCTIONS = {ReductionParameter.SUM: "ReduceSum", ReductionParameter.ASUM: "ReduceL1",
               ReductionParameter.SUMSQ: "ReduceSumSquare", ReductionParameter.MEAN: "ReduceMean"}


@says("LRN")
def _lrn(graph: Graph, step: Step) -> None:
    param, x = step.param.lrn_param, step.inputs[0]
    if param.norm_region == LRNParameter.ACROSS_CHANNELS:
        graph.node("LRN", [x], step.outputs[0], size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)
        return
    # Caffe: within a channel the window's size divides also where it is clipped, and k is 1.
    size, pad = param.local_size, (param.local_size - 1) // 2
    squares = graph.node("AveragePool", [graph.node("Mul", [x, x])], kernel_shape=[size, size], strides=[1, 1],
                         pads=[pad] * 4, count_include_pad=1)
    divisor = graph.node("Pow", [graph.affine(squares, param.alpha, 1), graph.constant(param.beta, "beta")])
    graph.node("Div", [x, divisor], step.outputs[0])


@says("BatchNorm")
def _batch_norm(graph: Graph, step: Step) -> None:
    x, shape, eps = step.inputs[0], step.in_shapes[0], step.param.batch_norm_param.eps
    if uses_batch_statistics(step):
        axes = [axis for axis in range(len(shape)) if axis != 1]
        centred, spread = _moments(graph, x, axes)
        graph.node("Div", [centred, graph.node("Sqrt", [graph.affine(spread, 1, eps)])], step.outputs[0])
        return
    mean, variance = batch_norm_statistics(step)
    if len(shape) < 2:
        factor = 1 / np.sqrt(variance.astype(np.float64) + eps)
        shifted = graph.node("Sub", [x, graph.weight(mean, "mean")])
        graph.node("Mul", [shifted, graph.weight(factor, "factor")], step.outputs[0])
        return
    scale, bias = step.blobs[3:] if len(step.blobs) > 3 else (np.ones(len(mean)), np.zeros(len(mean)))
    names = [graph.weight(array, hint) for array, hint in
             ((scale, "scale"), (bias, "bias"), (mean, "mean"), (variance, "variance"))]
    graph.node("BatchNormalization", [x, *names], step.outputs[0], epsilon=eps)


def _moments(graph: Graph, x: str, axes: list[int]) -> tuple[str, str]:
    """x without its mean along `axes`, and its variance."""
    centred = graph.node("Sub", [x, graph.reduce("ReduceMean", x, axes)])
    return centred, graph.reduce("ReduceMean", graph.node("Mul", [centred, centred]), axes)


@says("MVN")
def _mvn(graph: Graph, step: Step) -> None:
    param, shape = step.param.mvn_param, step.out_shapes[0]
    x = graph.reshape(step.inputs[0], step.in_shapes[0], shape)
    axes = [1, 2, 3] if param.across_channels else [2, 3]
    if not param.normalize_variance:
        graph.node("Sub", [x, graph.reduce("ReduceMean", x, axes)], step.outputs[0])
        return
    centred, variance = _moments(graph, x, axes)
    # Caffe: eps is added to the deviation.
    deviation = graph.affine(graph.node("Sqrt", [variance]), 1, param.eps)
    graph.node("Div", [centred, deviation], step.outputs[0])


@says("Normalize")
def _normalize(graph: Graph, step: Step) -> None:
    param, x, shape = step.param.norm_param, step.inputs[0], step.in_shapes[0]
    axes = list(range(1, len(shape))) if param.across_spatial else [1]
    lengths = graph.node("Sqrt", [graph.affine(graph.reduce("ReduceSumSquare", x, axes), 1, param.eps)])
    count = 1 if param.channel_shared else shape[1]
    scale = step.blob(0, (count, *[1] * (len(shape) - 2)))
    graph.node("Mul", [graph.node("Div", [x, lengths]), graph.weight(scale, "scale", 0)], step.outputs[0])


@says("Softmax", "LogSoftmax")
def _softmax(graph: Graph, step: Step) -> None:
    graph.node(step.type, step.inputs, step.outputs[0], axis=step.axis(step.param.softmax_param.axis))


@says("Reduction")
def _reduction(graph: Graph, step: Step) -> None:
    param, shape = step.param.reduction_param, step.in_shapes[0]
    axes = list(range(step.axis(param.axis), len(shape)))
    op = _REDUCTIONS[param.operation]
    if param.coeff == 1:
        graph.reduce(op, step.inputs[0], axes, step.outputs[0], keepdims=False)
    else:
        graph.affine(graph.reduce(op, step.inputs[0], axes, keepdims=False), param.coeff, 0, step.outputs[0])
