"""LSTM and RNN: over whole sequences in both directions.

An LSTM as Caffe's layer has it becomes that layer.  All others (an RNN, whose output is its state, where Caffe's has
one more product; peepholes, other activations, sequences of several lengths) are written out step after step, with
layers that share their weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from .converter import Array, Converter, handler
from .layout import permute, reshape
from .node import Node
from .ops_activation import function
from .ops_shape import BEFORE_ALL, cut

# ONNX's order of the gates of an LSTM is i, o, f, c, Caffe's i, f, o, g.
_CAFFE_GATES = (0, 2, 1, 3)

_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}
# Activations that have parameters, and what these are where they are not given.
_PARAMETERS = {"LeakyRelu": [0.01], "Elu": [1.0], "ThresholdedRelu": [1.0], "HardSigmoid": [0.2, 0.5],
               "Affine": [1.0, 0.0], "ScaledTanh": [1.0, 1.0]}


@dataclasses.dataclass(frozen=True)
class _Activation:
    """A function of a gate: its name in ONNX, and its alpha and beta."""

    name: str
    values: tuple[float, ...] = ()


@dataclasses.dataclass
class _Direction:
    """One direction: its weights, and names of values of its own.

    Attributes
    ----------
    name : what its values' names begin with
    w, r : weights of the input and of the state
    bias : what both biases add up to
    peepholes : of the gates i, o, f, or None
    activations : in ONNX's order
    reverse : whether it runs from the last step to the first
    h, c : the states before the first step, (1, N, H); '' where they are 0
    """

    name: str
    w: Array
    r: Array
    bias: Array
    peepholes: Array | None
    activations: list[_Activation]
    reverse: bool
    h: str
    c: str

    @property
    def hidden(self) -> int:
        """Numbers of a state."""
        return int(self.r.shape[1])

    @property
    def plain(self) -> bool:
        """Whether its weights and activations are those of Caffe's LSTM."""
        return self.peepholes is None and [a.name for a in self.activations] == _ACTIVATIONS["LSTM"]


@handler("LSTM", "RNN")
def _recurrent(converter: Converter, node: Node) -> None:
    x = node.input(0)
    batch_first = bool(node.attr("layout", 0))
    if batch_first:
        turned = converter.fresh(f"{node.outputs[0] or node.outputs[1]}_x")
        permute(converter, x, turned, (1, 0, 2))
        x = turned
    steps, streams, _ = converter.shape(x)
    lengths = _lengths(converter, node, steps, streams)
    directions = _directions(converter, node, batch_first)
    plain = node.op == "LSTM" and lengths is None and not node.attr("clip") and not node.attr("input_forget", 0)
    plain = plain and all(direction.plain for direction in directions)
    # What the last states are called where nothing is to be done to them.
    last = ("", "") if batch_first or len(directions) > 1 else (node.output(1), node.output(2))
    results = []
    for direction in directions:
        if plain:
            results.append(_layer(converter, direction, x, last, bool(node.output(1)), bool(node.output(2))))
        else:
            results.append(_Unrolled(converter, node, direction, steps, streams, lengths).run(x))
    size = directions[0].hidden
    _give(converter, node, [y for y, *_ in results], (steps, streams, size), batch_first)
    _give_states(converter, node.output(1), [h for _, h, _ in results], (streams, size), batch_first)
    _give_states(converter, node.output(2), [c for *_, c in results], (streams, size), batch_first)


# ---- what a node says -------------------------------------------------------------------------------------


def _lengths(converter: Converter, node: Node, steps: int, streams: int) -> Array | None:
    """Steps of each sequence; None where all have as many as the input."""
    if not node.input(4):
        return None
    lengths = converter.need(node, 4, "the lengths of the sequences").reshape(-1)
    if lengths.size != streams or lengths.min() < 0 or lengths.max() > steps:
        converter.unsupported(node, f"the lengths {lengths.tolist()} of its sequences do not fit {streams} sequences "
                                    f"of at most {steps} steps")
    return None if (lengths == steps).all() else lengths


def _directions(converter: Converter, node: Node, batch_first: bool) -> list[_Direction]:
    w, r = converter.need(node, 1, "the weights"), converter.need(node, 2, "the recurrent weights")
    hidden = r.shape[2]
    bias = converter.need(node, 3, "the biases") if node.input(3) else np.zeros((len(w), 2 * w.shape[1]), w.dtype)
    peepholes = converter.need(node, 7, "the peepholes") if node.op == "LSTM" and node.input(7) else None
    way, size = node.attr("direction", "forward"), node.attr("hidden_size")
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(way)
    if ways is None or len(ways) != len(w):
        converter.unsupported(node, f"direction {way!r} does not fit weights of {len(w)} direction(s)")
    if size not in (None, hidden):
        converter.unsupported(node, f"hidden_size={size} contradicts the weights, which have {hidden}")
    activations = _activations(converter, node, len(ways))
    states = [_first_states(converter, node.input(index) if index == 5 or node.op == "LSTM" else "", len(ways),
                            batch_first) for index in (5, 6)]
    half = w.shape[1]
    return [_Direction(converter.fresh(f"{next(filter(None, node.outputs))}_{'backward' if reverse else 'forward'}"),
                       w[i], r[i], bias[i][:half] + bias[i][half:], None if peepholes is None else peepholes[i],
                       activations[i], reverse, states[0][i], states[1][i])
            for i, reverse in enumerate(ways)]


def _activations(converter: Converter, node: Node, directions: int) -> list[list[_Activation]]:
    """The activations of each direction; alphas and betas go to those that have any, in order."""
    defaults = _ACTIVATIONS[node.op]
    names = node.attr("activations") if node.has("activations") else defaults * directions
    if len(names) != len(defaults) * directions:
        converter.unsupported(node, f"has {len(names)} activations; {len(defaults)} are needed for each direction")
    alphas, betas = (iter(node.attr(name) or []) for name in ("activation_alpha", "activation_beta"))
    known = {name.lower(): name for name in ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", *_PARAMETERS)}
    found = []
    for name in names:
        if name.lower() not in known:
            converter.unsupported(node, f"the activation {name!r} is none of {', '.join(known.values())}")
        proper = known[name.lower()]
        own = _PARAMETERS.get(proper, [])
        values = [next(given, default) for given, default in zip((alphas, betas), own, strict=False)]
        found.append(_Activation(proper, tuple(values)))
    return [found[i * len(defaults):(i + 1) * len(defaults)] for i in range(directions)]


def _first_states(converter: Converter, name: str, directions: int, batch_first: bool) -> list[str]:
    """The states (1, N, H) before the first step of each direction, '' where there are none."""
    if not name:
        return [""] * directions
    if batch_first:
        turned = converter.fresh(f"{name}_turned")
        permute(converter, name, turned, (1, 0, 2))
        name = turned
    if directions == 1:
        return [name]
    parts = [converter.fresh(f"{name}_{index}") for index in range(directions)]
    converter.layer("Slice", [name], parts, slice_param={"axis": 0})
    return parts


# ---- Caffe's layer ----------------------------------------------------------------------------------------


def _layer(converter: Converter, direction: _Direction, x: str, last: tuple[str, str], wants_h: bool,
           wants_c: bool) -> tuple[str, str, str]:
    """An LSTM as Caffe has it: y (T, N, H) in order of time, and those last states (1, N, H) that are wanted.

    Parameters
    ----------
    last : names that the states take, '' for any
    """
    steps, streams, _ = converter.shape(x)
    if direction.reverse:
        turned = converter.fresh(f"{direction.name}_x")
        cut(converter, x, turned, 0, -1, BEFORE_ALL, -1)
        x = turned
    exposed = bool(direction.h or direction.c or wants_c)
    # The state is forgotten before the first step, unless it is given.
    cont = np.ones((steps, streams), np.float32)
    cont[0] = float(exposed)
    bottoms = [x, _constant(converter, f"{direction.name}_cont", cont)]
    tops = [converter.fresh(f"{direction.name}_y")]
    size = direction.hidden
    if exposed:
        zeros = np.zeros((1, streams, size), np.float32)
        bottoms += [state or _constant(converter, f"{direction.name}_{what}_first", zeros)
                    for what, state in (("h", direction.h), ("c", direction.c))]
        tops += [name or converter.fresh(f"{direction.name}_{what}") for what, name in zip("hc", last, strict=True)]
    order = np.concatenate([np.arange(size) + gate * size for gate in _CAFFE_GATES])
    converter.layer("LSTM", bottoms, tops, blobs=[direction.w[order], direction.bias[order], direction.r[order]],
                    name=direction.name, recurrent_param={"num_output": size, "expose_hidden": exposed})
    y = tops[0]
    last_h, last_c = tops[1:] if exposed else ["", ""]
    if wants_h and not exposed:
        last_h = last[0] or converter.fresh(f"{direction.name}_h")
        cut(converter, y, last_h, 0, steps - 1, steps)
    if direction.reverse:
        ordered = converter.fresh(f"{direction.name}_in_time")
        cut(converter, y, ordered, 0, -1, BEFORE_ALL, -1)
        y = ordered
    return y, last_h, last_c


def _constant(converter: Converter, hint: str, value: Array) -> str:
    name = converter.fresh(hint)
    converter.set_constant(name, value)
    return name


# ---- step after step --------------------------------------------------------------------------------------


class _Unrolled:
    """One direction, written out.

    Parameters
    ----------
    steps, streams : T and N
    lengths : steps of each sequence, or None where all have T
    """

    def __init__(self, converter: Converter, node: Node, direction: _Direction, steps: int, streams: int,
                 lengths: Array | None) -> None:
        self._converter, self._direction = converter, direction
        self._lstm, self._clip = node.op == "LSTM", float(node.attr("clip") or 0.0)
        self._coupled = bool(node.attr("input_forget", 0))
        self._steps, self._streams, self._lengths = steps, streams, lengths
        self._made: set[str] = set()

    def run(self, x: str) -> tuple[str, str, str]:
        """The layers: y (T, N, H) in order of time, and the last states (1, N, H)."""
        direction = self._direction
        everything = self._name("x")
        self._converter.layer("InnerProduct", [x], [everything], blobs=[direction.w, direction.bias], name=everything,
                              inner_product_param={"num_output": len(direction.w), "axis": 2})
        inputs = [self._name(f"x_{t}") for t in range(self._steps)] if self._steps > 1 else [everything]
        if self._steps > 1:
            self._converter.layer("Slice", [everything], inputs, slice_param={"axis": 0})
        h, c, shown = direction.h, direction.c, [""] * self._steps
        for t in reversed(range(self._steps)) if direction.reverse else range(self._steps):
            new_h, new_c = self._step(inputs[t], h, c, t)
            mask = None if self._lengths is None else (t < self._lengths).astype(np.float32).reshape(1, -1, 1)
            if mask is None or mask.all():
                h, c, shown[t] = new_h, new_c, new_h
            else:
                shown[t] = self._masked(new_h, mask, f"y_{t}")
                h = self._kept(shown[t], h, mask, f"h_{t}")
                c = self._kept(self._masked(new_c, mask, f"seen_c_{t}"), c, mask, f"c_{t}") if new_c else ""
        y = shown[0]
        if self._steps > 1:
            y = self._name("y")
            self._converter.layer("Concat", shown, [y], concat_param={"axis": 0})
        return y, h, c

    def _step(self, x: str, h: str, c: str, t: int) -> tuple[str, str]:
        """The states after a step from those before; '' stands for 0."""
        total = x
        if h:
            from_h, total = self._name(f"from_h_{t}"), self._name(f"z_{t}")
            self._shared("InnerProduct", h, from_h, "r", self._direction.r, inner_product_param={
                "num_output": len(self._direction.r), "axis": 2, "bias_term": False})
            self._eltwise("SUM", [x, from_h], total)
        if not self._lstm:
            return self._activate(total, 0, f"h_after_{t}"), ""
        gates = [self._name(f"{gate}_in_{t}") for gate in "iofc"]
        self._converter.layer("Slice", [total], gates, slice_param={"axis": 2})
        i = self._activate(self._peep(gates[0], c, 0, f"i_{t}"), 0, f"i_{t}")
        g = self._activate(gates[3], 1, f"g_{t}")
        new = self._product(i, g, f"ig_{t}")
        if c:
            if self._coupled:
                f = self._name(f"f_{t}")
                self._converter.layer("Power", [i], [f], power_param={"scale": -1, "shift": 1})
            else:
                f = self._activate(self._peep(gates[2], c, 2, f"f_{t}"), 0, f"f_{t}")
            after = self._name(f"c_after_{t}")
            self._eltwise("SUM", [self._product(f, c, f"fc_{t}"), new], after)
            new = after
        o = self._activate(self._peep(gates[1], new, 1, f"o_{t}"), 0, f"o_{t}")
        squashed = self._activate(new, 2, f"squashed_{t}", clip=False)
        return self._product(o, squashed, f"h_after_{t}"), new

    def _peep(self, gate: str, c: str, which: int, name: str) -> str:
        """What goes into a gate, with what it sees of the cell."""
        peepholes, size = self._direction.peepholes, self._direction.hidden
        if peepholes is None or not c:
            return gate
        seen, total = self._name(f"{name}_peep"), self._name(f"{name}_sum")
        self._shared("Scale", c, seen, f"p{which}", peepholes[which * size:(which + 1) * size], scale_param={"axis": 2})
        self._eltwise("SUM", [gate, seen], total)
        return total

    def _activate(self, x: str, which: int, name: str, clip: bool = True) -> str:
        converter, activation = self._converter, self._direction.activations[which]
        if clip and self._clip:
            clipped = self._name(f"{name}_clipped")
            converter.layer("Clip", [x], [clipped], clip_param={"min": -self._clip, "max": self._clip})
            x = clipped
        y = self._name(name)
        alpha, beta = (*activation.values, 0.0, 0.0)[:2]
        if activation.name in ("Sigmoid", "Tanh", "Relu", "Softplus"):
            converter.layer({"Tanh": "TanH", "Relu": "ReLU", "Softplus": "BNLL"}.get(activation.name, activation.name),
                            [x], [y])
        elif activation.name == "LeakyRelu":
            converter.layer("ReLU", [x], [y], relu_param={"negative_slope": alpha})
        elif activation.name == "Elu":
            converter.layer("ELU", [x], [y], elu_param={"alpha": alpha})
        elif activation.name == "Affine":
            converter.layer("Power", [x], [y], power_param={"scale": alpha, "shift": beta})
        elif activation.name == "ScaledTanh":
            inner, outer = self._name(f"{name}_inner"), self._name(f"{name}_tanh")
            converter.layer("Power", [x], [inner], power_param={"scale": beta})
            converter.layer("TanH", [inner], [outer])
            converter.layer("Power", [outer], [y], power_param={"scale": alpha})
        elif activation.name == "HardSigmoid":
            function(converter, "HARD_SIGMOID", x, y, alpha=alpha, beta=beta)
        elif activation.name == "ThresholdedRelu":
            function(converter, "THRESHOLDED_RELU", x, y, alpha=alpha)
        else:
            function(converter, "SOFTSIGN", x, y)
        return y

    def _masked(self, x: str, mask: Array, name: str) -> str:
        """x where the sequence goes on, else 0."""
        y = self._name(name)
        self._converter.layer("Binary", [x, _constant(self._converter, f"{y}_mask", mask)], [y],
                              binary_param={"operation": "MUL"})
        return y

    def _kept(self, new: str, old: str, mask: Array, name: str) -> str:
        """The masked new state, with the old one where the sequence has ended."""
        if not old:
            return new
        y = self._name(name)
        self._eltwise("SUM", [new, self._masked(old, 1 - mask, f"{name}_old")], y)
        return y

    def _product(self, a: str, b: str, name: str) -> str:
        y = self._name(name)
        self._eltwise("PROD", [a, b], y)
        return y

    def _eltwise(self, operation: str, inputs: Sequence[str], y: str) -> None:
        self._converter.layer("Eltwise", inputs, [y], eltwise_param={"operation": operation})

    def _shared(self, type: str, x: str, y: str, which: str, weights: Array, **params: object) -> None:
        """A layer whose weights are those of all steps; the first one carries them."""
        name = f"{self._direction.name}_{which}"
        blobs = [] if name in self._made else [weights]
        self._made.add(name)
        self._converter.layer(type, [x], [y], blobs=blobs, name=y, param=[{"name": name}], **params)

    def _name(self, what: str) -> str:
        return self._converter.fresh(f"{self._direction.name}_{what}")


# ---- outputs ----------------------------------------------------------------------------------------------


def _give(converter: Converter, node: Node, ys: list[str], shape: tuple[int, int, int], batch_first: bool) -> None:
    """Y (T, D, N, H), or (N, T, D, H), from (T, N, H) of each direction."""
    name = node.output(0)
    if not name:
        return
    steps, streams, size = shape
    parts = [converter.fresh(f"{name}_{index}") if len(ys) > 1 or batch_first else name for index in range(len(ys))]
    for y, part in zip(ys, parts, strict=True):
        converter.set_shape(y, shape)
        reshape(converter, y, part, shape, (steps, 1, streams, size))
    both = _joined(converter, name, parts, 1, batch_first)
    if batch_first:
        converter.set_shape(both, (steps, len(ys), streams, size))
        permute(converter, both, name, (2, 0, 1, 3))


def _give_states(converter: Converter, name: str, states: list[str], shape: tuple[int, int], batch_first: bool) -> None:
    """Y_h or Y_c (D, N, H), or (N, D, H), from (1, N, H) of each direction."""
    if not name:
        return
    both = _joined(converter, name, states, 0, batch_first)
    converter.set_shape(both, (len(states), *shape))
    if batch_first:
        permute(converter, both, name, (1, 0, 2))
    elif both != name:
        converter.alias(name, both)


def _joined(converter: Converter, name: str, parts: Sequence[str], axis: int, more: bool) -> str:
    """Both directions in one value: `name`, unless there is more to do."""
    if len(parts) == 1:
        return parts[0]
    both = converter.fresh(f"{name}_both") if more else name
    converter.layer("Concat", parts, [both], concat_param={"axis": axis})
    return both
