"""``barista convert_cifar_data``: CIFAR-10's binary files into two databases."""

from __future__ import annotations

import argparse
import logging

from ..data.cifar import convert_cifar
from .arguments import Parser

logger = logging.getLogger(__name__)

DESCRIPTION = """Write the images of CIFAR-10 into two new databases, OUTPUT_FOLDER/cifar10_train_DB_TYPE and
OUTPUT_FOLDER/cifar10_test_DB_TYPE. INPUT_FOLDER holds the files of the "binary version": data_batch_1.bin to
data_batch_5.bin and test_batch.bin."""

EXAMPLES = "  barista convert_cifar_data cifar-10-batches-bin . lmdb"


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("input_folder", metavar="INPUT_FOLDER", help="folder of the binary files")
    parser.add_argument("output_folder", metavar="OUTPUT_FOLDER", help="folder for the two databases")
    parser.add_argument("db_type", metavar="DB_TYPE", nargs="?", default="lmdb",
                        help="kind of the databases (default lmdb)")


def run(args: argparse.Namespace) -> None:
    """Convert one folder."""
    train, test = convert_cifar(args.input_folder, args.output_folder, args.db_type, progress=not args.quiet)
    logger.info("Wrote %s and %s", train, test)
