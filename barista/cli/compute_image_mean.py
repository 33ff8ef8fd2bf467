"""``barista compute_image_mean``: the average image of a database."""

from __future__ import annotations

import argparse

from ..data import compute_image_mean
from .arguments import Parser

DESCRIPTION = """Average the images of a database, log the mean of each channel, and write the mean image to
OUTPUT_FILE, which transform_param { mean_file } reads."""

EXAMPLES = """  barista compute_image_mean train_lmdb mean.binaryproto
  barista compute_image_mean train_lmdb"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("input_db", metavar="INPUT_DB", help="folder of the database")
    parser.add_argument("output_file", metavar="OUTPUT_FILE", nargs="?", default=None,
                        help="mean file to write (binaryproto)")
    parser.add_argument("--backend", default="lmdb", metavar="KIND",
                        help="kind of the database: lmdb (default) or leveldb")


def run(args: argparse.Namespace) -> None:
    """Average one database."""
    compute_image_mean(args.input_db, args.output_file, args.backend, progress=not args.quiet)
