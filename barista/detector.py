"""``caffe.Detector``: a net that says what windows of images show (R-CNN)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import io
from .classifier import input_transformer
from .errors import DataError, UnsupportedError
from .net import Net
from .proto.caffe_pb2 import TEST

Array = npt.NDArray[Any]


class Detector(Net):
    """A net in the phase TEST whose first input takes windows of images.

    Parameters
    ----------
    model_file : the definition, with an Input layer
    pretrained_file : the caffemodel
    mean : what is subtracted: a number for each channel or an image, as the input has them
    input_scale, raw_scale : factors after and before the mean is subtracted
    channel_swap : order of channels; (2, 1, 0) makes blue, green, red of red, green, blue
    context_pad : pixels of the image around a window that are shown to the net on each side, counted in its input;
        None or 0: the window alone

    Raises
    ------
    NetError : the net has no input of images
    """

    def __init__(self, model_file: str | os.PathLike[str], pretrained_file: str | os.PathLike[str],
                 mean: Array | None = None, input_scale: float | None = None, raw_scale: float | None = None,
                 channel_swap: Sequence[int] | None = None, context_pad: int | None = None) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = input_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set how much of its surroundings a window shows, and what stands where the image ends: the mean.

        Parameters
        ----------
        context_pad : pixels on each side, counted in the net's input

        Raises
        ------
        DataError : nothing would be left of the window
        """
        name = self.inputs[0]
        shape = self.blobs[name].data.shape[1:]
        if context_pad and 2 * context_pad >= min(shape[1:]):
            raise DataError(f"a context of {context_pad} pixels on each side leaves nothing of the input's "
                            f"{shape[1]} x {shape[2]}; make context_pad smaller")
        to_image = np.argsort(self.transformer.transpose[name])
        self.crop_dims = np.array(shape)[to_image]
        self.context_pad = context_pad
        mean = self.transformer.mean.get(name)
        # The mean as an image has it: before scale, order of channels and transposition.
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if mean is not None:
            image = np.asarray(mean, np.float32).transpose(to_image)
            if name in self.transformer.channel_swap:
                image = image[:, :, np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean += image / (self.transformer.raw_scale.get(name) or 1.0)

    def detect_windows(self, images_windows: Iterable[tuple[str, Iterable[Sequence[float]]]]) -> list[dict[str, Any]]:
        """Classify windows of images.

        Parameters
        ----------
        images_windows : for each image its file and its windows, (top, left, bottom, right) in pixels

        Returns
        -------
        for each window a dictionary with ``window``, ``prediction`` (the net's output) and ``filename``
        """
        found: list[dict[str, Any]] = []
        batch: list[Array] = []
        name = self.inputs[0]
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                found.append({"window": window, "filename": filename})
                batch.append(self.transformer.preprocess(name, self.crop(image, window)))
        if batch:
            given: dict[str, Any] = {name: np.stack(batch)}
            predictions = self.forward_all(**given)[self.outputs[0]]
            for entry, prediction in zip(found, predictions, strict=True):
                entry["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Iterable[str]) -> list[dict[str, Any]]:
        """Raise an error: Caffe runs a MATLAB program here, which proposes windows.

        Raises
        ------
        UnsupportedError : always
        """
        raise UnsupportedError("detect_selective_search runs a MATLAB program (selective_search_ijcv_with_python), "
                               "which Barista does not; propose windows with a package of your choice and give them "
                               "to detect_windows")

    def crop(self, im: Array, window: Sequence[float]) -> Array:
        """Cut a window from an image, with its context where that is configured.

        Parameters
        ----------
        im : (H,W,K)
        window : (top, left, bottom, right) in pixels

        Returns
        -------
        (H,W,K): the window as large as it is, or with context as large as the net's input

        Raises
        ------
        DataError : the window has no pixel of the image
        """
        place = np.asarray(window)
        top, left, bottom, right = place.astype(int)
        if not self.context_pad:
            cut = im[max(top, 0):max(bottom, 0), max(left, 0):max(right, 0)]
            if cut.size == 0:
                raise self._outside(window, im)
            return cut
        # Caffe: the input is square; a window counts its last row and column, the cut from the image does not.
        size = int(self.crop_dims[1])
        scale = size / (size - 2 * self.context_pad)
        half = (place[2:] - place[:2] + 1) / 2
        middle = place[:2] + half
        start, end = np.round(middle - scale * half), np.round(middle + scale * half)
        enlarged = size / (end - start + 1)
        before = np.round(np.maximum(0, -start) * enlarged).astype(int)
        limits = np.array(im.shape[:2])
        start, end = start.clip(0, limits), end.clip(0, limits)
        shown = np.minimum(np.round((end - start + 1) * enlarged).astype(int), size - before)
        (top, left), (bottom, right) = start.astype(int), end.astype(int)
        cut = im[top:bottom, left:right]
        if cut.size == 0 or (shown < 1).any():
            raise self._outside(window, im)
        result = self.crop_mean.copy()
        result[before[0]:before[0] + shown[0], before[1]:before[1] + shown[1]] = io.resize_image(cut, shown)
        return result

    @staticmethod
    def _outside(window: Sequence[float], im: Array) -> DataError:
        return DataError(f"the window {tuple(np.asarray(window).tolist())} has no pixel of the image, "
                         f"{im.shape[0]} x {im.shape[1]}; it must be (top, left, bottom, right)")
