"""``barista digits``: handwritten digits as databases, a data set that needs no download."""

from __future__ import annotations

import argparse
import logging
import os

from ..data import digits_to_lmdb
from .arguments import Parser

logger = logging.getLogger(__name__)

DESCRIPTION = """Write scikit-learn's 1,797 handwritten digits, grey images of 28x28 pixels, as two databases
into FOLDER: digits_train_lmdb (1,437 images) and digits_test_lmdb (360)."""

EXAMPLES = "  barista digits ."


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("folder", metavar="FOLDER",
                        help="folder for the two databases; made if it is not there")


def run(args: argparse.Namespace) -> None:
    """Write both databases."""
    os.makedirs(args.folder, exist_ok=True)
    train, test = digits_to_lmdb(args.folder)
    logger.info("Wrote %s and %s", train, test)
