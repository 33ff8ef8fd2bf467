"""Reductions of axes, and where the largest element is."""

from __future__ import annotations

from typing import Any

import numpy as np

from .converter import Converter, handler
from .layout import reshape
from .node import Node
from .ops_activation import function
from .ops_shape import BEFORE_ALL, cut

_REDUCTIONS = {"ReduceSum": "SUM", "ReduceMean": "MEAN", "ReduceMax": "MAX", "ReduceMin": "MIN", "ReduceProd": "PROD",
               "ReduceL1": "L1", "ReduceL2": "L2", "ReduceSumSquare": "SUMSQ", "ReduceLogSum": "LOGSUM",
               "ReduceLogSumExp": "LOGSUMEXP"}

# Those that Caffe's own Reduction says.
_CAFFE = {"ReduceSum": "SUM", "ReduceMean": "MEAN", "ReduceL1": "ASUM", "ReduceSumSquare": "SUMSQ"}


@handler(*_REDUCTIONS)
def _reduce(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    axes = converter.need(node, 1, "the axes").reshape(-1).tolist() if node.input(1) else node.attr("axes") or []
    if not axes and node.attr("noop_with_empty_axes", 0):
        converter.alias(y, x)
        return
    keep = bool(node.attr("keepdims", 1))
    axes = sorted({axis % len(shape) for axis in axes}) if axes else list(range(len(shape)))
    converter.set_shape(y, [1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes],
                        converter.dtype(x))
    if node.op in ("ReduceMax", "ReduceMin") and 0 in [shape[axis] for axis in axes]:
        # Of no elements the largest is the smallest that there is, and the other way round.
        least, most = _limits(converter.dtype(x))
        value = least if node.op == "ReduceMax" else most
        converter.set_constant(y, np.full(converter.shape(y), value, converter.dtype(x)))
        return
    if not axes and node.op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
        converter.alias(y, x)
    elif axes and not keep and node.op in _CAFFE and axes == list(range(axes[0], len(shape))):
        converter.layer("Reduction", [x], [y], reduction_param={"operation": _CAFFE[node.op], "axis": axes[0]})
    else:
        converter.layer("Reduce", [x], [y], reduce_param={
            "operation": _REDUCTIONS[node.op], "axis": axes, "keepdims": keep})


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The smallest and the largest number of a type."""
    if dtype.kind == "b":
        return False, True
    return (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-np.inf, np.inf)


@handler("ArgMax", "ArgMin")
def _arg_max(converter: Converter, node: Node) -> None:
    """Caffe's ArgMax takes the last of equal elements, and so the first where the axis is turned."""
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    axis = node.attr("axis", 0) % len(shape)
    if node.op == "ArgMin":
        turned = converter.fresh(f"{y}_neg")
        function(converter, "NEG", x, turned)
        x = turned
    last, keep = bool(node.attr("select_last_index", 0)), bool(node.attr("keepdims", 1))
    kept = (*shape[:axis], 1, *shape[axis + 1:])
    index = y if keep else converter.fresh(f"{y}_kept")
    if last:
        converter.layer("ArgMax", [x], [index], argmax_param={"axis": axis})
    else:
        reverse, from_end = converter.fresh(f"{y}_reversed"), converter.fresh(f"{y}_from_end")
        cut(converter, x, reverse, axis, -1, BEFORE_ALL, -1)
        converter.layer("ArgMax", [reverse], [from_end], argmax_param={"axis": axis})
        converter.layer("Power", [from_end], [index], power_param={"scale": -1, "shift": shape[axis] - 1})
    converter.set_shape(index, kept, "int64")
    if not keep:
        reshape(converter, index, y, kept, (*shape[:axis], *shape[axis + 1:]))
