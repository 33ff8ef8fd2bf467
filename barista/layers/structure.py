"""Layers that only rearrange: Concat, Slice, Split, Flatten, Reshape and Silence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import AxisGeometry
from .base import Bottoms, Count, Layer, Tops, ZeroGradientLayer, exactly, register


@register("Concat")
class Concat(Layer):
    """The bottoms side by side along one axis."""

    bottoms = Count(1)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.concat_param
        if param.HasField("concat_dim") and param.HasField("axis"):
            raise self.error("gives both axis and the old concat_dim; give axis alone", NetError)
        axis = self.axis(bottom[0], param.concat_dim if param.HasField("concat_dim") else param.axis)
        first = bottom[0].shape
        for index, blob in enumerate(bottom):
            if len(blob.shape) != len(first) or any(
                    a != b for i, (a, b) in enumerate(zip(first, blob.shape, strict=True)) if i != axis):
                raise self.error(f"bottoms must agree on all axes but {axis}: bottom 0 has shape {first}, "
                                 f"bottom {index} ({self.param.bottom[index]}) has {blob.shape}")
        sizes = [blob.shape[axis] for blob in bottom]
        top[0].reshape(*first[:axis], sum(sizes), *first[axis + 1:])
        around = AxisGeometry.of(first, axis)
        self._join = self.ops.join(around.outer, sizes, around.inner)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._join.join([blob.value for blob in bottom], top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self._join.split(top[0].grad, [blob.grad if wanted else None
                                       for blob, wanted in zip(bottom, propagate_down, strict=True)])


@register("Slice")
class Slice(Layer):
    """One bottom cut along one axis, at slice_point or into equal parts."""

    tops = Count(1)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.slice_param
        if param.HasField("slice_dim") and param.HasField("axis"):
            raise self.error("gives both axis and the old slice_dim; give axis alone", NetError)
        shape = bottom[0].shape
        axis = self.axis(bottom[0], param.slice_dim if param.HasField("slice_dim") else param.axis)
        size = shape[axis]
        if param.slice_point:
            if len(param.slice_point) != len(top) - 1:
                raise self.error(f"{len(top)} tops need {len(top) - 1} slice_point(s), got {len(param.slice_point)}")
            edges = [0, *param.slice_point, size]
            if any(b <= a for a, b in itertools.pairwise(edges)):
                raise self.error(f"slice points {list(param.slice_point)} must rise and lie within the size {size} "
                                 f"of axis {axis}")
            sizes = [b - a for a, b in itertools.pairwise(edges)]
        else:
            if size % len(top):
                raise self.error(f"size {size} of axis {axis} does not divide into {len(top)} equal tops; "
                                 "give slice_point")
            sizes = [size // len(top)] * len(top)
        for blob, part in zip(top, sizes, strict=True):
            blob.reshape(*shape[:axis], part, *shape[axis + 1:])
        around = AxisGeometry.of(shape, axis)
        self._join = self.ops.join(around.outer, sizes, around.inner)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._join.split(bottom[0].value, [blob.value for blob in top])

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._join.join([blob.grad for blob in top], bottom[0].grad)


@register("Split")
class Split(Layer):
    """One bottom under several names; the gradients are summed.  Nets insert it by themselves."""

    tops = Count(1)
    shares_value = True

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        for blob in top:
            if blob is bottom[0]:
                raise self.error("cannot work in place; give every top a name of its own", NetError)
            blob.reshape(*bottom[0].shape)
        self._sum = self.ops.combine("SUM", [1.0] * len(top), bottom[0].count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        for blob in top:
            blob.value.share(bottom[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._sum.forward([blob.grad for blob in top], bottom[0].grad)


class _Reinterpret(Layer):
    """The same elements under another shape: top and bottom lie on one memory."""

    shares_value = True
    shares_grad = True

    def new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the top for a bottom of `shape`."""
        raise NotImplementedError

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        shape = self.new_shape(bottom[0].shape)
        if math.prod(shape) != bottom[0].count:
            raise self.error(f"cannot turn shape {bottom[0].shape} ({bottom[0].count} elements) into {shape} "
                             f"({math.prod(shape)})")
        top[0].reshape(*shape)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        top[0].value.share(bottom[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            bottom[0].grad.share(top[0].grad)


@register("Flatten")
class Flatten(_Reinterpret):
    """Axes from `axis` to `end_axis` folded into one."""

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.flatten_param
        self._start, self._end = self.axis(bottom[0], param.axis), self.axis(bottom[0], param.end_axis)
        if self._end < self._start:
            raise self.error(f"end_axis={param.end_axis} lies before axis={param.axis} in shape {bottom[0].shape}")
        super().reshape(bottom, top)

    def new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        start, end = self._start, self._end + 1
        return (*shape[:start], math.prod(shape[start:end]), *shape[end:])


@register("Reshape")
class Reshape(_Reinterpret):
    """Axes `axis` to `axis + num_axes` replaced by `shape`, where 0 copies a size and -1 is inferred.

    Caffe: top and bottom share their gradients always, not only once backward ran as in Flatten.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        super().reshape(bottom, top)
        top[0].grad.share(bottom[0].grad)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        super().forward(bottom, top)
        top[0].grad.share(bottom[0].grad)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        """The gradient is there already."""

    def new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        param = self.param.reshape_param
        # Caffe: -1 names the place behind the last axis.
        start = param.axis if param.axis >= 0 else len(shape) + param.axis + 1
        if not 0 <= start <= len(shape):
            raise self.error(f"axis={param.axis} lies outside shape {shape}")
        if param.num_axes < -1:
            raise self.error(f"num_axes={param.num_axes}; give -1 for all axes, or 0 or more", NetError)
        end = len(shape) if param.num_axes == -1 else start + param.num_axes
        if end > len(shape):
            raise self.error(f"axis={param.axis} with num_axes={param.num_axes} reaches beyond shape {shape}")
        middle: list[int] = []
        for index, size in enumerate(param.shape.dim):
            if size == 0 and start + index >= len(shape):
                raise self.error(f"shape.dim[{index}]=0 copies axis {start + index}, which shape {shape} lacks")
            middle.append(shape[start + index] if size == 0 else size)
        if middle.count(-1) > 1 or any(size < -1 for size in middle):
            raise self.error(f"shape {list(param.shape.dim)} may hold one -1 and no other negative size", NetError)
        if -1 in middle:
            known = -math.prod(middle) * math.prod(shape[:start]) * math.prod(shape[end:])
            count = math.prod(shape)
            if known == 0 or count % known:
                raise self.error(f"cannot infer -1: {count} elements of shape {shape} do not divide by {known}")
            middle[middle.index(-1)] = count // known
        return (*shape[:start], *middle, *shape[end:])


@register("Silence")
class Silence(ZeroGradientLayer):
    """Uses up bottoms so that they are no outputs of the net; their gradient is 0."""

    bottoms = Count(1)
    tops = exactly(0)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        """Nothing to compute."""
