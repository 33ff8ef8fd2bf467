"""A library of a kernel's C++ code, loaded into this process, and what its runs did."""

from __future__ import annotations

import _ctypes
import ctypes
import dataclasses
import os
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class StreamUse:
    """Entries of a stream: what it may hold, and what it held at the most."""

    depth: int
    most: int


@dataclasses.dataclass(frozen=True)
class PortUse:
    """Beats that passed through a port to memory."""

    reads: int
    writes: int


@dataclasses.dataclass(frozen=True)
class SimulationReport:
    """What a run did.

    Parameters
    ----------
    on_chip : name of a memory to its words, second copies included
    streams, ports : by their names
    """

    on_chip: Mapping[str, int]
    streams: Mapping[str, StreamUse]
    ports: Mapping[str, PortUse]

    @classmethod
    def parse(cls, text: str) -> SimulationReport:
        """Read the lines of ``simulation_report()``."""
        on_chip: dict[str, int] = {}
        streams: dict[str, StreamUse] = {}
        ports: dict[str, PortUse] = {}
        for line in text.splitlines():
            what, name, *numbers = line.split()
            if what == "on_chip":
                on_chip[name] = int(numbers[0])
            elif what == "stream":
                streams[name] = StreamUse(*map(int, numbers))
            else:
                ports[name] = PortUse(*map(int, numbers))
        return cls(on_chip, streams, ports)


class Library:
    """A kernel as `toolchain.build_library` compiles it.

    A copy of the file is loaded, which belongs to this object alone: another file may take its place meanwhile, and
    the same kernel may be loaded twice.  It holds one run at a time; others wait.

    Parameters
    ----------
    path : the file
    content : what is in it, where that has been read and checked already

    Raises
    ------
    DeviceError : it cannot be read, or is no library of this machine
    """

    def __init__(self, path: str | Path, content: bytes | None = None) -> None:
        self.name = Path(path).name
        self._lock = threading.Lock()
        try:
            self._library = _load(Path(path).read_bytes() if content is None else content)
        except OSError as error:
            raise DeviceError(f"{path}: the library cannot be loaded: {error.strerror or error}; build it again on "
                              "this machine, or see that programs may run in the folder for temporary files (TMPDIR)"
                              ) from error
        # Without it each loading would keep its memory to the end of the process.
        weakref.finalize(self, _ctypes.dlclose, self._library._handle).atexit = False
        for name, result in (("simulation_message", ctypes.c_char_p), ("simulation_report", ctypes.c_char_p),
                             ("simulation_config", ctypes.c_char_p),
                             ("simulation_reads", ctypes.POINTER(ctypes.c_uint))):
            self._function(name).restype = result

    @property
    def config(self) -> str:
        """The text of the ``config.h`` that it was compiled with."""
        return self._text("simulation_config")

    def run(self, function: str, *arguments: Array | int | ctypes.c_size_t) -> None:
        """Call a function of the library, which returns 0 where all went well.

        Other threads of Python go on meanwhile; a signal such as Ctrl-C is seen when it returns.

        Parameters
        ----------
        arguments : arrays as pointers to their memory; an int for an ``int`` of C

        Raises
        ------
        DeviceError : the run failed, and why; or there is no such function
        """
        called = self._function(function)
        given: list[Any] = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                if not argument.flags.c_contiguous:
                    raise DeviceError(f"{self.name}: {function} is given an array of {argument.shape} whose elements "
                                      "do not lie side by side; copy it first")
                given.append(ctypes.c_void_p(argument.ctypes.data))
            else:
                given.append(argument)
        with self._lock:
            if called(*given):
                raise DeviceError(f"{self.name}: {function}: {self._text('simulation_message')}")

    def report(self) -> SimulationReport:
        """What the last run did."""
        with self._lock:
            return self._report()

    def reads(self, port: str) -> npt.NDArray[np.uint32]:
        """How often the last run read each beat of a port.

        Raises
        ------
        DeviceError : it opened no such port
        """
        beats = ctypes.c_size_t()
        with self._lock:
            counts = self._function("simulation_reads")(port.encode(), ctypes.byref(beats))
            if not counts:
                raise DeviceError(f"{self.name}: the last run opened no port {port!r}; it opened "
                                  f"{', '.join(self._report().ports) or 'none'}")
            return np.ctypeslib.as_array(counts, (beats.value,)).astype(np.uint32)

    def _report(self) -> SimulationReport:
        return SimulationReport.parse(self._text("simulation_report"))

    def _text(self, function: str) -> str:
        said: bytes = self._function(function)()
        return said.decode("utf-8", errors="replace")

    def _function(self, name: str) -> Any:
        try:
            return getattr(self._library, name)
        except AttributeError:
            raise DeviceError(f"{self.name}: the library has no function {name}; build it again") from None


def _load(content: bytes) -> ctypes.CDLL:
    """Load a library from memory: loaders take files of the same name for the same."""
    with tempfile.TemporaryDirectory(prefix="barista_csim_") as folder:
        copy = Path(folder, "library.so")
        copy.write_bytes(content)
        os.chmod(copy, 0o700)
        return ctypes.CDLL(str(copy))
