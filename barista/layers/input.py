"""Layers whose tops the caller or fillers fill: Input and DummyData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..blob import HOST
from ..errors import NetError
from ..fillers import fill
from ..proto.caffe_pb2 import FillerParameter
from .base import Bottoms, Count, Layer, Tops, exactly, register

T = TypeVar("T")


@register("Input")
class Input(Layer):
    """Tops that the caller fills: the inputs of the net."""

    bottoms = exactly(0)
    tops = Count(1)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        shapes = self.param.input_param.shape
        if len(shapes) not in (0, 1, len(top)):
            raise self.error(f"has {len(top)} top(s) and {len(shapes)} input_param.shape; "
                             "give none, one for all, or one a top", NetError)
        for index, blob in enumerate(top):
            if shapes:
                blob.reshape(*shapes[index if len(shapes) > 1 else 0].dim)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        """The caller reshapes the tops."""

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        """The caller filled the tops."""


@register("DummyData")
class DummyData(Layer):
    """Tops filled by fillers; those of constant fillers once, the others at each forward pass."""

    bottoms = exactly(0)
    tops = Count(1)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.dummy_data_param
        self._fillers = self._one_or_each(param.data_filler, len(top), "data_filler") or [
            FillerParameter(type="constant")] * len(top)
        if param.shape:
            if param.num or param.channels or param.height or param.width:
                raise self.error("gives both shape and num/channels/height/width; give one of them", NetError)
            shapes = [tuple(s.dim) for s in self._one_or_each(param.shape, len(top), "shape")]
        else:
            legacy = [self._one_or_each(getattr(param, name), len(top), name)
                      for name in ("num", "channels", "height", "width")]
            if not all(legacy):
                raise self.error("needs shape, or all of num, channels, height and width", NetError)
            shapes = list(zip(*legacy, strict=True))
        for blob, shape, filler in zip(top, shapes, self._fillers, strict=True):
            blob.reshape(*shape)
            if filler.type == "constant":
                fill(blob.value.write(HOST), filler, self.rng)

    def _one_or_each(self, values: Sequence[T], tops: int, name: str) -> list[T]:
        if len(values) not in (0, 1, tops):
            raise self.error(f"has {tops} top(s) and {len(values)} {name}; give one, or one a top", NetError)
        return list(values) * (tops if len(values) == 1 else 1)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        """Shapes are fixed."""

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        for blob, filler in zip(top, self._fillers, strict=True):
            if filler.type != "constant":
                fill(blob.value.write(HOST), filler, self.rng)
