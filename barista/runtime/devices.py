"""Which OpenCL devices there are, which one is meant, and why."""

from __future__ import annotations

import dataclasses
import os

from ..errors import DeviceError
from . import pocl
from .driver import cl
from .errors import code_name

_INSTALL = ("run: pip install 'barista-caffe[opencl]', which brings PoCL, a platform for any x86-64 Linux, "
            "or install the driver of your device's vendor")
# Of two kinds the one that a user with such hardware most likely means.
_PREFERENCE = ((cl.device_type.GPU, "GPU"), (cl.device_type.ACCELERATOR, "accelerator"), (cl.device_type.CPU, "CPU"))
# pyopencl's own variable: PLATFORM or PLATFORM:DEVICE, each a number or part of a name.
VARIABLE = "PYOPENCL_CTX"


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the drivers show.

    Attributes
    ----------
    devices : every device of every platform, in the order of the driver
    failed : a line for each platform that shows no device, saying why
    """

    devices: list[cl.Device]
    failed: list[str]


@dataclasses.dataclass(frozen=True)
class Choice:
    """A device and why it was taken."""

    device: cl.Device
    reason: str


def survey() -> Survey:
    """Ask every platform for its devices.

    Raises
    ------
    DeviceError : there is no platform
    """
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        raise DeviceError(f"no OpenCL platform was found ({code_name(error.code)}); {_INSTALL}") from None
    devices: list[cl.Device] = []
    failed = []
    for platform in platforms:
        try:
            found = platform.get_devices()
            reason = ""
        except cl.Error as error:  # a driver without its device
            found, reason = [], f" ({code_name(error.code)})"
        devices += found
        if not found:
            failed.append(f"{platform.name.strip()}: no device{reason}")
    return Survey(devices, failed)


def all_devices() -> list[cl.Device]:
    """Every device of every platform, in the order of the driver.

    Raises
    ------
    DeviceError : there is no platform, or none with a device
    """
    found = survey()
    if not found.devices:
        problem = pocl.cache_problem() if any(line.startswith(pocl.PLATFORM) for line in found.failed) else ""
        if problem:
            raise DeviceError(f"no OpenCL device was found: {problem}")
        raise DeviceError(f"no OpenCL device was found ({'; '.join(found.failed)}); {_INSTALL}")
    return found.devices


def kind(device: cl.Device) -> str:
    """``GPU``, ``accelerator``, ``CPU`` or ``device``."""
    return next((name for bit, name in _PREFERENCE if device.type & bit), "device")


def describe(device: cl.Device) -> str:
    """One line: the device's name, platform, kind and size."""
    return (f"{device.name.strip()} ({device.platform.name.strip()}), {kind(device)}, "
            f"{device.max_compute_units} compute units, {device.global_mem_size >> 20} MiB")


def unfit(device: cl.Device) -> str:
    """Why kernels cannot be built and run on a device, or ''."""
    if not device.available:
        return "its driver says that it is not available"
    if not device.compiler_available:
        return "its driver has no compiler, it runs finished binaries only"
    return ""


def select(wanted: str | None = None) -> Choice:
    """Choose a device and say why.

    Parameters
    ----------
    wanted : an index into `all_devices`, or a part of a device's or its platform's name (the
        first that matches); None looks at the environment variable PYOPENCL_CTX, and without
        it takes the first GPU, else accelerator, else CPU that can build kernels

    Raises
    ------
    DeviceError : no such device; the message lists those there are
    """
    devices = all_devices()
    if wanted is not None:
        return _named(wanted, devices)
    variable = os.environ.get(VARIABLE, "")
    if variable:
        return _by_variable(variable, devices)
    for bit, name in _PREFERENCE:
        for device in devices:
            if device.type & bit and not unfit(device):
                return Choice(device, "the only device" if len(devices) == 1 else
                              f"the first {name} of {len(devices)} devices")
    for device in devices:
        if not unfit(device):
            return Choice(device, f"the first fit one of {len(devices)} devices")
    raise DeviceError("no OpenCL device can build kernels: "
                      + "; ".join(f"{device.name.strip()}: {unfit(device)}" for device in devices) + f"; {_INSTALL}")


def choose(wanted: str | None = None) -> cl.Device:
    """Return the device that `select` takes."""
    return select(wanted).device


def why_not(device: cl.Device, choice: Choice) -> str:
    """Why `select` did not take a device when it made `choice`."""
    if VARIABLE in choice.reason:
        return f"{VARIABLE} asks for another"
    reason = unfit(device)
    if reason:
        return reason
    if kind(device) != kind(choice.device):
        return f"a {kind(choice.device)} goes before a {kind(device)}"
    return f"another {kind(device)} stands before it"


def _listed(devices: list[cl.Device]) -> str:
    return "; ".join(f"{index}: {describe(device)}" for index, device in enumerate(devices))


def _named(wanted: str, devices: list[cl.Device]) -> Choice:
    if wanted.isdecimal():
        if int(wanted) < len(devices):
            return Choice(devices[int(wanted)], f"asked for as device {wanted}")
        problem = f"OpenCL device {wanted} does not exist"
    else:
        for device in devices:
            if wanted.lower() in f"{device.name} {device.platform.name}".lower():
                return Choice(device, f"asked for as {wanted!r}")
        problem = f"no OpenCL device or platform has {wanted!r} in its name"
    raise DeviceError(f"{problem}; choose by index or by a part of the name from {_listed(devices)}")


def _by_variable(text: str, devices: list[cl.Device]) -> Choice:
    """Follow PYOPENCL_CTX: the platform, then the device on it (the first without one)."""
    first, _, second = text.partition(":")
    platforms = cl.get_platforms()
    place = _place(first, [platform.name for platform in platforms])
    problem = f"no platform {first!r}"
    if place is not None:
        there = [device for device in devices if device.platform == platforms[place]]
        number = _place(second, [device.name for device in there])
        if number is not None:
            return Choice(there[number], f"{VARIABLE}={text}")
        problem = f"no device {second!r} on {platforms[place].name.strip()}" if second else \
            f"{platforms[place].name.strip()} shows no device"
    raise DeviceError(f"{VARIABLE}={text}: {problem}; give PLATFORM or PLATFORM:DEVICE, each a number or a part of a "
                      f"name, or unset it; there are {_listed(devices)}")


def _place(wanted: str, names: list[str]) -> int | None:
    """Which of `names` is meant: a number, a part of a name, or the first where nothing is given."""
    if not wanted or wanted.isdecimal():
        number = int(wanted or 0)
        return number if number < len(names) else None
    return next((index for index, name in enumerate(names) if wanted.lower() in name.lower()), None)
