"""Gradient checks of element-wise functions, reductions, normalisers and the losses that go beyond the common ones."""

from __future__ import annotations

import numpy as np
from little_nets import Case, layer

from barista.net import Net

X = {"x": (2, 3, 5, 4)}
POSITIVE = {"x": ((2, 3, 2, 2), "positive")}
PAIRS = {"x": (5, 4), "z": (5, 4), "t": ((5,), "labels2")}
LABELLED = {"x": (3, 4), "t": ((3,), "labels4"), "h": (4, 4)}


def one(type_: str, param: str = "") -> str:
    return layer(type_, more=param)


def loss(type_: str, bottom: str, param: str = "") -> str:
    return layer(type_, bottom, "y", param)


def _wide(net: Net, rng: np.random.Generator) -> None:
    net.blobs["x"].data[...] *= 6


def _some_ignored(net: Net, rng: np.random.Generator) -> None:
    net.blobs["t"].data.flat[1] = 7


def _all_similar(net: Net, rng: np.random.Generator) -> None:
    net.blobs["t"].data[...] = 1


FUNCTIONS: dict[str, Case] = {
    "absval": Case(one("AbsVal"), X),
    "bnll": Case(one("BNLL"), X),
    "clip": Case(one("Clip", "clip_param { min: -0.55 max: 0.75 }"), X),
    "exp": Case(one("Exp"), X),
    "exp_base": Case(one("Exp", "exp_param { base: 2 scale: -0.7 shift: 0.2 }"), X),
    "log": Case(one("Log"), POSITIVE),
    "log_base": Case(one("Log", "log_param { base: 0.3 scale: 1.5 shift: 0.2 }"), POSITIVE),
    "power_one": Case(one("Power", "power_param { scale: -2 shift: 1 }"), X),
    "power_two": Case(one("Power", "power_param { power: 2 scale: 0.5 shift: 0.3 }"), X),
    "power_three": Case(one("Power", "power_param { power: 3 }"), X),
    "power_half": Case(one("Power", "power_param { power: 0.5 shift: 1 }"), POSITIVE),
    "power_negative": Case(one("Power", "power_param { power: -1.5 scale: 2 }"), POSITIVE),
    "power_zero": Case(one("Power", "power_param { power: 0 shift: 2 }"), X),
    "power_scale_zero": Case(one("Power", "power_param { power: 3 scale: 0 shift: 2 }"), X),
    "swish": Case(one("Swish"), X),
    "swish_beta": Case(one("Swish", "swish_param { beta: -1.5 }"), X),
    "relu6": Case(one("ReLU6"), X, prepare=_wide),
    # ---- reductions
    "reduction": Case(one("Reduction"), X),
    "reduction_sum": Case(one("Reduction", "reduction_param { axis: 1 coeff: -0.5 }"), X),
    "reduction_asum": Case(one("Reduction", "reduction_param { operation: ASUM axis: 2 coeff: 2 }"), X),
    "reduction_sumsq": Case(one("Reduction", "reduction_param { operation: SUMSQ axis: -1 }"), X),
    "reduction_mean": Case(one("Reduction", "reduction_param { operation: MEAN axis: 3 coeff: 3 }"), X),
    # ---- normalisers
    "mvn": Case(one("MVN"), X),
    "mvn_mean": Case(one("MVN", "mvn_param { normalize_variance: false }"), X),
    "mvn_across": Case(one("MVN", "mvn_param { across_channels: true }"), {"x": (3, 5)}),
    "normalize": Case(one("Normalize"), X),
    "normalize_channels": Case(one("Normalize", "norm_param { channel_shared: false eps: 0.1 }"), X),
    "normalize_pixels": Case(one("Normalize", "norm_param { across_spatial: false channel_shared: false }"), X),
    "normalize_pixels_shared": Case(one("Normalize", "norm_param { across_spatial: false }"), {"x": (2, 4)}),
    "axpy": Case(layer("Axpy", "a x z"), {"a": (2, 3, 1, 1), **X, "z": (2, 3, 5, 4)}),
    "axpy_two_axes": Case(layer("Axpy", "a x z"), {"a": (2, 3), "x": (2, 3, 4), "z": (2, 3, 4)}),
    # ---- losses
    "contrastive_similar": Case(loss("ContrastiveLoss", "x z t"), PAIRS, fixed=("t",), prepare=_all_similar),
    "contrastive_legacy": Case(loss("ContrastiveLoss", "x z t", "contrastive_loss_param { margin: 8 "
                                    "legacy_version: true } loss_weight: 2"), PAIRS, fixed=("t",)),
    "infogain": Case(loss("InfogainLoss", "x t h"), LABELLED, fixed=("t", "h")),
    "infogain_axis": Case(layer("InfogainLoss", "x t h", "y p", "infogain_loss_param { axis: -2 } loss_weight: 3 "
                                "loss_weight: 0"), {"x": (2, 4, 3), "t": ((2, 3), "labels4"), "h": (1, 1, 4, 4)},
                          fixed=("t", "h"), dead=("p",)),
    "multinomial": Case(loss("MultinomialLogisticLoss", "x t"), {"x": ((3, 2, 2), "positive"), "t": ((3,), "labels4")},
                        fixed=("t",)),
    "smooth_l1": Case(loss("SmoothL1Loss", "x z"), {"x": (3, 4, 2), "z": (3, 4, 2)}),
    "smooth_l1_inside": Case(loss("SmoothL1Loss", "x z i", "smooth_l1_loss_param { sigma: 3 }"),
                             {"x": (3, 4), "z": (3, 4), "i": (3, 4)}, fixed=("i",)),
    "smooth_l1_outside": Case(loss("SmoothL1Loss", "x z i o", "smooth_l1_loss_param { sigma: 0.7 } loss_weight: 2"),
                              {"x": (3, 4), "z": (3, 4), "i": (3, 4), "o": (3, 4)}, fixed=("i", "o")),
}
for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE"):
    FUNCTIONS[f"infogain_{mode}"] = Case(
        loss("InfogainLoss", "x t h", f"loss_param {{ ignore_label: 7 normalization: {mode} }}"), LABELLED,
        fixed=("t", "h"), prepare=_some_ignored)

# Layers that are right in place too, by the copy that they keep or because y tells what they need.
FUNCTIONS_IN_PLACE = {
    name: layer(type_, "h", "h", param, name="inplace") for name, type_, param in (
        ("exp", "Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }"), ("log", "Log", "log_param { shift: 5 }"),
        ("power_one", "Power", "power_param { scale: 2 shift: 1 }"),
        ("power", "Power", "power_param { power: 2.5 shift: 5 }"),
        ("swish", "Swish", ""), ("relu6", "ReLU6", ""), ("mvn", "MVN", ""),
        ("mvn_mean", "MVN", "mvn_param { normalize_variance: false }"), ("normalize", "Normalize", ""),
        ("normalize_pixels", "Normalize", "norm_param { across_spatial: false channel_shared: false }"))}
