"""Parsing binary messages, once their bytes have told what they will take in memory.

An empty message is two bytes in a file and hundreds in memory: a small hostile file could fill it.
"""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

AnyMessage = TypeVar("AnyMessage", bound=Message)

# What messages may take beyond the bytes of their file: those of a net of 1,000 layers take about 5 MiB.
SPARE_BYTES = 64 * 2**20

# In memory: a message's head and a slot for each field it can have; a string's head; the widest scalar.
_HEAD_BYTES, _SLOT_BYTES, _STRING_BYTES, _SCALAR_BYTES = 24, 8, 40, 8

# Fields of one byte or more a number in the file.
_VARINTS = {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32,
            FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM}


def parse(data: bytes, kind: type[AnyMessage]) -> AnyMessage:
    """Return the message of type `kind` in `data`.

    Raises
    ------
    DecodeError : there is none, or one that would take more than twice the bytes of `data` and 64 MiB
    """
    limit = len(data) + SPARE_BYTES
    overhead = overhead_bytes(data, cast(Descriptor, kind.DESCRIPTOR), limit)
    if overhead > limit:
        raise DecodeError(f"its {len(data)} bytes would take more than {overhead // 2**20} MiB of memory beyond their "
                          "size, as no real file does")
    message = kind()
    message.ParseFromString(data)
    return message


def overhead_bytes(data: bytes, kind: Descriptor, limit: int) -> int:
    """Bytes that a message takes in memory beyond those of `data`, about; counting ends beyond `limit`.

    Broken data are counted up to the break; the parser says what is wrong with them.

    Parameters
    ----------
    data : the message in its binary form
    kind : its type
    """
    total, position, groups = _message_bytes(kind), 0, 0
    # The messages around a position, each with its end: what comes first in the file is counted first, as it is parsed.
    around = [(len(data), kind)]
    while around and total <= limit:
        end, descriptor = around[-1]
        if position >= end:
            around.pop()
            continue
        start = position
        key, position = _varint(data, start, end)
        form = key & 7
        if form == 0:
            _, position = _varint(data, position, end)
            total += _SCALAR_BYTES
        elif form == 2:
            length, position = _varint(data, position, end)
            stop = min(position + length, end)
            field = descriptor.fields_by_number.get(key >> 3) if not groups else None
            if field is not None and field.message_type is not None:
                total += _message_bytes(field.message_type)
                around.append((stop, field.message_type))
                continue
            if field is not None and field.type in _VARINTS:
                total += _SCALAR_BYTES * (stop - position)
            elif field is not None and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                total += _STRING_BYTES
            position = stop
        elif form in (1, 5):
            position = _past_run(data, start, position + (8 if form == 1 else 4), end)
        elif form in (3, 4):
            # Caffe's messages have no groups; the parser keeps what one holds as bytes.
            groups += 1 if form == 3 else -1
        else:
            return total
    return total


def _message_bytes(kind: Descriptor) -> int:
    """What an empty message takes, about."""
    return _HEAD_BYTES + _SLOT_BYTES * len(kind.fields)


def _past_run(data: bytes, start: int, stop: int, end: int) -> int:
    """Where fields of the same key and width end that begin with the one from `start` to `stop`.

    Caffe2 packs no numbers: weights are millions of such fields in a row.
    """
    step = stop - start
    while stop < end and data[stop] == data[start] and data[start] < 0x80:
        keys = np.frombuffer(data, np.uint8)[stop:min(end, stop + 2**20 * step):step]
        other = np.flatnonzero(keys != data[start])
        count = int(other[0]) if other.size else keys.size
        stop += step * count
    return stop


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends; 0 and the end where it is cut short."""
    number = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    return 0, end
