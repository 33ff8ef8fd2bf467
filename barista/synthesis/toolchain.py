"""C-simulation of a design: the kernel's C++ code, compiled for this machine.

The compiler is the user's; the open headers of HLS's types come with the package hls4ml.  What is built is kept by
what it is built from, so that the same design is compiled once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ..errors import DeviceError, MissingExtraError
from ..resources import cache_folder, find

log = logging.getLogger(__name__)

COMPILERS = ("g++", "clang++")
# A product is rounded before it is added, as in hardware: nothing may be contracted.  What is not initialised is so in
# the open headers.
FLAGS = ("-std=c++14", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-warning-option", "-Wno-unknown-pragmas",
         "-Wno-unused-label", "-Wno-uninitialized", "-Wno-maybe-uninitialized")
LIBRARY_FLAGS = ("-O2", "-fPIC", "-shared")
BENCH_FLAGS = ("-O2", "-Werror")
# The open headers shift negative numbers to the left, which C++ defines since C++20 alone.
SANITIZER_FLAGS = ("-O1", "-g", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize=shift-base",
                   "-fno-sanitize-recover=all")
# Names that a library shows.  All others are its own: loaders would take templates of the same name in two libraries,
# which differ by their configuration, for one.
EXPORTED = "{ global: *_csim; simulation_*; local: *; };\n"
# Lines of a compiler's complaint that a message holds.
_LINES = 20


class Design(Protocol):
    """A kernel and what it is compiled for."""

    @property
    def name(self) -> str:
        """For files and messages."""
        ...

    @property
    def kernel(self) -> str:
        """Its folder in ``hls/``, and its function."""
        ...

    def config(self) -> str:
        """The text of its ``config.h``."""
        ...


def machine() -> str:
    """What a library is for: ``x86_64 Linux``."""
    return f"{platform.machine()} {platform.system()}"


def find_compiler() -> tuple[str, ...]:
    """The C++ compiler: that of ``CXX``, else one of `COMPILERS`, with the words that go before its options.

    Raises
    ------
    DeviceError : there is none
    """
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise DeviceError(f"C-simulation: the variable CXX is {os.environ['CXX']!r} ({error}); name a compiler, or "
                          "unset CXX") from None
    if named:
        if shutil.which(named[0]) is None:
            raise DeviceError(f"C-simulation: the compiler {named[0]!r}, which the variable CXX names, is not found; "
                              "name one that is, or unset CXX")
        return tuple(named)
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return (name,)
    raise DeviceError(f"C-simulation needs a C++ compiler, and none of {', '.join(COMPILERS)} is found; install one "
                      "(Debian, Ubuntu: apt-get install g++), or name it in the variable CXX")


@functools.cache
def compiler_version(compiler: tuple[str, ...]) -> str:
    """The first line of what a compiler says of itself.

    Raises
    ------
    DeviceError : it does not run
    """
    done = _run([*compiler, "--version"], "asking for its version")
    if done.returncode or not done.stdout.strip():
        raise DeviceError(f"C-simulation: `{shlex.join(compiler)} --version` fails: {_complaint(done)}; install the "
                          "compiler again, or name another in the variable CXX")
    return done.stdout.splitlines()[0].strip()


def find_headers() -> Path:
    """The folder of ``ap_int.h`` and ``hls_stream.h`` in the package hls4ml, which is not imported.

    Raises
    ------
    MissingExtraError : the package is not installed
    DeviceError : it has no such headers
    """
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("hls4ml", "hls", "C-simulation, which takes the open headers of HLS's types from it,")
    for place in spec.submodule_search_locations:
        folder = Path(place) / "templates" / "vivado" / "ap_types"
        if (folder / "ap_int.h").is_file() and (folder / "hls_stream.h").is_file():
            return folder
    raise DeviceError(f"C-simulation: the package hls4ml in {', '.join(spec.submodule_search_locations)} has no "
                      "headers templates/vivado/ap_types; run: pip install --force-reinstall 'barista-caffe[hls]'")


def tools() -> dict[str, str]:
    """What a library is compiled with, name to version.

    Raises
    ------
    DeviceError, MissingExtraError : something is not there
    """
    find_headers()
    return {"compiler": compiler_version(find_compiler()), "hls4ml": importlib.metadata.version("hls4ml")}


def build_library(design: Design, folder: str | Path | None = None) -> Path:
    """Compile a kernel as a library for `simulation.Library`, unless `folder` has it.

    Parameters
    ----------
    folder : where it is kept, made where it does not exist; None takes one in the user's cache folder

    Raises
    ------
    DeviceError : there is no compiler, it fails, or the folder takes no files
    MissingExtraError : the headers are not there
    """
    sources = [find("hls", design.kernel, f"{design.kernel}.cpp"), find("hls", design.kernel, "csim.cpp"),
               find("hls", "csim", "simulation.cpp")]
    # So that what loads the library can tell what it was compiled for.
    extra = {"design.cpp": 'extern "C" const char *simulation_config() { return ' + json.dumps(design.config())
             + "; }\n"}
    flags = list(LIBRARY_FLAGS)
    if sys.platform == "linux":
        extra["exported.map"] = EXPORTED
        flags.append("-Wl,--version-script,exported.map")
    return _build(design, folder, sources, flags, extra, ".so")


def build_testbench(design: Design, folder: str | Path | None = None, sanitize: bool = False) -> Path:
    """Compile a kernel's test bench, a program that exits with 0 where all is well, unless `folder` has it.

    Parameters
    ----------
    folder : as of `build_library`
    sanitize : let it stop at accesses beyond memory and at undefined behaviour; it is some ten times slower

    Raises
    ------
    DeviceError, MissingExtraError : as `build_library`
    """
    sources = [find("hls", design.kernel, f"{design.kernel}.cpp"), find("hls", design.kernel, "testbench.cpp"),
               find("hls", "csim", "simulation.cpp")]
    return _build(design, folder, sources, SANITIZER_FLAGS if sanitize else BENCH_FLAGS, {},
                  "_sanitized.bench" if sanitize else ".bench")


def compile_sources(output: Path, sources: Sequence[Path], flags: Sequence[str], texts: dict[str, str],
                    what: str) -> None:
    """Compile sources into one file, which appears when it is whole.

    Parameters
    ----------
    output : what to write; its folder exists
    texts : generated files, name to text: headers that the sources include, further sources, what `flags` name
    what : what is compiled, for messages

    Raises
    ------
    DeviceError : there is no compiler, or it fails; the message holds what it says
    MissingExtraError : the headers are not there
    """
    compiler, headers = find_compiler(), find_headers()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build_") as place:
        for name, text in texts.items():
            Path(place, name).write_text(text, encoding="utf-8")
        made = [name for name in texts if name.endswith(".cpp")]
        done = _run([*compiler, *FLAGS, "-isystem", str(headers), "-I", ".", *map(str, sources), *made, "-o", "output",
                     *flags], f"compiling {what}", place)
        built = Path(place, "output")
        if done.returncode or not built.is_file():
            raise DeviceError(f"{what}: {shlex.join(compiler)} does not compile it ({compiler_version(compiler)}); "
                              f"install g++ 7 or later, or name another compiler in the variable CXX:\n"
                              f"{_complaint(done)}")
        if said := done.stderr.strip():
            log.warning("%s: %s says:\n%s", what, shlex.join(compiler), said)
        os.replace(built, output)


def _build(design: Design, folder: str | Path | None, sources: Sequence[Path], flags: Sequence[str],
           extra: dict[str, str], suffix: str) -> Path:
    """Compile what is not there under a name that says what it is made of."""
    compiler = find_compiler()
    texts = {"config.h": design.config(), **extra}
    key = hashlib.sha256(json.dumps([_sources(design.kernel), texts, [source.name for source in sources], compiler,
                                     compiler_version(compiler), str(find_headers()), FLAGS, list(flags)]).encode())
    kept = Path(folder) if folder is not None else cache_folder("csim")
    output = kept / f"{design.name}_{key.hexdigest()[:16]}{suffix}"
    what = f"C-simulation of {design.name}"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with _alone(kept / f".{output.name}.lock"):
            if not output.exists():
                log.debug("%s is compiled into %s", what, output)
                compile_sources(output, sources, flags, texts, what)
    except OSError as error:
        raise DeviceError(f"{what} cannot be kept in {kept}: {error.strerror or error}; set XDG_CACHE_HOME to a folder "
                          "that can be written") from error
    return output


def _sources(kernel: str) -> dict[str, str]:
    """All files that a kernel's code may include, as they are now."""
    root = find("hls")
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8")
            for folder in (kernel, "common", "csim") for path in sorted((root / folder).glob("*.*"))}


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time inside, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _run(command: Sequence[str], why: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program with its messages in English.

    Raises
    ------
    DeviceError : it cannot be started
    """
    try:
        return subprocess.run(command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True,
                              errors="replace", check=False)
    except OSError as error:
        raise DeviceError(f"C-simulation: {command[0]} cannot be run for {why}: {error.strerror}; install it again, or "
                          "name another compiler in the variable CXX") from error


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said, from the first error on, at most `_LINES` lines of it."""
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
    first = next((number for number, line in enumerate(lines) if "error" in line), 0)
    shown = lines[first:first + _LINES]
    rest = len(lines) - first - len(shown)
    return "\n".join([*shown, *([f"... and {rest} more lines"] if rest else [])])
