"""What a command computes, and with which op set; the log lines that say so."""

from __future__ import annotations

import argparse
import dataclasses
import logging

import numpy as np

from .. import rng
from ..compose import make_ops
from ..errors import DeviceError, MissingExtraError
from ..frontends.prototxt import read_net
from ..net import Net
from ..ops.base import OpSet
from ..proto.caffe_pb2 import Phase, SolverParameter
from .arguments import comma_list
from .planning import change_inputs, planning_definition

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A backend, and why it is the one.

    Attributes
    ----------
    backend : its name
    reason : completes "chosen by ..."
    """

    backend: str
    reason: str


# Caffe's line names the mode; ours says with the backend's name what there is instead of CUDA.
_NAMES = {"cpu": "CPU", "opencl": "OpenCL", "fpga": "FPGA"}
_OF_MODE = {SolverParameter.CPU: Choice("cpu", "solver_mode: CPU"),
            SolverParameter.GPU: Choice("opencl", "solver_mode: GPU, which is OpenCL here"),
            SolverParameter.FPGA: Choice("fpga", "solver_mode: FPGA")}


def choose(args: argparse.Namespace, solver: SolverParameter | None = None) -> Choice:
    """Which backend computes: --backend, else --gpu, else the solver's mode, else the CPU.

    Caffe: a solver that names no mode means GPU.
    """
    if args.backend is not None:
        return Choice(args.backend.lower(), "--backend")
    if args.gpu is not None:
        return Choice("opencl", "--gpu, which is OpenCL here")
    if solver is None:
        return Choice("cpu", "default; --backend chooses another")
    if not solver.HasField("solver_mode"):
        return Choice("opencl", "the solver, which gives no solver_mode: that means GPU in Caffe, which is OpenCL here")
    return _OF_MODE[solver.solver_mode]


def open_ops(args: argparse.Namespace, origin: str, solver: SolverParameter | None = None,
             measure: bool = True) -> OpSet:
    """Make the op set that the command line, or else the solver's mode, asks for.

    Parameters
    ----------
    args : the options of `arguments.add_compute`
    origin : place in Caffe that says which device is used
    solver : its solver_mode counts where ``--backend`` is not given
    measure : see `make_ops`

    Raises
    ------
    UnsupportedError : a backend that this version does not have
    DeviceError, MissingExtraError : it cannot run here; nothing else takes its place
    """
    choice = choose(args, solver)
    try:
        ops = make_ops(choice.backend, np.float32, args.device, args.threads, bitstream=args.bitstream,
                       schedule=args.schedule, inner_products=args.inner_products, verify=args.verify_gemm,
                       measure=measure)
    except (DeviceError, MissingExtraError) as error:
        if args.backend is not None:
            raise
        raise DeviceError(f"backend {choice.backend}, chosen by {choice.reason}: {error}; or give --backend cpu to "
                          "compute on the processor") from error
    logger.info("Backend %s, chosen by %s; %s", choice.backend, choice.reason, ops.describe())
    logger.info("Use %s.", _NAMES[choice.backend], extra={"origin": origin})
    _warn(args, choice.backend, solver)
    if args.seed is not None:
        rng.set_seed(args.seed)
    return ops


def close_ops(ops: OpSet) -> None:
    """Log what there is to say of an op set at the end of a run."""
    summary = ops.summary()
    if summary:
        logger.info("%s", summary)


def _warn(args: argparse.Namespace, backend: str, solver: SolverParameter | None) -> None:
    """Say which of the given options have no effect."""
    number = f"--gpu {args.gpu}" if args.gpu is not None else (
        f"device_id: {solver.device_id}" if solver is not None and solver.device_id > 0 and backend == "opencl" else "")
    if number:
        logger.warning("%s: the numbers are CUDA's and are not followed; `barista device_query` lists what can "
                       "compute here, --backend and --device choose it", number)
    if args.device is not None and backend == "cpu":
        logger.warning("--device %s has no effect on the backend cpu; give --backend opencl or fpga with it",
                       args.device)
    if args.verify_gemm and backend == "cpu":
        logger.warning("--verify-gemm has no effect on the backend cpu, with which the others are compared; give "
                       "--backend opencl or fpga with it")
    for name, value, backends in (("bitstream", args.bitstream, ["fpga"]),
                                  ("schedule", args.schedule, ["opencl", "fpga"]),
                                  ("inner-products", args.inner_products, ["fpga"])):
        if value and backend not in backends:
            logger.warning("--%s has no effect on the backend %s; give --backend %s with it", name, backend,
                           " or ".join(backends))


def open_net(args: argparse.Namespace, ops: OpSet, plan_memory: bool = False) -> Net:
    """Make the net of ``--model`` in the state that the command line gives; `plan_memory` as for `Net`.

    Caffe: level and stages of the command line are set even where they are not given.
    """
    definition = read_net(args.model, ignore_unknown_fields=args.ignore_unknown_fields)
    definition.state.level = args.level
    return Net(definition, Phase.Value(args.phase), ops=ops, stages=comma_list(args.stage),
               plan_memory=plan_memory)


def open_net_with_images(args: argparse.Namespace, ops: OpSet, plan_memory: bool = False) -> Net:
    """Make the net as `open_net` does, with the batch and the images of `planning.add_input`'s options.

    With ``--input-shape`` the images are random numbers, and labels are 0.
    """
    definition = planning_definition(args)
    change_inputs(args, definition)
    net = Net(definition, ops=ops, plan_memory=plan_memory)
    if args.input_shape is not None:
        image = next(layer.top[0] for layer in definition.layer if layer.type == "Input")
        net.blobs[image].data[...] = rng.generator().standard_normal(net.blobs[image].shape, np.float32)
    return net
