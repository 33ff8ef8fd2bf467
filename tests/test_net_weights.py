"""Nets: weights from and to files and other nets, and the memory that blobs take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from little_nets import inputs, layer
from small_nets import CLASSIFIER, CONVNET, backward, fill, ip, quiet

import barista
from barista.errors import SnapshotError
from barista.frontends.prototxt import parse_net, read_net
from barista.net import Net
from barista.ops.cpu import CpuOps


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5"])
def test_save_and_copy(suffix: str, tmp_path: Path, cpu: CpuOps) -> None:
    if suffix.endswith(".h5"):
        pytest.importorskip("h5py")
    net, other = quiet(CONVNET, cpu), quiet(CONVNET, cpu)
    backward(net)
    path = tmp_path / f"weights{suffix}"
    net.save(path)
    other.copy_from(path)
    third = Net(parse_net(CONVNET), barista.TEST, path, ops=cpu)
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            np.testing.assert_array_equal(other.params[name][index].data, blob.data)
            np.testing.assert_array_equal(third.params[name][index].data, blob.data)


def test_weights_travel_between_precisions(tmp_path: Path, cpu: CpuOps, cpu64: CpuOps) -> None:
    double = quiet(CLASSIFIER, cpu64)
    double.save(tmp_path / "double.caffemodel")
    single = Net(parse_net(CLASSIFIER), barista.TRAIN, tmp_path / "double.caffemodel", ops=cpu)
    np.testing.assert_array_equal(single.params["h"][0].data, double.params["h"][0].data.astype(np.float32))


def test_to_proto_makes_the_same_net(cpu: CpuOps) -> None:
    net = quiet(CLASSIFIER, cpu)
    backward(net)
    proto = net.to_proto(write_diff=True)
    assert [item.name for item in proto.layer] == net.layer_names
    assert len(proto.layer[net.layer_names.index("h")].blobs[0].diff) == 15
    again = Net(proto, barista.TRAIN, ops=cpu)  # layers take the weights that their definition carries
    np.testing.assert_array_equal(again.params["h"][0].data, net.params["h"][0].data)
    assert not net.to_proto().layer[2].blobs[0].diff


def test_copy_matches_by_name_and_leaves_the_rest(cpu: CpuOps, caplog: pytest.LogCaptureFixture) -> None:
    source = quiet(CLASSIFIER, cpu)
    target = quiet(CLASSIFIER.replace("name: 'f'", "name: 'other'"), cpu)
    before = target.params["other"][0].data.copy()
    with caplog.at_level("INFO"):
        target.copy_trained_layers(source.to_proto(), "source")
    assert "Ignoring source layer f" in caplog.text
    np.testing.assert_array_equal(target.params["h"][0].data, source.params["h"][0].data)
    np.testing.assert_array_equal(target.params["other"][0].data, before)


def test_copy_of_nothing_is_refused(cpu: CpuOps) -> None:
    target = quiet(inputs(x=(1, 2)) + ip("x", "lonely"), cpu)
    with pytest.raises(barista.SnapshotError, match=r"no layer of file\.caffemodel has the name .* \(lonely\)"):
        target.copy_trained_layers(quiet(CLASSIFIER, cpu).to_proto(), "file.caffemodel")


def test_copy_takes_shapes_of_old(cpu: CpuOps) -> None:
    """Caffe: old files have four axes everywhere; leading ones do not count."""
    source = quiet(CLASSIFIER, cpu)
    proto = source.to_proto()
    blob = proto.layer[source.layer_names.index("h")].blobs[0]
    blob.ClearField("shape")
    blob.num, blob.channels, blob.height, blob.width = 1, 1, 3, 5
    target = quiet(CLASSIFIER, cpu)
    target.copy_trained_layers(proto, "old")
    np.testing.assert_array_equal(target.params["h"][0].data, source.params["h"][0].data)


def test_share_trained_layers(cpu: CpuOps) -> None:
    train = quiet(CLASSIFIER, cpu)
    test = quiet(CLASSIFIER, cpu, barista.TEST)
    test.share_trained_layers_with(train)
    fill(train)
    fill(test)
    train.params["h"][0].data[...] = 0.25
    train.forward_pass()
    test.forward_pass()
    np.testing.assert_array_equal(test.params["h"][0].data, train.params["h"][0].data)
    assert test.loss() == train.loss()
    assert test.params["h"][0].value.memory is train.params["h"][0].value.memory
    assert test.params["h"][0].grad.memory is not train.params["h"][0].grad.memory


# ---- memory -----------------------------------------------------------------------------------------------


def test_nets_that_only_run_forward_hold_no_gradients(cpu: CpuOps) -> None:
    net = quiet(CONVNET + layer("Accuracy", "f t", "right", name="accuracy"), cpu, barista.TEST)
    fill(net)
    net.forward_pass()
    assert net.loss() > 0
    # The loss's own gradient is its weight: one number.
    held = {name for name, blob in net.blobs.items() if blob.grad.memory.spaces and blob.count > 1}
    assert held == set()
    assert all(not item.blob.grad.memory.spaces for item in net.learnable)


def test_split_and_reshape_take_no_memory(cpu: CpuOps) -> None:
    net = quiet(CONVNET, cpu)
    fill(net)
    net.forward_pass()
    split = next(name for name in net.blobs if name.endswith("split_0"))
    assert net.blobs[split].value.memory is net.blobs["g"].value.memory is net.blobs["p"].value.memory
    assert net.blobs["k"].value.memory is net.blobs["r"].value.memory


def test_definition_from_a_file(tmp_path: Path, cpu: CpuOps) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("name: 'from_file'\n" + CLASSIFIER)
    net = Net(path, barista.TRAIN, ops=cpu)
    assert net.name == "from_file"
    assert net.param.layer[0].name == read_net(str(path)).layer[0].name


def test_model_and_weights_exchanged(tmp_path: Path, cpu: CpuOps) -> None:
    file, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    file.write_text(inputs(x=(1, 2)) + layer("InnerProduct", more="inner_product_param { num_output: 2 }"))
    Net(file, barista.TEST, ops=cpu).save(weights)
    for model in (weights, file):
        with pytest.raises(SnapshotError, match=r"net\.prototxt: this is text, .*; were model and weights exchanged\?"):
            Net(str(model), str(file), barista.TEST, ops=cpu)


def test_default_op_set_is_that_of_the_mode() -> None:
    from barista.compose import default_ops

    assert Net(parse_net(CLASSIFIER), barista.TRAIN).ops is default_ops()
