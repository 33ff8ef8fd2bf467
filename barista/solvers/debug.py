"""debug_info: mean magnitudes of blobs and parameters, layer by layer, as Caffe logs them.

Each layer is finished before the next one starts, so that a fault of a device names its layer.
"""

from __future__ import annotations

import logging
import math

from ..blob import Tensor
from ..net import Net

log = logging.getLogger(__name__)


def _mean_magnitude(net: Net, tensor: Tensor) -> float:
    return net.ops.sum_absolute([tensor]) / max(tensor.count, 1)


def forward_backward_with_debug_info(net: Net) -> None:
    """One forward and one backward pass that log what each layer made."""
    for index, layer in enumerate(net.layers):
        net.forward_pass(index, index)
        for top in layer.param.top:
            log.info("    [Forward] Layer %s, top blob %s data: %g", layer.name, top,
                     _mean_magnitude(net, net.blobs[top].value))
        for number, blob in enumerate(layer.blobs):
            log.info("    [Forward] Layer %s, param blob %d data: %g", layer.name, number,
                     _mean_magnitude(net, blob.value))
    for index in reversed(range(len(net.layers))):
        net.backward_pass(index, index)
        layer = net.layers[index]
        for bottom, wanted in zip(layer.param.bottom, net.propagate_down[index], strict=True):
            if wanted:
                log.info("    [Backward] Layer %s, bottom blob %s diff: %g", layer.name, bottom,
                         _mean_magnitude(net, net.blobs[bottom].grad))
        for number, (blob, wanted) in enumerate(zip(layer.blobs, layer.param_propagate_down, strict=True)):
            if wanted:
                log.info("    [Backward] Layer %s, param blob %d diff: %g", layer.name, number,
                         _mean_magnitude(net, blob.grad))
    values = [item.blob.value for item in net.learnable]
    grads = [item.blob.grad for item in net.learnable]
    l1 = [net.ops.sum_absolute(tensors) for tensors in (values, grads)]
    l2 = [math.sqrt(net.ops.sum_squares(tensors)) for tensors in (values, grads)]
    log.info("    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)", *l1, *l2)


def log_update(net: Net) -> None:
    """Log the parameters and what the update took off them."""
    for item in net.learnable:
        layer, _, index = item.name[:-1].rpartition("[")
        log.info("    [Update] Layer %s, param %s data: %g; diff: %g", layer, index,
                 _mean_magnitude(net, item.blob.value), _mean_magnitude(net, item.blob.grad))
