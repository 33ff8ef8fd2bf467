"""What a command computes, and with which op set; the log lines that say so."""

from __future__ import annotations

import argparse
import logging

import numpy as np

from .. import rng
from ..compose import make_ops
from ..errors import UnsupportedError
from ..frontends.prototxt import read_net
from ..net import Net
from ..ops.base import OpSet
from ..proto.caffe_pb2 import Phase, SolverParameter
from .arguments import comma_list

logger = logging.getLogger(__name__)


def open_ops(args: argparse.Namespace, origin: str, solver: SolverParameter | None = None) -> OpSet:
    """Make the op set that the command line, or else the solver's mode, asks for.

    Parameters
    ----------
    args : the options of `arguments.add_compute`
    origin : place in Caffe that says which device is used
    solver : its solver_mode counts where ``--backend`` is not given

    Raises
    ------
    UnsupportedError : a backend that this version does not have
    DeviceError, MissingExtraError : it cannot run here
    """
    backend = args.backend.lower() if args.backend is not None else _backend_of(solver)
    ops = make_ops(backend, np.float32, args.device, args.threads)
    logger.info("Use %s.", "CPU" if backend == "cpu" else "OpenCL", extra={"origin": origin})
    logger.info("Backend %s, chosen by %s; %s", backend, _reason(args, solver), ops.describe())
    if args.gpu is not None:
        logger.warning("--gpu %s is not followed: Barista has no CUDA backend; `barista device_query` lists "
                       "what can compute here, --backend and --device choose it", args.gpu)
    if args.device is not None and backend == "cpu":
        logger.warning("--device %s has no effect on the CPU; give --backend opencl with it", args.device)
    if args.seed is not None:
        rng.set_seed(args.seed)
    return ops


def open_net(args: argparse.Namespace, ops: OpSet) -> Net:
    """Make the net of ``--model`` in the state that the command line gives.

    Caffe: level and stages of the command line are set even where they are not given.
    """
    definition = read_net(args.model, ignore_unknown_fields=args.ignore_unknown_fields)
    definition.state.level = args.level
    return Net(definition, Phase.Value(args.phase), ops=ops, stages=comma_list(args.stage))


def _backend_of(solver: SolverParameter | None) -> str:
    """Caffe: a solver that names no mode means GPU; there is none here, and the CPU takes its place."""
    if solver is not None and solver.solver_mode == SolverParameter.FPGA:
        raise UnsupportedError("solver_mode: FPGA is not in this version; write solver_mode: CPU, or give "
                               "--backend cpu or --backend opencl")
    return "cpu"


def _reason(args: argparse.Namespace, solver: SolverParameter | None) -> str:
    if args.backend is not None:
        return "--backend"
    if solver is None:
        return "the default"
    if solver.solver_mode == SolverParameter.CPU:
        return "solver_mode: CPU"
    given = solver.HasField("solver_mode")
    said = "solver_mode: GPU" if given else "no solver_mode, which means GPU in Caffe"
    return f"{said}: this version computes that on the CPU unless --backend opencl is given"
