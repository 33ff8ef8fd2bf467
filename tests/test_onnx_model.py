"""Reading ONNX models: what is accepted, what becomes constant, names, and what is refused with which words."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_graphs import fuzz_models, model, outputs, read_limited, small, types, values
from test_fuzz import FLOATS, NUMBERS, SPARE_BYTES, edited, edits, messages

from barista import blob
from barista.errors import BaristaError, DataError, NetError, PrototxtError, UnsupportedError
from barista.frontends.onnx import convert, read_onnx
from barista.frontends.onnx.model import load_model
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import TEST


def refused(proto: onnx.ModelProto | bytes | Path, kind: type[BaristaError], *messages: str) -> None:
    with pytest.raises(kind) as error:
        convert(proto)
    for message in messages:
        assert message in str(error.value)


# ---- what comes out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt", ".textproto"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"small{suffix}"
    if suffix == ".onnxtxt":
        path.write_text(onnx.printer.to_text(small()))
    else:
        onnx.save(small(), path, format="textproto" if suffix == ".textproto" else None)
    x = values(1, 1, 4, 4, seed=7)
    net = Net(read_onnx(path), TEST, ops=CpuOps())
    net.blobs["x"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs["y"].data, outputs(small(), {"x": x})[0], rtol=1e-5)


def test_names_and_shapes() -> None:
    net = read_onnx(small(), {"x": (5, 1, 4, 4)})
    assert [(layer.name, layer.type, list(layer.bottom), list(layer.top)) for layer in net.layer] == [
        ("x", "Input", [], ["x"]), ("conv", "Convolution", ["x"], ["c"]), ("relu", "ReLU", ["c"], ["r"]),
        ("pool", "Pooling", ["r"], ["p"]), ("flat", "Flatten", ["p"], ["f"]), ("ip", "InnerProduct", ["f"], ["y"])]
    assert list(net.layer[0].input_param.shape[0].dim) == [5, 1, 4, 4]
    assert Net(net, TEST, ops=CpuOps()).blobs["y"].shape == (5, 3)


def test_initialisers_may_stand_among_the_inputs() -> None:
    proto = small(8)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (2, 1, 3, 3)))
    assert [port.name for port in convert(proto).inputs] == ["x"]


def test_nodes_in_any_order() -> None:
    proto = small()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    x = values(1, 1, 4, 4)
    np.testing.assert_array_equal(outputs(proto, {"x": x})[0], outputs(small(), {"x": x})[0])


def test_functions_of_the_model_are_put_in_place() -> None:
    body = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Exp", ["b"], ["c"])]
    proto = model([helper.make_node("Fall", ["x"], ["y"], domain="own")], {"x": (3,)}, ["y"])
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(helper.make_function("own", "Fall", ["a"], ["c"], body, [helper.make_opsetid("", 21)]))
    x = values(3)
    np.testing.assert_allclose(outputs(proto, {"x": x})[0], np.exp(-x), rtol=1e-6)


def test_what_no_output_needs_is_left_out() -> None:
    proto = small()
    proto.graph.node.append(helper.make_node("StringNormalizer", ["c"], ["z"]))
    assert types(proto) == types(small())


def test_every_output_is_an_output_of_the_net() -> None:
    """Also one that is read again, another by name, an input, a constant, and one that nobody reads beside it."""
    nodes = [helper.make_node("Relu", ["x"], ["r"], name="relu"), helper.make_node("Abs", ["r"], ["a"]),
             helper.make_node("Identity", ["a"], ["same"]), helper.make_node("Identity", ["w"], ["constant"]),
             helper.make_node("Identity", ["x"], ["copy"]), helper.make_node("Identity", ["unused"], ["other"]),
             helper.make_node("Split", ["x"], ["s", "t"], axis=1, num_outputs=2)]
    proto = model(nodes, {"x": (2, 4), "unused": (3,), "alone": (1,)},
                  ["r", "a", "same", "constant", "copy", "x", "w", "s"], {"w": values(2, 2)})
    x, w = values(2, 4, seed=5), values(2, 2)
    feeds = {"x": x, "unused": np.zeros(3), "alone": np.zeros(1)}
    results = outputs(proto, feeds)
    for result, expected in zip(results, [np.maximum(x, 0)] * 3 + [w, x, x, w, x[:, :2]], strict=True):
        np.testing.assert_array_equal(result, expected)
    blobs = [port.blob for port in convert(proto).outputs]
    assert blobs == ["r", "a", "same", "constant", "copy", "x_output", "w", "s"]


def test_names_that_break_lines() -> None:
    proto = model([helper.make_node("Relu", ["/a\nb"], ["y"], name="/net/relu")], {"/a\nb": (2,)}, ["y"])
    net = read_onnx(proto)
    assert [(layer.name, list(layer.top)) for layer in net.layer] == [("a_b", ["/a_b"]), ("net/relu", ["y"])]


def test_shapes_are_folded() -> None:
    """A view as PyTorch exports it: the target shape is computed from the input's."""
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Gather", ["shape", "zero"], ["n"]),
             helper.make_node("Unsqueeze", ["n", "axes"], ["first"]),
             helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
             helper.make_node("Reshape", ["x", "target"], ["y"])]
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    proto = model(nodes, {"x": (2, 3, 4)}, ["y"], constants)
    assert types(proto) == ["Reshape"]
    assert outputs(proto, {"x": values(2, 3, 4)})[0].shape == (2, 12)


@pytest.mark.parametrize("opset", [1, 4, 6, 7])
def test_old_constants(opset: int) -> None:
    """Broadcasting by attribute, and a shape in an attribute, which only old opsets have."""
    axis = {"axis": 0, "broadcast": 1} if opset < 7 else {}
    shape = np.array([3, 2])
    reshape = (helper.make_node("Reshape", ["s"], ["t"], shape=[0, 2]) if opset < 5
               else helper.make_node("Reshape", ["s", "shape"], ["t"]))
    b = values(3, seed=2) if opset < 7 else values(3, 1, seed=2)
    nodes = [helper.make_node("Add", ["a", "b"], ["s"], **axis), reshape, helper.make_node("Neg", ["t"], ["y"])]
    a = values(3, 2)
    proto = model(nodes, {}, ["y"], {"a": a, "b": b, "shape": shape}, opset)
    np.testing.assert_array_equal(outputs(proto)[0], -(a + b.reshape(3, 1)))


def test_inputs_that_must_be_known() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    proto = model([node], {"x": (1, 1, 3, 3), "w": (1, 1, 2, 2)}, ["y"])
    refused(proto, UnsupportedError, "'conv' (Conv): the weights (input 1, 'w') must be constant, but they are")
    converted = convert(proto, values={"w": values(1, 1, 2, 2), "x": values(1, 1, 3, 3)})
    assert converted.fixed == {"w"} and [port.name for port in converted.inputs] == ["x"]
    proto.graph.node.append(helper.make_node("Softmax", ["w"], ["z"], name="soft"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 1, 2, 2)))
    both = convert(proto, values={"w": values(1, 1, 2, 2)})
    assert [layer.type for layer in both.net.layer] == ["Input", "Parameter", "Convolution", "Softmax"]


def test_float64() -> None:
    proto = model([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": (2, 3)}, ["y"], {"w": np.full((2, 3), 1 / 3)})
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    converted = convert(proto)
    assert converted.inputs[0].dtype == np.float64
    assert any(blob.double_data for layer in converted.net.layer for blob in layer.blobs)


# ---- what is refused --------------------------------------------------------------------------------------


def test_all_unsupported_nodes_are_told_at_once() -> None:
    nodes = [helper.make_node("Acos", ["x"], ["a"], name="first"), helper.make_node("Relu", ["a"], ["r"]),
             helper.make_node("Acos", ["r"], ["b"]),
             helper.make_node("Own", ["b"], ["y"], name="z", domain="me")]
    proto = model(nodes, {"x": (2,)}, ["y"])
    proto.opset_import.append(helper.make_opsetid("me", 1))
    with pytest.raises(UnsupportedError) as error:
        convert(proto)
    lines = str(error.value).splitlines()
    assert lines[0] == "the model: 3 node(s) cannot be converted to layers:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  'first' (Acos)", "  'b' (Acos)", "  'z' (me.Own)"]
    both = model([helper.make_node("Acos", ["x"], ["a"], name="first"), helper.make_node("Asin", ["x"], ["b"])],
                 {"x": (2,)}, ["a", "b"])
    refused(both, UnsupportedError, "2 node(s) cannot be converted", "'first' (Acos): no layer", "'b' (Asin): no layer")


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 200])
def test_truncated(cut: int) -> None:
    data = small().SerializeToString()
    with pytest.raises((PrototxtError, NetError)) as error:
        convert(data[:len(data) - 1 - cut])
    assert "damaged" in str(error.value) or "no valid" in str(error.value) or "is missing" in str(error.value)


def test_other_files(tmp_path: Path) -> None:
    refused(b"", PrototxtError, "the model: holds no graph: this is no ONNX model")
    refused(b"layer { name: 1 }", PrototxtError, "is no ONNX model, or is damaged or cut short")
    refused(tmp_path / "none.onnx", PrototxtError, "none.onnx", "No such file")
    path = tmp_path / "wrong.onnxtxt"
    path.write_text("agraph (float x) =>")
    refused(path, PrototxtError, "wrong.onnxtxt: is no ONNX model in text")


def test_an_opset_of_the_future() -> None:
    proto = small()
    proto.opset_import[0].version = 9999
    refused(proto, UnsupportedError, "is of opset 9999, which is newer than the newest that onnx", "pip install")
    proto.opset_import[0].version = 0
    refused(proto, NetError, "is of opset 0; opsets are counted from 1")


def change(edit: Callable[[onnx.GraphProto], object]) -> onnx.ModelProto:
    proto = small()
    edit(proto.graph)
    return proto


@pytest.mark.parametrize(("edit", "messages"), [
    (lambda g: g.node[0].input.__setitem__(0, "f"), ["the model: has a cycle: 'conv' (Conv) needs",
                                                     "'flat' (Flatten)"]),
    (lambda g: g.node[3].output.__setitem__(0, "p"), ["'pool' (MaxPool) and 'flat' (Flatten) both write the value"]),
    (lambda g: g.node[3].output.__setitem__(0, "x"), ["'flat' (Flatten) writes 'x', which is an input or initialiser"]),
    (lambda g: g.initializer.pop(0), ["'conv' (Conv) needs the value 'w', which is no input, initialiser or output",
                                      "is missing"]),
    (lambda g: g.initializer.append(g.initializer[0]), ["two initialisers are named 'w'"]),
    (lambda g: g.input.append(g.input[0]), ["two inputs are named 'x'"]),
    (lambda g: g.output[0].__setattr__("name", "z"), ["the output 'z' of the graph is written by no node"]),
    (lambda g: g.initializer[0].dims.__setitem__(0, 2**40), ["initialiser 'w' of shape (1099511627776, 1, 3, 3)"]),
    (lambda g: g.initializer[0].dims.__setitem__(0, 3), ["initialiser 'w'"]),
    (lambda g: g.initializer[0].dims.__setitem__(0, -2), ["initialiser 'w' has the shape (-2, 1, 3, 3), with sizes"]),
    (lambda g: g.initializer[2].dims.__setitem__(slice(None), [8, 3]), ["'ip' (Gemm)"]),
    (lambda g: g.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 2),
     ["the model: 'conv' (Conv): weights (2, 1, 3, 3)"]),
    (lambda g: g.input[0].type.tensor_type.shape.dim.pop(), ["'conv' (Conv)"]),
    (lambda g: g.node[2].attribute[0].ints.append(2), ["'pool' (MaxPool)"]),
    (lambda g: g.node[0].attribute[0].__setattr__("name", "padding"), ["no valid ONNX model", "padding"]),
    (lambda g: g.input[0].type.tensor_type.ClearField("shape"), ["says nothing of the shape of its input 'x'"]),
])
def test_graphs_that_contradict_themselves(edit: Callable[[onnx.GraphProto], object], messages: list[str]) -> None:
    refused(change(edit), NetError, *messages)


def test_shapes_that_are_given_must_fit() -> None:
    for shapes, message in (
            ({"x": (1, 2)}, "its input 'x' has 4 axes, (?, 1, 4, 4); the shape (1, 2) that was given has 2"),
            ({"z": (1,)}, "has no input 'z' to give a shape to; its inputs are: x"),
            ({"x": (-1, 1, 4, 4)}, "cannot have the shape (-1, 1, 4, 4)")):
        with pytest.raises(NetError) as error:
            read_onnx(small(), shapes)
        assert message in str(error.value)


def test_constants_have_a_limit() -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"], name="huge"), helper.make_node("Add", ["x", "c"], ["y"])]
    proto = model(nodes, {"x": (1,)}, ["y"], {"s": np.array([2**15, 2**15])})
    refused(proto, UnsupportedError, "'huge' (ConstantOfShape): its constant outputs would take 4294967296 bytes")


def test_outputs_must_be_as_many_as_a_split_says() -> None:
    """ONNX's own inference ends the process here."""
    nodes = [helper.make_node("Split", ["x"], ["a", "b", "c"], name="split", num_outputs=2)]
    refused(model(nodes, {"x": (4, 4)}, ["a"]), NetError, "'split' (Split): has num_outputs=2 and 3 outputs")


def test_values_have_a_limit() -> None:
    proto = model([helper.make_node("Expand", ["x", "s"], ["y"], name="huge")], {"x": (1,)}, ["y"],
                  {"s": np.array([2**20, 2**20])})
    refused(proto, NetError, "'huge' (Expand): its output 'y' has the shape (1048576, 1048576); the most elements")


def test_sequences_are_refused() -> None:
    proto = small()
    proto.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    refused(proto, UnsupportedError, "'x' is no tensor of numbers; Barista knows no sequences")


# ---- external data ----------------------------------------------------------------------------------------


def external(folder: Path, location: str = "weights.bin", **entries: object) -> Path:
    """A model whose weights lie in a file; `entries` replace what the model says of the first."""
    path = folder / "model.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    changes = {"location": location, **{key: str(value) for key, value in entries.items()}}
    for entry in proto.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = external(tmp_path, "sub/weights.bin")
    (tmp_path / "sub" / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes())
    assert convert(path).net.SerializeToString() == convert(small()).net.SerializeToString()


@pytest.mark.parametrize(("entries", "message"), [
    ({"location": "../weights.bin"}, "lies in '../weights.bin'; external data are read from beside the model alone"),
    ({"location": "sub/../weights.bin"}, "no absolute paths and no '..'"),
    ({"location": os.path.abspath(os.sep + "weights.bin")}, "no absolute paths"),
    ({"location": "c:\\weights.bin"}, "no absolute paths"), ({"location": "..\\weights.bin"}, "no absolute paths"),
    ({"location": ""}, "does not say in which file"), ({"location": "gone.bin"}, "which cannot be read: No such file"),
    ({"location": "."}, "'.'"), ({"offset": 2**40}, "needs 72 bytes from byte 1099511627776"),
    ({"offset": -1}, "says 72 bytes from -1"), ({"length": 2**50}, "needs 72 bytes from an offset of 0 or more"),
    ({"length": "many"}, "must be numbers")])
def test_external_data_elsewhere(tmp_path: Path, entries: dict[str, object], message: str) -> None:
    refused(external(tmp_path, **entries), DataError, "initialiser 'w'", message)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [os.symlink, os.link])
@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin"])
def test_external_data_behind_links(tmp_path: Path, make: Callable[[Path, Path], None], location: str) -> None:
    (tmp_path / "model").mkdir()
    path = external(tmp_path / "model", location)
    moved = tmp_path / "outside"
    moved.mkdir()
    (path.parent / "weights.bin").rename(moved / "weights.bin")
    if location == "weights.bin" or make is os.link:
        (path.parent / location).parent.mkdir(exist_ok=True)
        make(moved / "weights.bin", path.parent / location)
    else:
        make(moved, path.parent / "sub")
    refused(path, DataError, "initialiser 'w'", "link")


def test_external_data_need_a_place() -> None:
    proto = small()
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    refused(proto, DataError, "initialiser 'w' lies in the file 'weights.bin'; give the model by its path")


# ---- damaged models ---------------------------------------------------------------------------------------

SEEDS = [model_.SerializeToString() for model_ in fuzz_models()]


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.sampled_from(SEEDS), st.sampled_from(SEEDS), edits)
def test_damaged_models(data: bytes, other: bytes, changes: list[tuple[str, float, object]]) -> None:
    """Barista's own error or a success, never another error, and never much memory."""
    data = edited(data, other, changes)
    tracemalloc.start()
    try:
        with contextlib.suppress(BaristaError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_limited(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * len(data) + SPARE_BYTES


def spoilt(proto: onnx.ModelProto, changes: list[tuple[int, int, int]]) -> onnx.ModelProto:
    """A model with other numbers and names in some of its fields."""
    names = sorted({name for node in proto.graph.node for name in (*node.input, *node.output)} | {"", "none"})
    for which, place, number in changes:
        parts = messages(proto.graph)
        message = parts[which % len(parts)]
        fields = [field for field in message.DESCRIPTOR.fields if field.message_type is None]
        if not fields:
            continue
        name = fields[place % len(fields)].name
        current = getattr(message, name)
        for pool in (NUMBERS, FLOATS, names, [text.encode() for text in names]):
            value = pool[number % len(pool)]
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                if not hasattr(current, "append"):
                    setattr(message, name, value)
                elif number % 5 and current:
                    current[place % len(current)] = value
                else:
                    current.append(value)
                break
    return proto


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.integers(0, len(SEEDS) - 1), st.lists(st.tuples(*[st.integers(0, 1000)] * 3), min_size=1, max_size=4))
def test_models_with_absurd_numbers(seed: int, changes: list[tuple[int, int, int]]) -> None:
    """The same for models whose bytes are good and whose contents are not, up to nets that run."""
    proto = spoilt(fuzz_models()[seed], changes)
    limit, blob.MAX_COUNT = blob.MAX_COUNT, 10**6
    try:
        with contextlib.suppress(BaristaError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Net(read_limited(proto.SerializeToString()), TEST, ops=CpuOps()).forward_pass()
    finally:
        blob.MAX_COUNT = limit


def test_good_models_run() -> None:
    for proto in fuzz_models():
        Net(read_limited(proto.SerializeToString()), TEST, ops=CpuOps()).forward_pass()
        assert load_model(proto).opset in (7, 21)


def test_names_that_are_no_text_are_refused() -> None:
    data = small().SerializeToString()
    refused(data.replace(b"conv", b"co\xffv"), NetError, "no text (UTF-8)")
    refused(data.replace(b"small", b"sm\xffll"), NetError, "not UTF-8")
