"""Files that are either old or new, never half."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message

from .errors import SnapshotError

# Protocol buffers count bytes in a signed 32-bit integer.
PROTOBUF_LIMIT_BYTES = 2**31 - 1

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def why_unwritable(path: str | os.PathLike[str]) -> str:
    """Why a file cannot be written there, as the end of a sentence that begins with its name; '' where it can."""
    name = os.fspath(path)
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        return f": there is no folder {folder}; make it, or give another"
    if os.path.isdir(name):
        return " is a folder; give the name of a file"
    if not os.access(name if os.path.exists(name) else folder, os.W_OK):
        return ": it may not be written; give another place"
    return ""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; what is written there takes its place when all went well.

    The new file is on disk before the old one goes, so that a full disk or a kill leaves
    the old one whole.

    Raises
    ------
    SnapshotError : the file cannot be written
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise SnapshotError(_cannot_write(path, target.parent, error)) from error
    finally:
        part.unlink(missing_ok=True)


def remove_parts(prefix: str) -> None:
    """Remove what processes that were killed while they wrote files whose names begin with `prefix` left beside them.

    Only for files that one process alone writes.
    """
    first = Path(os.path.realpath(prefix))
    for part in first.parent.glob(f".{glob.escape(first.name)}*.part"):
        part.unlink(missing_ok=True)


def write_message(message: Message, path: str | os.PathLike[str]) -> None:
    """Write a protocol buffer in its binary form.

    Raises
    ------
    SnapshotError : more than 2 GiB, or the file cannot be written
    """
    size_bytes = message.ByteSize()
    if size_bytes > PROTOBUF_LIMIT_BYTES:
        raise SnapshotError(f"{os.fspath(path)}: {size_bytes / 2**30:.2f} GiB; a binary protobuf file ends "
                            "at 2 GiB. Set snapshot_format: HDF5, or give a name that ends in .h5")
    with replacing(path) as part, open(part, "wb") as file:
        file.write(message.SerializeToString())


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as HDF5 files do."""
    with open(path, "rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def check_writable(prefix: str) -> None:
    """Make sure now that files whose names begin with `prefix` can be written later.

    Raises
    ------
    SnapshotError : the folder does not exist, or takes no files
    """
    folder = Path(os.path.dirname(prefix) or ".")
    if not folder.is_dir():
        raise SnapshotError(f"snapshot_prefix {prefix!r}: the folder {str(folder)!r} does not exist; "
                            f"make it first: mkdir -p {folder}")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SnapshotError(f"snapshot_prefix {prefix!r}: {_cannot_write(prefix, folder, error)}") from error


def _sync_folder(folder: Path) -> None:
    # The new name is on disk when its folder is; Windows does not open folders.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: str | os.PathLike[str], folder: Path, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"cannot write {os.fspath(path)}: {reason}"
    if error.errno == errno.ENOSPC and folder.is_dir():
        free_mib = shutil.disk_usage(folder).free / 2**20
        message += f" ({free_mib:.0f} MiB free); free some, or choose another disk"
    return message + "; an older file of this name is untouched"
