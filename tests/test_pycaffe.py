"""pycaffe, name for name: the module, nets by name, batches, hooks and solvers."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_nets import inputs, layer, make

import barista as caffe
from barista import compose, pycaffe
from barista.errors import NetError, ShapeError, UnsupportedError
from barista.net import Net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

IP = "inner_product_param { num_output: 3 weight_filler { type: 'gaussian' std: 1 } bias_filler { type: 'uniform' } }"
SCORES = inputs(x=(4, 5)) + layer("InnerProduct", "x", "h", IP, "ip") + layer("ReLU", "h", "h", name="relu") + layer(
    "Softmax", "h", "y", name="prob")
LOSS = inputs(x=(4, 5), t=(4,)) + layer("InnerProduct", "x", "h", IP, "ip") + layer(
    "SoftmaxWithLoss", "h t", "loss", name="loss")

MODULE = """
    AdaDeltaSolver AdaGradSolver AdamSolver Classifier Detector Layer NCCL NesterovSolver Net NetSpec
    RMSPropSolver SGDSolver TEST TRAIN Timer __version__ as_caffe coord_map draw get_solver has_nccl init_log io
    layer_type_list layers log params proto set_device set_mode_cpu set_mode_gpu set_multiprocess set_random_seed
    set_solver_count set_solver_rank solver_count solver_rank to_proto"""
NET = """
    _backward _batch _blob_loss_weights _blob_names _blobs _bottom_ids _forward _inputs _layer_names _outputs
    _set_input_arrays _top_ids after_backward after_forward backward before_backward before_forward blob_loss_weights
    blobs bottom_names clear_param_diffs copy_from forward forward_all forward_backward_all inputs layer_dict layers
    load_hdf5 outputs params reshape save save_hdf5 set_input_arrays share_with top_names"""
# Of caffe.pycaffe and caffe._caffe; both are barista.pycaffe.
INNER = """
    AdaDeltaSolver AdaGradSolver AdamSolver Layer NCCL NesterovSolver Net RMSPropSolver SGDSolver Solver Timer
    __version__ get_solver has_nccl init_log io layer_type_list log set_device set_mode_cpu set_mode_gpu
    set_multiprocess set_random_seed set_solver_count set_solver_rank solver_count solver_rank"""
SOLVER = """add_callback apply_update iter lr net param restore share_weights snapshot solve step test_nets"""


# ---- the module -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULE.split())
def test_name_of_the_module(name: str) -> None:
    assert getattr(caffe, name) is not None
    assert name in dir(caffe)


@pytest.mark.parametrize("name", INNER.split())
def test_name_of_the_inner_modules(name: str) -> None:
    assert getattr(pycaffe, name) is getattr(caffe, name)


def test_classes_that_only_the_inner_modules_have(scores: Net) -> None:
    assert isinstance(scores.blobs["x"], pycaffe.Blob)
    assert pycaffe.BlobVec.add_blob
    with pytest.raises(AttributeError, match=r"'barista.pycaffe' has no attribute 'Sover'; did you mean 'Solver' or "):
        _ = pycaffe.Sover


def test_modules_need_no_import_of_their_own() -> None:
    """In a process of its own: elsewhere another test may have imported them."""
    code = ("import sys, barista as caffe; assert 'barista.net' not in sys.modules; caffe.proto.caffe_pb2.NetParameter;"
            "caffe.io.Transformer; caffe.layers.Convolution; caffe.coord_map.crop")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_hinted_at() -> None:
    with pytest.raises(AttributeError, match="'barista' has no attribute 'SDGSolver'; did you mean 'SGDSolver'"):
        _ = caffe.SDGSolver  # type: ignore[attr-defined]


def test_layers_is_both_a_package_and_the_maker_of_layers() -> None:
    L = caffe.layers
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[2, 3]))
    n.ip = L.InnerProduct(n.data, num_output=4)
    assert [item.type for item in n.to_proto().layer] == ["Input", "InnerProduct"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = L.nothing


def test_log_writes_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "barista"):
        caffe.log("100 % of it")
    assert caplog.messages == ["100 % of it"]
    assert caplog.records[0].filename == "test_pycaffe.py"


def test_one_solver_is_all_there_is() -> None:
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    advice = "one solver on one device.*iter_size"
    with pytest.raises(UnsupportedError, match=rf"set_solver_count\(2\): .*{advice}"):
        caffe.set_solver_count(2)
    with pytest.raises(UnsupportedError, match=rf"set_solver_rank\(1\): .*{advice}"):
        caffe.set_solver_rank(1)
    for make_one in (caffe.NCCL.new_uid, lambda: caffe.NCCL(None, b"uid")):
        with pytest.raises(UnsupportedError, match=f"NCCL joins solvers.*{advice}"):
            make_one()


def test_a_timer_waits_for_what_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    clock = iter([10.0, 10.5, 20.0, 20.25])
    monkeypatch.setattr(compose, "finish", lambda: waits.append("waited"))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    timer.stop()
    assert timer.ms == timer.ms == 500
    timer.start()
    assert timer.ms == 250
    assert len(waits) == 4


def test_the_device_of_the_gpu_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, dict[str, object]]] = []

    def make_ops(backend: str = "cpu", *_: object, **options: object) -> OpSet:
        made.append((backend, options))
        return CpuOps()

    monkeypatch.setattr(compose, "make_ops", make_ops)
    for name in ("_default", "_tailored", "_mode", "_device"):
        monkeypatch.setattr(compose, name, {"_default": {}, "_tailored": set(), "_mode": "cpu"}.get(name))
    caffe.set_device(1)
    assert made == []
    caffe.set_mode_gpu()
    caffe.set_device(0)
    assert made == [("opencl", {"device": "1"}), ("opencl", {"device": "0"})]


# ---- nets -------------------------------------------------------------------------------------------------


@pytest.fixture
def scores(cpu: CpuOps) -> Net:
    return make(SCORES, cpu)


@pytest.mark.parametrize("name", NET.split())
def test_name_of_a_net(name: str, scores: Net) -> None:
    assert hasattr(scores, name)


def test_names_of_layers_and_blobs(cpu: CpuOps) -> None:
    net = make(LOSS + layer("Softmax", "h", "y", name="prob"), cpu)
    split = "h_ip_0_split"
    assert list(net.layer_dict) == net._layer_names == ["in_x", "in_t", "ip", split, "loss", "prob"]
    assert [net.layer_dict[name] for name in net._layer_names] == net.layers
    assert net.bottom_names == {"in_x": [], "in_t": [], "ip": ["x"], split: ["h"], "loss": [f"{split}_0", "t"],
                                "prob": [f"{split}_1"]}
    assert net.top_names == {"in_x": ["x"], "in_t": ["t"], "ip": ["h"], split: [f"{split}_0", f"{split}_1"],
                             "loss": ["loss"], "prob": ["y"]}
    assert net._blob_names == list(net.blobs)
    assert [net._blob_names[index] for index in net._inputs] == net.inputs == ["x", "t"]
    assert [net._blob_names[index] for index in net._outputs] == net.outputs == ["loss", "y"]
    assert [[net._blob_names[i] for i in net._bottom_ids(index)] for index in range(6)] == list(
        net.bottom_names.values())
    assert [[net._blob_names[i] for i in net._top_ids(index)] for index in range(6)] == list(net.top_names.values())
    assert dict(zip(net._blob_names, net._blob_loss_weights, strict=True))["loss"] == 1
    assert net._blobs[0] is net.blobs["x"]


@pytest.mark.parametrize("arguments", [
    (caffe.TEST, 1, ["deep"], "w"), ("w", caffe.TEST), (caffe.TEST, "w")])
def test_forms_of_the_constructor(arguments: tuple[Any, ...], tmp_path: Path, cpu: CpuOps) -> None:
    text = SCORES + layer("ReLU", "y", "z", "include { min_level: 1 stage: 'deep' }", "extra")
    file, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    file.write_text(text)
    first = Net(str(file), caffe.TRAIN, ops=cpu)
    first.params["ip"][0].data[...] = 7
    first.save(weights)
    net = Net(str(file), *(str(weights) if item == "w" else item for item in arguments), ops=cpu)
    assert net.phase == caffe.TEST
    assert (net.params["ip"][0].data == 7).all()
    assert ("z" in net.blobs) == (len(arguments) == 4)


def test_a_wrong_constructor_is_refused(cpu: CpuOps) -> None:
    with pytest.raises(NetError, match=r"takes its definition, a phase \(TRAIN or TEST\) and weights; got 7"):
        make(SCORES, cpu, 7)


def test_a_part_forward_and_backward(cpu: CpuOps) -> None:
    net = make(LOSS, cpu)
    net.blobs["x"].data[...] = np.linspace(-1, 1, 20).reshape(4, 5)
    h = net.forward(start="in_x", end="ip")["h"]
    weight, bias = (blob.data for blob in net.params["ip"])
    np.testing.assert_allclose(h, net.blobs["x"].data @ weight.T + bias, rtol=1e-5)
    net.blobs["h"].diff[...] = h
    diffs = net.backward(start="ip", end="ip")
    np.testing.assert_allclose(diffs["x"], h @ weight, rtol=1e-5)
    # The numbers of layers, too; then the loss comes back.
    assert net._forward(0, 3) == pytest.approx(float(net.blobs["loss"].data))
    net._backward(3, 0)


def test_arrays_are_repeated_along_axes_of_1(cpu: CpuOps) -> None:
    """As NumPy assigns; only the batch must have its size."""
    net = make(inputs(x=(2, 3, 2, 2)) + layer("ReLU"), cpu)
    net.forward(x=np.array([1.0, 2.0]).reshape(2, 1, 1, 1))
    assert (net.blobs["y"].data[0] == 1).all() and (net.blobs["y"].data[1] == 2).all()
    for wrong in ((1, 3, 2, 2), (2, 3, 2), (2, 3, 2, 4)):
        with pytest.raises(ShapeError, match=rf"input 'x' has shape \(2, 3, 2, 2\), got an array of "
                                             rf"{re.escape(str(wrong))}"):
            net.forward(x=np.zeros(wrong))


# ---- batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 4, 8, 10])
def test_forward_all_cuts_into_batches(items: int, scores: Net) -> None:
    x = np.random.default_rng(0).normal(size=(items, 5)).astype(np.float32)
    every = scores.forward_all(blobs=["h"], x=x)
    weight, bias = (blob.data for blob in scores.params["ip"])
    hidden = np.maximum(x @ weight.T + bias, 0)
    np.testing.assert_allclose(every["h"], hidden, rtol=1e-5, atol=1e-6)
    assert every["y"].shape == (items, 3)
    np.testing.assert_allclose(every["y"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("items", [3, 4, 6])
def test_forward_backward_all(items: int, scores: Net) -> None:
    gen = np.random.default_rng(1)
    x, dy = (gen.normal(size=(items, size)).astype(np.float32) for size in (5, 3))
    values, gradients = scores.forward_backward_all(diffs=["h"], x=x, y=dy)
    weight = scores.params["ip"][0].data
    y = values["y"]
    dh = y * (dy - (dy * y).sum(axis=1, keepdims=True)) * (x @ weight.T + scores.params["ip"][1].data > 0)
    np.testing.assert_allclose(gradients["x"], dh @ weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients["h"], dh, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_cut_into_batches(cpu: CpuOps, scores: Net) -> None:
    with pytest.raises(NetError, match="one number of items along their first axis; none is given"):
        scores.forward_all()
    with pytest.raises(NetError, match="first axis; x has 4, y has 3"):
        scores.forward_backward_all(x=np.zeros((4, 5)), y=np.zeros((3, 3)))
    with pytest.raises(NetError, match=r"has the inputs \['x'\] and the outputs \['y'\], got arrays for \['z'\]"):
        scores.forward_backward_all(x=np.zeros((4, 5)), z=np.zeros((4, 5)))
    with pytest.raises(ShapeError, match=r"blob 'loss' of shape \(\) has no axis of the 4 items of a batch"):
        make(LOSS, cpu).forward_all(x=np.zeros((4, 5)), t=np.zeros(4))


# ---- hooks ------------------------------------------------------------------------------------------------


def test_hooks_are_called_around_every_layer(cpu: CpuOps) -> None:
    net = make(inputs(x=(1, 2, 4, 4)) + layer(
        "Convolution", "x", "c", "convolution_param { num_output: 2 kernel_size: 3 "
        "weight_filler { type: 'gaussian' std: 1 } bias_filler { value: -5 } }", "conv")
               + layer("ReLU", "c", "c", name="relu"), cpu)
    calls: list[tuple[str, int]] = []
    seen: list[float] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda index, name=name: calls.append((name, index)))
    net.after_forward(lambda index: seen.append(float(net.blobs["c"].data.min())) if index else None)
    net.forward()
    net.backward(start="relu", end="conv")
    assert calls == [(f"{moment}_forward", index) for index in range(3) for moment in ("before", "after")] + [
        (f"{moment}_backward", index) for index in (2, 1) for moment in ("before", "after")]
    # Between the convolution and its ReLU the values are not yet rectified.
    assert seen[0] < 0 == seen[1]


# ---- files and data ---------------------------------------------------------------------------------------


def test_hdf5_whatever_the_name(tmp_path: Path, scores: Net, cpu: CpuOps) -> None:
    scores.save_hdf5(tmp_path / "weights")
    other = make(SCORES, cpu)
    assert (other.params["ip"][0].data != scores.params["ip"][0].data).any()
    other.load_hdf5(tmp_path / "weights")
    for ours, theirs in zip(other.params["ip"], scores.params["ip"], strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data)


def test_share_with(scores: Net, cpu: CpuOps) -> None:
    other = make(SCORES, cpu)
    other.share_with(scores)
    scores.params["ip"][0].data[...] = 3
    assert (other.params["ip"][0].data == 3).all()


@pytest.mark.parametrize("labels", [np.arange(4), np.arange(4).reshape(4, 1, 1, 1)])
def test_set_input_arrays(labels: np.ndarray, cpu: CpuOps) -> None:
    sizes = "batch_size: 2 channels: 1 height: 2 width: 3"
    net = make(layer("MemoryData", "", "x t", f"memory_data_param {{ {sizes} }}", "data") + layer("ReLU"), cpu)
    data = np.random.default_rng(0).normal(size=(4, 1, 2, 3)).astype(np.float32)
    for feed in (net._set_input_arrays, net.set_input_arrays):
        feed(data, labels.astype(np.float32))
    for start in (0, 2, 0):
        np.testing.assert_array_equal(net.forward()["y"], np.maximum(data[start:start + 2], 0))
        np.testing.assert_array_equal(net.blobs["t"].data.reshape(-1), [start, start + 1])


def test_only_memory_data_takes_input_arrays(scores: Net) -> None:
    with pytest.raises(NetError, match="feeds a MemoryData layer; net 'little' begins with 'in_x', of type Input"):
        scores.set_input_arrays(np.zeros((4, 1, 1, 1), np.float32), np.zeros(4, np.float32))


# ---- solvers ----------------------------------------------------------------------------------------------

SOLVER_TEXT = "net: '{net}' base_lr: 0.5 lr_policy: 'fixed' max_iter: 3 snapshot_after_train: false"


@pytest.fixture
def solver(tmp_path: Path, cpu: CpuOps) -> caffe.Solver:
    (tmp_path / "net.prototxt").write_text(LOSS)
    (tmp_path / "solver.prototxt").write_text(SOLVER_TEXT.format(net=tmp_path / "net.prototxt"))
    return caffe.SGDSolver(str(tmp_path / "solver.prototxt"), ops=cpu)


@pytest.mark.parametrize("name", SOLVER.split())
def test_name_of_a_solver(name: str, solver: caffe.Solver) -> None:
    assert hasattr(solver, name)


def test_a_solver_by_hand(solver: caffe.Solver, cpu: CpuOps) -> None:
    calls: list[str] = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("gradients"))
    other = make(LOSS, cpu)
    solver.share_weights(other)
    solver.net.blobs["x"].data[...] = np.random.default_rng(0).normal(size=(4, 5))
    weights = solver.net.layers[2].blobs[0].data
    before = weights.copy()
    solver.step(1)
    gradient = solver.net.params["ip"][0].diff.copy()  # Caffe: after an update, what was subtracted
    np.testing.assert_allclose(weights, before - gradient, rtol=1e-5)
    np.testing.assert_array_equal(other.params["ip"][0].data, weights)
    assert calls == ["start", "gradients"]
    solver.solve(None)
    assert solver.iter == 3 and solver.param.max_iter == 3 and solver.lr == 0.5
