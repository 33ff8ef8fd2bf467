"""``barista convert_imageset``: image files with labels into a database for training."""

from __future__ import annotations

import argparse

from ..data import convert_imageset
from .arguments import Parser, at_least

DESCRIPTION = """Write the images of a list into a new database, LMDB or LevelDB. Each line of LISTFILE is a
file's name, relative to ROOTFOLDER, a space and the label, a whole number: cats/1.jpg 0"""

EXAMPLES = """  barista convert_imageset --resize_width 32 --resize_height 32 photos/ train.txt train_lmdb
  barista convert_imageset --gray photos/ test.txt test_lmdb
  barista convert_imageset --shuffle --encoded --encode_type png photos/ train.txt train_lmdb"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("root_folder", metavar="ROOTFOLDER/", help="folder that the names are relative to")
    parser.add_argument("list_file", metavar="LISTFILE", help="a line an image: name and label")
    parser.add_argument("db_name", metavar="DB_NAME", help="folder of the new database")
    parser.switch("gray", False, "store grey images, one channel instead of three")
    parser.switch("shuffle", False, "write the images in random order")
    parser.add_argument("--backend", default="lmdb", metavar="KIND",
                        help="kind of the database: lmdb (default) or leveldb")
    parser.add_argument("--resize_width", default=0, type=at_least(0), metavar="PIXELS",
                        help="width to resize to (default: the file's own)")
    parser.add_argument("--resize_height", default=0, type=at_least(0), metavar="PIXELS",
                        help="height to resize to (default: the file's own)")
    parser.switch("check_size", False, "refuse images of different sizes")
    parser.switch("encoded", False, "store encoded images (jpg, png) instead of pixels")
    parser.add_argument("--encode_type", default="", metavar="TYPE",
                        help="encode all images as this type, for example png")
    parser.add_argument("--seed", default=None, type=at_least(0), metavar="N",
                        help="the same seed shuffles the same way")


def run(args: argparse.Namespace) -> None:
    """Convert one list."""
    convert_imageset(args.root_folder, args.list_file, args.db_name, gray=args.gray, shuffle=args.shuffle,
                     backend=args.backend, resize_width=args.resize_width, resize_height=args.resize_height,
                     check_size=args.check_size, encoded=args.encoded, encode_type=args.encode_type,
                     progress=not args.quiet, seed=args.seed)
