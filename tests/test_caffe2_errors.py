"""Caffe2 models that are wrong, or that cannot be said: what the errors tell."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe2_nets import init_net, little_pair, one, operator

pytest.importorskip("onnx", reason="the onnx extra is not installed")

from barista.errors import BaristaError, NetError, PrototxtError, UnsupportedError
from barista.frontends.caffe2 import read_caffe2, to_onnx
from barista.frontends.caffe2.fills import Fills
from barista.proto import wire
from barista.proto.caffe2_pb2 import NetDef

SHAPE = {"data": [1, 3, 6, 6]}


def fails(error: type[BaristaError], text: str, init: NetDef | None, net: NetDef, shapes: Any = None) -> None:
    with pytest.raises(error, match=re.escape(text)):
        to_onnx(init, net, SHAPE if shapes is None else shapes)


# ---- files ------------------------------------------------------------------------------------------------


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    init, net, _ = little_pair()
    good, bad = tmp_path / "init_net.pb", tmp_path / "predict_net.pb"
    good.write_bytes(init.SerializeToString())
    for data, text in ((b"", "the file is empty; expected a net of Caffe2 (NetDef)"),
                       (net.SerializeToString()[:-9], "damaged or truncated"),
                       (b'op { type: "Relu" inputs: "x" }',
                        "predict_net.pb:1:19: unknown field 'inputs' in OperatorDef; did you mean 'input'?"),
                       (b'name: "x"\nlayer { name: "y" }', "this is a net (NetParameter), where a net of Caffe2")):
        bad.write_bytes(data)
        with pytest.raises(PrototxtError, match=re.escape(text)):
            read_caffe2(good, bad, SHAPE)
    with pytest.raises(PrototxtError, match=r"no such file .*did you mean 'init_net.pb'"):
        read_caffe2(tmp_path / "int_net.pb", good, SHAPE)
    bad.write_bytes(net.SerializeToString())
    for text in ("{", "[1]", '{"data": [1, "x"]}', '{"data": [1, [true]]}', '{"data": 3}', "[" * 10000):
        (tmp_path / "value_info.json").write_text(text)
        with pytest.raises(PrototxtError, match=r"value_info\.json: holds no shapes of inputs, such as"):
            read_caffe2(good, bad)


def test_what_messages_take_in_memory_is_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats in a row are not looked at one by one, and nothing slips through among them."""
    seen: list[int] = []
    read = wire._varint
    monkeypatch.setattr(wire, "_varint", lambda data, start, end: (seen.append(start), read(data, start, end))[1])
    net = NetDef()
    operator(net, "GivenTensorFill", [], ["w"], values=np.zeros(10**5, np.float32).tolist(), shape=[10**5])
    assert wire.overhead_bytes(net.SerializeToString(), NetDef.DESCRIPTOR, 2**40) < 1000
    assert len(seen) < 50
    # Floats that an operator's message ends, key 0x12: it is counted, wherever it stands.
    for floats in (0, 1, 5):
        data = b"\x0d0000" * floats + b"\x12\x00" * 100
        assert len(wire.parse(data, NetDef).op) == 100
        assert wire.overhead_bytes(data, NetDef.DESCRIPTOR, 2**40) == wire.overhead_bytes(
            b"\x12\x00" * 100, NetDef.DESCRIPTOR, 2**40) > 100 * 64
    # Cut short within a float.
    assert wire.overhead_bytes(b"\x0d0000" * 3 + b"\x0d0", NetDef.DESCRIPTOR, 2**40) < 1000


# ---- pairs ------------------------------------------------------------------------------------------------


def test_pairs_that_contradict_themselves() -> None:
    init, net, _ = little_pair()
    fails(NetError, "the two nets may have been given in each other's place", net, init)
    fails(NetError, "the predict net has no operators", init, NetDef(name="x"))
    fails(UnsupportedError, "the init net has 7 operators that fill no blob from their arguments: operator 'conv1' "
          "(Conv)", net, net)
    fails(NetError, "blobs come from outside and have no shape: conv1_w, conv1_b, fc_w, fc_b. Give the shapes of "
                    "inputs, "
          "as in --input conv1_w=1,3,224,224; weights have to be filled by the init net", None, net)
    fails(NetError, "blobs come from outside and have no shape: data.", init, net, {})
    fails(NetError, "a shape is given for 'date', which is no input of the net; did you mean 'data'?", init, net,
          {**SHAPE, "date": [1]})
    fails(NetError, "the shape of the input 'data' is [1, 0, 6, 6]", init, net, {"data": [1, 0, 6, 6]})
    fails(NetError, "their product 2147483647 at most", init, net, {"data": [2**20, 2**20, 1, 1]})
    fails(NetError, "operator 'conv1' (Conv): its images have 4 channels, its filter (6, 3, 3, 3) takes 3", init, net,
          {"data": [1, 4, 6, 6]})
    fails(NetError, "operator 'fc' (FC): a blob of shape (1, 6, 4, 4), weights (5, 54) and bias (5,) do not fit", init,
          net, {"data": [1, 3, 8, 8]})
    net.external_output.append("probs")
    fails(NetError, "the net's output needs the blob 'probs', which no operator before it writes; did you mean 'prob'",
          init, net)


def test_blobs_that_nothing_fills_or_that_are_read_too_early() -> None:
    init, net, _ = little_pair()
    net.external_input.remove("fc_b")
    del init.op[3]
    fails(NetError, "operator 'fc' (FC) needs the blob 'fc_b', which no operator before it writes, the init net does "
                    "not "
          "fill, and external_input does not list; did you mean 'fc_w'", init, net)
    cycle = NetDef(external_input=["x"], external_output=["b"])
    operator(cycle, "Sum", ["x", "b"], ["a"])
    operator(cycle, "Relu", ["a"], ["b"])
    fails(NetError, "operator 'a' (Sum) needs the blob 'b', which no operator before it writes", None, cycle,
          {"x": [1]})


def test_all_operators_that_cannot_be_converted_are_told_at_once() -> None:
    net = NetDef(external_input=["x"], external_output=["d"])
    operator(net, "RoIAlign", ["x"], ["a"])
    operator(net, "Relu", ["a"], ["b"])
    made = operator(net, "Conve", ["b"], ["c"])
    made.name = "last"
    operator(net, "RoIAlign", ["c"], ["d"])
    fails(UnsupportedError, "3 operators of the predict net cannot be converted: operator 'a' (RoIAlign); operator "
                            "'last' "
          "(Conve), did you mean 'Conv'?; operator 'd' (RoIAlign)", None, net, {"x": [1, 2]})
    net = NetDef(external_input=["x", "s"], external_output=["c"])
    operator(net, "Reshape", ["x", "s"], ["a", "_"])
    operator(net, "Relu", ["a"], ["a"])
    operator(net, "Dropout", ["x"], ["b", "mask"], is_test=1)
    operator(net, "Mul", ["b", "mask"], ["c"])
    fails(UnsupportedError, "2 operators of the predict net cannot be converted: operator 'a' (Reshape): takes its "
          "shape from 's', which the net computes; operator 'c' (Mul): reads 'mask', which operator 'b' (Dropout) "
          "writes "
          "beside its result, for training", None, net, {"x": [1, 2], "s": [2]})


# ---- operators --------------------------------------------------------------------------------------------

X = np.ones((1, 4, 6, 6), np.float32)
W = np.ones((2, 4, 3, 3), np.float32)


@pytest.mark.parametrize(("kind", "weights", "arguments", "text"), [
    ("Conv", {}, {"kernel": 3}, "operator 'y' (Conv): has 1 inputs; it takes 2 to 3"),
    ("Conv", {"w": W}, {"kernel": 5}, "its kernel is [5, 5], its filter's [3, 3]"),
    ("Conv", {"w": W[0]}, {"kernel": 3}, "its filter 'w' has the shape (4, 3, 3), its images (1, 4, 6, 6)"),
    ("Conv", {"w": W}, {"kernels": [3, 3, 3]}, "gives 3 sizes as kernel; its images have 2 axes"),
    ("Conv", {"w": W}, {"kernel": 3, "stride": 0}, "stride [0, 0] and dilation [1, 1] must be 1 or more"),
    ("Conv", {"w": W}, {"kernel": 3, "pads": [1, 1]}, "pads are [1, 1]; images of 2 axes have 4, none below 0"),
    ("Conv", {"w": W}, {"kernel": 3, "pad": -1}, "pads are [-1, -1, -1, -1]"),
    ("Conv", {"w": W}, {"kernel": 3, "legacy_pad": 4}, "legacy_pad is 4; known are 0 to 3"),
    ("Conv", {"w": W}, {"kernel": 3, "legacy_pad": 2, "pad": 1}, "legacy_pad 2 finds the padding from the shapes"),
    ("Conv", {"w": W}, {"kernel": 3, "order": "NCWH"}, "its order is 'NCWH'; known are NCHW and NHWC"),
    ("Conv", {"w": W}, {"kernel": 3.5}, "the argument 'kernel' must be a whole number"),
    ("Conv", {"w": W}, {"kernel": 3, "group": 1e30}, "the argument 'group' must be a whole number"),
    ("Conv", {"w": W}, {"kernel": "3"}, "the argument 'kernel' must be a whole number"),
    ("Conv", {"w": W}, {"kernel": 3, "group": 3}, "its images have 4 channels, its filter (2, 4, 3, 3) takes 12 in 3 "
                                                  "groups"),
    ("Conv", {"w": W}, {"kernel": 3, "dilation": 9}, "its windows span [19, 19] pixels, more than its images, 6 x 6"),
    ("ConvTranspose", {"w": W}, {"kernel": 3, "legacy_pad": 2}, "legacy_pad has no meaning for a ConvTranspose"),
    ("MaxPool", {}, {}, "kernel [0, 0], stride [1, 1]"),
    ("MaxPool", {}, {"kernel": 2, "dilation": 2}, "its dilation is [2, 2]; Caffe2's pooling has none"),
    ("AveragePool", {}, {"kernel": 2, "pad": 2}, "pads [2, 2, 2, 2] reach the kernel's [2, 2]"),
    ("MaxPool", {}, {"kernel": 1, "stride": 3, "legacy_pad": 2}, "legacy_pad SAME with stride 3 would cut pixels off"),
    ("Conv", {"w": W, "b": W[0, 0, 0]}, {"kernel": 3}, "its bias has 3 numbers; it needs 2"),
    ("ConvTranspose", {"w": W}, {"kernel": 3}, "its images have 4 channels, its filter (2, 4, 3, 3) takes 2"),
    ("SpatialBN", {name: W[0, 0, 0] for name in "sbmv"}, {"is_test": 1}, "has 3 numbers as scale for 4 channels"),
    ("LRN", {}, {"size": 4}, "its size is 4; it must be odd"),
    ("FC", {"w": W[:, :, 0, 0], "b": W[0, 0, 0, :2]}, {}, "weights (2, 4) and bias (2,) do not fit"),
    ("FC", {"w": W, "b": W[0, 0, 0]}, {"axis": 5}, "axis is 5; its blob has 4 axes"),
    ("PRelu", {"s": W[0, 0, 0]}, {}, "has 3 slopes for a blob of shape (1, 4, 6, 6)"),
    ("Dropout", {}, {"ratio": 1.0}, "its ratio is 1.0; it must be from 0 to below 1"),
    ("Concat", {"w": X[:, :, :5]}, {}, "operator 'y' (Concat) cannot take the shapes of its inputs"),
    ("Add", {"w": W[0, :, 0, 0]}, {"broadcast": 1, "axis": 2}, "a blob of shape (4,) cannot stand for the axes from "
                                                               "2 on"),
    ("Add", {"w": W[0, :, 0, 0]}, {"broadcast": 1, "axis_str": "K"}, "from -1 on of one of shape (1, 4, 6, 6)"),
    ("Add", {"w": W[0, :, 0, 0]}, {"broadcast": 1, "axis_str": "C", "axis": 1}, "has both axis and axis_str"),
    ("Add", {"w": W[0, :, 0, 0]}, {"axis": 1}, "has an axis without broadcast: 1"),
    ("Add", {"w": W[0, :, 0, 0]}, {}, "operator 'y' (Add) cannot take the shapes"),
    ("Reshape", {}, {}, "needs a shape: an argument, or a second blob"),
    ("Reshape", {}, {"shape": [7, -1]}, "operator 'y' (Reshape) cannot take the shapes"),
    ("Transpose", {}, {"axes": [0, 1, 1, 2]}, "axes are [0, 1, 1, 2]; give each of 0 to 3 once"),
    ("ChannelShuffle", {}, {"group": 3}, "4 channels cannot be cut into 3 groups"),
    ("ResizeNearest", {}, {"height_scale": 0.0}, "they must be above 0"),
    ("ResizeNearest", {"s": W[0, 0, 0, :2]}, {}, "takes its scales from a blob"),
])
def test_operators(kind: str, weights: dict[str, np.ndarray], arguments: dict[str, Any], text: str) -> None:
    with pytest.raises((NetError, UnsupportedError), match=re.escape(text)):
        to_onnx(init_net(weights), one(kind, weights, **arguments), {"x": X.shape})


def test_arguments_that_are_not_known_are_told(caplog: pytest.LogCaptureFixture) -> None:
    net = one("Relu", {}, aplha=0.5, cudnn_exhaustive_search=1)
    with caplog.at_level(logging.WARNING):
        to_onnx(None, net, {"x": [1]})
    assert "operator 'y' (Relu): arguments that are not known are ignored: aplha" in caplog.text
    net.op[0].arg.add(name="aplha", f=1.5)
    fails(NetError, "operator 'y' (Relu): the argument 'aplha' is given twice, with different values", None, net,
          {"x": [1]})


def test_settings_for_training_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        to_onnx(None, one("Dropout", {}), {"x": [1]})
        ones = {name: np.ones(4, np.float32) for name in "sbmv"}
        to_onnx(init_net(ones), one("SpatialBN", ones), {"x": [1, 4, 2, 2]})
    assert "(Dropout) has is_test: 0, which is for training; it drops nothing at inference" in caplog.text
    assert "(SpatialBN) has is_test: 0, which is for training; its stored mean and variance are taken" in caplog.text


# ---- fills ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "arguments", "text"), [
    ("GivenTensorFill", {"shape": [2, 3], "values": [1.0]}, "its shape (2, 3) needs 6 values; it holds 1: the file is "
                                                           "damaged or was cut short"),
    ("GivenTensorFill", {"shape": [1], "values": "x"}, "needs 1 values; it holds 0"),
    ("GivenTensorFill", {"shape": [-1], "values": [1.0]}, "the shape (-1,) is none: up to 32 sizes, none below 0"),
    ("GivenTensorFill", {"shape": [1] * 40, "values": [1.0]}, "up to 32 sizes"),
    ("GivenTensorIntFill", {"shape": [1], "values": [2**40]}, "numbers from 1099511627776 to 1099511627776, which "
                                                              "int32"),
    ("GivenTensorIntFill", {"shape": [1], "values": [0.5]}, "the argument 'values' must hold whole numbers"),
    ("ConstantFill", {"shape": [2**20, 2**20]}, "the blobs take 8796093022208 bytes; a model holds less than 2 GiB"),
    ("ConstantFill", {"shape": [2**62, 2**62]}, "a model holds less than 2 GiB"),
    ("ConstantFill", {"shape": [1], "dtype": 4}, "is of element type 4; known are"),
    ("ConstantFill", {"shape": [1], "dtype": 7, "value": 300}, "its value 300 is none of int8"),
    ("XavierFill", {"shape": []}, "its shape () has no fan"),
    ("MSRAFill", {"shape": [3]}, "its shape (3,) has no fan: it needs axis 1"),
    ("XavierFill", {"shape": [0, 2]}, "no size 0"),
    ("UniformFill", {"shape": [1], "min": 2.0}, "min 2.0 and max 1.0 are no range"),
    ("GaussianFill", {"shape": [1], "std": float("nan")}, "std nan are no Gaussian's"),
])
def test_fills(kind: str, arguments: dict[str, Any], text: str) -> None:
    net = NetDef()
    operator(net, kind, [], ["w"], **arguments)
    with pytest.raises((NetError, UnsupportedError), match=re.escape(text)):
        Fills().net(net)


def test_fills_of_other_kinds() -> None:
    net = NetDef()
    operator(net, "GivenTensorFil", [], ["w"])
    operator(net, "CreateMutex", [], ["m"])
    with pytest.raises(UnsupportedError, match=r"did you mean 'GivenTensorFill'.*; operator 'm' \(CreateMutex\): is "
                                                "no"):
        Fills().net(net)
    net = NetDef()
    operator(net, "ConstantFill", ["shape"], ["w"])
    with pytest.raises(UnsupportedError, match="takes its shape from the blob 'shape'"):
        Fills().net(net)
