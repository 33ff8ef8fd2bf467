"""How many multiply-accumulates a layer computes, forward and in a step of training."""

from __future__ import annotations

import math

from ..layers.convolution import Convolution, Deconvolution
from ..layers.inner_product import InnerProduct
from ..net import Net
from ..proto.caffe_pb2 import TRAIN


def operations(net: Net, index: int) -> tuple[int, int]:
    """Multiply-accumulates of a layer's forward pass, and of a step: that and the gradients that are wanted.

    Counted are the products of matrices: convolutions, inner products, and the weights of recurrent layers. A test
    net takes no gradients.
    """
    layer, down = net.layers[index], net.propagate_down[index]
    learns = net.phase == TRAIN and net.layer_need_backward[index]
    if isinstance(layer, Convolution | Deconvolution):
        once = layer.geometry.macs
        forward, inputs = once * len(down), once * sum(down)
    elif isinstance(layer, InnerProduct):
        forward = net.blobs[layer.param.top[0]].count * layer.weight.count // layer.param.inner_product_param.num_output
        inputs = forward * sum(down)
    elif layer.type in ("LSTM", "RNN"):
        forward, inputs = _recurrent(net, index)
    else:
        return 0, 0
    if not learns:
        return forward, forward
    return forward, forward + (forward if layer.param_propagate_down[0] else 0) + inputs


def _recurrent(net: Net, index: int) -> tuple[int, int]:
    """Of a recurrent layer: all its weights at each step in time, those of a static input once.

    Inside, gradients always go from step to step; to the inputs they go where they are wanted.
    """
    layer, down = net.layers[index], net.propagate_down[index]
    steps, streams = net.blobs[layer.param.bottom[0]].shape[:2]
    weights = [math.prod(blob.shape) for blob in layer.blobs if len(blob.shape) == 2]
    hidden_states = 2 if layer.type == "LSTM" else 1  # h, and c
    bottoms = len(layer.param.bottom) - (hidden_states if layer.param.recurrent_param.expose_hidden else 0)
    static = bottoms > 2
    each = [steps * streams * count for count in weights]
    if static:
        each[1] = streams * weights[1]
    forward = sum(each)
    return forward, forward - (0 if down[0] else each[0]) - (each[1] if static and not down[2] else 0)
