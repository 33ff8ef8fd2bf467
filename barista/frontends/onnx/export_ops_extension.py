"""Barista's own layer types in ONNX, whence most of them come."""

from __future__ import annotations

import math

import numpy as np

from barista.frontends.onnx.export_graph import Graph, Step, UnsayableError, says
from barista.frontends.onnx.export_ops_windows import pool
from barista.proto.caffe_pb2 import (
    BinaryParameter,
    FunctionParameter,
    PadParameter,
    PoolingNdParameter,
    ReduceParameter,
    ResizeParameter,
)

_BINARY = {BinaryParameter.ADD: "Add", BinaryParameter.SUB: "Sub", BinaryParameter.MUL: "Mul",
           BinaryParameter.DIV: "Div", BinaryParameter.POW: "Pow", BinaryParameter.MAX: "Max",
           BinaryParameter.MIN: "Min"}
_REDUCE = {ReduceParameter.SUM: "ReduceSum", ReduceParameter.MEAN: "ReduceMean", ReduceParameter.MAX: "ReduceMax",
           ReduceParameter.MIN: "ReduceMin", ReduceParameter.PROD: "ReduceProd", ReduceParameter.L1: "ReduceL1",
           ReduceParameter.L2: "ReduceL2", ReduceParameter.SUMSQ: "ReduceSumSquare",
           ReduceParameter.LOGSUM: "ReduceLogSum", ReduceParameter.LOGSUMEXP: "ReduceLogSumExp"}
# Operators of a function, and ONNX's names for its alpha and beta.
_FUNCTIONS: dict[int, tuple[str, tuple[str, ...]]] = {
    FunctionParameter.SELU: ("Selu", ("alpha", "gamma")),
    FunctionParameter.HARD_SIGMOID: ("HardSigmoid", ("alpha", "beta")),
    FunctionParameter.CELU: ("Celu", ("alpha",)),
    FunctionParameter.THRESHOLDED_RELU: ("ThresholdedRelu", ("alpha",)),
    FunctionParameter.SOFTPLUS: ("Softplus", ()),
    FunctionParameter.SOFTSIGN: ("Softsign", ()),
    FunctionParameter.SQRT: ("Sqrt", ()),
    FunctionParameter.RECIPROCAL: ("Reciprocal", ()),
    FunctionParameter.NEG: ("Neg", ()),
    FunctionParameter.SIGN: ("Sign", ()),
    FunctionParameter.FLOOR: ("Floor", ()),
    FunctionParameter.CEIL: ("Ceil", ()),
    FunctionParameter.ROUND: ("Round", ()),
    FunctionParameter.ERF: ("Erf", ()),
}
# From which opset on ONNX has what older ones lack.
_WRAP, _RESIZED_AXES, _SYMMETRIC = 19, 18, 19


@says("Binary")
def _binary(graph: Graph, step: Step) -> None:
    graph.node(_BINARY[step.param.binary_param.operation], step.inputs, step.outputs[0])


@says("Pad")
def _pad(graph: Graph, step: Step) -> None:
    """What is cut off is cut off first: ONNX's other modes would look at it."""
    param, x, shape = step.param.pad_param, step.inputs[0], step.in_shapes[0]
    begin, end = list(param.begin), list(param.end)
    if param.mode == PadParameter.WRAP and graph.opset < _WRAP:
        raise UnsayableError(f"padding of mode WRAP exists from opset {_WRAP} on; give a newer opset")
    pads = [max(0, size) for size in (*begin, *end)]
    cuts = [axis for axis in range(len(shape)) if begin[axis] < 0 or end[axis] < 0]
    if cuts:
        x = graph.slice(x, [max(0, -begin[axis]) for axis in cuts], [shape[axis] - max(0, -end[axis]) for axis in cuts],
                        cuts, None if any(pads) else step.outputs[0])
    if any(pads) or not cuts:
        value = [graph.constant(param.value, "value")] if param.mode == PadParameter.CONSTANT else []
        graph.node("Pad", [x, graph.integers(*pads, hint="pads"), *value], step.outputs[0],
                   mode=PadParameter.Mode.Name(param.mode).lower())


@says("PoolingNd")
def _pooling_nd(graph: Graph, step: Step) -> None:
    param, sizes = step.param.pooling_nd_param, step.in_shapes[0][2:]

    def each(values: object, default: int | None = None) -> list[int]:
        given = list(values) or [default or 0]  # type: ignore[call-overload]
        return given * len(sizes) if len(given) == 1 else given

    counted = each(param.pad_end) if param.count_include_pad else None
    pool(graph, "MaxPool" if param.pool == PoolingNdParameter.MAX else "AveragePool", step.inputs[0], sizes,
         step.out_shapes[0][2:], kernel=each(param.kernel), stride=each(param.stride, 1), begin=each(param.pad_begin),
         counted=counted, dilation=each(param.dilation, 1), output=step.outputs[0],
         more=_indices(graph, step), column_major=param.column_major)
    if len(step.outputs) > 1:
        graph.to_float(_indices(graph, step)[0], step.outputs[1])


def _indices(graph: Graph, step: Step) -> list[str]:
    """The name of the whole numbers that a second output is made of."""
    return [f"{step.outputs[1]}_whole"] if len(step.outputs) > 1 else []


@says("MatMul")
def _mat_mul(graph: Graph, step: Step) -> None:
    param = step.param.matmul_param
    names = [_turned(graph, name, len(shape)) if turn and len(shape) > 1 else name for name, shape, turn in
             zip(step.inputs, step.in_shapes, (param.transpose_a, param.transpose_b), strict=True)]
    graph.node("MatMul", names, step.outputs[0])


def _turned(graph: Graph, x: str, axes: int) -> str:
    """`x` with its last two axes swapped."""
    return graph.node("Transpose", [x], perm=[*range(axes - 2), axes - 1, axes - 2])


@says("Reduce")
def _reduce(graph: Graph, step: Step) -> None:
    param = step.param.reduce_param
    axes = [step.axis(axis) for axis in param.axis] or list(range(len(step.in_shapes[0])))
    graph.reduce(_REDUCE[param.operation], step.inputs[0], axes, step.outputs[0], keepdims=param.keepdims)


@says("Resize")
def _resize(graph: Graph, step: Step) -> None:
    param, shape, result = step.param.resize_param, step.in_shapes[0], step.out_shapes[0]
    axes = [step.axis(axis) for axis in param.axis]
    if param.antialias and graph.opset < _RESIZED_AXES:
        raise UnsayableError(f"antialias exists from opset {_RESIZED_AXES} on; give a newer opset")
    if param.coordinates == ResizeParameter.HALF_PIXEL_SYMMETRIC and graph.opset < _SYMMETRIC:
        raise UnsayableError(f"coordinates HALF_PIXEL_SYMMETRIC exist from opset {_SYMMETRIC} on; give a newer opset")
    scales, roi = "", ""
    # Where the scale is that of the sizes, these are written: a product of rounded numbers may fall short of them.
    if not all(math.isclose(shape[axis] * scale, result[axis], rel_tol=1e-6)
               for axis, scale in zip(axes, param.scale, strict=False)):
        full = [1.0] * len(shape)
        for axis, scale in zip(axes, param.scale, strict=True):
            full[axis] = scale
            if math.floor(shape[axis] * np.float32(scale)) != result[axis]:
                raise UnsayableError(f"it takes the size {result[axis]} and the scale {scale:g} of axis {axis}; ONNX "
                                     "takes one of them")
        scales = graph.constant(full, "scales")
    if param.coordinates == ResizeParameter.TF_CROP_AND_RESIZE:
        corners = [0.0] * len(shape) + [1.0] * len(shape)
        for axis, begin, end in zip(axes, param.roi_begin, param.roi_end, strict=True):
            corners[axis], corners[axis + len(shape)] = begin, end
        roi = graph.constant(corners, "roi")
    cubic, nearest = param.mode == ResizeParameter.CUBIC, param.mode == ResizeParameter.NEAREST
    cropped = param.coordinates == ResizeParameter.TF_CROP_AND_RESIZE
    graph.node("Resize", [step.inputs[0], roi, scales, *([] if scales else [graph.integers(*result)])],
               step.outputs[0], mode=ResizeParameter.Mode.Name(param.mode).lower(),
               coordinate_transformation_mode=ResizeParameter.Coordinates.Name(param.coordinates).lower(),
               nearest_mode=ResizeParameter.Rounding.Name(param.rounding).lower() if nearest else None,
               cubic_coeff_a=param.cubic_coeff_a if cubic else None,
               exclude_outside=1 if param.exclude_outside else None, antialias=1 if param.antialias else None,
               extrapolation_value=param.extrapolation_value if cropped else None)


@says("StridedSlice")
def _strided_slice(graph: Graph, step: Step) -> None:
    param = step.param.strided_slice_param
    axes = list(param.axis) or list(range(len(param.start)))
    graph.slice(step.inputs[0], list(param.start), list(param.end), axes, step.outputs[0],
                steps=list(param.step) or None)


@says("Expand")
def _expand(graph: Graph, step: Step) -> None:
    shape = graph.integers(*step.param.expand_param.shape, hint="shape")
    graph.node("Expand", [*step.inputs, shape], step.outputs[0])


@says("Take")
def _take(graph: Graph, step: Step) -> None:
    param = step.param.take_param
    indices = np.array(param.index, np.int64)
    shape: tuple[int, ...] = () if param.scalar else tuple(param.shape) or indices.shape
    graph.node("Gather", [*step.inputs, graph.constant(indices.reshape(shape), "indices")], step.outputs[0],
               axis=param.axis)


@says("Function")
def _function(graph: Graph, step: Step) -> None:
    param, (x,), (y,) = step.param.function_param, step.inputs, step.outputs
    if param.function in _FUNCTIONS:
        op, names = _FUNCTIONS[param.function]
        given = {name: getattr(param, field) for field, name in zip(("alpha", "beta"), names, strict=False)
                 if param.HasField(field)}
        graph.node(op, [x], y, **given)
    elif param.function == FunctionParameter.HARD_SWISH:
        graph.node("Mul", [x, graph.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)], y)
    elif param.function == FunctionParameter.MISH:
        graph.node("Mul", [x, graph.node("Tanh", [graph.node("Softplus", [x])])], y)
    elif param.function == FunctionParameter.GELU:
        share = graph.affine(graph.node("Erf", [graph.affine(x, math.sqrt(0.5), 0)]), 0.5, 0.5)
        graph.node("Mul", [x, share], y)
    elif param.function == FunctionParameter.TRUNC:
        graph.node("Mul", [graph.node("Sign", [x]), graph.node("Floor", [graph.node("Abs", [x])])], y)
    else:
        raise UnsayableError(f"its function {FunctionParameter.Name.Name(param.function)} has no operator")
