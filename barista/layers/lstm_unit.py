"""LSTMUnit: one step of an LSTM; the layer LSTM makes its steps of the same arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..blob import HOST, Tensor
from ..errors import NetError
from ..ops.base import AxisGeometry, OpSet
from .base import Bottoms, Layer, Tops, exactly, register

GATES = ("gate_i", "gate_f", "gate_o", "gate_g")
GATE_GRADS = ("grad_i", "grad_f", "grad_o", "grad_g")

# A cell takes in through gate i what gate g offers, keeps what gate f leaves of it, and shows itself through gate o.
# Caffe: gates are exact to a few units in the last place also where they are all but shut, unlike those of Sigmoid.
UNIT_FORWARD = """
gate_i = 1 / (1 + exp(min(-gate_i, 88)))
gate_f = cont / (1 + exp(min(-gate_f, 88)))
gate_o = 1 / (1 + exp(min(-gate_o, 88)))
gate_g = tanh(gate_g)
c = gate_f * c_before + gate_i * gate_g
h = gate_o * tanh(c)
"""

# grad_o holds tanh(c) at first, and grad_c_before the whole gradient of c until the gates have read it.
UNIT_BACKWARD = """
grad_o = tanh(c)
grad_c_before = grad_c + grad_h * gate_o * (1 - grad_o * grad_o)
grad_o = grad_h * grad_o * gate_o * (1 - gate_o)
grad_i = grad_c_before * gate_g * gate_i * (1 - gate_i)
grad_f = grad_c_before * c_before * gate_f * (1 - gate_f)
grad_g = grad_c_before * gate_i * (1 - gate_g * gate_g)
grad_c_before = grad_c_before * gate_f
"""


class Unit:
    """One step of an LSTM for `rows` streams of `hidden` cells (Hochreiter and Schmidhuber 1997, with forget gates).

    A step is a mapping of tensors (rows, hidden) by the names in the programs.

    Caffe: the forget gate is cont * sigmoid, and its gradient that of a sigmoid of this value, which is exact where
    cont is 0 or 1.
    """

    def __init__(self, ops: OpSet, rows: int, hidden: int) -> None:
        self._gates = ops.join(rows, [hidden] * len(GATES), 1)
        states = ("cont", "c_before", "c", "h")
        self._forward = ops.elementwise(UNIT_FORWARD, (*GATES, *states), rows * hidden)
        self._backward = ops.elementwise(
            UNIT_BACKWARD, (*GATES, *states, *GATE_GRADS, "grad_c", "grad_h", "grad_c_before"), rows * hidden)

    def forward(self, x: Tensor, step: Mapping[str, Tensor]) -> None:
        """The step's gates, c and h from x (rows, 4 hidden), the four gates before their non-linearities."""
        self._gates.split(x, [step[name] for name in GATES])
        self._forward.run(step)

    def backward(self, step: Mapping[str, Tensor], dx: Tensor | None) -> None:
        """The gradient with respect to c_before and, unless it is None, to x, from grad_c and grad_h."""
        self._backward.run(step)
        if dx is not None:
            self._gates.join([step[name] for name in GATE_GRADS], dx)


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM: c and h, both (1, N, D), from c before, x (1, N, 4D) and cont (1, N).

    x holds the gates i, f, o and g before their non-linearities, one behind the other.  Where cont is 0 a sequence
    begins and c before is forgotten; cont has no gradient.
    """

    bottoms = exactly(3)
    tops = exactly(2)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        c, x, cont = (blob.shape for blob in bottom)
        if any(blob is other for blob in top for other in bottom):
            raise self.error("cannot work in place; give every top a name of its own", NetError)
        if len(c) != 3 or c[0] != 1:
            raise self.error(f"c before must be (1, N, D), one step of N streams; it has shape {c}")
        rows, hidden = c[1:]
        if x != (1, rows, 4 * hidden):
            raise self.error(f"x must have shape {(1, rows, 4 * hidden)}, four gates for each cell of c before {c}; "
                             f"it has {x}")
        if cont != (1, rows):
            raise self.error(f"cont must have shape {(1, rows)}, one number for each stream of c before {c}; it has "
                             f"{cont}")
        for blob in top:
            blob.reshape(*c)
        self._unit = Unit(self.ops, rows, hidden)
        self._step = {name: self.scratch(name, c) for name in (*GATES, *GATE_GRADS, "cont")}
        self._unwanted = self.scratch("unwanted", c)
        self._ones = self.scratch("ones", c)
        self._ones.write(HOST)[...] = 1
        self._spread = self.ops.broadcast(AxisGeometry(1, rows, hidden))

    def _tensors(self, bottom: Bottoms, top: Tops) -> dict[str, Tensor]:
        return {**self._step, "c_before": bottom[0].value, "c": top[0].value, "h": top[1].value}

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._spread.multiply(self._ones, bottom[2].value, self._step["cont"])
        self._unit.forward(bottom[1].value, self._tensors(bottom, top))

    def allow_force_backward(self, index: int) -> bool:
        return index != 2

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[2]:
            raise self.error("has no gradient with respect to cont; set propagate_down: false for it", NetError)
        if propagate_down[0] or propagate_down[1]:
            grads = {"grad_c": top[0].grad, "grad_h": top[1].grad,
                     "grad_c_before": bottom[0].grad if propagate_down[0] else self._unwanted}
            self._unit.backward({**self._tensors(bottom, top), **grads}, bottom[1].grad if propagate_down[1] else None)
