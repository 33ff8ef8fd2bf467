"""Composition: the one place that turns a backend's name into an op set.

Everything else receives an `OpSet` and knows nothing of devices.
"""

from __future__ import annotations

import functools
import logging
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DeviceError, MissingExtraError, UnsupportedError, nearest
from .ops.base import OpSet
from .schedule import OPENCL, Schedule

log = logging.getLogger(__name__)

BACKENDS = ("cpu", "opencl", "fpga")

_mode: str = "cpu"
# The OpenCL device of those that name none; None lets the runtime choose.
_device: str | None = None
_default: dict[tuple[str, np.dtype[np.generic]], OpSet] = {}
# Those of them that were made with options.
_tailored: set[tuple[str, np.dtype[np.generic]]] = set()


def make_ops(backend: str = "cpu", dtype: npt.DTypeLike = np.float32, device: str | None = None,
             threads: int | None = None, *, bitstream: str | PathLike[str] | None = None,
             schedule: str | PathLike[str] | None = None, inner_products: bool = False, verify: bool = False,
             measure: bool = True) -> OpSet:
    """Make an op set.

    Parameters
    ----------
    backend : ``cpu``, ``opencl`` or ``fpga``
    dtype : float32, or float64 for gradient checks
    device : which OpenCL device (index or part of its name); None lets the runtime choose
    threads : threads of the CPU op set; None takes all cores
    bitstream : for ``fpga``, a manifest or a folder of them; None builds one for the emulated board
    schedule : for ``fpga`` and ``opencl``, the file that says what computes each pass of a convolution
    inner_products : for ``fpga`` without a schedule, whether inner products run on the array too
    verify : compare each convolution and product with the CPU's
    measure : for OpenCL, find the fastest kernels by measuring where they are not known; else a rule chooses

    Raises
    ------
    UnsupportedError : no such backend, or a dtype that it does not have
    DeviceError, MissingExtraError : the backend cannot run here
    BitstreamError, ScheduleError : files that cannot be used
    """
    if backend not in BACKENDS:
        hint = nearest(backend, BACKENDS)
        raise UnsupportedError(f"backend {backend!r} is not in this version; choose one of {', '.join(BACKENDS)}"
                               + (f" ({hint})" if hint else ""))
    from .ops.cpu import CpuOps

    host = CpuOps(dtype, threads)
    if backend == "cpu":
        return host
    ops: OpSet
    if backend == "opencl":
        ops = _opencl(host, device, schedule, measure)
    else:
        from .ops.fpga import open_fpga

        opencl = functools.cache(lambda: _opencl_beside(host, device, schedule, measure))
        rest = opencl() if _is_processor(device) else host
        ops = open_fpga(rest, bitstream, schedule, inner_products, device, opencl)
    if verify:
        from .ops.verify import VerifiedOps

        ops = VerifiedOps(ops, host)
    return ops


def _opencl(host: OpSet, device: str | None, schedule: str | PathLike[str] | None, measure: bool) -> OpSet:
    """The OpenCL op set, which alone takes schedules without bitstreams."""
    from .ops.opencl import OpenCLOps
    from .ops.scheduled import ScheduledOps

    if schedule is None:
        return OpenCLOps(host, device, measure=measure)
    plan = Schedule.load(schedule)
    return ScheduledOps(OpenCLOps(host, device, plan.on(OPENCL), measure), host, plan)


def _is_processor(device: str | None) -> bool:
    """Whether the OpenCL device is the processor: beside an emulated board it computes faster so than by NumPy.

    Where there is no device, and none is asked for, that is no error here: bitstreams of engine csim do without.
    """
    try:
        from .ops.opencl import OpenCLOps

        return OpenCLOps.is_processor(device)
    except (DeviceError, MissingExtraError):
        if device is not None:
            raise
        return False


def _opencl_beside(host: OpSet, device: str | None, schedule: str | PathLike[str] | None, measure: bool) -> OpSet:
    """The OpenCL op set for those passes of a schedule that are not the array's, and for other layers."""
    from .ops.opencl import OpenCLOps

    return OpenCLOps(host, device, None if schedule is None else Schedule.load(schedule).on(OPENCL), measure)


def set_mode(backend: str, **options: Any) -> None:
    """Choose the backend of nets that are made without an op set (pycaffe's set_mode_*), and log what computes.

    Parameters
    ----------
    options : further arguments of `make_ops`, None and False as if not given; with any of them a new op set is made
    """
    global _mode
    make = (backend, np.dtype(np.float32))
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    if given or make in _tailored or make not in _default:
        _default[make] = make_ops(backend, **given)
        (_tailored.add if given else _tailored.discard)(make)
    _mode = backend
    log.info("Backend %s, chosen by set_mode; %s", backend, _default[make].describe())


def set_device(device: str | None) -> None:
    """Choose the OpenCL device for `set_mode_gpu` (pycaffe's set_device), and change to it where OpenCL computes."""
    global _device
    if _mode == "opencl":
        set_mode("opencl", device=device)
    _device = device


def chosen_device() -> str | None:
    """What `set_device` was told."""
    return _device


def finish() -> None:
    """Wait until the op sets of all modes have computed what they were asked to."""
    for ops in _default.values():
        ops.finish()


def default_ops(dtype: npt.DTypeLike = np.float32) -> OpSet:
    """The op set of the current mode, made once per dtype."""
    key = (_mode, np.dtype(dtype))
    if key not in _default:
        _default[key] = make_ops(_mode, dtype)
        log.info("Backend %s, the present mode; %s", _mode, _default[key].describe())
    return _default[key]
