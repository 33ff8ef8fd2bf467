"""``barista convert_mnist_data``: MNIST's files into a database."""

from __future__ import annotations

import argparse

from ..data.mnist import convert_mnist
from .arguments import Parser

DESCRIPTION = """Write images and labels in MNIST's format (idx files, also still compressed) into a new database."""

EXAMPLES = """  barista convert_mnist_data train-images-idx3-ubyte train-labels-idx1-ubyte mnist_train_lmdb
  barista convert_mnist_data t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz mnist_test_lmdb"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("images", metavar="IMAGES", help="file of the images (idx3-ubyte, also .gz)")
    parser.add_argument("labels", metavar="LABELS", help="file of their labels (idx1-ubyte, also .gz)")
    parser.add_argument("db_name", metavar="DB_NAME", help="folder of the new database")
    parser.add_argument("--backend", default="lmdb", metavar="KIND", help="kind of the database (default lmdb)")


def run(args: argparse.Namespace) -> None:
    """Convert one pair of files."""
    convert_mnist(args.images, args.labels, args.db_name, args.backend, progress=not args.quiet)
