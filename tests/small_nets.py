"""Small networks for the tests of nets, their inputs filled with random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from little_nets import inputs, layer, make

import barista
from barista.net import Net
from barista.ops.base import OpSet


def ip(bottom: str, top: str, outputs: int = 3, more: str = "", name: str | None = None) -> str:
    return layer("InnerProduct", bottom, top, f"inner_product_param {{ num_output: {outputs} "
                 f"weight_filler {{ type: 'xavier' }} bias_filler {{ type: 'uniform' }} }} {more}", name or top)


def quiet(text: str, ops: OpSet, phase: int = barista.TRAIN, **more: Any) -> Net:
    """A net without force_backward."""
    return make(text, ops, phase, head=more.pop("head", ""), **more)


def fill(net: Net, seed: int = 0) -> None:
    """Give all inputs random numbers; the labels t whole ones."""
    gen = np.random.default_rng(seed)
    for name in net.inputs:
        shape = net.blobs[name].shape
        net.blobs[name].data[...] = gen.integers(0, 3, shape) if name == "t" else gen.normal(0, 1, shape)


def backward(net: Net, seed: int = 0) -> None:
    fill(net, seed)
    net.forward_pass()
    net.clear_param_diffs()
    net.backward_pass()


CLASSIFIER = (inputs(x=(4, 5), t=(4,)) + ip("x", "h") + layer("ReLU", "h", "h", name="relu") + ip("h", "f")
              + layer("SoftmaxWithLoss", "f t", "loss", name="loss"))

CONVNET = (
    inputs(x=(2, 3, 8, 9), t=(2,))
    + layer("Convolution", "x", "c", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 "
                                     "weight_filler { type: 'xavier' } }", "conv")
    + layer("BatchNorm", "c", "n", name="bn") + layer("Scale", "n", "n", "scale_param { bias_term: true }", "scale")
    + layer("PReLU", "n", "n", name="prelu") + layer("LRN", "n", "l", name="lrn")
    + layer("Pooling", "l", "p", "pooling_param { pool: AVE global_pooling: true }", "pool")
    + layer("Flatten", "p", "g", name="flat") + layer("Concat", "g g", "k", name="twice")
    + layer("Reshape", "k", "r", "reshape_param { shape { dim: 0 dim: -1 } }", "shape") + ip("r", "f")
    + layer("SoftmaxWithLoss", "f t", "loss", name="loss"))
