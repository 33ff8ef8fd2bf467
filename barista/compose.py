"""Composition: the one place that turns a backend's name into an op set.

Everything else receives an `OpSet` and knows nothing of devices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import UnsupportedError, nearest
from .ops.base import OpSet

BACKENDS = ("cpu", "opencl")

_mode: str = "cpu"
_default: dict[tuple[str, np.dtype[np.generic]], OpSet] = {}


def make_ops(backend: str = "cpu", dtype: npt.DTypeLike = np.float32, device: str | None = None,
             threads: int | None = None) -> OpSet:
    """Make an op set.

    Parameters
    ----------
    backend : ``cpu`` or ``opencl``
    dtype : float32, or float64 for gradient checks
    device : which OpenCL device (index or part of its name); None lets the runtime choose
    threads : threads of the CPU op set; None takes all cores

    Raises
    ------
    UnsupportedError : no such backend
    DeviceError, MissingExtraError : the backend cannot run here
    """
    if backend == "cpu":
        from .ops.cpu import CpuOps

        return CpuOps(dtype, threads)
    if backend == "opencl":
        from .ops.cpu import CpuOps
        from .ops.opencl import OpenCLOps

        return OpenCLOps(CpuOps(dtype, threads), device)
    hint = nearest(backend, BACKENDS)
    raise UnsupportedError(f"backend {backend!r} is not in this version; choose one of {', '.join(BACKENDS)}"
                           + (f" ({hint})" if hint else ""))


def set_mode(backend: str) -> None:
    """Choose the backend of nets that are made without an op set (pycaffe's set_mode_*)."""
    global _mode
    make = (backend, np.dtype(np.float32))
    if make not in _default:
        _default[make] = make_ops(backend)
    _mode = backend


def default_ops(dtype: npt.DTypeLike = np.float32) -> OpSet:
    """The op set of the current mode, made once per dtype."""
    key = (_mode, np.dtype(dtype))
    if key not in _default:
        _default[key] = make_ops(_mode, dtype)
    return _default[key]
