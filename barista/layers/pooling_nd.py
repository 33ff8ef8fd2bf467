"""PoolingNd: pooling over any number of axes, with all that other formats say about windows."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NetError
from ..ops.base import Pooling, PoolingGeometry, WindowGeometry, WindowPooling
from ..proto.caffe_pb2 import PoolingNdParameter
from .base import Bottoms, Count, Layer, Tops, register


@register("PoolingNd")
class PoolingNd(Layer):
    """Maximum or mean over windows of x(N, C, *I), with strides, dilations and padding of their own at both ends.

    Each setting has one number for all axes of I, or one an axis.  With `ceil_mode` a last window may reach beyond the
    padding, but not begin behind the input.  A mean divides by the elements of its window that lie on the input, with
    `count_include_pad` on the input or its padding.  A second top takes the numbers of the maxima in the whole bottom.
    """

    tops = Count(1, 2)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.pooling_nd_param
        self._maximum = param.pool == PoolingNdParameter.MAX
        if len(top) == 2 and not self._maximum:
            raise self.error("numbers maxima in its second top, and a mean has none; drop the top", NetError)
        if not param.kernel:
            raise self.error("has no kernel; give the size of its windows, one number or one an axis", NetError)
        for name, numbers in (("kernel", param.kernel), ("stride", param.stride), ("dilation", param.dilation)):
            if 0 in numbers:
                raise self.error(f"{name} {list(numbers)} has a 0; give numbers of 1 or more", NetError)

    def _numbers(self, name: str, default: int, axes: int) -> tuple[int, ...]:
        given = tuple(getattr(self.param.pooling_nd_param, name)) or (default,)
        if len(given) not in (1, axes):
            raise self.error(f"{name} has {len(given)} numbers; give one, or one for each of the {axes} axes behind "
                             "the channels", NetError)
        return given * axes if len(given) == 1 else given

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape, axes = bottom[0].shape, len(bottom[0].shape) - 2
        if axes < 1 or min(shape[2:]) < 1:
            raise self.error(f"needs a bottom (N, C, ...) with one axis or more behind the channels, none of size 0, "
                             f"got shape {shape}")
        param = self.param.pooling_nd_param
        kernel, stride, dilation = (self._numbers(name, 1, axes) for name in ("kernel", "stride", "dilation"))
        begin, end = (self._numbers(name, 0, axes) for name in ("pad_begin", "pad_end"))
        output = tuple(self._outputs(axis, *numbers) for axis, numbers in enumerate(
            zip(shape[2:], kernel, stride, dilation, begin, end, strict=True)))
        geometry = WindowGeometry(shape[0] * shape[1], shape[2:], kernel, stride, dilation, begin, end, output,
                                  param.count_include_pad, param.column_major)
        for blob in top:
            blob.reshape(*shape[:2], *output)
        self._pool: WindowPooling | Pooling = self.ops.window_pooling(geometry, self._maximum) \
            if len(top) == 2 else self._like_caffe(geometry) or self.ops.window_pooling(geometry, self._maximum)

    def _like_caffe(self, geometry: WindowGeometry) -> Pooling | None:
        """The pooling that every op set is good at, where it says the same; else None.

        It knows images, windows of neighbours that see some of the input, and one padding for both ends, which it needs
        to know for means alone.
        """
        g = geometry
        if len(g.input) > 2 or max(g.dilation) > 1:
            return None
        if any(begin >= kernel or (outputs - 1) * stride - begin >= size for size, kernel, stride, begin, outputs
               in zip(g.input, g.kernel, g.stride, g.pad_begin, g.output, strict=True)):
            return None
        if not self._maximum and (g.pad_begin != g.pad_end if g.counts_pad else any(g.pad_begin)):
            return None
        ones, zeros = (1,) * (2 - len(g.input)), (0,) * (2 - len(g.input))
        (h, w), (kernel_h, kernel_w), (stride_h, stride_w), (out_h, out_w) = (
            (*ones, *numbers) for numbers in (g.input, g.kernel, g.stride, g.output))
        pad_h, pad_w = (*zeros, *g.pad_begin)
        caffe = PoolingGeometry(1, g.planes, (h, w), (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w),
                                (out_h, out_w))
        return self.ops.max_pooling(caffe) if self._maximum else self.ops.average_pooling(caffe)

    def _outputs(self, axis: int, size: int, kernel: int, stride: int, dilation: int, begin: int, end: int) -> int:
        """How many windows there are along an axis."""
        reach = dilation * (kernel - 1) + 1
        room = size + begin + end - reach
        if room < 0:
            raise self.error(f"a window of {kernel} elements, dilation {dilation}, reaches over {reach}: more than "
                             f"axis {axis + 2} has, {size} with padding {begin} and {end}")
        if not self.param.pooling_nd_param.ceil_mode:
            return room // stride + 1
        outputs = -(-room // stride) + 1
        return outputs - 1 if (outputs - 1) * stride >= size + begin else outputs

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._pool.forward(bottom[0].value, top[0].value, top[1].value if len(top) == 2 else None)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._pool.backward(top[0].grad, bottom[0].grad)
