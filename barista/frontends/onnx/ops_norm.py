"""Normalisations and Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from barista.errors import NetError

from .converter import Converter, handler
from .node import Node

Array = npt.NDArray[Any]


@handler("LRN")
def lrn(converter: Converter, node: Node) -> None:
    """LRN across channels, whose alpha both divide by the window; ONNX's may be even, and has one more behind then."""
    shape, size = converter.shape(node.input(0)), node.attr("size")
    if len(shape) < 2 or size is None or size < 1:
        raise NetError(f"{node.label}: needs an input (N, C, ...), got {shape}, and a size of 1 or more, got {size}")
    alpha, beta, bias = node.attr("alpha", 1e-4), node.attr("beta", 0.75), node.attr("bias", 1.0)
    if size % 2:
        x = node.input(0) if len(shape) == 4 else converter.reshaped(node.input(0), [0, 0, -1, 1])
        y = node.output(0) if len(shape) == 4 else converter.fresh(f"{node.output(0)}_flat")
        converter.layer("LRN", [x], [y], lrn_param={"local_size": size, "alpha": alpha, "beta": beta, "k": bias})
        if len(shape) != 4:
            converter.reshaped(y, [0, *shape[1:]], node.output(0))
        return
    x, y = node.input(0), node.output(0)
    square, mean, factor = (converter.fresh(f"{y}_{part}") for part in ("square", "mean", "factor"))
    converter.layer("Power", [x], [square], power_param={"power": 2})
    flat = converter.reshaped(square, [0, 1, shape[1], -1])
    converter.layer("PoolingNd", [flat], [mean], pooling_nd_param={
        "pool": "AVE", "kernel": [size, 1], "pad_begin": [(size - 1) // 2, 0], "pad_end": [size // 2, 0],
        "count_include_pad": True})
    back = converter.reshaped(mean, [0, *shape[1:]])
    converter.layer("Power", [back], [factor], power_param={"power": -beta, "scale": alpha, "shift": bias})
    converter.layer("Eltwise", [x, factor], [y], eltwise_param={"operation": "PROD"})


@handler("BatchNormalization")
def batch_normalization(converter: Converter, node: Node) -> None:
    """BatchNorm with ONNX's statistics, and a Scale."""
    shape = converter.shape(node.input(0))
    scale, bias, mean, variance = (converter.need(node, index, what) for index, what in
                                   enumerate(("the scales", "the biases", "the means", "the variances"), start=1))
    eps = node.attr("epsilon", 1e-5)
    if node.version < 9 and node.attr("spatial", 1) == 0:
        _per_element(converter, node, scale, bias, mean, variance, eps)
        return
    channels = shape[1] if len(shape) > 1 else 1
    for what, array in (("scales", scale), ("biases", bias), ("means", mean), ("variances", variance)):
        if array.shape != (channels,):
            raise NetError(f"{node.label}: the input {shape} has {channels} channels, and needs as many {what}; got "
                           f"{array.shape}")
    normal = converter.fresh(f"{node.output(0)}_normal")
    param: dict[str, Any] = {"eps": eps}
    if node.version < 14 or not node.attr("training_mode"):
        param["moving_average_fraction"] = node.attr("momentum", 0.9)
    else:
        param["use_global_stats"] = False
    converter.layer("BatchNorm", [node.input(0)], [normal], blobs=[mean, variance, np.ones(1, np.float32)],
                    batch_norm_param=param)
    _scale(converter, normal, node.output(0), scale, bias)


def _scale(converter: Converter, x: str, y: str, scale: Array, bias: Array) -> None:
    """y = x * scale + bias, from axis 1 on; for inputs of one axis the number is one."""
    axes = {"axis": 1, "num_axes": scale.ndim} if scale.ndim != 1 else {}
    converter.layer("Scale", [x], [y], blobs=[scale, bias], scale_param={**axes, "bias_term": True})


def _per_element(converter: Converter, node: Node, scale: Array, bias: Array, mean: Array, variance: Array,
                 eps: float) -> None:
    """Statistics of each element instead of each channel, which opsets before 9 had: one Scale."""
    shape = converter.shape(node.input(0))[1:]
    arrays = [array.astype(float).reshape(-1) for array in (scale, bias, mean, variance)]
    if any(array.size != np.prod(shape) for array in arrays):
        raise NetError(f"{node.label}: with spatial=0 each of the {shape} elements needs its own statistics; got "
                       f"{[array.size for array in arrays]}")
    factor = arrays[0] / np.sqrt(arrays[3] + eps)
    shift = arrays[1] - arrays[2] * factor
    factor, shift = (array.reshape(shape).astype(scale.dtype) for array in (factor, shift))
    _scale(converter, node.input(0), node.output(0), factor, shift)


@handler("InstanceNormalization")
def instance_normalization(converter: Converter, node: Node) -> None:
    """A BatchNorm in which each channel of each image is a channel, and a Scale.

    (Caffe's MVN adds eps to the deviation, where ONNX adds it to the variance.)
    """
    shape = converter.shape(node.input(0))
    scale, bias = converter.need(node, 1, "the scales"), converter.need(node, 2, "the biases")
    if len(shape) < 3 or scale.shape != (shape[1],) or bias.shape != (shape[1],):
        raise NetError(f"{node.label}: needs an input (N, C, ...) with spatial axes and C scales and biases; got "
                       f"{shape}, {scale.shape} and {bias.shape}")
    inner = int(np.prod(shape[2:]))
    normal = converter.fresh(f"{node.output(0)}_normal")
    flat = converter.reshaped(node.input(0), [1, -1, inner])
    converter.layer("BatchNorm", [flat], [normal], batch_norm_param={"eps": node.attr("epsilon", 1e-5),
                                                                     "use_global_stats": False})
    _scale(converter, converter.reshaped(normal, [-1, *shape[1:]]), node.output(0), scale, bias)


@handler("Dropout")
def dropout(converter: Converter, node: Node) -> None:
    """Dropout, which copies in the TEST phase, as ONNX's does at inference."""
    ratio = node.attr("ratio", 0.5)
    if node.version >= 12:
        ratio = float(converter.need(node, 1, "the ratio").reshape(())) if node.input(1) else 0.5
        training = bool(converter.need(node, 2, "the training mode").reshape(())) if node.input(2) else False
        if training and ratio:
            converter.unsupported(node, "in training mode its output is random; export the model for inference")
    if not 0 <= ratio < 1:
        raise NetError(f"{node.label}: ratio={ratio} must be at least 0 and less than 1")
    if ratio:
        converter.layer("Dropout", [node.input(0)], [node.output(0)], dropout_param={"dropout_ratio": ratio})
    else:
        converter.alias(node.output(0), node.input(0))
    if node.output(1):  # the mask, which lets everything through
        dtype = bool if node.version >= 10 else converter.dtype(node.input(0))
        converter.set_constant(node.output(1), np.broadcast_to(np.ones((), dtype), converter.shape(node.input(0))))
