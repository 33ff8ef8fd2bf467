"""Caffe's data transformation: mean, crop, mirror and scale, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from barista.data.mean import read_mean
from barista.errors import DataError
from barista.proto import caffe_pb2


class Transformer:
    """Carries out a ``TransformationParameter``.

    Output is ``(value - mean) * scale``, cropped and mirrored: at TRAIN the crop is at a
    random place, at TEST in the centre. A mean image is cropped at the same place as the
    image, and mirrored with it.

    Parameters
    ----------
    transform_param : the message
    phase : ``caffe_pb2.TRAIN`` or ``caffe_pb2.TEST``
    rng : source of the random crops and mirrors; its state is all the state there is

    Raises
    ------
    DataError
        If the parameters contradict each other or the mean file cannot be used.

    Notes
    -----
    Caffe: mirroring is random at TEST as well. Random numbers are NumPy's, not boost's.
    """

    def __init__(self, transform_param: caffe_pb2.TransformationParameter, phase: int,
                 rng: np.random.Generator) -> None:
        self.rng = rng
        self.force_color = bool(transform_param.force_color)
        self.force_gray = bool(transform_param.force_gray)
        self._train = phase == caffe_pb2.TRAIN
        self._crop = int(transform_param.crop_size)
        self._mirror = bool(transform_param.mirror)
        self._scale = float(transform_param.scale)
        self._mean_file = str(transform_param.mean_file)
        self._mean_image: np.ndarray | None = None
        self._mean_values = np.array(transform_param.mean_value, dtype=np.float32)
        if self.force_color and self.force_gray:
            raise DataError("transform_param: force_color and force_gray are both set; choose one")
        if transform_param.HasField("mean_file"):
            if self._mean_values.size:
                raise DataError(f"transform_param: mean_file {self._mean_file!r} and "
                                f"{self._mean_values.size} mean_value are both set; choose one")
            self._mean_image = read_mean(self._mean_file)

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the (C,H,W) that an image of this size becomes.

        Raises
        ------
        DataError
            If the crop is larger than the image, or the mean does not fit it.
        """
        if self._crop > min(height, width):
            raise DataError(f"transform_param: crop_size={self._crop} exceeds the image, {height} x {width} "
                            "pixels; lower crop_size or use larger images")
        if self._mean_image is not None and self._mean_image.shape != (channels, height, width):
            raise DataError(f"transform_param: mean file {self._mean_file!r} has shape "
                            f"{self._mean_image.shape}, but the image has {(channels, height, width)}; "
                            "compute the mean of this database")
        if self._mean_values.size not in (0, 1, channels):
            raise DataError(f"transform_param: {self._mean_values.size} mean_value for {channels} channels; "
                            f"give 1{f' or {channels}' if channels > 1 else ''}")
        return (channels, self._crop, self._crop) if self._crop else (channels, height, width)

    def transform_batch(self, images: Sequence[np.ndarray] | np.ndarray, out: np.ndarray) -> np.ndarray:
        """Transform N images into a batch.

        Parameters
        ----------
        images : N arrays (C,H,W), uint8 or float; with crop_size their H and W may differ
        out : (N,C,h,w) float32 or float64, overwritten

        Returns
        -------
        np.ndarray : `out`

        Raises
        ------
        DataError
            If an image does not fit the parameters or `out`.
        """
        count = len(images)
        if len(out) != count:
            raise DataError(f"transform: {count} images for a batch of {len(out)}")
        for index, image in enumerate(images):
            if index and image.shape == images[index - 1].shape:
                continue
            if image.ndim != 3:
                raise DataError(f"transform: image {index} has shape {image.shape}; it must be (C,H,W)")
            shape = self.output_shape(*image.shape)
            if shape != out.shape[1:]:
                raise DataError(f"transform: image {index} of shape {image.shape} becomes {shape}, but the "
                                f"batch holds {out.shape[1:]}; all images of a batch must agree in size")
        mirrored = self.rng.integers(0, 2, size=count).tolist() if self._mirror else [0] * count
        tops, lefts = self._crop_places(images)
        height, width = out.shape[2:]
        for index, image in enumerate(images):
            rows = slice(tops[index], tops[index] + height)
            columns = slice(lefts[index], lefts[index] + width)
            step = -1 if mirrored[index] else 1
            target = out[index]
            # A cast by assignment is several times faster than a subtraction of unlike dtypes.
            target[...] = image[:, rows, columns][:, :, ::step]
            if self._mean_image is not None:
                target -= self._mean_image[:, rows, columns][:, :, ::step]
        if self._mean_values.size:
            out -= self._mean_values[:, np.newaxis, np.newaxis]
        if self._scale != 1.0:
            out *= out.dtype.type(self._scale)
        return out

    def _crop_places(self, images: Sequence[np.ndarray] | np.ndarray) -> tuple[list[int], list[int]]:
        """Return the first row and the first column of each image's crop."""
        if not self._crop:
            return [0] * len(images), [0] * len(images)
        spare = np.array([image.shape[1:] for image in images]).reshape(-1, 2) - self._crop
        places = self.rng.integers(0, spare + 1) if self._train else spare // 2
        return places[:, 0].tolist(), places[:, 1].tolist()
