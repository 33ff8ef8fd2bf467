"""Operators of Caffe2 as ONNX nodes: how many blobs each takes, and what says the same."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable

import numpy as np

from .graph import Graph
from .operator import Operator
from .windows import channel_shuffle, conv, conv_transpose, is_channels_last, lrn, pool, resize_nearest

logger = logging.getLogger(__name__)

Handler = Callable[[Operator, Graph, list[str]], str]


@dataclasses.dataclass(frozen=True)
class Op:
    """What an operator of a type takes, and the function that adds its nodes and returns its first output.

    Further outputs are masks, shapes and statistics for training: nothing can take them.
    """

    add: Handler
    least: int = 1
    most: int = 1


def renamed(kind: str) -> Handler:
    """An operator without arguments that ONNX has too."""
    def add(_: Operator, graph: Graph, inputs: list[str]) -> str:
        return graph.add(kind, inputs)
    return add


def axis_of(operator: Operator, name: str, default: int, axes: int, end: bool = False) -> int:
    """An axis of a blob of `axes` axes, counted from the front; `end`: the place behind the last will do.

    Raises
    ------
    NetError : there is no such axis
    """
    axis = operator.integer(name, default)
    if not -axes <= axis < axes + end:
        raise operator.error(f"{name} is {axis}; its blob has {axes} axes")
    return axis + axes if axis < 0 else axis


def leaky_relu(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Caffe2's slope is 0.01 where none is given."""
    return graph.add("LeakyRelu", inputs, alpha=operator.real("alpha", 0.01))


def prelu(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """A slope for all, or one for each channel, which is the axis 1 or, in the order NHWC, the last."""
    data, slope = inputs
    shape, count = graph.shape(data), math.prod(graph.shape(slope))
    axis = len(shape) - 1 if is_channels_last(operator) else 1
    if count != 1 and (len(shape) <= axis or shape[axis] != count):
        raise operator.error(f"has {count} slopes for a blob of shape {shape}; give 1, or one for each channel")
    sizes = [count] if count == 1 else [count] + [1] * (len(shape) - axis - 1)
    return graph.add("PRelu", [data, reshaped(graph, slope, sizes)])


def softmax(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Over all axes from `axis` on together, as ONNX did up to opset 12."""
    return graph.add("Softmax", inputs, axis=axis_of(operator, "axis", 1, len(graph.shape(inputs[0]))))


def spatial_bn(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Batch normalisation with the statistics of training."""
    if not operator.integer("is_test"):
        logger.warning("%s has is_test: 0, which is for training; its stored mean and variance are taken",
                       operator.label)
    last = is_channels_last(operator)
    axes = _image_axes(operator, graph, inputs[0], 2)
    data = graph.add("Transpose", [inputs[0]], perm=[0, axes - 1, *range(1, axes - 1)]) if last else inputs[0]
    for name, value in zip(("scale", "bias", "mean", "variance"), inputs[1:], strict=True):
        if graph.shape(value) != graph.shape(data)[1:2]:
            raise operator.error(f"has {math.prod(graph.shape(value))} numbers as {name} for {graph.shape(data)[1]} "
                                 f"channels")
    y = graph.add("BatchNormalization", [data, *inputs[1:]], epsilon=operator.real("epsilon", 1e-5))
    return graph.add("Transpose", [y], perm=[0, *range(2, axes), 1]) if last else y


def dropout(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """What is kept is scaled up in training, so that nothing is left to do afterwards."""
    ratio = operator.real("ratio", 0.5)
    if not 0 <= ratio < 1:
        raise operator.error(f"its ratio is {ratio}; it must be from 0 to below 1")
    if not operator.integer("is_test"):
        logger.warning("%s has is_test: 0, which is for training; it drops nothing at inference", operator.label)
    return graph.add("Dropout", [inputs[0], graph.constant(np.array(ratio, np.float32), graph.fresh("ratio"))])


def concat(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Along the channels where no axis is given; ``add_axis`` makes a new one."""
    axes, new = len(graph.shape(inputs[0])), bool(operator.integer("add_axis"))
    axis = axis_of(operator, "axis", axes - 1 if is_channels_last(operator) else 1, axes + new)
    parts = [graph.add("Unsqueeze", [value], axes=[axis]) for value in inputs] if new else inputs
    return graph.add("Concat", parts, axis=axis)


def binary(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Two blobs number by number. With ``broadcast`` the second stands for the axes of the first from `axis` on."""
    a, b = inputs
    broadcast = bool(operator.integer("broadcast"))
    has_axis = operator.has("axis")
    name, order = operator.text("axis_str"), operator.text("order", "NCHW")
    if broadcast and math.prod(graph.shape(b)) != 1:
        first, second = graph.shape(a), graph.shape(b)
        if name and has_axis:
            raise operator.error("has both axis and axis_str; give one")
        axis = order.find(name) if name else operator.integer("axis", -1)
        if axis == -1 and not name:
            axis = len(first) - len(second)
        if not 0 <= axis <= len(first) - len(second) or any(
                size not in (1, there) for size, there in zip(second, first[axis:], strict=False)):
            raise operator.error(f"a blob of shape {second} cannot stand for the axes from {axis} on of one of shape "
                                 f"{first}")
        b = reshaped(graph, b, [*second, *[1] * (len(first) - len(second) - axis)])
    elif not broadcast and (has_axis or name):
        raise operator.error("has an axis without broadcast: 1")
    return graph.add(operator.type, [a, b])


def reshape(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """The sizes of the argument ``shape``, or of a second blob that is known beforehand; 0 keeps one, -1 fits."""
    if len(inputs) == 1:
        if not operator.has("shape"):
            raise operator.error("needs a shape: an argument, or a second blob")
        sizes = operator.integers("shape")
    else:
        array = graph.value(inputs[1])
        if array is None:
            raise operator.unsupported(f"takes its shape from {operator.inputs[1]!r}, which the net computes")
        sizes = [int(size) for size in array.reshape(-1)]
    return graph.add("Reshape", [inputs[0], graph.constant(np.array(sizes, np.int64), graph.fresh("shape"))])


def flatten(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """To a matrix whose columns are the axes from `axis` on."""
    return graph.add("Flatten", inputs, axis=axis_of(operator, "axis", 1, len(graph.shape(inputs[0])), end=True))


def transpose(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """To the order of ``axes``; reversed where there are none."""
    count = len(graph.shape(inputs[0]))
    axes = operator.integers("axes") or list(reversed(range(count)))
    if sorted(axes) != list(range(count)):
        raise operator.error(f"axes are {axes}; give each of 0 to {count - 1} once")
    return graph.add("Transpose", inputs, perm=axes)


def to_channels_last(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """NCHW to NHWC."""
    axes = _image_axes(operator, graph, inputs[0])
    return graph.add("Transpose", inputs, perm=[0, *range(2, axes), 1])


def to_channels_first(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """NHWC to NCHW."""
    axes = _image_axes(operator, graph, inputs[0])
    return graph.add("Transpose", inputs, perm=[0, axes - 1, *range(1, axes - 1)])


def fully_connected(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """The axes from `axis` on times a matrix whose rows are outputs: its axes before ``axis_w`` together."""
    data, weights, bias = inputs
    shape, rows = graph.shape(data), graph.shape(weights)
    axis = axis_of(operator, "axis", 1, len(shape))
    axis_w = axis_of(operator, "axis_w", 1, len(rows))
    outputs, count = math.prod(rows[:axis_w]), math.prod(rows[axis_w:])
    if count != math.prod(shape[axis:]) or math.prod(graph.shape(bias)) != outputs:
        raise operator.error(f"a blob of shape {shape}, weights {rows} and bias {graph.shape(bias)} do not fit: "
                             f"weights of {outputs} x {count} need {count} numbers from axis {axis} on, and a bias of "
                             f"{outputs}")
    if len(shape) != 2 or axis != 1:
        data = graph.add("Flatten", [data], axis=axis)
    matrix, bias = reshaped(graph, weights, [outputs, count]), reshaped(graph, bias, [outputs])
    y = graph.add("Gemm", [data, matrix, bias], transB=1)
    if axis == 1:
        return y
    return graph.add("Reshape", [y, graph.constants([*shape[:axis], outputs], "shape")])


def reshaped(graph: Graph, value: str, sizes: list[int]) -> str:
    """`value` in another shape; an initialiser is changed where it lies."""
    array = graph.value(value)
    if list(graph.shape(value)) == sizes:
        return value
    if array is not None:
        return graph.constant(array.reshape(sizes), graph.fresh(f"{value}__reshaped"))
    return graph.add("Reshape", [value, graph.constants(sizes, "shape")])


def _image_axes(operator: Operator, graph: Graph, value: str, least: int = 3) -> int:
    axes = len(graph.shape(value))
    if axes < least:
        raise operator.error(f"its blob has the shape {graph.shape(value)}; it needs {least} axes or more")
    return axes


_MANY = 2**31 - 1

OPS: dict[str, Op] = {
    **{f"Conv{suffix}": Op(conv, 2, 3) for suffix in ("", "1D", "2D", "3D")},
    "ConvTranspose": Op(conv_transpose, 2, 3),
    **{f"{kind}Pool{suffix}": Op(pool) for kind in ("Max", "Average") for suffix in ("", "1D", "2D", "3D")},
    "FC": Op(fully_connected, 3, 3),
    "Relu": Op(renamed("Relu")), "Sigmoid": Op(renamed("Sigmoid")), "Tanh": Op(renamed("Tanh")),
    "LeakyRelu": Op(leaky_relu), "PRelu": Op(prelu, 2, 2), "Softmax": Op(softmax), "LRN": Op(lrn),
    "SpatialBN": Op(spatial_bn, 5, 5), "Dropout": Op(dropout),
    "Concat": Op(concat, 1, _MANY), "Sum": Op(renamed("Sum"), 1, _MANY),
    "Add": Op(binary, 2, 2), "Sub": Op(binary, 2, 2), "Mul": Op(binary, 2, 2), "Div": Op(binary, 2, 2),
    "Reshape": Op(reshape, 1, 2), "Flatten": Op(flatten), "Transpose": Op(transpose),
    "NCHW2NHWC": Op(to_channels_last), "NHWC2NCHW": Op(to_channels_first),
    "ChannelShuffle": Op(channel_shuffle), "ResizeNearest": Op(resize_nearest, 1, 2),
    **{kind: Op(renamed("Identity")) for kind in ("Copy", "CopyCPUToGPU", "CopyGPUToCPU", "EnsureCPUOutput")}}
