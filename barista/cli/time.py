"""``barista time``: how long each layer takes, forward and backward, and on what."""

from __future__ import annotations

import argparse
import logging
import time

from ..net import Net
from ..ops.base import StageSeconds
from .arguments import Parser, add_compute, add_ignored, add_network, at_least, warn_ignored
from .compute import close_ops, open_net, open_net_with_images, open_ops
from .planning import add_input, offering_input_shape
from .stages import Stages, table

logger = logging.getLogger(__name__)

DESCRIPTION = """Measure a network: run --iterations forward and backward passes on its own data and log the
average of each layer and of the whole, in milliseconds, and what each pass spent in which stage: tiling, transfers
to and from the device, kernels, untiling. With --input-shape no database is needed: images are random numbers then."""

EXAMPLES = """  barista time --model train_val.prototxt --iterations 20
  barista time --model train_val.prototxt --backend fpga --plot stages.png
  barista time --model train_val.prototxt --input-shape 3,227,227 --batch 16
  barista time -model=deploy.prototxt -phase TEST"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="FILE", help="the network (prototxt)")
    parser.add_argument("--iterations", default=50, type=at_least(1), metavar="N",
                        help="number of passes (default 50)")
    parser.add_argument("--phase", default="TRAIN", type=str.upper, choices=("TRAIN", "TEST"),
                        help="phase of the network's state (default TRAIN)")
    add_input(parser.add_argument_group("images"))
    parser.add_argument("--plot", default=None, metavar="FILE",
                        help="draw the stages of each layer and pass as a bar chart into this file (.png, .svg, .pdf); "
                             "needs the extra `plot`")
    add_network(parser)
    add_compute(parser)
    add_ignored(parser)


def run(args: argparse.Namespace) -> None:
    """Measure one network."""
    warn_ignored("time", args)
    if args.plot is not None:
        from .plot import require_plot

        require_plot(args.plot)
    ops = open_ops(args, "caffe.cpp:343")
    # A test net that plans its memory could not run backward.
    made = open_net if args.batch is None and args.input_shape is None else open_net_with_images
    with offering_input_shape(args):
        net = made(args, ops, plan_memory=args.phase == "TRAIN")
    try:
        stages = benchmark(net, args.iterations)
    finally:
        net.close()
    close_ops(ops)
    if args.plot is not None:
        from .plot import plot_stages

        plot_stages(stages, f"{net.name}: {ops.describe()}", args.plot)
        logger.info("Stages drawn in %s", args.plot)


def benchmark(net: Net, iterations: int) -> StageSeconds:
    """Time every layer of `net` over `iterations` passes and log the averages as Caffe does.

    Every reading of the clock waits until the op set has finished what it was given. One
    pass goes before the measurement, so that kernels are built and memory is touched.

    A ReLU that the convolution before it computes takes no time of its own. The figures of whole passes hold,
    beyond the layers', what lies between them.

    Returns
    -------
    StageSeconds : average seconds of an iteration, by layer and pass, in each stage
    """
    _say("Performing Forward", 351)
    net.forward_pass()
    _say(f"Initial loss: {net.loss():g}", 356)
    _say("Performing Backward", 357)
    net.backward_pass()
    net.ops.finish()
    _say("*** Benchmark begins ***", 365)
    _say(f"Testing for {iterations} iterations.", 366)
    count = len(net.layers)
    watch = Stages(net)
    forward_ms, backward_ms = [0.0] * count, [0.0] * count
    forward_total_ms = backward_total_ms = 0.0
    began = time.perf_counter()
    for iteration in range(iterations):
        start = time.perf_counter()
        for first, last in net.forward_steps():
            forward_ms[first] += watch.timed_ms(net.forward_pass, first, "forward", last)
        middle = time.perf_counter()
        for layer in reversed(range(count)):
            backward_ms[layer] += watch.timed_ms(net.backward_pass, layer, "backward", layer)
        end = time.perf_counter()
        forward_total_ms += 1e3 * (middle - start)
        backward_total_ms += 1e3 * (end - middle)
        _say(f"Iteration: {iteration + 1} forward-backward time: {1e3 * (end - start):g} ms.", 394)
    total_ms = 1e3 * (time.perf_counter() - began)
    _say("Average time per layer: ", 397)
    for name, forward, backward in zip(net.layer_names, forward_ms, backward_ms, strict=True):
        _say(f"{name:>10}\tforward: {forward / iterations:g} ms.", 400)
        _say(f"{name:>10}\tbackward: {backward / iterations:g} ms.", 403)
    _say(f"Average Forward pass: {forward_total_ms / iterations:g} ms.", 408)
    _say(f"Average Backward pass: {backward_total_ms / iterations:g} ms.", 410)
    _say(f"Average Forward-Backward: {total_ms / iterations:g} ms.", 412)
    _say(f"Total Time: {total_ms:g} ms.", 414)
    _say("*** Benchmark ends ***", 415)
    average = watch.average(iterations)
    for line in table(average):
        logger.info("%s", line)
    return average


def _say(text: str, line: int) -> None:
    logger.info("%s", text, extra={"origin": f"caffe.cpp:{line}"})
