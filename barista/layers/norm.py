"""Normalisation: LRN, BatchNorm, MVN and Normalize."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import HOST
from ..errors import NetError
from ..ops.base import AxisGeometry
from ..proto.caffe_pb2 import TEST, FillerParameter, LRNParameter
from .base import Bottoms, Layer, Tops, register


@register("LRN")
class LRN(Layer):
    """Local response normalisation across channels or within each (Krizhevsky et al. 2012).

    Caffe: across channels alpha is divided by local_size; within a channel by its square, also where the window is
    clipped at the border, and k is always 1.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.lrn_param
        if param.local_size % 2 == 0:
            raise self.error(f"local_size={param.local_size} must be odd", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.lrn_param
        shape = bottom[0].shape
        if len(shape) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), got shape {shape}")
        top[0].reshape(*shape)
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            self._lrn = self.ops.lrn_across(shape, param.local_size, param.alpha, param.beta, param.k)
        else:
            self._lrn = self.ops.lrn_within(shape, param.local_size, param.alpha, param.beta)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._lrn.forward(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return True, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._lrn.backward(bottom[0].value, top[0].grad, bottom[0].grad)


@register("BatchNorm")
class BatchNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) for each channel (Ioffe and Szegedy 2015).

    Parameters of the layer are running sums: of the mean, of the (unbiased) variance, and
    the factor by which both are to be divided.

    Caffe: the sums decay by moving_average_fraction and are never divided in place; the
    learning rates of all three must be 0; scale and shift are a Scale layer's.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.batch_norm_param
        self._global = param.use_global_stats if param.HasField("use_global_stats") else self.phase == TEST
        self._fraction = param.moving_average_fraction
        self._channels = 1 if len(bottom[0].shape) == 1 else bottom[0].shape[1]
        for size in (self._channels, self._channels, 1):
            self.add_param((size,))
        for index in range(3):
            if index == len(self.param.param):
                self.param.param.add(lr_mult=0)
            elif self.param.param[index].lr_mult != 0:
                raise self.error(f"param {index} has lr_mult {self.param.param[index].lr_mult}; running statistics are "
                                 "not learnt: set lr_mult: 0", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        if len(shape) > 1 and shape[1] != self._channels:
            raise self.error(f"has statistics of {self._channels} channels; the bottom {shape} has {shape[1]}")
        top[0].reshape(*shape)
        geometry = AxisGeometry(1, 1, shape[0]) if len(shape) == 1 else AxisGeometry.of(shape, 1)
        self._in_place = bottom[0] is top[0]
        self._norm = self.ops.batch_norm(geometry, self.param.batch_norm_param.eps,
                                         self._in_place and not self._global)
        self._mean = self.scratch("mean", (self._channels,))
        self._variance = self.scratch("variance", (self._channels,))
        elements = geometry.outer * geometry.inner
        # Caffe: what is stored is the unbiased variance; what normalises the batch is the biased one.
        self._unbias = elements / (elements - 1) if elements > 1 else 1.0
        self._accumulate = self.ops.elementwise("sum_m = m + fraction * sum_m\nsum_v = unbias * v + fraction * sum_v",
                                                ("sum_m", "sum_v", "m", "v"), self._channels)
        self._divide = self.ops.elementwise("m = factor * sum_m\nv = factor * sum_v", ("sum_m", "sum_v", "m", "v"),
                                            self._channels)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        x, y = bottom[0].value, top[0].value
        statistics = {"sum_m": self.blobs[0].value, "sum_v": self.blobs[1].value, "m": self._mean, "v": self._variance}
        if self._global:
            total = float(self.blobs[2].value.read(HOST)[0])
            self._divide.run(statistics, factor=1 / total if total else 0.0)
            self._norm.forward_test(x, self._mean, self._variance, y)
            return
        self._norm.forward_train(x, self._mean, self._variance, y)
        self._accumulate.run(statistics, fraction=self._fraction, unbias=self._unbias)
        # One number that is read on the host: there it stays.
        count = self.blobs[2].value.update(HOST)
        count[...] = self._fraction * count + 1

    def backward_needs(self) -> tuple[bool, bool]:
        # In place the primitive keeps what it overwrites.
        return not self._global and not self._in_place, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        # Caffe: does not look at propagate_down.
        backward = self._norm.backward_test if self._global else self._norm.backward_train
        backward(top[0].grad, bottom[0].grad)


@register("MVN")
class MVN(Layer):
    """y = (x - mean) / (standard deviation + eps), of each channel of each image, or of each image.

    Caffe: eps is added to the standard deviation and its gradient is left out; the top has four axes always.
    """

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.mvn_param
        if len(bottom[0].shape) > 4:
            raise self.error(f"needs a bottom of up to 4 axes (N, C, H, W), got shape {bottom[0].shape}")
        shape = (*bottom[0].shape, 1, 1, 1, 1)[:4]
        top[0].reshape(*shape)
        rows = shape[0] if param.across_channels else shape[0] * shape[1]
        length = bottom[0].count // max(rows, 1)
        self._share, self._eps = 1 / max(length, 1), param.eps
        self._whitens = param.normalize_variance
        self._rows = self.ops.broadcast(AxisGeometry(1, rows, length))
        self._scaled = self.ops.elementwise("v = factor * v", ("v",), rows)
        self._add = self.ops.elementwise("dx = dx + dy", ("dy", "dx"), bottom[0].count)
        self._invert = self.ops.elementwise("v = 1 / (sqrt(share * v) + eps)", ("v",), rows)
        self._shift, self._factor = self.scratch("shift", (rows,)), self.scratch("factor", (rows,))
        if self._whitens:
            self._inverse = self.scratch("inverse", (rows,))
        # In place dx lies on dy, which is read again after dx was begun.
        self._work = self.scratch("work", shape) if bottom[0] is top[0] and self._whitens else None

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        x, y = bottom[0].value, top[0].value
        self._shift.clear()
        self._rows.sum(x, self._shift)
        self._scaled.run({"v": self._shift}, factor=-self._share)
        self._rows.add(x, self._shift, y)
        if self._whitens:
            self._inverse.clear()
            self._rows.gradients(y, y, self._shift, None, self._inverse, None)  # the sums of squares
            self._invert.run({"v": self._inverse}, share=self._share, eps=self._eps)
            self._rows.multiply(y, self._inverse, y)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, self._whitens

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if not propagate_down[0]:
            return
        y, dy, dx = top[0].value, top[0].grad, bottom[0].grad
        self._shift.clear()
        if not self._whitens:
            self._rows.sum(dy, self._shift)
            self._scaled.run({"v": self._shift}, factor=-self._share)
            self._rows.add(dy, self._shift, dx)
            return
        # dx = inverse * (dy - mean of dy - y * mean of dy * y)
        self._factor.clear()
        self._rows.gradients(dy, y, self._inverse, None, self._factor, self._shift)
        self._scaled.run({"v": self._shift}, factor=-self._share)
        self._scaled.run({"v": self._factor}, factor=-self._share)
        work = self._work if self._work is not None else dx
        self._rows.multiply(y, self._factor, work, self._shift)
        self._add.run({"dy": dy, "dx": work})
        self._rows.multiply(work, self._inverse, dx)


@register("Normalize")
class Normalize(Layer):
    """y = scale * x / sqrt(sum of x^2 + eps), the sum over each image or over the channels of each of its pixels.

    A type of Caffe's forks (Liu et al. 2016, SSD).  The parameter is the scale, one a channel or one for all, 1
    where no scale_filler stands.  The gradient is that of what is computed; SSD's own code leaves the scales out of
    the sum over the channels, which is the same where they are equal.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.norm_param
        if len(bottom[0].shape) < 2:
            raise self.error(f"needs a bottom (N, C, ...) of at least 2 axes, got shape {bottom[0].shape}")
        filler = param.scale_filler if param.HasField("scale_filler") else FillerParameter(type="constant", value=1)
        self.add_param(() if param.channel_shared else (bottom[0].shape[1],), filler)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.norm_param
        shape = bottom[0].shape
        if not param.channel_shared and shape[1] != self.blobs[0].count:
            raise self.error(f"has {self.blobs[0].count} scales but the bottom {shape} has {shape[1]} channels")
        top[0].reshape(*shape)
        channels = AxisGeometry.of(shape, 1)
        self._unit = self.ops.unit_length(AxisGeometry.of(shape, 1, len(shape) - 1) if param.across_spatial
                                          else channels, param.eps)
        self._scale = self.ops.broadcast(AxisGeometry(1, 1, bottom[0].count) if param.channel_shared else channels)
        self._directions = self.scratch("directions", shape)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._unit.forward(bottom[0].value, self._directions)
        self._scale.multiply(self._directions, self.blobs[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        dx = bottom[0].grad if propagate_down[0] else None
        dscale = self.blobs[0].grad if self.param_propagate_down[0] else None
        if dx is not None or dscale is not None:
            self._scale.gradients(top[0].grad, self._directions, self.blobs[0].value, dx, dscale, None)
        if dx is not None:
            self._unit.backward(self._directions, dx, dx)
