"""LSTMUnit, RNN and LSTM: against loops over steps and gates, gradients by differences, states, wrong arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make
from recurrent_cases import EXPOSED, RECURRENT, exposed, recurrent

import barista
from barista.errors import NetError, ShapeError
from barista.net import Net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]


# ---- references: one stream, one step, one number at a time ----------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def unit_loop(c_before: Array, x: Array, cont: Array) -> tuple[Array, Array]:
    """c and h (N, D) of one step."""
    c, h = np.zeros_like(c_before), np.zeros_like(c_before)
    size = c_before.shape[1]
    for n in range(len(c)):
        for d in range(size):
            i, f, o = (sigmoid(x[n, gate * size + d]) for gate in range(3))
            g = np.tanh(x[n, 3 * size + d])
            c[n, d] = (cont[n] * f * c_before[n, d] if cont[n] else 0) + i * g
            h[n, d] = o * np.tanh(c[n, d])
    return c, h


def loop(type_: str, params: list[Array], x: Array, cont: Array, static: Array | None, h: Array,
         c: Array) -> tuple[Array, Array, Array]:
    """y (T, N, H), and h and c after the last step."""
    w_x, b, *rest = params
    w_static = rest.pop(0) if static is not None else None
    w_h, *out = rest
    y = []
    for step in range(len(x)):
        z = np.array([[w_x[row] @ x[step, n].reshape(-1) + b[row] + w_h[row] @ (cont[step, n] * h[n])
                       + (0 if w_static is None else w_static[row] @ static[n].reshape(-1))
                       for row in range(len(w_x))] for n in range(x.shape[1])])
        if type_ == "LSTM":
            c, h = unit_loop(c, z, cont[step])
            y.append(h)
        else:
            h = np.tanh(z)
            y.append(np.tanh(h @ out[0].T + out[1]))
    return np.array(y), h, c


def fill(net: Net, seed: int) -> None:
    """Inputs of all kinds; cont is 0 or 1, here and there between."""
    rng = np.random.default_rng(seed)
    for name in net.inputs:
        blob = net.blobs[name]
        blob.data[...] = rng.uniform(-2, 2, blob.shape)
        if name == "cont":
            blob.data[...] = rng.choice([0, 1, 1, 0.5], blob.shape)


def hold(net: Net, type_: str, h: Array, c: Array, tolerance: float = 1e-12) -> tuple[Array, Array]:
    """Run forward and hold everything against the loop from the states h and c; gives the states afterwards."""
    net.forward_pass()
    static = np.array(net.blobs["s"].data) if "s" in net.blobs else None
    params = [np.array(blob.data) for blob in net.params["layer"]]
    y, h, c = loop(type_, params, np.array(net.blobs["x"].data), np.array(net.blobs["cont"].data), static, h, c)
    np.testing.assert_allclose(net.blobs["y"].data, y, rtol=tolerance, atol=tolerance)
    for name, state in (("hT", h), ("cT", c)):
        if name in net.blobs:
            np.testing.assert_allclose(net.blobs[name].data[0], state, rtol=tolerance, atol=tolerance)
    return h, c


SHAPES = {"type_": st.sampled_from(["RNN", "LSTM"]), "steps": st.integers(1, 5), "streams": st.integers(1, 4),
          "tail": st.lists(st.integers(1, 3), min_size=1, max_size=3), "hidden": st.integers(1, 4),
          "static": st.none() | st.lists(st.integers(1, 3), min_size=1, max_size=2), "seed": st.integers(0, 99)}


@settings(max_examples=25, deadline=None)
@given(**SHAPES)
def test_exposed_against_a_loop(cpu64: CpuOps, type_: str, steps: int, streams: int, tail: list[int], hidden: int,
                                static: list[int] | None, seed: int) -> None:
    shapes = {"x": (steps, streams, *tail), "cont": (steps, streams)}
    if static:
        shapes["s"] = (streams, *static)
    shapes.update({name: (1, streams, hidden) for name in EXPOSED[type_][0].split()})
    net = make(inputs(**shapes) + exposed(type_, bool(static), hidden), cpu64)
    fill(net, seed)
    hold(net, type_, np.array(net.blobs["h0"].data[0]),
         np.array(net.blobs["c0"].data[0]) if type_ == "LSTM" else np.zeros(0))


@settings(max_examples=15, deadline=None)
@given(**SHAPES)
def test_states_are_carried_from_pass_to_pass(cpu64: CpuOps, type_: str, steps: int, streams: int, tail: list[int],
                                              hidden: int, static: list[int] | None, seed: int) -> None:
    shapes = {"x": (steps, streams, *tail), "cont": (steps, streams)}
    if static:
        shapes["s"] = (streams, *static)
    net = make(inputs(**shapes) + recurrent(type_, "x cont s" if static else "x cont", hidden=hidden), cpu64)
    h = c = np.zeros((streams, hidden))
    for turn in range(3):
        fill(net, seed + turn)
        h, c = hold(net, type_, h, c)


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_every_op_set_computes_the_same(type_: str, ops: OpSet, cpu64: CpuOps) -> None:
    """Values against the loop, gradients against float64."""
    shapes = {"x": (3, 2, 4), "cont": (3, 2), "s": (2, 2),
              **dict.fromkeys(EXPOSED[type_][0].split(), (1, 2, 3))}
    nets = [make(inputs(**shapes) + exposed(type_, True), op_set) for op_set in (cpu64, ops)]
    for net in nets:
        fill(net, 3)
        for one, other in zip(net.params["layer"], nets[0].params["layer"], strict=True):
            one.data[...] = other.data
        hold(net, type_, np.array(net.blobs["h0"].data[0]), np.array(net.blobs[net.inputs[-1]].data[0]), 2e-4)
        for number, name in enumerate(net.outputs):
            net.blobs[name].diff[...] = np.random.default_rng(number).uniform(-1, 1, net.blobs[name].shape)
        net.clear_param_diffs()
        net.backward_pass()
    for name in nets[0].inputs:
        np.testing.assert_allclose(nets[1].blobs[name].diff, nets[0].blobs[name].diff, rtol=2e-3, atol=2e-4)
    for one, other in zip(*(net.params["layer"] for net in nets), strict=True):
        np.testing.assert_allclose(one.diff, other.diff, rtol=2e-3, atol=2e-3)


@settings(max_examples=15, deadline=None)
@given(streams=st.integers(1, 5), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_lstm_unit_against_a_loop(cpu64: CpuOps, streams: int, size: int, seed: int) -> None:
    net = make(inputs(c0=(1, streams, size), x=(1, streams, 4 * size), cont=(1, streams))
               + layer("LSTMUnit", "c0 x cont", "c h"), cpu64)
    fill(net, seed)
    net.forward_pass()
    c, h = unit_loop(np.array(net.blobs["c0"].data[0]), net.blobs["x"].data[0], net.blobs["cont"].data[0])
    np.testing.assert_allclose(net.blobs["c"].data[0], c, rtol=1e-12)
    np.testing.assert_allclose(net.blobs["h"].data[0], h, rtol=1e-12)


# ---- gradients, beside those in test_gradients ------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["c0", "x"])
def test_lstm_unit_leaves_other_gradients_alone(wanted: str, cpu64: CpuOps) -> None:
    """Asked for one gradient it writes that one alone, and the same as where both are asked for."""
    net = make(inputs(c0=(1, 3, 2), x=(1, 3, 8), cont=(1, 3)) + layer("LSTMUnit", "c0 x cont", "c h"), cpu64)
    fill(net, 1)
    net.forward_pass()
    bottom, top = ([net.blobs[name] for name in names] for names in (("c0", "x", "cont"), ("c", "h")))
    for blob in (*bottom, *top):
        blob.diff[...] = 7
    net.layers[-1].backward(top, [True, True, False], bottom)
    both = {name: np.array(net.blobs[name].diff) for name in ("c0", "x")}
    for blob in bottom:
        blob.diff[...] = 7
    net.layers[-1].backward(top, [wanted == "c0", wanted == "x", False], bottom)
    for name, gradient in both.items():
        assert not (gradient == 7).any()
        np.testing.assert_array_equal(net.blobs[name].diff, gradient if name == wanted else np.full_like(gradient, 7))


def test_first_step_forgets_what_was_carried(cpu64: CpuOps) -> None:
    net = RECURRENT["lstm"].net(cpu64)
    net.forward_pass()
    first = np.array(net.blobs["y"].data)
    net.forward_pass()
    np.testing.assert_array_equal(net.blobs["y"].data, first)


# ---- life -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_reset(type_: str, cpu64: CpuOps) -> None:
    net = make(inputs(x=(2, 2, 3), cont=(2, 2)) + recurrent(type_), cpu64)
    fill(net, 1)
    net.blobs["cont"].data[...] = 1
    net.forward_pass()
    first = np.array(net.blobs["y"].data)
    net.forward_pass()
    assert not np.array_equal(net.blobs["y"].data, first)
    net.layers[-1].reset()
    net.forward_pass()
    np.testing.assert_array_equal(net.blobs["y"].data, first)


def test_state_goes_on_in_another_net(cpu64: CpuOps) -> None:
    """What a resumed run needs: the states after the last step; none where they are bottoms."""
    text = inputs(x=(2, 2, 3), cont=(2, 2)) + recurrent("LSTM")
    nets = [make(text, cpu64) for _ in range(2)]
    for net in nets:
        fill(net, 5)
        net.blobs["cont"].data[...] = 1
        for one, other in zip(net.params["layer"], nets[0].params["layer"], strict=True):
            one.data[...] = other.data
    nets[0].forward_pass()
    nets[1].layers[-1].restore(nets[0].layers[-1].state())
    for net in nets:
        net.forward_pass()
    np.testing.assert_array_equal(nets[0].blobs["y"].data, nets[1].blobs["y"].data)
    shown = make(inputs(x=(2, 2, 3), cont=(2, 2), h0=(1, 2, 3)) + exposed("RNN"), cpu64)
    assert shown.layers[-1].carried() == ()


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_other_numbers_of_streams(type_: str, cpu64: CpuOps) -> None:
    net = make(inputs(x=(3, 2, 4), cont=(3, 2)) + recurrent(type_), cpu64)
    for streams in (2, 5, 1, 3):
        net.blobs["x"].reshape(3, streams, 4)
        net.blobs["cont"].reshape(3, streams)
        net.reshape()
        fill(net, streams)
        net.blobs["cont"].data[0] = 0
        hold(net, type_, np.zeros((streams, 3)), np.zeros((streams, 3)))
        net.blobs["y"].diff[...] = 1
        net.clear_param_diffs()
        net.backward_pass()
        assert np.isfinite(net.blobs["x"].diff).all()
        assert np.abs(net.blobs["x"].diff).max() > 0


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_memory_in_turns(type_: str, cpu: CpuOps) -> None:
    """Planned memory gives the same gradients: nothing is read that others have overwritten."""
    text = (inputs(x=(3, 2, 4), cont=(3, 2), t=(3, 2, 2))
            + layer("InnerProduct", "x", "a", "inner_product_param { num_output: 4 axis: 2 weight_filler { type: "
                    "'xavier' } }", "one")
            + recurrent(type_, "a cont", "b", name="two")
            + recurrent(type_, "b cont", "c", name="three")
            + layer("InnerProduct", "c", "d", "inner_product_param { num_output: 2 axis: 2 weight_filler { type: "
                    "'xavier' } }", "four") + layer("EuclideanLoss", "d t", "loss", name="five"))
    nets = [make(text, cpu, plan_memory=plan, head="") for plan in (False, True)]
    for one, other in zip(*(net.learnable for net in nets), strict=True):
        other.blob.data[...] = one.blob.data
    for net in nets:
        for turn in range(2):
            fill(net, turn)
            net.forward_pass()
            net.clear_param_diffs()
            net.backward_pass()
    for one, other in zip(*(net.learnable for net in nets), strict=True):
        assert np.abs(one.blob.diff).max() > 0
        np.testing.assert_array_equal(one.blob.diff, other.blob.diff)


def test_parameters_in_caffes_order(cpu: CpuOps) -> None:
    shapes = inputs(x=(2, 5, 3, 2), cont=(2, 5), s=(5, 7))
    lstm = make(shapes + recurrent("LSTM", "x cont s", hidden=4), cpu)
    rnn = make(shapes + recurrent("RNN", "x cont s", hidden=4), cpu)
    assert [blob.shape for blob in lstm.params["layer"]] == [(16, 6), (16,), (16, 7), (16, 4)]
    assert [blob.shape for blob in rnn.params["layer"]] == [(4, 6), (4,), (4, 7), (4, 4), (4, 4), (4,)]
    assert lstm.blobs["y"].shape == (2, 5, 4)


def test_gradients_of_frozen_parameters_are_there(cpu64: CpuOps) -> None:
    """As in Caffe."""
    text = inputs(x=(2, 2, 3), cont=(2, 2)) + recurrent("LSTM").replace(
        "recurrent_param", "param { lr_mult: 0 } param { lr_mult: 1 } param { lr_mult: 0 } recurrent_param")
    net = make(text, cpu64, head="")
    fill(net, 1)
    net.forward_pass()
    net.clear_param_diffs()
    net.blobs["y"].diff[...] = 1
    net.layers[-1].backward([net.blobs["y"]], [False, False], [net.blobs["x"], net.blobs["cont"]])
    assert all(np.abs(blob.diff).max() > 0 for blob in net.params["layer"])
    assert not net.blobs["x"].diff.any()


def test_debug_info_says_that_there_is_no_net(cpu: CpuOps, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "barista"):
        make(inputs(x=(2, 2, 3), cont=(2, 2)) + recurrent("LSTM", more="debug_info: true"), cpu)
    assert "layer (LSTM): debug_info has nothing to add, since there is no net inside the layer" in caplog.text


# ---- wrong arguments ------------------------------------------------------------------------------------

X = {"x": (2, 3, 4), "cont": (2, 3)}
STATES = {"h0": (1, 3, 3), "c0": (1, 3, 3)}
WRONG = {
    "num_output": (recurrent("LSTM", hidden=0), X, "num_output is missing; give 1 or more"),
    "few": (exposed("LSTM").replace("bottom: 'c0'", ""), {**X, "h0": (1, 3, 3)},
            "with expose_hidden: true takes the bottoms x, cont, (maybe a static input), h_0, c_0 and the tops y, h_T, "
            "c_T, got 3 bottom(s) and 3 top(s)"),
    "many": (recurrent("RNN", "x cont h0 c0"), {**X, **STATES},
             "with expose_hidden: false takes the bottoms x, cont, (maybe a static input) and the tops y, got 4 "
             "bottom(s) and 1 top(s)"),
    "tops": (recurrent("RNN", top="y hT"), X, "got 2 bottom(s) and 2 top(s)"),
    "axes": (recurrent("RNN"), {"x": (2, 3), "cont": (2, 3)},
             "x must be (T, N, ...): T steps of N streams of at least one more axis; it has shape (2, 3)"),
    "many_steps": (recurrent("RNN"), {"x": (10_001, 1, 2), "cont": (10_001, 1)},
                   "x (10001, 1, 2) has 10001 steps; the limit is 10000. Cut sequences into parts"),
    "no_steps": (recurrent("RNN"), {"x": (0, 3, 4), "cont": (0, 3)}, "it has shape (0, 3, 4)"),
    "cont": (recurrent("LSTM"), {"x": (2, 3, 4), "cont": (3, 2)},
             "cont must have shape (2, 3), one number for each step and stream of x (2, 3, 4); it has (3, 2)"),
    "static": (recurrent("LSTM", "x cont s"), {**X, "s": (2, 5)},
               "the static input s must be (N, ...) with the N=3 streams of x (2, 3, 4); it has shape (2, 5)"),
    "static_axes": (recurrent("LSTM", "x cont s"), {**X, "s": (3,)}, "it has shape (3,)"),
    "state": (exposed("LSTM"), {**X, **STATES, "c0": (1, 2, 3)},
              "c_0 (c0) must have shape (1, 3, 3); it has (1, 2, 3)"),
    "in_place": (recurrent("LSTM", top="x", hidden=4), X, "cannot work in place; give every top a name of its own"),
    "unit_axes": (layer("LSTMUnit", "c0 x cont", "c h"), {"c0": (3, 2), "x": (1, 3, 8), "cont": (1, 3)},
                  "c before must be (1, N, D), one step of N streams; it has shape (3, 2)"),
    "unit_x": (layer("LSTMUnit", "c0 x cont", "c h"), {"c0": (1, 3, 2), "x": (1, 3, 6), "cont": (1, 3)},
               "x must have shape (1, 3, 8), four gates for each cell of c before (1, 3, 2); it has (1, 3, 6)"),
    "unit_cont": (layer("LSTMUnit", "c0 x cont", "c h"), {"c0": (1, 3, 2), "x": (1, 3, 8), "cont": (3,)},
                  "cont must have shape (1, 3), one number for each stream of c before (1, 3, 2); it has (3,)"),
    "unit_in_place": (layer("LSTMUnit", "c0 x cont", "c0 h"), {"c0": (1, 3, 2), "x": (1, 3, 8), "cont": (1, 3)},
                      "cannot work in place; give every top a name of its own"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str, cpu: CpuOps) -> None:
    text, shapes, message = WRONG[name]
    with pytest.raises(NetError) as caught:
        make(inputs(**shapes) + text, cpu)
    assert str(caught.value).startswith("layer (")
    assert message in str(caught.value)


def test_wrong_shapes_later(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 3, 4), cont=(2, 3), s=(3, 2)) + recurrent("LSTM", "x cont s"), cpu)
    for shapes, message in (
            ({"x": (4, 3, 4), "cont": (4, 3)}, r"was set up for 2 steps; x \(4, 3, 4\) has 4. Give sequences of one"),
            ({"x": (2, 3, 5)}, "was set up for 4 numbers a step of x; now it has 5"),
            ({"s": (3, 4)}, "was set up for 2 numbers a step of the static input; now it has 4")):
        before = {name: net.blobs[name].shape for name in shapes}
        for name, shape in shapes.items():
            net.blobs[name].reshape(*shape)
        with pytest.raises(ShapeError, match=message):
            net.reshape()
        for name, shape in before.items():
            net.blobs[name].reshape(*shape)


@pytest.mark.parametrize(("text", "names"), [(recurrent("RNN"), "x cont"),
                                             (layer("LSTMUnit", "c0 x cont", "c h"), "c0 x cont")])
def test_no_gradient_of_cont(text: str, names: str, cpu: CpuOps) -> None:
    shapes = {"c0": (1, 3, 2), "x": (1, 3, 8), "cont": (1, 3)}
    net = make(inputs(**{name: shapes[name] for name in names.split()}) + text, cpu, barista.TEST)
    net.forward_pass()
    tested = net.layers[-1]
    bottom = [net.blobs[name] for name in names.split()]
    with pytest.raises(NetError, match="has no gradient with respect to cont; set propagate_down: false for it"):
        tested.backward([net.blobs[name] for name in tested.param.top], [True] * len(bottom), bottom)
