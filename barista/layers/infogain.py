"""InfogainLoss: cross entropy that weighs each confusion of two classes on its own."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import HOST, Tensor
from ..errors import DataError, NetError
from ..ops.base import AxisGeometry
from ..proto.blobs import read_blob
from .base import Bottoms, Count, Labels, Tops, register
from .loss import LossLayer


@register("InfogainLoss")
class InfogainLoss(LossLayer):
    """-sum over classes k of H(label, k) log(softmax(x)_k), with integer labels.

    The matrix H of gains is a third bottom, or lies in a file, a BlobProto, that `source` names.  A second top takes
    the probabilities.

    Caffe: the axis of the classes is that of infogain_loss_param; probabilities below 1e-20 count as that.
    """

    bottoms = Count(2, 3)
    tops = Count(0, 2)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        if len(bottom) < 3:
            self._read_gains()

    def _read_gains(self) -> None:
        """Take the matrix from the file that `source` names."""
        source = self.param.infogain_loss_param.source
        if not source:
            raise self.error("needs the matrix of gains: a third bottom, or a BlobProto file as "
                             "infogain_loss_param { source: ... }", NetError)
        try:
            gains = read_blob(source)
        except DataError as error:
            raise self.error(f"the matrix of gains {error}", NetError) from None
        self.scratch("gains", gains.shape).write(HOST)[...] = gains

    def _gains(self, bottom: Bottoms) -> Tensor:
        return bottom[2].value if len(bottom) > 2 else self._scratch["gains"]

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        axis = self.axis(bottom[0], self.param.infogain_loss_param.axis)
        geometry = AxisGeometry.of(bottom[0].shape, axis)
        self.check_target(bottom, geometry.outer * geometry.inner, "one label for each prediction")
        gains = self._gains(bottom)
        if gains.count != geometry.axis**2:
            raise self.error(f"the matrix of gains has shape {gains.shape} ({gains.count} numbers); the "
                             f"{geometry.axis} classes on axis {axis} of the prediction {bottom[0].shape} need "
                             f"{geometry.axis} x {geometry.axis} = {geometry.axis**2}")
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(*bottom[0].shape)
        self._softmax = self.ops.softmax(geometry)
        self._probabilities = self.scratch("probabilities", bottom[0].shape)
        self.labels = Labels(geometry.axis, self.rule().ignore_label)
        self._infogain = self.ops.infogain_loss(geometry, self.rule())

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._softmax.forward(bottom[0].value, self._probabilities)
        self._infogain.forward(self._probabilities, bottom[1].value, self._gains(bottom), top[0].value)
        if len(top) > 1:
            top[1].value.share(self._probabilities)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self.refuse_target_gradient(propagate_down)
        if len(bottom) > 2 and propagate_down[2]:
            raise self.error("has no gradient with respect to its matrix of gains; set propagate_down: false for it",
                             NetError)
        if propagate_down[0]:
            self._infogain.backward(self._probabilities, bottom[1].value, self._gains(bottom), top[0].grad,
                                    bottom[0].grad)
