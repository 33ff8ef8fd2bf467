"""Layers that look at windows in ONNX: convolutions, inner products, pooling, resampling.

Caffe's pooling rounds its output's size up and drops windows by a rule of its own. It is said by explicit padding of
each end, so that readers need no rule at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from barista.frontends.onnx.export_graph import Graph, Shape, Step, UnsayableError, says
from barista.proto.caffe_pb2 import InterpParameter, PoolingParameter, SPPParameter

# Caffe: what the sum of a window of stochastic pooling starts with.
LEAST_SUM = float(np.finfo(np.float32).tiny)
# Opset in which AveragePool took dilations.
DILATED_AVERAGES = 19


# ---- products -----------------------------------------------------------------------------------------------


def _spatial(step: Step, field: str, stem: str | None, axes: int, default: int) -> list[int]:
    """One number an axis, from the repeated field or its _h and _w twins."""
    param = step.param.convolution_param
    twins = [f"{stem}_{direction}" for direction in "hw"] if stem is not None else []
    if any(param.HasField(twin) for twin in twins):
        return [getattr(param, twin) if param.HasField(twin) else default for twin in twins]
    values = list(getattr(param, field)) or [default]
    return values * axes if len(values) == 1 else values


@says("Convolution", "Deconvolution", "Im2col")
def _convolution(graph: Graph, step: Step) -> None:
    for index, (x, y) in enumerate(zip(step.inputs, step.outputs, strict=True)):
        _one_convolution(graph, step, x, y, step.in_shapes[index], step.out_shapes[index])


def _one_convolution(graph: Graph, step: Step, x: str, y: str, shape: Shape, result: Shape) -> None:
    """One input of a layer; axes before the channels are as many images, and missing spatial axes have one place."""
    param = step.param.convolution_param
    axis = step.axis(param.axis)
    axes = len(shape) - axis - 1
    batch, channels, spatial = math.prod(shape[:axis]), shape[axis], shape[axis + 1:] or (1,)
    kernel = _spatial(step, "kernel_size", "kernel", axes, 1) if axes else [1]
    settings: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": _spatial(step, "stride", "stride", axes, 1) if axes else [1],
        "pads": (_spatial(step, "pad", "pad", axes, 0) if axes else [0]) * 2,
        "dilations": _spatial(step, "dilation", None, axes, 1) if axes else [1]}
    source = graph.reshape(x, shape, (batch, channels, *spatial))
    wide = (batch, result[axis], *(result[axis + 1:] or (1,)))
    top = y if wide == result else None
    if step.type == "Im2col":
        # Each output takes one place of the window of one channel.
        taps = math.prod(kernel)
        picks = np.tile(np.eye(taps, dtype=np.float32), (channels, 1)).reshape(channels * taps, 1, *kernel)
        product = graph.node("Conv", [source, graph.weight(picks, "picks")], top, group=channels, **settings)
    else:
        transposed = step.type == "Deconvolution"
        outer, inner = (channels, param.num_output) if transposed else (param.num_output, channels)
        inputs = [source, graph.weight(step.blob(0, (outer, inner // param.group, *kernel)), "weight", 0)]
        if param.bias_term:
            inputs.append(graph.weight(step.blob(1, (param.num_output,)), "bias", 1))
        product = graph.node("ConvTranspose" if transposed else "Conv", inputs, top, group=param.group, **settings)
    if top is None:
        graph.reshape(product, wide, result, y)


@says("InnerProduct")
def _inner_product(graph: Graph, step: Step) -> None:
    param, shape, result = step.param.inner_product_param, step.in_shapes[0], step.out_shapes[0]
    axis = step.axis(param.axis)
    depth = math.prod(shape[axis:])
    weight_shape = (depth, param.num_output) if param.transpose else (param.num_output, depth)
    inputs = [graph.weight(step.blob(0, weight_shape), "weight", 0)]
    if param.bias_term:
        inputs.append(graph.weight(step.blob(1, (param.num_output,)), "bias", 1))
    rows = (math.prod(shape[:axis]), depth)
    if axis == 1 and len(shape) > 2:
        x = graph.node("Flatten", step.inputs, axis=1)
    else:
        x = graph.reshape(step.inputs[0], shape, rows)
    flat = (rows[0], param.num_output)
    product = graph.node("Gemm", [x, *inputs], step.outputs[0] if flat == result else None,
                         transB=None if param.transpose else 1)
    if flat != result:
        graph.reshape(product, flat, result, step.outputs[0])


# ---- pooling ------------------------------------------------------------------------------------------------


def pool(graph: Graph, op: str, x: str, sizes: Sequence[int], outputs: Sequence[int], *, kernel: Sequence[int],
         stride: Sequence[int], begin: Sequence[int], counted: Sequence[int] | None = None,
         dilation: Sequence[int] | None = None, output: str | None = None, more: Sequence[str] = (),
         column_major: bool = False) -> str:
    """Pool the spatial axes of `x` to `outputs`, whichever rule says that there are so many.

    Parameters
    ----------
    op : MaxPool or AveragePool
    sizes, outputs : of the spatial axes, before and after
    begin : elements of padding before each axis
    counted : elements of padding behind each axis that an average counts; those before count too; None: none count
    more : for MaxPool, a name for the indices
    """
    extents = [d * (k - 1) + 1 for d, k in zip(dilation or [1] * len(kernel), kernel, strict=True)]
    dilated = dilation is not None and any(d != 1 for d in dilation)
    average = op == "AveragePool"
    if average and dilated and graph.opset < DILATED_AVERAGES:
        raise UnsayableError(f"averages with dilation exist from opset {DILATED_AVERAGES} on; give a newer opset")
    counts = average and counted is not None and (any(begin) or any(counted))
    spans = [size + 2 * b - e for size, b, e in zip(sizes, begin, extents, strict=True)]
    floors = [span // s + 1 for span, s in zip(spans, stride, strict=True)]
    ceilings = [-(-span // s) + 1 for span, s in zip(spans, stride, strict=True)]
    # How far the last windows reach beyond the input.
    ends = [max(0, (o - 1) * s + e - b - size) for o, s, e, b, size in
            zip(outputs, stride, extents, begin, sizes, strict=True)]
    ceil_mode = None
    if list(outputs) == floors and (not counts or list(begin) == list(counted or ())):
        ends = list(begin)
    elif list(outputs) == ceilings and not counts:
        ends, ceil_mode = list(begin), 1
    pads = [*begin, *ends]
    if counts and counted is not None and any(end > c for end, c in zip(ends, counted, strict=True)):
        # What counts is laid around the input, and what lies beyond, which does not, is left to the average.
        x = graph.node("Pad", [x, graph.integers(0, 0, *begin, 0, 0, *counted, hint="pads")])
        pads = [0] * len(ends) + [max(0, end - c) for end, c in zip(ends, counted, strict=True)]
        counts = False
    return graph.node(op, [x], output, more=more, kernel_shape=list(kernel), strides=list(stride),
                      pads=pads if any(pads) else None, ceil_mode=ceil_mode, count_include_pad=1 if counts else None,
                      dilations=list(dilation) if dilation is not None and dilated else None,
                      storage_order=1 if column_major else None)


def _pair(param: PoolingParameter, stem: str) -> list[int]:
    twins = [f"{stem}_{direction}" for direction in "hw"]
    if param.HasField(twins[0]):
        return [getattr(param, twin) for twin in twins]
    return [getattr(param, "kernel_size" if stem == "kernel" else stem)] * 2


@says("Pooling")
def _pooling(graph: Graph, step: Step) -> None:
    param, sizes, outputs = step.param.pooling_param, step.in_shapes[0][2:], step.out_shapes[0][2:]
    x, y = step.inputs[0], step.outputs[0]
    draws = param.pool == PoolingParameter.STOCHASTIC
    if param.global_pooling and not draws and len(step.outputs) == 1:
        graph.node("GlobalMaxPool" if param.pool == PoolingParameter.MAX else "GlobalAveragePool", [x], y)
        return
    kernel = sizes if param.global_pooling else _pair(param, "kernel")
    stride, pad = _pair(param, "stride"), _pair(param, "pad")
    if draws:
        # The mean of a window with its own values as weights.
        squares = pool(graph, "AveragePool", graph.node("Mul", [x, x]), sizes, outputs, kernel=kernel, stride=stride,
                       begin=pad)
        sums = pool(graph, "AveragePool", x, sizes, outputs, kernel=kernel, stride=stride, begin=pad)
        graph.node("Div", [squares, graph.affine(sums, 1, LEAST_SUM)], y)
    elif param.pool == PoolingParameter.AVE:
        pool(graph, "AveragePool", x, sizes, outputs, kernel=kernel, stride=stride, begin=pad, counted=pad, output=y)
    elif len(step.outputs) == 1:
        pool(graph, "MaxPool", x, sizes, outputs, kernel=kernel, stride=stride, begin=pad, output=y)
    else:
        # Caffe's mask counts within an image's channel, ONNX's indices through the whole tensor.
        indices = graph.fresh(f"{step.param.name}_indices")
        pool(graph, "MaxPool", x, sizes, outputs, kernel=kernel, stride=stride, begin=pad, output=y, more=[indices])
        within = graph.node("Mod", [indices, graph.integers(math.prod(sizes), hint="plane")])
        graph.to_float(within, step.outputs[1])


@says("SPP")
def _spp(graph: Graph, step: Step) -> None:
    param, shape = step.param.spp_param, step.in_shapes[0]
    maximum = param.pool == SPPParameter.MAX
    parts = []
    for level in range(param.pyramid_height):
        bins = 2**level
        kernel = [-(-size // bins) for size in shape[2:]]
        pads = [(k * bins - size + 1) // 2 for k, size in zip(kernel, shape[2:], strict=True)]
        alone = param.pyramid_height == 1
        # Caffe: as in its pooling, a last window that would begin behind the image is dropped.
        outputs = [-(-(size + 2 * p - k) // k) + 1 for size, p, k in zip(shape[2:], pads, kernel, strict=True)]
        outputs = [o - 1 if any(pads) and (o - 1) * k >= size + p else o for o, size, p, k in
                   zip(outputs, shape[2:], pads, kernel, strict=True)]
        pooled = pool(graph, "MaxPool" if maximum else "AveragePool", step.inputs[0], shape[2:], outputs, kernel=kernel,
                      stride=kernel, begin=pads, counted=None if maximum else pads,
                      output=step.outputs[0] if alone else None)
        if alone:
            return
        parts.append(graph.node("Flatten", [pooled], axis=1))
    graph.node("Concat", parts, step.outputs[0], axis=1)


# ---- resampling ---------------------------------------------------------------------------------------------


@says("Interp")
def _interp(graph: Graph, step: Step) -> None:
    param: InterpParameter = step.param.interp_param
    shape = (*step.in_shapes[0], 1, 1, 1, 1)[:4]
    result = step.out_shapes[0]
    x = graph.reshape(step.inputs[0], step.in_shapes[0], shape)
    if param.pad_beg or param.pad_end:
        begin, end = -param.pad_beg, -param.pad_end
        x = graph.slice(x, [begin, begin], [size - end for size in shape[2:]], [2, 3])
    graph.node("Resize", [x, "", "", graph.integers(*result)], step.outputs[0], mode="linear",
               coordinate_transformation_mode="align_corners")
