"""Convolutions and pooling of Caffe2: where their windows lie, and the ONNX nodes that say the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .graph import Graph
from .operator import Operator

# legacy_pad: how the padding follows from the shapes, other than from the arguments.
NOTSET, VALID, SAME, CAFFE_POOLING = range(4)
_POSITIONS = ("t", "l", "b", "r")


@dataclasses.dataclass(frozen=True)
class Window:
    """Sizes along each axis of an image, and `pads` as ONNX has them: all beginnings, then all ends."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    pads: list[int]


def window(operator: Operator, sizes: Sequence[int], kernel_of_filter: Sequence[int] = ()) -> Window:
    """Where the windows of an operator lie.

    Parameters
    ----------
    sizes : of the image, along the axes that the window moves on
    kernel_of_filter : the sizes of a convolution's filter, which the kernel must have

    Raises
    ------
    NetError : sizes that are none, or that contradict each other
    """
    axes = len(sizes)
    kernel = _each(operator, "kernel", axes, 0)
    if kernel_of_filter and not any(kernel):
        kernel = list(kernel_of_filter)
    if kernel_of_filter and kernel != list(kernel_of_filter):
        raise operator.error(f"its kernel is {kernel}, its filter's {list(kernel_of_filter)}")
    stride, dilation = _each(operator, "stride", axes, 1), _each(operator, "dilation", axes, 1)
    if min([*kernel, *stride, *dilation]) < 1:
        raise operator.error(f"kernel {kernel}, stride {stride} and dilation {dilation} must be 1 or more")
    pads = _pads(operator, axes)
    legacy = operator.integer("legacy_pad", NOTSET)
    if legacy not in (NOTSET, VALID, SAME, CAFFE_POOLING):
        raise operator.error(f"legacy_pad is {legacy}; known are {NOTSET} to {CAFFE_POOLING}")
    if legacy in (VALID, SAME) and any(pads):
        raise operator.error(f"legacy_pad {legacy} finds the padding from the shapes; take pad {pads} out")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if legacy == SAME:
        pads = _same_pads(operator, sizes, spans, stride)
    elif legacy == CAFFE_POOLING:
        pads = _caffe_pads(sizes, spans, stride, pads[:axes])
    return Window(kernel, stride, dilation, pads)


def _each(operator: Operator, name: str, axes: int, default: int) -> list[int]:
    """A size for each axis: of ``kernels``, of ``kernel_h`` and ``kernel_w``, or the same ``kernel`` for all."""
    if operator.has(f"{name}s"):
        sizes = operator.integers(f"{name}s")
    elif operator.has(f"{name}_h") or operator.has(f"{name}_w"):
        sizes = [operator.integer(f"{name}_{side}", default) for side in "hw"]
    else:
        sizes = [operator.integer(name, default)] * axes
    if len(sizes) != axes:
        raise operator.error(f"gives {len(sizes)} sizes as {name}; its images have {axes} axes")
    return sizes


def _pads(operator: Operator, axes: int) -> list[int]:
    sides = [f"pad_{position}" for position in _POSITIONS]
    if operator.has("pads"):
        pads = operator.integers("pads")
    elif any([operator.has(side) for side in sides]):
        pads = [operator.integer(side) for side in sides]
    else:
        pads = [operator.integer("pad")] * 2 * axes
    if len(pads) != 2 * axes or min(pads, default=0) < 0:
        raise operator.error(f"pads are {pads}; images of {axes} axes have {2 * axes}, none below 0")
    return pads


def _same_pads(operator: Operator, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Padding that leaves a window for each `stride` pixels begun; the odd pixel goes to the end."""
    heads, tails = [], []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        needed = (-(-size // stride) - 1) * stride + span - size
        if needed < -1:
            raise operator.unsupported(f"legacy_pad SAME with stride {stride} would cut pixels off, kernel {span} and "
                                       f"size {size} given")
        heads.append(max(needed, 0) // 2)
        tails.append(max(needed, 0) - max(needed, 0) // 2)
    return heads + tails


def _caffe_pads(sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int], heads: list[int]) -> list[int]:
    """Caffe's pooling rounds up, and its last window begins inside the image and the padding before it."""
    tails = []
    for size, span, stride, head in zip(sizes, spans, strides, heads, strict=True):
        windows = -(-(size + 2 * head - span) // stride) + 1
        if head > 0 and (windows - 1) * stride >= size + head:
            windows -= 1
        tails.append(max((windows - 1) * stride + span - size - head, 0))
    return heads + tails


# ---- operators --------------------------------------------------------------------------------------------


def is_channels_last(operator: Operator) -> bool:
    """Whether an operator's images are in the order NHWC.

    Raises
    ------
    NetError : another order
    """
    order = operator.text("order", "NCHW")
    if order not in ("NCHW", "NHWC"):
        raise operator.error(f"its order is {order!r}; known are NCHW and NHWC")
    return order == "NHWC"


def channels_first(graph: Graph, value: str) -> str:
    """`value`, whose channels are its last axis, with them as the axis 1."""
    axes = len(graph.shape(value))
    order = [0, axes - 1, *range(1, axes - 1)]
    array = graph.value(value)
    if array is not None:
        return graph.constant(np.ascontiguousarray(array.transpose(order)), graph.fresh(f"{value}__channels_first"))
    return graph.add("Transpose", [value], perm=order)


def channels_last(graph: Graph, value: str) -> str:
    """`value`, whose channels are its axis 1, with them as the last axis."""
    axes = len(graph.shape(value))
    return graph.add("Transpose", [value], perm=[0, *range(2, axes), 1])


def images(operator: Operator, graph: Graph, value: str) -> str:
    """The images that an operator reads, channels first.

    Raises
    ------
    NetError : they have too few axes
    """
    if not 3 <= len(graph.shape(value)) <= 5:
        raise operator.error(f"its input {operator.inputs[0]!r} has the shape {graph.shape(value)}; images have 3 to 5 "
                             "axes")
    return channels_first(graph, value) if is_channels_last(operator) else value


def conv(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Filters are (outputs, inputs of a group, kernel...); in the order NHWC their inputs come last."""
    data, weights = images(operator, graph, inputs[0]), inputs[1]
    if len(graph.shape(weights)) != len(graph.shape(data)):
        raise operator.error(f"its filter {operator.inputs[1]!r} has the shape {graph.shape(weights)}, its images "
                             f"{graph.shape(data)}: the two have as many axes")
    if is_channels_last(operator):
        weights = channels_first(graph, weights)
    group, (filters, channels, *_) = operator.integer("group", 1), graph.shape(weights)
    _check_channels(operator, graph, data, weights, channels * group, filters, inputs[2:])
    place = window(operator, graph.shape(data)[2:], graph.shape(weights)[2:])
    _check_spans(operator, place, graph.shape(data)[2:])
    y = graph.add("Conv", [data, weights, *inputs[2:]], kernel_shape=place.kernel, strides=place.stride,
                  pads=place.pads, dilations=place.dilation, group=group)
    return channels_last(graph, y) if is_channels_last(operator) else y


def _check_channels(operator: Operator, graph: Graph, data: str, weights: str, takes: int, gives: int,
                    bias: list[str]) -> None:
    """Raise NetError where images, filter, groups and bias do not fit."""
    channels, group = graph.shape(data)[1], operator.integer("group", 1)
    if group < 1 or channels != takes or channels % group or gives % group:
        of_groups = f" in {group} groups" if group != 1 else ""
        raise operator.error(f"its images have {channels} channels, its filter {graph.shape(weights)} takes {takes}"
                             f"{of_groups} and gives {gives}")
    if bias and math.prod(graph.shape(bias[0])) != gives:
        raise operator.error(f"its bias has {math.prod(graph.shape(bias[0]))} numbers; it needs {gives}")


def _check_spans(operator: Operator, place: Window, sizes: Sequence[int]) -> None:
    """Raise NetError where a window is larger than the padded image."""
    axes = len(sizes)
    spans = [(k - 1) * d + 1 for k, d in zip(place.kernel, place.dilation, strict=True)]
    padded = [size + head + tail for size, head, tail in zip(sizes, place.pads[:axes], place.pads[axes:], strict=True)]
    if any(span > size for span, size in zip(spans, padded, strict=True)):
        raise operator.error(f"its windows span {spans} pixels, more than its images, {' x '.join(map(str, padded))}")


def conv_transpose(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Filters are (inputs, outputs of a group, kernel...); in the order NHWC their outputs come last.

    ``adj`` adds to the sizes of the result.
    """
    data, weights = images(operator, graph, inputs[0]), inputs[1]
    if len(graph.shape(weights)) != len(graph.shape(data)):
        raise operator.error(f"its filter {operator.inputs[1]!r} has the shape {graph.shape(weights)}, its images "
                             f"{graph.shape(data)}: the two have as many axes")
    if operator.integer("legacy_pad", NOTSET) != NOTSET:
        raise operator.unsupported("legacy_pad has no meaning for a ConvTranspose")
    if is_channels_last(operator):
        weights = channels_first(graph, weights)
    sizes, group, (channels, filters, *_) = graph.shape(data)[2:], operator.integer("group", 1), graph.shape(weights)
    _check_channels(operator, graph, data, weights, channels, filters * group, inputs[2:])
    place = window(operator, sizes, graph.shape(weights)[2:])
    y = graph.add("ConvTranspose", [data, weights, *inputs[2:]], kernel_shape=place.kernel, strides=place.stride,
                  pads=place.pads, dilations=place.dilation, group=group,
                  output_padding=_each(operator, "adj", len(sizes), 0))
    return channels_last(graph, y) if is_channels_last(operator) else y


def pool(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """The most or the average of each window; an average leaves padding out, unless ``count_include_pad``."""
    data, average = images(operator, graph, inputs[0]), operator.type.startswith("Average")
    if operator.integer("global_pooling"):
        y = graph.add("GlobalAveragePool" if average else "GlobalMaxPool", [data])
        return channels_last(graph, y) if is_channels_last(operator) else y
    place = window(operator, graph.shape(data)[2:])
    _check_spans(operator, place, graph.shape(data)[2:])
    if max(place.dilation) > 1:
        raise operator.error(f"its dilation is {place.dilation}; Caffe2's pooling has none")
    if any(pad >= kernel for pad, kernel in zip(place.pads, 2 * place.kernel, strict=True)):
        raise operator.error(f"pads {place.pads} reach the kernel's {place.kernel}: a window would lie outside of the "
                             "image")
    axes = len(place.kernel)
    extra = {"count_include_pad": operator.integer("count_include_pad")} if average else {}
    if operator.integer("legacy_pad") == CAFFE_POOLING and not any(place.pads[:axes]) and all(
            stride <= kernel for stride, kernel in zip(place.stride, place.kernel, strict=True)):
        place = dataclasses.replace(place, pads=[0] * 2 * axes)  # rounding up says the same, and Caffe can say it too
        extra["ceil_mode"] = 1
    y = graph.add("AveragePool" if average else "MaxPool", [data], kernel_shape=place.kernel, strides=place.stride,
                  pads=place.pads, **extra)
    return channels_last(graph, y) if is_channels_last(operator) else y


def lrn(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Normalisation across `size` channels."""
    size = operator.integer("size")
    if size < 1 or size % 2 == 0:
        raise operator.error(f"its size is {size}; it must be odd")
    y = graph.add("LRN", [images(operator, graph, inputs[0])], size=size, alpha=operator.real("alpha"),
                  beta=operator.real("beta"), bias=operator.real("bias", 1.0))
    return channels_last(graph, y) if is_channels_last(operator) else y


def resize_nearest(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Each pixel of the result is the one at its place divided by the scale, rounded down."""
    if len(inputs) > 1:
        raise operator.unsupported("takes its scales from a blob; only the arguments height_scale and width_scale are "
                                   "read")
    scales = [operator.real(f"{side}_scale", 1.0) for side in ("height", "width")]
    if not all(0 < scale < 2**16 for scale in scales):
        raise operator.error(f"height_scale and width_scale are {scales}; they must be above 0")
    data = images(operator, graph, inputs[0])
    if len(graph.shape(data)) != 4:
        raise operator.error(f"its images have the shape {graph.shape(data)}; they must have 4 axes")
    regions, factors = graph.constants([], "roi"), graph.constants([1.0, 1.0, *scales], "scales")
    y = graph.add("Resize", [data, regions, factors], mode="nearest", coordinate_transformation_mode="asymmetric",
                  nearest_mode="floor")
    return channels_last(graph, y) if is_channels_last(operator) else y


def channel_shuffle(operator: Operator, graph: Graph, inputs: list[str]) -> str:
    """Channel `g * (C / group) + k` becomes `k * group + g`."""
    data, group = images(operator, graph, inputs[0]), operator.integer("group", 1)
    batch, channels, *sizes = graph.shape(data)
    if group < 1 or channels % group:
        raise operator.error(f"{channels} channels cannot be cut into {group} groups")
    operator.integer("kernel")
    y = graph.add("Reshape", [data, graph.constants([batch, group, channels // group, *sizes], "shape")])
    y = graph.add("Transpose", [y], perm=[0, 2, 1, *range(3, 3 + len(sizes))])
    y = graph.add("Reshape", [y, graph.constants([batch, channels, *sizes], "shape")])
    return channels_last(graph, y) if is_channels_last(operator) else y
