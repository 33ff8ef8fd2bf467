"""Which OpenCL devices there are, and which one is meant."""

from __future__ import annotations

from ..errors import DeviceError
from .driver import cl
from .errors import code_name

_INSTALL = ("run: pip install 'barista-caffe[opencl]', which brings PoCL, a platform for any x86-64 Linux, "
            "or install the driver of your device's vendor")
# Of two kinds the one that a user with such hardware most likely means.
_PREFERENCE = ((cl.device_type.GPU, "GPU"), (cl.device_type.ACCELERATOR, "accelerator"), (cl.device_type.CPU, "CPU"))


def all_devices() -> list[cl.Device]:
    """Every device of every platform, in the order of the driver.

    Raises
    ------
    DeviceError : there is no platform, or none with a device
    """
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        raise DeviceError(f"no OpenCL platform was found ({code_name(error.code)}); {_INSTALL}") from None
    devices: list[cl.Device] = []
    for platform in platforms:
        try:
            devices += platform.get_devices()
        except cl.Error:  # a driver without its device
            continue
    if not devices:
        names = ", ".join(platform.name for platform in platforms)
        raise DeviceError(f"no OpenCL device was found on the platform(s) {names}; {_INSTALL}")
    return devices


def kind(device: cl.Device) -> str:
    """``GPU``, ``accelerator``, ``CPU`` or ``device``."""
    return next((name for bit, name in _PREFERENCE if device.type & bit), "device")


def describe(device: cl.Device) -> str:
    """One line: the device's name, platform, kind and size."""
    return (f"{device.name.strip()} ({device.platform.name.strip()}), {kind(device)}, "
            f"{device.max_compute_units} compute units, {device.global_mem_size >> 20} MiB")


def choose(wanted: str | None = None) -> cl.Device:
    """Return the device that is meant.

    Parameters
    ----------
    wanted : an index into `all_devices`, or a part of a device's or its platform's name (the
        first that matches); None takes the first GPU, else accelerator, else CPU

    Raises
    ------
    DeviceError : no such device; the message lists those there are
    """
    devices = all_devices()
    if wanted is None:
        for bit, _ in _PREFERENCE:
            for device in devices:
                if device.type & bit:
                    return device
        return devices[0]
    if wanted.isdecimal():
        if int(wanted) < len(devices):
            return devices[int(wanted)]
        problem = f"OpenCL device {wanted} does not exist"
    else:
        for device in devices:
            if wanted.lower() in f"{device.name} {device.platform.name}".lower():
                return device
        problem = f"no OpenCL device or platform has {wanted!r} in its name"
    listed = "; ".join(f"{index}: {describe(device)}" for index, device in enumerate(devices))
    raise DeviceError(f"{problem}; choose by index or by a part of the name from {listed}")
