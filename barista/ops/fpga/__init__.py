"""The FPGA op set: products or whole convolutions on the array of a bitstream, everything else on a host op set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from ...errors import BitstreamError
from ...schedule import Schedule
from ..base import OpSet
from .loader import Loader
from .opset import FpgaOps

log = logging.getLogger(__name__)

__all__ = ["FpgaOps", "Loader", "open_fpga"]


def open_fpga(host: OpSet, bitstream: str | os.PathLike[str] | None = None,
              schedule: str | os.PathLike[str] | None = None, inner_products: bool = False,
              device: str | None = None, open_opencl: Callable[[], OpSet] | None = None) -> FpgaOps:
    """Make the op set of a card, or of an emulated one.

    Parameters
    ----------
    host : computes everything else
    bitstream : a manifest or a folder of them; None builds one for the emulated board
    schedule : the file that says which bitstream computes each layer and pass
    inner_products : without a schedule, whether inner products run on the array too
    device : which OpenCL device
    open_opencl : opens the op set of the schedule's passes with engine opencl

    Raises
    ------
    BitstreamError : no bitstream there, or several and nothing that says which
    ScheduleError : the schedule cannot be read
    DeviceError, MissingExtraError : no device
    """
    from .device import open_loader

    plan = None if schedule is None else Schedule.load(schedule)
    if plan is not None and inner_products:
        log.warning("Inner products were asked for on the array (--inner-products), which has no effect with a "
                    "schedule; name their bitstream in %s: \"inner_products\": \"NAME\"", plan.source)
    loader, default = open_loader(bitstream, device)
    if plan is None and not default:
        raise BitstreamError(f"{bitstream} holds {len(loader.names)} bitstreams ({', '.join(loader.names)}): give one "
                             "of them, or a schedule that says which computes what")
    return FpgaOps(host, loader, default, plan, inner_products, open_opencl)
