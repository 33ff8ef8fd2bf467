"""Normalisation: LRN and BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import HOST
from ..errors import NetError
from ..ops.base import AxisGeometry
from ..proto.caffe_pb2 import TEST, LRNParameter
from .base import Bottoms, Layer, Tops, register


@register("LRN")
class LRN(Layer):
    """Local response normalisation across channels or within each (Krizhevsky et al. 2012).

    Caffe: across channels alpha is divided by local_size; within a channel by the
    number of elements of the (clipped) window, and k is always 1.
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
