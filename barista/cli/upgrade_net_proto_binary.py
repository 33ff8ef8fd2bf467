"""``barista upgrade_net_proto_binary``: an older caffemodel into the current form."""

from __future__ import annotations

import argparse
import logging

from ..files import write_message
from ..frontends.upgrading import upgraded_net
from .arguments import Parser
from .upgrade import add_files, require_writable, say_if_current

logger = logging.getLogger(__name__)

DESCRIPTION = """Write a caffemodel of an older form in the current one; its weights stay as they are. A file that is
current already is written too."""

EXAMPLES = "  barista upgrade_net_proto_binary old.caffemodel new.caffemodel"


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_files(parser, "a net with its weights (caffemodel)")


def run(args: argparse.Namespace) -> None:
    """Upgrade one file."""
    require_writable(args.file_out)
    net, changed = upgraded_net(args.file_in, ignore_unknown_fields=args.ignore_unknown_fields)
    say_if_current(args, changed, "upgrade_net_proto_binary.cpp")
    write_message(net, args.file_out)
    logger.info("Wrote upgraded NetParameter binary proto to %s", args.file_out,
                extra={"origin": "upgrade_net_proto_binary.cpp:46"})
