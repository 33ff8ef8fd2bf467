"""What functions, normalisers and losses say that their gradients need is enough where memory is planned."""

from __future__ import annotations

import pytest
from little_nets import inputs, layer
from opencl_device import open_opencl
from test_memory_plan import DATA, LOSS, assert_same, conv, ip, norm

from barista.frontends.prototxt import parse_net
from barista.ops.cpu import CpuOps


def on(type_: str, bottom: str, top: str, more: str = "") -> str:
    return layer(type_, bottom, top, more, name=f"{type_}_{top}_{bottom.split()[0]}")


NETS = {
    "functions": DATA + conv("x", "a") + on("AbsVal", "a", "b") + on("Swish", "b", "b") + on("BNLL", "b", "c")
    + on("Power", "c", "d", "power_param { power: 1.5 shift: 1 scale: 0.5 }") + on("Log", "d", "d") + conv("d", "e")
    + on("Clip", "e", "g", "clip_param { min: -0.5 max: 0.5 }") + on("Exp", "g", "g", "exp_param { base: 2 }")
    + on("Power", "g", "h", "power_param { scale: 3 }") + conv("h", "i") + on("ReLU6", "i", "i") + ip("i", "f") + LOSS,
    "normalisers": DATA + conv("x", "a") + on("MVN", "a", "b") + conv("b", "c")
    + on("Normalize", "c", "d", "norm_param { across_spatial: false channel_shared: false }") + conv("d", "e")
    + on("MVN", "e", "e", "mvn_param { across_channels: true }") + on("Normalize", "e", "e")
    + on("MVN", "e", "g", "mvn_param { normalize_variance: false }") + norm("g")
    + on("Reduction", "g", "s", "reduction_param { operation: MEAN axis: 2 }") + on("Axpy", "s g d", "h")
    + conv("h", "i", 2) + on("Reduction", "i", "q", "reduction_param { operation: SUMSQ axis: 1 }") + ip("i", "f")
    + on("Reduction", "q", "asum", "loss_weight: 0.01 reduction_param { operation: ASUM }") + LOSS,
    "losses": DATA + inputs(m=(3, 3), o=(2, 4)) + conv("x", "a") + ip("a", "b", 4) + ip("a", "c", 4)
    + on("ContrastiveLoss", "b c t", "near", "contrastive_loss_param { margin: 3 }")
    + on("SmoothL1Loss", "b c o", "smooth", "propagate_down: true propagate_down: true propagate_down: false")
    + ip("b", "g") + on("InfogainLoss", "g t m", "gain") + on("Softmax", "g", "p")
    + on("MultinomialLogisticLoss", "p t", "multinomial") + ip("c", "f") + LOSS,
}


@pytest.mark.parametrize("name", NETS)
def test_the_same_bits_with_and_without(name: str, cpu: CpuOps) -> None:
    assert_same(parse_net(NETS[name]), cpu)


@pytest.mark.opencl
def test_the_same_bits_on_a_device() -> None:
    assert_same(parse_net(NETS["losses"]), open_opencl())
