"""The half of ``barista convert`` that writes ONNX: a network with its weights, as it computes in the phase TEST."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import numpy.typing as npt

from ..errors import NetError
from ..files import replacing, why_unwritable
from ..frontends.prototxt import read_net
from ..net import Net
from ..net_graph import filter_net
from ..proto.caffe_pb2 import NetParameter, NetState
from ..weights import read_weights
from .arguments import Parser, UsageError, add_network, at_least, comma_list
from .planning import add_input, change_inputs, silence

logger = logging.getLogger(__name__)


def add_onnx_output(parser: Parser) -> None:
    """Add what decides how a network is written as ONNX, and which of its layers take part."""
    group = parser.add_argument_group("to ONNX")
    add_input(group)
    group.add_argument("--outputs", default=None, metavar="A,B",
                       help="blobs that are the model's outputs (default: those that no layer uses, or a loss alone)")
    group.add_argument("--opset", default=None, type=at_least(1), metavar="N",
                       help="version of ONNX's operators (default 17)")
    group.add_argument("--fold-batch-norm", action="store_true",
                       help="let BatchNorm and Scale go into the weights of the layer before them")
    group.add_argument("--softmax", action="store_true",
                       help="make a Softmax of each SoftmaxWithLoss, which otherwise is left out")
    add_network(parser)


def to_onnx_file(args: argparse.Namespace, model: str, weights: str | None, out: str) -> None:
    """Write a network as an ONNX model.

    Parameters
    ----------
    args : the options of `add_onnx_output`
    model : the network (prototxt, or a caffemodel, which defines one too)
    weights : trained parameters (caffemodel, or .h5); None takes those that the definition carries
    out : the file to write

    Raises
    ------
    UnsupportedError : layers that ONNX cannot say
    NetError : it makes no net, or its parameters are nowhere
    """
    if problem := why_unwritable(out):
        raise UsageError(f"{out}{problem}")
    # Imported here: the command's other options do without the package onnx.
    from ..frontends.onnx.export import DEFAULT_OPSET, to_onnx

    definition = read_net(model, ignore_unknown_fields=args.ignore_unknown_fields)
    definition.state.MergeFrom(NetState(phase="TEST", level=args.level, stage=comma_list(args.stage)))
    definition = filter_net(definition)
    args.model = model
    change_inputs(args, definition)
    trained = definition if weights is None else read_weights(weights)
    with silence():
        net = Net(definition)
        try:
            _require_weights(net, trained, model, weights)
            net.copy_trained_layers(trained, weights or model)
            values = _boxes(net)
            proto, shapes = net.to_proto(), {name: blob.shape for name, blob in net.blobs.items()}
        finally:
            net.close()
    result = to_onnx(proto, shapes, outputs=[] if args.outputs is None else comma_list(args.outputs),
                     opset=args.opset or DEFAULT_OPSET, fold_batch_norm=args.fold_batch_norm, softmax=args.softmax,
                     values=values)
    data = result.SerializeToString()
    with replacing(out) as part:
        part.write_bytes(data)
    logger.info("Wrote %s: opset %d, %d nodes, %d bytes", out, result.opset_import[0].version, len(result.graph.node),
                len(data))
    for kind, values in (("input", result.graph.input), ("output", result.graph.output)):
        for value in values:
            logger.info("  %s %s (%s)", kind, value.name,
                        ", ".join(str(dim.dim_value) for dim in value.type.tensor_type.shape.dim))


def _boxes(net: Net) -> dict[str, npt.NDArray[Any]]:
    """What PriorBox layers compute, which depends on shapes alone."""
    values: dict[str, npt.NDArray[Any]] = {}
    for index, layer in enumerate(net.layers):
        if layer.type == "PriorBox":
            net.forward_pass(index, index)
            values.update((name, net.blobs[name].data.copy()) for name in layer.param.top)
    return values


def _require_weights(net: Net, trained: NetParameter, model: str, weights: str | None) -> None:
    """What is not in the weights would be written as its fillers draw it.

    Raises
    ------
    NetError : layers without weights
    """
    known = {layer.name for layer in trained.layer if layer.blobs}
    missing = [name for name in net.params if name not in known]
    if missing and weights is None:
        raise NetError(f"{model}: it holds no weights of {', '.join(missing)}, and no file of weights is given; add "
                       f"one: barista convert {model} WEIGHTS.caffemodel --out MODEL.onnx")
    if missing:
        raise NetError(f"{weights}: it has no weights of {', '.join(missing)}, layers of {model}; give the file that "
                       "belongs to this network")
