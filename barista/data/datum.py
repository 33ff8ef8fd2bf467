"""Caffe's record, the ``Datum`` message: an image and its label, to and from arrays."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError

from barista.data.images import decode_image
from barista.errors import DataError
from barista.proto import caffe_pb2


def parse_datum(value: bytes) -> caffe_pb2.Datum:
    """Parse the bytes of a record.

    Raises
    ------
    DataError
        If the bytes are no ``Datum`` message.
    """
    try:
        return caffe_pb2.Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{len(value)} bytes that are not a Datum message; "
                        "the database was written by another program or is damaged") from error


def datum_to_array(datum: caffe_pb2.Datum, force_color: bool = False, force_gray: bool = False) -> np.ndarray:
    """Return the image of a record.

    Parameters
    ----------
    datum : record to read
    force_color, force_gray : give an encoded image 3 channels or 1, whatever it has

    Returns
    -------
    np.ndarray : (C,H,W), uint8 for bytes or an encoded image (channels BGR), float32 for ``float_data``;
        it may be a read-only view

    Raises
    ------
    DataError
        If there is no data, its length is not C*H*W, or the image cannot be decoded.

    Notes
    -----
    Caffe: ``force_color`` and ``force_gray`` do nothing for records that are not encoded,
    and ``data`` goes before ``float_data`` where both are set.
    """
    if force_color and force_gray:
        raise DataError("force_color and force_gray are both set; choose one")
    if datum.encoded:
        if not datum.data:
            raise DataError("encoded Datum with 0 bytes of data")
        color = True if force_color else False if force_gray else None
        return decode_image(datum.data, color=color, name="in a Datum")
    shape = (datum.channels, datum.height, datum.width)
    count = shape[0] * shape[1] * shape[2]
    if min(shape) <= 0:
        raise DataError(f"Datum of zero size: channels={shape[0]} height={shape[1]} width={shape[2]}; "
                        "each must be 1 or more")
    data = datum.data
    size, unit = (len(data), "bytes of data") if data else (len(datum.float_data), "values of float_data")
    if size != count:
        raise DataError(f"Datum has {size} {unit}, but channels={shape[0]} height={shape[1]} "
                        f"width={shape[2]} need {count}")
    if data:
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    return np.array(datum.float_data, dtype=np.float32).reshape(shape)


def array_to_datum(array: np.ndarray, label: int | None = None) -> caffe_pb2.Datum:
    """Make a record of a (C,H,W) array: uint8 goes into ``data``, any other dtype into ``float_data``."""
    if array.ndim != 3 or array.size == 0:
        raise DataError(f"an array of shape {array.shape} cannot become a Datum; it must be (C,H,W), "
                        "none of them 0")
    channels, height, width = array.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, encoded=False)
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(np.float32).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def encoded_datum(data: bytes, label: int | None = None) -> caffe_pb2.Datum:
    """Make a record that holds the bytes of an image file as they are."""
    datum = caffe_pb2.Datum(data=data, encoded=True)
    if label is not None:
        datum.label = label
    return datum
