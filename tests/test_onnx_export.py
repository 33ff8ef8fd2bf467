"""Nets out as ONNX: each layer type against onnxruntime, what is cut and folded, errors, the command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import Case, inputs, layer, make
from recurrent_cases import RECURRENT
from test_conformance_layers import CASES

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime

import barista
from barista.errors import NetError, ShapeError, UnsupportedError
from barista.frontends.onnx.export import OLDEST_OPSET, to_onnx
from barista.frontends.onnx.export_graph import HANDLERS, REASONS
from barista.frontends.prototxt import parse_net
from barista.layers import layer_types
from barista.net import Net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]
OPSETS = (13, 17, 18, 21)


@pytest.fixture(scope="module")
def single() -> OpSet:
    """In single precision, as models are."""
    return CpuOps(np.float32)


def shapes_of(net: Net) -> dict[str, tuple[int, ...]]:
    return {name: blob.shape for name, blob in net.blobs.items()}


def export(net: Net, **options: Any) -> Any:
    return to_onnx(net.to_proto(), shapes_of(net), **options)


def run(model: Any, feed: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime computes, by the outputs' names."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {item.name: feed[item.name].astype(np.float32) for item in session.get_inputs()})
    return dict(zip(names, arrays, strict=True))


def close(actual: Array, expected: Array, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest number."""
    assert actual.shape == expected.shape
    largest = float(np.abs(expected).max()) if expected.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(largest, 1e-30))


def check(net: Net, *, tolerance: float = 1e-5, names: Mapping[str, str] | None = None, **options: Any) -> Any:
    """Hold what onnxruntime computes of the exported net against the net itself; inputs are filled already."""
    feed = {name: net.blobs[name].data.copy() for name in net.inputs}
    model = export(net, **options)
    net.forward()
    found = run(model, feed)
    assert found
    for name, array in found.items():
        close(array, net.blobs[(names or {}).get(name, name)].data, tolerance)
    return model


def little(text: str, ops: OpSet, more: str = "signed", fixed: Mapping[str, Array] | None = None,
           **shapes: Any) -> Net:
    """A net for the phase TEST with inputs and parameters filled."""
    net = Case(text, {name: shape if isinstance(shape[0], tuple) else (shape, more) for name, shape in shapes.items()},
               barista.TEST).net(ops)
    for name, array in (fixed or {}).items():
        net.blobs[name].data[...] = array
    return net


def ops_of(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


# ---- each layer type --------------------------------------------------------------------------------------

# Cases whose only output is a loss or a measure, or that ONNX cannot say.
NOT_EXPORTED = [case for case in CASES if case.stem.startswith(("loss_", "accuracy_")) or case.stem == "filter"]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number].stem)
def test_as_caffe_computes_it(number: int, single: OpSet) -> None:
    """The nets of which Caffe's figures are kept, in their phase TEST."""
    figures = np.load(CASES[number])
    net = Net(parse_net(str(figures["net"])), barista.TEST, ops=single)
    for key in figures.files:
        head, *rest = key.split(":")
        if head == "in":
            net.blobs[rest[0]].data[...] = figures[key]
        elif head == "param":
            net.params[rest[0]][int(rest[1])].data[...] = figures[key]
    if CASES[number] in NOT_EXPORTED:
        with pytest.raises((NetError, UnsupportedError), match=r"nothing to export|op \(Filter\): how many items pass"):
            export(net)
        return
    # An input that is an output at the same time has another name there.
    check(net, opset=OPSETS[number % len(OPSETS)], names={f"{name}_output": name for name in net.inputs})


def test_every_type_is_said_or_refused_with_a_reason() -> None:
    """And the documentation names all that are said."""
    losses = {type_ for type_ in layer_types() if type_.endswith("Loss")}
    inputs_ = {"Data", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData"}
    cut = {"Accuracy", "HDF5Output", "Silence", "Split"}
    assert set(layer_types()) == {*HANDLERS, *REASONS, *losses, *inputs_, *cut}
    told = (Path(__file__).parents[1] / "docs" / "onnx_export.md").read_text(encoding="utf-8")
    assert not {type_ for type_ in (*HANDLERS, *REASONS) if not re.search(rf"\b{type_}\b", told)}


X = (2, 3, 5, 6)
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu6": (layer("ReLU6"), {"x": (X, "margin")}),
    "clip_crossed": (layer("Clip", more="clip_param { min: 0.5 max: -0.5 }"), {"x": X}),
    "exp_base": (layer("Exp", more="exp_param { base: 2 scale: -0.5 shift: 3 }"), {"x": X}),
    "log_base": (layer("Log", more="log_param { base: 10 scale: 2 shift: 4 }"), {"x": X}),
    "power_zero": (layer("Power", more="power_param { power: 0 scale: 2 shift: 3 }"), {"x": X}),
    "power_constant": (layer("Power", more="power_param { power: 3 scale: 0 shift: 2 }"), {"x": X}),
    "power_half": (layer("Power", more="power_param { power: 0.5 scale: 2 shift: 4 }"), {"x": X}),
    "power_nothing": (layer("Power"), {"x": X}),
    "swish": (layer("Swish", more="swish_param { beta: 2 }"), {"x": X}),
    "axpy": (layer("Axpy", "a x y", "z"), {"a": (2, 3), "x": X, "y": X}),
    "permute": (layer("Permute", more="permute_param { order: 0 order: 3 }"), {"x": X}),
    "normalize": (layer("Normalize"), {"x": X}),
    "normalize_pixels": (layer("Normalize", more="norm_param { across_spatial: false channel_shared: false }"),
                         {"x": X}),
    "interp": (layer("Interp", more="interp_param { height: 9 width: 4 }"), {"x": X}),
    "interp_cut": (layer("Interp", more="interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }"), {"x": X}),
    "interp_one": (layer("Interp", more="interp_param { height: 1 width: 7 }"), {"x": X}),
    "crop": (layer("Crop", "x like", "y", "crop_param { axis: -2 offset: 1 offset: 2 }"),
             {"x": X, "like": (1, 1, 3, 4)}),
    "scale_two": (layer("Scale", "x s", "y", "scale_param { axis: 1 bias_term: true }"), {"x": X, "s": (3, 5)}),
    "scale_all": (layer("Scale", more="scale_param { axis: 0 num_axes: -1 bias_term: true }"), {"x": X}),
    "scale_scalar": (layer("Scale", more="scale_param { num_axes: 0 bias_term: true }"), {"x": X}),
    "bias_two": (layer("Bias", "x s", "y", "bias_param { axis: 2 }"), {"x": X, "s": (5, 6)}),
    "norm_of_batch": (layer("BatchNorm", more="batch_norm_param { use_global_stats: false }"), {"x": X}),
    "inner_axis": (layer("InnerProduct", more="inner_product_param { num_output: 4 axis: 2 }"), {"x": X}),
    "inner_all": (layer("InnerProduct", more="inner_product_param { num_output: 4 axis: 0 transpose: true }"),
                  {"x": X}),
    "conv_axis": (layer("Convolution", more="convolution_param { num_output: 4 kernel_size: 3 axis: 2 pad: 1 }"),
                  {"x": X}),
    "conv_no_space": (layer("Convolution", more="convolution_param { num_output: 4 kernel_size: 3 axis: 3 }"),
                      {"x": X}),
    "conv_twice": (layer("Convolution", "x z", "y w", "convolution_param { num_output: 2 kernel_size: 2 stride: 2 }"),
                   {"x": X, "z": X}),
    "deconv_group": (layer("Deconvolution", more="convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride: 2 "
                                                 "pad: 1 group: 3 dilation: 2 }"), {"x": X}),
    "im2col_axis": (layer("Im2col", more="convolution_param { kernel_size: 2 axis: 1 stride: 2 pad: 1 }"), {"x": X}),
    "pool_mask": (layer("Pooling", "x", "y m", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
                  {"x": (X, "distinct")}),
    "pool_drawn": (layer("Pooling", more="pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"),
                   {"x": (X, "positive")}),
    "embed_axes": (layer("Embed", more="embed_param { input_dim: 7 num_output: 3 }"), {"x": ((2, 3), "labels7")}),
    "arg_max": (layer("ArgMax", more="argmax_param { axis: -2 }"), {"x": (X, "labels3")}),
    "arg_max_three": (layer("ArgMax", more="argmax_param { top_k: 3 out_max_val: true }"), {"x": (X, "labels3")}),
    "arg_max_values": (layer("ArgMax", more="argmax_param { axis: 1 top_k: 2 out_max_val: true }"), {"x": X}),
    "slice_one": (layer("Slice"), {"x": X}),
    "dummy": (layer("DummyData", "", "d", "dummy_data_param { shape { dim: 2 dim: 3 dim: 5 dim: 6 } data_filler { "
                                          "value: 0.5 } }", "dummy") + layer("Eltwise", "x d", "y"), {"x": X}),
    "parameter": (layer("Parameter", "", "p", "parameter_param { shape { dim: 3 } }", "own")
                  + layer("Bias", "x p", "y"), {"x": X}),
    "reduction": (layer("Reduction", more="reduction_param { operation: ASUM axis: 0 coeff: -2 }"), {"x": X}),
    "spp": (layer("SPP", more="spp_param { pyramid_height: 2 pool: AVE }"), {"x": X}),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str, opset: int, single: OpSet) -> None:
    text, shapes = LAYERS[name]
    check(little(text, single, **shapes), opset=opset)


@pytest.mark.parametrize("name", RECURRENT)
def test_sequences(name: str, single: OpSet) -> None:
    check(RECURRENT[name].net(single), tolerance=2e-6)


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_whole_sequences_become_onnx_s_own_operator(type_: str, single: OpSet) -> None:
    """Where the second bottom is a constant 1 nothing is forgotten inside."""
    text = (layer("DummyData", "", "cont", "dummy_data_param { shape { dim: 4 dim: 2 } data_filler { value: 1 } }",
                  "one")
            + layer(type_, "x cont", "y", "recurrent_param { num_output: 3 }"))
    model = check(little(text, single, x=(4, 2, 5)), tolerance=2e-6)
    assert type_ in ops_of(model)


@settings(max_examples=60)
@given(pool=st.sampled_from(["MAX", "AVE"]), kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
       stride=st.tuples(st.integers(1, 4), st.integers(1, 4)), pad=st.tuples(st.integers(0, 3), st.integers(0, 3)),
       size=st.tuples(st.integers(3, 9), st.integers(3, 9)), floor=st.booleans(), opset=st.sampled_from(OPSETS))
def test_pooling_of_every_shape(pool: str, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int],
                                size: tuple[int, int], floor: bool, opset: int) -> None:
    """Caffe rounds up, drops windows behind the image and clips an average's window to the padded image."""
    text = layer("Pooling", more=f"pooling_param {{ pool: {pool} kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: "
                                 f"{stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} "
                                 f"{'round_mode: FLOOR' if floor else ''} }}")
    ops = CpuOps(np.float32)
    try:
        net = little(text, ops, x=(1, 2, *size))
    except NetError:
        return  # no pooling that Caffe could do
    check(net, opset=opset)


def test_prior_boxes_are_constants(single: OpSet) -> None:
    net = little(layer("PriorBox", "x image", "y", "prior_box_param { min_size: 4 max_size: 9 aspect_ratio: 2 }"),
                 single, x=X, image=(2, 3, 20, 30))
    with pytest.raises(UnsupportedError, match=r"layer \(PriorBox\): its boxes come from no operator"):
        export(net)
    net.forward()
    model = export(net, values={"y": net.blobs["y"].data})
    close(run(model, {})["y"], net.blobs["y"].data)


# ---- Barista's own types ------------------------------------------------------------------------------------

OWN: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"binary_{name.lower()}": (layer("Binary", "x z", "y", f"binary_param {{ operation: {name} }}"),
                                  {"x": (X, "positive"), "z": ((3, 1, 6), "positive")})
       for name in ("ADD", "SUB", "MUL", "DIV", "POW", "MAX", "MIN")},
    **{f"function_{name.lower()}": (layer("Function", more=f"function_param {{ function: {name} }}"),
                                    {"x": (X, "positive" if name == "SQRT" else "signed")})
       for name in ("SELU", "HARD_SIGMOID", "HARD_SWISH", "SOFTPLUS", "SOFTSIGN", "SQRT", "RECIPROCAL", "NEG", "SIGN",
                    "FLOOR", "CEIL", "TRUNC", "ROUND", "ERF", "CELU", "THRESHOLDED_RELU", "MISH", "GELU")},
    "function_given": (layer("Function", more="function_param { function: HARD_SIGMOID alpha: 0.4 beta: 0.3 }"),
                       {"x": X}),
    **{f"reduce_{name.lower()}": (layer("Reduce", more=f"reduce_param {{ operation: {name} axis: -1 axis: 1 keepdims: "
                                                       f"{keep} }}"), {"x": (X, "positive")})
       for name, keep in (("SUM", "true"), ("MEAN", "false"), ("MAX", "true"), ("MIN", "false"), ("PROD", "true"),
                          ("L1", "false"), ("L2", "true"), ("SUMSQ", "false"), ("LOGSUM", "true"),
                          ("LOGSUMEXP", "false"))},
    "reduce_all": (layer("Reduce"), {"x": X}),
    "pad": (layer("Pad", more="pad_param { begin: 0 begin: 1 begin: -1 begin: 2 end: 0 end: 0 end: 1 end: -2 "
                              "value: 0.5 }"), {"x": X}),
    "pad_cut": (layer("Pad", more="pad_param { begin: 0 begin: 0 begin: -1 begin: 0 end: 0 end: 0 end: 0 end: -2 }"),
                {"x": X}),
    "pad_edge": (layer("Pad", more="pad_param { mode: EDGE begin: 0 begin: 0 begin: 1 begin: 2 end: 0 end: 0 end: 3 "
                                   "end: -1 }"), {"x": X}),
    "pad_reflect": (layer("Pad", more="pad_param { mode: REFLECT begin: 0 begin: 0 begin: 1 begin: 2 end: 0 end: 0 "
                                      "end: 3 end: 2 }"), {"x": X}),
    "matmul": (layer("MatMul", "x z", "y", "matmul_param { transpose_b: true }"), {"x": X, "z": (3, 4, 6)}),
    "matmul_vector": (layer("MatMul", "x z", "y"), {"x": X, "z": (6,)}),
    "strided_slice": (layer("StridedSlice", more="strided_slice_param { axis: -1 axis: 2 start: -1 start: 1 end: "
                                                 "-9223372036854775808 end: 4 step: -2 step: 2 }"), {"x": X}),
    "expand": (layer("Expand", more="expand_param { shape: 4 shape: 1 shape: 3 shape: 5 shape: 6 }"), {"x": X}),
    "take": (layer("Take", more="take_param { axis: 1 index: 2 index: -3 index: 1 index: 0 shape: 2 shape: 2 }"),
             {"x": X}),
    "take_one": (layer("Take", more="take_param { axis: -1 index: 2 scalar: true }"), {"x": X}),
    "log_softmax": (layer("LogSoftmax", more="softmax_param { axis: -1 }"), {"x": X}),
    "pooling_nd": (layer("PoolingNd", more="pooling_nd_param { kernel: 2 stride: 2 pad_begin: 1 ceil_mode: true }"),
                   {"x": (2, 3, 5)}),
    "pooling_nd_indices": (layer("PoolingNd", "x", "y i", "pooling_nd_param { kernel: 3 kernel: 2 dilation: 2 "
                                                          "dilation: 1 column_major: true }"), {"x": (X, "distinct")}),
    "pooling_nd_mean": (layer("PoolingNd", more="pooling_nd_param { pool: AVE kernel: 3 stride: 2 pad_begin: 1 "
                                                "pad_end: 2 ceil_mode: true count_include_pad: true }"), {"x": X}),
    "pooling_nd_valid": (layer("PoolingNd", more="pooling_nd_param { pool: AVE kernel: 3 stride: 2 pad_begin: 1 "
                                                 "pad_end: 0 ceil_mode: true }"), {"x": X}),
    "pooling_nd_volume": (layer("PoolingNd", more="pooling_nd_param { pool: AVE kernel: 2 pad_begin: 1 pad_end: 0 "
                                                  "pad_end: 1 pad_end: 0 count_include_pad: true }"),
                          {"x": (1, 2, 3, 4, 5)}),
    "resize_nearest": (layer("Resize", more="resize_param { axis: 2 axis: 3 scale: 2 scale: 1.5 coordinates: "
                                            "ASYMMETRIC rounding: FLOOR }"), {"x": X}),
    "resize_linear": (layer("Resize", more="resize_param { mode: LINEAR axis: 2 axis: 3 size: 8 size: 4 }"), {"x": X}),
    "resize_corners": (layer("Resize", more="resize_param { mode: LINEAR axis: 2 axis: 3 size: 8 size: 4 coordinates: "
                                            "ALIGN_CORNERS }"), {"x": X}),
    "resize_scale_of_sizes": (layer("Resize", more="resize_param { mode: LINEAR axis: 2 axis: 3 scale: 1.857142857 "
                                                   "scale: 2.222222222 size: 13 size: 20 }"), {"x": (2, 1, 7, 9)}),
    "resize_cubic": (layer("Resize", more="resize_param { mode: CUBIC axis: 2 axis: 3 size: 9 size: 9 cubic_coeff_a: "
                                          "-0.5 }"), {"x": X}),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", OWN)
def test_own_types(name: str, opset: int, single: OpSet) -> None:
    text, shapes = OWN[name]
    check(little(text, single, **shapes), opset=opset)


# ---- which layers, which outputs ----------------------------------------------------------------------------

CONV = "convolution_param { num_output: 3 kernel_size: 1 }"
TRAINED = (inputs(x=(2, 4), t=(2,)) + layer("InnerProduct", "x", "h", "inner_product_param { num_output: 5 }", "one")
           + layer("ReLU", "h", "h", name="relu") + layer("Dropout", "h", "h", name="drop")
           + layer("InnerProduct", "h", "f", "inner_product_param { num_output: 3 }", "two")
           + layer("SoftmaxWithLoss", "f t", "loss", name="loss") + layer("Accuracy", "f t", "top1", name="accuracy"))


def names_of(values: Any) -> list[str]:
    return [value.name for value in values]


def test_losses_are_cut_and_labels_with_them(single: OpSet) -> None:
    model = export(make(TRAINED, single, barista.TEST))
    assert names_of(model.graph.input) == ["x"]
    assert names_of(model.graph.output) == ["f"]
    assert ops_of(model) == ["Gemm", "Relu", "Gemm"]
    # What the blob holds before the ReLU has a name that says so; the blob's own is that of its last value.
    assert list(model.graph.node[0].output) == ["h_before_relu"]


def test_a_loss_becomes_a_softmax_on_request(single: OpSet) -> None:
    net = make(TRAINED, single, barista.TEST)
    model = export(net, softmax=True)
    assert names_of(model.graph.input) == ["x"]
    assert names_of(model.graph.output) == ["prob"]
    x = np.random.default_rng(0).normal(0, 1, (2, 4))
    net.blobs["x"].data[...] = x
    net.forward()
    scores = np.exp(net.blobs["f"].data)
    close(run(model, {"x": x})["prob"], scores / scores.sum(1, keepdims=True))


def test_chosen_outputs_and_what_they_need(single: OpSet) -> None:
    net = make(TRAINED, single, barista.TEST)
    model = export(net, outputs=["h"])
    assert ops_of(model) == ["Gemm", "Relu"]
    assert names_of(model.graph.output) == ["h"]
    with pytest.raises(NetError, match=r"no blob 'ff' that could be an output; did you mean 'f'\?"):
        export(net, outputs=["ff"])


def test_outputs_that_are_other_values(single: OpSet) -> None:
    """A blob that is used and an output all the same, by a Split; an output that a Dropout makes; two of one value."""
    text = (layer("Split", "x", "a b", name="split") + layer("ReLU", "a", "c", name="relu")
            + layer("Dropout", "c", "d", name="drop") + layer("Split", "d", "e f", name="copies"))
    net = little(text, single, x=X)
    model = check(net)
    assert set(names_of(model.graph.output)) == {"b", "e", "f"}
    assert sorted(ops_of(model)) == ["Identity", "Identity", "Relu"]


def test_a_net_of_losses_alone(single: OpSet) -> None:
    net = make(inputs(x=(2, 3), t=(2,)) + layer("SoftmaxWithLoss", "x t", "loss"), single, barista.TEST)
    with pytest.raises(NetError, match="has no output beside its losses; there is nothing to export"):
        export(net)


def test_shared_parameters_are_one_constant(single: OpSet) -> None:
    shared = "inner_product_param { num_output: 4 } param { name: 'w' } param { name: 'b' }"
    net = little(layer("InnerProduct", "x", "h", shared, "one")
                 + layer("InnerProduct", "h", "y", shared, "two"), single, x=(2, 4))
    model = check(net)
    assert names_of(model.graph.initializer) == ["w", "b"]


def test_nodes_have_the_names_of_layers(single: OpSet) -> None:
    net = little(layer("Convolution", "x", "c", CONV, "conv") + layer("Power", "c", "y",
                       "power_param { power: 3 scale: 2 shift: 1 }", "cube"), single, x=X)
    model = export(net)
    assert [node.name for node in model.graph.node] == ["conv", "cube/Mul", "cube/Add", "cube"]
    assert names_of(model.graph.initializer)[:2] == ["conv.weight", "conv.bias"]


# ---- BatchNorm ----------------------------------------------------------------------------------------------

NORMED = {
    "convolution": layer("Convolution", "x", "c", "convolution_param { num_output: 6 kernel_size: 3 group: 3 "
                                                  "bias_term: false }"),
    "deconvolution": layer("Deconvolution", "x", "c", "convolution_param { num_output: 6 kernel_size: 2 stride: 2 "
                                                      "group: 3 }"),
    "inner_product": layer("InnerProduct", "x", "c", "inner_product_param { num_output: 4 }"),
    "transposed": layer("InnerProduct", "x", "c", "inner_product_param { num_output: 4 transpose: true }"),
}


def normed(product: str, ops: OpSet, more: str = "") -> Net:
    """A product, BatchNorm in place and Scale in place, with statistics of their own."""
    net = little(product + layer("BatchNorm", "c", "c", name="norm")
                 + layer("Scale", "c", "c", "scale_param { bias_term: true }", "scale") + more, ops, x=X)
    rng = np.random.default_rng(3)
    mean, variance, factor = (blob.data for blob in net.params["norm"])
    mean[...], variance[...], factor[...] = rng.normal(0, 1, mean.shape), rng.uniform(1, 3, mean.shape), 2
    return net


@pytest.mark.parametrize("kind", NORMED)
def test_batch_norm_takes_in_its_scale_and_is_folded_on_request(kind: str, single: OpSet) -> None:
    net = normed(NORMED[kind], single)
    assert "BatchNormalization" in ops_of(check(net))
    assert "Mul" not in ops_of(check(net))
    folded = ops_of(check(net, fold_batch_norm=True))
    assert set(folded) <= {"Conv", "ConvTranspose", "Flatten", "Gemm"}


def test_what_somebody_else_reads_is_not_folded(single: OpSet) -> None:
    """The value before the BatchNorm is an output of the net, or another layer's bottom."""
    text = (layer("Convolution", "x", "c", CONV, "conv") + layer("BatchNorm", "c", "n", name="norm")
            + layer("Scale", "n", "s", name="scale") + layer("Eltwise", "c s", "y", name="sum"))
    net = little(text, single, x=X)
    assert "BatchNormalization" in ops_of(check(net, fold_batch_norm=True))
    model = check(little(text, single, x=X), fold_batch_norm=True, outputs=["n", "y"])
    assert {"BatchNormalization", "Mul"} <= set(ops_of(model))


def test_statistics_without_a_count_are_zeros(single: OpSet) -> None:
    """Caffe: a BatchNorm that has seen nothing has mean and variance 0."""
    net = little(layer("BatchNorm"), single, x=X)
    for blob in net.params["layer"]:
        blob.data[...] = 0
    check(net)


# ---- errors -------------------------------------------------------------------------------------------------


def test_all_that_cannot_be_said_stands_in_one_error(single: OpSet) -> None:
    text = (layer("Filter", "x s", "f", name="sieve")
            + layer("DummyData", "", "d", "dummy_data_param { shape { dim: 2 } data_filler { type: 'gaussian' } }",
                    "noise")
            + layer("Scale", "x d", "y", "scale_param { axis: 0 }", "scale"))
    with pytest.raises(UnsupportedError) as caught:
        export(little(text, single, x=X, s=(2,)))
    assert str(caught.value).startswith("ONNX cannot say 2 layers of the net: sieve (Filter): how many items pass")
    assert "; noise (DummyData): it draws random numbers" in str(caught.value)


def test_a_definition_without_weights() -> None:
    net = parse_net(inputs(x=X) + layer("Convolution", more=CONV))
    with pytest.raises(UnsupportedError, match=r"layer \(Convolution\): it has 0 parameter blob\(s\) and needs 1"):
        to_onnx(net, {"x": X, "y": (2, 3, 5, 6)})


def test_shapes_that_are_missing() -> None:
    net = parse_net(inputs(x=X) + layer("ReLU"))
    with pytest.raises(ShapeError, match=r"layer \(ReLU\): the shape of blob 'y' is not known"):
        to_onnx(net, {"x": X})


@pytest.mark.parametrize("opset", [OLDEST_OPSET - 1, 1000])
def test_opsets_that_cannot_be_written(opset: int, single: OpSet) -> None:
    with pytest.raises(UnsupportedError, match=rf"opset {opset} cannot be written; give one from 13 to \d+"):
        export(little(layer("ReLU"), single, x=X), opset=opset)


def test_what_a_newer_opset_would_say(single: OpSet) -> None:
    net = little(layer("PoolingNd", more="pooling_nd_param { pool: AVE kernel: 2 dilation: 2 }"), single, x=X)
    with pytest.raises(UnsupportedError, match="averages with dilation exist from opset 19 on; give a newer opset"):
        export(net)
    check(net, opset=19)
