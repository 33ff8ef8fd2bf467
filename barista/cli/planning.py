"""What planners read of a network: its shapes, and the passes of its convolutions in the order in which they run."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..compose import make_ops
from ..errors import NetError
from ..frontends.prototxt import read_net
from ..gemm.shapes import Pass
from ..latency.workload import Workload
from ..layers.convolution import Convolution, Deconvolution
from ..net import Net
from ..net_graph import filter_net
from ..ops.base import OpSet
from ..proto.caffe_pb2 import LayerParameter, NetParameter, NetState, Phase
from .arguments import Parser, add_network, at_least, comma_list


def add_planning(parser: Parser) -> None:
    """Add what decides which network is planned for, and how large its batches are."""
    group = parser.add_argument_group("the network")
    group.add_argument("--model", required=True, metavar="FILE", help="the network (prototxt)")
    group.add_argument("--phase", default="TRAIN", type=str.upper, choices=("TRAIN", "TEST"),
                       help="phase of the network's state (default TRAIN)")
    group.add_argument("--batch", default=None, type=at_least(1), metavar="N",
                       help="images a batch (default: what the network says)")
    group.add_argument("--input-shape", default=None, type=image_shape, metavar="C,H,W",
                       help="shape of an image as the network sees it, after any crop; with it, no database is opened")
    add_network(parser)


def image_shape(text: str) -> tuple[int, int, int]:
    """Read ``3,32,32``.

    Raises
    ------
    argparse.ArgumentTypeError : not three whole numbers of 1 or more
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not three whole numbers C,H,W such as 3,32,32")
    channels, height, width = map(int, parts)
    return channels, height, width


def open_planning_net(args: argparse.Namespace, ops: OpSet | None = None) -> Net:
    """Open the network of `add_planning`'s options for its shapes, with parameters of zeros.

    The lines that Caffe writes while it builds a net are left out.

    Parameters
    ----------
    ops : what would compute it; None takes the CPU

    Raises
    ------
    NetError : it makes no net, or the shape of its images is not known
    """
    definition = read_net(args.model, ignore_unknown_fields=args.ignore_unknown_fields)
    definition.state.MergeFrom(NetState(phase=args.phase))
    definition.state.level = args.level
    definition.state.stage.extend(comma_list(args.stage))
    definition = filter_net(definition)
    changed = [_set_input(layer, args.batch, args.input_shape) for layer in definition.layer]
    for option, value in (("--batch", args.batch), ("--input-shape", args.input_shape)):
        if value is not None and not any(changed):
            raise NetError(f"{args.model}: {option} has nothing to change; no layer is of type Data or Input")
    _require_sources(definition)
    _drop_fillers(definition)
    with _silence():
        net = Net(definition, ops=ops or make_ops("cpu"))
    net.close()
    return net


def net_workloads(net: Net) -> list[Workload]:
    """The passes of all convolutions in the order in which an iteration runs them.

    Forward from the first layer to the last, then backward from the last to the first, each layer's weights before its
    input; forward alone in phase TEST.  A layer with several bottoms runs its passes once for each.  A Deconvolution's
    passes go by their names in its convolution.
    """
    convolutions = [(layer, runs, wanted) for layer, runs, wanted in
                    zip(net.layers, net.layer_need_backward, net.propagate_down, strict=True)
                    if isinstance(layer, Convolution | Deconvolution)]
    found = [Workload(layer.name, layer.passes_of_layer[0], layer.geometry)
             for layer, _, wanted in convolutions for _ in wanted]
    trains = net.phase == Phase.Value("TRAIN")
    for layer, runs, wanted in reversed(convolutions):
        for needs_input in wanted if trains and runs else ():
            if layer.param_propagate_down[0]:
                found.append(Workload(layer.name, Pass.GRAD_WEIGHT, layer.geometry))
            if needs_input:
                found.append(Workload(layer.name, layer.passes_of_layer[1], layer.geometry))
    return found


def _set_input(layer: LayerParameter, batch: int | None, image: tuple[int, int, int] | None) -> bool:
    """Give a layer that images come from the batch and shape of the command line; returns whether it is one."""
    if layer.type == "Data":
        param = layer.data_param
        if batch is not None:
            param.batch_size = batch
        if image is not None:
            _stand_in(layer, image)
        return True
    if layer.type != "Input":
        return False
    for index, shape in enumerate(layer.input_param.shape):
        if batch is not None and shape.dim:
            shape.dim[0] = batch
        if image is not None and index == 0:
            shape.dim[:] = [shape.dim[0] if shape.dim else 1, *image]
    return bool(layer.input_param.shape)


def _stand_in(layer: LayerParameter, image: tuple[int, int, int]) -> None:
    """Make a Data layer an Input layer with tops of the same shapes.

    Raises
    ------
    NetError : no batch size
    """
    batch = layer.data_param.batch_size
    if batch < 1:
        raise NetError(f"{layer.name} (Data): data_param.batch_size is {batch}; give 1 or more, or --batch N")
    layer.type = "Input"
    layer.ClearField("data_param")
    layer.ClearField("transform_param")
    layer.input_param.shape.add(dim=(batch, *image))
    for _ in layer.top[1:]:
        layer.input_param.shape.add(dim=(batch,))


def _require_sources(definition: NetParameter) -> None:
    """Refuse a net whose images have a shape that nobody knows.

    Raises
    ------
    NetError : a database is not here
    """
    for layer in definition.layer:
        if layer.type == "Data" and not os.path.exists(layer.data_param.source):
            crop = layer.transform_param.crop_size
            size = f"{crop},{crop}" if crop else "H,W"
            raise NetError(f"{layer.name} (Data): its database {layer.data_param.source!r} is not here, so the shape "
                           f"of its images is not known; give it: --input-shape C,{size}")


def _drop_fillers(definition: NetParameter) -> None:
    """Leave parameters at zero: their values do not matter, and drawing them takes long."""
    for layer in definition.layer:
        for _, value in layer.ListFields():
            if hasattr(value, "ListFields"):
                for field, _ in value.ListFields():
                    if field.name.endswith("_filler"):
                        value.ClearField(field.name)


@contextmanager
def _silence() -> Iterator[None]:
    """No lines of the level INFO while a net is built, unless those of DEBUG are wanted too."""
    logger = logging.getLogger("barista")
    before = logger.level
    if before == logging.INFO:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
