"""External data: weights in files beside a model, and nowhere else."""

from __future__ import annotations

import math
import os
import stat

import onnx

from barista.errors import DataError, UnsupportedError

# Bits of an element, for the types that may lie outside.
_BITS: dict[int, int] = {
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.UINT8: 8, onnx.TensorProto.INT8: 8, onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT16: 16, onnx.TensorProto.INT32: 32, onnx.TensorProto.INT64: 64, onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.FLOAT16: 16, onnx.TensorProto.DOUBLE: 64, onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.UINT64: 64, onnx.TensorProto.BFLOAT16: 16,
}


def read_external(tensor: onnx.TensorProto, folder: str | None, name: str) -> None:
    """Bring the values of a tensor from its file into the message.

    Parameters
    ----------
    tensor : a tensor whose values lie outside
    folder : where the model lies; None where it came without a file
    name : of the model, for messages

    Raises
    ------
    DataError : the place is not beside the model, or the file is missing or too short
    """
    who = f"{name}: initialiser {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise DataError(f"{who} lies in the file {location!r}; give the model by its path, so that the file can be "
                        "found beside it")
    if tensor.data_type not in _BITS:
        raise UnsupportedError(f"{who} lies outside and is of the element type {tensor.data_type}, which is not read "
                               "from external data")
    path = _path(location, folder, who)
    bytes_ = math.prod(tensor.dims) * _BITS[tensor.data_type] // 8
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", bytes_))
    except ValueError:
        raise DataError(f"{who}: offset {entries.get('offset')!r} and length {entries.get('length')!r} of its external "
                        "data must be numbers") from None
    if offset < 0 or length != bytes_:
        raise DataError(f"{who} of shape {tuple(tensor.dims)} needs {bytes_} bytes from an offset of 0 or more; the "
                        f"model says {length} bytes from {offset}")
    tensor.raw_data = _bytes(path, location, offset, length, who)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _path(location: str, folder: str, who: str) -> str:
    """Where a location is, which must be below `folder` and reached through no link."""
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location:
        raise DataError(f"{who} lies outside of the model, which does not say in which file")
    if os.path.isabs(location) or location.startswith(("/", "\\")) or ":" in parts[0] or ".." in parts:
        raise DataError(f"{who} lies in {location!r}; external data are read from beside the model alone: no absolute "
                        "paths and no '..'")
    path = folder
    for part in location.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            raise DataError(f"{who} lies in {location!r}, where {path!r} is a link; external data are read from beside "
                            "the model alone, through no links: put the file itself there")
    return path


def _bytes(path: str, location: str, offset: int, length: int, who: str) -> bytes:
    """A piece of a file, after a look at whether the file is so long."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
                             | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            # Another name for a file elsewhere: writing a model cannot have made it.
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise DataError(f"{who} lies in {location!r}, which is no plain file of one name (a hard link?); put "
                                "the file itself there")
            if offset + length > status.st_size:
                raise DataError(f"{who} needs {length} bytes from byte {offset} of {location!r}, which has "
                                f"{status.st_size}: the file was cut short")
            file.seek(offset)
            return file.read(length)
    except (OSError, ValueError) as error:
        raise DataError(f"{who} lies in {location!r}, which cannot be read: "
                        f"{getattr(error, 'strerror', None) or error}") from error
