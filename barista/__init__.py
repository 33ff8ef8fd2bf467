"""Barista: Caffe that installs, and swaps the engine under the convolutions.

``import barista as caffe`` is the drop-in line for pycaffe scripts; after ``barista.as_caffe()`` theirs may stay.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import (
    BaristaError,
    BitstreamError,
    DataError,
    DeviceError,
    MissingExtraError,
    NetError,
    PrototxtError,
    ScheduleError,
    ShapeError,
    SnapshotError,
    SolverError,
    UnsupportedError,
    nearest,
)

__version__ = "0.1.0.dev0"

# Caffe: the two phases are module constants.
TRAIN = 0
TEST = 1

if TYPE_CHECKING:
    from . import coord_map, draw, io, layers, proto
    from .alias import as_caffe
    from .classifier import Classifier
    from .detector import Detector
    from .glog import init_log
    from .layers import layer_types as layer_type_list
    from .net import Net
    from .net_spec import NetSpec, params, to_proto
    from .pycaffe import (
        NCCL,
        Timer,
        has_nccl,
        log,
        set_device,
        set_mode_gpu,
        set_multiprocess,
        set_solver_count,
        set_solver_rank,
        solver_count,
        solver_rank,
    )
    from .python_layer import Layer
    from .solvers import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        Solver,
        get_solver,
    )

# Names that are imported when first used, so that `import barista` stays quick: the module, and the name in it.
_LAZY = {
    "Classifier": ("barista.classifier", "Classifier"),
    "Detector": ("barista.detector", "Detector"),
    "Layer": ("barista.python_layer", "Layer"),
    "Net": ("barista.net", "Net"),
    "as_caffe": ("barista.alias", "as_caffe"),
    "init_log": ("barista.glog", "init_log"),
    "layer_type_list": ("barista.layers", "layer_types"),
    **{name: ("barista.net_spec", name) for name in ("NetSpec", "params", "to_proto")},
    **{name: ("barista.pycaffe", name) for name in (
        "NCCL", "Timer", "has_nccl", "log", "set_device", "set_mode_gpu", "set_multiprocess", "set_solver_count",
        "set_solver_rank", "solver_count", "solver_rank")},
    **{name: ("barista.solvers", name) for name in (
        "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "NesterovSolver", "RMSPropSolver", "SGDSolver", "Solver",
        "get_solver")},
}

# Modules of pycaffe that scripts use without importing them; `layers` makes layers of a NetSpec, too.
_MODULES = {name: f"barista.{name}" for name in ("coord_map", "draw", "io", "layers", "proto")}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'barista' has no attribute {name!r}; {nearest(name, __all__)}".rstrip("; "))


def __dir__() -> list[str]:
    return sorted(__all__)


def set_mode_cpu() -> None:
    """Let nets made from now on compute on the CPU."""
    from .compose import set_mode

    set_mode("cpu")


def set_mode_opencl(device: str | int | None = None, schedule: str | os.PathLike[str] | None = None, *,
                    verify_gemm: bool = False) -> None:
    """Let nets made from now on compute on an OpenCL device.

    Parameters
    ----------
    device : its number in `barista device_query`, or part of its name; None lets Barista choose
    schedule : file that says what computes each pass of a convolution; None: the fastest kernel that is known
    verify_gemm : compare each convolution and product with the CPU's
    """
    from .compose import set_mode

    set_mode("opencl", device=_device_name(device), schedule=schedule, verify=verify_gemm)


def set_mode_fpga(bitstream: str | os.PathLike[str] | None = None, schedule: str | os.PathLike[str] | None = None, *,
                  inner_products: bool = False, device: str | int | None = None, verify_gemm: bool = False) -> None:
    """Let nets made from now on compute their convolutions on an FPGA, or on an emulated one.

    Parameters
    ----------
    bitstream : a manifest or a folder of them; None builds one for the emulated board
    schedule : the file that says which bitstream computes each layer and pass
    inner_products : without a schedule, whether inner products run there too
    device : number of the OpenCL device, or part of its name; None takes that of the bitstreams' board
    verify_gemm : compare each convolution and product with the CPU's
    """
    from .compose import set_mode

    set_mode("fpga", bitstream=bitstream, schedule=schedule, inner_products=inner_products,
             device=_device_name(device), verify=verify_gemm)


def _device_name(device: str | int | None) -> str | None:
    """A device as the runtime knows it: numbers are texts there, as on the command line."""
    return None if device is None else str(device)


def set_random_seed(seed: int) -> None:
    """Start all random generators anew (fillers, dropout, augmentation)."""
    from .rng import set_seed

    set_seed(seed)


__all__ = [
    "NCCL", "TEST", "TRAIN", "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "BaristaError", "BitstreamError",
    "Classifier", "DataError", "Detector", "DeviceError", "Layer", "MissingExtraError", "NesterovSolver", "Net",
    "NetError", "NetSpec", "PrototxtError", "RMSPropSolver", "SGDSolver", "ScheduleError", "ShapeError",
    "SnapshotError", "Solver", "SolverError", "Timer", "UnsupportedError", "__version__", "as_caffe", "coord_map",
    "draw", "get_solver", "has_nccl", "init_log", "io", "layer_type_list", "layers", "log", "params", "proto",
    "set_device", "set_mode_cpu", "set_mode_fpga", "set_mode_gpu", "set_mode_opencl", "set_multiprocess",
    "set_random_seed", "set_solver_count", "set_solver_rank", "solver_count", "solver_rank", "to_proto",
]
