"""BlobProto and NumPy: the one place where arrays enter and leave protocol buffers."""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ..errors import DataError
from .caffe_pb2 import BlobProto
from .wire import parse

# Caffe: blobs have at most 32 axes.
MAX_AXES = 32

# The fields of BlobProto that hold numbers: element type, values, gradients.
_FIELDS = (("<f4", "data", "diff"), ("<f8", "double_data", "double_diff"))


def blob_shape(blob: BlobProto) -> tuple[int, ...]:
    """The shape that a message states.

    Caffe: any of num, channels, height and width makes it the old form of four axes,
    where those left out are 0.
    """
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim)


def significant(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without its leading axes of size 1, in which shapes of parameters are compared.

    Caffe: old files give all parameters four axes.
    """
    sizes = list(shape)
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    return tuple(sizes)


def blob_to_array(blob: BlobProto, diff: bool = False) -> npt.NDArray[Any]:
    """Return the values of a message, or its gradients where `diff` is true, as an array of its own.

    Returns
    -------
    array of the stated shape, float32, or float64 where the message holds doubles

    Raises
    ------
    DataError : shape and number of values do not agree, or the shape is none
    """
    dtype, *fields = _FIELDS[bool(blob.double_diff if diff else blob.double_data)]
    values = getattr(blob, fields[diff])
    if len(blob.shape.dim) > MAX_AXES:
        raise DataError(f"a blob states a shape of {len(blob.shape.dim)} axes, the most are {MAX_AXES}: the file is "
                        "damaged")
    shape = blob_shape(blob)
    if any(size < 0 for size in shape):
        raise DataError(f"a blob states the shape {shape}, with sizes below 0: the file is damaged")
    count = math.prod(shape)
    if count != len(values):
        raise DataError(f"a blob of shape {shape} needs {count} numbers; the message holds {len(values)} "
                        f"{'gradients' if diff else 'values'}: the file is damaged or was cut short")
    return np.array(values, dtype).reshape(shape)


def array_to_blob(array: npt.NDArray[Any], blob: BlobProto, diff: npt.NDArray[Any] | None = None) -> None:
    """Make `blob` hold `array`, and `diff` as its gradients where given.

    float64 arrays become doubles, all others floats.
    """
    blob.Clear()
    blob.shape.dim.extend(array.shape)
    blob.shape.SetInParent()  # a scalar has a shape, of no axes
    dtype, values, gradients = _FIELDS[array.dtype == np.float64]
    _put(blob, values, array, dtype)
    if diff is not None:
        _put(blob, gradients, diff, dtype)


def read_blob(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Return the values of the message that a file holds, as `blob_to_array` does.

    Raises
    ------
    DataError : the file cannot be read, or is no BlobProto
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return blob_to_array(parse(file.read(), BlobProto))
    except DataError as error:
        raise DataError(f"{name!r}: {error}") from error
    except DecodeError as error:
        raise DataError(f"{name!r} is no BlobProto file: {error}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name!r} cannot be read: {reason} (in {os.getcwd()})") from error


def array_to_line(array: npt.NDArray[Any]) -> str:
    """Return `array` as a line of text, for files that hold no bytes: its message in base64."""
    blob = BlobProto()
    array_to_blob(array, blob)
    return base64.b64encode(blob.SerializeToString()).decode("ascii")


def line_to_array(line: object) -> npt.NDArray[Any]:
    """Return the array that `array_to_line` wrote.

    Raises
    ------
    DataError : something else
    """
    try:
        if not isinstance(line, str):
            raise TypeError(f"it is of type {type(line).__name__}")
        blob = parse(base64.b64decode(line.encode("ascii"), validate=True), BlobProto)
    except (TypeError, UnicodeEncodeError, binascii.Error, DecodeError) as error:
        raise DataError(f"this is no array in text ({error}): the file is damaged") from None
    return blob_to_array(blob)


def _put(blob: BlobProto, field: str, array: npt.NDArray[Any], dtype: str) -> None:
    """Append numbers to a packed field as the bytes that they are on the wire.

    `extend` makes a Python object of each number: 50 times slower.
    """
    if array.size == 0:
        return
    raw = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
    key = blob.DESCRIPTOR.fields_by_name[field].number << 3 | 2  # wire type 2: length-delimited
    blob.MergeFromString(b"".join((bytes([key]), _varint(raw.size), raw.data)))


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
