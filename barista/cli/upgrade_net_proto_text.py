"""``barista upgrade_net_proto_text``: an older net into the current form, as text."""

from __future__ import annotations

import argparse

from ..frontends.upgrading import upgraded_net
from .arguments import Parser
from .upgrade import add_files, require_writable, write_as_text

DESCRIPTION = """Write a net of an older form (layers, V0 layers, input and input_dim, settings of transformations in
data layers) in the current one, as text. Comments are not kept. A net that is current already is written too."""

EXAMPLES = """  barista upgrade_net_proto_text old.prototxt new.prototxt
  barista upgrade_net_proto_text train_val.prototxt train_val.prototxt"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_files(parser, "the prototxt of a net")


def run(args: argparse.Namespace) -> None:
    """Upgrade one file."""
    require_writable(args.file_out)
    net, changed = upgraded_net(args.file_in, ignore_unknown_fields=args.ignore_unknown_fields)
    write_as_text(args, net, changed, "upgrade_net_proto_text.cpp")
