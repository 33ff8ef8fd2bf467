"""Recurrent layers: RNN and LSTM, which run over whole sequences.

Caffe builds a net of all steps inside the layer.  Here the layer computes by itself: the products with the input are
one for all steps, then step follows step.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import ClassVar

from ..blob import HOST, Blob, Tensor
from ..errors import NetError
from ..gemm.shapes import GemmShape, Pass
from ..ops.base import AxisGeometry, Gemm, OpSet
from .base import Bottoms, Count, Layer, Tops, register
from .lstm_unit import GATE_GRADS, GATES, Unit

log = logging.getLogger(__name__)

# Steps of a pass, each of which takes some tensors.
MOST_STEPS = 10_000


class _Product:
    """y(rows, outputs) = x(rows, inputs) w(outputs, inputs)^T, and its gradients.

    Parameters
    ----------
    all_rows : rows of x and y in `grad_weight`, which may take those of many steps at once; None means `rows`
    """

    def __init__(self, ops: OpSet, rows: int, inputs: int, outputs: int, all_rows: int | None = None) -> None:
        self._ops = ops
        self._forward = self._gemm(Pass.FORWARD, GemmShape(rows, outputs, inputs), False, True)
        self._grad_input = self._gemm(Pass.GRAD_INPUT, GemmShape(rows, inputs, outputs), False, False)
        self._grad_weight = self._gemm(
            Pass.GRAD_WEIGHT, GemmShape(outputs, inputs, rows if all_rows is None else all_rows), True, False)

    def _gemm(self, pass_: Pass, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        """Ask for the product of one pass, by whose name reports go."""
        owner = self._ops.owner
        self._ops.owner = dataclasses.replace(owner, pass_=pass_)
        gemm = self._ops.gemm(shape, trans_a, trans_b)
        self._ops.owner = owner
        return gemm

    def forward(self, x: Tensor, w: Blob, y: Tensor, bias: Blob | None = None) -> None:
        """y = x w^T + bias."""
        self._forward.run(x, w.value, y, bias=None if bias is None else bias.value)

    def add(self, x: Tensor, w: Blob, y: Tensor) -> None:
        """y += x w^T."""
        self._forward.run(x, w.value, y, beta=1.0)

    def grad_input(self, dy: Tensor, w: Blob, dx: Tensor) -> None:
        """dx = dy w."""
        self._grad_input.run(dy, w.value, dx)

    def grad_weight(self, dy: Tensor, x: Tensor, w: Blob) -> None:
        """The gradient of w += dy^T x."""
        self._grad_weight.run(dy, x, w.grad, beta=1.0)


class _Recurrent(Layer):
    """A sequence x (T, N, ...) of T steps in N streams to y (T, N, num_output), with a state carried along.

    Further bottoms are cont (T, N), which is 0 where a sequence begins and its state is forgotten; then maybe an input
    (N, ...) that is the same at all steps; and with expose_hidden the states before the first step, (1, N, num_output)
    each, whose tops behind y take those after the last.  Without expose_hidden the states after the last step are
    those before the first one of the next forward pass.

    Parameter blobs: the weights of x and their bias, those of the static input where there is one, and those of h.

    Caffe: the number of steps stays what it was at first.  Its states get and give no gradients where they are
    exposed; here both are true.  Gradients of all parameters are computed, those with lr_mult 0 too.
    """

    # Names of the states, h first, and how many numbers of a step belong to one of h.
    states: ClassVar[tuple[str, ...]] = ("h",)
    gates: ClassVar[int] = 1

    # ---- shapes -----------------------------------------------------------------------------

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.recurrent_param
        if param.num_output < 1:
            raise self.error("num_output is missing; give 1 or more", NetError)
        if param.debug_info:
            log.info("%s (%s): debug_info has nothing to add, since there is no net inside the layer", self.name,
                     self.type)
        self._hidden = param.num_output
        self._exposed = self.states if param.expose_hidden else ()
        self._check_counts(len(bottom), len(top))
        self._has_static = len(bottom) == 3 + len(self._exposed)
        self._steps = bottom[0].shape[0] if bottom[0].shape else 0
        self._inputs, self._statics = self._check_shapes(bottom)
        rows = self.gates * self._hidden
        self._w_x = self.add_param((rows, self._inputs), param.weight_filler)
        self._bias = self.add_param((rows,), param.bias_filler)
        if self._has_static:
            self._w_static = self.add_param((rows, self._statics), param.weight_filler)
        self._w_h = self.add_param((rows, self._hidden), param.weight_filler)
        # What the next pass goes on from; its memory stays when the number of streams changes.
        shape = (1, bottom[0].shape[1], self._hidden)
        self._last = {name: self.scratch(f"{name}_last", shape) for name in self.states}

    def _check_counts(self, bottoms: int, tops: int) -> None:
        """Bottoms and tops depend on whether the states are exposed."""
        least = 2 + len(self._exposed)
        if bottoms not in (least, least + 1) or tops != 1 + len(self._exposed):
            before, after = ([f"{name}_{when}" for name in self._exposed] for when in ("0", "T"))
            raise self.error(
                f"with expose_hidden: {str(bool(self._exposed)).lower()} takes the bottoms "
                f"{', '.join(['x', 'cont', '(maybe a static input)', *before])} and the tops "
                f"{', '.join(['y', *after])}, got {bottoms} bottom(s) and {tops} top(s)", NetError)

    def _check_shapes(self, bottom: Bottoms) -> tuple[int, int]:
        """Numbers of x, and of the static input, for one step of one stream; 0 where there is none."""
        x, cont = bottom[0].shape, bottom[1].shape
        if len(x) < 3 or x[0] < 1:
            raise self.error(f"x must be (T, N, ...): T steps of N streams of at least one more axis; it has shape {x}")
        if x[0] > MOST_STEPS:
            raise self.error(f"x {x} has {x[0]} steps; the limit is {MOST_STEPS}. Cut sequences into parts: the state "
                             "after one is that before the next")
        if x[0] != self._steps:
            raise self.error(f"was set up for {self._steps} steps; x {x} has {x[0]}. Give sequences of one length, or "
                             "make another net for the other")
        if cont != x[:2]:
            raise self.error(f"cont must have shape {x[:2]}, one number for each step and stream of x {x}; it has "
                             f"{cont}")
        states = (1, x[1], self._hidden)
        for index, name in enumerate(self._exposed, start=len(bottom) - len(self._exposed)):
            if bottom[index].shape != states:
                raise self.error(f"{name}_0 ({self.param.bottom[index]}) must have shape {states}; it has "
                                 f"{bottom[index].shape}")
        if not self._has_static:
            return math.prod(x[2:]), 0
        static = bottom[2].shape
        if len(static) < 2 or static[0] != x[1]:
            raise self.error(f"the static input {self.param.bottom[2]} must be (N, ...) with the N={x[1]} streams of x "
                             f"{x}; it has shape {static}")
        return math.prod(x[2:]), math.prod(static[1:])

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if any(blob is other for blob in top for other in bottom):
            raise self.error("cannot work in place; give every top a name of its own", NetError)
        for what, now, before in zip(("x", "the static input"), self._check_shapes(bottom),
                                     (self._inputs, self._statics), strict=True):
            if now != before:
                raise self.error(f"was set up for {before} numbers a step of {what}; now it has {now}")
        ops, steps, streams = self.ops, self._steps, bottom[0].shape[1]
        hidden, width, rows = self._hidden, self.gates * self._hidden, steps * streams
        top[0].reshape(steps, streams, hidden)
        for blob in top[1:]:
            blob.reshape(1, streams, hidden)
        self._from_x = _Product(ops, rows, self._inputs, width)
        self._from_h = _Product(ops, streams, hidden, width, all_rows=rows)
        self._over_rows = ops.broadcast(AxisGeometry(rows, width, 1))
        if self._has_static:
            self._from_static = _Product(ops, streams, self._statics, width)
            self._over_steps = ops.broadcast(AxisGeometry(steps, streams * width, 1))
            self._static = self.scratch("static", (streams, width))
        self._spread = ops.broadcast(AxisGeometry(1, rows, hidden))
        self._cut_hidden = ops.join(1, [streams * hidden] * steps, 1)
        self._cut_width = ops.join(1, [streams * width] * steps, 1)
        self._keep = ops.elementwise("kept = cont * h", ("kept", "cont", "h"), streams * hidden)
        self._keep_grad = ops.elementwise("grad_h = grad_h + cont * kept", ("grad_h", "cont", "kept"), streams * hidden)
        self._copy = ops.elementwise("y = x", ("x", "y"), streams * hidden)
        self._add = ops.elementwise("y = y + x", ("x", "y"), streams * hidden)
        self._make_tensors(streams)

    def _make_tensors(self, streams: int) -> None:
        """Tensors of its own; those with a list have one for each step."""
        steps, hidden, width = self._steps, self._hidden, self.gates * self._hidden
        self._ones = self.scratch("ones", (steps, streams, hidden))
        self._ones.write(HOST)[...] = 1
        # What goes into the steps, of which the backward pass makes its gradient; and h as it is kept, of all steps.
        self._all_x = self.scratch("all_x", (steps, streams, width))
        self._all_kept = self.scratch("all_kept", (steps, streams, hidden))
        self._all_cont = self.scratch("all_cont", (steps, streams, hidden))
        self._x = self.each_step("x", (streams, width))
        self._cont = self.each_step("cont", (streams, hidden))
        self._kept = self.each_step("kept", (streams, hidden))
        self._grad_h = self.each_step("grad_h", (streams, hidden))
        self._grad_kept = self.scratch("grad_kept", (streams, hidden))
        # Each state before the first step, then after every step.
        self._states: dict[str, list[Tensor]] = {}
        for name in self.states:
            self._last[name].reshape((1, streams, hidden))
            after = [self.scratch(f"{name}_{step}", (1, streams, hidden)) for step in range(self._steps)]
            self._states[name] = [*after, self._last[name]]

    def each_step(self, name: str, shape: tuple[int, ...]) -> list[Tensor]:
        """Make a tensor of its own for each step."""
        return [self.scratch(f"{name}_{step}", shape) for step in range(self._steps)]

    # ---- running ----------------------------------------------------------------------------

    def carried(self) -> Sequence[Tensor]:
        return () if self._exposed else tuple(self._last.values())

    def reset(self) -> None:
        """Let the next forward pass begin with states of 0."""
        for tensor in self._last.values():
            tensor.clear()

    def step_forward(self, step: int) -> None:
        """The states after a step from those before and from what goes into it."""
        raise NotImplementedError

    def step_backward(self, step: int) -> None:
        """The gradient of what goes into a step, in its place, from that of h; and those of other states."""
        raise NotImplementedError

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        for index, name in enumerate(self.states):
            first = self._states[name]
            if self._exposed:
                first[0] = bottom[len(bottom) - len(self.states) + index].value
            else:
                self._copy.run({"x": self._last[name], "y": first[0]})
        self._spread.multiply(self._ones, bottom[1].value, self._all_cont)
        self._cut_hidden.split(self._all_cont, self._cont)
        self._from_x.forward(bottom[0].value, self._w_x, self._all_x, self._bias)
        if self._has_static:
            self._from_static.forward(bottom[2].value, self._w_static, self._static)
            self._over_steps.add(self._all_x, self._static, self._all_x)
        self._cut_width.split(self._all_x, self._x)
        for step in range(self._steps):
            self._keep.run({"kept": self._kept[step], "cont": self._cont[step], "h": self._states["h"][step]})
            self._from_h.add(self._kept[step], self._w_h, self._x[step])
            self.step_forward(step)
        self.show(top[0])
        for name, blob in zip(self._exposed, top[1:], strict=True):
            self._copy.run({"x": self._last[name], "y": blob.value})

    def show(self, top: Blob) -> None:
        """The first top from h after all steps."""
        self._cut_hidden.join(self._states["h"][1:], top.value)

    def show_backward(self, top: Blob) -> None:
        """The gradient of h after all steps from that of the first top."""
        self._cut_hidden.split(top.grad, self._grad_h)

    def allow_force_backward(self, index: int) -> bool:
        return index != 1

    def backward_needs(self) -> tuple[bool, bool]:
        return True, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[1]:
            raise self.error("has no gradient with respect to cont; set propagate_down: false for it", NetError)
        self.show_backward(top[0])
        if self._exposed:
            self._add.run({"x": top[1].grad, "y": self._grad_h[-1]})
        self.begin_backward(top)
        for step in reversed(range(self._steps)):
            self.step_backward(step)
            if step:
                self._from_h.grad_input(self._x[step], self._w_h, self._grad_kept)
                self._keep_grad.run({"grad_h": self._grad_h[step - 1], "cont": self._cont[step],
                                     "kept": self._grad_kept})
        if self._exposed:
            first = len(bottom) - len(self.states)
            self.exposed_gradients(propagate_down[first:], bottom[first:])
        self._cut_width.join(self._x, self._all_x)
        self._cut_hidden.join(self._kept, self._all_kept)
        self._from_h.grad_weight(self._all_x, self._all_kept, self._w_h)
        self._from_x.grad_weight(self._all_x, bottom[0].value, self._w_x)
        self._over_rows.sum(self._all_x, self._bias.grad)
        if propagate_down[0]:
            self._from_x.grad_input(self._all_x, self._w_x, bottom[0].grad)
        if self._has_static:
            self._static.clear()
            self._over_steps.sum(self._all_x, self._static)
            self._from_static.grad_weight(self._static, bottom[2].value, self._w_static)
            if propagate_down[2]:
                self._from_static.grad_input(self._static, self._w_static, bottom[2].grad)

    def begin_backward(self, top: Tops) -> None:
        """Take the gradients of further states after the last step."""

    def exposed_gradients(self, wanted: Sequence[bool], bottom: Bottoms) -> None:
        """Those of the states before the first step."""
        if wanted[0]:
            grad = bottom[0].grad
            self._from_h.grad_input(self._x[0], self._w_h, self._grad_kept)
            self._keep.run({"kept": grad, "cont": self._cont[0], "h": self._grad_kept})


@register("RNN")
class RNN(_Recurrent):
    """h_t = tanh(W_xh x_t + b_h + W_hh (cont_t h_before)), y_t = tanh(W_ho h_t + b_o) (Elman 1990).

    W_ho and b_o are its last parameter blobs.
    """

    bottoms = Count(2, 4)
    tops = Count(1, 2)

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        super().setup(bottom, top)
        param = self.param.recurrent_param
        self._w_out = self.add_param((self._hidden, self._hidden), param.weight_filler)
        self._bias_out = self.add_param((self._hidden,), param.bias_filler)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        super().reshape(bottom, top)
        ops, (steps, streams, hidden) = self.ops, top[0].shape
        self._to_y = _Product(ops, steps * streams, hidden, hidden)
        self._tanh = ops.elementwise("y = tanh(x)", ("x", "y"), streams * hidden)
        self._tanh_top = ops.elementwise("y = tanh(y)", ("y",), top[0].count)
        self._tanh_grad = ops.elementwise("dx = dy * (1 - y * y)", ("y", "dy", "dx"), streams * hidden)
        self._tanh_grad_top = ops.elementwise("dx = dy * (1 - y * y)", ("y", "dy", "dx"), top[0].count)
        self._all_h = self.scratch("all_h", top[0].shape)
        self._grad_out = self.scratch("grad_out", top[0].shape)
        self._all_grad_h = self.scratch("all_grad_h", top[0].shape)

    def step_forward(self, step: int) -> None:
        self._tanh.run({"x": self._x[step], "y": self._states["h"][step + 1]})

    def step_backward(self, step: int) -> None:
        self._tanh_grad.run({"y": self._states["h"][step + 1], "dy": self._grad_h[step], "dx": self._x[step]})

    def show(self, top: Blob) -> None:
        self._cut_hidden.join(self._states["h"][1:], self._all_h)
        self._to_y.forward(self._all_h, self._w_out, top.value, self._bias_out)
        self._tanh_top.run({"y": top.value})

    def backward_needs(self) -> tuple[bool, bool]:
        return True, True

    def show_backward(self, top: Blob) -> None:
        self._tanh_grad_top.run({"y": top.value, "dy": top.grad, "dx": self._grad_out})
        self._to_y.grad_weight(self._grad_out, self._all_h, self._w_out)
        self._over_rows.sum(self._grad_out, self._bias_out.grad)
        self._to_y.grad_input(self._grad_out, self._w_out, self._all_grad_h)
        self._cut_hidden.split(self._all_grad_h, self._grad_h)


@register("LSTM")
class LSTM(_Recurrent):
    """Cells behind gates (Hochreiter and Schmidhuber 1997): y is h after each step, c the state beside it.

    The gates i, f, o, g are W_xc x_t + b_c + W_hc (cont_t h_before), from which `LSTMUnit` makes c and h.
    """

    bottoms = Count(2, 5)
    tops = Count(1, 3)
    states = ("h", "c")
    gates = len(GATES)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        super().reshape(bottom, top)
        streams = bottom[0].shape[1]
        shape = (streams, self._hidden)
        self._unit = Unit(self.ops, *shape)
        self._gates = {name: self.each_step(name, shape) for name in GATES}
        self._gate_grads = {name: self.scratch(name, shape) for name in GATE_GRADS}
        self._grad_c = self.scratch("grad_c", shape)

    def _tensors(self, step: int) -> dict[str, Tensor]:
        h, c = self._states["h"], self._states["c"]
        return {**{name: tensors[step] for name, tensors in self._gates.items()}, "cont": self._cont[step],
                "c_before": c[step], "c": c[step + 1], "h": h[step + 1]}

    def step_forward(self, step: int) -> None:
        self._unit.forward(self._x[step], self._tensors(step))

    def begin_backward(self, top: Tops) -> None:
        if self._exposed:
            self._copy.run({"x": top[2].grad, "y": self._grad_c})
        else:
            self._grad_c.clear()

    def step_backward(self, step: int) -> None:
        self._unit.backward({**self._tensors(step), **self._gate_grads, "grad_h": self._grad_h[step],
                             "grad_c": self._grad_c, "grad_c_before": self._grad_c}, self._x[step])

    def exposed_gradients(self, wanted: Sequence[bool], bottom: Bottoms) -> None:
        super().exposed_gradients(wanted, bottom)
        if wanted[1]:
            self._copy.run({"x": self._grad_c, "y": bottom[1].grad})
