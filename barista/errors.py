"""The exceptions of Barista: one tree, one message style.

Every message says who, what with numbers, why, and what to do, for example
``conv2 (Convolution): kernel_h=7 exceeds the padded height 5 (3 + 2*1); lower kernel_h or raise pad_h``.
Each class also derives from the Python built-in that fits, so that code which
knows nothing of Barista can still catch it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable


class BaristaError(Exception):
    """Base of every error that Barista raises on purpose."""


class PrototxtError(BaristaError, ValueError):
    """A prototxt or binary protobuf file that cannot be read.

    Parameters
    ----------
    message : what is wrong and what to do
    file : path of the file, or None for text held in memory
    line, column : position in the file, counted from 1, or None where unknown
    """

    def __init__(self, message: str, file: str | None = None,
                 line: int | None = None, column: int | None = None) -> None:
        self.file, self.line, self.column = file, line, column
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)


class NetError(BaristaError, ValueError):
    """A network whose layers and blobs do not fit together."""


class ShapeError(NetError):
    """A blob or parameter whose shape a layer cannot take."""


class UnsupportedError(BaristaError, NotImplementedError):
    """Something well-formed that Barista, or one backend of it, does not do."""


class DeviceError(BaristaError, RuntimeError):
    """A device, driver or kernel that failed; OpenCL codes are given by name."""


# OpenCL's names for too little memory, as they stand in the message of a `DeviceError`.
OUT_OF_MEMORY = ("MEM_OBJECT_ALLOCATION_FAILURE", "OUT_OF_RESOURCES", "OUT_OF_HOST_MEMORY")


def out_of_memory(error: DeviceError) -> bool:
    """Whether a device failed for want of memory, so that smaller pieces may do."""
    return any(name in str(error) for name in OUT_OF_MEMORY)


class BitstreamError(BaristaError, ValueError):
    """A bitstream or manifest that cannot be used."""


class ScheduleError(BaristaError, ValueError):
    """A schedule that cannot be read, or that was made for something else."""


class DataError(BaristaError, ValueError):
    """Input data (database, image, mean file) that cannot be used."""


class SnapshotError(BaristaError, ValueError):
    """A snapshot (caffemodel, solverstate) that cannot be read or written."""


class SolverError(BaristaError, ValueError):
    """A solver definition that cannot be carried out, or training that diverged."""


class MissingExtraError(BaristaError, ImportError):
    """An optional package is not installed; the message gives the pip command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed; "
                         f"run: pip install 'barista-caffe[{extra}]'")


def hdf5_reason(error: Exception) -> str:
    """Why h5py could not open or read a file, in plain words and once."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = str(error)
    if "file signature not found" in text:
        return "it is no HDF5 file"
    # `Unable to synchronously open file (truncated file: eof = 1000, ...)`
    inner = re.fullmatch(r"(?:Unable to|Can't) .*?\((.*)\)", text, re.DOTALL)
    return inner[1] if inner else text


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return a hint such as ``did you mean 'Convolution'?`` for an unknown name, or ''."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    if not close:
        return ""
    return "did you mean " + " or ".join(repr(by_lower[c]) for c in close) + "?"
