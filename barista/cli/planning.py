"""What planners read of a network: its shapes, and the passes of its convolutions in the order in which they run."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..compose import make_ops
from ..errors import DataError, NetError
from ..frontends.prototxt import read_net
from ..gemm.shapes import Pass
from ..latency.workload import Workload
from ..layers.convolution import Convolution, Deconvolution
from ..net import Net
from ..net_graph import filter_net
from ..ops.base import OpSet
from ..proto.caffe_pb2 import LayerParameter, NetParameter, NetState, Phase
from .arguments import Parser, add_network, at_least, comma_list

# Layers that read images, and where their settings are.
SOURCES = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param",
           "HDF5Data": "hdf5_data_param", "MemoryData": "memory_data_param"}


def add_planning(parser: Parser, phase: str | None = "TRAIN") -> None:
    """Add what decides which network is planned for, and how large its batches are.

    Parameters
    ----------
    phase : the default; None takes TEST for a deploy net and TRAIN for others (see `is_deploy`)
    """
    group = parser.add_argument_group("the network")
    group.add_argument("--model", required=True, metavar="FILE", help="the network (prototxt)")
    group.add_argument("--phase", default=phase, type=str.upper, choices=("TRAIN", "TEST"),
                       help="phase of the network's state (default TRAIN"
                            + ("; TEST for a deploy net, which has inputs and no loss)" if phase is None else ")"))
    add_input(group)
    add_network(parser)


def add_input(group: argparse._ArgumentGroup) -> None:
    """Add what stands in for the images that a network reads."""
    group.add_argument("--batch", default=None, type=at_least(1), metavar="N",
                       help="images a batch (default: what the network says)")
    group.add_argument("--input-shape", default=None, type=image_shape, metavar="C,H,W",
                       help="shape of an image as the network sees it, after any crop; with it, no database is opened")


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
    return open_for_shapes(args, planning_definition(args), ops)


def planning_definition(args: argparse.Namespace) -> NetParameter:
    """The layers that take part, as the file has them.

    Raises
    ------
    PrototxtError : the file cannot be read
    """
    definition = read_net(args.model, ignore_unknown_fields=args.ignore_unknown_fields)
    definition.state.level = args.level
    definition.state.stage.extend(comma_list(args.stage))
    definition.state.MergeFrom(NetState(phase=args.phase or "TRAIN"))
    filtered = filter_net(definition)
    if args.phase is None and is_deploy(filtered):
        definition.state.MergeFrom(NetState(phase="TEST"))
        filtered = filter_net(definition)
    return filtered


def is_deploy(definition: NetParameter) -> bool:
    """Whether a net only computes outputs: it has Input layers, reads no images itself, and has no loss."""
    types = {layer.type for layer in definition.layer}
    lost = any(layer.type.endswith("Loss") or any(layer.loss_weight) for layer in definition.layer)
    return "Input" in types and not types & SOURCES.keys() and not lost


def open_for_shapes(args: argparse.Namespace, definition: NetParameter, ops: OpSet | None = None) -> Net:
    """Open a net of `planning_definition`, which is changed, as `open_planning_net` does."""
    change_inputs(args, definition)
    _require_sources(definition)
    _drop_fillers(definition)
    with silence(), offering_input_shape(args):
        net = Net(definition, ops=ops or make_ops("cpu"))
    net.close()
    return net


def change_inputs(args: argparse.Namespace, definition: NetParameter) -> None:
    """Give the layers that images come from the batch and the shape of the command line.

    With ``--input-shape`` layers that read images become Input layers with tops of the same shapes.

    Raises
    ------
    NetError : there is no such layer, or one says another number of channels or another size
    """
    changed = [_set_input(layer, args.batch, args.input_shape) for layer in definition.layer]
    for option, value in (("--batch", args.batch), ("--input-shape", args.input_shape)):
        if value is not None and not any(changed):
            raise NetError(f"{args.model}: {option} has nothing to change; no layer is of type "
                           f"{', '.join(SOURCES)} or Input")


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
    if image is not None and (layer.type in SOURCES or layer.type == "Input"):
        _check_image(layer, image)
    if layer.type in SOURCES:
        if batch is not None:
            getattr(layer, SOURCES[layer.type]).batch_size = batch
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


def _check_image(layer: LayerParameter, image: tuple[int, int, int]) -> None:
    """Refuse a shape that a layer contradicts.

    Raises
    ------
    NetError : another number of channels, or a crop to another size
    """
    given = f"{layer.name} ({layer.type}): --input-shape {','.join(map(str, image))}"
    said = _said_channels(layer)
    if said is not None and said[0] != image[0]:
        raise NetError(f"{given} has {image[0]} channel(s), but {said[1]}, so images have {said[0]}; give "
                       f"{said[0]},{image[1]},{image[2]}, or change the layer")
    crop = layer.transform_param.crop_size
    if crop and image[1:] != (crop, crop):
        raise NetError(f"{given} is {image[1]} x {image[2]} pixels, but transform_param.crop_size is {crop}, and the "
                       f"shape is that after the crop; give {image[0]},{crop},{crop}")


def _said_channels(layer: LayerParameter) -> tuple[int, str] | None:
    """How many channels a layer's own settings say that its images have, and which setting says so."""
    means, transform = len(layer.transform_param.mean_value), layer.transform_param
    shapes = layer.input_param.shape
    if layer.type == "Input":
        return (shapes[0].dim[1], f"input_param.shape has {shapes[0].dim[1]}") if shapes and len(shapes[0].dim) == 4 \
            else None
    if layer.type == "MemoryData" and layer.memory_data_param.channels:
        return layer.memory_data_param.channels, f"memory_data_param.channels is {layer.memory_data_param.channels}"
    if means > 1:
        return means, f"transform_param has {means} mean_value"
    if layer.type == "ImageData":
        colour = layer.image_data_param.is_color
        return (3, "image_data_param.is_color is true") if colour else (1, "image_data_param.is_color is false")
    if layer.type == "WindowData":
        return 3, "WindowData reads colour images"
    if transform.force_color or transform.force_gray:
        return (3, "transform_param.force_color is true") if transform.force_color else (
            1, "transform_param.force_gray is true")
    return None


def _stand_in(layer: LayerParameter, image: tuple[int, int, int]) -> None:
    """Make a layer that reads images an Input layer with tops of the same shapes.

    Raises
    ------
    NetError : no batch size
    """
    field = SOURCES[layer.type]
    batch = getattr(layer, field).batch_size
    if batch < 1:
        raise NetError(f"{layer.name} ({layer.type}): {field}.batch_size is {batch}; give 1 or more, or --batch N")
    layer.type = "Input"
    layer.ClearField(field)
    layer.ClearField("transform_param")
    layer.input_param.shape.add(dim=(batch, *image))
    for _ in layer.top[1:]:
        layer.input_param.shape.add(dim=(batch,))


def _require_sources(definition: NetParameter) -> None:
    """Refuse a net whose images have a shape that nobody knows.

    Raises
    ------
    NetError : a database or a list of images is not here
    """
    for layer in definition.layer:
        source = getattr(getattr(layer, SOURCES.get(layer.type, ""), None), "source", None)
        if source is not None and not os.path.exists(source):
            crop = layer.transform_param.crop_size
            size = f"{crop},{crop}" if crop else "H,W"
            what = "database" if layer.type == "Data" else "source"
            raise NetError(f"{layer.name} ({layer.type}): its {what} {source!r} is not here, so the shape "
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
def offering_input_shape(args: argparse.Namespace) -> Iterator[None]:
    """Say of data that cannot be used while a net is built that ``--input-shape`` does without."""
    try:
        yield
    except DataError as error:
        if args.input_shape is not None:
            raise
        raise DataError(f"{error}; or do without any data: --input-shape C,H,W") from error


@contextmanager
def silence() -> Iterator[None]:
    """Let no lines of the level INFO through while a net is built, unless those of DEBUG are wanted too."""
    logger = logging.getLogger("barista")
    before = logger.level
    if before == logging.INFO:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
