"""``caffe.io``: messages to and from arrays, images, and what a net's input needs done to them.

Images are (H,W,K) float32 here, colours red, green, blue, from 0 to 1, as scripts for pycaffe expect; a net takes
(K,H,W), mostly blue, green, red, from 0 to 255. `Transformer` leads from one to the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from .data import datum as records
from .data.images import read_image
from .errors import DataError, UnsupportedError, nearest
from .proto import caffe_pb2
from .proto.blobs import array_to_blob, blob_to_array
from .proto.caffe_pb2 import BlobProto, BlobProtoVector, Datum
from .proto.wire import parse

Array = npt.NDArray[Any]

# Parts of red, green and blue in the brightness that the eye sees (ITU-R BT.709); images from pycaffe have these.
_LUMA = (0.2125, 0.7154, 0.0721)
_ORDERS = {0: "nearest", 1: "linear"}


# ---- messages ---------------------------------------------------------------------------------------------


def blobproto_to_array(blob: BlobProto, return_diff: bool = False) -> Array:
    """The values of a message, or its gradients where `return_diff`, in its shape.

    Caffe: as float64, whatever the message holds.

    Raises
    ------
    DataError : shape and number of values do not agree
    """
    return blob_to_array(blob, return_diff).astype(np.float64)


def array_to_blobproto(arr: Array, diff: Array | None = None) -> BlobProto:
    """A message that holds an array, and `diff` as its gradients where given; all as float32."""
    blob = BlobProto()
    array_to_blob(np.asarray(arr, np.float32), blob, None if diff is None else np.asarray(diff, np.float32))
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """The bytes of a ``BlobProtoVector`` that holds these arrays."""
    return BlobProtoVector(blobs=map(array_to_blobproto, arraylist)).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:
    """The arrays in the bytes of a ``BlobProtoVector``.

    Raises
    ------
    DataError : the bytes are no such message
    """
    try:
        vector = parse(str, BlobProtoVector)
    except DecodeError as error:
        raise DataError(f"{len(str)} bytes that are not a BlobProtoVector message; they were cut short, or something "
                        "else wrote them") from error
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: Array, label: int | None = None) -> Datum:
    """A record that holds a (K,H,W) array: uint8 as bytes, anything else as floats.

    Raises
    ------
    DataError : the array has not three axes
    """
    return records.array_to_datum(np.asarray(arr), label)


def datum_to_array(datum: Datum) -> Array:
    """The (K,H,W) array of a record: uint8, or float64 where it holds floats; an encoded image is decoded.

    Raises
    ------
    DataError : the record's sizes and its data do not agree
    """
    array = records.datum_to_array(datum)
    return array.astype(np.uint8 if array.dtype == np.uint8 else np.float64)


# ---- images -----------------------------------------------------------------------------------------------


def load_image(filename: str | os.PathLike[str], color: bool = True) -> Array:
    """Read an image file.

    Parameters
    ----------
    filename : the file
    color : three channels, red, green and blue, which a grey image has thrice; False: one, the brightness

    Returns
    -------
    (H,W,3) or (H,W,1) float32, from 0 to 1

    Raises
    ------
    DataError : the file cannot be read, or is no image
    """
    pixels = read_image(filename)[::-1].transpose(1, 2, 0).astype(np.float32) / np.float32(255)
    if color:
        return pixels
    return (pixels @ np.array(_LUMA))[:, :, np.newaxis].astype(np.float32)


def resize_image(im: Array, new_dims: Sequence[int] | Array, interp_order: int = 1) -> Array:
    """Resize an image.

    Parameters
    ----------
    im : (H,W,K)
    new_dims : height and width, in pixels
    interp_order : 1 interpolates linearly between the four pixels around a place, 0 takes the nearest one

    Returns
    -------
    (new height, new width, K) float32

    Notes
    -----
    Caffe: an image of 1 or 3 channels is an area, in which pixels are squares, and around it everything has its
    smallest value (so a border that is made larger fades a little); one of another number of channels is a grid,
    whose corners stay corners.  Nothing is smoothed before it is made smaller.

    Raises
    ------
    DataError : not an image, or a size below 1
    UnsupportedError : another order
    """
    im = np.asarray(im)
    height, width = (int(size) for size in new_dims)
    if im.ndim != 3 or im.size == 0 or min(height, width) < 1:
        raise DataError(f"cannot resize an array of shape {im.shape} to {height} x {width}; it must be (H,W,K), "
                        "and all sizes 1 or more")
    if interp_order not in _ORDERS:
        raise UnsupportedError(f"resize_image has no interpolation of order {interp_order}; use 0 (nearest) or "
                               "1 (linear)")
    area = im.shape[2] in (1, 3)
    least = float(im.min()) if area else 0.0
    resized = im.astype(np.float64) - least
    for axis, size in enumerate((height, width)):
        resized = _resize_axis(resized, axis, size, interp_order, area)
    return (resized + least).astype(np.float32)


def _resize_axis(values: Array, axis: int, new_size: int, order: int, area: bool) -> Array:
    """Interpolate along one axis; what lies outside counts as 0."""
    size = values.shape[axis]
    if area:
        places = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    else:
        places = np.arange(new_size) * ((size - 1) / max(new_size - 1, 1))
    low = np.floor(places + (0.5 if order == 0 else 0.0)).astype(np.intp)
    share = places - low if order == 1 else np.zeros(new_size)
    result = np.zeros((*values.shape[:axis], new_size, *values.shape[axis + 1:]))
    for index, weight in ((low, 1 - share), (low + 1, share)):
        weight = weight * ((index >= 0) & (index < size))
        taken = values.take(index.clip(0, size - 1), axis)
        result += taken * weight.reshape(-1, *(1,) * (values.ndim - 1 - axis))
    return result


def oversample(images: Iterable[Array], crop_dims: Sequence[int] | Array) -> Array:
    """Ten crops of each image: the four corners and the centre, and all five mirrored.

    Parameters
    ----------
    images : (H,W,K) each, all of one size
    crop_dims : height and width of the crops, in pixels

    Returns
    -------
    (10 * images, crop height, crop width, K) float32: of each image top left, top right, bottom left, bottom right,
    centre, then their mirror images

    Raises
    ------
    DataError : a crop is larger than an image
    """
    pictures = np.stack([np.asarray(image) for image in images])
    height, width = pictures.shape[1:3]
    crop_height, crop_width = (int(size) for size in crop_dims)
    if crop_height > height or crop_width > width:
        raise DataError(f"crops of {crop_height} x {crop_width} are larger than the images, {height} x {width}; "
                        "make image_dims larger")
    down, right = height - crop_height, width - crop_width
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = np.stack([pictures[:, top:top + crop_height, left:left + crop_width] for top, left in corners], axis=1)
    both = np.concatenate([crops, crops[:, :, :, ::-1]], axis=1)
    return both.reshape(-1, *both.shape[2:]).astype(np.float32)


# ---- what a net's input needs -----------------------------------------------------------------------------


class Transformer:
    """Turns images into what the inputs of a net take, and back.

    What is set for an input is done in this order: resize, transpose, swap channels, multiply by the raw scale,
    subtract the mean, multiply by the input scale.  What is not set is left out.

    Parameters
    ----------
    inputs : name of an input to its shape, (N,K,H,W): ``{"data": net.blobs["data"].data.shape}``
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of axes: (2, 0, 1) makes (K,H,W) of (H,W,K)."""
        axes = len(self._shape(in_)) - 1
        if sorted(order) != list(range(axes)):
            raise DataError(f"input {in_!r}: the transposition {tuple(order)} must name each of its {axes} axes once, "
                            "counted from 0 without the batch's")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of channels: (2, 1, 0) makes blue, green, red of red, green, blue."""
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise DataError(f"input {in_!r}: the order of channels {tuple(order)} has {len(order)} entries, the input "
                            f"{channels} channels; give one for each")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor before the mean is subtracted: 255 for a net that learnt from bytes."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Set what is subtracted.

        Parameters
        ----------
        in_ : the input
        mean : (K,) a number for each channel, (H,W) or (K,H,W) an image; channels in the net's order

        Raises
        ------
        DataError : it does not fit the input
        """
        shape = self._shape(in_)
        mean = np.asarray(mean)
        if mean.ndim == 1:
            if mean.shape[0] != shape[1]:
                raise DataError(f"input {in_!r}: a mean of {mean.shape[0]} numbers, but the input has {shape[1]} "
                                "channels; give one for each, or an image")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            image = (1, *mean.shape) if mean.ndim == 2 else mean.shape
            if image != shape[1:]:
                raise DataError(f"input {in_!r}: a mean of shape {mean.shape} does not fit the input's images, "
                                f"{shape[1:]}; resize it, or give a number for each channel: mean.mean(1).mean(1)")
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor after the mean was subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def preprocess(self, in_: str, data: Array) -> Array:
        """Turn an image into what an input takes.

        Parameters
        ----------
        in_ : the input
        data : (H,W,K); it stays as it is

        Returns
        -------
        float32, (K,H,W) where the transposition says so
        """
        size = self._shape(in_)[2:]
        values = np.array(data, np.float32)
        if values.shape[:2] != size:
            values = resize_image(values, size)
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_])]
        if self.raw_scale.get(in_) is not None:
            values *= self.raw_scale[in_]
        if in_ in self.mean:
            values -= self.mean[in_]
        if self.input_scale.get(in_) is not None:
            values *= self.input_scale[in_]
        return values

    def deprocess(self, in_: str, data: Array) -> Array:
        """Turn what an input takes into an image; the reverse of `preprocess`, but for the size.

        Caffe: axes of size 1 go, unless the image is transposed, which needs them.
        """
        self._shape(in_)
        values = np.array(data)
        while values.ndim > 3 and values.shape[0] == 1:
            values = values[0]
        if self.input_scale.get(in_) is not None:
            values = values / self.input_scale[in_]
        if in_ in self.mean:
            values = values + self.mean[in_]
        if self.raw_scale.get(in_) is not None:
            values = values / self.raw_scale[in_]
        if in_ in self.channel_swap:
            values = values[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            return values.transpose(np.argsort(self.transpose[in_])).astype(data.dtype, copy=False)
        return values.squeeze().astype(data.dtype, copy=False)

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            hint = nearest(in_, self.inputs) or f"it has {', '.join(map(repr, self.inputs)) or 'none'}"
            raise DataError(f"the net has no input {in_!r}; {hint}")
        return self.inputs[in_]


__all__ = ["Transformer", "array_to_blobproto", "array_to_datum", "arraylist_to_blobprotovector_str",
           "blobproto_to_array", "blobprotovector_str_to_arraylist", "caffe_pb2", "datum_to_array", "load_image",
           "oversample", "resize_image"]
