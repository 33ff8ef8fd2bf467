"""Pooling: maximum, average, and an element drawn at random, over windows."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import PoolingGeometry
from ..proto.caffe_pb2 import TRAIN, PoolingParameter
from .base import Bottoms, Count, Layer, Tops, register


def pooled_size(size: int, kernel: int, stride: int, pad: int, ceil: bool, padded: bool) -> int:
    """Output size of one axis.

    Caffe: rounds up unless round_mode is FLOOR, so that a kernel may be larger than the padded
    input; and where either axis is `padded` it drops a last window that would start behind the input.
    """
    span = size + 2 * pad - kernel
    pooled = (-(-span // stride) if ceil else span // stride) + 1
    if padded and (pooled - 1) * stride >= size + pad:
        pooled -= 1
    return pooled


@register("Pooling")
class Pooling(Layer):
    """y(N, C, Ho, Wo) from x(N, C, H, W); with MAX a second top takes the index of each maximum.

    STOCHASTIC draws at TRAIN an element of each window in proportion to its value, and takes at TEST their mean with
    these weights.  It is meant for values of 0 and more, such as a ReLU gives.

    Caffe: STOCHASTIC takes no padding; where negative values leave a window without a drawn element, Caffe leaves
    what stood in the top before, and ours takes the first.
    """

    tops = Count(1, 2)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.pooling_param
        self._max = param.pool == PoolingParameter.MAX
        self._draws = param.pool == PoolingParameter.STOCHASTIC
        if len(top) > 1 and not self._max:
            raise self.error("a second top (the mask) exists for pool: MAX alone", NetError)
        if param.global_pooling:
            if any(param.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w")):
                raise self.error("global_pooling takes the whole image: leave the kernel size out", NetError)
            if any(self._pair("pad", 0)) or self._pair("stride", 1) != (1, 1):
                raise self.error(f"global_pooling needs pad 0 and stride 1, got pad {self._pair('pad', 0)} and "
                                 f"stride {self._pair('stride', 1)}", NetError)

    def _pair(self, stem: str, default: int | None) -> tuple[int, int]:
        """(height, width) from `stem` (kernel_size for the kernel) or its _h and _w twins."""
        param = self.param.pooling_param
        square = "kernel_size" if stem == "kernel" else stem
        twins = (f"{stem}_h", f"{stem}_w")
        given = [t for t in twins if param.HasField(t)]
        if given and param.HasField(square):
            raise self.error(f"gives both {square} and {given[0]}; give one of them", NetError)
        if len(given) == 1:
            raise self.error(f"gives {given[0]} alone; give both {twins[0]} and {twins[1]}", NetError)
        if given:
            return getattr(param, twins[0]), getattr(param, twins[1])
        if default is None and not param.HasField(square):
            raise self.error("kernel_size is missing (or set global_pooling: true)", NetError)
        return (getattr(param, square),) * 2

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.pooling_param
        shape = bottom[0].shape
        if len(shape) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), got shape {shape}")
        sizes = (shape[2], shape[3])
        kernel = sizes if param.global_pooling else self._pair("kernel", None)
        stride, pad = self._pair("stride", 1), self._pair("pad", 0)
        for name, k, s, p in zip(("h", "w"), kernel, stride, pad, strict=True):
            if k < 1 or s < 1:
                raise self.error(f"kernel_{name}={k} and stride_{name}={s} must be 1 or more", NetError)
            if p and self._draws:
                raise self.error(f"pool: STOCHASTIC takes no padding, got pad_{name}={p}; set it to 0, or put the "
                                 "padding into the layer below", NetError)
            if p >= k:
                raise self.error(f"pad_{name}={p} must be less than kernel_{name}={k}: "
                                 "a window could lie wholly in the padding")
        ceil = param.round_mode == PoolingParameter.CEIL
        output = tuple(pooled_size(*axis, ceil, any(pad)) for axis in zip(sizes, kernel, stride, pad, strict=True))
        for name, size, k, s, p, o in zip(("h", "w"), sizes, kernel, stride, pad, output, strict=True):
            if o < 1:
                raise self.error(f"kernel_{name}={k} exceeds the padded size {size + 2 * p} ({size} + 2*{p}); "
                                 f"lower kernel_{name} or raise pad_{name}")
            if (o - 1) * s - p >= size:
                # Caffe writes out of bounds here.
                raise self.error(f"the last window on axis {name} starts at {(o - 1) * s - p}, outside the input of "
                                 f"{size}: stride_{name}={s} is larger than kernel_{name}={k}; lower the stride or "
                                 "set round_mode: FLOOR")
        for blob in top:
            blob.reshape(shape[0], shape[1], *output)
        geometry = PoolingGeometry(shape[0], shape[1], sizes, kernel, stride, pad, (output[0], output[1]))
        if self._draws:
            self._stochastic = self.ops.stochastic_pooling(geometry)
        else:
            self._pooling = self.ops.max_pooling(geometry) if self._max else self.ops.average_pooling(geometry)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if not self._draws:
            self._pooling.forward(bottom[0].value, top[0].value, top[1].value if len(top) > 1 else None)
        elif self.phase == TRAIN:
            self._stochastic.forward_train(bottom[0].value, top[0].value, self.rng)
        else:
            self._stochastic.forward_test(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return self._draws and self.phase != TRAIN, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if not propagate_down[0]:
            return
        if not self._draws:
            self._pooling.backward(top[0].grad, bottom[0].grad)
        elif self.phase == TRAIN:
            self._stochastic.backward_train(top[0].grad, bottom[0].grad)
        else:
            self._stochastic.backward_test(bottom[0].value, top[0].grad, bottom[0].grad)
