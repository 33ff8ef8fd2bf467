"""``barista convert``: models of ONNX and Caffe2 to Caffe's files, and Caffe's files to ONNX."""

from __future__ import annotations

import argparse
import logging
import os

from ..files import replacing, why_unwritable
from ..frontends.prototxt import to_text
from ..net_graph import without_weights
from ..proto.caffe_pb2 import NetParameter
from ..weights import write_weights
from .arguments import Parser, UsageError
from .convert_to_onnx import add_onnx_output, to_onnx_file
from .importing import add_imported, check_model, log_ports, read_model

logger = logging.getLogger(__name__)

DESCRIPTION = """Convert a model of ONNX, or Caffe2's pair of an init net and a predict net, to a network with its
weights (prototxt and caffemodel); or a network of Caffe's with its weights to ONNX. The ending of the first file that
is written tells which."""

EXAMPLES = """  barista convert model.onnx --out net.prototxt net.caffemodel
  barista convert model.onnx --input image=8,3,224,224 --out net.prototxt net.caffemodel
  barista convert --init init_net.pb --predict predict_net.pb --input data=1,3,227,227 --out net.prototxt net.caffemodel
  barista convert deploy.prototxt net.caffemodel --out model.onnx"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("source", nargs="*", metavar="FILE",
                        help="MODEL.onnx, or NET.prototxt and WEIGHTS (caffemodel, or .h5); none with --predict")
    parser.add_argument("--out", nargs="+", required=True, metavar="FILE",
                        help="NET.prototxt and NET.caffemodel (or .h5), or MODEL.onnx: files to write")
    add_imported(parser)
    add_onnx_output(parser)


def run(args: argparse.Namespace) -> None:
    """Convert one model."""
    if args.out[0].endswith(".onnx"):
        _export(args)
    else:
        _import(args)


def _export(args: argparse.Namespace) -> None:
    if args.init or args.predict or args.input:
        raise UsageError("--init, --predict and --input are for models that are read; to read one, give --out "
                         "NET.prototxt "
                         "NET.caffemodel. The shape of a network's images is --batch and --input-shape C,H,W")
    if len(args.out) != 1 or len(args.source) not in (1, 2):
        raise UsageError("to ONNX: barista convert NET.prototxt WEIGHTS.caffemodel --out MODEL.onnx")
    check_not_read(args.out, *args.source)
    to_onnx_file(args, args.source[0], args.source[1] if len(args.source) == 2 else None, args.out[0])


def _import(args: argparse.Namespace) -> None:
    if args.batch is not None or args.input_shape is not None:
        raise UsageError("--batch and --input-shape are for networks that are written as ONNX; the shape of a "
                         "model's input "
                         "is --input NAME=N,C,H,W")
    if len(args.source) > 1 or len(args.out) != 2:
        raise UsageError("from ONNX or Caffe2: barista convert MODEL.onnx --out NET.prototxt NET.caffemodel")
    check_outputs(args.out, *args.source, args.init, args.predict)
    model = args.source[0] if args.source else None
    check_model(args, model)
    converted = read_model(args, model)
    write_net(converted.net, *args.out)
    log_ports(converted)


def check_outputs(paths: list[str], *sources: str | None) -> None:
    """Make sure, before anything is read, that a network and its weights can be written.

    Parameters
    ----------
    paths : of the network and of its weights
    sources : files that are read

    Raises
    ------
    UsageError : they cannot, are one file or one that is read, or stand in each other's place
    """
    definition, weights = paths
    check_not_read(paths, *sources)
    for path in paths:
        if problem := why_unwritable(path):
            raise UsageError(f"{path}{problem}")
    if definition == weights:
        raise UsageError(f"{definition} is given twice; the network and its weights are two files")
    if definition.endswith((".caffemodel", ".h5")) or weights.endswith(".prototxt"):
        raise UsageError(f"--out {definition} {weights}: the network comes first, NET.prototxt NET.caffemodel")


def check_not_read(paths: list[str], *sources: str | None) -> None:
    """Make sure that no file is read and written. Raises UsageError."""
    read = {os.path.realpath(source) for source in sources if source}
    for path in paths:
        if os.path.realpath(path) in read:
            raise UsageError(f"{path} would be written over the file that is read; give another name with --out")


def write_net(net: NetParameter, definition: str, weights: str) -> None:
    """Write a net as a prototxt without weights, and as a file of weights.

    Raises
    ------
    SnapshotError : a file cannot be written
    """
    write_weights(net, weights)
    with replacing(definition) as part:
        part.write_text(to_text(without_weights(net)), encoding="ascii")
    logger.info("Wrote %s (%d layers) and %s", definition, len(net.layer), weights)
