"""Axes folded into a number each (Reduce), and what normalises along one in logarithms (LogSoftmax)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..blob import Tensor
from ..errors import NetError
from ..ops.base import AxisGeometry, Shape, StridedGeometry
from ..proto.caffe_pb2 import ReduceParameter as R
from .base import Bottoms, Layer, Tops, register
from .rearrange import expansion


class _Axes:
    """Sums, folds and repetitions along some axes of one shape, for a layer.

    Parameters
    ----------
    layer : whose op set and memory it uses
    shape, axes : what is folded; no size is 0
    """

    def __init__(self, layer: Layer, shape: Shape, axes: Sequence[int]) -> None:
        self._layer, self._ops = layer, layer.ops
        self.count = math.prod(shape)
        self.rows = math.prod(size for axis, size in enumerate(shape) if axis not in axes)
        self.length = self.count // self.rows
        self._shape = shape
        # Axes of size 1 can stand on either side.
        self._folded = [axis for axis in axes if shape[axis] > 1]
        self._kept = [axis for axis in range(len(shape)) if shape[axis] > 1 and axis not in axes]
        ones = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        self._repeat = self._ops.rearrange(expansion(ones, shape))
        # Where the folded axes are the last ones, a sum of rows is faster, and more exact, than one of copies.
        last = not self._folded or not self._kept or self._folded[0] > self._kept[-1]
        self._sum = self._ops.broadcast(AxisGeometry(1, self.rows, self.length)) if last else None

    def sum(self, x: Tensor, total: Tensor) -> None:
        """total = the sums of x; `total` is the layer's own memory."""
        if self._sum is None:
            self._repeat.backward(x, total)
        else:
            total.clear()
            self._sum.sum(x, total)

    def repeat(self, rows: Tensor, x: Tensor) -> None:
        """x = each row's number at all places of its row."""
        self._repeat.forward(rows, x)

    def prepare_fold(self, operation: str) -> None:
        """Get ready to `fold` by MAX, MIN or PROD."""
        shape, folded, kept = self._shape, self._folded, self._kept
        self._moved = None
        if not folded or not any(folded[0] < axis < folded[-1] for axis in kept):
            first = folded[0] if folded else 0
            axes = folded[-1] - first + 1 if folded else 0
            self._fold = self._ops.fold(AxisGeometry.of(shape, first, axes), operation)
            return
        strides = StridedGeometry.strides_of(shape)
        order = [*kept, *folded]
        geometry = StridedGeometry(tuple(shape[axis] for axis in order), tuple(strides[axis] for axis in order), 0,
                                   self.count)
        self._move = self._ops.rearrange(geometry)
        self._moved = self._layer.scratch("moved", (self.count,))
        self._fold = self._ops.fold(AxisGeometry(self.rows, self.length, 1), operation)

    def fold(self, x: Tensor, rows: Tensor) -> None:
        """rows = the folds of x."""
        if self._moved is not None:
            self._move.forward(x, self._moved)
        self._fold.forward(x if self._moved is None else self._moved, rows)


# What an operation sums where it is not x, what it makes of the sums, what each row's gradient is, and what that is
# multiplied by.
_TERMS = {R.L1: "t = abs(x)", R.L2: "t = x * x", R.SUMSQ: "t = x * x", R.LOGSUMEXP: "t = exp(x - t)",
          R.PROD: "t = where(x == 0, 1, 0)", R.MAX: "t = where(x == t, 1, 0)", R.MIN: "t = where(x == t, 1, 0)"}
# The largest is taken off before LOGSUMEXP, so that nothing overflows; an infinite one cannot be.
_SHIFTS = {R.LOGSUMEXP: "m = where(abs(y) < limit, y, 0)"}
_OTHERS = {R.PROD: "t = where(x == 0, 1, x)"}
_RESULTS = {R.MEAN: "y = s / n", R.L2: "y = sqrt(s)", R.LOGSUM: "y = log(s)", R.LOGSUMEXP: "y = log(s) + m"}
_ROWS = {R.MEAN: "g = dy / n", R.L2: "g = where(y == 0, 0, dy / where(y == 0, 1, y))", R.SUMSQ: "g = 2 * dy",
         R.LOGSUM: "g = dy * exp(-y)", R.MAX: "g = dy / s", R.MIN: "g = dy / s", R.PROD: "g = dy * m"}
_SLOPES = {R.L1: "dx = dx * sign(x)", R.L2: "dx = dx * x", R.SUMSQ: "dx = dx * x", R.LOGSUMEXP: "dx = dx * exp(x - t)",
           R.MAX: "dx = dx * t", R.MIN: "dx = dx * t",
           R.PROD: "dx = where(x == 0, where(t == 1, dx, 0), where(t == 0, dx / where(x == 0, 1, x), 0))"}
_FOLDS = {R.MAX: "MAX", R.MIN: "MIN", R.PROD: "PROD", R.LOGSUMEXP: "MAX"}
_OF_NOTHING = {R.MEAN: math.nan, R.MAX: -math.inf, R.MIN: math.inf, R.PROD: 1.0, R.LOGSUM: -math.inf,
               R.LOGSUMEXP: -math.inf}
_NEED_X = frozenset(_SLOPES)
_NEED_Y = frozenset((R.L2, R.LOGSUM, R.LOGSUMEXP, R.MAX, R.MIN))


@register("Reduce")
class Reduce(Layer):
    """Some axes, or all, folded into a number each: sums, means, extremes, products, norms and logarithms of sums.

    With `keepdims` an axis of size 1 stays for each.  Equal extremes share the gradient.  The sum of nothing is 0, the
    product 1, the mean NaN, the maximum, and the logarithm of a sum, -infinity.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        param, shape = self.param.reduce_param, bottom[0].shape
        axes = sorted({self.axis(bottom[0], axis) for axis in param.axis}) or list(range(len(shape)))
        if len(param.axis) > len(axes):
            raise self.error(f"axes {list(param.axis)} name one axis of the bottom {shape} twice", NetError)
        top[0].reshape(*(1 if axis in axes else size for axis, size in enumerate(shape)
                         if param.keepdims or axis not in axes))
        operation = self._operation = param.operation
        self._empty = bottom[0].count == 0
        if self._empty:
            self._fill = self.ops.elementwise("y = number", ("y",), top[0].count)
            return
        self._axes = _Axes(self, shape, axes)
        rows, count = self._axes.rows, self._axes.count
        self._sums, self._rows = self.scratch("sums", (rows,)), self.scratch("rows", (rows,))
        if operation in _FOLDS:
            self._axes.prepare_fold(_FOLDS[operation])
        if operation in _SLOPES:
            self._terms = self.scratch("terms", shape)
        programs = {"terms": _TERMS.get(operation, ""), "shift": _SHIFTS.get(operation, ""),
                    "others": _OTHERS.get(operation, ""), "result": _RESULTS.get(operation, "y = s"),
                    "rows": _ROWS.get(operation, "g = dy"), "slopes": _SLOPES.get(operation, "")}
        self._programs = {name: self.ops.elementwise(source, ("x", "t", "dx", "y", "dy", "s", "m", "g"),
                                                     rows if name in ("shift", "result", "rows") else count)
                          for name, source in programs.items() if source}

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        x, y, operation = bottom[0].value, top[0].value, self._operation
        if self._empty:
            self._fill.run({"y": y}, number=_OF_NOTHING.get(operation, 0.0))
            return
        if operation in _FOLDS:
            self._axes.fold(x, y)
        if operation == R.LOGSUMEXP:
            self._programs["shift"].run({"y": y, "m": self._rows}, limit=math.inf)
            self._axes.repeat(self._rows, self._terms)
        elif operation in _FOLDS:
            return
        terms = x
        if operation in _TERMS:
            terms = self._terms
            self._programs["terms"].run({"x": x, "t": terms})
        self._axes.sum(terms, self._sums)
        self._programs["result"].run({"s": self._sums, "m": self._rows, "y": y}, n=float(self._axes.length))

    def backward_needs(self) -> tuple[bool, bool]:
        operation = self.param.reduce_param.operation
        return operation in _NEED_X, operation in _NEED_Y

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if not propagate_down[0] or self._empty:
            return
        x, dx, y, dy, operation = bottom[0].value, bottom[0].grad, top[0].value, top[0].grad, self._operation
        axes = self._axes
        if operation in (R.MAX, R.MIN):
            axes.repeat(y, self._terms)
            self._programs["terms"].run({"x": x, "t": self._terms})
            axes.sum(self._terms, self._sums)
        elif operation == R.PROD:
            # Beside one zero only that element has a gradient, beside more none has: the products are of the others.
            self._programs["others"].run({"x": x, "t": self._terms})
            axes.fold(self._terms, self._rows)
            self._programs["terms"].run({"x": x, "t": self._terms})
            axes.sum(self._terms, self._sums)
        tensors = {"y": y, "dy": dy, "s": self._sums, "m": self._rows, "g": self._rows}
        self._programs["rows"].run(tensors, n=float(axes.length))
        axes.repeat(self._rows, dx)
        if operation == R.PROD:
            axes.repeat(self._sums, self._terms)
        elif operation == R.LOGSUMEXP:
            axes.repeat(y, self._terms)
        if operation in _SLOPES:
            self._programs["slopes"].run({"x": x, "t": self._terms, "dx": dx})


@register("LogSoftmax")
class LogSoftmax(Layer):
    """y = x - log(the sum of exp(x)) along `axis`, where Softmax's logarithm would be that of 0."""

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        axis = self.axis(bottom[0], self.param.softmax_param.axis)
        top[0].reshape(*shape)
        self._empty = bottom[0].count == 0
        if self._empty:
            return
        self._axes = _Axes(self, shape, [axis])
        self._axes.prepare_fold("MAX")
        count, rows = self._axes.count, self._axes.rows
        self._rows, self._terms = self.scratch("rows", (rows,)), self.scratch("terms", shape)
        self._shifted = self.ops.elementwise("t = x - t\ny = t\nt = exp(t)", ("x", "t", "y"), count)
        self._logarithm = self.ops.elementwise("s = log(s)", ("s",), rows)
        self._less = self.ops.elementwise("y = y - t", ("y", "t"), count)
        self._gradient = self.ops.elementwise("dx = dy - exp(y) * t", ("y", "dy", "t", "dx"), count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if self._empty:
            return
        x, y, terms = bottom[0].value, top[0].value, self._terms
        self._axes.fold(x, self._rows)
        self._axes.repeat(self._rows, terms)
        self._shifted.run({"x": x, "y": y, "t": terms})
        self._axes.sum(terms, self._rows)
        self._logarithm.run({"s": self._rows})
        self._axes.repeat(self._rows, terms)
        self._less.run({"y": y, "t": terms})

    def backward_needs(self) -> tuple[bool, bool]:
        return False, True

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0] and not self._empty:
            self._axes.sum(top[0].grad, self._rows)
            self._axes.repeat(self._rows, self._terms)
            self._gradient.run({"y": top[0].value, "dy": top[0].grad, "t": self._terms, "dx": bottom[0].grad})
