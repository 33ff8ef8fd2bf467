"""Arithmetic of two or more values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .converter import Converter, handler
from .layout import Shape, reshape
from .node import Node
from .ops_activation import function

# Operators of two values and the operation of the layer Binary.
_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Pow": "POW"}

# Operators of any number of values: the operation of Binary, and that of Eltwise where shapes are equal.
_VARIADIC = {"Sum": ("ADD", "SUM"), "Mean": ("ADD", "SUM"), "Max": ("MAX", "MAX"), "Min": ("MIN", None)}


@handler(*_BINARY)
def _binary(converter: Converter, node: Node) -> None:
    a, b, y = node.input(0), node.input(1), node.output(0)
    if node.version < 7 and node.attr("broadcast"):
        b = _old_broadcast(converter, node)
        converter.set_shape(y, converter.shape(a), converter.dtype(a))
    integer = converter.dtype(a).kind in "iu"
    if integer and (node.op == "Div" or (node.op == "Pow" and converter.dtype(b).kind == "f")):
        exact = converter.fresh(f"{y}_exact")
        converter.layer("Binary", [a, b], [exact], binary_param={"operation": _BINARY[node.op]})
        function(converter, "TRUNC", exact, y)
        return
    if not integer and _with_constant(converter, node.op, a, b, y):
        return
    equal = converter.shape(a) == converter.shape(b)
    if equal and node.op in ("Add", "Sub"):
        _eltwise(converter, "SUM", [a, b], y, [1.0, -1.0] if node.op == "Sub" else [])
    elif equal and node.op == "Mul":
        _eltwise(converter, "PROD", [a, b], y)
    else:
        converter.layer("Binary", [a, b], [y], binary_param={"operation": _BINARY[node.op]})


def _old_broadcast(converter: Converter, node: Node) -> str:
    """The second value with axes behind it, where an attribute says which axes of the first it covers."""
    a, b = converter.shape(node.input(0)), converter.shape(node.input(1))
    axis = node.attr("axis")
    if axis is None or not b:
        return node.input(1)
    behind = len(a) - axis % len(a) - len(b)
    if behind < 0:
        converter.unsupported(node, f"axis={axis} lets the second value {b} reach beyond the first {a}")
    if not behind:
        return node.input(1)
    laid = converter.fresh(f"{node.output(0)}_operand")
    shape = (*b, *[1] * behind)
    value = converter.constant(node.input(1))
    if value is not None:
        converter.set_constant(laid, value.reshape(shape), converter.weight(node.input(1)))
    else:
        reshape(converter, node.input(1), laid, b, shape)
    return laid


def _eltwise(converter: Converter, operation: str, inputs: list[str], y: str, coeff: list[float] | None = None) -> None:
    converter.layer("Eltwise", inputs, [y], eltwise_param={"operation": operation, "coeff": coeff or []})


# ---- one of the two is constant ---------------------------------------------------------------------------


def _with_constant(converter: Converter, op: str, a: str, b: str, y: str) -> bool:
    """Say an operation with a constant by Caffe's Power, Scale or Bias; False where they cannot."""
    left, right = converter.constant(a), converter.constant(b)
    if (left is None) == (right is None):
        return False
    x, value = (a, right) if right is not None else (b, left)
    assert value is not None
    shape = converter.shape(x)
    if value.ndim > len(shape):
        return False
    if value.size == 1:
        return _with_number(converter, op, x, float(value.reshape(())), right is None, y)
    turned = -value if op == "Sub" and right is not None else value
    if op not in ("Add", "Mul", "Sub") or (op == "Sub" and right is None):
        return False
    covered = _covered(shape, value.shape)
    if covered is None:
        return False
    axis, axes = covered
    param: dict[str, Any] = {"axis": axis, "num_axes": axes}
    blob = turned.reshape(shape[axis:axis + axes])
    if op == "Mul":
        converter.layer("Scale", [x], [y], blobs=[blob], scale_param=param)
    else:
        converter.layer("Bias", [x], [y], blobs=[blob], bias_param=param)
    return True


def _with_number(converter: Converter, op: str, x: str, number: float, first: bool, y: str) -> bool:
    """An operation with one number, which stands first or last, as (shift + scale * x) ^ power."""
    if op == "Div" and first:
        if number != 1:
            return False
        function(converter, "RECIPROCAL", x, y)
        return True
    if op == "Div":
        op, number = "Mul", 1 / number if number else math.nan
    settings: dict[tuple[str, bool], dict[str, float]] = {
        ("Add", True): {"shift": number}, ("Add", False): {"shift": number}, ("Sub", False): {"shift": -number},
        ("Sub", True): {"scale": -1, "shift": number}, ("Mul", True): {"scale": number},
        ("Mul", False): {"scale": number}, ("Pow", False): {"power": number}}
    setting = settings.get((op, first))
    # Power with a scale or power of 0 does not look at x; and its numbers are float32.
    if setting is None or not math.isfinite(number) or (number == 0 and op in ("Mul", "Pow")):
        return False
    if converter.dtype(x) == np.float64 and any(float(np.float32(n)) != n for n in setting.values()):
        return False
    converter.layer("Power", [x], [y], power_param=setting)
    return True


def _covered(shape: Shape, operand: Shape) -> tuple[int, int] | None:
    """First axis and number of axes of `shape` that an operand covers, where those are neighbours of its sizes."""
    aligned = (1,) * (len(shape) - len(operand)) + operand
    axes = [axis for axis, size in enumerate(aligned) if size != 1]
    if not axes:
        return None
    first, last = axes[0], axes[-1] + 1
    if aligned[first:last] != shape[first:last]:
        return None
    return first, last - first


# ---- any number of values ---------------------------------------------------------------------------------


@handler(*_VARIADIC)
def _variadic(converter: Converter, node: Node) -> None:
    binary, eltwise = _VARIADIC[node.op]
    inputs, y = node.inputs, node.output(0)
    if len(inputs) == 1:
        converter.alias(y, inputs[0])
        return
    count = len(inputs)
    exact = node.op != "Mean" or converter.dtype(inputs[0]) != np.float64 or count & (count - 1) == 0
    if eltwise and exact and len({converter.shape(name) for name in inputs}) == 1:
        _eltwise(converter, eltwise, inputs, y, [1 / count] * count if node.op == "Mean" else [])
        return
    total = inputs[0]
    for index, name in enumerate(inputs[1:], start=2):
        last = index == count and node.op != "Mean"
        result = y if last else converter.fresh(f"{y}_{index}")
        converter.layer("Binary", [total, name], [result], binary_param={"operation": binary})
        total = result
    if node.op == "Mean" and exact:
        converter.layer("Power", [total], [y], power_param={"scale": 1 / count})
    elif node.op == "Mean":
        # The scale of a Power layer is float32.
        divisor = converter.fresh(f"{y}_count")
        converter.set_constant(divisor, np.array(count, np.float64))
        converter.layer("Binary", [total, divisor], [y], binary_param={"operation": "DIV"})

