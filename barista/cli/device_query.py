"""``barista device_query``: what can compute here, and what to install for more."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from .. import __version__
from ..compose import make_ops
from ..errors import DeviceError, MissingExtraError
from .arguments import Parser, UsageError, add_ignored, warn_ignored

logger = logging.getLogger(__name__)

DESCRIPTION = """List the processor and the OpenCL devices that Barista finds, with the software versions that
matter in a report of a fault."""

EXAMPLES = """  barista device_query
  barista device_query --device 0"""

MEBIBYTE = 2**20


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--gpu", default="", metavar="IDS",
                        help="numbers of the OpenCL devices to list, separated by ',', or all (the default)")
    parser.add_argument("--device", default=None, metavar="ID",
                        help="list one OpenCL device alone: its number, or part of its name")
    add_ignored(parser)


def run(args: argparse.Namespace) -> None:
    """List everything."""
    warn_ignored("device_query", args)
    if args.gpu and args.device is not None:
        raise UsageError("give --gpu or --device, not both")
    logger.info("Querying GPUs %s", args.gpu, extra={"origin": "caffe.cpp:138"})
    for line in host_lines():
        logger.info("%s", line)
    try:
        from ..runtime import devices as runtime

        devices = runtime.all_devices()
        reasons = list(verdicts(devices))
        failed = runtime.survey().failed
        numbers = chosen(args.gpu, len(devices)) if args.device is None else [
            devices.index(runtime.select(args.device).device)]
    except (DeviceError, MissingExtraError) as none:
        if args.gpu not in ("", "all") or args.device is not None:
            raise
        logger.info("OpenCL: %s", none)
        return
    logger.info("OpenCL: %d device(s)", len(devices))
    for line in failed:
        logger.info("OpenCL platform %s", line)
    for number in numbers:
        for line in device_lines(number, devices[number], reasons[number]):
            logger.info("%s", line)


def host_lines() -> Iterator[str]:
    """Describe the processor and the software that computes on it."""
    yield f"Barista {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield f"Processor: {processor_name()}"
    yield make_ops("cpu").describe()
    packages = ("numpy", "protobuf", "lmdb", "Pillow", "h5py", "pyopencl", "pocl-binary-distribution")
    yield "Packages: " + ", ".join(_installed(packages))
    yield from (f"BLAS: {line}" for line in blas_lines())


def blas_lines() -> Iterator[str]:
    """Describe each library of matrix products that is loaded."""
    for library in threadpool_info():
        if library["user_api"] == "blas":
            yield (f"{library['internal_api']} {library['version']} "
                   f"({library.get('architecture', 'unknown')}), {library['num_threads']} threads")


def processor_name() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def verdicts(devices: Sequence[Any]) -> Iterator[str]:
    """Whether ``--backend opencl`` takes each of `devices`, and why or why not."""
    from ..runtime.devices import select, why_not

    try:
        choice = select()
    except DeviceError as error:  # the list of devices is the more wanted
        yield from (f"no: {error}" for _ in devices)
        return
    for device in devices:
        yield f"yes, {choice.reason}" if device == choice.device else f"no, {why_not(device, choice)}"


def device_lines(number: int, device: Any, verdict: str) -> Iterator[str]:
    """Describe one OpenCL device, a property a line as Caffe's own query does."""
    rows = {
        "Device id": number,
        "Name": device.name.strip(),
        "Taken without --device": verdict,
        "Platform": f"{device.platform.name} ({device.platform.version.strip()})",
        "Driver": device.driver_version,
        "Compute units": device.max_compute_units,
        "Clock": f"{device.max_clock_frequency} MHz",
        "Global memory": f"{device.global_mem_size // MEBIBYTE} MiB",
        "Local memory": f"{device.local_mem_size} bytes",
        "Largest allocation": f"{device.max_mem_alloc_size // MEBIBYTE} MiB",
        "Largest work-group": device.max_work_group_size,
    }
    for name, value in rows.items():
        yield f"{name + ':':<30} {value}"


def chosen(ids: str, count: int) -> Sequence[int]:
    """Read the numbers of ``--gpu``, each below `count`.

    Raises
    ------
    DeviceError : no number, or none of a device
    """
    if ids in ("", "all"):
        return range(count)
    try:
        numbers = [int(part) for part in ids.split(",")]
    except ValueError:
        raise DeviceError(f"--gpu {ids}: give device numbers separated by ',', or all") from None
    for number in numbers:
        if not 0 <= number < count:
            known = ", ".join(map(str, range(count))) or "none"
            raise DeviceError(f"--gpu {ids}: there is no OpenCL device {number}; known: {known}")
    return numbers


def _installed(packages: Iterable[str]) -> Iterator[str]:
    for name in packages:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} not installed"
