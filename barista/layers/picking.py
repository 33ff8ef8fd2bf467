"""Layers that pick: BatchReindex, Filter and Embed take rows by their numbers, ArgMax gives numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import HOST, Blob
from ..errors import NetError
from ..ops.base import AxisGeometry, Gather
from .base import Bottoms, Count, Layer, Tops, exactly, register


class _Picking(Layer):
    """A layer that takes rows of something by numbers that the last bottom gives, and that have no gradient."""

    def allow_force_backward(self, index: int) -> bool:
        return index != len(self.param.bottom) - 1

    def refuse_gradient(self, propagate_down: Sequence[bool]) -> None:
        """Raise if the gradient of the last bottom is asked for."""
        if propagate_down[-1]:
            raise self.error(f"has no gradient with respect to {self.param.bottom[-1]}, which says what to pick; set "
                             "propagate_down: false for it", NetError)

    def refuse_in_place(self, bottom: Bottoms, top: Tops) -> None:
        """Raise if a top is a bottom: rows would be overwritten before they are picked."""
        if any(blob is other for blob in top for other in bottom):
            raise self.error("cannot work in place; give every top a name of its own", NetError)

    def rows_of(self, blob: Blob, count: int) -> Gather:
        """What picks at most `count` rows along the first axis of a blob."""
        around = AxisGeometry.of(blob.shape, 0)
        return self.ops.gather(around.axis, around.inner, count)


@register("BatchReindex")
class BatchReindex(_Picking):
    """The rows of the first bottom that the second names, in its order; a row may be named several times."""

    bottoms = exactly(2)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        x, indices = bottom
        self.refuse_in_place(bottom, top)
        if len(indices.shape) != 1:
            raise self.error(f"needs a second bottom of one axis, the numbers of rows; {self.param.bottom[1]} has "
                             f"shape {indices.shape}")
        if not x.shape:
            raise self.error("needs a first bottom with a batch axis, got a scalar")
        top[0].reshape(indices.count, *x.shape[1:])
        self._rows = self.rows_of(x, indices.count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._rows.gather(bottom[0].value, bottom[1].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return True, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self.refuse_gradient(propagate_down)
        if propagate_down[0]:
            bottom[0].grad.clear()  # what it had is overwritten
            self._rows.scatter(top[0].grad, bottom[1].value, bottom[0].grad)


@register("Filter")
class Filter(_Picking):
    """The items of each bottom where the last bottom, the selector (N) or (N, 1, ...), is not 0; the rest is left out.

    Caffe: how many there are is known only when the selector has been computed, so that each forward pass sets the
    tops' first axis, to 0 where nothing passes; when the net is made, everything is taken to pass.
    """

    bottoms = Count(2)
    tops = Count(1)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        if len(top) != len(bottom) - 1:
            raise self.error(f"takes a top for each bottom but the last, which selects: got {len(bottom)} bottom(s) "
                             f"and {len(top)} top(s)", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        *data, selector = bottom
        self.refuse_in_place(bottom, top)
        if not selector.shape or selector.count != selector.shape[0]:
            raise self.error(f"needs a selector of one number an item, shape (N) or (N, 1, ...); "
                             f"{self.param.bottom[-1]} has shape {selector.shape}")
        for name, blob in zip(self.param.bottom, data, strict=False):
            if blob.shape[:1] != selector.shape[:1]:
                raise self.error(f"the selector {self.param.bottom[-1]} has {selector.count} items; bottom {name} has "
                                 f"shape {blob.shape}")
        self._indices = self.scratch("indices", (selector.count,))
        self._rows = [self.rows_of(blob, selector.count) for blob in data]
        for blob, result in zip(data, top, strict=True):
            result.reshape(*blob.shape)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        *data, selector = bottom
        passing = [index for index, value in enumerate(selector.value.read(HOST).flat) if value]
        self._indices.reshape((len(passing),))
        self._indices.write(HOST)[...] = passing
        for rows, blob, result in zip(self._rows, data, top, strict=True):
            result.reshape(len(passing), *blob.shape[1:])
            rows.gather(blob.value, self._indices, result.value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self.refuse_gradient(propagate_down)
        for rows, wanted, blob, result in zip(self._rows, propagate_down, bottom, top, strict=False):
            if wanted:
                blob.grad.clear()  # what it had is overwritten
                rows.scatter(result.grad, self._indices, blob.grad)


@register("Embed")
class Embed(_Picking):
    """y(..., num_output) = the row of the weights (input_dim, num_output) that each index of the bottom names (+ bias).

    It is an InnerProduct of one-hot vectors that are never made.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.embed_param
        if param.num_output < 1:
            raise self.error("num_output is missing; give 1 or more", NetError)
        if param.input_dim < 1:
            raise self.error("input_dim is missing; give how many rows there are, one more than the largest index",
                             NetError)
        self.weight = self.add_param((param.input_dim, param.num_output), param.weight_filler)
        self.bias = self.add_param((param.num_output,), param.bias_filler) if param.bias_term else None

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        count, outputs = bottom[0].count, self.param.embed_param.num_output
        self.refuse_in_place(bottom, top)
        top[0].reshape(*bottom[0].shape, outputs)
        self._rows = self.rows_of(self.weight, count)
        self._broadcast = self.ops.broadcast(AxisGeometry(count, outputs, 1)) if self.bias is not None else None

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._rows.gather(self.weight.value, bottom[0].value, top[0].value)
        if self._broadcast is not None and self.bias is not None:
            self._broadcast.add(top[0].value, self.bias.value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return self.param_propagate_down[0], False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self.refuse_gradient(propagate_down)
        if self.param_propagate_down[0]:
            self._rows.scatter(top[0].grad, bottom[0].value, self.weight.grad)
        if self._broadcast is not None and self.bias is not None and self.param_propagate_down[1]:
            self._broadcast.sum(top[0].grad, self.bias.grad)


@register("ArgMax")
class ArgMax(Layer):
    """Where the `top_k` largest elements are: along `axis`, or without it in each item, all its axes as one.

    Caffe: along an axis out_max_val gives the values alone, (..., top_k, ...); without one it gives indices and values,
    (N, 2, top_k), and else (N, 1, top_k). Of equal elements the last comes first. There is no gradient.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param, shape = self.param.argmax_param, bottom[0].shape
        if not shape:
            raise self.error("needs a bottom with at least one axis, got a scalar")
        along = self.axis(bottom[0], param.axis) if param.HasField("axis") else None
        geometry = (AxisGeometry.of(shape, along) if along is not None
                    else AxisGeometry(shape[0], AxisGeometry.of(shape, 0).inner, 1))
        if not 1 <= param.top_k <= geometry.axis:
            where = "an item" if along is None else f"axis {along}"
            raise self.error(f"top_k={param.top_k} must be 1 to {geometry.axis}, the size of {where} of the bottom "
                             f"{shape}", NetError)
        self._values_alone = along is not None and param.out_max_val
        self._join = None
        if along is not None:
            top[0].reshape(*shape[:along], param.top_k, *shape[along + 1:])
        else:
            top[0].reshape(shape[0], 2 if param.out_max_val else 1, param.top_k, *[1] * (len(shape) - 3))
            if param.out_max_val:
                self._join = self.ops.join(shape[0], [param.top_k] * 2, 1)
                self._parts = [self.scratch(name, (shape[0], param.top_k)) for name in ("indices", "values")]
        self._arg_max = self.ops.arg_max(geometry, param.top_k)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        x, y = bottom[0].value, top[0].value
        if self._join is not None:
            self._arg_max.forward(x, *self._parts)
            self._join.join(self._parts, y)
        elif self._values_alone:
            self._arg_max.forward(x, None, y)
        else:
            self._arg_max.forward(x, y, None)
