"""Softmax, losses of one prediction and a target, and Accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import Blob
from ..errors import NetError
from ..ops.base import AxisGeometry, Loss, LossRule
from ..proto.caffe_pb2 import HingeLossParameter, LossParameter
from .base import Bottoms, Count, Labels, Layer, Tops, exactly, register


@register("Softmax")
class Softmax(Layer):
    """y = exp(x) / sum(exp(x)) over one axis."""

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        axis = self.axis(bottom[0], self.param.softmax_param.axis)
        top[0].reshape(*bottom[0].shape)
        self._softmax = self.ops.softmax(AxisGeometry.of(bottom[0].shape, axis))

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._softmax.forward(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, True

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._softmax.backward(top[0].value, top[0].grad, bottom[0].grad)


class LossLayer(Layer):
    """A scalar top from a prediction and a target.

    Caffe: the top is made where the definition leaves it out, and counts in the loss with
    weight 1 where no loss_weight stands.
    """

    bottoms = exactly(2)
    tops = Count(0, 1)
    is_loss = True

    def allow_force_backward(self, index: int) -> bool:
        return index != 1

    def make_loss(self, bottom: Bottoms) -> Loss:
        """Ask the op set for the loss at these shapes."""
        raise NotImplementedError

    def rule(self) -> LossRule:
        """How loss_param says to normalise.

        Caffe: the old field `normalize` means VALID or BATCH_SIZE.
        """
        param = self.param.loss_param
        mode = param.normalization
        if not param.HasField("normalization") and param.HasField("normalize"):
            mode = LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
        return LossRule(LossParameter.NormalizationMode.Name(mode),
                        param.ignore_label if param.HasField("ignore_label") else None)

    def check_target(self, bottom: Bottoms, count: int, meaning: str) -> None:
        """The target must have `count` elements."""
        if bottom[1].count != count:
            raise self.error(f"the target {self.param.bottom[1]} has shape {bottom[1].shape} ({bottom[1].count} "
                             f"elements); the prediction {bottom[0].shape} needs {count} ({meaning})")

    def refuse_target_gradient(self, propagate_down: Sequence[bool]) -> None:
        """Targets have no gradient."""
        if propagate_down[1]:
            raise self.error("has no gradient with respect to its target; set propagate_down: false for it", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        top[0].reshape()
        self._loss = self.make_loss(bottom)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._loss.forward(bottom[0].value, bottom[1].value, top[0].value)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self.refuse_target_gradient(propagate_down)
        if propagate_down[0]:
            self._loss.backward(bottom[0].value, bottom[1].value, top[0].grad, bottom[0].grad)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
    """Cross entropy of softmax(x) with integer labels; a second top takes the probabilities."""

    tops = Count(0, 2)

    def make_loss(self, bottom: Bottoms) -> Loss:
        axis = self.axis(bottom[0], self.param.softmax_param.axis)
        geometry = AxisGeometry.of(bottom[0].shape, axis)
        self.check_target(bottom, geometry.outer * geometry.inner, "one label for each prediction")
        self._softmax = self.ops.softmax(geometry)
        self._probabilities = self.scratch("probabilities", bottom[0].shape)
        self.labels = Labels(geometry.axis, self.rule().ignore_label)
        return self.ops.softmax_loss(geometry, self.rule())

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        super().reshape(bottom, top)
        if len(top) > 1:
            top[1].reshape(*bottom[0].shape)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._softmax.forward(bottom[0].value, self._probabilities)
        self._loss.forward(self._probabilities, bottom[1].value, top[0].value)
        if len(top) > 1:
            top[1].value.share(self._probabilities)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        super().backward(top, propagate_down, [Blob.of(self._probabilities, bottom[0].grad), bottom[1]])


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """sum((a - b)^2) / (2 N); both bottoms may have gradients."""

    def allow_force_backward(self, index: int) -> bool:
        return True

    def make_loss(self, bottom: Bottoms) -> Loss:
        self.check_target(bottom, bottom[0].count, "as many as the prediction")
        if not bottom[0].shape or bottom[0].shape[0] != bottom[1].shape[0]:
            raise self.error(f"both bottoms need one batch size; got shapes {bottom[0].shape} and {bottom[1].shape}")
        # An empty batch, which a Filter may leave, has a loss of 0.
        return self.ops.euclidean_loss(bottom[0].count, max(bottom[0].shape[0], 1))

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        a, b = bottom
        if propagate_down[0]:
            self._loss.backward(a.value, b.value, top[0].grad, a.grad)
        if propagate_down[1]:
            self._loss.backward(b.value, a.value, top[0].grad, b.grad)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """Cross entropy of sigmoid(x) with targets in [0, 1].

    Caffe: normalised by the batch size where loss_param does not say otherwise.
    """

    def rule(self) -> LossRule:
        rule = super().rule()
        param = self.param.loss_param
        if not param.HasField("normalization") and not param.HasField("normalize"):
            return LossRule("BATCH_SIZE", rule.ignore_label)
        return rule

    def make_loss(self, bottom: Bottoms) -> Loss:
        self.check_target(bottom, bottom[0].count, "as many as the prediction")
        batch = bottom[0].shape[0] if bottom[0].shape else 1
        return self.ops.sigmoid_cross_entropy_loss(bottom[0].count, batch, self.rule())


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    """-log of the probability (N, classes) of the label, averaged over the batch; the probabilities are the bottom.

    Caffe: probabilities below 1e-20 count as that; loss_param is not looked at.
    """

    def make_loss(self, bottom: Bottoms) -> Loss:
        shape = bottom[0].shape
        outer = shape[0] if shape else 1
        self.check_target(bottom, outer, "one label an image")
        self.labels = Labels(bottom[0].count // max(outer, 1))
        return self.ops.multinomial_loss(AxisGeometry(outer, self.labels.classes, 1))


@register("HingeLoss")
class HingeLoss(LossLayer):
    """One-against-all hinge loss, L1 or L2, of scores (N, classes) with integer labels.

    Caffe: the forward pass leaves the margins max(0, 1 -+ x) in the diff of the scores.
    """

    early_grad = True

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        outer = shape[0] if shape else 1
        self.check_target(bottom, outer, "one label an image")
        top[0].reshape()
        self.labels = Labels(bottom[0].count // max(outer, 1))
        self._hinge = self.ops.hinge_loss(AxisGeometry(outer, self.labels.classes, 1),
                                          HingeLossParameter.Norm.Name(self.param.hinge_loss_param.norm))

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._hinge.forward(bottom[0].value, bottom[1].value, bottom[0].grad, top[0].value)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        self.refuse_target_gradient(propagate_down)
        if propagate_down[0]:
            self._hinge.backward(bottom[1].value, top[0].grad, bottom[0].grad)


@register("Accuracy")
class Accuracy(Layer):
    """Share of predictions whose label is among the top_k; a second top takes the share for each class.

    Caffe: a label counts as found while fewer than top_k other classes score at least as high.
    """

    bottoms = exactly(2)
    tops = Count(1, 2)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.accuracy_param
        axis = self.axis(bottom[0], param.axis)
        geometry = AxisGeometry.of(bottom[0].shape, axis)
        if param.top_k > geometry.axis:
            raise self.error(f"top_k={param.top_k} exceeds the {geometry.axis} classes of shape {bottom[0].shape}")
        if bottom[1].count != geometry.outer * geometry.inner:
            raise self.error(f"the labels {self.param.bottom[1]} have shape {bottom[1].shape} ({bottom[1].count}); the "
                             f"prediction {bottom[0].shape} needs {geometry.outer * geometry.inner}")
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(geometry.axis)
        self.labels = Labels(geometry.axis, param.ignore_label if param.HasField("ignore_label") else None)
        self._accuracy = self.ops.accuracy(geometry, param.top_k, self.labels.ignored)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._accuracy.forward(bottom[0].value, bottom[1].value, top[0].value,
                               top[1].value if len(top) > 1 else None)
