"""``barista plot_log``: curves of training runs."""

from __future__ import annotations

import argparse
import logging
import os

from ..errors import DataError
from .arguments import Parser, at_least
from .curves import CHARTS, chart, panels, plot_panels
from .plot import require_plot
from .training_log import read_log

logger = logging.getLogger(__name__)

DESCRIPTION = """Draw loss, accuracy (and whatever else the nets put out) and learning rate of training runs from their
logs, several in one chart to compare them. Logs of Caffe are read as well. Needs the extra `plot`."""

EXAMPLES = """  barista plot_log train.log --out train.png
  barista plot_log fixed.log step.log poly.log --out compared.svg
  barista plot_log train.log --x seconds --out train.png
  barista plot_log train.log --chart 2 --out test_loss.png"""


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("logs", metavar="LOG", nargs="+", help="the log of a training run")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write (.png, .svg, .pdf)")
    parser.add_argument("--x", default=None, choices=("iterations", "seconds"),
                        help="what the curves run along (default iterations)")
    parser.add_argument("--chart", default=None, type=at_least(0), metavar="N",
                        help="draw one chart alone, by its number in Caffe's plot_training_log: " + ", ".join(CHARTS))
    parser.add_argument("--title", default=None, help="text above the chart (default: the names of the logs)")


def run(args: argparse.Namespace) -> None:
    """Draw one chart."""
    require_plot(args.out, "--out")
    if args.chart is not None and args.chart >= len(CHARTS):
        raise DataError(f"--chart {args.chart}: there are the charts {', '.join(CHARTS)}")
    if args.chart is not None and args.x is not None:
        raise DataError(f"--chart {CHARTS[args.chart]}: the number says what it runs along; leave --x away")
    logs = [read_log(path) for path in args.logs]
    if args.chart is None:
        drawn, along = panels(logs), args.x or "iterations"
    else:
        panel, along = chart(args.chart, logs)
        drawn = [panel]
    title = ", ".join(os.path.basename(path) for path in args.logs) if args.title is None else args.title
    plot_panels(drawn, along, title, args.out)
    logger.info("Wrote %s", args.out)
