"""What the three upgrade commands share: read a file of any form, write it in the current one."""

from __future__ import annotations

import argparse
import logging
import os

from ..errors import PrototxtError
from ..files import replacing, why_unwritable
from ..frontends.prototxt import to_text
from ..proto.caffe_pb2 import NetParameter, SolverParameter
from .arguments import Parser

logger = logging.getLogger(__name__)


def add_files(parser: Parser, what: str) -> None:
    """Declare the two files; `what` says what they hold."""
    parser.add_argument("file_in", metavar="IN", help=f"{what} in an older form, or in the current one")
    parser.add_argument("file_out", metavar="OUT", help="file to write; IN itself will do")
    parser.add_argument("--ignore-unknown-fields", action="store_true",
                        help="skip fields that Barista does not know, with a warning")


def require_writable(path: str | os.PathLike[str]) -> None:
    """Make sure, before anything is read, that OUT can be written.

    Raises
    ------
    PrototxtError : it cannot, and why
    """
    if problem := why_unwritable(path):
        raise PrototxtError(f"{os.fspath(path)}{problem}")


def write_as_text(args: argparse.Namespace, message: NetParameter | SolverParameter, changed: bool,
                  origin: str) -> None:
    """Write OUT as text, whole or not at all, and say what was done.

    Parameters
    ----------
    changed : whether IN had another form
    origin : the file of Caffe that writes the same lines
    """
    say_if_current(args, changed, origin)
    with replacing(args.file_out) as part:
        part.write_text(to_text(message), encoding="ascii")
    logger.info("Wrote upgraded %s text proto to %s", type(message).__name__, args.file_out,
                extra={"origin": f"{origin}:49"})


def say_if_current(args: argparse.Namespace, changed: bool, origin: str) -> None:
    """Log Caffe's line for a file that needs no upgrade."""
    if not changed:
        logger.warning("File already in latest proto format: %s", args.file_in, extra={"origin": f"{origin}:43"})
