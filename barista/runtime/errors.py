"""OpenCL errors by name."""

from __future__ import annotations

from typing import Any

from ..errors import DeviceError
from .driver import cl

_ADVICE = {
    "MEM_OBJECT_ALLOCATION_FAILURE": "the device is out of memory: lower the batch size",
    "OUT_OF_RESOURCES": "the device ran out of memory or a kernel failed: lower the batch size",
    "OUT_OF_HOST_MEMORY": "the host is out of memory: lower the batch size",
    "DEVICE_NOT_AVAILABLE": "another process holds the device, or its driver is down",
}


def code_name(code: int) -> str:
    """Name of an OpenCL status code, such as ``INVALID_KERNEL_ARGS`` for -52."""
    to_string: Any = cl.status_code.to_string
    return str(to_string(code, "unknown code %d"))


def device_error(error: cl.Error, doing: str) -> DeviceError:
    """Turn an error of pyopencl into a `DeviceError` that says what was being done.

    Parameters
    ----------
    error : what pyopencl raised
    doing : who was doing what, with numbers
    """
    name = code_name(error.code)
    advice = _ADVICE.get(name)
    return DeviceError(f"{doing}: {error.routine or 'OpenCL'} failed with {name} ({error.code})"
                       + (f"; {advice}" if advice else ""))
