"""Binary: a function of two bottoms that are broadcast to one shape."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import Tensor
from ..errors import NetError
from ..ops.base import Elementwise, Rearrange
from ..proto.caffe_pb2 import BinaryParameter
from .base import Bottoms, Layer, Tops, exactly, register
from .rearrange import broadcast, expansion

# Of each operation what it computes, and the gradients of both sides.
_PROGRAMS = {
    BinaryParameter.ADD: ("y = a + b", "da = dy", "db = dy"),
    BinaryParameter.SUB: ("y = a - b", "da = dy", "db = -dy"),
    BinaryParameter.MUL: ("y = a * b", "da = dy * b", "db = dy * a"),
    BinaryParameter.DIV: ("y = a / b", "da = dy / b", "db = -dy * y / b"),
    BinaryParameter.POW: ("y = pow(a, b)", "da = where(b == 0, 0, dy * b * pow(where(b == 0, 1, a), b - 1))",
                          "db = where(a > 0, dy * y * log(where(a > 0, a, 1)), 0)"),
    BinaryParameter.MAX: ("y = max(a, b)", "da = where(a >= b, dy, 0)", "db = where(a >= b, 0, dy)"),
    BinaryParameter.MIN: ("y = min(a, b)", "da = where(a <= b, dy, 0)", "db = where(a <= b, 0, dy)"),
}
_NEEDS_NOTHING = (BinaryParameter.ADD, BinaryParameter.SUB)
_NEEDS_TOP = (BinaryParameter.DIV, BinaryParameter.POW)


@register("Binary")
class Binary(Layer):
    """Sum, difference, product, quotient, power, maximum or minimum of two bottoms, broadcast as NumPy does it.

    Gradients are summed over the axes along which a bottom was repeated.  Of equal elements the first bottom's is the
    maximum, or minimum; the exponent of a base that is not above 0 gets no gradient.
    """

    bottoms = exactly(2)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if any(blob is top[0] for blob in bottom):
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        shapes = [blob.shape for blob in bottom]
        full = broadcast(*shapes)
        if full is None:
            raise self.error(f"cannot bring its bottoms {shapes[0]} and {shapes[1]} to one shape: from the last axis "
                             "on, sizes must be equal, or one of them 1")
        top[0].reshape(*full)
        count = top[0].count
        forward, *gradients = _PROGRAMS[self.param.binary_param.operation]
        self._forward = self.ops.elementwise(forward, ("a", "b", "y"), count)
        self._gradients: list[Elementwise] = [
            self.ops.elementwise(source, ("a", "b", "y", "dy", name), count)
            for source, name in zip(gradients, ("da", "db"), strict=True)]
        # A bottom of another shape is copied to the top's.
        self._copies: list[Rearrange | None] = [
            None if shape == full else self.ops.rearrange(expansion(shape, full)) for shape in shapes]
        self._repeated = [self.scratch(f"bottom {index}", full) if copy is not None else None
                          for index, copy in enumerate(self._copies)]
        self._whole = self.scratch("gradient", full) if any(self._copies) else None

    def _side(self, bottom: Bottoms, index: int) -> Tensor:
        """A bottom in the top's shape."""
        repeated = self._repeated[index]
        return bottom[index].value if repeated is None else repeated

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        for blob, copy, repeated in zip(bottom, self._copies, self._repeated, strict=True):
            if copy is not None and repeated is not None:
                copy.forward(blob.value, repeated)
        self._forward.run({"a": self._side(bottom, 0), "b": self._side(bottom, 1), "y": top[0].value})

    def backward_needs(self) -> tuple[bool, bool]:
        operation = self.param.binary_param.operation
        return operation not in _NEEDS_NOTHING, operation in _NEEDS_TOP

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        tensors = {"a": self._side(bottom, 0), "b": self._side(bottom, 1), "y": top[0].value, "dy": top[0].grad}
        for index, name in enumerate(("da", "db")):
            if not propagate_down[index]:
                continue
            copy, result = self._copies[index], bottom[index].grad
            target = result if copy is None or self._whole is None else self._whole
            self._gradients[index].run({**tensors, name: target})
            if copy is not None:
                copy.backward(target, result)
