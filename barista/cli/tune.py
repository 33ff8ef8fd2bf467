"""``barista tune``: find the fastest kernels for the convolutions of a network on an OpenCL device."""

from __future__ import annotations

import argparse
import logging

from ..compose import make_ops
from ..latency.workload import Workload
from ..ops.tuned import Tuned
from .arguments import Parser
from .planning import add_planning, net_workloads, open_planning_net
from .progress import progress

logger = logging.getLogger(__name__)

DESCRIPTION = """Measure all kernels that an OpenCL device has for each pass of each convolution of a network, print
what they take, and keep the fastest in the user's cache folder, where later runs find them. Runs do so by themselves
when they meet a convolution for the first time, but for some seconds only; this measures everything, and anew. On a
machine that does other things meanwhile the result is worth little."""

EXAMPLES = """  barista tune --model train_val.prototxt
  barista tune --model deploy.prototxt --phase TEST --batch 1
  barista tune --model train_val.prototxt --input-shape 3,224,224 --device 1"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--device", metavar="ID",
                        help="number of the OpenCL device in `barista device_query`, or part of its name")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32",
                        help="element type to measure with (default float32)")
    add_planning(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, keep and print."""
    ops = make_ops("opencl", args.dtype, args.device)
    logger.info("%s", ops.describe())
    workloads = net_workloads(open_planning_net(args))
    rows: list[tuple[str, ...]] = [("layer and pass", "images", "kernel", "ms", "GF/s", "share of the best", "")]
    works = {(load.geometry, load.pass_): None for load in workloads}
    with progress(len(works), "tune", args.quiet) as bar:
        try:
            for tuned in ops.tune_convolutions(works):
                rows += table_rows(tuned, workloads)
                bar.update(len(tuned.works))
        finally:
            for line in aligned(rows):
                print(line)


def table_rows(tuned: Tuned, workloads: list[Workload]) -> list[tuple[str, ...]]:
    """A row for each kernel, the fastest first; all that run on the same shapes share their rows."""
    names = dict.fromkeys(load.name for load in workloads if (load.geometry, load.pass_) in tuned.works)
    images, operations = tuned.geometry.batch, 2 * tuned.geometry.macs
    best_s = min(tuned.seconds.values(), default=0.0)
    rows = [("", "", kernel, f"{1e3 * seconds:.3g}", f"{operations / seconds / 1e9:.4g}",
             f"{100 * best_s / seconds:.0f} %", "chosen" if kernel == tuned.chosen else "")
            for kernel, seconds in sorted(tuned.seconds.items(), key=lambda item: item[1])]
    head = (", ".join(names), str(images))
    return [(*head, *rows[0][2:]), *rows[1:]] if rows else [(*head, tuned.chosen, "-", "-", "-", "chosen")]


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with the numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if column in (0, 2, 6) else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
