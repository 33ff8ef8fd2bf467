"""Gradient checks of Barista's own layer types, for test_gradients.py."""

from __future__ import annotations

import numpy as np
from little_nets import Case, layer

from barista.net import Net
from barista.proto.caffe_pb2 import BinaryParameter, FunctionParameter, ReduceParameter

X = {"x": (2, 3, 5, 4)}
SMALL = {"x": (2, 3, 2, 2)}
DISTINCT = {"x": ((2, 2, 5, 6), "distinct")}


def one(type_: str, param: str = "", bottom: str = "x", top: str = "y") -> str:
    return layer(type_, bottom, top, param)


def pool(param: str, top: str = "y") -> str:
    return one("PoolingNd", f"pooling_nd_param {{ {param} }}", top=top)


def reduce(operation: str, more: str = "") -> str:
    return one("Reduce", f"reduce_param {{ operation: {operation} {more} }}")


def resize(param: str) -> Case:
    return Case(one("Resize", f"resize_param {{ {param} }}"), X)


def matmul(left: tuple[int, ...], right: tuple[int, ...], param: str = "") -> Case:
    return Case(one("MatMul", f"matmul_param {{ {param} }}", "x z"), {"x": left, "z": right})


def _zeros(net: Net, rng: np.random.Generator) -> None:
    """No zero in a row, one, and two."""
    net.blobs["x"].data[0, :, 0] = [0.5, -1, 0]
    net.blobs["x"].data[1, :, 1] = [0, -1, 0]


EXTENSIONS: dict[str, Case] = {
    "binary_both_repeated": Case(one("Binary", "binary_param { operation: MUL }", "x z"),
                                 {"x": (3, 1, 2), "z": (1, 4, 1)}),
    "binary_scalar": Case(one("Binary", "binary_param { operation: DIV }", "x z"), {"x": (), "z": (2, 3)}),
    "expand": Case(one("Expand", "expand_param { shape: [4, 1, 3, 5] }"), {"x": (2, 1, 5)}),
    "pad": Case(one("Pad", "pad_param { begin: [0, 1, 0, 2] end: [1, 0, 0, 1] }"), SMALL),
    "pad_value": Case(one("Pad", "pad_param { begin: [0, 1, 0, -1] end: [1, 0, 0, 1] value: 2 }"), SMALL),
    "pad_cut": Case(one("Pad", "pad_param { begin: [0, -1, 0, -1] end: [0, 0, -2, 0] }"), X),
    "pad_edge": Case(one("Pad", "pad_param { mode: EDGE begin: [0, 0, 2, 1] end: [0, 1, 0, -1] }"), SMALL),
    "pad_reflect": Case(one("Pad", "pad_param { mode: REFLECT begin: [0, 0, 2, 5] end: [0, 0, 1, 4] }"), X),
    "pad_wrap": Case(one("Pad", "pad_param { mode: WRAP begin: [0, 0, 2, 1] end: [1, 0, 0, 5] }"), SMALL),
    "max_nd": Case(pool("kernel: [3, 2] stride: 2 pad_begin: 1 pad_end: [0, 1] dilation: [1, 2] ceil_mode: true"),
                   DISTINCT),
    "max_nd_indices": Case(pool("kernel: 2", "y i"), {"x": ((2, 2, 7), "distinct")}, dead=("i",)),
    "max_nd_3d": Case(pool("kernel: 2 stride: [1, 2, 1]"), {"x": ((1, 2, 3, 4, 2), "distinct")}),
    "ave_nd": Case(pool("pool: AVE kernel: [3, 2] stride: [2, 1] pad_begin: [1, 0] pad_end: 1 ceil_mode: true"), X),
    "ave_nd_count": Case(pool("pool: AVE kernel: 3 stride: 2 pad_begin: 1 pad_end: 1 count_include_pad: true"), X),
    "matmul": matmul((2, 3, 4), (4, 2)),
    "matmul_transposed": matmul((4, 3), (2, 4), "transpose_a: true transpose_b: true"),
    "matmul_transposed_left": matmul((4, 3), (4, 2), "transpose_a: true"),
    "matmul_stacks": matmul((3, 1, 2, 4), (2, 4, 3)),
    "matmul_stacks_transposed": matmul((2, 4, 3), (1, 2, 4), "transpose_a: true transpose_b: true"),
    "matmul_vectors": matmul((4,), (4,)),
    "matmul_left_vector": matmul((4,), (2, 4, 3)),
    "matmul_right_vector": matmul((2, 3, 4), (4,)),
    "reduce_first": Case(reduce("MEAN", "axis: [0, 1] keepdims: false"), SMALL),
    "reduce_all": Case(reduce("L2", "keepdims: false"), SMALL),
    "reduce_product_of_zeros": Case(reduce("PROD", "axis: 1"), {"x": (2, 3, 2)}, prepare=_zeros),
    "slice_steps": Case(one("StridedSlice", "strided_slice_param { axis: [-1, 2] start: [3, 1] end: [-9, 9] "
                                            "step: [-2, 3] }"), X),
    "take": Case(one("Take", "take_param { axis: 1 index: [2, 0, -1, 2] shape: [2, 2] }"), X),
    "take_one": Case(one("Take", "take_param { axis: -1 index: 1 scalar: true }"), X),
    "log_softmax": Case(one("LogSoftmax"), SMALL),
    "log_softmax_last": Case(one("LogSoftmax", "softmax_param { axis: -1 }"), X),
    "resize_nearest": resize("axis: 2 axis: 3 scale: 1.7 scale: 0.6"),
    "resize_linear": resize("mode: LINEAR axis: -1 axis: -2 size: 7 size: 3"),
    "resize_cubic": resize("mode: CUBIC axis: 1 axis: 3 scale: 2 scale: 0.5 exclude_outside: true"),
    "resize_antialias": resize("mode: LINEAR antialias: true axis: 2 size: 2 coordinates: ALIGN_CORNERS"),
    "resize_crop": resize("mode: LINEAR axis: 2 axis: 3 size: 4 size: 3 coordinates: TF_CROP_AND_RESIZE roi_begin: 0.2 "
                          "roi_begin: -0.3 roi_end: 1.4 roi_end: 0.9 extrapolation_value: 3"),
    "resize_same": resize("axis: 2 size: 5"),
}
for name in map(str, BinaryParameter.Operation.keys()):
    first = "positive" if name == "POW" else "distinct"
    EXTENSIONS[f"binary_{name}"] = Case(one("Binary", f"binary_param {{ operation: {name} }}", "x z"),
                                        {"x": ((2, 3, 2), first), "z": (3, 1)})
for name in map(str, ReduceParameter.Operation.keys()):
    kind = "positive" if name == "LOGSUM" else "distinct"
    EXTENSIONS[f"reduce_{name}"] = Case(reduce(name, "axis: [1, -1]"), {"x": ((2, 3, 2, 2), kind)})
    EXTENSIONS[f"reduce_last_{name}"] = Case(reduce(name, "axis: 2 axis: 1 keepdims: false"),
                                             {"x": ((2, 3, 4), kind)})
for name in map(str, FunctionParameter.Name.keys()):
    # Where a function has steps at whole numbers, or a kink at 1, the data keep away from them.
    kind = {"SQRT": "positive", "ROUND": "signed"}.get(name, "distinct")
    EXTENSIONS[f"function_{name}"] = Case(one("Function", f"function_param {{ function: {name} }}"),
                                          {"x": ((2, 3, 2, 2), kind)})

EXTENSIONS_IN_PLACE = {
    f"function_{name}": layer("Function", "h", "h", f"function_param {{ function: {name} }}", name="inplace")
    for name in ("SELU", "HARD_SIGMOID", "HARD_SWISH", "SOFTPLUS", "SOFTSIGN", "RECIPROCAL", "NEG", "ERF", "CELU",
                 "THRESHOLDED_RELU", "MISH", "GELU")}
