"""``barista test``: run a trained network over test batches and average what it puts out."""

from __future__ import annotations

import argparse
import logging

import numpy as np

from ..net import Net
from .arguments import Parser, add_compute, add_ignored, add_network, at_least, comma_list, warn_ignored
from .compute import close_ops, open_net, open_ops
from .progress import progress

logger = logging.getLogger(__name__)

DESCRIPTION = """Score a trained network: run its test phase over --iterations batches and log every
output of each batch and the averages."""

EXAMPLES = """  barista test --model train_val.prototxt --weights net_iter_300.caffemodel --iterations 6
  barista test -model=train_val.prototxt -weights=a.caffemodel,b.caffemodel"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="FILE", help="the network (prototxt)")
    parser.add_argument("--weights", required=True, metavar="A,B",
                        help="trained parameters (caffemodel, or .h5), several separated by ','")
    parser.add_argument("--iterations", default=50, type=at_least(1), metavar="N",
                        help="number of batches (default 50)")
    parser.add_argument("--phase", default="TEST", type=str.upper, choices=("TRAIN", "TEST"),
                        help="phase of the network's state (default TEST)")
    add_network(parser)
    add_compute(parser)
    add_ignored(parser)


def run(args: argparse.Namespace) -> None:
    """Test one network."""
    warn_ignored("test", args)
    ops = open_ops(args, "caffe.cpp:275")
    net = open_net(args, ops, plan_memory=True)
    try:
        for weights in comma_list(args.weights):
            net.copy_from(weights)
        report(net, args.iterations, args.quiet)
    finally:
        net.close()
    close_ops(ops)


def report(net: Net, iterations: int, quiet: bool = False) -> dict[str, float]:
    """Run `iterations` batches, log what Caffe logs of them, and return the average of each output.

    Returns
    -------
    dict : output's name to its average; an output of several numbers has ``name[i]`` entries
    """
    logger.info("Running for %d iterations.", iterations, extra={"origin": "caffe.cpp:281"})
    sums: dict[str, float] = {}
    source: dict[str, str] = {}
    loss = 0.0
    with progress(iterations, "test", quiet) as bar:
        for batch in range(iterations):
            net.forward_pass()
            loss += net.loss()
            for name in net.outputs:
                values = np.ravel(net.blobs[name].data)
                for index, value in enumerate(values):
                    entry = name if len(values) == 1 else f"{name}[{index}]"
                    sums[entry] = sums.get(entry, 0.0) + float(value)
                    source[entry] = name
                    logger.info("Batch %d, %s = %g", batch, name, value, extra={"origin": "caffe.cpp:304"})
            bar.update(1)
    logger.info("Loss: %g", loss / iterations, extra={"origin": "caffe.cpp:309"})
    averages = {entry: total / iterations for entry, total in sums.items()}
    weights = net.blob_loss_weights
    for entry, average in averages.items():
        name = source[entry]
        weight = weights[name]
        share = f" (* {weight:g} = {weight * average:g} loss)" if weight else ""
        logger.info("%s = %g%s", name, average, share, extra={"origin": "caffe.cpp:321"})
    return averages
