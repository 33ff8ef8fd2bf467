"""What `barista doctor` checks of this computer without a device: Python, packages, the processor, folders."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .. import __version__
from ..compose import make_ops
from ..errors import BaristaError
from ..resources import FOLDERS, cache_folder, find
from ..synthesis.toolchain import compiler_version, find_compiler
from .device_query import blas_lines, processor_name

OK, MISSING, BROKEN = "ok", "missing", "broken"
OLDEST_PYTHON = (3, 11)
_MIB = 2**20
# Kernels and bitstreams of a few networks.
_CACHE_BYTES = 256 * _MIB


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found about one thing.

    Attributes
    ----------
    section : heading that it stands under
    name : the thing
    verdict : ``ok``, ``missing`` or ``broken``
    detail : what was found
    advice : what to do; '' where all is well
    needed : whether nothing works without it
    """

    section: str
    name: str
    verdict: str
    detail: str = ""
    advice: str = ""
    needed: bool = False


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that Barista uses.

    Attributes
    ----------
    name : as pip knows it
    module : as Python imports it
    least : the oldest version that will do
    extra : the extra that brings it; '' for what is always installed
    use : what it is for
    """

    name: str
    module: str
    least: str
    extra: str
    use: str


# setup.cfg is the list that counts; a test holds that these are its entries.
PACKAGES = (
    Package("numpy", "numpy", "1.26", "", "arrays and matrix products"),
    Package("protobuf", "google.protobuf", "4.21", "", "Caffe's file formats"),
    Package("lmdb", "lmdb", "1.4", "", "LMDB databases"),
    Package("Pillow", "PIL", "10", "", "images"),
    Package("threadpoolctl", "threadpoolctl", "3.1", "", "threads of matrix products"),
    Package("tqdm", "tqdm", "4.60", "", "progress bars"),
    Package("h5py", "h5py", "3.8", "hdf5", "weights, snapshots and data in HDF5 files"),
    Package("plyvel", "plyvel", "1.5", "leveldb", "LevelDB databases"),
    Package("pyopencl", "pyopencl", "2024.1", "opencl", "the backends opencl and fpga"),
    Package("pocl-binary-distribution", "pocl_binary_distribution", "3.0", "opencl", "OpenCL on the processor"),
    Package("scikit-learn", "sklearn", "1.3", "digits", "the digits of barista digits and barista demo"),
    Package("matplotlib", "matplotlib", "3.8", "plot", "charts"),
    Package("numba", "numba", "0.60", "simulate", "the cycle-level simulator"),
    Package("onnx", "onnx", "1.17", "onnx", "ONNX and Caffe2 models, in and out"),
    Package("hls4ml", "hls4ml", "1.0", "hls", "the open headers of HLS's types, for bitstreams of engine csim"),
)

# Imports each module of its arguments and says how that went; in a process of its own, since an import may crash.
_IMPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, "crashed the process"]), flush=True)
    try:
        importlib.import_module(name)
        print(json.dumps([name, ""]), flush=True)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""
_IMPORT_SECONDS = 120


def host_checks() -> Iterator[Check]:
    """Everything but devices, in the order in which it is shown."""
    yield python_check()
    packages = list(package_checks())
    yield from (check for check in packages if check.section == "Base")
    yield from folder_checks()
    yield from (check for check in packages if check.section != "Base")
    yield compiler_check()
    yield from processor_checks()


def python_check() -> Check:
    """Python and Barista itself."""
    detail = (f"{platform.python_version()} ({sys.executable}), Barista {__version__} in "
              f"{Path(__file__).resolve().parents[1]}, {platform.platform()}")
    if sys.version_info < OLDEST_PYTHON:
        return Check("Base", "Python", BROKEN, detail, "install Python 3.11 or later", needed=True)
    return Check("Base", "Python", OK, detail, needed=True)


def package_checks(packages: Sequence[Package] = PACKAGES) -> Iterator[Check]:
    """Whether each package is installed, new enough, and can be imported."""
    versions = {package.name: _version(package.name) for package in packages}
    outcome = _imported([package.module for package in packages if versions[package.name]])
    for package in packages:
        section = "Extras" if package.extra else "Base"
        pip = f"run: pip install 'barista-caffe[{package.extra}]'" if package.extra else \
            f"run: pip install '{package.name}>={package.least}'"
        version, needed = versions[package.name], not package.extra
        name = f"{package.extra}: {package.name}" if package.extra else package.name
        if not version:
            if package.name == "pocl-binary-distribution" and (sys.platform, platform.machine()) != ("linux", "x86_64"):
                yield Check(section, name, MISSING, "there is none for this system",
                            "install the OpenCL driver of your device's vendor")
                continue
            yield Check(section, name, MISSING, f"not installed; for {package.use}", pip, needed)
        elif problem := outcome.get(package.module, ""):
            yield Check(section, name, BROKEN, f"{version}, but importing it fails: {problem}",
                        _repair(package, problem), needed)
        elif _older(version, package.least):
            yield Check(section, name, BROKEN, f"{version}, but {package.least} or later is needed", pip, needed)
        else:
            yield Check(section, name, OK, f"{version}: {package.use}", needed=needed)


def compiler_check() -> Check:
    """The C++ compiler, which bitstreams of engine csim are built with."""
    try:
        return Check("Extras", "hls: C++ compiler", OK, compiler_version(find_compiler()))
    except BaristaError as error:
        return Check("Extras", "hls: C++ compiler", MISSING, str(error).partition(";")[0],
                     "install g++, or name a compiler in the variable CXX")


def folder_checks() -> Iterator[Check]:
    """What ships with Barista, and the folder that it keeps kernels in."""
    for folder in FOLDERS:
        try:
            yield Check("Base", folder, OK, str(find(folder)), needed=True)
        except BaristaError as error:
            yield Check("Base", folder, BROKEN, str(error), "reinstall barista-caffe", needed=True)
    cache = cache_folder("")
    advice = "set XDG_CACHE_HOME to a folder that can be written"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        yield Check("Base", "cache folder", BROKEN, f"{cache} cannot be written: {error.strerror}; without it kernels "
                    "are built and measured anew in each run", advice)
        return
    free = shutil.disk_usage(cache).free
    if free < _CACHE_BYTES:
        yield Check("Base", "cache folder", BROKEN, f"{cache} has {free // _MIB} MiB left", f"free some, or {advice}")
    else:
        yield Check("Base", "cache folder", OK, f"{cache}, {free // _MIB:,} MiB free")


def processor_checks(compute: Callable[[], str] | None = None) -> Iterator[Check]:
    """The processor, its BLAS, and whether the backend cpu computes right.

    Parameters
    ----------
    compute : returns what is wrong, or ''; None computes a little network
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("Processor", "processor", OK, f"{processor_name()}, {cores} core(s) for this process")
    libraries = list(blas_lines())
    if libraries:
        yield from (Check("Processor", "BLAS", OK, line) for line in libraries)
    else:
        yield Check("Processor", "BLAS", MISSING, "NumPy names none that threadpoolctl knows, so that its threads "
                    "cannot be held; matrix products may be slow",
                    "install NumPy by pip: pip install --force-reinstall numpy")
    if compute is None:
        from .probe import trouble

        def compute() -> str:
            return trouble("cpu")
    try:
        problem = compute()
    except BaristaError as error:
        problem = str(error)
    name = "backend cpu"
    if problem:
        yield Check("Processor", name, BROKEN, problem, "reinstall NumPy: pip install --force-reinstall numpy", True)
    else:
        yield Check("Processor", name, OK, f"{make_ops('cpu').describe()}; a network computes right", needed=True)


def _version(name: str) -> str:
    """Version of an installed package, '' for one that is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _older(version: str, least: str) -> bool:
    """Whether a version comes before another; words in it count as nothing."""
    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part]  # type: ignore[index]

    return numbers(version) < numbers(least)


def _imported(modules: Sequence[str]) -> dict[str, str]:
    """For each module what its import fails with, or ''."""
    outcome: dict[str, str] = {}
    ahead = list(modules)
    while ahead:
        try:
            out = subprocess.run([sys.executable, "-c", _IMPORT, *ahead], capture_output=True, text=True,
                                 errors="replace", timeout=_IMPORT_SECONDS, check=False).stdout
        except subprocess.TimeoutExpired as error:
            out = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        before = len(outcome)
        outcome.update(json.loads(line) for line in out.splitlines() if line.startswith("["))
        if len(outcome) == before:
            break
        ahead = [name for name in modules if name not in outcome]  # behind one that crashed
    return outcome


def _repair(package: Package, problem: str) -> str:
    """What to do about a package that is there and cannot be imported."""
    if package.name == "pyopencl" and "OpenCL" in problem:
        return ("install an OpenCL loader (Debian, Ubuntu: apt-get install ocl-icd-libopencl1), or take pyopencl's "
                "wheel, which has one: pip install --force-reinstall --only-binary :all: pyopencl")
    return f"run: pip install --force-reinstall {package.name}"
