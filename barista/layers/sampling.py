"""Layers that change the size of images: Interp resamples them, SPP pools them to fixed sizes."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NetError, UnsupportedError
from ..ops.base import AxisGeometry, Pooling, PoolingGeometry, Taps
from ..proto.caffe_pb2 import SPPParameter
from .base import Bottoms, Layer, Tops, register
from .pooling import pooled_size

# Rows and columns of an image that Interp makes: what each is made of is noted one by one.
MOST_OUTPUTS = 100_000


@register("Interp")
class Interp(Layer):
    """y(N, C, Ho, Wo) by bilinear interpolation of x(N, C, H, W), whose corners become y's (DeepLab's layer).

    Caffe: of the fields the first that is given counts: shrink_factor alone, zoom_factor alone, height and width, and
    shrink_factor with zoom_factor, one after the other. pad_beg and pad_end, 0 or less, cut rows and columns off first.
    A bottom of fewer axes has sizes of 1 for those that it lacks.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.interp_param
        if param.pad_beg > 0 or param.pad_end > 0:
            raise self.error(f"pad_beg={param.pad_beg} and pad_end={param.pad_end} must be 0 or less: they cut off, "
                             "and cannot add", NetError)
        if param.shrink_factor < 1 or param.zoom_factor < 1:
            raise self.error(f"shrink_factor={param.shrink_factor} and zoom_factor={param.zoom_factor} must be 1 or "
                             "more", NetError)

    def _has_sizes(self) -> bool:
        return self.param.interp_param.HasField("height") and self.param.interp_param.HasField("width")

    def resized(self, size: int, given: int) -> int:
        """Size of an axis of the top.

        Parameters
        ----------
        size : of the bottom, without what is cut off
        given : what height or width says
        """
        param = self.param.interp_param
        factors = param.HasField("shrink_factor") + param.HasField("zoom_factor")
        if not factors or (factors == 2 and self._has_sizes()):
            return given
        shrunk = (size - 1) // param.shrink_factor + 1
        return (shrunk - 1) * param.zoom_factor + 1

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.interp_param
        if not (self._has_sizes() or param.HasField("shrink_factor") or param.HasField("zoom_factor")):
            raise self.error("does not say how large its top is; give height and width, zoom_factor or shrink_factor",
                             NetError)
        x = bottom[0]
        taps: list[Taps] = []
        for name, size, given in (("height", x.height, param.height), ("width", x.width, param.width)):
            span = size + param.pad_beg + param.pad_end
            if span < 1:
                raise self.error(f"pad_beg={param.pad_beg} and pad_end={param.pad_end} leave nothing of {name} {size}")
            outputs = self.resized(span, given)
            if outputs < 1:
                raise self.error(f"{name}={given}; give 1 or more", NetError)
            if outputs > MOST_OUTPUTS:
                raise self.error(f"asks for a {name} of {outputs}; the limit is {MOST_OUTPUTS}", NetError)
            taps.append(Taps.linear(size, -param.pad_beg, span, outputs))
        rows, columns = taps
        top[0].reshape(x.num, x.channels, rows.outputs, columns.outputs)
        self._interpolation = self.ops.interpolation(x.num * x.channels, rows, columns)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._interpolation.forward(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._interpolation.backward(top[0].grad, bottom[0].grad)


@register("SPP")
class SPP(Layer):
    """Spatial pyramid pooling (He et al. 2014): level i pools x(N, C, H, W) to 2^i by 2^i; y(N, all levels' outputs).

    Caffe: a pyramid of one level is not flattened, y(N, C, 1, 1); images too small for a level are refused, since a
    window could lie wholly in the padding.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.spp_param
        if param.pool == SPPParameter.STOCHASTIC:
            raise UnsupportedError(f"{self.name} (SPP): pool: STOCHASTIC exists in Caffe on the GPU alone and is not "
                                   "in this version; use MAX or AVE")
        if param.pyramid_height < 1:
            raise self.error("pyramid_height is missing; give how many levels there are, 1 or more", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        if len(shape) != 4 or min(shape[2:]) < 1:
            raise self.error(f"needs a bottom (N, C, H, W) with images of at least one pixel, got shape {shape}")
        geometries = [self._level(shape, level) for level in range(self.param.spp_param.pyramid_height)]
        self._pools = [self._pool(geometry) for geometry in geometries]
        if len(geometries) == 1:
            top[0].reshape(*geometries[0].y_shape)
            return
        sizes = [AxisGeometry.of(geometry.y_shape, 0).inner for geometry in geometries]
        top[0].reshape(shape[0], sum(sizes))
        self._join = self.ops.join(shape[0], sizes, 1)
        self._levels = [self.scratch(f"level {level}", geometry.y_shape) for level, geometry in enumerate(geometries)]
        self._part = self.scratch("gradient of a level", shape)
        self._add = self.ops.elementwise("dx = dx + part", ("part", "dx"), bottom[0].count)

    def _level(self, shape: tuple[int, ...], level: int) -> PoolingGeometry:
        """The pooling that gives 2^level windows an axis, side by side."""
        bins = 2**level
        windows = []
        for name, size in zip(("height", "width"), shape[2:], strict=True):
            kernel = -(-size // bins)
            pad = (kernel * bins - size + 1) // 2
            if pad >= kernel:
                raise self.error(f"level {level} of the pyramid cuts {name} {size} into {bins} windows of {kernel}, "
                                 f"some of which lie in the padding of {pad} alone; lower pyramid_height to {level} "
                                 "or give larger images")
            windows.append((size, kernel, pad))
        (height, kernel_h, pad_h), (width, kernel_w, pad_w) = windows
        padded = bool(pad_h or pad_w)
        output = (pooled_size(height, kernel_h, kernel_h, pad_h, True, padded),
                  pooled_size(width, kernel_w, kernel_w, pad_w, True, padded))
        kernel_sizes = (kernel_h, kernel_w)
        return PoolingGeometry(shape[0], shape[1], (height, width), kernel_sizes, kernel_sizes, (pad_h, pad_w), output)

    def _pool(self, geometry: PoolingGeometry) -> Pooling:
        maximum = self.param.spp_param.pool == SPPParameter.MAX
        return self.ops.max_pooling(geometry) if maximum else self.ops.average_pooling(geometry)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if len(self._pools) == 1:
            self._pools[0].forward(bottom[0].value, top[0].value)
            return
        for pool, part in zip(self._pools, self._levels, strict=True):
            pool.forward(bottom[0].value, part)
        self._join.join(self._levels, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if not propagate_down[0]:
            return
        dx = bottom[0].grad
        if len(self._pools) == 1:
            self._pools[0].backward(top[0].grad, dx)
            return
        # The levels' values are not needed any more.
        self._join.split(top[0].grad, self._levels)
        self._pools[0].backward(self._levels[0], dx)
        for pool, gradient in zip(self._pools[1:], self._levels[1:], strict=True):
            pool.backward(gradient, self._part)
            self._add.run({"part": self._part, "dx": dx})
