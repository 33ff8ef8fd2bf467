"""Composition: the one place that turns a backend's name into an op set.

Everything else receives an `OpSet` and knows nothing of devices.
"""

from __future__ import annotations

import logging
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UnsupportedError, nearest
from .ops.base import OpSet

log = logging.getLogger(__name__)

BACKENDS = ("cpu", "opencl", "fpga")

_mode: str = "cpu"
_default: dict[tuple[str, np.dtype[np.generic]], OpSet] = {}
# Those of them that were made with options.
_tailored: set[tuple[str, np.dtype[np.generic]]] = set()


def make_ops(backend: str = "cpu", dtype: npt.DTypeLike = np.float32, device: str | None = None,
             threads: int | None = None, *, bitstream: str | PathLike[str] | None = None,
             schedule: str | PathLike[str] | None = None, inner_products: bool = False, verify: bool = False) -> OpSet:
    """Make an op set.

    Parameters
    ----------
    backend : ``cpu``, ``opencl`` or ``fpga``
    dtype : float32, or float64 for gradient checks
    device : which OpenCL device (index or part of its name); None lets the runtime choose
    threads : threads of the CPU op set; None takes all cores
    bitstream : for ``fpga``, a manifest or a folder of them; None builds one for the emulated board
    schedule : for ``fpga``, the file that says which bitstream computes what
    inner_products : for ``fpga`` without a schedule, whether inner products run on the array too
    verify : compare each convolution and product with the CPU's

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
        ops = _opencl(host, device)
    else:
        from .ops.fpga import open_fpga

        ops = open_fpga(host, bitstream, schedule, inner_products, device, lambda: _opencl(host, device))
    if verify:
        from .ops.verify import VerifiedOps

        ops = VerifiedOps(ops, host)
    return ops


def _opencl(host: OpSet, device: str | None) -> OpSet:
    from .ops.opencl import OpenCLOps

    return OpenCLOps(host, device)


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


def default_ops(dtype: npt.DTypeLike = np.float32) -> OpSet:
    """The op set of the current mode, made once per dtype."""
    key = (_mode, np.dtype(dtype))
    if key not in _default:
        _default[key] = make_ops(_mode, dtype)
        log.info("Backend %s, the present mode; %s", _mode, _default[key].describe())
    return _default[key]
