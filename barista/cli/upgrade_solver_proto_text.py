"""``barista upgrade_solver_proto_text``: an older solver into the current form."""

from __future__ import annotations

import argparse

from ..frontends.upgrading import upgraded_solver
from .arguments import Parser
from .upgrade import add_files, require_writable, write_as_text

DESCRIPTION = """Write a solver of the older form (solver_type: ADAM) in the current one (type: "Adam"), with the nets
that stand inside it. Comments are not kept. A solver that is current already is written too."""

EXAMPLES = "  barista upgrade_solver_proto_text old_solver.prototxt solver.prototxt"


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_files(parser, "the prototxt of a solver")


def run(args: argparse.Namespace) -> None:
    """Upgrade one file."""
    require_writable(args.file_out)
    solver, changed = upgraded_solver(args.file_in, ignore_unknown_fields=args.ignore_unknown_fields)
    write_as_text(args, solver, changed, "upgrade_solver_proto_text.cpp")
