"""What pycaffe's module offers beside nets, solvers and layers: its log, device, timer, and several solvers at once.

Caffe trains on several GPUs by a process for each, joined by NVIDIA's NCCL.  Barista trains in one process on one
device: what asks for one solver is accepted, and what asks for more says what to do instead.

Nets, solvers and layers are found here too, as in pycaffe's modules ``caffe.pycaffe`` and ``caffe._caffe``.
"""

from __future__ import annotations

import importlib
import logging
import time
from typing import Any, NoReturn

from . import compose
from .errors import UnsupportedError, nearest

logger = logging.getLogger(__name__)

_INSTEAD = ("Barista trains with one solver on one device; for larger batches set iter_size in the solver, which adds "
            "up the gradients of several batches, and where to compute by set_device or --device")

# What pycaffe's modules offer and this one takes from its neighbours when it is asked for: name to module.
_LAZY = {
    **{name: "barista" for name in (
        "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Layer", "NesterovSolver", "Net", "RMSPropSolver", "SGDSolver",
        "Solver", "__version__", "get_solver", "init_log", "io", "layer_type_list", "set_mode_cpu",
        "set_random_seed")},
    "Blob": "barista.blob",
    "BlobVec": "barista.python_layer",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        hint = nearest(name, (*_LAZY, *(known for known in globals() if not known.startswith("_"))))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {hint}".rstrip("; "))
    return getattr(importlib.import_module(_LAZY[name]), name)


def log(text: str) -> None:
    """Write a line into the log, which `init_log` shows."""
    logger.info("%s", text, stacklevel=2)


def set_device(device: int | str) -> None:
    """Choose the OpenCL device of `set_mode_gpu`; where that is the mode already, nets made from now on use it.

    Parameters
    ----------
    device : its number in `barista device_query`, or part of its name

    Raises
    ------
    DeviceError : there is no such device; without OpenCL in use this shows when `set_mode_gpu` is called
    """
    compose.set_device(str(device))


def set_mode_gpu() -> None:
    """Let nets made from now on compute on an OpenCL device, which stands for the GPU of Caffe's scripts."""
    compose.set_mode("opencl", device=compose.chosen_device())


# ---- several solvers ------------------------------------------------------------------------


def solver_count() -> int:
    """How many solvers train one net: 1."""
    return 1


def set_solver_count(count: int) -> None:
    """Accept a count of 1.

    Raises
    ------
    UnsupportedError : more solvers than one
    """
    if count != 1:
        raise UnsupportedError(f"set_solver_count({count}): {_INSTEAD}")


def solver_rank() -> int:
    """The number of this process's solver: 0."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Accept rank 0.

    Raises
    ------
    UnsupportedError : another rank
    """
    if rank != 0:
        raise UnsupportedError(f"set_solver_rank({rank}): {_INSTEAD}")


def set_multiprocess(multiprocess: bool) -> None:
    """Accept either: with one solver it makes no difference whether processes share their layers."""


def has_nccl() -> bool:
    """Whether several solvers can be joined by NCCL: they cannot."""
    return False


class NCCL:
    """pycaffe's join of several solvers, which Barista does not have.

    Raises
    ------
    UnsupportedError : always; the message says what to use instead
    """

    def __init__(self, *_: Any) -> None:
        self.new_uid()

    @staticmethod
    def new_uid() -> NoReturn:
        """Refuse, as the class does."""
        raise UnsupportedError(f"NCCL joins solvers on several NVIDIA GPUs: {_INSTEAD}")


class Timer:
    """A stop-watch that waits for the devices (pycaffe).

    Attributes
    ----------
    ms : milliseconds between the last start and its stop; of one that still runs, it is stopped first
    """

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._lapse_s = 0.0

    def start(self) -> None:
        """Start anew when the devices have done what was asked of them so far."""
        compose.finish()
        self._start_s = time.perf_counter()

    def stop(self) -> None:
        """Stop when the devices are done; a timer that does not run keeps its time."""
        if self._start_s is not None:
            compose.finish()
            self._lapse_s = time.perf_counter() - self._start_s
            self._start_s = None

    @property
    def ms(self) -> float:
        """Milliseconds; 0 for one that never ran."""
        self.stop()
        return self._lapse_s * 1e3
