"""``barista train``: train or finetune a network as a solver prototxt says."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any

from ..frontends.prototxt import read_solver
from ..proto.caffe_pb2 import NetState, SolverParameter
from ..solvers import SignalHandler, Solver, get_solver
from ..solvers.rules import make_rule
from .arguments import Parser, UsageError, add_compute, add_ignored, add_network, comma_list, warn_ignored
from .compute import close_ops, open_ops
from .memory import memory_of
from .progress import progress

logger = logging.getLogger(__name__)

DESCRIPTION = """Train a network. The solver prototxt names the network and says how to train it; the log on
standard error has Caffe's form. Ctrl-C ends training after the current iteration and leaves a snapshot
(unless snapshot_after_train: false); a second Ctrl-C ends it at once."""

EXAMPLES = """  barista train --solver solver.prototxt
  barista train -solver solver.prototxt -snapshot net_iter_1000.solverstate
  barista train -solver solver.prototxt -snapshot auto
  barista train --solver finetune.prototxt --weights trained.caffemodel --seed 1"""

_EFFECTS = ("stop", "snapshot", "none")


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver (prototxt)")
    parser.add_argument("--weights", default=None, metavar="A,B",
                        help="finetune: start from these parameters (caffemodel, or .h5), "
                             "several separated by ','")
    add_training(parser)
    add_ignored(parser)


def add_training(parser: Parser) -> None:
    """Add what decides how training goes on and ends, and where it is computed."""
    parser.add_argument("--snapshot", default=None, metavar="FILE|auto",
                        help="resume from this solver state (.solverstate or .solverstate.h5); auto: from the newest "
                             "complete one of snapshot_prefix, or from the start where there is none")
    parser.add_argument("--sigint_effect", default="stop", choices=_EFFECTS,
                        help="what Ctrl-C does (default stop)")
    parser.add_argument("--sighup_effect", default="snapshot", choices=_EFFECTS,
                        help="what the hang-up signal does (default snapshot)")
    add_network(parser)
    add_compute(parser)


def run(args: argparse.Namespace) -> None:
    """Train one network."""
    warn_ignored("train", args)
    if args.snapshot is not None and args.weights is not None:
        raise UsageError("give --snapshot to resume training or --weights to finetune, not both")
    fields = overrides(args)
    if args.weights is not None:
        fields["weights"] = [args.weights]
    train(args, read_solver(args.solver, ignore_unknown_fields=args.ignore_unknown_fields), fields)


def train(args: argparse.Namespace, param: SolverParameter, fields: dict[str, Any]) -> None:
    """Train as a solver says.

    Parameters
    ----------
    args : the options of `add_training`, and the solver's file
    param : what the file holds
    fields : those of the solver that are replaced
    """
    ops = open_ops(args, "caffe.cpp:197", param)
    with get_solver(param, ops=ops, ignore_unknown_fields=args.ignore_unknown_fields,
                    folder=os.path.dirname(args.solver), plan_memory=True, **fields) as solver:
        if args.snapshot is not None:
            logger.info("Resuming from %s", args.snapshot, extra={"origin": "caffe.cpp:229"})
            solver.restore(args.snapshot)
        logger.info("A batch needs %s", memory_of(solver.net, make_rule(solver.param).moments))
        logger.info("Starting Optimization", extra={"origin": "caffe.cpp:239"})
        with SignalHandler(args.sigint_effect, args.sighup_effect) as action:
            solver.action = action
            solve(solver, args.quiet)
        close_ops(ops)
        logger.info("Optimization Done.", extra={"origin": "caffe.cpp:250"})


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the solver that the command line replaces."""
    fields: dict[str, Any] = {"train_state": NetState(level=args.level, stage=comma_list(args.stage))}
    if args.seed is not None:
        fields["random_seed"] = args.seed
    return fields


def solve(solver: Solver, quiet: bool = False) -> None:
    """Train to the end under a progress bar; raises what `Solver.solve` raises."""
    with progress(solver.param.max_iter, "train", quiet, solver.iter) as bar:
        shown: dict[str, str] = {}

        def moved(iteration: int, loss: float | None) -> None:
            if loss is not None:
                shown["loss"] = f"{loss:.4g}"
            shown["lr"] = f"{solver.lr:.3g}"
            bar.set_postfix(shown, refresh=False)
            bar.update(iteration - bar.n)

        solver.progress = None if bar.disable else moved
        try:
            solver.solve()
        finally:
            solver.progress = None
