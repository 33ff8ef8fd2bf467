"""Losses of two predictions: ContrastiveLoss and SmoothL1Loss.

Both are sums of terms that programs compute, so that every op set has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import Tensor
from ..errors import NetError
from ..ops.base import AxisGeometry, Broadcast
from .base import Bottoms, Count, Tops, exactly, register
from .loss import LossLayer


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with ones behind it up to four axes: Caffe takes (N, C) and (N, C, 1, 1) for the same."""
    return shape + (1,) * (4 - len(shape))


class _SumOfTerms(LossLayer):
    """A loss that is the sum of a tensor of terms."""

    def make_sum(self, count: int) -> Broadcast:
        """What adds up `count` terms, and multiplies as many slopes by the weight of the loss."""
        return self.ops.broadcast(AxisGeometry(1, 1, count))

    def add_up(self, total: Broadcast, terms: Tensor, top: Tops) -> None:
        """Let the top be the sum of the terms."""
        top[0].value.clear()
        total.sum(terms, top[0].value)


@register("ContrastiveLoss")
class ContrastiveLoss(_SumOfTerms):
    """Pairs of features (N, C), near where similar(N) is 1, else apart (Hadsell et al. 2006).

    Of a pair at the distance d: d^2 where it is similar, else max(margin - d, 0)^2, summed over pairs / (2 N).

    Caffe: legacy_version takes max(margin - d^2, 0) for pairs that are not similar.  In the gradient d is divided by
    d + 0.0001.  What counts of `similar` is its integer part.
    """

    bottoms = exactly(3)

    def allow_force_backward(self, index: int) -> bool:
        return index < 2

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        pairs, channels = self._sizes(bottom)
        param = self.param.contrastive_loss_param
        top[0].reshape()
        self._difference = self.ops.elementwise("d = a - b", ("a", "b", "d"), bottom[0].count)
        self._rows = self.ops.broadcast(AxisGeometry(1, pairs, channels))
        if param.legacy_version:
            loss, slope = "max(margin - q, 0)", "where(q < margin, -1, 0)"
        else:
            loss = "max(margin - sqrt(q), 0) * max(margin - sqrt(q), 0)"
            slope = "max(margin - sqrt(q), 0) / -(sqrt(q) + 0.0001)"
        # From the squares of the distances q: terms of the loss, and what the gradients are of the difference.
        self._pairs = self.ops.elementwise(f"t = half * where(abs(s) >= 1, q, {loss})\n"
                                           f"f = share * where(abs(s) >= 1, 1, {slope})", ("s", "q", "t", "f"), pairs)
        self._margin, self._share = param.margin, 1 / max(pairs, 1)
        self._total = self.make_sum(pairs)
        self._turn = self.ops.elementwise("g = sign * f", ("f", "g"), pairs)
        self._differences = self.scratch("differences", (pairs, channels))
        self._squares, self._terms, self._factors = (self.scratch(name, (pairs,))
                                                     for name in ("squares", "terms", "factors"))

    def _sizes(self, bottom: Bottoms) -> tuple[int, int]:
        """Number of pairs, and of features of each, after checking the shapes."""
        a, b = bottom[0].shape, bottom[1].shape
        pairs, channels, *rest = _four(a)
        if _four(b) != _four(a) or any(size != 1 for size in rest):
            raise self.error("compares as many features of as many images, both (N, C) or (N, C, 1, 1); got shapes "
                             f"{a} and {b}")
        if bottom[2].count != pairs:
            raise self.error(f"{self.param.bottom[2]}, which says what is similar, has shape {bottom[2].shape} "
                             f"({bottom[2].count} elements); {pairs} pairs of shape {a} need one number each")
        return pairs, channels

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        a, b, similar = (blob.value for blob in bottom)
        self._difference.run({"a": a, "b": b, "d": self._differences})
        self._squares.clear()
        self._rows.gradients(self._differences, self._differences, self._factors, None, self._squares, None)
        self._pairs.run({"s": similar, "q": self._squares, "t": self._terms, "f": self._factors},
                        margin=self._margin, share=self._share, half=0.5 * self._share)
        self.add_up(self._total, self._terms, top)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[2]:
            raise self.error("has no gradient with respect to what is similar; set propagate_down: false for it",
                             NetError)
        for index, sign in enumerate((1.0, -1.0)):
            if propagate_down[index]:
                # The terms have been added up: their place is free.
                self._turn.run({"f": self._factors, "g": self._terms}, sign=sign)
                self._total.multiply(self._terms, top[0].grad, self._terms)
                self._rows.multiply(self._differences, self._terms, bottom[index].grad)


@register("SmoothL1Loss")
class SmoothL1Loss(_SumOfTerms):
    """outside * f(inside * (x - target)), summed up and divided by the batch size (Girshick 2015).

    f(d) is (sigma d)^2 / 2 where |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2).  A type of Caffe's forks.  The
    weights inside and outside are the third and fourth bottom, 1 where they are left out; they have no gradient.
    Both x and the target may have one.
    """

    bottoms = Count(2, 4)

    def allow_force_backward(self, index: int) -> bool:
        return index < 2

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        for blob, name in zip(bottom[1:], self.param.bottom[1:], strict=True):
            if _four(blob.shape) != _four(shape):
                raise self.error(f"all bottoms need the shape of the prediction {self.param.bottom[0]}, {shape}; "
                                 f"{name} has {blob.shape}")
        sigma = self.param.smooth_l1_loss_param.sigma
        if not sigma > 0:
            raise self.error(f"sigma={sigma:g} must be above 0", NetError)
        top[0].reshape()
        inside = "i * (x - t)" if len(bottom) > 2 else "(x - t)"
        outside = "o * " if len(bottom) > 3 else ""
        by_inside = "i * " if len(bottom) > 2 else ""
        names = ("x", "t", "i", "o")[:len(bottom)]
        self._terms = self.scratch("terms", shape)
        self._square = sigma * sigma
        self._share = 1 / max(shape[0], 1) if shape else 1.0
        # Both programs keep the difference in a tensor until the last line.
        self._term = self.ops.elementwise(
            f"e = {inside}\n"
            f"e = share * {outside}where(abs(e) < 1 / square, 0.5 * square * e * e, abs(e) - 0.5 / square)",
            (*names, "e"), bottom[0].count)
        self._slope = self.ops.elementwise(
            f"e = {inside}\n"
            f"e = share * {outside}{by_inside}where(abs(e) < 1 / square, square * e, sign(e))",
            (*names, "e"), bottom[0].count)
        self._total = self.make_sum(bottom[0].count)
        self._negative = self.ops.elementwise("y = -x", ("x", "y"), bottom[0].count)
        self._zero = self.ops.elementwise("y = 0", ("y",), bottom[0].count)

    def _tensors(self, bottom: Bottoms) -> dict[str, Tensor]:
        return dict(zip("xtio", [blob.value for blob in bottom], strict=False))

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._term.run({**self._tensors(bottom), "e": self._terms}, square=self._square, share=self._share)
        self.add_up(self._total, self._terms, top)

    def backward_needs(self) -> tuple[bool, bool]:
        return True, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0] or propagate_down[1]:
            # The terms have been added up: their place is free.
            self._slope.run({**self._tensors(bottom), "e": self._terms}, square=self._square, share=self._share)
        if propagate_down[0]:
            self._total.multiply(self._terms, top[0].grad, bottom[0].grad)
        if propagate_down[1]:
            self._total.multiply(self._terms, top[0].grad, bottom[1].grad)
            self._negative.run({"x": bottom[1].grad, "y": bottom[1].grad})
        for blob, wanted in zip(bottom[2:], propagate_down[2:], strict=True):
            if wanted:  # behind a layer that learns, but a constant here
                self._zero.run({"y": blob.grad})
