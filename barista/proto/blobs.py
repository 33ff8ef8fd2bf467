"""BlobProto and NumPy: the one place where arrays enter and leave protocol buffers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .caffe_pb2 import BlobProto

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
