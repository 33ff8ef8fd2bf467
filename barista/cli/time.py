"""``barista time``: how long each layer takes, forward and backward."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable

from ..net import Net
from .arguments import Parser, add_compute, add_ignored, add_network, at_least, warn_ignored
from .compute import open_net, open_ops

logger = logging.getLogger(__name__)

DESCRIPTION = """Measure a network: run --iterations forward and backward passes on its own data and log the
average of each layer and of the whole, in milliseconds."""

EXAMPLES = """  barista time --model train_val.prototxt --iterations 20
  barista time -model=deploy.prototxt -phase TEST"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="FILE", help="the network (prototxt)")
    parser.add_argument("--iterations", default=50, type=at_least(1), metavar="N",
                        help="number of passes (default 50)")
    parser.add_argument("--phase", default="TRAIN", type=str.upper, choices=("TRAIN", "TEST"),
                        help="phase of the network's state (default TRAIN)")
    add_network(parser)
    add_compute(parser)
    add_ignored(parser)


def run(args: argparse.Namespace) -> None:
    """Measure one network."""
    warn_ignored("time", args)
    ops = open_ops(args, "caffe.cpp:343")
    net = open_net(args, ops)
    try:
        benchmark(net, args.iterations)
    finally:
        net.close()


def benchmark(net: Net, iterations: int) -> None:
    """Time every layer of `net` over `iterations` passes and log the averages as Caffe does.

    Every reading of the clock waits until the op set has finished what it was given. One
    pass goes before the measurement, so that kernels are built and memory is touched.

    The figures of whole passes hold, beyond the layers', what lies between them.
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
    forward_ms, backward_ms = [0.0] * count, [0.0] * count
    forward_total_ms = backward_total_ms = 0.0
    began = time.perf_counter()
    for iteration in range(iterations):
        start = time.perf_counter()
        for layer in range(count):
            forward_ms[layer] += _timed_ms(net, net.forward_pass, layer)
        middle = time.perf_counter()
        for layer in reversed(range(count)):
            backward_ms[layer] += _timed_ms(net, net.backward_pass, layer)
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


def _timed_ms(net: Net, run_layers: Callable[[int, int], None], layer: int) -> float:
    """Milliseconds that one pass of one layer takes, its end waited for."""
    start = time.perf_counter()
    run_layers(layer, layer)
    net.ops.finish()
    return 1e3 * (time.perf_counter() - start)


def _say(text: str, line: int) -> None:
    logger.info("%s", text, extra={"origin": f"caffe.cpp:{line}"})
