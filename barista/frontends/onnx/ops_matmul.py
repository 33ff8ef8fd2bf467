"""Gemm and MatMul: inner products where one factor is constant."""

from __future__ import annotations

import numpy as np

from barista.errors import NetError

from .converter import Array, Converter, handler
from .node import Node


@handler("Gemm")
def gemm(converter: Converter, node: Node) -> None:
    """alpha * A' * B' + beta * C: an InnerProduct where B is constant."""
    a, b, c = node.input(0), node.input(1), node.input(2)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if len(converter.shape(a)) != 2 or len(converter.shape(b)) != 2:
        raise NetError(f"{node.label}: needs matrices of 2 axes, got {converter.shape(a)} and {converter.shape(b)}")
    weights = converter.constant(b)
    product = converter.fresh(f"{node.output(0)}_product")
    if weights is None:
        _product(converter, node, product, alpha)
        _add(converter, product, c, beta, node.output(0))
        return
    x = converter.permuted(a, [1, 0]) if node.attr("transA") else a
    weights = weights if node.attr("transB") else weights.T
    _check(node, converter.shape(x if x == a else a)[0 if node.attr("transA") else 1], weights)
    term = converter.constant(c) if c and beta else None
    bias = _row(term, weights.shape[0]) if term is not None else None
    whole = bias is not None or not c or not beta
    _inner_product(converter, x, node.output(0) if whole else product, _scaled(weights, alpha),
                   None if bias is None else _scaled(bias, beta))
    if not whole:
        _add(converter, product, c, beta, node.output(0))


def _check(node: Node, inputs: int, weights: Array) -> None:
    if weights.shape[1] != inputs:
        raise NetError(f"{node.label}: the input has {inputs} columns and the weights take {weights.shape[1]}")


def _scaled(array: Array, factor: float) -> Array:
    return array if factor == 1 else (array * np.asarray(factor, array.dtype))


def _row(term: Array, outputs: int) -> Array | None:
    """A term that is added to all rows alike, as biases; None where rows differ."""
    if term.size not in (1, outputs) or (term.ndim and term.shape[-1] != term.size):
        return None
    return np.broadcast_to(term.reshape(-1), (outputs,))


def _inner_product(converter: Converter, x: str, y: str, weights: Array, bias: Array | None, axis: int = 1) -> None:
    param = {"num_output": weights.shape[0], **({"axis": axis} if axis != 1 else {}),
             **({"bias_term": False} if bias is None else {})}
    converter.layer("InnerProduct", [x], [y], blobs=[weights] if bias is None else [weights, bias],
                    inner_product_param=param)


def _product(converter: Converter, node: Node, y: str, alpha: float) -> None:
    """alpha * A' * B' of two values that are computed."""
    turned = {name: True for name, attribute in (("transpose_a", "transA"), ("transpose_b", "transB"))
              if node.attr(attribute)}
    whole = y if alpha == 1 else converter.fresh(f"{y}_unscaled")
    converter.layer("MatMul", [node.input(0), node.input(1)], [whole], matmul_param=turned)
    if alpha != 1:
        converter.layer("Power", [whole], [y], power_param={"scale": alpha})


def _add(converter: Converter, product: str, c: str, beta: float, y: str) -> None:
    """product + beta * C, or the product alone."""
    if not c or not beta:
        converter.alias(y, product)
        return
    if beta != 1:
        scaled = converter.fresh(f"{c}_scaled")
        converter.layer("Power", [c], [scaled], power_param={"scale": beta})
        c = scaled
    else:
        converter.value(c, trainable=converter.weight(c))
    converter.layer("Binary", [product, c], [y], binary_param={"operation": "ADD"})


@handler("MatMul")
def matmul(converter: Converter, node: Node) -> None:
    """An InnerProduct over the last axis where the second factor is a constant matrix, or else a MatMul."""
    a, b = node.input(0), node.input(1)
    weights = converter.constant(b)
    shape = converter.shape(a)
    if weights is not None and weights.ndim == 2 and len(shape) > 1 and weights.shape[1] > 0:
        weights = weights.T
        _check(node, shape[-1], weights)
        _inner_product(converter, a, node.output(0), weights, None, axis=len(shape) - 1)
        return
    for name in (a, b):
        converter.value(name, trainable=converter.weight(name))
    converter.layer("MatMul", [a, b], [node.output(0)])
