"""The drivers that an OpenCL loader is told of: files ``*.icd`` that name a library each, and whether it loads.

A loader passes over a driver that does not load without a word; this says why. No OpenCL is called.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

DEFAULT_FOLDER = "/etc/OpenCL/vendors"
# Variables that put another folder, file or library in its place; the loader looks at the first that is set.
VARIABLES = ("OCL_ICD_VENDORS", "OPENCL_VENDOR_PATH")
_SECONDS = 30
# In a process of its own, since a library may crash while it is loaded. The symbol is what loaders look for.
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).clGetExtensionFunctionAddress"


@dataclasses.dataclass(frozen=True)
class Driver:
    """One driver.

    Attributes
    ----------
    file : the ``.icd`` file, or the variable that names the library
    library : what it names
    problem : why the library cannot be used, or ''
    """

    file: str
    library: str
    problem: str


def drivers() -> list[Driver]:
    """Every driver that pyopencl's loader is told of, in its own folder and in the system's or the variable's."""
    variable = next((name for name in VARIABLES if os.environ.get(name)), None)
    place = os.environ[variable] if variable else DEFAULT_FOLDER
    found = []
    if variable and not os.path.isdir(place) and not place.endswith(".icd"):
        found.append(Driver(variable, place, _problem(place)))
    elif os.path.isfile(place):
        found.append(_driver(Path(place)))
    else:
        found += [_driver(path) for path in sorted(Path(place).glob("*.icd"))]
    return found + [_driver(path) for folder in _own_folders() for path in sorted(folder.glob("*.icd"))]


def _own_folders() -> list[Path]:
    """Where pyopencl's wheel keeps its loader, and packages such as PoCL's their drivers."""
    spec = importlib.util.find_spec("pyopencl")
    return [Path(place) / ".libs" for place in (spec.submodule_search_locations or [] if spec else [])]


def _driver(path: Path) -> Driver:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        return Driver(str(path), "", f"the file cannot be read: {error.strerror}")
    library = lines[0].strip() if lines else ""
    if not library:
        return Driver(str(path), "", "the file is empty; it should name a library")
    beside = path.parent / library
    return Driver(str(path), library, _problem(str(beside) if beside.exists() else library))


def _problem(library: str) -> str:
    """Why a library does not load, in the words of the system's loader; or ''."""
    try:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", _LOAD, library], capture_output=True, text=True,
                              errors="replace", timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"loading it does not end within {_SECONDS} s"
    if done.returncode < 0:
        return f"loading it crashes (signal {-done.returncode})"
    last = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    return last[0].partition(": ")[2] if last else ""
