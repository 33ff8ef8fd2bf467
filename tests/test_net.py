"""Nets: what a state keeps, splits, shared parameters, who gets a gradient, precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_nets import inputs, layer, make
from small_nets import CLASSIFIER, CONVNET, backward, fill, ip, quiet

import barista
from barista import rng
from barista.frontends.prototxt import parse_net
from barista.net import Net
from barista.net_graph import insert_splits
from barista.ops.cpu import CpuOps
from barista.solvers.resume import check_layers, layer_states, restore_layers

# ---- states -----------------------------------------------------------------------------------------------


def states() -> list[dict[str, Any]]:
    return json.loads((Path(__file__).parent / "golden" / "data" / "state.json").read_text())


@pytest.mark.parametrize("state", states(), ids=lambda s: f"{s['phase']}-{s['level']}-{''.join(s['stages'])}")
def test_layers_of_a_state_as_caffe_keeps_them(state: dict[str, Any], golden: Path, cpu: CpuOps) -> None:
    net = Net(golden / "data" / "state.prototxt", getattr(barista, state["phase"]), ops=cpu, level=state["level"],
              stages=state["stages"])
    assert [name for name in net.layer_names if not name.endswith("_split")] == state["layers"]
    assert net.phase == getattr(barista, state["phase"])


def test_state_of_the_definition(cpu: CpuOps) -> None:
    text = (inputs(x=(1, 2)) + layer("ReLU", "x", "a", "include { phase: TEST stage: 'deep' min_level: 2 }", "deep")
            + layer("ReLU", "x", "b", "exclude { phase: TEST }", "train"))
    definition = parse_net(f"state {{ phase: TEST level: 2 stage: 'deep' }} {text}")
    assert Net(definition, ops=cpu).outputs == ["a"]
    assert Net(definition, barista.TRAIN, ops=cpu).outputs == ["b"]
    assert definition.state.level == 2 and len(definition.layer) == 3  # the caller's message is left alone


def test_layers_inherit_the_phase(cpu: CpuOps) -> None:
    net = quiet(inputs(x=(1, 2)) + layer("Dropout", "x", "a", name="drop")
                + layer("Dropout", "a", "b", "phase: TRAIN", "always"), cpu, barista.TEST)
    assert [item.phase for item in net.layers] == [barista.TEST, barista.TEST, barista.TRAIN]


# ---- graph ------------------------------------------------------------------------------------------------


def test_layers_may_share_a_name(cpu: CpuOps, tmp_path: Path) -> None:
    """As the two losses of MNIST's autoencoder do: weights, states and passes keep them apart."""
    text = (inputs(x=(2, 3), y=(2, 3)) + ip("x", "h", name="twin") + layer("Dropout", "h", "d", name="twin")
            + layer("Dropout", "d", "e", name="twin") + layer("EuclideanLoss", "e y", "one", name="loss")
            + layer("SigmoidCrossEntropyLoss", "e y", "two", "loss_weight: 0", "loss"))
    net = quiet(text, cpu)
    assert net.layer_names.count("twin") == 3
    assert list(net.params) == ["twin"]
    assert net.layer_dict["loss"].type == "SigmoidCrossEntropyLoss"  # the last, as in pycaffe
    fill(net)
    states = layer_states(net)
    assert [key for key in states if key.startswith(("twin", "loss"))] == ["twin", "twin (2)", "twin (3)", "loss",
                                                                           "loss (2)"]
    check_layers(net, states, "file")
    net.forward_pass()
    expected = net.blobs["e"].data.copy()
    for name in ("weights.caffemodel", "weights.h5"):
        net.save(tmp_path / name)
        other = quiet(text, cpu)
        other.copy_from(tmp_path / name)
        for blob in ("x", "y"):
            other.blobs[blob].data[...] = net.blobs[blob].data
        restore_layers(other, states, "file")
        other.forward_pass()
        np.testing.assert_array_equal(other.blobs["e"].data, expected)


def test_losses_of_one_name_may_leave_their_tops_out(cpu: CpuOps) -> None:
    text = inputs(x=(2, 3), y=(2, 3)) + layer("EuclideanLoss", "x y", "", name="loss") * 2
    net = quiet(text, cpu)
    net.blobs["x"].data[...] = 2
    net.forward_pass()
    assert net.loss() == 2 * 6.0
    assert net.outputs == []


def test_a_shared_name_is_told_from_a_number_in_a_name(cpu: CpuOps) -> None:
    names = ["a", "a (2)", "a", "a (2)"]
    net = quiet(inputs(x=(1, 2)) + "".join(layer("ReLU", "x", f"y{number}", name=name)
                                           for number, name in enumerate(names)), cpu)
    keys = [key for key in layer_states(net) if key.startswith("a")]
    assert keys == ["a", "a (2)", "a (3)", "a (2) (2)"]


def test_splits_have_caffe_s_names() -> None:
    net = insert_splits(parse_net(inputs(x=(1, 2)) + ip("x", "h") + ip("h", "a") + ip("h", "b")
                                  + layer("Eltwise", "a b", "c", name="sum") + layer("ReLU", "h", "d", name="third")))
    assert [item.name for item in net.layer] == ["in_x", "h", "h_h_0_split", "a", "b", "sum", "third"]
    split = net.layer[2]
    assert (split.type, list(split.bottom)) == ("Split", ["h"])
    assert list(split.top) == ["h_h_0_split_0", "h_h_0_split_1", "h_h_0_split_2"]
    assert [list(net.layer[i].bottom) for i in (3, 4, 6)] == [["h_h_0_split_0"], ["h_h_0_split_1"], ["h_h_0_split_2"]]


def test_in_place_layers_need_no_split() -> None:
    text = inputs(x=(1, 2)) + ip("x", "h") + layer("ReLU", "h", "h", name="relu") + ip("h", "a")
    net = insert_splits(parse_net(text))
    assert all(item.type != "Split" for item in net.layer)
    # Two users behind the in-place layer: the split names that layer.
    net = insert_splits(parse_net(text + ip("h", "b")))
    assert [item.name for item in net.layer if item.type == "Split"] == ["h_relu_0_split"]


def test_second_top_is_split_by_its_index() -> None:
    net = insert_splits(parse_net(inputs(x=(1, 4)) + layer("Slice", "x", "a b", name="cut") + ip("b", "c") + ip("b",
                                                                                                                "d")))
    assert [item.name for item in net.layer if item.type == "Split"] == ["b_cut_1_split"]


def test_one_layer_that_uses_a_blob_twice(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 3)) + layer("Eltwise", "x x", "y", "eltwise_param { operation: PROD }"), cpu)
    fill(net)
    net.forward_pass()
    x = net.blobs["x"].data
    np.testing.assert_allclose(net.blobs["y"].data, x * x)
    net.blobs["y"].diff[...] = 1
    net.backward_pass()
    np.testing.assert_allclose(net.blobs["x"].diff, 2 * x, rtol=1e-6)


def test_loss_weight_moves_to_the_split(cpu: CpuOps) -> None:
    text = (CLASSIFIER.replace("type: 'SoftmaxWithLoss'", "type: 'SoftmaxWithLoss' loss_weight: 3")
            + layer("Scale", "loss", "scaled", "scale_param { num_axes: 0 }", "scale"))
    net = quiet(text, cpu)
    assert "loss_loss_0_split" in net.layer_names
    weights = net.blob_loss_weights
    assert {name: weight for name, weight in weights.items() if weight} == {"loss_loss_0_split_0": 3}
    assert list(net.layers[-1].param.bottom) == ["loss_loss_0_split_1"]
    plain = quiet(CLASSIFIER, cpu)
    for item, other in zip(plain.learnable, net.learnable, strict=False):
        item.blob.data[...] = other.blob.data
    backward(net)
    backward(plain)
    assert net.loss() == pytest.approx(3 * float(net.blobs["loss"].data), rel=1e-6)
    np.testing.assert_allclose(net.params["h"][0].diff, 3 * plain.params["h"][0].diff, rtol=1e-5, atol=1e-7)


def test_outputs_are_what_no_layer_uses_sorted(cpu: CpuOps) -> None:
    net = quiet(inputs(x=(1, 2), unused=(1,)) + ip("x", "z") + ip("x", "a") + layer("ReLU", "z", "z", name="relu"), cpu)
    assert net.outputs == ["a", "unused", "z"]
    assert net.inputs == ["x", "unused"]


def test_loss_without_a_top(cpu: CpuOps) -> None:
    with_top, without = quiet(CLASSIFIER, cpu), quiet(CLASSIFIER.replace(" top: 'loss'", ""), cpu)
    assert without.outputs == []
    for net in (with_top, without):
        rng.set_seed(3)
        fill(net)
        for index, item in enumerate(net.learnable):
            item.blob.data[...] = np.random.default_rng(index).normal(size=item.blob.shape)
        net.forward_pass()
        net.clear_param_diffs()
        net.backward_pass()
    assert without.loss() == with_top.loss() > 0
    np.testing.assert_array_equal(without.params["h"][0].diff, with_top.params["h"][0].diff)


def test_silence_uses_outputs_up(cpu: CpuOps) -> None:
    net = quiet(inputs(x=(1, 2)) + ip("x", "a") + ip("x", "b") + layer("Silence", "b", "", name="hush"), cpu)
    assert net.outputs == ["a"]


def test_old_input_fields(cpu: CpuOps) -> None:
    for text in ("input: 'x' input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5",
                 "input: 'x' input_shape { dim: 2 dim: 3 dim: 4 dim: 5 }"):
        net = Net(parse_net(text + layer("ReLU")), ops=cpu)
        assert net.inputs == ["x"]
        assert net.blobs["y"].shape == (2, 3, 4, 5)


# ---- who gets a gradient ----------------------------------------------------------------------------------


def touched(net: Net, *names: str) -> list[bool]:
    """Whether each blob's gradient was ever written."""
    return [bool(net.blobs[name].grad.memory.spaces) for name in names]


def test_inputs_and_labels_get_none(cpu: CpuOps) -> None:
    net = quiet(CLASSIFIER, cpu)
    backward(net)
    assert touched(net, "x", "t", "h", "f") == [False, False, True, True]
    assert all(item.blob.diff.any() for item in net.learnable)


def test_force_backward(cpu: CpuOps) -> None:
    net = quiet(CLASSIFIER, cpu, head="force_backward: true")
    backward(net)
    assert touched(net, "x", "t") == [True, False]
    assert net.blobs["x"].diff.any()


def test_lr_mult_0_stops_backward_below(cpu: CpuOps) -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    text = CLASSIFIER.replace("bottom: 'x' top: 'h'", f"bottom: 'x' top: 'h' {frozen}")
    net = quiet(text, cpu)
    backward(net)
    assert touched(net, "x", "h", "f") == [False, False, True]
    assert [item.lr_mult for item in net.learnable] == [0, 0, 1, 1]
    assert not net.params["h"][0].diff.any()
    assert net.params["f"][0].diff.any()


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("text", [
    ip("x", "y", name="layer"),
    layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: 'xavier' } }"),
    layer("Deconvolution", more="convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: 'xavier' } }"),
    layer("Scale", more="scale_param { bias_term: true }")])
def test_lr_mult_0_of_one_parameter(text: str, frozen: int, cpu: CpuOps) -> None:
    specs = "".join(f" param {{ lr_mult: {int(index != frozen)} }}" for index in range(2))
    net = quiet(inputs(x=(2, 3, 2, 2)) + text.replace("top: 'y'", f"top: 'y' loss_weight: 1 {specs}"), cpu)
    backward(net)
    assert [blob.diff.any() for blob in net.params["layer"]] == [index != frozen for index in range(2)]


def test_propagate_down_false_cuts(cpu: CpuOps) -> None:
    net = quiet(CLASSIFIER.replace("bottom: 'h' top: 'f'", "bottom: 'h' top: 'f' propagate_down: false"), cpu)
    backward(net)
    assert touched(net, "h", "f") == [False, True]
    assert net.params["f"][0].diff.any() and not net.params["h"][0].diff.any()


def test_layers_beside_the_loss_get_none(cpu: CpuOps) -> None:
    """A branch that leads to no loss, and one that leads to an accuracy."""
    net = quiet(CLASSIFIER + ip("h", "aside", 7) + layer("Accuracy", "f t", "right", name="accuracy"), cpu)
    backward(net)
    assert not net.params["aside"][0].diff.any()
    plain = quiet(CLASSIFIER, cpu)
    for item, other in zip(plain.learnable, net.learnable, strict=False):
        item.blob.data[...] = other.blob.data
    backward(plain)
    for name in ("h", "f"):
        np.testing.assert_allclose(net.params[name][0].diff, plain.params[name][0].diff, rtol=1e-6)


def test_several_losses_add_up(cpu64: CpuOps) -> None:
    """The gradient of a weighted sum is the weighted sum of the gradients."""
    def losses(first: float, second: float) -> str:
        return (inputs(x=(4, 5), t=(4,), u=(4, 3)) + ip("x", "h")
                + layer("SoftmaxWithLoss", "h t", "one", f"loss_weight: {first}", "one")
                + layer("EuclideanLoss", "h u", "two", f"loss_weight: {second}", "two"))

    found = {}
    for weights in ((1, 0), (0, 1), (2, -0.5)):
        rng.set_seed(1)
        net = quiet(losses(*weights), cpu64)
        backward(net)
        found[weights] = net.loss(), net.params["h"][0].diff.copy()
    assert found[2, -0.5][0] == pytest.approx(2 * found[1, 0][0] - 0.5 * found[0, 1][0])
    np.testing.assert_allclose(found[2, -0.5][1], 2 * found[1, 0][1] - 0.5 * found[0, 1][1], rtol=1e-10, atol=1e-14)


def test_loss_weight_on_any_layer(cpu64: CpuOps) -> None:
    """The loss is the weighted sum of all elements of the top."""
    net = quiet(inputs(x=(2, 3)) + ip("x", "y", 4, "loss_weight: 0.5"), cpu64)
    backward(net)
    assert net.loss() == pytest.approx(0.5 * net.blobs["y"].data.sum())
    np.testing.assert_allclose(net.params["y"][1].diff, [1.0] * 4)
    assert net.blob_loss_weights == {"x": 0.0, "y": 0.5}


def test_loss_weight_follows_a_growing_top(cpu64: CpuOps) -> None:
    net = quiet(inputs(x=(2, 3)) + ip("x", "y", 4, "loss_weight: 0.5"), cpu64)
    net.blobs["x"].reshape(9, 3)
    backward(net)
    assert net.loss() == pytest.approx(0.5 * net.blobs["y"].data.sum())
    np.testing.assert_allclose(net.params["y"][1].diff, [4.5] * 4)


# ---- shared parameters ------------------------------------------------------------------------------------


def twins(extra_one: str = "", extra_two: str = "", more: str = "") -> str:
    return (inputs(x=(3, 4), u=(3, 4))
            + ip("x", "a", 4, f"param {{ name: 'w' {extra_one} }} param {{ name: 'b' }}")
            + ip("a", "b", 4, f"param {{ name: 'w' {extra_two} }} param {{ name: 'b' }}")
            + layer("EuclideanLoss", "b u", "loss", name="loss") + more)


def test_shared_parameters_are_one(cpu64: CpuOps) -> None:
    net = quiet(twins(), cpu64)
    assert [item.name for item in net.learnable] == ["a[0]", "a[1]"]
    net.params["a"][0].data[0, 0] = 42
    assert net.params["b"][0].data[0, 0] == 42
    assert list(net.params) == ["a", "b"]


def test_gradients_of_shared_parameters_add_up(cpu64: CpuOps) -> None:
    net = quiet(twins(), cpu64)
    apart = quiet(twins().replace("param { name: 'w'  }", "").replace("param { name: 'b' }", ""), cpu64)
    assert len(apart.learnable) == 4
    for name in ("a", "b"):
        for blob, shared in zip(apart.params[name], net.params["a"], strict=True):
            blob.data[...] = shared.data
    backward(net)
    backward(apart)
    for index in range(2):
        both = apart.params["a"][index].diff + apart.params["b"][index].diff
        np.testing.assert_allclose(net.params["a"][index].diff, both, rtol=1e-12)
        np.testing.assert_array_equal(net.params["b"][index].diff, net.params["a"][index].diff)


def test_permissive_sharing_wants_equal_counts(cpu: CpuOps) -> None:
    text = (inputs(x=(3, 4)) + ip("x", "a", 2, "param { name: 'w' }")
            + layer("Reshape", "a", "r", "reshape_param { shape { dim: -1 dim: 2 } }", "shape")
            + ip("r", "b", 4, "param { name: 'w' share_mode: PERMISSIVE }"))
    net = quiet(text, cpu)
    assert (net.params["a"][0].shape, net.params["b"][0].shape) == ((2, 4), (4, 2))
    np.testing.assert_array_equal(net.params["a"][0].data.ravel(), net.params["b"][0].data.ravel())


def test_multipliers_may_stand_at_either_twin(cpu: CpuOps) -> None:
    for one, two in (("lr_mult: 2", ""), ("", "lr_mult: 2"), ("lr_mult: 2", "lr_mult: 2")):
        net = quiet(twins(one, two), cpu)
        assert net.learnable[0].lr_mult == 2
    net = quiet(twins("decay_mult: 0.5"), cpu)
    assert (net.learnable[0].decay_mult, net.learnable[1].decay_mult) == (0.5, 1)


# ---- pycaffe's forward and backward -----------------------------------------------------------------------


def test_forward_with_inputs_by_name(cpu: CpuOps) -> None:
    net = quiet(inputs(x=(2, 4)) + ip("x", "h") + layer("ReLU", "h", "y", name="relu"), cpu)
    x = np.random.default_rng(1).normal(size=(2, 4))
    out = net.forward(x=x, blobs=["h", "x"])
    assert list(out) == ["y", "h", "x"]
    np.testing.assert_array_equal(out["x"], x.astype(np.float32))
    np.testing.assert_array_equal(out["y"], np.maximum(out["h"], 0))
    weights, bias = (blob.data for blob in net.params["h"])
    np.testing.assert_allclose(out["h"], x @ weights.T + bias, rtol=1e-5)


def test_forward_of_a_part(cpu: CpuOps) -> None:
    net = quiet(inputs(x=(2, 4)) + ip("x", "a") + ip("a", "b") + ip("b", "c"), cpu)
    fill(net)
    whole = {name: array.copy() for name, array in net.forward(blobs=["a", "b"]).items()}
    net.blobs["a"].data[...] = 1
    part = net.forward(start="b", end="b")
    assert list(part) == ["b"]
    np.testing.assert_allclose(part["b"][0], net.params["b"][0].data.sum(axis=1) + net.params["b"][1].data, rtol=1e-5)
    np.testing.assert_array_equal(net.blobs["c"].data, whole["c"])  # not computed again
    np.testing.assert_array_equal(net.forward(end="a")["a"], whole["a"])


def test_backward_with_gradients_by_name(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 4)) + ip("x", "h") + ip("h", "y"), cpu)
    fill(net)
    net.forward()
    dy = np.random.default_rng(2).normal(size=(2, 3)).astype(np.float32)
    out = net.backward(y=dy, diffs=["h"])
    assert list(out) == ["x", "h"]
    np.testing.assert_allclose(out["h"], dy @ net.params["y"][0].data, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["x"], out["h"] @ net.params["h"][0].data, rtol=1e-5, atol=1e-6)
    net.blobs["x"].diff[...] = 7
    part = net.backward(y=2 * dy, end="y")
    assert list(part) == ["h"]
    np.testing.assert_allclose(part["h"], 2 * dy @ net.params["y"][0].data, rtol=1e-5, atol=1e-6)
    assert (net.blobs["x"].diff == 7).all()


def test_dummy_data(cpu: CpuOps) -> None:
    net = quiet("""layer { name: 'd' type: 'DummyData' top: 'a' top: 'b' dummy_data_param {
        shape { dim: 2 dim: 3 } shape { dim: 4 } data_filler { type: 'constant' value: 2 }
        data_filler { type: 'gaussian' } } }""", cpu)
    first = {name: array.copy() for name, array in net.forward().items()}
    assert (first["a"].shape, first["b"].shape) == ((2, 3), (4,))
    assert (first["a"] == 2).all()
    net.blobs["a"].data[...] = 5
    second = net.forward()
    assert (second["a"] == 5).all()  # Caffe: constants are filled once, all others each time
    assert (second["b"] != first["b"]).all()


def test_running_statistics(cpu: CpuOps) -> None:
    """Caffe: decaying sums of the mean, of the unbiased variance, and of 1, never divided in place."""
    net = quiet(inputs(x=(4, 3, 2, 2)) + layer("BatchNorm", more="batch_norm_param { moving_average_fraction: 0.8 }"),
                cpu)
    mean, variance, count = np.zeros(3), np.zeros(3), 0.0
    for seed in range(3):
        fill(net, seed)
        net.forward_pass()
        x = net.blobs["x"].data.astype(np.float64)
        mean = 0.8 * mean + x.mean(axis=(0, 2, 3))
        variance = 0.8 * variance + x.var(axis=(0, 2, 3), ddof=1)
        count = 0.8 * count + 1
    for blob, truth in zip(net.params["layer"], (mean, variance, count), strict=True):
        np.testing.assert_allclose(blob.data, np.broadcast_to(truth, blob.shape), rtol=1e-5)
    test = quiet(inputs(x=(4, 3, 2, 2)) + layer("BatchNorm"), cpu, barista.TEST)
    test.share_trained_layers_with(net)
    fill(test)
    test.forward_pass()
    x = test.blobs["x"].data
    expected = (x - (mean / count)[:, None, None]) / np.sqrt(variance / count + 1e-5)[:, None, None]
    np.testing.assert_allclose(test.blobs["y"].data, expected, rtol=1e-4, atol=1e-5)


# ---- definitions ------------------------------------------------------------------------------------------


def test_a_net_needs_backward_as_its_definition_says(cpu: CpuOps) -> None:
    """Caffe: a BatchNorm whose definition has no param makes what lies above it run backward."""
    for param, needed in (("", True), ("param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }", False)):
        net = make(inputs(x=(4, 3), t=(4, 3)) + layer("BatchNorm", "x", "y", name="norm", more=param)
                   + layer("EuclideanLoss", "y t", "loss"), cpu, head="")
        net.blobs["x"].data[...] = np.arange(12).reshape(4, 3) ** 2
        net.forward_pass()
        net.backward_pass()
        assert bool(net.blobs["y"].diff.any()) is needed


def test_constant_dummy_data_is_the_callers_to_change(cpu: CpuOps) -> None:
    net = make(layer("DummyData", "", "d", more="dummy_data_param { shape { dim: 3 } data_filler { value: 3 } }"), cpu)
    assert net.blobs["d"].data.tolist() == [3, 3, 3]
    net.blobs["d"].data[...] = 7
    net.forward_pass()
    assert net.blobs["d"].data.tolist() == [7, 7, 7]


def test_in_place_on_a_blob_that_others_read_is_refused(cpu: CpuOps) -> None:
    with pytest.raises(barista.NetError, match=r"top 'h' would overwrite a blob that other layers read too"):
        make(inputs(x=(2, 3)) + ip("x", "h") + ip("h", "a", name="first") + layer("ReLU", "h", "h"), cpu)


# ---- precision and independence ---------------------------------------------------------------------------


def test_float64(cpu64: CpuOps) -> None:
    net = quiet(CONVNET, cpu64)
    backward(net)
    assert {blob.dtype for blob in net.blobs.values()} == {np.dtype(np.float64)}
    assert {item.blob.dtype for item in net.learnable} == {np.dtype(np.float64)}
    assert all(len(blob.double_data) and not blob.data for item in net.to_proto().layer for blob in item.blobs)


def test_a_seed_repeats_a_net(cpu: CpuOps) -> None:
    results = []
    for seed in (1, 1, 2):
        rng.set_seed(seed)
        net = quiet(CLASSIFIER.replace("type: 'ReLU'", "type: 'Dropout'"), cpu)
        backward(net)
        results.append((net.loss(), net.params["h"][0].diff.copy()))
    assert results[0][0] == results[1][0] != results[2][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_nets_do_not_disturb_each_other(cpu: CpuOps) -> None:
    rng.set_seed(1)
    alone = quiet(CONVNET, cpu)
    backward(alone)
    rng.set_seed(1)
    one = quiet(CONVNET, cpu)
    two = quiet(CONVNET, cpu)
    fill(one)
    fill(two, seed=9)
    for step in ("forward_pass", "clear_param_diffs", "backward_pass"):
        for net in (one, two):
            getattr(net, step)()
    assert one.loss() == alone.loss() != two.loss()
    for item, other in zip(one.learnable, alone.learnable, strict=True):
        np.testing.assert_array_equal(item.blob.diff, other.blob.diff)
