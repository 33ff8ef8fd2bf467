"""Activations and other functions of single elements; softmax."""

from __future__ import annotations

import math

import numpy as np

from .converter import Converter, handler
from .layout import reshape
from .node import Node

# Operators that are a layer without parameters.
_PLAIN = {"Relu": "ReLU", "Sigmoid": "Sigmoid", "Tanh": "TanH", "Exp": "Exp", "Log": "Log", "Abs": "AbsVal",
          "Softplus": "BNLL"}

# Operators that are a function of the layer Function, and their attributes, which are alpha and beta there.
_FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Selu": ("SELU", ("alpha", "gamma")), "HardSigmoid": ("HARD_SIGMOID", ("alpha", "beta")),
    "HardSwish": ("HARD_SWISH", ()), "Softsign": ("SOFTSIGN", ()), "Sqrt": ("SQRT", ()),
    "Reciprocal": ("RECIPROCAL", ()), "Neg": ("NEG", ()), "Sign": ("SIGN", ()), "Floor": ("FLOOR", ()),
    "Ceil": ("CEIL", ()), "Round": ("ROUND", ()), "Erf": ("ERF", ()), "Celu": ("CELU", ("alpha",)),
    "ThresholdedRelu": ("THRESHOLDED_RELU", ("alpha",)), "Mish": ("MISH", ())}

# Types of numbers that values may have.
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
           "bool")


@handler(*_PLAIN)
def _plain(converter: Converter, node: Node) -> None:
    converter.layer(_PLAIN[node.op], node.inputs[:1], node.outputs[:1])


@handler(*_FUNCTIONS)
def _function(converter: Converter, node: Node) -> None:
    name, attributes = _FUNCTIONS[node.op]
    values = {field: node.attr(attribute) for field, attribute in zip(("alpha", "beta"), attributes, strict=False)}
    function(converter, name, node.input(0), node.output(0), **values)


def function(converter: Converter, name: str, x: str, y: str, **values: float) -> None:
    """Add a Function layer from `x` to `y`; `values` are its alpha and beta."""
    converter.layer("Function", [x], [y], function_param={"function": name, **values})


@handler("LeakyRelu")
def _leaky_relu(converter: Converter, node: Node) -> None:
    converter.layer("ReLU", [node.input(0)], [node.output(0)], relu_param={"negative_slope": node.attr("alpha")})


@handler("Elu")
def _elu(converter: Converter, node: Node) -> None:
    converter.layer("ELU", [node.input(0)], [node.output(0)], elu_param={"alpha": node.attr("alpha")})


@handler("PRelu")
def _prelu(converter: Converter, node: Node) -> None:
    x, slope = node.inputs
    shape, value = converter.shape(x), converter.constant(slope)
    if value is not None and len(shape) > 1:
        if value.size == 1:
            converter.layer("PReLU", [x], [node.output(0)], blobs=[value.reshape(())],
                            prelu_param={"channel_shared": True})
            return
        # Before opset 7 a slope of one axis is one a channel; since then it is laid out as NumPy broadcasts.
        old = node.version < 7 and value.ndim == 1
        aligned = value.shape if old else (1,) * (len(shape) - value.ndim) + value.shape
        channels = (shape[1],) if old else (1, shape[1], *[1] * (len(shape) - 2))
        if aligned == channels:
            converter.layer("PReLU", [x], [node.output(0)], blobs=[value.reshape(-1)])
            return
    # max(x, 0) - slope * max(-x, 0)
    up, turned, down, scaled = (converter.fresh(f"{node.output(0)}_{part}") for part in ("up", "neg", "down", "scaled"))
    converter.layer("ReLU", [x], [up])
    function(converter, "NEG", x, turned)
    converter.layer("ReLU", [turned], [down])
    converter.layer("Binary", [down, slope], [scaled], binary_param={"operation": "MUL"})
    converter.layer("Binary", [up, scaled], [node.output(0)], binary_param={"operation": "SUB"})


@handler("Clip")
def _clip(converter: Converter, node: Node) -> None:
    if node.version < 11:
        low, high = (node.attr(name) if node.has(name) else None for name in ("min", "max"))
    else:
        low, high = (float(converter.need(node, index, f"the {what}").reshape(())) if node.input(index) else None
                     for index, what in ((1, "minimum"), (2, "maximum")))
    if low is None and high is None:
        converter.alias(node.output(0), node.input(0))
        return
    high = math.inf if high is None else high
    low = -math.inf if low is None else min(low, high)  # the maximum wins
    x, y = node.input(0), node.output(0)
    if converter.dtype(x) == np.float32 or all(float(np.float32(bound)) == bound for bound in (low, high)):
        converter.layer("Clip", [x], [y], clip_param={"min": low, "max": high})
        return
    # The bounds of a Clip layer are float32.
    raised, *bounds = (converter.fresh(f"{y}_{part}") for part in ("raised", "low", "high"))
    for name, bound in zip(bounds, (low, high), strict=True):
        converter.set_constant(name, np.array(bound, np.float64))
    converter.layer("Binary", [x, bounds[0]], [raised], binary_param={"operation": "MAX"})
    converter.layer("Binary", [raised, bounds[1]], [y], binary_param={"operation": "MIN"})


@handler("Gelu")
def _gelu(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    if node.attr("approximate") in (None, "none"):
        function(converter, "GELU", x, y)
        return
    # x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    cube, inner, tanh, product = (converter.fresh(f"{y}_{part}") for part in ("cube", "inner", "tanh", "product"))
    scale = math.sqrt(2 / math.pi)
    converter.layer("Power", [x], [cube], power_param={"power": 3})
    converter.layer("Eltwise", [x, cube], [inner], eltwise_param={"coeff": [scale, 0.044715 * scale]})
    converter.layer("TanH", [inner], [tanh])
    converter.layer("Eltwise", [x, tanh], [product], eltwise_param={"operation": "PROD"})
    converter.layer("Eltwise", [x, product], [y], eltwise_param={"coeff": [0.5, 0.5]})


@handler("Softmax", "LogSoftmax")
def _softmax(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    if not shape:
        converter.unsupported(node, "its input has no axes")
    axis = node.attr("axis", -1 if node.version >= 13 else 1)
    if not -len(shape) <= axis <= len(shape):
        converter.unsupported(node, f"axis={axis} lies outside shape {shape}")
    axis = axis % len(shape) if axis < len(shape) else axis
    if node.version < 13 and (axis == len(shape) or math.prod(shape[axis + 1:]) > 1):
        # Before opset 13 the axes from `axis` on are one.
        rows, result = (converter.fresh(f"{y}_{part}") for part in ("rows", "softmax"))
        flat = (*shape[:axis], math.prod(shape[axis:]))
        reshape(converter, x, rows, shape, flat)
        converter.layer(node.op, [rows], [result], softmax_param={"axis": axis})
        converter.set_shape(result, flat, converter.dtype(x))
        reshape(converter, result, y, flat, shape)
    else:
        converter.layer(node.op, [x], [y], softmax_param={"axis": axis})


@handler("Cast", "CastLike")
def _cast(converter: Converter, node: Node) -> None:
    """Numbers are floats in a net, so that what rounds alone needs a layer."""
    x, y = node.input(0), node.output(0)
    before, after = converter.dtype(x), converter.dtype(y)
    for dtype in (before, after):
        if dtype.name not in NUMBERS:
            converter.unsupported(node, f"Barista does not know the type {dtype}, only {', '.join(NUMBERS)}")
    if after.kind == "b" and before.kind != "b":
        sign = converter.fresh(f"{y}_sign")
        function(converter, "SIGN", x, sign)
        converter.layer("AbsVal", [sign], [y])
    elif after.kind in "iu" and before.kind == "f":
        function(converter, "TRUNC", x, y)
    elif narrows(before, after):
        converter.unsupported(node, f"a net does not wrap numbers of type {before} around to {after}")
    else:
        converter.alias(y, x)


def narrows(before: np.dtype[np.generic], after: np.dtype[np.generic]) -> bool:
    """Whether integers of one type may lie outside of the other's range."""
    if before.kind not in "iu" or after.kind not in "iu":
        return False
    return not np.can_cast(before, after) and after.itemsize < 4
