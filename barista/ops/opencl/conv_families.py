"""The families of convolution variants, what is held for the fastest first.

A family is a module with functions that list its variants for a pass; `conv_pass` says what a variant is.  Each
computes what it can: the last takes any geometry and device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...gemm.shapes import ConvolutionGeometry, Pass
from . import conv_depthwise, conv_grad_weight, conv_images, conv_unrolled, conv_winograd
from .conv_pass import Variant
from .device import Device

MAX_AXES = conv_unrolled.MAX_AXES

Family = Callable[[Device, ConvolutionGeometry], list[Variant[Any]]]

FAMILIES: dict[Pass, tuple[Family, ...]] = {
    Pass.FORWARD: (conv_depthwise.forward_variants, conv_winograd.forward_variants, conv_images.forward_variants,
                   conv_unrolled.forward_variants),
    Pass.GRAD_WEIGHT: (conv_depthwise.grad_weight_variants, conv_winograd.grad_weight_variants,
                       conv_grad_weight.grad_weight_variants, conv_unrolled.grad_weight_variants),
    Pass.GRAD_INPUT: (conv_depthwise.grad_input_variants, conv_winograd.grad_input_variants,
                      conv_images.grad_input_variants, conv_unrolled.grad_input_variants),
}


def variants(device: Device, geometry: ConvolutionGeometry, pass_: Pass) -> list[Variant[Any]]:
    """All ways to compute a pass, the one of last resort last."""
    return [variant for family in FAMILIES[pass_] for variant in family(device, geometry)]
