"""Upgrade of old nets and solvers: what Caffe made of the same files, and what is refused."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from barista.errors import PrototxtError
from barista.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter, V1LayerParameter
from barista.proto.upgrade import SOLVER_TYPE_OF, TYPE_OF_V1, upgrade_net, upgrade_solver
from barista.proto.upgrade_v0 import V1_TYPE_OF

GOLDEN = Path(__file__).parent / "golden" / "data"
CASES = ("input_shape", "old_input", "v0", "v1")


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def v0(text: str, bottoms: str = "", top: str = "t") -> str:
    return f'layers {{ layer {{ {text} }} {bottoms} top: "{top}" }}\n'


def refused(text: str, *parts: str) -> None:
    with pytest.raises(PrototxtError, match=".*".join(map(re.escape, ("old.prototxt: ", *parts)))):
        upgrade_net(net_of(text), "old.prototxt")


@pytest.mark.parametrize("case", CASES)
def test_as_caffe_upgrades(case: str) -> None:
    net = net_of((GOLDEN / f"upgrade_{case}.in.prototxt").read_text())
    expected = net_of((GOLDEN / f"upgrade_{case}.out.prototxt").read_text())
    assert net != expected
    assert upgrade_net(net, case)
    assert net == expected


@pytest.mark.parametrize("case", CASES)
def test_current_nets_stay_as_they_are(case: str) -> None:
    net = net_of((GOLDEN / f"upgrade_{case}.out.prototxt").read_text())
    before = net.SerializeToString()
    assert upgrade_net(net) == []
    assert net.SerializeToString() == before


def test_notes_are_logged_with_their_source(caplog: pytest.LogCaptureFixture) -> None:
    net = net_of((GOLDEN / "upgrade_v0.in.prototxt").read_text())
    with caplog.at_level(logging.INFO, "barista"):
        notes = upgrade_net(net, "old.prototxt")
    assert notes == [
        "upgraded 9 layers from the V0 form to the V1 form; 1 padding layer became the pad of what follows",
        "upgraded 8 layers from the V1 form"]
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.INFO, f"old.prototxt: {note}") for note in notes]


# ---- V0

def test_every_v0_type_becomes_a_current_type() -> None:
    for old, v1 in V1_TYPE_OF.items():
        net = net_of(v0(f'name: "x" type: "{old}"'))
        upgrade_net(net)
        assert net.layer[0].type == TYPE_OF_V1[v1]
        assert net.layer[0].name == "x"


@pytest.mark.parametrize(("old", "new"), [
    ('type: "data" source: "d" batchsize: 2 rand_skip: 3 scale: 0.5 meanfile: "m" cropsize: 4 mirror: true',
     'type: "Data" data_param { source: "d" batch_size: 2 rand_skip: 3 } '
     'transform_param { scale: 0.5 mean_file: "m" crop_size: 4 mirror: true }'),
    ('type: "images" source: "i" batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 5 new_width: 6',
     'type: "ImageData" image_data_param { source: "i" batch_size: 2 rand_skip: 3 shuffle: true '
     'new_height: 5 new_width: 6 }'),
    ('type: "hdf5_data" source: "h" batchsize: 2',
     'type: "HDF5Data" hdf5_data_param { source: "h" batch_size: 2 }'),
    ('type: "hdf5_output" hdf5_output_param { file_name: "o" }',
     'type: "HDF5Output" hdf5_output_param { file_name: "o" }'),
    ('type: "window_data" source: "w" batchsize: 2 det_fg_threshold: 0.6 det_bg_threshold: 0.4 '
     'det_fg_fraction: 0.3 det_context_pad: 7 det_crop_mode: "square"',
     'type: "WindowData" window_data_param { source: "w" batch_size: 2 fg_threshold: 0.6 bg_threshold: 0.4 '
     'fg_fraction: 0.3 context_pad: 7 crop_mode: "square" }'),
    ('type: "conv" num_output: 2 biasterm: false pad: 1 kernelsize: 3 group: 2 stride: 4 '
     'weight_filler { type: "xavier" } bias_filler { value: 1 }',
     'type: "Convolution" convolution_param { num_output: 2 bias_term: false pad: 1 kernel_size: 3 group: 2 '
     'stride: 4 weight_filler { type: "xavier" } bias_filler { value: 1 } }'),
    ('type: "pool" pool: STOCHASTIC pad: 1 kernelsize: 3 stride: 2',
     'type: "Pooling" pooling_param { pool: STOCHASTIC pad: 1 kernel_size: 3 stride: 2 }'),
    ('type: "innerproduct" num_output: 2 blobs_lr: 1 blobs_lr: 2 weight_decay: 3 blobs { num: 1 data: 4 }',
     'type: "InnerProduct" inner_product_param { num_output: 2 } param { lr_mult: 1 decay_mult: 3 } '
     'param { lr_mult: 2 } blobs { num: 1 data: 4 }'),
    ('type: "lrn" local_size: 3 alpha: 2 beta: 0.5 k: 4',
     'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.5 k: 4 }'),
    ('type: "concat" concat_dim: 0', 'type: "Concat" concat_param { concat_dim: 0 }'),
    ('type: "dropout" dropout_ratio: 0.1', 'type: "Dropout" dropout_param { dropout_ratio: 0.1 }'),
    ('type: "infogain_loss" source: "b"', 'type: "InfogainLoss" infogain_loss_param { source: "b" }'),
])
def test_v0_settings(old: str, new: str) -> None:
    net = net_of(v0(old))
    upgrade_net(net)
    assert net == net_of(f'layer {{ {new} top: "t" }}')


def test_padding_is_merged_into_all_that_read_it() -> None:
    net = net_of('input: "x" input_dim: 1 input_dim: 1 input_dim: 8 input_dim: 8\n'
                 + v0('name: "p" type: "padding" pad: 2', 'bottom: "x"', "xp")
                 + v0('name: "c" type: "conv" kernelsize: 5', 'bottom: "xp"', "c")
                 + v0('name: "q" type: "pool" kernelsize: 5', 'bottom: "xp"', "q"))
    upgrade_net(net)
    assert [layer.name for layer in net.layer] == ["input", "c", "q"]
    assert [list(layer.bottom) for layer in net.layer[1:]] == [["x"], ["x"]]
    assert (list(net.layer[1].convolution_param.pad), net.layer[2].pooling_param.pad) == ([2], 2)


def test_padding_replaces_the_layers_own_pad_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    net = net_of('input: "x"\n' + v0('name: "p" type: "padding" pad: 2', 'bottom: "x"', "xp")
                 + v0('name: "c" type: "conv" pad: 1', 'bottom: "xp"', "c"))
    notes = upgrade_net(net)
    assert list(net.layer[0].convolution_param.pad) == [2]
    assert "layer 'c': pad 2 of the padding layer 'p' replaces its own pad 1, as in Caffe" in notes
    assert caplog.records[0].levelno == logging.WARNING


def test_what_v0_cannot_mean_is_refused() -> None:
    refused(v0('name: "c" type: "convv"'), "layer 'c': 'convv' is not a V0 layer type; did you mean 'conv'")
    refused(v0('name: "c" type: "zzz"'), "'zzz' is not a V0 layer type; known are accuracy, bnll, concat")
    refused(v0('name: "c" type: "conv"', 'bottom: "nowhere"'), "layer 'c'", "'nowhere'")
    pad = 'input: "x"\n' + v0('name: "p" type: "padding" pad: 2', 'bottom: "x"', "xp")
    refused(pad + v0('name: "r" type: "relu"', 'bottom: "xp"'), "'r' of type 'relu'", "padding layer 'p'")
    refused(pad + v0('name: "c" type: "conv"', 'bottom: "xp" bottom: "x"'), "bottom (they have 2 and 1)")
    refused(v0('name: "i" type: "images" new_height: -1'), "layer 'i': new_height cannot be -1")


def test_settings_without_meaning_are_left_out_aloud() -> None:
    net = net_of(v0('name: "r" type: "relu" kernelsize: 3'))
    assert "layer 'r': kernelsize has no meaning for the type 'relu' and is left out" in upgrade_net(net)
    assert net == net_of('layer { name: "r" type: "ReLU" top: "t" }')


# ---- V1

def test_each_v1_type_has_a_name() -> None:
    assert set(TYPE_OF_V1) == set(V1LayerParameter.LayerType.keys())
    net = net_of("".join(f"layers {{ type: {name} }}\n" for name in TYPE_OF_V1))
    upgrade_net(net)
    assert [layer.type for layer in net.layer] == list(TYPE_OF_V1.values())


def test_each_v1_setting_is_kept() -> None:
    special = {"layer", "type", "param", "blob_share_mode", "blobs_lr", "weight_decay"}
    names = {field.name for field in V1LayerParameter.DESCRIPTOR.fields} - special
    assert names <= {field.name for field in LayerParameter.DESCRIPTOR.fields}
    messages = " ".join(f"{name} {{ }}" for name in names if name.endswith("_param"))
    net = net_of(f'layers {{ name: "n" {messages}'
                 ' bottom: "b" top: "t" loss_weight: 2 exclude { phase: TEST } blobs { data: [1, 2] } }')
    filled = {field.name for field, _ in net.layers[0].ListFields()}
    upgrade_net(net)
    assert {field.name for field, _ in net.layer[0].ListFields()} == filled
    assert list(net.layer[0].blobs[0].data) == [1, 2]


@pytest.mark.parametrize(("kind", "message"), [
    ("DATA", "data_param"), ("IMAGE_DATA", "image_data_param"), ("WINDOW_DATA", "window_data_param")])
def test_transformations_move_out_of_data_layers(kind: str, message: str) -> None:
    net = net_of(f'layers {{ type: {kind} {message} {{ source: "s" scale: 2 mean_file: "m" crop_size: 3 '
                 "mirror: true } }")
    notes = upgrade_net(net)
    assert notes[0] == "moved the transformation settings of 1 data layer to transform_param"
    assert net == net_of(f'layer {{ type: "{TYPE_OF_V1[kind]}" {message} {{ source: "s" }} transform_param '
                         '{ scale: 2 mean_file: "m" crop_size: 3 mirror: true } }')


def test_transformations_inside_current_data_layers_are_named_and_left() -> None:
    text = 'layer { name: "d" type: "Data" data_param { source: "s" scale: 2 } }'
    net = net_of(text)
    assert upgrade_net(net) == ["layer 'd': data_param.scale is not read, as in Caffe; "
                                "write transform_param { scale } instead"]
    assert net == net_of(text)


def test_both_forms_at_once_are_refused() -> None:
    refused('layer { name: "a" } layers { name: "b" } layers { name: "c" }',
            "both 'layer' (1 times) and its older form 'layers' (2 times)")


# ---- inputs and BatchNorm

def test_inputs_and_their_sizes_must_fit() -> None:
    refused('input: "a" input: "b" input_shape { dim: 1 }', "2 inputs (a, b) but 1 input_shape")
    refused('input: "a" input_dim: [1, 2, 3]', "1 input (a) but 3 input_dims; give four for each")


def test_inputs_without_sizes_are_left_out_aloud() -> None:
    net = net_of('input: "a" layer { name: "x" }')
    assert "inputs without sizes are left out: a" in upgrade_net(net)[0]
    assert net == net_of('layer { name: "x" }')


def test_batch_norm_is_touched_with_three_parameters_only() -> None:
    three, two = "param { lr_mult: 1 } " * 3, "param { lr_mult: 1 } " * 2
    net = net_of(f'layer {{ type: "BatchNorm" {three} }} layer {{ type: "BatchNorm" {two} }} '
                 f'layer {{ type: "Scale" {three} }}')
    assert upgrade_net(net) == ["set lr_mult and decay_mult of 1 BatchNorm layer to 0"]
    assert [[param.lr_mult for param in layer.param] for layer in net.layer] == [[0] * 3, [1] * 2, [1] * 3]
    assert [param.decay_mult for param in net.layer[0].param] == [0] * 3


# ---- solvers

def test_solver_types() -> None:
    assert set(SOLVER_TYPE_OF) == set(SolverParameter.SolverType.keys())
    for old, new in SOLVER_TYPE_OF.items():
        solver = SolverParameter(solver_type=SolverParameter.SolverType.Value(old))
        assert upgrade_solver(solver) == [f"upgraded solver_type: {old} to type: {new!r}"]
        assert solver == SolverParameter(type=new)
        assert upgrade_solver(solver) == []


def test_two_solver_types_are_refused() -> None:
    solver = SolverParameter(type="Adam", solver_type=SolverParameter.SGD)
    with pytest.raises(PrototxtError, match=re.escape(
            "s.prototxt: both type ('Adam') and the older solver_type (SGD) are given; keep type")):
        upgrade_solver(solver, "s.prototxt")


def test_nets_inside_a_solver_are_upgraded() -> None:
    old = net_of("layers { type: RELU }")
    solver = SolverParameter(net_param=old, train_net_param=old, test_net_param=[old, old])
    notes = upgrade_solver(solver)
    assert notes == [f"{place}: upgraded 1 layer from the V1 form" for place in
                     ("net_param", "train_net_param", "test_net_param 0", "test_net_param 1")]
    assert {net.layer[0].type for net in (solver.net_param, solver.train_net_param, *solver.test_net_param)} \
        == {"ReLU"}
