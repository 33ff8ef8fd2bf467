"""LSTM and RNN of ONNX: Caffe's layer, or steps that share their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, against which this holds Barista, is not installed")

from onnx_nodes import expected, layers, run, types

from barista.errors import UnsupportedError
from barista.net import Net
from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]
T, N, WIDTH, H = 4, 3, 5, 2
GATES = {"LSTM": 4, "RNN": 1}


def arguments(op: str, directions: int = 1, bias: bool = True, lengths: Array | None = None, states: bool = False,
              peepholes: bool = False, batch_first: bool = False) -> list[Array | None]:
    """Inputs of a node, with weights from a fixed seed."""
    rng = np.random.default_rng(11)

    def array(*shape: int) -> Array:
        return rng.normal(0, 0.6, shape).astype(np.float32)

    rows = GATES[op] * H
    first = (N, directions, H) if batch_first else (directions, N, H)
    found: list[Array | None] = [
        array(*((N, T, WIDTH) if batch_first else (T, N, WIDTH))),
        array(directions, rows, WIDTH), array(directions, rows, H),
        array(directions, 2 * rows) if bias else None, lengths, array(*first) if states else None]
    if op == "LSTM":
        found += [array(*first) if states else None, array(directions, 3 * H) if peepholes else None]
    while found[-1] is None:
        found.pop()
    return found


def same(op: str, inputs: list[Array | None], **more: Any) -> None:
    """Barista and ONNX Runtime compute the same three outputs."""
    outputs = 3 if op == "LSTM" else 2
    more |= {"hidden_size": H, "outputs": outputs, "constant": [1, 2, 3, 7][:3 + (op == "LSTM" and len(inputs) == 8)]}
    more["constant"] = [index for index in more["constant"] if index < len(inputs) and inputs[index] is not None]
    for got, wanted in zip(run(op, inputs, **more), expected(op, inputs, **more), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["LSTM", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("states", [False, True])
def test_directions_and_first_states(op: str, direction: str, states: bool) -> None:
    directions = 2 if direction == "bidirectional" else 1
    same(op, arguments(op, directions, states=states), direction=direction)
    same(op, arguments(op, directions, bias=False), direction=direction)


@pytest.mark.parametrize("op", ["LSTM", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_sequences_of_several_lengths(op: str, direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    for states in (False, True):
        same(op, arguments(op, directions, lengths=np.array([4, 1, 2], np.int32), states=states), direction=direction)


def test_peepholes_and_clipped_gates() -> None:
    same("LSTM", arguments("LSTM", peepholes=True, states=True))
    same("LSTM", arguments("LSTM", 2, peepholes=True), direction="bidirectional")
    same("LSTM", arguments("LSTM"), clip=0.4)
    same("RNN", arguments("RNN"), clip=0.4)


@pytest.mark.parametrize(("op", "more"), [
    ("RNN", {"activations": ["Relu"]}), ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ("LSTM", {"activations": ["HardSigmoid", "Softsign", "Relu"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
    ("LSTM", {"activations": ["Sigmoid", "ScaledTanh", "Tanh"], "activation_alpha": [0.7], "activation_beta": [0.9]}),
])
def test_other_activations(op: str, more: dict[str, Any]) -> None:
    same(op, arguments(op), **more)


def test_batch_first() -> None:
    """ONNX Runtime does not know this layout: it is held against the other one."""
    for op in GATES:
        inputs = arguments(op, 2, states=True, batch_first=True)
        turned = [np.swapaxes(array, 0, 1) if index in (0, 5, 6) and array is not None else array
                  for index, array in enumerate(inputs)]
        more: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional", "constant": [1, 2, 3], "outputs": 2}
        y, last = run(op, inputs, layout=1, **more)
        wanted, wanted_last = run(op, turned, **more)
        np.testing.assert_allclose(y, wanted.transpose(2, 0, 1, 3), rtol=1e-6)
        np.testing.assert_allclose(last, wanted_last.transpose(1, 0, 2), rtol=1e-6)


def test_a_plain_lstm_is_one_layer() -> None:
    assert types("LSTM", arguments("LSTM"), constant=[1, 2, 3]) == ["LSTM", "Reshape"]
    found = types("LSTM", arguments("LSTM", states=True), outputs=3, constant=[1, 2, 3])
    assert found == ["LSTM", "Reshape"]


def test_unrolled_steps_share_weights_that_learn() -> None:
    """The gradient of the shared recurrent weights is that of finite differences."""
    inputs = [None if array is None else array.astype(np.float64) for array in arguments("RNN", states=True)]
    param = layers("RNN", inputs, constant=[1, 2, 3], hidden_size=H)
    param.force_backward = True
    net = Net(param, phase=0, ops=CpuOps(np.float64))
    names = {name: len(net.params[name]) for name in net.params}
    assert sum(names.values()) == 2 + T and len(net.learnable) == 3  # two for x, and one for h that all steps have
    for name in net.inputs:
        net.blobs[name].data[...] = inputs[int(name[1:])]
    (out,) = net.outputs
    seed = np.random.default_rng(2).normal(0, 1, net.blobs[out].shape)

    def total() -> float:
        net.forward_pass()
        return float((net.blobs[out].data * seed).sum())

    total()
    net.blobs[out].diff[...] = seed
    net.clear_param_diffs()
    net.backward_pass()
    for learnable in net.learnable:
        flat, grad = learnable.blob.data.reshape(-1), learnable.blob.diff.reshape(-1).copy()
        for index in range(flat.size):
            before, step = flat[index], 1e-6
            flat[index] = before + step
            up = total()
            flat[index] = before - step
            down = total()
            flat[index] = before
            assert (up - down) / (2 * step) == pytest.approx(grad[index], rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("change", "message"), [
    ({"activations": ["Cosh"]}, r"the activation 'Cosh' is none of Sigmoid, Tanh"),
    ({"activations": ["Tanh", "Relu"]}, r"has 2 activations; 1 are needed for each direction"),
    ({"direction": "bidirectional"}, r"direction 'bidirectional' does not fit weights of 1 direction\(s\)"),
    ({"hidden_size": 7}, r"hidden_size=7 contradicts the weights, which have 2"),
])
def test_what_does_not_fit_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        layers("RNN", arguments("RNN"), constant=[1, 2, 3], **{"hidden_size": H, **change})


def test_lengths_that_do_not_fit_are_said() -> None:
    inputs = arguments("RNN", lengths=np.array([4, 5, 1], np.int32))
    with pytest.raises(UnsupportedError, match=r"the lengths \[4, 5, 1\] of its sequences do not fit 3 sequences"):
        layers("RNN", inputs, constant=[1, 2, 3], hidden_size=H)
