"""barista convert, from Caffe's files to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from little_nets import inputs, layer

pytest.importorskip("onnx")

import onnx

import barista
from barista.cli.main import main
from barista.net import Net

SHIPPED = Path(__file__).parents[1] / "prototxt"
RESNET = SHIPPED / "resnet20_cifar10"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.caffemodel"
    Net(RESNET / "deploy.prototxt", barista.TEST).save(path)
    return path


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


def test_a_deploy_net(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.onnx"
    assert convert(RESNET / "deploy.prototxt", weights, "--out", out, "--batch", 3, "--opset", 18) == 0
    model = onnx.load(out)
    assert model.opset_import[0].version == 18
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [3, 3, 32, 32]
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    log = capsys.readouterr().err
    assert f"Wrote {out}: opset 18, {len(model.graph.node)} nodes" in log and "output prob (3, 10)" in log


def test_a_training_net_without_its_database(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    assert convert(RESNET / "train_val.prototxt", weights, "--out", out, "--input-shape", "3,32,32", "--batch", 1,
                   "--softmax", "--fold-batch-norm") == 0
    graph = onnx.load(out).graph
    assert [value.name for value in graph.input] == ["data"]
    assert [value.name for value in graph.output] == ["prob"]
    assert {node.op_type for node in graph.node} == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm",
                                                     "Softmax"}


def test_weights_in_the_definition_and_chosen_outputs(weights: Path, tmp_path: Path) -> None:
    """A caffemodel defines a net too."""
    out = tmp_path / "net.onnx"
    assert convert(weights, "--out", out, "--outputs", "pool") == 0
    graph = onnx.load(out).graph
    assert [value.name for value in graph.output] == ["pool"]
    first = next(array for array in graph.initializer if array.name.endswith(".weight"))
    expected = Net(weights, barista.TEST).params[first.name.removesuffix(".weight")][0].data
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(first), expected)


def test_boxes_of_ssd_are_computed(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(inputs(image=(1, 3, 8, 8))
                   + layer("Pooling", "image", "map", "pooling_param { kernel_size: 2 stride: 2 }", "pool")
                   + layer("PriorBox", "map image", "boxes", "prior_box_param { min_size: 2 }", "boxes"))
    out = tmp_path / "net.onnx"
    assert convert(net, "--out", out) == 0
    array = onnx.numpy_helper.to_array(onnx.load(out).graph.initializer[0])
    assert array.shape == (1, 2, 64) and array.any()


@pytest.mark.parametrize("words, status, why", [
    (["NET", "--out", "OUT"], 1, "it holds no weights of conv1, "),
    (["NET", "OTHER", "--out", "OUT"], 1, "it has no weights of conv1, "),
    (["NET", "WEIGHTS", "--out", "OUT", "--opset", "5"], 1, "opset 5 cannot be written; give one from 13 to"),
    (["NET", "WEIGHTS", "--out", "OUT", "--outputs", "probe"], 1, "no blob 'probe' that could be an output; did you"),
    (["NET", "WEIGHTS", "--out", "nowhere/net.onnx"], 2, "there is no folder nowhere"),
    (["NET", "missing.caffemodel", "--out", "OUT"], 1, "missing.caffemodel"),
])
def test_what_cannot_be_done(words: list[str], status: int, why: str, weights: Path, tmp_path: Path,
                             capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.caffemodel"
    other.write_bytes(barista.proto.caffe_pb2.NetParameter(name="other", layer=[{"name": "else"}]).SerializeToString())
    places = {"NET": RESNET / "deploy.prototxt", "WEIGHTS": weights, "OTHER": other, "OUT": tmp_path / "net.onnx"}
    assert convert(*(places.get(word, word) for word in words)) == status
    assert why in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()
