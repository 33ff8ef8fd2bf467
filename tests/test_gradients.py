"""Every layer's gradients in float64 against central differences, away from kinks and ties."""

from __future__ import annotations

import numpy as np
import pytest
from extension_cases import EXTENSIONS, EXTENSIONS_IN_PLACE
from function_cases import FUNCTIONS, FUNCTIONS_IN_PLACE
from little_nets import Case, Probe, check_gradients, layer
from moving_cases import MOVES
from recurrent_cases import RECURRENT

import barista
from barista.gemm import batching
from barista.layers import layer_types
from barista.net import Net
from barista.ops.cpu import CpuOps


def conv(param: str, bottom: str = "x", top: str = "y", type_: str = "Convolution") -> str:
    return layer(type_, bottom, top, f"convolution_param {{ {param} }}")


def deconv(param: str) -> str:
    return conv(param, type_="Deconvolution")


def pool(param: str) -> str:
    return layer("Pooling", more=f"pooling_param {{ {param} }}")


def loss(type_: str, param: str = "", bottom: str = "x t", top: str = "y") -> str:
    return layer(type_, bottom, top, param)


X = {"x": (2, 3, 5, 4)}
WIDE = {"x": (2, 4, 6, 5)}
DISTINCT = {"x": ((2, 2, 5, 6), "distinct")}
PAIR = {"x": (2, 3, 2), "z": (2, 3, 2)}
LABELLED = {"x": (3, 4), "t": ((3,), "labels4")}
SPATIAL = {"x": (2, 3, 2, 2), "t": ((2, 1, 2, 2), "labels3")}


def _ignore_one(net: Net, rng: np.random.Generator) -> None:
    net.blobs["t"].data.flat[0] = 9


def _keep_one_label(net: Net, rng: np.random.Generator) -> None:
    net.blobs["t"].data[...] = 9


def _running_statistics(net: Net, rng: np.random.Generator) -> None:
    mean, variance, total = net.params["layer"]
    mean.data[...] = rng.uniform(-3, 3, mean.shape)
    variance.data[...] = rng.uniform(1, 5, variance.shape)
    total.data[...] = 2.5


CASES: dict[str, Case] = {
    # ---- convolution
    "conv": Case(conv("num_output: 4 kernel_size: 3"), X),
    "conv_stride_pad": Case(conv("num_output: 4 kernel_size: 3 stride: 2 pad: 1"), X),
    "conv_group": Case(conv("num_output: 6 kernel_size: 2 group: 2"), WIDE),
    "conv_depthwise": Case(conv("num_output: 4 kernel_size: 3 pad: 1 group: 4"), WIDE),
    "conv_dilation": Case(conv("num_output: 2 kernel_size: 2 dilation: 3 pad: 1"), X),
    "conv_rect": Case(conv("num_output: 2 kernel_h: 3 kernel_w: 1 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0"),
                      X),
    "conv_all": Case(conv("num_output: 4 kernel_size: 3 stride: 2 pad: 2 dilation: 2 group: 2"), WIDE),
    "conv_pointwise": Case(conv("num_output: 5 kernel_size: 1"), X),
    "conv_pointwise_group": Case(conv("num_output: 4 kernel_size: 1 group: 2"), WIDE),
    "conv_pointwise_stride": Case(conv("num_output: 3 kernel_size: 1 stride: 2"), X),
    "conv_kernel_in_padding": Case(conv("num_output: 2 kernel_size: 2 pad: 3 stride: 3"),
                                   {"x": (2, 2, 2, 2)}),
    "conv_stride_beyond_kernel": Case(conv("num_output: 2 kernel_size: 1 stride: 3"), {"x": (1, 2, 8, 7)}),
    "conv_whole_image": Case(conv("num_output: 3 kernel_h: 5 kernel_w: 4"), X),
    "conv_no_bias": Case(conv("num_output: 4 kernel_size: 3 bias_term: false"), X),
    "conv_1d": Case(conv("num_output: 3 kernel_size: 3 stride: 2 pad: 1"), {"x": (2, 3, 8)}),
    "conv_3d": Case(conv("num_output: 2 kernel_size: [2, 3, 1] stride: [1, 2, 1] pad: [1, 0, 0]"),
                    {"x": (2, 2, 3, 4, 2)}),
    "conv_axis": Case(conv("num_output: 3 kernel_size: 2 axis: 2"), {"x": (2, 2, 3, 4)}),
    "conv_two_bottoms": Case(conv("num_output: 3 kernel_size: 2 pad: 1", "x z", "y u"),
                             {**X, "z": (2, 3, 5, 4)}),
    "conv_in_chain": Case(layer("Convolution", "x", "h", "convolution_param { num_output: 3 kernel_size: 2 }",
                                "one")
                          + layer("Convolution", "h", "y",
                                  "convolution_param { num_output: 2 kernel_size: 2 }"), X),
    "deconv": Case(deconv("num_output: 2 kernel_size: 3"), {"x": (2, 3, 3, 2)}),
    "deconv_stride_pad": Case(deconv("num_output: 2 kernel_size: 4 stride: 2 pad: 1"), {"x": (2, 3, 3, 2)}),
    "deconv_group_dilation": Case(deconv("num_output: 6 kernel_size: 2 group: 2 dilation: 2"),
                                  {"x": (2, 4, 3, 2)}),
    "deconv_no_bias": Case(deconv("num_output: 2 kernel_size: 2 bias_term: false"), {"x": (2, 3, 3, 2)}),
    "deconv_pointwise": Case(deconv("num_output: 2 kernel_size: 1"), {"x": (2, 3, 3, 2)}),
    "deconv_1d": Case(deconv("num_output: 2 kernel_size: 3 stride: 3"), {"x": (2, 3, 4)}),
    "deconv_two_bottoms": Case(conv("num_output: 2 kernel_size: 2", "x z", "y u", "Deconvolution"),
                               {"x": (1, 2, 3, 2), "z": (1, 2, 3, 2)}),
    # ---- pooling
    "max": Case(pool("kernel_size: 2 stride: 2"), DISTINCT),
    "max_overlap": Case(pool("kernel_size: 3 stride: 2"), DISTINCT),
    "max_pad": Case(pool("kernel_size: 3 stride: 2 pad: 1"), DISTINCT),
    "max_ceil": Case(pool("kernel_size: 3 stride: 3"), {"x": ((2, 2, 4, 5), "distinct")}),
    "max_floor": Case(pool("kernel_size: 3 stride: 2 round_mode: FLOOR"), DISTINCT),
    "max_rect": Case(pool("kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1"), DISTINCT),
    "max_global": Case(pool("global_pooling: true"), DISTINCT),
    "max_large_window": Case(pool("kernel_size: 17 pad: 8 stride: 2"), DISTINCT),
    "max_mask": Case(layer("Pooling", top="y m", more="pooling_param { kernel_size: 2 }"), DISTINCT,
                     dead=("m",)),
    "ave": Case(pool("pool: AVE kernel_size: 2 stride: 2"), X),
    "ave_overlap": Case(pool("pool: AVE kernel_size: 3 stride: 2"), WIDE),
    "ave_pad_ceil": Case(pool("pool: AVE kernel_size: 3 stride: 2 pad: 1"), WIDE),
    "ave_large_pad": Case(pool("pool: AVE kernel_size: 5 stride: 3 pad: 3"), WIDE),
    "ave_floor": Case(pool("pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR"), WIDE),
    "ave_rect": Case(pool("pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0"),
                     WIDE),
    "ave_global": Case(pool("pool: AVE global_pooling: true"), X),
    "stochastic": Case(pool("pool: STOCHASTIC kernel_size: 3 stride: 2"), {"x": ((2, 2, 5, 6), "positive")}),
    "stochastic_rect": Case(pool("pool: STOCHASTIC kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1"),
                            {"x": ((2, 3, 5, 4), "positive")}),
    "stochastic_test": Case(pool("pool: STOCHASTIC kernel_size: 3 stride: 2"), {"x": ((2, 2, 6, 5), "positive")},
                            barista.TEST),
    "stochastic_global_test": Case(pool("pool: STOCHASTIC global_pooling: true"), {"x": ((2, 2, 3, 2), "positive")},
                                   barista.TEST),
    # ---- inner product
    "ip": Case(layer("InnerProduct", more="inner_product_param { num_output: 4 }"), {"x": (3, 2, 2)}),
    "ip_axis": Case(layer("InnerProduct", more="inner_product_param { num_output: 3 axis: 2 }"),
                    {"x": (2, 3, 4)}),
    "ip_last_axis": Case(layer("InnerProduct", more="inner_product_param { num_output: 3 axis: -1 }"),
                         {"x": (2, 3, 4)}),
    "ip_axis_0": Case(layer("InnerProduct", more="inner_product_param { num_output: 3 axis: 0 }"),
                      {"x": (2, 3)}),
    "ip_transpose": Case(layer("InnerProduct", more="inner_product_param { num_output: 4 transpose: true }"),
                         {"x": (3, 5)}),
    "ip_no_bias": Case(layer("InnerProduct", more="inner_product_param { num_output: 4 bias_term: false }"),
                       {"x": (3, 5)}),
    # ---- activations
    "relu": Case(layer("ReLU"), X),
    "relu_slope": Case(layer("ReLU", more="relu_param { negative_slope: 0.1 }"), X),
    "relu_negative_slope": Case(layer("ReLU", more="relu_param { negative_slope: -0.3 }"), X),
    "prelu": Case(layer("PReLU"), X),
    "prelu_shared": Case(layer("PReLU", more="prelu_param { channel_shared: true }"), X),
    "prelu_two_axes": Case(layer("PReLU"), {"x": (4, 3)}),
    "elu": Case(layer("ELU", more="elu_param { alpha: 0.7 }"), X),
    "sigmoid": Case(layer("Sigmoid"), X),
    "tanh": Case(layer("TanH"), X),
    "dropout": Case(layer("Dropout", more="dropout_param { dropout_ratio: 0.3 }"), X),
    "dropout_test": Case(layer("Dropout"), X, barista.TEST),
    # ---- normalisation
    "lrn_across": Case(layer("LRN", more="lrn_param { local_size: 3 alpha: 2 beta: 0.75 k: 1.5 }"), WIDE),
    "lrn_across_beta": Case(layer("LRN", more="lrn_param { local_size: 5 alpha: 1 beta: 0.6 }"), WIDE),
    "lrn_across_half": Case(layer("LRN", more="lrn_param { local_size: 15 alpha: 1 beta: 0.5 }"), WIDE),
    "lrn_within": Case(layer("LRN", more="lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }"),
                       WIDE),
    "lrn_within_large": Case(layer("LRN", more="lrn_param { local_size: 9 alpha: 5 beta: 1.2 "
                                               "norm_region: WITHIN_CHANNEL }"), X),
    "bn_train": Case(layer("BatchNorm"), X, param=None),
    "bn_train_eps": Case(layer("BatchNorm", more="batch_norm_param { eps: 0.1 }"), {"x": (5, 3)}, param=None),
    "bn_one_axis": Case(layer("BatchNorm"), {"x": (7,)}, param=None),
    "bn_global": Case(layer("BatchNorm", more="batch_norm_param { use_global_stats: true }"), X, param=None,
                      prepare=_running_statistics),
    "bn_test": Case(layer("BatchNorm"), X, barista.TEST, param=None, prepare=_running_statistics),
    # ---- scale and bias
    "scale": Case(layer("Scale"), X),
    "scale_bias": Case(layer("Scale", more="scale_param { bias_term: true }"), X),
    "scale_axes": Case(layer("Scale", more="scale_param { axis: 1 num_axes: 2 bias_term: true }"), X),
    "scale_all_axes": Case(layer("Scale", more="scale_param { axis: 0 num_axes: -1 }"), X),
    "scale_scalar": Case(layer("Scale", more="scale_param { num_axes: 0 bias_term: true }"), X),
    "scale_two": Case(layer("Scale", "x z", more="scale_param { axis: 0 }"), {**X, "z": (2, 3)}),
    "scale_two_bias": Case(layer("Scale", "x z", more="scale_param { axis: 2 bias_term: true }"),
                           {**X, "z": (5,)}),
    "scale_two_scalar": Case(layer("Scale", "x z"), {**X, "z": ()}),
    "bias": Case(layer("Bias"), X),
    "bias_axis": Case(layer("Bias", more="bias_param { axis: -1 }"), X),
    "bias_two": Case(layer("Bias", "x z", more="bias_param { axis: 0 }"), {**X, "z": (2, 3, 5, 4)}),
    "bias_two_scalar": Case(layer("Bias", "x z"), {**X, "z": ()}),
    # ---- several tensors
    "concat": Case(layer("Concat", "x z w"), {"x": (2, 3, 2), "z": (2, 1, 2), "w": (2, 2, 2)}),
    "concat_batch": Case(layer("Concat", "x z", more="concat_param { axis: 0 }"), {"x": (2, 3), "z": (1, 3)}),
    "concat_last": Case(layer("Concat", "x z", more="concat_param { axis: -1 }"),
                        {"x": (2, 3, 1), "z": (2, 3, 2)}),
    "concat_one": Case(layer("Concat"), {"x": (2, 3)}),
    "slice": Case(layer("Slice", top="y u"), {"x": (2, 4, 2)}),
    "slice_points": Case(layer("Slice", top="y u v",
                               more="slice_param { axis: 2 slice_point: 1 slice_point: 4 }"),
                         {"x": (2, 2, 5)}),
    "eltwise_sum": Case(layer("Eltwise", "x z"), PAIR),
    "eltwise_coeff": Case(layer("Eltwise", "x z w", more="eltwise_param { coeff: 0.5 coeff: -2 coeff: 1 }"),
                          {**PAIR, "w": (2, 3, 2)}),
    "eltwise_prod": Case(layer("Eltwise", "x z w", more="eltwise_param { operation: PROD }"),
                         {**PAIR, "w": (2, 3, 2)}),
    "eltwise_prod_unstable": Case(layer("Eltwise", "x z w", more="eltwise_param { operation: PROD "
                                                                 "stable_prod_grad: false }"),
                                  {**PAIR, "w": (2, 3, 2)}),
    "eltwise_max": Case(layer("Eltwise", "x z w", more="eltwise_param { operation: MAX }"),
                        {**PAIR, "w": (2, 3, 2)}),
    "flatten": Case(layer("Flatten", top="f", name="flat") + layer("Sigmoid", "f"), X),
    "flatten_axes": Case(layer("Flatten", top="f", more="flatten_param { axis: 0 end_axis: -2 }", name="flat")
                         + layer("Sigmoid", "f"), X),
    "reshape": Case(layer("Reshape", top="f", more="reshape_param { shape { dim: 0 dim: -1 dim: 2 } }",
                          name="shape")
                    + layer("Sigmoid", "f"), X),
    "split": Case(layer("Sigmoid", "x", "y", name="one") + layer("TanH", "x", "u", name="two")
                  + layer("ELU", "x", "v", name="three"), X),
    "split_explicit": Case(layer("Split", "x", "a b", name="split") + layer("Sigmoid", "a", "y", name="one")
                           + layer("TanH", "b", "u", name="two"), X),
    "silence": Case(layer("Silence", "x", "", name="hush") + layer("Sigmoid"), X),
    # ---- softmax and losses
    "softmax": Case(layer("Softmax"), {"x": (3, 5)}),
    "softmax_axis": Case(layer("Softmax", more="softmax_param { axis: 2 }"), {"x": (2, 3, 4, 2)}),
    "softmax_loss": Case(loss("SoftmaxWithLoss"), LABELLED, fixed=("t",)),
    "softmax_loss_weight": Case(loss("SoftmaxWithLoss", "loss_weight: 2.5"), LABELLED, fixed=("t",)),
    "softmax_loss_two_tops": Case(loss("SoftmaxWithLoss", top="y p"), LABELLED, fixed=("t",), dead=("p",)),
    "softmax_loss_spatial": Case(loss("SoftmaxWithLoss"), SPATIAL, fixed=("t",)),
    "softmax_loss_axis": Case(loss("SoftmaxWithLoss", "softmax_param { axis: -1 }"),
                              {"x": (2, 3, 4), "t": ((2, 3), "labels4")}, fixed=("t",)),
    "softmax_loss_ignore": Case(loss("SoftmaxWithLoss", "loss_param { ignore_label: 9 }"), SPATIAL,
                                fixed=("t",),
                                prepare=_ignore_one),
    "softmax_loss_ignore_all": Case(loss("SoftmaxWithLoss", "loss_param { ignore_label: 9 }"), SPATIAL,
                                    fixed=("t",),
                                    prepare=_keep_one_label),
    "softmax_loss_normalize_false": Case(loss("SoftmaxWithLoss", "loss_param { normalize: false }"), SPATIAL,
                                         fixed=("t",)),
    "euclidean": Case(loss("EuclideanLoss"), {"x": (3, 4), "t": (3, 4)}),
    "euclidean_shapes": Case(loss("EuclideanLoss", "loss_weight: 0.5"), {"x": (3, 2, 2), "t": (3, 4)}),
    "sce": Case(loss("SigmoidCrossEntropyLoss"), {"x": (3, 4), "t": ((3, 4), "unit")}, fixed=("t",)),
    "sce_weight": Case(loss("SigmoidCrossEntropyLoss", "loss_weight: 3"),
                       {"x": (3, 4), "t": ((3, 4), "unit")},
                       fixed=("t",)),
    "hinge_l1": Case(loss("HingeLoss"), {"x": ((4, 3), "margin"), "t": ((4,), "labels3")}, fixed=("t",)),
    "hinge_l2": Case(loss("HingeLoss", "hinge_loss_param { norm: L2 } loss_weight: 2"),
                     {"x": ((4, 3), "margin"), "t": ((4,), "labels3")}, fixed=("t",)),
    # ---- layers in Python
    "python": Case(layer("Python", more="python_param { module: 'test_layers_python' layer: 'Scaled' "
                                        "param_str: '-1.5' }"), X),
    "python_loss": Case(loss("Python", "python_param { module: 'test_layers_python' layer: 'HalfSquares' } "
                                       "loss_weight: 2"), {"x": (3, 4), "t": (3, 4)}),
}
CASES.update(EXTENSIONS)
CASES.update(FUNCTIONS)
CASES.update(MOVES)
CASES.update(RECURRENT)
for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE"):
    CASES[f"softmax_loss_{mode}"] = Case(
        loss("SoftmaxWithLoss", f"loss_param {{ normalization: {mode} ignore_label: 9 }}"), SPATIAL,
        fixed=("t",),
        prepare=_ignore_one)
    CASES[f"sce_{mode}"] = Case(
        loss("SigmoidCrossEntropyLoss", f"loss_param {{ normalization: {mode} ignore_label: 9 }}"),
        {"x": (3, 4), "t": ((3, 4), "unit")}, fixed=("t",), prepare=_ignore_one)


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str, cpu64: CpuOps) -> None:
    check_gradients(CASES[name], cpu64)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_bottoms_are_overwritten(name: str, cpu64: CpuOps) -> None:
    """Whatever stood there, a second backward pass gives the same."""
    case = CASES[name]
    net = case.net(cpu64)
    probe = Probe(net, case.dead)
    probe.backward()
    wanted = [blob for blob in case.inputs if blob not in case.fixed]
    first = {blob: net.blobs[blob].diff.copy() for blob in wanted}
    for blob in wanted:
        net.blobs[blob].diff[...] = np.nan
    probe.backward()
    for blob in wanted:
        np.testing.assert_array_equal(net.blobs[blob].diff, first[blob])


# Layers without a gradient, each with its reason; all others must stand in the table above.
WITHOUT_GRADIENT = {
    "Input": "the caller fills it", "MemoryData": "the caller fills it", "DummyData": "filled by fillers",
    "Data": "reads a database", "ImageData": "reads images", "WindowData": "reads images", "HDF5Data": "reads a file",
    "HDF5Output": "writes a file",
    "Accuracy": "counts", "ArgMax": "gives places", "Threshold": "a step",
    "PriorBox": "depends on shapes alone", "DetectionOutput": "chooses",
}


def test_every_layer_type_is_checked() -> None:
    checked = {item.type for case in CASES.values() for item in case.net(CpuOps(np.float64, 1)).param.layer}
    assert set(layer_types()) - checked - set(WITHOUT_GRADIENT) == set()
    assert not set(WITHOUT_GRADIENT) - set(layer_types())


# ---- in place: behind a layer that needs neither its input nor its output for its gradient ----------------

IN_PLACE = {
    "relu": layer("ReLU", "h", "h", name="inplace"),
    "relu_slope": layer("ReLU", "h", "h", "relu_param { negative_slope: 0.2 }", name="inplace"),
    "prelu": layer("PReLU", "h", "h", name="inplace"),
    "prelu_shared": layer("PReLU", "h", "h", "prelu_param { channel_shared: true }", name="inplace"),
    "elu": layer("ELU", "h", "h", name="inplace"),
    "sigmoid": layer("Sigmoid", "h", "h", name="inplace"),
    "tanh": layer("TanH", "h", "h", name="inplace"),
    "dropout": layer("Dropout", "h", "h", name="inplace"),
    "batch_norm": layer("BatchNorm", "h", "h", name="inplace"),
    "batch_norm_global": layer("BatchNorm", "h", "h", "batch_norm_param { use_global_stats: true }",
                               name="inplace"),
    "scale": layer("Scale", "h", "h", name="inplace"),
    "scale_bias": layer("Scale", "h", "h", "scale_param { bias_term: true }", name="inplace"),
    "bias": layer("Bias", "h", "h", name="inplace"),
    "softmax": layer("Softmax", "h", "h", name="inplace"),
    **FUNCTIONS_IN_PLACE,
    **EXTENSIONS_IN_PLACE,
}


def _around(text: str) -> Case:
    """A scale before (its gradient needs its input alone) and a product behind, which needs its input too."""
    before = layer("Scale", "x", "h", "scale_param { bias_term: true }", name="before")
    behind = layer("InnerProduct", "h", "y", "inner_product_param { num_output: 3 }", name="behind")
    return Case(before + text + behind, {"x": (2, 3, 2, 2)}, prepare=_statistics_and_offsets)


def _statistics_and_offsets(net: Net, rng: np.random.Generator) -> None:
    net.params["before"][1].data[...] = 0.05  # keeps h away from 0, as x is
    if net.layers[net.layer_names.index("inplace")].type == "BatchNorm":
        for blob, value in zip(net.params["inplace"], (0.3, 2.0, 1.5), strict=True):
            blob.data[...] = value


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str, cpu64: CpuOps) -> None:
    net = check_gradients(_around(IN_PLACE[name]), cpu64)
    apart = _around(IN_PLACE[name].replace("top: 'h'", "top: 'i'").replace("name: 'inplace'",
                                                                           "name: 'inplace'"))
    apart.layers = apart.layers.replace("name: 'behind' type: 'InnerProduct' bottom: 'h'",
                                        "name: 'behind' type: 'InnerProduct' bottom: 'i'")
    other = apart.net(cpu64)
    Probe(net).backward()
    Probe(other).backward()
    np.testing.assert_array_equal(net.blobs["y"].data, other.blobs["y"].data)
    np.testing.assert_array_equal(net.blobs["x"].diff, other.blobs["x"].diff)


def test_prelu_in_place_with_negative_slope(cpu64: CpuOps) -> None:
    """The sign of y does not tell that of x then."""
    case = _around(IN_PLACE["prelu"])
    net = case.net(cpu64)
    assert (net.params["inplace"][0].data < 0).any()
    check_gradients(case, cpu64)


@pytest.mark.parametrize(("type_", "more", "slope"), [
    ("ReLU", "", 0.0), ("ReLU", "relu_param { negative_slope: 0.25 }", 0.25), ("PReLU", "", 0.25),
    ("ELU", "elu_param { alpha: 0.5 }", 0.5)])
def test_gradient_at_zero_is_that_of_the_negative_side(type_: str, more: str, slope: float, cpu64: CpuOps) -> None:
    """As in Caffe."""
    net = Case(layer(type_, more=more), {"x": (1, 2)}, param=None).net(cpu64)
    net.blobs["x"].data[...] = 0
    net.forward_pass()
    net.blobs["y"].diff[...] = [1, -2]
    net.backward_pass()
    np.testing.assert_array_equal(net.blobs["x"].diff, [[slope, -2 * slope]])


# ---- accumulation -----------------------------------------------------------------------------------------

WITH_PARAMETERS = ["conv", "conv_group", "conv_pointwise", "conv_two_bottoms", "deconv", "ip", "ip_transpose",
                   "prelu", "prelu_shared", "scale_bias", "scale_two_bias", "scale_scalar", "bias", "normalize",
                   "normalize_pixels", "embed", "embed_no_bias", "rnn_static", "lstm_static", "python"]


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_parameter_gradients_accumulate(name: str, cpu64: CpuOps) -> None:
    net = CASES[name].net(cpu64)
    probe = Probe(net)
    probe.backward()
    once = [item.blob.diff.copy() for item in net.learnable]
    bottom = net.blobs["x"].diff.copy()
    probe.backward(clear=False)
    assert len(once) == len(net.learnable) > 0
    for item, single in zip(net.learnable, once, strict=True):
        assert np.abs(single).max() > 0
        np.testing.assert_allclose(item.blob.diff, 2 * single, rtol=1e-13)
    np.testing.assert_array_equal(net.blobs["x"].diff, bottom)  # those of bottoms are overwritten
    net.clear_param_diffs()
    assert all(not item.blob.diff.any() for item in net.learnable)


def test_types_with_parameters_are_all_listed() -> None:
    listed = {item.type for name in WITH_PARAMETERS for item in CASES[name].net(CpuOps(np.float64,
                                                                                       1)).param.layer}
    learning = {item.type for case in CASES.values() for item in case.net(CpuOps(np.float64,
                                                                                 1)).layers if item.blobs}
    # The former's are statistics, the latter's is overwritten, as a bottom is.
    assert learning - listed == {"BatchNorm", "Parameter"}


def test_batch_norm_statistics_get_no_gradient(cpu64: CpuOps) -> None:
    net = CASES["bn_train"].net(cpu64)
    Probe(net).backward()
    assert [item.lr_mult for item in net.learnable] == [0, 0, 0]
    assert all(not item.blob.diff.any() for item in net.learnable)


# ---- the ways of a convolution ----------------------------------------------------------------------------

# Images of 3x6x5 through 3x3 kernels with padding 1: an output of 6x5, 27 rows of columns.
ROW = 27 * 5 * 8
IMAGE = 6 * ROW
# Column bytes, batch, then images and rows a chunk for one and for two threads.
CHUNKS = {
    "all_images": (1 << 20, 5, (5, 6), (3, 6)),
    "four_images_and_a_rest": (4 * IMAGE, 11, (4, 6), (3, 6)),
    "two_images_and_a_rest": (2 * IMAGE, 5, (2, 6), (2, 6)),
    "one_image": (IMAGE, 5, (1, 6), (1, 6)),
    "four_rows_and_a_rest": (4 * ROW, 3, (1, 4), (1, 4)),
    "two_rows": (2 * ROW, 3, (1, 2), (1, 2)),
    "one_row": (1, 3, (1, 1), (1, 1)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CHUNKS)
def test_convolution_chunks(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size, batch, *expected = CHUNKS[name]
    monkeypatch.setattr(batching, "CHUNK_COLUMN_BYTES", size)
    ops = CpuOps(np.float64, threads)
    net = check_gradients(Case(conv("num_output: 2 kernel_size: 3 pad: 1"), {"x": (batch, 3, 6, 5)}), ops,
                          most=30)
    images, rows = expected[threads - 1]
    assert f" {images} image(s) x {rows} row(s)" in ops.convolution(net.layers[1].geometry).variant


@pytest.mark.parametrize("name", ["conv_stride_pad", "conv_group", "conv_dilation", "conv_all",
                                  "conv_pointwise",
                                  "conv_pointwise_group", "conv_kernel_in_padding",
                                  "conv_stride_beyond_kernel",
                                  "conv_1d", "conv_3d", "conv_rect", "deconv_stride_pad",
                                  "deconv_group_dilation",
                                  "deconv_pointwise"])
@pytest.mark.parametrize("size", [1, 700])
def test_row_chunks_of_other_geometries(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CHUNK_COLUMN_BYTES", size)
    check_gradients(CASES[name], CpuOps(np.float64, 2), most=20)


# Enough input channels and no stride: grad_input is a convolution with turned weights.
TURNED = {
    "pad": ("num_output: 3 kernel_size: 3 pad: 1", (2, 8, 4, 3)),
    "no_pad": ("num_output: 3 kernel_size: 2", (2, 8, 6, 7)),
    "group": ("num_output: 4 kernel_size: 3 pad: 1 group: 2", (1, 16, 3, 4)),
    "dilation": ("num_output: 2 kernel_size: 3 pad: 2 dilation: 2", (5, 8, 3, 4)),
    "rect": ("num_output: 2 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0", (2, 8, 3, 4)),
    "1d": ("num_output: 2 kernel_size: 3 pad: 1", (2, 8, 4)),
    "3d": ("num_output: 2 kernel_size: [3, 1, 2] pad: [1, 0, 1]", (2, 8, 2, 3, 2)),
}


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("name", TURNED)
def test_turned_weights(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CHUNK_COLUMN_BYTES", size)
    ops = CpuOps(np.float64, 2)
    param, shape = TURNED[name]
    net = check_gradients(Case(conv(param), {"x": shape}), ops)
    assert "turned" in ops.convolution(net.layers[1].geometry).variant
