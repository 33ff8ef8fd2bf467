"""``barista demo``: train a network on handwritten digits from nothing, in about a minute."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path

from .. import glog
from ..data import digits_to_lmdb
from ..errors import NetError
from ..frontends.prototxt import read_net, read_solver
from ..net import Net
from ..proto.caffe_pb2 import TEST
from ..resources import find
from ..solvers import SignalHandler, get_solver
from .arguments import Parser, add_compute
from .compute import close_ops, open_ops
from .test import report
from .train import solve

DESCRIPTION = """Train LeNet on scikit-learn's handwritten digits and test it. Databases, network, solver, log
and snapshot are those of any Caffe training; all files go into one folder, to play with afterwards."""

EXAMPLES = """  barista demo
  barista demo --folder digits --seed 2"""

NETWORK = "lenet_digits"
DATABASES = ("digits_train_lmdb", "digits_test_lmdb")
LOG = "train.log"
TEST_BATCHES = 6  # of 60 images: each of the 360 once


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--folder", default="demo", metavar="FOLDER",
                        help="where everything goes (default demo); made if it is not there")
    add_compute(parser)


def run(args: argparse.Namespace) -> None:
    """Make the data, train, test, and say what to try next."""
    for name in ("bitstream", "schedule"):  # which lie where the command was given
        if getattr(args, name) is not None:
            setattr(args, name, os.path.abspath(getattr(args, name)))
    os.makedirs(args.folder, exist_ok=True)
    with contextlib.chdir(args.folder), open(LOG, "w") as lines:
        # The screen is for the bar; who wants Caffe's log finds it in the file.
        glog.init_log(args.log_level, lines)
        try:
            prepare(args.folder)
            weights, accuracy = train(args)
        finally:
            glog.init_log(args.log_level)
    print(farewell(args.folder, weights, accuracy))


def prepare(folder: str) -> None:
    """Put the network's files and the databases into the current folder; what is there stays."""
    sources = sorted(find("prototxt", NETWORK).glob("*.prototxt"))
    for source in sources:
        if not os.path.exists(source.name):
            shutil.copyfile(source, source.name)
    if all(map(os.path.exists, DATABASES)):
        print(f"Data: the databases that are in {folder} already")
    else:
        print(f"Data: writing 1,797 images of handwritten digits to {folder}", flush=True)
        digits_to_lmdb(".")


def train(args: argparse.Namespace) -> tuple[str, float]:
    """Train in the current folder; return the snapshot's name and the share of test images it gets right."""
    param = read_solver("solver.prototxt")
    ops = open_ops(args, "caffe.cpp:197", param)
    print(f"Network: {NETWORK}, {param.max_iter} iterations. {ops.describe()}", flush=True)
    seed = {} if args.seed is None else {"random_seed": args.seed}
    with get_solver("solver.prototxt", ops=ops, **seed) as solver, SignalHandler() as action:
        solver.action = action
        solve(solver, args.quiet)
        weights = f"{solver.param.snapshot_prefix}_iter_{solver.iter}.caffemodel"
    net = Net(read_net("train_val.prototxt"), TEST, ops=ops)
    try:
        net.copy_from(weights)
        averages = report(net, TEST_BATCHES, args.quiet)
    finally:
        net.close()
    close_ops(ops)
    if "accuracy" not in averages:
        raise NetError(f"{os.path.abspath('train_val.prototxt')} has no output 'accuracy' any more; move the "
                       "folder away to start the demo anew, or use `barista train` on it")
    return weights, averages["accuracy"]


def farewell(folder: str, weights: str, accuracy: float) -> str:
    """What the demo says at its end."""
    state = Path(weights).with_suffix(".solverstate")
    in_environment = sys.prefix != sys.base_prefix and "VIRTUAL_ENV" not in os.environ
    activate = f"  source {shlex.quote(os.path.join(sys.prefix, 'bin', 'activate'))}\n" if in_environment else ""
    return f"""
Test accuracy: {100 * accuracy:.1f} % of 360 images that the network has never seen.

{folder} holds the trained weights ({weights}),
the log in Caffe's form ({LOG}), the network and the solver. What to try next:

{activate}  cd {shlex.quote(folder)}
  barista test --model train_val.prototxt --weights {weights} --iterations {TEST_BATCHES}
  barista time --model train_val.prototxt --iterations 20

Change the network (train_val.prototxt) or how it is trained (solver.prototxt), and train again:

  barista train --solver solver.prototxt

With `pip install 'barista-caffe[opencl]'` the same goes faster: barista train --solver solver.prototxt --backend opencl

Or set max_iter: 600 in solver.prototxt and go on from here:

  barista train --solver solver.prototxt --snapshot {state}"""
