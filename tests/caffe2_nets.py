"""Caffe2 nets written in Python, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from barista.proto.caffe2_pb2 import NetDef, OperatorDef


def operator(net: NetDef, kind: str, inputs: Sequence[str], outputs: Sequence[str], **arguments: Any) -> OperatorDef:
    """Add an operator; the type of each argument's value chooses its field."""
    made = net.op.add(type=kind, input=inputs, output=outputs)
    for name, value in arguments.items():
        argument = made.arg.add(name=name)
        if isinstance(value, str):
            argument.s = value.encode()
        elif isinstance(value, float):
            argument.f = value
        elif isinstance(value, int):
            argument.i = value
        elif len(value) and isinstance(value[0], float | np.floating):
            argument.floats.extend(value)
        else:
            argument.ints.extend(value)
    return made


def init_net(weights: dict[str, np.ndarray]) -> NetDef:
    """A net that fills blobs with these arrays."""
    net = NetDef(name="init")
    for name, array in weights.items():
        values = array.reshape(-1)
        kind = "GivenTensorFill" if array.dtype.kind == "f" else "GivenTensorInt64Fill"
        operator(net, kind, [], [name], shape=list(array.shape), values=values.tolist())
    return net


def one(kind: str, weights: dict[str, np.ndarray], inputs: Sequence[str] = ("x",), **arguments: Any) -> NetDef:
    """A predict net of one operator, from `inputs` to y."""
    net = NetDef(name="predict", external_input=[*inputs, *(name for name in weights if name not in inputs)],
                 external_output=["y"])
    operator(net, kind, [*inputs, *weights], ["y"], **arguments)
    return net


def little_pair() -> tuple[NetDef, NetDef, dict[str, np.ndarray]]:
    """A classifier in the style of Caffe2's model zoo, and its weights.

    It computes in place wherever it can, and writes masks beside results. Images are (N, 3, 6, 6).
    """
    random = np.random.default_rng(3)
    shapes = {"conv1_w": (6, 3, 3, 3), "conv1_b": (6,), "fc_w": (5, 54), "fc_b": (5,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    init = init_net(weights)
    operator(init, "ConstantFill", [], ["data"], shape=[1])  # the zoo's mark for where the image goes
    net = NetDef(name="little", external_input=["data", *weights], external_output=["prob"])
    operator(net, "Conv", ["data", "conv1_w", "conv1_b"], ["conv1"], kernel=3, pad=1, ws_nbytes_limit=1 << 20)
    operator(net, "Relu", ["conv1"], ["conv1"])
    operator(net, "MaxPool", ["conv1"], ["pool1"], kernel=3, stride=2, legacy_pad=3)
    operator(net, "Dropout", ["pool1"], ["pool1", "_mask"], ratio=0.5, is_test=1)
    operator(net, "Concat", ["pool1"], ["cat", "_split"])
    operator(net, "FC", ["cat", "fc_w", "fc_b"], ["fc"])
    operator(net, "Softmax", ["fc"], ["prob"])
    return init, net, weights
