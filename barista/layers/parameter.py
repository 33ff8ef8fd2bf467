"""Parameter: a learnable blob that layers take as a bottom."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Bottoms, Layer, Tops, exactly, register


@register("Parameter")
class Parameter(Layer):
    """A top that is the layer's one parameter, of the shape that parameter_param gives, zeros at first.

    Caffe: both lie on one memory, so that a layer in place on the top changes the parameter; and gradients of bottoms
    overwrite, so that with iter_size above 1 the last pass's gradient alone remains.
    """

    bottoms = exactly(0)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        self.add_param(tuple(self.param.parameter_param.shape.dim))

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        top[0].reshape(*self.blobs[0].shape)
        self._share(top)

    def _share(self, top: Tops) -> None:
        """Lie on the parameter's memory, which may be another layer's by now."""
        top[0].value.share(self.blobs[0].value)
        top[0].grad.share(self.blobs[0].grad)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._share(top)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        """The gradient is there already."""
