"""Recurrent layers for gradient checks, and the prototxt of one."""

from __future__ import annotations

import numpy as np
from little_nets import Case, layer

from barista.net import Net


def recurrent(type_: str, bottom: str = "x cont", top: str = "y", hidden: int = 3, more: str = "",
              name: str = "layer") -> str:
    return layer(type_, bottom, top,
                 f"recurrent_param {{ num_output: {hidden} weight_filler {{ type: 'uniform' min: -1 max: 1 }} "
                 f"bias_filler {{ type: 'uniform' min: -1 max: 1 }} {more} }}", name)


EXPOSED = {"RNN": ("h0", "y hT"), "LSTM": ("h0 c0", "y hT cT")}


def exposed(type_: str, static: bool = False, hidden: int = 3) -> str:
    before, tops = EXPOSED[type_]
    return recurrent(type_, f"x cont {'s ' if static else ''}{before}", tops, hidden, "expose_hidden: true")


def resets(net: Net, rng: np.random.Generator) -> None:
    """Sequences begin at the first step, and some again later, so that passes do not depend on those before."""
    cont = net.blobs["cont"].data
    cont[...] = rng.choice([0, 1, 1], cont.shape)
    cont[0] = 0


def begun(net: Net, rng: np.random.Generator) -> None:
    """Sequences that go on from the states before, with a new one here and there."""
    cont = net.blobs["cont"].data
    cont[...] = 1
    cont[-1, 0] = 0


SEQUENCE = {"x": (4, 2, 3), "cont": (4, 2)}
RECURRENT = {
    "rnn": Case(recurrent("RNN"), SEQUENCE, fixed=("cont",), prepare=resets),
    "rnn_static": Case(recurrent("RNN", "x cont s"), {**SEQUENCE, "s": (2, 2, 2)}, fixed=("cont",), prepare=resets),
    "rnn_exposed": Case(exposed("RNN"), {**SEQUENCE, "h0": (1, 2, 3)}, fixed=("cont",), prepare=begun),
    "rnn_one_step": Case(exposed("RNN"), {"x": (1, 2, 3), "cont": (1, 2), "h0": (1, 2, 3)}, fixed=("cont",),
                         prepare=begun),
    "rnn_axes": Case(recurrent("RNN"), {"x": (2, 3, 2, 1, 2), "cont": (2, 3)}, fixed=("cont",), prepare=resets),
    "lstm": Case(recurrent("LSTM"), SEQUENCE, fixed=("cont",), prepare=resets),
    "lstm_static": Case(recurrent("LSTM", "x cont s"), {**SEQUENCE, "s": (2, 4)}, fixed=("cont",), prepare=resets),
    "lstm_exposed": Case(exposed("LSTM"), {**SEQUENCE, "h0": (1, 2, 3), "c0": (1, 2, 3)}, fixed=("cont",),
                         prepare=begun),
    "lstm_exposed_static": Case(exposed("LSTM", True), {**SEQUENCE, "s": (2, 2), "h0": (1, 2, 3), "c0": (1, 2, 3)},
                                fixed=("cont",), prepare=begun),
    "lstm_one_stream": Case(recurrent("LSTM", hidden=1), {"x": (5, 1, 1), "cont": (5, 1)}, fixed=("cont",),
                            prepare=resets),
    "lstm_chain": Case(recurrent("LSTM", "x cont", "h", 2, name="one") + recurrent("RNN", "h cont", "y", 3, name="two"),
                       SEQUENCE, fixed=("cont",), prepare=resets),
    "lstm_unit": Case(layer("LSTMUnit", "c0 x cont", "c h"),
                      {"c0": (1, 4, 2), "x": (1, 4, 8), "cont": ((1, 4), "labels2")}, fixed=("cont",)),
}
