"""Layers: importing this package registers every type by its prototxt name."""

from . import (
    activation,
    convolution,
    dropout,
    eltwise,
    inner_product,
    input,
    loss,
    norm,
    pooling,
    scale,
    structure,
)
from .base import NAMELESS, Layer, check_counts, layer_types, make_layer, rectified_before

__all__ = [
    "NAMELESS", "Layer", "activation", "check_counts", "convolution", "dropout", "eltwise", "inner_product", "input",
    "layer_types", "loss", "make_layer", "norm", "pooling", "rectified_before", "scale", "structure",
]
