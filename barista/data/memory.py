"""Batches of arrays that the caller has in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from barista.data.datum import datum_to_array
from barista.data.transformer import Transformer
from barista.errors import DataError
from barista.proto import caffe_pb2


class MemoryBatches:
    """Batches out of arrays, one after the other and round again.

    Parameters
    ----------
    shape : (N,C,H,W) of a batch
    transformer : what happens to images and records that are added, but not to arrays that are set
    dtype : float32 or float64
    """

    def __init__(self, shape: tuple[int, int, int, int], transformer: Transformer, dtype: npt.DTypeLike) -> None:
        self.shape = shape
        self._transformer = transformer
        self._dtype = np.dtype(dtype)
        self._data: np.ndarray | None = None
        self._labels: np.ndarray | None = None
        self._place = 0
        self._unread = False

    def reset(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Give the arrays to read from; those of the right type are read where they lie, so changes in them are seen.

        Parameters
        ----------
        data : (n,C,H,W), n a multiple of the batch size
        labels : n numbers, of any shape whose first axis is n

        Raises
        ------
        DataError
            If a shape does not fit.
        """
        try:
            images = np.ascontiguousarray(data, self._dtype)
            numbers = np.ascontiguousarray(labels, self._dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"data and labels must be arrays of numbers: {error}") from error
        batch = self.shape[0]
        if images.shape[1:] != self.shape[1:]:
            raise DataError(f"data has shape {images.shape}; the definition asks for (n, "
                            f"{', '.join(map(str, self.shape[1:]))})")
        count = len(images)
        if numbers.shape[:1] != (count,) or numbers.size != count:
            raise DataError(f"labels have shape {numbers.shape} for {count} images; give one number an image")
        if not count or count % batch:
            raise DataError(f"{count} images are no multiple of batch_size={batch}; add some or leave some out")
        self._data, self._labels = images, numbers.reshape(count)
        self._place, self._unread = 0, False

    def add_images(self, images: Sequence[np.ndarray] | np.ndarray, labels: Sequence[float] | np.ndarray) -> None:
        """Transform images, (C,H,W) each, and read from them next.

        Raises
        ------
        DataError
            If the number or the shapes do not fit, or images added before are not all read.
        """
        if self._unread:
            raise DataError("images were added before and are not all read; run forward until they are")
        if not len(images) or len(images) % self.shape[0]:
            raise DataError(f"{len(images)} images are no multiple of batch_size={self.shape[0]}; add some or leave "
                            "some out")
        data = np.empty((len(images), *self.shape[1:]), self._dtype)
        self._transformer.transform_batch(images, data)
        self.reset(data, labels)
        self._unread = True

    def add_datums(self, datums: Sequence[caffe_pb2.Datum]) -> None:
        """Decode and transform records, and read from them next; see `add_images`."""
        force = self._transformer.force_color, self._transformer.force_gray
        self.add_images([datum_to_array(datum, *force) for datum in datums], [datum.label for datum in datums])

    def next_batch(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Write the next batch into arrays of its shape, and of as many labels.

        Raises
        ------
        DataError
            If no arrays were given yet.
        """
        if self._data is None or self._labels is None:
            raise DataError("has no data yet; give some with net.set_input_arrays(data, labels)")
        rows = slice(self._place, self._place + self.shape[0])
        data[...] = self._data[rows]
        labels[...] = self._labels[rows].reshape(labels.shape)
        self._place = rows.stop % len(self._data)
        self._unread = self._unread and self._place > 0

    def state(self) -> dict[str, Any]:
        """``row``, of the next batch; the arrays are the caller's."""
        return {"row": self._place}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another on the same arrays stood.

        Raises
        ------
        DataError
            If the arrays have no such row.
        """
        if self._data is None:  # arrays that are given later are read from their first row
            return
        place, rows = state.get("row"), len(self._data)
        if type(place) is not int or not 0 <= place < rows or place % self.shape[0]:
            raise DataError(f"cannot go to row {place!r}: its arrays have {rows} rows, in batches of {self.shape[0]}; "
                            "give the arrays that it had")
        self._place = place
