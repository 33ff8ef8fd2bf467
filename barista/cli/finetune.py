"""``barista finetune``: train a model of ONNX or Caffe2, with data layers before it and a loss behind it."""

from __future__ import annotations

import argparse
import logging
import os

from ..data import open_database
from ..errors import NetError, SolverError
from ..finetune import Head, database_layers, rename_input, training_net
from ..frontends.prototxt import read_net, read_solver
from ..proto.caffe_pb2 import TEST, TRAIN, DataParameter, LayerParameter, NetParameter, SolverParameter
from ..solvers.nets import locate
from .arguments import Parser, UsageError, at_least
from .convert import check_outputs, write_net
from .importing import add_imported, check_model, read_model
from .train import add_training, overrides, train

logger = logging.getLogger(__name__)

DESCRIPTION = """Train a model of ONNX, or Caffe2's pair of an init net and a predict net. Its images come from
databases (--data), or from the data layers of the net that the solver names, whose tops have the names of the model's
inputs and of the labels. A loss follows the model: SoftmaxWithLoss on what its last Softmax is made of, or on
--loss-bottom; a loss in the solver's net takes its place. The net and its first weights are written before training."""

EXAMPLES = """  barista finetune model.onnx --solver solver.prototxt --data train_lmdb --test-data test_lmdb --batch 32
  barista finetune model.onnx --solver solver.prototxt --data train_lmdb --classes 10 --mean-value 104,117,123
  barista finetune model.onnx --solver solver_with_net.prototxt --loss-bottom fc7
  barista finetune --init init_net.pb --predict predict_net.pb --input data=8,3,227,227 --solver s.prototxt --data db"""

_BATCH = 32
LOSSES = ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "EuclideanLoss", "HingeLoss")


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", default=None, metavar="MODEL.onnx", help="the model; none with --predict")
    parser.add_argument("--solver", required=True, metavar="FILE",
                        help="the solver (prototxt); its field net, if any, names a net with data layers")
    parser.add_argument("--out", nargs=2, default=None, metavar=("NET.prototxt", "NET.caffemodel"),
                        help="where to write the net that is trained, and its first weights (default: the solver's "
                             "snapshot_prefix with _finetune)")
    group = parser.add_argument_group("what is learnt")
    group.add_argument("--loss-bottom", default=None, metavar="NAME",
                       help="the blob that the loss looks at; what stands behind it is left out")
    group.add_argument("--loss", default="SoftmaxWithLoss", choices=LOSSES,
                       help="type of the loss (default SoftmaxWithLoss)")
    group.add_argument("--classes", default=None, type=at_least(1), metavar="N",
                       help="give the last InnerProduct or Convolution N outputs, and learn it anew")
    group.add_argument("--classes-rate", default=10.0, type=float, metavar="X",
                       help="how many times faster the layer of --classes learns (default 10)")
    group = parser.add_argument_group("images")
    group.add_argument("--data", default=None, metavar="DB", help="database of images to train with (LMDB or LevelDB)")
    group.add_argument("--test-data", default=None, metavar="DB", help="database for the solver's tests")
    group.add_argument("--batch", default=None, type=at_least(1), metavar="N",
                       help="images a batch (default: what --input says, or 32)")
    group.add_argument("--crop", default=None, type=at_least(0), metavar="N",
                       help="cut images to N x N pixels, in training at random places (default: the model's input, "
                            "where that is square; 0: not at all)")
    group.add_argument("--mean-value", default=None, type=_numbers, metavar="B,G,R",
                       help="subtract from all pixels: one number, or one for each channel")
    group.add_argument("--mean-file", default=None, metavar="FILE", help="subtract an image (binaryproto)")
    group.add_argument("--scale", default=1.0, type=float, metavar="X", help="multiply pixels by X, after the mean")
    parser.switch("mirror", False, "mirror half of the images in training")
    add_imported(parser)
    add_training(parser)


def run(args: argparse.Namespace) -> None:
    """Train one model."""
    check_model(args, args.model)
    if args.mean_value and args.mean_file:
        raise UsageError("give --mean-value or --mean-file, not both")
    solver = read_solver(args.solver, ignore_unknown_fields=args.ignore_unknown_fields)
    paths = args.out or [f"{solver.snapshot_prefix}_finetune.prototxt", f"{solver.snapshot_prefix}_finetune.caffemodel"]
    check_outputs(paths, args.model, args.init, args.predict)
    if "," in paths[1]:
        raise UsageError(f"{paths[1]}: solvers take a comma for the end of a file's name; give another with --out")
    data = _solver_net(args, solver)
    converted = read_model(args, args.model, _batch(args, data))
    if data is None:
        ports = converted.inputs
        if len(ports) != 1 or ports[0].shape is None or len(ports[0].shape) != 4:
            inputs = ", ".join(f"{port.blob} {port.shape}" for port in ports)
            raise NetError(f"--data feeds a model with one input of images (N, C, H, W); this one has {inputs}. Name "
                           "a net with data layers in the solver's field net")
        data = _databases(args, ports[0].blob, [int(size or 1) for size in ports[0].shape])
    rename_input(converted.net, data)
    head = Head(args.loss, args.loss_bottom, args.classes, args.classes_rate)
    net = training_net(converted.net, [port.blob for port in converted.outputs], data, head)
    write_net(net, *paths)
    fields = overrides(args)
    fields.update(net=os.path.abspath(paths[0]), train_net=None, weights=[os.path.abspath(paths[1])])
    train(args, solver, fields)


def _solver_net(args: argparse.Namespace, solver: SolverParameter) -> NetParameter | None:
    """The net with data layers that a solver names; None where the images come from --data.

    Raises
    ------
    UsageError : both, or neither
    SolverError : fields that name nets otherwise, or tests without data
    """
    for field in ("net_param", "train_net_param", "test_net", "test_net_param"):
        if field in {known.name for known, _ in solver.ListFields()}:
            raise SolverError(f"{args.solver}: it has the field {field}; for finetune give the data layers of both "
                              "phases in one file, named by the field net")
    path = solver.net or solver.train_net
    if path and args.data:
        raise UsageError(f"{args.solver} names the net {path!r}, and --data is given too; take one of them out")
    if not path and not args.data:
        raise UsageError(f"there are no images to train with: give --data DB, or let {args.solver} name a net with "
                         "data layers (net: \"data.prototxt\")")
    if solver.test_iter and args.data and not args.test_data:
        raise SolverError(f"{args.solver}: it has test_iter, and there is nothing to test with; give --test-data DB, "
                          "or take test_iter and test_interval out")
    if args.test_data and not solver.test_iter:
        logger.warning("--test-data has no effect: %s has no test_iter and test_interval", args.solver)
    if not path:
        return None
    for option, given in (("--test-data", args.test_data), ("--crop", args.crop is not None), ("--mirror", args.mirror),
                          ("--mean-value", args.mean_value), ("--mean-file", args.mean_file),
                          ("--scale", args.scale != 1)):
        if given:
            raise UsageError(f"{option} goes with --data; the solver's net has its own data layers")
    found = locate(path, os.path.dirname(args.solver))
    return read_net(found, ignore_unknown_fields=args.ignore_unknown_fields)


def _batch(args: argparse.Namespace, data: NetParameter | None) -> int | None:
    """Images a batch, where something says how many; the model is read for so many.

    Raises
    ------
    UsageError : --batch where something else says it
    """
    if args.batch is not None and (args.input or data is not None):
        raise UsageError("--batch goes with --data; the batch stands in " +
                         ("the data layers of the solver's net" if data is not None else "--input too"))
    if data is None:
        return args.batch or _BATCH
    sizes = [layer.data_param.batch_size or layer.image_data_param.batch_size or layer.hdf5_data_param.batch_size
             or layer.memory_data_param.batch_size for layer in data.layer if not layer.bottom]
    return next((int(size) for size in sizes if size), None)


def _databases(args: argparse.Namespace, top: str, shape: list[int]) -> NetParameter:
    """Data layers for both phases."""
    crop = args.crop if args.crop is not None else shape[2] if shape[2] == shape[3] else 0
    sources = []
    for phase, path in ((TRAIN, args.data), (TEST, args.test_data)):
        if path is None:
            continue
        layer = LayerParameter(type="Data")
        layer.data_param.source = os.path.abspath(path)
        layer.data_param.backend = _kind(path)
        layer.data_param.batch_size = shape[0]
        transform = layer.transform_param
        if crop:
            transform.crop_size = crop
        if args.mean_value:
            transform.mean_value.extend(args.mean_value)
        if args.mean_file:
            transform.mean_file = os.path.abspath(args.mean_file)
        if args.scale != 1:
            transform.scale = args.scale
        if args.mirror and phase == TRAIN:
            transform.mirror = True
        sources.append((phase, layer))
    return database_layers(top, sources)


def _kind(path: str) -> DataParameter.DB:
    """Which kind of database lies there. Raises DataError where none does."""
    if os.path.isfile(os.path.join(path, "CURRENT")):
        return DataParameter.LEVELDB
    with open_database(path):
        return DataParameter.LMDB


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 104,117,123") from None
