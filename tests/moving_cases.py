"""Gradient checks of the layers that move, pick and resample, for test_gradients.py."""

from __future__ import annotations

from little_nets import Case, layer

X = {"x": (2, 3, 5, 4)}
DISTINCT = {"x": ((2, 2, 5, 6), "distinct")}


def _embed(bias: bool) -> str:
    return layer("Embed", more=f"embed_param {{ input_dim: 4 num_output: 3 bias_term: {str(bias).lower()} }}")


def _interp(param: str) -> Case:
    return Case(layer("Interp", more=f"interp_param {{ {param} }}"), X)


def _spp(param: str) -> Case:
    return Case(layer("SPP", more=f"spp_param {{ {param} }}"), DISTINCT)


MOVES: dict[str, Case] = {
    "crop": Case(layer("Crop", "x z", more="crop_param { axis: 1 offset: 1 offset: 0 offset: 2 }"),
                 {**X, "z": (1, 2, 3, 2)}),
    "permute": Case(layer("Permute", more="permute_param { order: 2 order: 0 }"), X),
    "tile": Case(layer("Tile", more="tile_param { axis: 2 tiles: 3 }"), X),
    "tile_batch": Case(layer("Tile", more="tile_param { axis: 0 tiles: 2 }"), X),
    "im2col": Case(layer("Im2col", more="convolution_param { kernel_size: 3 stride: 2 pad: 1 dilation: 2 }"), X),
    "batch_reindex": Case(layer("BatchReindex", "x i"), {**X, "i": ((5,), "labels2")}, fixed=("i",)),
    "filter": Case(layer("Filter", "x z s", "y u"), {"x": (6, 3), "z": (6,), "s": ((6,), "labels2")}, fixed=("s",)),
    "embed": Case(_embed(True), {"x": ((3, 4), "labels4")}, fixed=("x",)),
    "embed_no_bias": Case(_embed(False), {"x": ((6,), "labels4")}, fixed=("x",)),
    "parameter": Case(layer("Parameter", "", "p", "parameter_param { shape { dim: 2 dim: 3 } }", "p")
                      + layer("Eltwise", "x p", "y", "eltwise_param { operation: PROD }"), {"x": (2, 3)}),
    "interp": _interp("height: 7 width: 9"),
    "interp_shrink": _interp("shrink_factor: 2 pad_beg: -1"),
    "interp_zoom": _interp("zoom_factor: 2 pad_end: -2"),
    "spp": _spp("pyramid_height: 2"),
    "spp_average": _spp("pyramid_height: 2 pool: AVE"),
    "spp_one_level": _spp("pyramid_height: 1"),
}
