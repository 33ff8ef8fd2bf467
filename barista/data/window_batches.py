"""Batches of windows cut out of images, as R-CNN trains on them."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import numpy as np

from barista import rng as random
from barista.data.images import decode_image, resize
from barista.data.mean import read_mean
from barista.data.read_ahead import Batches, Room
from barista.data.windows import IMAGE, LABEL, LINE, X1, Y2, read_windows
from barista.errors import DataError, nearest
from barista.proto import caffe_pb2

logger = logging.getLogger("barista.data")

_CROP_MODES = ("warp", "square")


@dataclasses.dataclass(frozen=True)
class _Cut:
    """What part of an image is cut out, and where it goes in the square of a batch.

    Attributes
    ----------
    left, top, right, bottom : corners in the image, inclusive, in pixels
    width, height : size to warp it to
    pad_left, pad_top : pixels of the square before it
    """

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    pad_left: int = 0
    pad_top: int = 0


class WindowBatches(Batches):
    """Windows drawn at random, background ones first, warped to squares: data (N,3,S,S) and labels (N,).

    Parameters
    ----------
    param : source, batch size, thresholds, share of foreground, padding, crop mode and scale
    transform : crop size S, mirror and mean
    rng : source of the windows and mirrors

    Raises
    ------
    DataError
        If a file, a window or a parameter cannot be used.

    Notes
    -----
    Caffe: the scale is that of window_data_param; what lies outside the image is 0 after the mean; corners,
    sizes and padding are rounded in float32.
    """

    def __init__(self, param: caffe_pb2.WindowDataParameter, transform: caffe_pb2.TransformationParameter,
                 rng: np.random.Generator) -> None:
        self.name = f"window file {param.source!r}"
        self._param, self._rng = param, rng
        self._size, self._mirror = int(transform.crop_size), bool(transform.mirror)
        self._check(param, transform)
        self._read_mean(transform)
        self._windows = read_windows(param.source, param.root_folder, param.fg_threshold, param.bg_threshold)
        logger.info("Number of images: %d", len(self._windows.images), extra={"origin": "window_data_layer.cpp:148"})
        logger.info("%s: %d foreground and %d background windows", self.name, len(self._windows.foreground),
                    len(self._windows.background))
        self._files = [self._file(index) for index in range(len(self._windows.images))] if param.cache_images else None
        count = int(param.batch_size)
        self._foreground = int(np.float32(count) * np.float32(param.fg_fraction))
        self.shapes = ((count, 3, self._size, self._size), (count,))

    def _check(self, param: caffe_pb2.WindowDataParameter, transform: caffe_pb2.TransformationParameter) -> None:
        if param.batch_size < 1:
            raise DataError(f"{self.name}: batch_size={param.batch_size} must be 1 or more")
        if self._size < 1:
            raise DataError(f"{self.name}: transform_param.crop_size must be given; windows are warped to it")
        if param.crop_mode not in _CROP_MODES:
            raise DataError(f"{self.name}: unknown crop_mode {param.crop_mode!r}; "
                            + (nearest(param.crop_mode, _CROP_MODES) or "use warp or square"))
        if 2 * param.context_pad >= self._size:
            raise DataError(f"{self.name}: context_pad={param.context_pad} on both sides leaves nothing of "
                            f"crop_size={self._size}; lower it")
        if not 0 <= param.fg_fraction <= 1:
            raise DataError(f"{self.name}: fg_fraction={param.fg_fraction:g} must be from 0 to 1")
        if transform.scale != 1:
            logger.warning("%s: transform_param.scale=%g has no effect here, as in Caffe; window_data_param.scale has",
                           self.name, transform.scale)

    def _read_mean(self, transform: caffe_pb2.TransformationParameter) -> None:
        self._mean = np.zeros((3, 1, 1), np.float32)
        values = np.array(transform.mean_value, np.float32)
        if transform.HasField("mean_file"):
            if values.size:
                raise DataError(f"transform_param: mean_file {transform.mean_file!r} and {values.size} mean_value are "
                                "both set; choose one")
            mean = read_mean(transform.mean_file)
            # Caffe: the offset of the columns counts for the rows too.
            start = (mean.shape[2] - self._size) // 2
            if mean.shape[0] != 3 or start < 0 or start + self._size > mean.shape[1]:
                raise DataError(f"transform_param: mean file {transform.mean_file!r} has shape {mean.shape}, from "
                                f"which no (3, {self._size}, {self._size}) can be cut at row and column {start}")
            self._mean = mean[:, start:start + self._size, start:start + self._size]
        elif values.size not in (0, 1, 3):
            raise DataError(f"transform_param: {values.size} mean_value for 3 channels; give 1 or 3")
        elif values.size:
            self._mean = np.broadcast_to(values[:, np.newaxis, np.newaxis], (3, 1, 1))

    def fill(self, room: Room) -> None:
        data, labels = room.arrays(self.shapes)
        data.fill(0)
        background = len(labels) - self._foreground
        for row in range(len(labels)):
            windows = self._windows.background if row < background else self._windows.foreground
            window = windows[int(self._rng.integers(len(windows)))]
            mirrored = self._mirror and bool(self._rng.integers(2))
            self._cut_out(window, mirrored, data[row])
            labels[row] = window[LABEL]

    def _cut_out(self, window: np.ndarray, mirrored: bool, out: np.ndarray) -> None:
        """Warp a window into the (3,S,S) of zeros where it goes."""
        path, number = self._windows.images[window[IMAGE]]
        try:
            image = decode_image(self._files[window[IMAGE]] if self._files else self._file(window[IMAGE]), name=path)
        except DataError as error:
            raise DataError(f"{self._param.source}:{number}: {error}") from error
        cut = self._place(window, image.shape[1:], mirrored)
        part = resize(image[:, cut.top:cut.bottom + 1, cut.left:cut.right + 1], cut.height, cut.width)
        if mirrored:
            part = part[:, :, ::-1]
        rows, columns = slice(cut.pad_top, cut.pad_top + cut.height), slice(cut.pad_left, cut.pad_left + cut.width)
        mean = self._mean[:, rows, columns] if self._mean.shape[1] > 1 else self._mean
        out[:, rows, columns] = (part - mean) * np.float32(self._param.scale)

    def _place(self, window: np.ndarray, shape: tuple[int, ...], mirrored: bool) -> _Cut:
        """What to cut out of an image for a window."""
        height, width = shape
        left, top, right, bottom = corners = [int(place) for place in window[X1:Y2 + 1]]
        size = self._size
        wrong = DataError(f"{self._param.source}:{window[LINE]}: window {corners} does not fit its image of {width} x "
                          f"{height} pixels, or nothing is left of it at crop_size={size}; correct the file")
        if left > right or top > bottom:
            raise wrong
        square = self._param.crop_mode == "square"
        cut = _Cut(left, top, right, bottom, size, size)
        if self._param.context_pad or square:
            cut = self._widened(cut, height, width, square, mirrored)
        if not (0 <= cut.left <= cut.right < width and 0 <= cut.top <= cut.bottom < height
                and cut.width > 0 and cut.height > 0):
            raise wrong
        return cut

    def _widened(self, window: _Cut, height: int, width: int, square: bool, mirrored: bool) -> _Cut:
        """A window with what is around it: so much that, warped, it has just the padding on each side."""
        size, one, half = self._size, np.float32, np.float32(0.5)
        widen = one(size) / one(size - 2 * self._param.context_pad)
        half_width = one(window.right - window.left + 1) * half
        half_height = one(window.bottom - window.top + 1) * half
        middle_x, middle_y = one(window.left) + half_width, one(window.top) + half_height
        if square:
            half_width = half_height = max(half_width, half_height)
        left, right = _round(middle_x - half_width * widen), _round(middle_x + half_width * widen)
        top, bottom = _round(middle_y - half_height * widen), _round(middle_y + half_height * widen)
        scale_x, scale_y = one(size) / one(right - left + 1), one(size) / one(bottom - top + 1)
        # What lies outside the image is cut off, and becomes padding; Caffe mirrors the padding too.
        outside_left, outside_right = max(0, -left), max(0, right - width + 1)
        outside_top, outside_bottom = max(0, -top), max(0, bottom - height + 1)
        pad_left = _round(one(outside_right if mirrored else outside_left) * scale_x)
        pad_top = _round(one(outside_top) * scale_y)
        left, right = left + outside_left, right - outside_right
        top, bottom = top + outside_top, bottom - outside_bottom
        # Rounding could push it over the edge of the square.
        return _Cut(left, top, right, bottom, min(_round(one(right - left + 1) * scale_x), size - pad_left),
                    min(_round(one(bottom - top + 1) * scale_y), size - pad_top), pad_left, pad_top)

    def _file(self, index: int) -> bytes:
        path, number = self._windows.images[index]
        try:
            with open(path, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            absent = isinstance(error, FileNotFoundError | NotADirectoryError)
            hint = f" (root_folder {self._param.root_folder!r} is put before the paths as it is)" if absent else ""
            raise DataError(f"{self._param.source}:{number}: image {path!r} cannot be read: {reason}{hint}") from error

    def state(self) -> dict[str, Any]:
        """``rng``, where the random numbers stand: there is nothing else."""
        return {"rng": random.state_of(self._rng)}

    def restore(self, state: dict[str, Any]) -> None:
        random.restore(self._rng, state.get("rng"))


def _round(number: np.floating[Any]) -> int:
    """The nearest whole number; halves go away from zero, as in C."""
    return int(math.copysign(math.floor(abs(float(number)) + 0.5), float(number)))
