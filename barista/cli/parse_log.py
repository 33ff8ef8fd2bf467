"""``barista parse_log``: the log of a training run as tables."""

from __future__ import annotations

import argparse
import csv
import logging
import os
from collections.abc import Sequence

from ..errors import DataError
from ..files import replacing
from .arguments import Parser
from .training_log import Row, read_log

logger = logging.getLogger(__name__)

DESCRIPTION = """Write what a training log says of the training net and of the test nets as two tables (CSV),
OUTPUT_FOLDER/LOG.train and OUTPUT_FOLDER/LOG.test, with the columns NumIters, Seconds, LearningRate and one for each
output. LOG is what `barista train` writes on standard error (2> train.log); logs of Caffe are read as well."""

EXAMPLES = """  barista parse_log train.log .
  barista parse_log --delimiter ';' train.log tables/"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("log", metavar="LOG", help="the log of a training run")
    parser.add_argument("output_folder", metavar="OUTPUT_FOLDER", help="folder for the two tables")
    parser.add_argument("--delimiter", default=",", metavar="C", help="character between two columns (default ,)")
    parser.add_argument("--verbose", action="store_true", help="print the names of the files")


def run(args: argparse.Namespace) -> None:
    """Parse one log."""
    if len(args.delimiter) != 1 or args.delimiter in '\r\n"':
        raise DataError(f"--delimiter {args.delimiter!r}: give one character that is no quote and no line's end")
    if not os.path.isdir(args.output_folder):
        raise DataError(f"{args.output_folder}: there is no such folder; make it first: mkdir -p {args.output_folder}")
    log = read_log(args.log)
    for ending, rows in (("train", log.train), ("test", log.test)):
        path = os.path.join(args.output_folder, f"{os.path.basename(args.log)}.{ending}")
        if rows:
            write_table(path, rows, args.delimiter)
        said = f"Wrote {path}" if rows else f"Not writing {path}; no lines to write"
        if args.verbose:
            print(said)
        else:
            logger.info("%s", said)


def write_table(path: str | os.PathLike[str], rows: Sequence[Row], delimiter: str = ",") -> None:
    """Write rows as a table; where there are several test nets, a column TestNet says which.

    Raises
    ------
    SnapshotError : the file cannot be written
    """
    several = len({row.net for row in rows}) > 1
    names = dict.fromkeys(name for row in rows for name in row.outputs)
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerow(["NumIters", "Seconds", "LearningRate", *names, *(["TestNet"] if several else [])])
        for row in rows:
            table.writerow([float(row.iteration), row.seconds, row.rate, *(row.outputs.get(name, "") for name in names),
                            *([row.net] if several else [])])
