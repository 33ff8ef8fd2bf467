"""``barista draw_net``: a picture of a network."""

from __future__ import annotations

import argparse

from ..draw import RANKDIRS, draw_net_to_file
from ..frontends.prototxt import read_net
from ..proto.caffe_pb2 import Phase
from .arguments import Parser

DESCRIPTION = """Draw a network: a box for each layer, a pill for each blob; a layer that works in place has a dashed
border. The ending of OUTPUT (.svg, .png, .pdf, or another that matplotlib writes) says the format."""

EXAMPLES = """  barista draw_net train_val.prototxt net.svg
  barista draw_net --phase TEST --rankdir TB train_val.prototxt net.png"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("input_net_proto_file", metavar="NET", help="the network")
    parser.add_argument("output_image_file", metavar="OUTPUT", help="the picture")
    parser.add_argument("--rankdir", default="LR", choices=RANKDIRS,
                        help="which way it goes: LR (left to right, the default), TB (top to bottom), BT, RL")
    parser.add_argument("--phase", default="ALL", choices=("TRAIN", "TEST", "ALL"),
                        help="draw the layers of one phase, or all (default ALL)")
    parser.switch("display_lrm", False, "show the factors on the learning rate of a layer's parameters")
    parser.add_argument("--ignore-unknown-fields", action="store_true",
                        help="skip fields that Barista does not know, with a warning")


def run(args: argparse.Namespace) -> None:
    """Draw one network."""
    net = read_net(args.input_net_proto_file, ignore_unknown_fields=args.ignore_unknown_fields)
    phase = None if args.phase == "ALL" else Phase.Value(args.phase)
    draw_net_to_file(net, args.output_image_file, args.rankdir, phase, args.display_lrm)
