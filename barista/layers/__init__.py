"""Layers: importing this package registers every type by its prototxt name.

``from barista import layers as L`` is pycaffe's ``caffe.layers``, too: ``L.Convolution(...)`` makes a layer of a
`NetSpec` (see `barista.net_spec`).
"""

from __future__ import annotations

from typing import Any

from . import (
    activation,
    binary,
    convolution,
    data_layers,
    detection,
    dropout,
    elementwise,
    eltwise,
    function,
    infogain,
    inner_product,
    input,
    loss,
    lstm_unit,
    matmul,
    norm,
    padding,
    pair_loss,
    parameter,
    picking,
    pooling,
    pooling_nd,
    python,
    rearrange,
    recurrent,
    reduce_axes,
    reduction,
    resize,
    sampling,
    scale,
    structure,
)
from .base import NAMELESS, Labels, Layer, check_counts, layer_types, make_layer, rectified_before

__all__ = [
    "NAMELESS", "Labels", "Layer", "activation", "binary", "check_counts", "convolution", "data_layers",
    "detection", "dropout", "elementwise", "eltwise", "function", "infogain", "inner_product", "input",
    "layer_types", "loss", "lstm_unit", "make_layer", "matmul", "norm", "padding", "pair_loss", "parameter",
    "picking", "pooling", "pooling_nd", "python", "rearrange", "rectified_before", "recurrent", "reduce_axes",
    "reduction", "resize", "sampling", "scale", "structure",
]


def __getattr__(name: str) -> Any:
    """NetSpec's maker of layers of a type, such as `Convolution`."""
    if not name[:1].isupper() or "_" in name:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .. import net_spec

    return getattr(net_spec.layers, name)
