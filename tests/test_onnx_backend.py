"""ONNX's backend interface, and ONNX's own tests of backends."""

from __future__ import annotations

import collections
import os
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnx", reason="the onnx extra is not installed")

import onnx
import onnx.backend.test
from onnx.backend.test.loader import load_model_tests
from onnx_nodes import model
from opencl_device import open_opencl

from barista.errors import NetError, UnsupportedError
from barista.frontends.onnx import backend
from barista.frontends.onnx.converter import HANDLERS

Array = npt.NDArray[Any]
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"

# Why node cases of operators that are read may not pass.
KNOWN_REASONS = ("does not know the type", "is of type", "exists while a model is trained", "in training mode",
                 "is no tensor of numbers", "is no array of numbers")


def array(*shape: int, dtype: npt.DTypeLike = np.float32) -> Array:
    return np.random.default_rng(4).normal(0, 1, shape).astype(dtype)


# ---- the interface ----------------------------------------------------------------------------------------


def test_inputs_in_order_by_name_or_alone() -> None:
    a, b = array(2, 3), array(3)
    proto = model("Sub", [a, b])
    for inputs in ([a, b], {"x1": b, "x0": a}):
        outputs = backend.run_model(proto, inputs)
        np.testing.assert_allclose(outputs[0], a - b, rtol=1e-6)
        np.testing.assert_array_equal(outputs["y0"], outputs[0])
    np.testing.assert_array_equal(backend.prepare(model("Relu", [a])).run(a)[0], np.maximum(a, 0))


def test_a_model_runs_with_batches_of_any_size() -> None:
    proto = model("Relu", [array(2, 3)])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    prepared = backend.prepare(proto)
    for batch in (1, 4, 2, 4):
        np.testing.assert_array_equal(prepared.run([array(batch, 3)])[0], np.maximum(array(batch, 3), 0))


def test_inputs_that_layers_must_know_may_change() -> None:
    x = array(2, 6)
    prepared = backend.prepare(model("Reshape", [x, np.array([3, 4])]))
    for shape in ([3, 4], [4, 3], [-1], [3, 4]):
        np.testing.assert_array_equal(prepared.run([x, np.array(shape)])[0], x.reshape(shape))
    prepared = backend.prepare(model("Conv", [array(1, 1, 4, 4), array(2, 1, 3, 3)]))
    first, second = (prepared.run([array(1, 1, 4, 4), scale * array(2, 1, 3, 3)])[0] for scale in (1, 3))
    np.testing.assert_allclose(second, 3 * first, rtol=1e-5)


def test_outputs_have_the_declared_types() -> None:
    x = array(3, 4)
    (index,) = backend.run_model(model("ArgMax", [x], dtype=np.int64), [x])
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, x.argmax(0)[np.newaxis])
    small = np.array([200, 100], np.uint8)
    np.testing.assert_array_equal(backend.run_model(model("Add", [small, small]), [small, small])[0], small + small)
    double = array(5, 5, dtype=np.float64)
    (product,) = backend.run_model(model("MatMul", [double, double]), [double, double])
    assert product.dtype == np.float64
    np.testing.assert_allclose(product, double @ double, rtol=1e-13)


def test_run_node() -> None:
    x = array(2, 3)
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=0)
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(backend.run_node(node, [x])[0], e / e.sum(0), rtol=1e-6)
    np.testing.assert_allclose(backend.run_node(node, {"x": x}, opset_version=9)[0], e / e.sum(), rtol=1e-6)
    node = onnx.helper.make_node("Clip", ["x", "", "most"], ["y"])
    np.testing.assert_array_equal(backend.run_node(node, [x, np.float32(0.1)])[0], np.minimum(x, np.float32(0.1)))


def test_devices() -> None:
    assert backend.supports_device("CPU") and backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    with pytest.raises(UnsupportedError, match="device 'CUDA': choose one of CPU, OPENCL"):
        backend.prepare(model("Relu", [array(1, 2)]), "CUDA")


@pytest.mark.parametrize("inputs", [[array(2, 3)], {"x0": array(2, 3), "z": array(3)}])
def test_missing_inputs_are_said(inputs: Any) -> None:
    with pytest.raises(NetError, match=r"takes .*inputs?.* x0, x1; got"):
        backend.run_model(model("Add", [array(2, 3), array(3)]), inputs)


def test_what_are_no_numbers_is_said() -> None:
    with pytest.raises(UnsupportedError, match="input 'x0' is of type object; Barista knows float16, float32"):
        backend.run_model(model("Relu", [array(1)]), [np.array(["a"], object)])
    with pytest.raises(UnsupportedError, match="input 'x0' is no array of numbers; Barista knows no sequences"):
        backend.run_model(model("Relu", [array(1)]), [[array(1), array(2, 2)]])


def test_other_op_sets_compute_the_same() -> None:
    open_opencl()
    assert backend.supports_device("OPENCL")
    x, w = array(2, 3, 5, 5), array(4, 3, 3, 3)
    proto = model("Conv", [x, w])
    (wanted,) = backend.run_model(proto, [x, w])
    np.testing.assert_allclose(backend.run_model(proto, [x, w], "OPENCL")[0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(backend.on("opencl").run_model(proto, [x, w])[0], wanted, rtol=1e-4, atol=1e-5)


# ---- ONNX's tests -----------------------------------------------------------------------------------------


def data_sets(folder: Path, proto: onnx.ModelProto) -> Iterator[tuple[list[Array], list[Array]]]:
    """Inputs and outputs that come with a model."""
    for place in sorted(folder.glob("test_data_set_*")):
        yield tuple([onnx.numpy_helper.to_array(onnx.load_tensor(place / f"{kind}_{index}.pb"))  # type: ignore[misc]
                     for index in range(len(list(place.glob(f"{kind}_*.pb"))))] for kind in ("input", "output"))


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # roots and powers of negative numbers
@pytest.mark.parametrize("kind", ["pytorch-converted", "pytorch-operator"])
def test_models_that_pytorch_wrote(kind: str) -> None:
    """Mostly of opset 6, which ONNX Runtime does not run any more."""
    cases = [case for case in load_model_tests(kind=kind) if case.model_dir]
    assert len(cases) == {"pytorch-converted": 82, "pytorch-operator": 35}[kind]
    for case in cases:
        folder = Path(case.model_dir)
        proto = onnx.load(folder / "model.onnx")
        prepared = backend.prepare(proto)
        for inputs, wanted in data_sets(folder, proto):
            for got, output in zip(prepared.run(inputs), wanted, strict=True):
                assert got.dtype == output.dtype and got.shape == output.shape, case.name
                np.testing.assert_allclose(got, output, rtol=case.rtol, atol=case.atol, err_msg=case.name)


def with_random_weights(path: Path) -> onnx.ModelProto:
    """A light model, whose weights are all alike, with weights that differ."""
    proto, rng = onnx.load(path), np.random.default_rng(1)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    kept = []
    variances = {node.input[4] for node in proto.graph.node if node.op_type == "BatchNormalization"}
    for node in proto.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(constants[node.input[0]])
        weights = rng.normal(0, np.sqrt(2 / max(1, np.prod(shape[1:]))), shape)
        weights = np.abs(weights) + 0.5 if node.output[0] in variances or len(shape) == 1 else weights
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(np.float32), node.output[0]))
    copies = onnx.GraphProto(node=kept)
    del proto.graph.node[:]
    proto.graph.node.extend(copies.node)
    return proto


@pytest.mark.parametrize("name", [
    "squeezenet", "shufflenet",
    *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "vgg19", "zfnet512"))])
def test_light_models_with_random_weights(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    proto = with_random_weights(LIGHT / f"light_{name}.onnx")
    given = {tensor.name for tensor in proto.graph.initializer}
    (info,) = [info for info in proto.graph.input if info.name not in given]
    x = array(*(dim.dim_value for dim in info.type.tensor_type.shape.dim))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {info.name: x})[0]
    (got,) = backend.run_model(proto, [x])
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what the cases compute on purpose
@pytest.mark.parametrize("op_set", ["cpu", "opencl"])
def test_all_node_cases_pass_or_have_a_reason(op_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case of one node of an operator that is read; on a device, which compiles much, two of each operator."""
    if op_set == "opencl":
        open_opencl()
    monkeypatch.setenv("ONNX_HOME", os.fspath(tmp_path))
    cases = {case.name: case for case in load_model_tests(kind="node") if case.model is not None
             and len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in {*HANDLERS, "Shape"}}
    assert len(cases) > 700
    tolerances = {}
    if op_set != "cpu":
        of = collections.defaultdict(list)
        for name, case in cases.items():
            of[case.model.graph.node[0].op_type].append(name)
        cases = {name: cases[name] for names in of.values() for name in names[:2]}
        # Where the result is 0, kernels that add up in another order give what 0 is beside the other terms.
        tolerances = {name: {"rtol": 1e-3, "atol": 1e-4} for name in cases}
    runner = onnx.backend.test.BackendTest(backend.on(op_set), test_kwargs=tolerances)
    tests = runner.test_cases["OnnxBackendNodeModelTest"]
    unexplained = []
    for name, case in cases.items():
        result = unittest.TestResult()
        tests(f"{name}_cpu").run(result)
        double = any(info.type.tensor_type.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64)
                     for info in (*case.model.graph.input, *case.model.graph.output))
        for _, text in (*result.errors, *result.failures):
            said = text[text.rindex("Error: "):]
            # A device computes in float32 alone.
            if not any(why in said for why in KNOWN_REASONS) and not (double and op_set != "cpu"):
                unexplained.append(f"{name}: {text.strip().splitlines()[-1]}")
    assert not unexplained, "\n".join(unexplained)
