"""Definitions that make no net: each error says which layer and blob, with numbers, and what to do."""

from __future__ import annotations

import copy
import logging
import re

import numpy as np
import pytest
from little_nets import inputs, layer, make

import barista
from barista.errors import BaristaError, DataError, NetError, ShapeError, SnapshotError
from barista.frontends.prototxt import parse_net
from barista.net import Net
from barista.ops.cpu import CpuOps

IMAGE = inputs(x=(2, 3, 6, 5))
TWO = inputs(x=(2, 3), z=(2, 4))


def conv(param: str, bottom: str = "x") -> str:
    return layer("Convolution", bottom, "y", f"convolution_param {{ {param} }}")


def pool(param: str) -> str:
    return layer("Pooling", "x", "y", f"pooling_param {{ {param} }}")


def ip(bottom: str, top: str, more: str = "", name: str = "layer") -> str:
    return layer("InnerProduct", bottom, top, f"inner_product_param {{ num_output: 3 }} {more}", name)


# Definition, class, and words that the message must have.
CASES: dict[str, tuple[str, type[BaristaError], list[str]]] = {
    # ---- the graph
    "missing_bottom": (inputs(data=(2, 3)) + ip("dta", "y"), NetError,
                       ["layer (InnerProduct)", "unknown bottom blob 'dta' (bottom index 0)", "did you mean 'data'?"]),
    "missing_bottom_unlike_any": (inputs(data=(2, 3)) + ip("qqq", "y"), NetError, ["'qqq'", "known blobs: data"]),
    "no_blobs_yet": (ip("x", "y"), NetError, ["unknown bottom blob 'x'", "known blobs: none"]),
    "cycle": (inputs(x=(2, 3)) + ip("b", "a", name="first") + ip("a", "b", name="second"), NetError,
              ["first (InnerProduct)", "'b'", "layer 'second' makes it only later", "no cycles"]),
    "own_top": (inputs(data=(2, 3)) + ip("y", "y"), NetError, ["unknown bottom blob 'y'", "; known blobs: data"]),
    "own_top_misspelt": (inputs(data=(2, 3)) + layer("ReLU", "dat", "dat") + layer("TanH", "dat", "dat"), NetError,
                         ["layer (ReLU): unknown bottom blob 'dat' (bottom index 0); did you mean 'data'?"]),
    "duplicate_top": (inputs(x=(2, 3)) + ip("x", "y", name="one") + ip("x", "y", name="two"), NetError,
                      ["two (InnerProduct)", "top blob 'y' is already made by layer 'one'", "another name"]),
    "duplicate_top_of_one_layer": (inputs(x=(2, 4)) + layer("Slice", "x", "a a"), NetError, ["'a'", "already made"]),
    "in_place_at_another_index": (TWO + layer("Eltwise", "x z", "z"), NetError, ["'z'", "same index"]),
    "no_name": (inputs(x=(1, 2)) + "layer { type: 'ReLU' bottom: 'x' top: 'y' }", NetError, ["'ReLU'", "has no name"]),
    "same_name": (inputs(x=(1, 2)) + ip("x", "a", name="same") + ip("a", "b", name="same"), NetError,
                  ["same (InnerProduct)", "another layer with parameters has this name", "give it another"]),
    "unknown_type": (inputs(x=(1, 2)) + layer("Convolutoin"), NetError,
                     ["layer: unknown layer type 'Convolutoin'", "did you mean 'Convolution'"]),
    "unknown_type_unlike_any": (inputs(x=(1, 2)) + layer("Xyzzy"), NetError,
                                ["'Xyzzy'", "known types:", "InnerProduct"]),
    "no_type": (inputs(x=(1, 2)) + layer(""), NetError, ["layer", "unknown layer type ''"]),
    "include_and_exclude": (inputs(x=(1, 2)) + layer("ReLU", more="include { phase: TRAIN } exclude { stage: 'a' }"),
                            NetError, ["layer (ReLU)", "both include and exclude"]),
    "propagate_down_count": (TWO + layer("Eltwise", "x z", more="propagate_down: true"), NetError,
                             ["layer (Eltwise)", "2 bottom(s) and 1 propagate_down"]),
    "loss_weight_count": (inputs(x=(1, 2)) + layer("ReLU", more="loss_weight: 1 loss_weight: 2"), NetError,
                          ["1 top(s) and 2 loss_weight"]),
    "no_gradient": (inputs(x=(2, 3), t=(2,)) + ip("x", "h", name="ip")
                    + layer("Accuracy", "h t", more="loss_weight: 1"), NetError,
                    ["layer (Accuracy)", "has no gradient"]),
    # ---- numbers of blobs
    "too_few_bottoms": (inputs(x=(1, 2)) + layer("Eltwise"), NetError,
                        ["layer (Eltwise)", "takes at least 2 bottom blob(s), got 1"]),
    "too_many_bottoms": (TWO + layer("ReLU", "x z"), NetError, ["takes exactly 1 bottom blob(s), got 2"]),
    "no_bottom": (layer("ReLU", ""), NetError, ["takes exactly 1 bottom blob(s), got 0"]),
    "no_top": (inputs(x=(1, 2)) + layer("ReLU", top=""), NetError, ["takes exactly 1 top blob(s), got 0"]),
    "too_many_tops": (IMAGE + layer("Pooling", top="a b c", more="pooling_param { kernel_size: 2 }"), NetError,
                      ["takes 1 to 2 top blob(s), got 3"]),
    "bottoms_and_tops": (inputs(x=(1, 2, 3, 3), z=(1, 2, 3, 3)) + conv("num_output: 1 kernel_size: 1", "x z"), NetError,
                         ["as many tops as bottoms, got 2 bottom(s) and 1 top(s)"]),
    "loss_bottoms": (inputs(x=(1, 2)) + layer("SoftmaxWithLoss"), NetError, ["takes exactly 2 bottom blob(s), got 1"]),
    # ---- shapes
    "eltwise_shapes": (TWO + layer("Eltwise", "x z"), ShapeError,
                       ["layer (Eltwise)", "bottom 0 has (2, 3)", "bottom 1 (z) has (2, 4)"]),
    "concat_shapes": (inputs(x=(2, 3), z=(1, 4)) + layer("Concat", "x z"), ShapeError,
                      ["all axes but 1", "(2, 3)", "bottom 1 (z) has (1, 4)"]),
    "concat_axes": (inputs(x=(2, 3), z=(2, 3, 1)) + layer("Concat", "x z"), ShapeError, ["(2, 3, 1)"]),
    "concat_axis": (TWO + layer("Concat", "x z", more="concat_param { axis: 2 }"), ShapeError,
                    ["axis 2 does not exist", "(2, 3)", "give -2 to 1"]),
    "slice_points_missing": (TWO + layer("Slice", "x", "a b c", "slice_param { slice_point: 1 }"), ShapeError,
                             ["3 tops need 2 slice_point(s), got 1"]),
    "slice_points_fall": (inputs(x=(2, 9)) + layer("Slice", "x", "a b c",
                                                   "slice_param { slice_point: 5 slice_point: 4 }"),
                          ShapeError, ["[5, 4] must rise", "size 9 of axis 1"]),
    "slice_unequal": (inputs(x=(2, 9)) + layer("Slice", "x", "a b"), ShapeError,
                      ["size 9", "2 equal tops", "slice_point"]),
    "softmax_labels": (inputs(x=(4, 3), t=(5,)) + layer("SoftmaxWithLoss", "x t"), ShapeError,
                       ["layer (SoftmaxWithLoss)", "target t has shape (5,)", "(4, 3) needs 4"]),
    "softmax_labels_spatial": (inputs(x=(2, 3, 4, 4), t=(2,)) + layer("SoftmaxWithLoss", "x t"), ShapeError,
                               ["needs 32"]),
    "euclidean_shapes": (inputs(x=(4, 3), t=(4, 2)) + layer("EuclideanLoss", "x t"), ShapeError,
                         ["target t has shape (4, 2) (8 elements)", "needs 12"]),
    "euclidean_batches": (inputs(x=(4, 3), t=(3, 4)) + layer("EuclideanLoss", "x t"), ShapeError,
                          ["one batch size", "(4, 3) and (3, 4)"]),
    "sce_shapes": (inputs(x=(4, 3), t=(4,)) + layer("SigmoidCrossEntropyLoss", "x t"), ShapeError, ["needs 12"]),
    "hinge_labels": (inputs(x=(4, 3), t=(4, 3)) + layer("HingeLoss", "x t"), ShapeError,
                     ["needs 4", "one label an image"]),
    "accuracy_labels": (inputs(x=(4, 3), t=(3,)) + layer("Accuracy", "x t"), ShapeError,
                        ["labels t", "(3,)", "needs 4"]),
    "accuracy_top_k": (inputs(x=(4, 3), t=(4,)) + layer("Accuracy", "x t", more="accuracy_param { top_k: 5 }"),
                       ShapeError,
                       ["top_k=5 exceeds the 3 classes", "(4, 3)"]),
    "scale_axis": (inputs(x=(2, 3)) + layer("Scale", more="scale_param { axis: 3 }"), ShapeError,
                   ["layer (Scale)", "axis 3 does not exist"]),
    "scale_num_axes": (inputs(x=(2, 3)) + layer("Scale", more="scale_param { axis: 1 num_axes: 2 }"), ShapeError,
                       ["axis=1 with num_axes=2 reaches axis 2", "2 axes, shape (2, 3)"]),
    "scale_two_bottoms": (inputs(x=(2, 3, 4), z=(2,)) + layer("Scale", "x z"), ShapeError,
                          ["axes 1 to 1", "(2, 3, 4)", "(2,)", "second bottom"]),
    "scale_negative_num_axes": (inputs(x=(2, 3)) + layer("Scale", more="scale_param { num_axes: -2 }"), NetError,
                                ["num_axes=-2"]),
    "prelu_axes": (inputs(x=(3,)) + layer("PReLU"), ShapeError, ["at least 2 axes", "(3,)"]),
    "lrn_axes": (inputs(x=(2, 3)) + layer("LRN"), ShapeError, ["(N, C, H, W)", "(2, 3)"]),
    "lrn_even": (IMAGE + layer("LRN", more="lrn_param { local_size: 4 }"), NetError, ["local_size=4 must be odd"]),
    "flatten_axes": (IMAGE + layer("Flatten", more="flatten_param { axis: 3 end_axis: 1 }"), ShapeError,
                     ["end_axis=1 lies before axis=3"]),
    "reshape_count": (inputs(x=(2, 3)) + layer("Reshape", more="reshape_param { shape { dim: 5 dim: 2 } }"), ShapeError,
                      ["layer (Reshape)", "(2, 3) (6 elements)", "(5, 2) (10)"]),
    "reshape_infer": (inputs(x=(2, 3)) + layer("Reshape", more="reshape_param { shape { dim: 4 dim: -1 } }"),
                      ShapeError,
                      ["cannot infer -1", "6 elements", "by 4"]),
    "reshape_two_unknown": (inputs(x=(2, 3)) + layer("Reshape", more="reshape_param { shape { dim: -1 dim: -1 } }"),
                            NetError, ["[-1, -1]", "one -1"]),
    "reshape_copy": (inputs(x=(2, 3)) + layer("Reshape", more="reshape_param { shape { dim: 0 dim: 0 dim: 0 } }"),
                     ShapeError, ["shape.dim[2]=0 copies axis 2", "(2, 3)"]),
    "reshape_axes": (inputs(x=(2, 3)) + layer("Reshape", more="reshape_param { axis: 1 num_axes: 2 shape { dim: 3 } }"),
                     ShapeError, ["axis=1 with num_axes=2", "(2, 3)"]),
    "reshape_axis": (inputs(x=(2, 3)) + layer("Reshape", more="reshape_param { axis: 4 shape { dim: 3 } }"), ShapeError,
                     ["axis=4 lies outside"]),
    "reshape_in_place": (inputs(x=(2, 3)) + layer("Reshape", "x", "x", "reshape_param { shape { dim: 6 } }"), NetError,
                         ["cannot work in place"]),
    "flatten_in_place": (IMAGE + layer("Flatten", "x", "x"), NetError, ["cannot work in place"]),
    "another_size_in_place": (inputs(x=(2, 4)) + ip("x", "x"), NetError,
                              ["cannot work in place", "'x' would change from shape (2, 4) to (2, 3)"]),
    "picking_in_place": (inputs(x=(2, 3), i=(2,)) + layer("BatchReindex", "x i", "x"), NetError,
                         ["cannot work in place"]),
    "negative_size": (inputs(x=(2, -3)), ShapeError, ["in_x", "(2, -3)", "negative"]),
    "too_many_axes": (inputs(x=(1,) * 33), ShapeError, ["in_x", "33 axes", "at most 32"]),
    "overflow": (inputs(x=(2**31, 2**31, 2**31)), ShapeError, ["in_x", f"{2**93} elements", "limit is 2**31 - 1"]),
    "overflow_later": (inputs(x=(2**20, 2)) + layer("InnerProduct", more="inner_product_param { num_output: 2097153 }"),
                       ShapeError, ["layer (InnerProduct)", "limit is 2**31 - 1"]),
    "input_shapes": ("layer { name: 'in' type: 'Input' top: 'a' top: 'b' top: 'c' input_param { shape { dim: 1 } "
                     "shape { dim: 2 } } }", NetError, ["in (Input)", "3 top(s) and 2 input_param.shape"]),
    # ---- convolution
    "conv_kernel_too_large": (IMAGE + conv("num_output: 1 kernel_h: 9 kernel_w: 3 pad_h: 1 pad_w: 0"), ShapeError,
                              ["layer (Convolution)", "kernel_h=9", "exceeds the padded size 8 (6 + 2*1)", "lower"]),
    "conv_dilation_too_large": (IMAGE + conv("num_output: 1 kernel_size: 3 dilation: 3"), ShapeError,
                                ["extent 7 with dilation 3", "6 (6 + 2*0)"]),
    "conv_group_channels": (IMAGE + conv("num_output: 4 kernel_size: 1 group: 2"), ShapeError,
                            ["group=2 must divide both the 3 input channels and num_output=4"]),
    "conv_group_outputs": (IMAGE + conv("num_output: 4 kernel_size: 1 group: 3"), ShapeError,
                           ["group=3", "num_output=4"]),
    "conv_group_0": (IMAGE + conv("num_output: 4 kernel_size: 1 group: 0"), ShapeError, ["group=0"]),
    "conv_no_kernel": (IMAGE + conv("num_output: 4"), NetError, ["kernel_size is missing"]),
    "conv_kernel_0": (IMAGE + conv("num_output: 4 kernel_size: 0"), NetError, ["kernel_size is (0, 0)", "1 or more"]),
    "conv_stride_0": (IMAGE + conv("num_output: 4 kernel_size: 1 stride: 0"), NetError, ["stride is (0, 0)"]),
    "conv_no_outputs": (IMAGE + conv("kernel_size: 1"), NetError, ["num_output is missing"]),
    "conv_pad_twice": (IMAGE + conv("num_output: 1 kernel_size: 3 pad: 1 pad_h: 1"), NetError,
                       ["layer (Convolution)", "gives both pad and pad_h", "give one"]),
    "conv_kernel_twice": (IMAGE + conv("num_output: 1 kernel_size: 3 kernel_h: 3 kernel_w: 3"), NetError,
                          ["both kernel_size and kernel_h"]),
    "conv_kernel_half": (IMAGE + conv("num_output: 1 kernel_w: 3"), NetError,
                         ["kernel_w alone", "kernel_h and kernel_w"]),
    "conv_entries": (IMAGE + conv("num_output: 1 kernel_size: [3, 3, 3]"), ShapeError,
                     ["kernel_size has 3 entries", "2 spatial axes"]),
    "conv_h_w_in_3d": (inputs(x=(1, 2, 3, 3, 3)) + conv("num_output: 1 kernel_h: 1 kernel_w: 1"), NetError,
                       ["kernel_h is for 2 spatial axes", "3"]),
    "conv_axes": (inputs(x=(2, 3)) + conv("num_output: 1 kernel_h: 1 kernel_w: 1"), NetError,
                  ["kernel_h is for 2 spatial axes", "the bottom has 0"]),
    "conv_axis": (IMAGE + conv("num_output: 1 kernel_size: 1 axis: 4"), ShapeError, ["axis 4 does not exist"]),
    "conv_bottoms_differ": (inputs(x=(1, 2, 3, 3), z=(1, 2, 4, 3)) + layer(
        "Convolution", "x z", "a b", "convolution_param { num_output: 1 kernel_size: 1 }"), ShapeError,
        ["one shape", "(1, 2, 3, 3) and (1, 2, 4, 3)"]),
    "deconv_pad": (inputs(x=(1, 2, 2, 2)) + layer(
        "Deconvolution", more="convolution_param { num_output: 1 kernel_size: 2 pad: 2 }"), ShapeError,
        ["layer (Deconvolution)", "pad=(2, 2)", "(-1, -1)", "(2, 2)"]),
    # ---- pooling
    "pool_kernel_too_large": (IMAGE + pool("kernel_size: 7"), ShapeError,
                              ["layer (Pooling)", "kernel_h=7 exceeds the padded size 6 (6 + 2*0)"]),
    "pool_pad": (IMAGE + pool("kernel_size: 2 pad: 2"), ShapeError, ["pad_h=2 must be less than kernel_h=2"]),
    "pool_window_outside": (inputs(x=(1, 1, 6, 6)) + pool("kernel_size: 2 stride: 3"), ShapeError,
                            ["last window on axis h starts at 6", "input of 6", "stride_h=3", "round_mode: FLOOR"]),
    "pool_no_kernel": (IMAGE + pool("stride: 2"), NetError, ["kernel_size is missing", "global_pooling"]),
    "pool_kernel_0": (IMAGE + pool("kernel_size: 0"), NetError, ["kernel_h=0"]),
    "pool_both": (IMAGE + pool("kernel_size: 2 kernel_h: 2 kernel_w: 2"), NetError, ["both kernel_size and kernel_h"]),
    "pool_half": (IMAGE + pool("kernel_size: 2 pad_w: 1"), NetError, ["pad_w alone", "pad_h and pad_w"]),
    "pool_global_kernel": (IMAGE + pool("global_pooling: true kernel_size: 2"), NetError,
                           ["leave the kernel size out"]),
    "pool_global_stride": (IMAGE + pool("global_pooling: true stride: 2"), NetError, ["pad 0 and stride 1", "(2, 2)"]),
    "pool_mask_of_average": (IMAGE + layer("Pooling", top="a b", more="pooling_param { pool: AVE kernel_size: 2 }"),
                             NetError, ["second top", "MAX alone"]),
    "pool_stochastic_pad": (IMAGE + pool("pool: STOCHASTIC kernel_size: 2 pad: 1"), NetError,
                            ["layer (Pooling)", "STOCHASTIC takes no padding", "pad_h=1", "set it to 0"]),
    "pool_stochastic_mask": (IMAGE + layer("Pooling", top="a b", more="pooling_param { pool: STOCHASTIC "
                                                                      "kernel_size: 2 }"),
                             NetError, ["second top", "MAX alone"]),
    "pool_axes": (inputs(x=(2, 3)) + pool("kernel_size: 1"), ShapeError, ["(N, C, H, W)", "(2, 3)"]),
    # ---- parameters
    "unknown_filler": (inputs(x=(2, 3)) + layer("InnerProduct", more="inner_product_param { num_output: 1 "
                                                                     "weight_filler { type: 'xaver' } }"), NetError,
                       ["layer (InnerProduct)", "unknown filler type 'xaver'", "did you mean 'xavier'"]),
    "bilinear": (inputs(x=(2, 3)) + layer("InnerProduct", more="inner_product_param { num_output: 4 "
                                                               "weight_filler { type: 'bilinear' } }"), NetError,
                 ["layer (InnerProduct)", "square kernels", "(4, 3)"]),
    "too_many_params": (inputs(x=(2, 3)) + ip("x", "y", "param { } param { } param { }"), NetError,
                        ["layer (InnerProduct)", "2 parameter(s) and 3 param entries"]),
    "params_of_none": (inputs(x=(2, 3)) + layer("ReLU", more="param { lr_mult: 1 }"), NetError,
                       ["0 parameter(s) and 1 param entries"]),
    "share_shapes": (inputs(x=(2, 3)) + ip("x", "a", "param { name: 'w' }", "one")
                     + layer("InnerProduct", "a", "b", "inner_product_param { num_output: 4 } param { name: 'w' }",
                             "two"),
                     ShapeError, ["two (InnerProduct)", "'w' is owned by one[0] with shape (3, 3)", "(4, 3)"]),
    "share_counts": (inputs(x=(2, 3)) + ip("x", "a", "param { name: 'w' }", "one") + layer(
        "InnerProduct", "a", "b", "inner_product_param { num_output: 4 } param { name: 'w' share_mode: PERMISSIVE }",
        "two"), ShapeError, ["two (InnerProduct)", "(9 numbers)", "(12)"]),
    "share_permissive_hint": (inputs(x=(2, 3)) + ip("x", "a", "param { name: 'w' }", "one") + layer(
        "Reshape", "a", "r", "reshape_param { shape { dim: 6 dim: 1 } }", "shape") + layer(
        "InnerProduct", "r", "b", "inner_product_param { num_output: 9 } param { name: 'w' }", "two"), ShapeError,
        ["share_mode: PERMISSIVE"]),
    "share_lr_mult": (inputs(x=(2, 3)) + ip("x", "a", "param { name: 'w' lr_mult: 1 }", "one")
                      + ip("a", "b", "param { name: 'w' lr_mult: 2 }", "two"), NetError,
                      ["two (InnerProduct)", "lr_mult 1; here it is 2"]),
    "batch_norm_lr": (IMAGE + layer("BatchNorm", more="param { lr_mult: 1 }"), NetError,
                      ["layer (BatchNorm)", "param 0 has lr_mult 1", "lr_mult: 0"]),
    "ip_no_outputs": (inputs(x=(2, 3)) + layer("InnerProduct"), NetError, ["num_output is missing"]),
    "weights_in_the_definition": (inputs(x=(2, 3)) + ip("x", "y", "blobs { shape { dim: 2 } data: 1 data: 2 }"),
                                  ShapeError,
                                  ["layer (InnerProduct)", "parameter 0 needs shape (3, 3) (9 numbers)", "(2,) (2)"]),
    # ---- others
    "dropout_1": (inputs(x=(2, 3)) + layer("Dropout", more="dropout_param { dropout_ratio: 1 }"), NetError,
                  ["layer (Dropout)", "dropout_ratio=1", "at least 0 and less than 1"]),
    "eltwise_coeff_count": (inputs(x=(2, 3), z=(2, 3)) + layer("Eltwise", "x z", more="eltwise_param { coeff: 1 }"),
                            NetError,
                            ["2 bottoms and 1 coeff"]),
    "eltwise_coeff_product": (inputs(x=(2, 3), z=(2, 3)) + layer(
        "Eltwise", "x z", more="eltwise_param { operation: PROD coeff: 1 coeff: 1 }"), NetError, ["SUM alone"]),
    "concat_dim_twice": (TWO + layer("Concat", "x z", more="concat_param { axis: 1 concat_dim: 1 }"), NetError,
                         ["axis and the old concat_dim"]),
    "slice_dim_twice": (TWO + layer("Slice", "x", "a", more="slice_param { axis: 1 slice_dim: 1 }"), NetError,
                        ["axis and the old slice_dim"]),
    "dummy_no_shape": (layer("DummyData", ""), NetError, ["layer (DummyData)", "needs shape"]),
    "dummy_shapes": (layer("DummyData", "", "a b c", "dummy_data_param { shape { dim: 1 } shape { dim: 1 } }"),
                     NetError,
                     ["3 top(s) and 2 shape"]),
    "dummy_both": (layer("DummyData", "", more="dummy_data_param { shape { dim: 1 } num: 1 }"), NetError,
                   ["both shape and num"]),
    "data_no_source": (layer("Data", "", more="data_param { batch_size: 2 }"), NetError, ["layer (Data)", "source"]),
    "data_no_batch": (layer("Data", "", more="data_param { source: 'nowhere' }"), NetError, ["batch_size is 0"]),
    "data_missing": (layer("Data", "", more="data_param { source: '/nowhere/at_all' batch_size: 2 backend: LMDB }"),
                     DataError, ["/nowhere/at_all"]),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, cpu: CpuOps) -> None:
    text, kind, words = CASES[name]
    with pytest.raises(BaristaError) as caught:
        # Most errors come while the net is made; a missing gradient when it is asked for.
        make(text, cpu, head="").backward_pass()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message and not message.endswith((" ", ";", ":"))


def test_every_error_of_a_layer_names_it(cpu: CpuOps) -> None:
    """Also where the fault shows below the layer, as in a shape that no blob can have."""
    for name, (text, kind, _) in CASES.items():
        if kind is not ShapeError:
            continue
        with pytest.raises(ShapeError) as caught:
            make(text, cpu, head="")
        assert re.match(r"\w+ \([A-Z]\w+\): ", str(caught.value)), name


# ---- errors of a net that was made ------------------------------------------------------------------------


def test_inner_product_after_reshape(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 3, 4)) + ip("x", "y"), cpu)
    net.blobs["x"].reshape(2, 3, 5)
    with pytest.raises(ShapeError, match=r"layer \(InnerProduct\): was set up for 12 inputs; .*\(2, 3, 5\) has 15"):
        net.reshape()


@pytest.mark.parametrize(("text", "message"), [
    (conv("num_output: 1 kernel_size: 1"), r"\(Convolution\): was set up for 3 channels .*\(2, 4, 6, 5\)"),
    (layer("BatchNorm"), r"\(BatchNorm\): has statistics of 3 channels; .*\(2, 4, 6, 5\) has 4"),
    (layer("PReLU"), r"\(PReLU\): has 3 slopes but .*\(2, 4, 6, 5\) has 4 channels"),
    (layer("Scale"),
     r"\(Scale\): axes 1 to 1 of the bottom \(2, 4, 6, 5\) must equal the shape \(3,\) of the parameter"),
    (layer("Bias"), r"\(Bias\): .*\(3,\) of the parameter"),
])
def test_other_channels_after_reshape(text: str, message: str, cpu: CpuOps) -> None:
    net = make(IMAGE + text, cpu)
    net.blobs["x"].reshape(2, 4, 6, 5)
    with pytest.raises(ShapeError, match=message):
        net.forward_pass()


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "HingeLoss", "Accuracy"])
def test_label_out_of_range(type_: str, label: int, cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 3), t=(2,)) + layer(type_, "x t"), cpu, head="")
    net.blobs["t"].data[1] = label
    with pytest.raises(DataError, match=rf"layer \({type_}\): label {label} is none of the 3 classes 0 to 2; check"):
        net.forward_pass()


def test_names_that_the_net_lacks(cpu: CpuOps) -> None:
    net = make(inputs(data=(2, 3)) + ip("data", "score", name="fc"), cpu)
    net.forward()
    for call, message in (
            (lambda: net.forward(dat=np.zeros((2, 3))), r"takes the inputs \['data'\], got \['dat'\]"),
            (lambda: net.forward(blobs=["scor"]), r"no blob 'scor'; did you mean 'score'\?"),
            (lambda: net.forward(start="fcc"), r"no layer 'fcc'; did you mean 'fc'\?"),
            (lambda: net.forward(end="zzzz"), r"net 'little' has no layer 'zzzz'; it has in_data, fc$"),
            (lambda: net.backward(scores=np.zeros((2, 3))), r"no blob 'scores'; did you mean 'score'\?"),
            (lambda: net.backward(start="fb"), r"no layer 'fb'"),
            (lambda: net.backward(diffs=["nothing"]), r"no blob 'nothing'; it has data, score$"),
            (lambda: net.forward(start="fc", end="in_data"), r"end at 'in_data' \(layer 0\).* before its start 'fc'"),
            (lambda: net.backward(start="in_data", end="fc"), r"start at 'in_data' \(layer 0\).* its end 'fc'")):
        with pytest.raises(NetError, match=message):
            call()


def test_dictionaries_of_a_net_hint_at_names(cpu: CpuOps) -> None:
    net = make(inputs(data=(2, 3)) + ip("data", "score", name="fc"), cpu)
    for call, message in (
            (lambda: net.blobs["dta"], r"^net 'little' has no blob 'dta'; did you mean 'data'\?$"),
            (lambda: net.params["f"], r"no layer with parameters of the name 'f'; did you mean 'fc'\?$"),
            (lambda: net.layer_dict["nope"], r"no layer 'nope'; it has in_data, fc$")):
        for kind in (KeyError, NetError):
            with pytest.raises(kind, match=message):
                call()
    many = make(inputs(x=(1, 2)) + "".join(layer("ReLU", "x", f"y{i}", name=f"r{i}") for i in range(12)), cpu)
    with pytest.raises(KeyError, match=r"it has in_x, x_in_x_0_split, r0, .*, r7, \.\.\. \(14 in all\)$"):
        _ = many.layer_dict["nope"]
    assert "nope" not in net.blobs and net.blobs.get("nope") is None and copy.copy(net.blobs) == net.blobs


def test_an_array_is_no_blob(cpu: CpuOps) -> None:
    net = make(inputs(data=(2, 3)), cpu)
    with pytest.raises(NetError, match=r"write blobs\['data'\]\.data\[\.\.\.\] = array"):
        net.blobs["data"] = np.zeros((2, 3))  # type: ignore[assignment]
    net.blobs["data"].reshape((4, 3))
    assert net.blobs["data"].shape == (4, 3)
    net.blobs["data"].reshape(np.int64(7))
    assert net.blobs["data"].shape == (7,)


def test_arrays_of_another_shape(cpu: CpuOps) -> None:
    net = make(inputs(data=(2, 3)) + ip("data", "score"), cpu)
    with pytest.raises(ShapeError,
                       match=r"input 'data' has shape \(2, 3\), got an array of \(3, 2\); give one"):
        net.forward(data=np.zeros((3, 2)))
    net.forward()
    with pytest.raises(ShapeError, match=r"blob 'score' has shape \(2, 3\), got a gradient of \(2,\)"):
        net.backward(score=np.zeros(2))


def test_weights_of_another_shape(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 3)) + ip("x", "y", name="fc"), cpu)
    other = make(inputs(x=(2, 4)) + ip("x", "y", name="fc"), cpu)
    before = net.params["fc"][0].data.copy()
    with pytest.raises(SnapshotError,
                       match=r"'fc': parameter 0 has shape \(3, 3\), file has \(3, 4\); rename the layer"):
        net.copy_trained_layers(other.to_proto(), "file")
    with pytest.raises(ShapeError, match=r"'fc': parameter 0 has shape \(3, 3\), net 'little' has \(3, 4\)"):
        net.share_trained_layers_with(other)
    np.testing.assert_array_equal(net.params["fc"][0].data, before)


def test_weights_of_another_number(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 3)) + ip("x", "y", name="fc"), cpu)
    fewer = net.to_proto()
    del fewer.layer[1].blobs[1]
    with pytest.raises(SnapshotError, match=r"'fc' has 2 parameter blob\(s\), file has 1"):
        net.copy_trained_layers(fewer, "file")
    more = net.to_proto()
    more.layer[1].blobs.add(data=[1.0]).shape.dim.append(1)
    with pytest.raises(SnapshotError, match=r"'fc' has 2 parameter blob\(s\), file has 3"):
        net.copy_trained_layers(more, "file")


def test_shapes_of_the_same_count_are_not_taken_silently(cpu: CpuOps) -> None:
    net = make(inputs(x=(2, 6)) + ip("x", "y", name="fc"), cpu)
    proto = net.to_proto()
    del proto.layer[1].blobs[0].shape.dim[:]
    proto.layer[1].blobs[0].shape.dim.extend([6, 3])
    with pytest.raises(SnapshotError, match=r"\(3, 6\), file has \(6, 3\)"):
        net.copy_trained_layers(proto, "file")
    with pytest.raises(ShapeError, match=r"fc \(InnerProduct\): parameter 0 needs shape \(3, 6\).*\(6, 3\)"):
        Net(proto, barista.TRAIN, ops=cpu)


def test_blobs_are_named_as_the_definition_names_them(cpu: CpuOps) -> None:
    """Not by the tops of the Split layers that a net adds."""
    shared = inputs(x=(2, 6), t=(3,)) + layer("ReLU", "x", "x", name="drop")
    with pytest.raises(ShapeError, match=r"sum \(Eltwise\): .*bottom 1 \(x\) has \(2, 6\)$"):
        make(shared + ip("x", "y") + layer("Eltwise", "y x", "s", name="sum"), cpu)
    with pytest.raises(ShapeError, match=r"loss \(SoftmaxWithLoss\): the target t has shape \(3,\)"):
        make(shared + layer("Silence", "t", "") + layer("SoftmaxWithLoss", "x t", "loss", name="loss"), cpu)


def test_errors_are_also_the_built_in_that_fits(cpu: CpuOps) -> None:
    with pytest.raises(ValueError, match="unknown layer type"):
        make(inputs(x=(1, 2)) + layer("Nothing"), cpu)
    with pytest.raises(NotImplementedError):
        make(IMAGE + layer("SPP", more="spp_param { pyramid_height: 1 pool: STOCHASTIC }"), cpu)


def test_a_net_that_fails_closes_what_it_opened(cpu: CpuOps, golden, caplog: pytest.LogCaptureFixture) -> None:
    """The reading thread of a data layer ends with the net that could not be made."""
    import threading

    source = golden / "data" / "mnist_lmdb"
    text = layer("Data", "", "data label", f"data_param {{ source: '{source}' batch_size: 2 backend: LMDB }}", "data")
    before = threading.active_count()
    with caplog.at_level(logging.ERROR), pytest.raises(NetError):
        Net(parse_net(text + layer("Eltwise", "data")), ops=cpu)
    assert threading.active_count() == before
    assert not caplog.records
