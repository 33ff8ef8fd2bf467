"""``barista tune_gemm``: find the fastest sizes of matrix products for an OpenCL device."""

from __future__ import annotations

import argparse
import logging

from ..compose import make_ops
from .arguments import Parser

logger = logging.getLogger(__name__)

DESCRIPTION = """Measure which tiles, chunks and strips of matrix products are fast on an OpenCL device, and keep
the fastest in the user's cache folder, where later runs find them. Takes a minute on an idle machine; on a busy one
the result is worth little."""

EXAMPLES = """  barista tune_gemm
  barista tune_gemm --device 1"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--device", metavar="ID",
                        help="number of the OpenCL device in `barista device_query`, or part of its name")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32",
                        help="element type to tune for (default float32)")


def run(args: argparse.Namespace) -> None:
    """Measure and keep."""
    ops = make_ops("opencl", args.dtype, args.device)
    logger.info("%s", ops.describe())
    for line in ops.tune():
        logger.info("%s", line)
