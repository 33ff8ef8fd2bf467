"""What `barista doctor` checks of devices: OpenCL drivers, OpenCL devices, and what FPGA boards need."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import BaristaError
from ..hardware.board import board_names
from ..hardware.library import Library
from ..resources import cache_folder
from ..runtime.icd import drivers
from .checks import BROKEN, MISSING, OK, Check

_PROBE = (sys.executable, "-m", "barista.cli.probe")
_SECONDS = 300
EMULATED_BOARD = "emulated board"
_POCL = "run: pip install 'barista-caffe[opencl]', which brings PoCL, OpenCL on the processor"
# Asks the probe one thing: nothing for the list of devices, or a device's number.
Ask = Callable[..., dict[str, Any]]


def ask(*words: str) -> dict[str, Any]:
    """Run the probe in a process of its own and return its answer; what went wrong stands under ``error``."""
    try:
        done = subprocess.run([*_PROBE, *words], capture_output=True, text=True, errors="replace", timeout=_SECONDS,
                              check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"it does not answer within {_SECONDS} s"}
    if done.returncode < 0:
        return {"error": f"the driver crashes (signal {-done.returncode})"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return {"error": last[0]}


def is_device(check: Check) -> bool:
    """Whether a check is that of an OpenCL device, and not of a driver."""
    return check.section == "OpenCL" and check.name.startswith("device ")


def opencl_checks(ask: Ask = ask) -> Iterator[Check]:
    """The drivers that the loader is told of, and each device: whether kernels build there and compute right."""
    if importlib.util.find_spec("pyopencl") is None:
        yield Check("OpenCL", "devices", MISSING, "pyopencl is not installed, so that no driver can be asked", _POCL)
        return
    told = drivers()
    for driver in told:
        name = f"driver {driver.file}"
        if driver.problem:
            yield Check("OpenCL", name, BROKEN, f"{driver.library or 'its library'} cannot be used: {driver.problem}",
                        f"install the driver again, or remove {driver.file}")
        else:
            yield Check("OpenCL", name, OK, f"{driver.library} loads")
    if not told:
        yield Check("OpenCL", "drivers", MISSING, "no file *.icd tells the loader of a driver",
                    f"{_POCL}, or install the driver of your device's vendor")
    answer = ask()
    if "error" in answer:
        advice = "" if "run:" in answer["error"] else _POCL
        yield Check("OpenCL", "devices", BROKEN if told else MISSING, answer["error"], advice)
        return
    for line in answer["failed"]:
        yield Check("OpenCL", "platform", BROKEN, line, "plug in or power its device, and see to it that this user may "
                    "open it (groups video, render)")
    for number, device in enumerate(answer["devices"]):
        yield _device_check(number, device, ask)


def _device_check(number: int, device: dict[str, Any], ask: Ask) -> Check:
    name, taken = f"device {number}", f"taken without --device: {device['taken']}"
    if device["unfit"]:
        return Check("OpenCL", name, BROKEN, f"{device['name']}: {device['unfit']}",
                     f"install a driver with a compiler, or choose another device with --device; {taken}")
    found = ask(str(number))
    problem = found.get("error") or found["problem"]
    if problem:
        return Check("OpenCL", name, BROKEN, f"{device['name']}: {problem}",
                     "update its driver, choose another device with --device, or compute with --backend cpu")
    notes = "".join(f"; {note}" for note in found["notes"])
    return Check("OpenCL", name, OK, f"{device['name']}: kernels build and compute right, {found['seconds']:.1f} s; "
                 f"{taken}{notes}")


def fpga_checks(works: bool, bitstream: str | None = None, ask: Ask = ask) -> Iterator[Check]:
    """Boards, the emulated one tried, bitstreams, and the runtime of cards.

    Parameters
    ----------
    works : whether there is an OpenCL device that computes right
    bitstream : a manifest or a folder of them to look at; None takes those that Barista built for the emulated board
    """
    yield Check("FPGA", "boards", OK, f"known: {', '.join(board_names())}")
    if not works:
        yield Check("FPGA", EMULATED_BOARD, MISSING, "it needs an OpenCL device that computes right", _POCL)
    else:
        found = ask("fpga")
        problem = found.get("error") or found["problem"]
        if problem:
            yield Check("FPGA", EMULATED_BOARD, BROKEN, problem, "compute with --backend opencl or --backend cpu")
        else:
            yield Check("FPGA", EMULATED_BOARD, OK, f"a network computes right, {found['seconds']:.1f} s")
    yield from _bitstream_checks(bitstream)
    tools = [path for path in map(shutil.which, ("xrt-smi", "xbutil")) if path]
    place = os.environ.get("XILINX_XRT") or ("/opt/xilinx/xrt" if os.path.isdir("/opt/xilinx/xrt") else "")
    if place and not os.path.isdir(place):
        yield Check("FPGA", "XRT", BROKEN, f"XILINX_XRT is {place}, where there is no folder",
                    "source the setup.sh of your XRT, or unset the variable")
    elif place or tools:
        yield Check("FPGA", "XRT", OK, ", ".join([*([place] if place else []), *tools]))
    else:
        yield Check("FPGA", "XRT", MISSING, "the runtime of AMD's cards is not installed; the emulated board does "
                    "without it", "to use a card, install XRT and the card's platform, then source XRT's setup.sh")


def _bitstream_checks(given: str | None) -> Iterator[Check]:
    if given is None:
        folder = cache_folder("bitstreams")
        places = sorted({path.parent for path in folder.glob("*/*.json")}) if folder.is_dir() else []
        if not places:
            yield Check("FPGA", "bitstreams", OK, "none is built yet; the first use of --backend fpga builds one for "
                        "the emulated board")
    else:
        places = [Path(given)]
    for place in places:
        try:
            for found in Library(place).bitstreams.values():
                try:
                    found.verify()
                    board = found.manifest.board.name
                    yield Check("FPGA", f"bitstream {found.name}", OK, f"{place}, for the board {board}")
                except BaristaError as error:
                    yield Check("FPGA", f"bitstream {found.name}", BROKEN, str(error), _rebuild(given, place))
        except BaristaError as error:
            yield Check("FPGA", "bitstreams", BROKEN, str(error), _rebuild(given, place))


def _rebuild(given: str | None, place: Path) -> str:
    return f"remove {place}; it is built again when it is needed" if given is None else \
        "build or copy it again: barista bitstream build, or barista bitstream import"
