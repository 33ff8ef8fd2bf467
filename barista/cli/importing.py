"""What the commands share that read models of ONNX and Caffe2: which files, and the shapes of inputs."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from .arguments import Parser, UsageError, at_least

if TYPE_CHECKING:
    from ..frontends.onnx import Converted

logger = logging.getLogger(__name__)


def add_imported(parser: Parser) -> None:
    """Add the files of a model beside the first, and the shapes of its inputs."""
    group = parser.add_argument_group("the model")
    group.add_argument("--init", default=None, metavar="FILE", help="Caffe2: the net that fills the weights "
                                                                    "(init_net.pb)")
    group.add_argument("--predict", default=None, metavar="FILE", help="Caffe2: the net that computes (predict_net.pb)")
    group.add_argument("--input", action="append", default=[], type=named_shape, metavar="NAME=N,C,H,W",
                       help="shape of an input; may be given more than once. ONNX: where the model's is not wanted, "
                            "or has "
                            "sizes without a number, which are 1 otherwise. Caffe2: needed where no value_info.json "
                            "lies beside the nets")
    group.add_argument("--fill-seed", default=0, type=at_least(0), metavar="N",
                       help="Caffe2: start of the random numbers of fills such as XavierFill (default 0)")


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``data=1,3,224,224``.

    Raises
    ------
    argparse.ArgumentTypeError : no name, or sizes that are no whole numbers of 1 or more
    """
    name, equals, sizes = text.rpartition("=")
    parts = [part.strip() for part in sizes.split(",")]
    if not equals or not name or not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no name and sizes, such as data=1,3,224,224")
    return name, tuple(int(part) for part in parts)


def check_model(args: argparse.Namespace, model: str | None) -> None:
    """Make sure that one model is given, of one kind.

    Raises
    ------
    UsageError : none, or files of both
    """
    if model is not None and (args.init or args.predict):
        raise UsageError(f"give {model} for ONNX, or --init and --predict for Caffe2, not both")
    if model is None and not args.predict:
        raise UsageError("give a model: MODEL.onnx, or --init init_net.pb --predict predict_net.pb")


def read_model(args: argparse.Namespace, model: str | None, batch: int | None = None) -> Converted:
    """Read the model that the options name.

    Parameters
    ----------
    model : path of an ONNX model; None takes the nets of Caffe2
    batch : the first size of an only input, where ``--input`` gives none

    Raises
    ------
    PrototxtError, NetError, UnsupportedError : as `frontends.onnx.read_onnx` and `frontends.caffe2.read_caffe2`
    MissingExtraError : onnx is not installed
    """
    # Imported here: other commands do without the package onnx.
    from ..frontends.onnx import convert

    shapes = dict(args.input)
    if model is None:
        from ..frontends.caffe2 import load_pair

        source = load_pair(args.init, args.predict, shapes, args.fill_seed, batch)
        return convert(source)
    if batch is not None and not shapes:
        from ..frontends.onnx.model import load_model

        inputs = load_model(model).inputs
        sizes = [value.shape for value in inputs.values()]
        if len(inputs) == 1 and sizes[0]:
            rest = tuple(size for size in sizes[0][1:] if size is not None)
            shapes = {name: (batch, *rest) for name in inputs}
    return convert(model, shapes)


def log_ports(converted: Converted) -> None:
    """Say what goes in and what comes out."""
    for kind, ports in (("input", converted.inputs), ("output", converted.outputs)):
        for port in ports:
            named = "" if port.blob == port.name else f", in the model {port.name}"
            shape = "?" if port.shape is None else ", ".join(map(str, port.shape))
            logger.info("  %s %s (%s)%s", kind, port.blob, shape, named)
