"""convert and finetune: models of ONNX and Caffe2 as Caffe's files, and trained on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe2_nets import little_pair

pytest.importorskip("onnx", reason="the onnx extra is not installed")

import onnx
from onnx import TensorProto, helper, numpy_helper

from barista.cli.main import main
from barista.data import open_database
from barista.data.database import create_database
from barista.data.datum import array_to_datum
from barista.errors import NetError
from barista.finetune import Head, training_net
from barista.frontends.prototxt import parse_net, read_net
from barista.net import Net
from barista.proto.caffe_pb2 import TEST, TRAIN, NetParameter

SOLVER = """base_lr: 0.05 lr_policy: "fixed" max_iter: 12 display: 4 momentum: 0.9 test_iter: 2 test_interval: 6
solver_mode: CPU snapshot: 6 snapshot_prefix: "out" random_seed: 1
"""


def model() -> onnx.ModelProto:
    """A classifier of 8 x 8 images: a convolution, a hidden layer fc7, 6 scores, their Softmax."""
    random = np.random.default_rng(2)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.3 * random.standard_normal(shape)).astype(np.float32), name)

    nodes = [helper.make_node("Conv", ["image", "cw", "cb"], ["conv"], name="conv1", kernel_shape=[3, 3]),
             helper.make_node("Relu", ["conv"], ["relu"]),
             helper.make_node("Flatten", ["relu"], ["flat"]),
             helper.make_node("Gemm", ["flat", "w7", "b7"], ["fc7"], name="fc7", transB=1),
             helper.make_node("Tanh", ["fc7"], ["tanh"]),
             helper.make_node("Gemm", ["tanh", "w8", "b8"], ["scores"], name="fc8", transB=1),
             helper.make_node("Softmax", ["scores"], ["prob"], axis=1)]
    graph = helper.make_graph(
        nodes, "little", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["batch", 6])],
        [weights("cw", 4, 1, 3, 3), weights("cb", 4), weights("w7", 5, 144), weights("b7", 5), weights("w8", 6, 5),
         weights("b8", 6)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model, a solver, and images whose class is the brighter half."""
    monkeypatch.chdir(tmp_path)
    onnx.save(model(), "model.onnx")
    init, predict, _ = little_pair()
    (tmp_path / "init_net.pb").write_bytes(init.SerializeToString())
    (tmp_path / "predict_net.pb").write_bytes(predict.SerializeToString())
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    random = np.random.default_rng(4)
    for name in ("train_db", "test_db"):
        with create_database(tmp_path / name) as database:
            for index in range(40):
                image = random.integers(0, 100, (1, 8, 8)).astype(np.uint8)
                image[:, 4 * (index % 2):4 * (index % 2) + 4] += 100
                database.put(f"{index:08d}", array_to_datum(image, index % 2).SerializeToString())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(words)
    return status, capsys.readouterr().err


def forward(net: NetParameter, weights: str, **inputs: Any) -> dict[str, Any]:
    made = Net(net, TEST)
    made.copy_from(weights)
    for name, array in inputs.items():
        made.blobs[name].data[...] = array
    return {name: array.copy() for name, array in made.forward().items()}


# ---- convert ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["net.caffemodel", "net.caffemodel.h5"])
def test_convert_an_onnx_model(folder: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, log = run(capsys, "convert", "model.onnx", "--input", "image=3,1,8,8", "--out", "net.prototxt", weights)
    assert status == 0, log
    assert "input image (3, 1, 8, 8)" in log and "output prob (3, 6)" in log
    net = read_net("net.prototxt")
    assert not any(layer.blobs for layer in net.layer)
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    (wanted,) = onnx.reference.ReferenceEvaluator(model()).run(None, {"image": x})
    result = forward(net, weights, image=x)
    assert list(result) == ["prob"]
    np.testing.assert_allclose(result["prob"], wanted, rtol=1e-4, atol=1e-6)


def test_convert_a_pair_of_caffe2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("convert", "--init", "init_net.pb", "--predict", "predict_net.pb", "--out", "net.prototxt",
             "net.caffemodel")
    status, log = run(capsys, *words)
    assert status == 1 and "blobs come from outside and have no shape: data" in log and "--input data=" in log
    status, log = run(capsys, *words, "--input", "data=2,3,6,6")
    assert status == 0, log
    assert forward(read_net("net.prototxt"), "net.caffemodel")["prob"].shape == (2, 5)


@pytest.mark.parametrize(("words", "text"), [
    (["--out", "a", "b"], "give a model: MODEL.onnx, or --init init_net.pb --predict predict_net.pb"),
    (["model.onnx", "--predict", "p", "--out", "a", "b"], "give model.onnx for ONNX, or --init and --predict for "
                                                          "Caffe2"),
    (["model.onnx", "--out", "a"], "barista convert MODEL.onnx --out NET.prototxt NET.caffemodel"),
    (["model.onnx", "--out", "a", "a"], "a is given twice"),
    (["model.onnx", "--out", "a", "./model.onnx"], "./model.onnx would be written over the file that is read"),
    (["model.onnx", "--out", "a.caffemodel", "a.prototxt"], "the network comes first, NET.prototxt NET.caffemodel"),
    (["a.prototxt", "./x.onnx", "--out", "x.onnx"], "x.onnx would be written over the file that is read"),
    (["model.onnx", "--out", "none/a", "b"], "there is no folder none"),
    (["model.onnx", "--input", "image", "--out", "a", "b"], "'image' is no name and sizes, such as data=1,3,224,224"),
    (["model.onnx", "--input", "image=1,0", "--out", "a", "b"], "'image=1,0' is no name and sizes"),
    (["model.onnx", "--input-shape", "1,2,3", "--out", "a", "b"], "the shape of a model's input is --input "
                                                                  "NAME=N,C,H,W"),
    (["a", "b", "c", "--out", "x.onnx"], "to ONNX: barista convert NET.prototxt WEIGHTS.caffemodel --out MODEL.onnx"),
    (["a", "--input", "x=1", "--out", "x.onnx"], "--input are for models that are read"),
])
def test_command_lines_of_convert(folder: Path, words: list[str], text: str,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    status, log = run(capsys, "convert", *words)
    assert status == 2 and text in log


# ---- finetune ---------------------------------------------------------------------------------------------


def losses(log: str) -> list[float]:
    """Losses of the train net, as displayed."""
    return [float(found) for found in re.findall(r"Iteration \d+ \(.*?, loss = (\S+)", log)]


def accuracies(log: str) -> list[float]:
    return [float(found) for found in re.findall(r"Test net output #\d+: accuracy = (\S+)", log)]


def test_finetune_on_databases(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("finetune", "model.onnx", "--solver", "solver.prototxt", "--data", "train_db", "--test-data", "test_db",
             "--batch", "20", "--classes", "2", "--mean-value", "100", "--scale", "0.02", "--mirror")
    status, log = run(capsys, *words)
    assert status == 0, log
    assert "SoftmaxWithLoss looks at scores, of which Softmax makes the model's output prob" in log
    assert "Layer fc8 (InnerProduct) is learnt anew, with 2 outputs instead of 6" in log
    assert losses(log)[-1] < 0.5 * losses(log)[0] and accuracies(log)[-1] == 1
    net = read_net("out_finetune.prototxt")
    train, test = net.layer[:2]
    assert (train.include[0].phase, test.include[0].phase) == (TRAIN, TEST)
    assert (train.transform_param.mirror, test.transform_param.mirror) == (True, False)
    assert train.transform_param.crop_size == 8 and list(test.transform_param.mean_value) == [100]
    assert [layer.type for layer in net.layer[2:]] == ["Convolution", "ReLU", "Flatten", "InnerProduct", "TanH",
                                                      "InnerProduct", "SoftmaxWithLoss", "Accuracy"]
    assert [rate.lr_mult for rate in net.layer[-3].param] == [10, 10]
    status, again = run(capsys, *words, "--snapshot", "auto")
    assert status == 0 and "out_iter_12" in again and not losses(again)[1:]


DATA = """
layer {{ name: "images" type: "DummyData" top: "{top}" top: "{label}" dummy_data_param {{
  shape {{ dim: 4 dim: 1 dim: 8 dim: 8 }} shape {{ dim: 4 }}
  data_filler {{ type: "gaussian" std: 1 }} data_filler {{ value: 1 }} }} }}
{behind}
"""


def trained(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, top: str = "image", label: str = "label",
            behind: str = "") -> tuple[int, str]:
    """Finetune with data layers of the solver's net."""
    (folder / "data.prototxt").write_text(DATA.format(top=top, label=label, behind=behind))
    text = SOLVER.replace("test_iter: 2 test_interval: 6", "")
    (folder / "with_net.prototxt").write_text(text + 'net: "data.prototxt"')
    return run(capsys, "finetune", "model.onnx", "--solver", "with_net.prototxt", *words)


def test_finetune_with_the_data_layers_of_the_solvers_net(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, log = trained(folder, capsys)
    assert status == 0 and losses(log)[-1] < losses(log)[0]
    status, log = trained(folder, capsys, "--loss-bottom", "fc7", "--out", "a.prototxt", "a.caffemodel", top="pixels",
                          label="answer")
    assert status == 0, log
    assert "The model's input image is read from the blob pixels of the data layers" in log
    net = read_net("a.prototxt")
    assert [layer.name for layer in net.layer] == ["images", "conv1", "relu", "flat", "fc7", "loss", "accuracy"]
    assert list(net.layer[-2].bottom) == ["fc7", "answer"] and (folder / "a.caffemodel").exists()


def test_a_loss_in_the_solvers_net_takes_the_place_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    behind = 'layer { name: "hinge" type: "HingeLoss" bottom: "tanh" bottom: "label" top: "hinge" }'
    status, log = trained(folder, capsys, behind=behind)
    assert status == 0, log
    assert [layer.name for layer in read_net("out_finetune.prototxt").layer][-2:] == ["tanh", "hinge"]


def test_finetune_a_pair_of_caffe2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_database("train_db") as database:
        assert sum(1 for _ in database.items()) == 40
    (folder / "value_info.json").write_text('{"data": [1, [1, 3, 6, 6]]}')
    (folder / "colour.prototxt").write_text(SOLVER.replace("test_iter: 2 test_interval: 6", ""))
    with create_database(folder / "colour_db") as database:
        for index in range(8):
            database.put(str(index), array_to_datum(np.full((3, 6, 6), 30 * index, np.uint8), index % 2)
                         .SerializeToString())
    status, log = run(capsys, "finetune", "--init", "init_net.pb", "--predict", "predict_net.pb", "--solver",
                      "colour.prototxt", "--data", "colour_db", "--batch", "8", "--scale", "0.01", "--loss-bottom",
                      "fc")
    assert status == 0 and losses(log)[-1] < losses(log)[0]
    types = [layer.type for layer in read_net("out_finetune.prototxt").layer]
    assert types[0] == "Data" and types[-2:] == ["SoftmaxWithLoss", "Accuracy"] and "Dropout" in types


@pytest.mark.parametrize(("words", "status", "text"), [
    (["--solver", "solver.prototxt"], 2, "there are no images to train with: give --data DB, or let solver.prototxt "
                                         "name"),
    (["--solver", "solver.prototxt", "--data", "train_db"], 1, "it has test_iter, and there is nothing to test with"),
    (["--solver", "solver.prototxt", "--data", "none", "--test-data", "test_db"], 1, "none"),
    (["--solver", "solver.prototxt", "--data", "train_db", "--test-data", "test_db", "--loss-bottom", "fc9"], 1,
     "--loss-bottom fc9: the model has no such blob; did you mean 'fc7'"),
    (["--solver", "solver.prototxt", "--data", "train_db", "--test-data", "test_db", "--classes", "3", "--loss-bottom",
      "image"], 1, "--loss-bottom image: the model has no such blob"),
    (["--solver", "solver.prototxt", "--data", "train_db", "--mean-value", "1", "--mean-file", "m"], 2,
     "give --mean-value or --mean-file, not both"),
    (["--solver", "solver.prototxt", "--data", "train_db", "--mean-value", "a"], 2, "'a' is no list of numbers"),
    (["--solver", "solver.prototxt", "--data", "train_db", "--test-data", "test_db", "--batch", "3", "--input",
      "image=2,1,8,8"], 2, "--batch goes with --data; the batch stands in --input too"),
])
def test_command_lines_of_finetune(folder: Path, words: list[str], status: int, text: str,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    ended, log = run(capsys, "finetune", "model.onnx", *words)
    assert ended == status and text in log.splitlines()[-1], log


@pytest.mark.parametrize(("behind", "words", "text"), [
    ('layer { name: "fc7" type: "Power" bottom: "image" top: "p" }', [], "the layer 'fc7' is in the model and in the "
                                                                         "net"),
    ('layer { name: "p" type: "EuclideanLoss" bottom: "probe" bottom: "label" top: "p" }', [],
     "p (EuclideanLoss) needs the blob 'probe', which neither the data layers nor the model make; did you mean 'prob'"),
    ("", ["--data", "train_db"], "with_net.prototxt names the net 'data.prototxt', and --data is given too"),
    ("", ["--scale", "2"], "--scale goes with --data; the solver's net has its own data layers"),
])
def test_nets_that_do_not_fit_the_model(folder: Path, behind: str, words: list[str], text: str,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    status, log = trained(folder, capsys, *words, behind=behind)
    assert status in (1, 2) and text in log.splitlines()[-1], log


def test_a_net_without_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "data.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "image" dummy_data_param { shape { dim: 2 dim: 1 dim: 8 dim: 8 } } }')
    (folder / "s.prototxt").write_text('net: "data.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1')
    status, log = run(capsys, "finetune", "model.onnx", "--solver", "s.prototxt")
    assert status == 1 and "the data layers give no labels; let them have a second top, named label" in log
    assert parse_net((folder / "data.prototxt").read_text()).layer[0].top[0] == "image"


# ---- the net that trains ----------------------------------------------------------------------------------

IMAGES = parse_net('''layer { name: "d" type: "DummyData" top: "x" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }''')


def joined(text: str, outputs: list[str], head: Head) -> NetParameter:
    return training_net(parse_net('layer { name: "x" type: "Input" top: "x" }' + text), outputs, IMAGES, head)


def test_the_loss_looks_through_what_only_changes_shapes() -> None:
    net = joined('''
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }
        layer { name: "p" type: "Softmax" bottom: "ip" top: "p" softmax_param { axis: 2 } }
        layer { name: "q" type: "Reshape" bottom: "p" top: "q" }''', ["q"], Head())
    assert [layer.name for layer in net.layer] == ["d", "ip", "loss", "accuracy"]
    assert net.layer[2].softmax_param.axis == net.layer[3].accuracy_param.axis == 2
    net = joined('layer { name: "loss" type: "Sigmoid" bottom: "x" top: "loss" }', ["loss"], Head("EuclideanLoss"))
    assert [layer.name for layer in net.layer[1:]] == ["loss", "loss_"]
    assert list(net.layer[-1].bottom) == ["loss", "label"] and list(net.layer[-1].top) == ["loss_"]


def test_blobs_that_nothing_reads_are_silenced() -> None:
    net = joined('''layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" }
        layer { name: "t" type: "TanH" bottom: "b" top: "t" }''', ["a", "t"], Head("HingeLoss", "a"))
    assert [layer.type for layer in net.layer] == ["DummyData", "Slice", "Silence", "HingeLoss"]
    assert list(net.layer[2].bottom) == ["b"]


@pytest.mark.parametrize(("text", "outputs", "head", "message"), [
    ('layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" }', ["a", "b"], Head(),
     "the model has 2 outputs, a, b: say which one is learnt, with --loss-bottom NAME"),
    ('layer { name: "e" type: "Embed" bottom: "x" top: "e" blobs { } }', ["e"], Head(classes=2),
     "--classes replaces an InnerProduct or a Convolution; before the loss stands e (Embed)"),
    ('layer { name: "t" type: "TanH" bottom: "x" top: "t" }', ["t"], Head(classes=2), "before the loss stands the "
                                                                                      "data"),
    ('layer { name: "z" type: "Input" top: "z" } layer { name: "t" type: "Eltwise" bottom: "x" bottom: "z" top: "t" }',
     ["t"], Head(), "the model's inputs are x, z; no data layer has a top 'z'"),
])
def test_models_that_give_no_net(text: str, outputs: list[str], head: Head, message: str) -> None:
    with pytest.raises(NetError, match=re.escape(message)):
        joined(text, outputs, head)
