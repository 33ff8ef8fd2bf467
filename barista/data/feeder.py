"""Batches from a database of ``Datum`` records, read ahead by a thread while the network computes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from barista import rng as random
from barista.data.database import open_database
from barista.data.datum import datum_to_array, parse_datum
from barista.data.read_ahead import Batches, ReadAhead, Room
from barista.data.transformer import Transformer
from barista.errors import DataError

logger = logging.getLogger("barista.data")


class Feeder(ReadAhead):
    """Gives the batches of a database in order, without end: data (N,C,h,w) and labels (N,).

    Parameters
    ----------
    source, backend : database, see `open_database`
    batch_size : images in a batch
    transformer : what happens to each image
    prefetch : batches to read ahead, 1 or more
    rand_skip : pass over a random number of records, below this, at the start
    rng : source of that number; the transformer's where None
    dtype : float32 or float64, of data and labels

    Attributes
    ----------
    shape : (N,C,h,w) of the first data

    Raises
    ------
    DataError
        If the database, its first record or a number given cannot be used.
    """

    def __init__(self, source: str, backend: str, batch_size: int, transformer: Transformer,
                 prefetch: int = 4, rand_skip: int = 0, rng: np.random.Generator | None = None,
                 dtype: npt.DTypeLike = np.float32) -> None:
        batches = DatabaseBatches(source, backend, batch_size, transformer)
        try:
            super().__init__(batches, prefetch, dtype)
            if rand_skip < 0:
                raise DataError(f"{batches.name}: rand_skip={rand_skip} must be 0 or more")
        except BaseException:
            batches.close()
            raise
        if rand_skip:
            count = int((rng or transformer.rng).integers(0, rand_skip))
            logger.info("Skipping first %d data points.", count)
            batches.cursor.skip(count)
            self._state = batches.state()
        self.shape = self.shapes[0]


class DatabaseBatches(Batches):
    """Reads, decodes and transforms the records of a database.

    Parameters
    ----------
    source, backend : database, see `open_database`
    batch_size : images in a batch
    transformer : what happens to each image

    Notes
    -----
    Caffe: each batch has the size of its first image, so that batches of one may differ.
    """

    def __init__(self, source: str, backend: str, batch_size: int, transformer: Transformer) -> None:
        self.name = f"database {source!r}"
        if batch_size < 1:
            raise DataError(f"{self.name}: batch_size={batch_size} must be 1 or more")
        self._batch_size = batch_size
        self._transformer = transformer
        self._database = open_database(source, backend)
        try:
            self.cursor = self._database.cursor()
            self._read_first()
        except BaseException:
            self._database.close()
            raise

    def _read_first(self) -> None:
        key, value = next(self._database.items())
        try:
            datum = parse_datum(value)
            if not datum.encoded and (self._transformer.force_color or self._transformer.force_gray):
                logger.warning("%s: force_color and force_gray do nothing, its records are not encoded images",
                               self.name)
            self._set_shapes(self._image(datum))
        except DataError as error:
            raise DataError(f"{self.name}, record 0 (key {key!r}): {error}") from error

    def _set_shapes(self, image: np.ndarray) -> None:
        self._first_shape = image.shape
        self._output_shape = self._transformer.output_shape(*image.shape)
        self.shapes = ((self._batch_size, *self._output_shape), (self._batch_size,))

    def fill(self, room: Room) -> None:
        images, labels = [], []
        for row in range(self._batch_size):
            value = self.cursor.next()
            try:
                datum = parse_datum(value)
                image = self._image(datum)
                if not row:
                    self._set_shapes(image)
                elif image.shape != self._first_shape \
                        and self._transformer.output_shape(*image.shape) != self._output_shape:
                    raise DataError(f"shape {image.shape}, but the first record of the batch has {self._first_shape}; "
                                    "set crop_size, or resize the images when converting them")
            except DataError as error:
                raise DataError(f"{self.name}, record {self.cursor.index} (key {self.cursor.key!r}): "
                                f"{error}") from error
            images.append(image)
            labels.append(datum.label)
        data, out = room.arrays(self.shapes)
        self._transformer.transform_batch(images, data)
        out[:] = labels

    def state(self) -> dict[str, Any]:
        """``record`` and ``key``, of the next record, and ``rng``, where the transformer's random numbers stand."""
        return {"record": self.cursor.position(), "key": self.cursor.next_key().hex(),
                "rng": random.state_of(self._transformer.rng)}

    def restore(self, state: dict[str, Any]) -> None:
        try:
            record, key, stand = int(state["record"]), bytes.fromhex(state["key"]), state["rng"]
        except (KeyError, TypeError, ValueError) as error:
            raise self.bad_state(error) from error
        self.cursor.seek(record, key)
        random.restore(self._transformer.rng, stand)

    def close(self) -> None:
        self._database.close()

    def _image(self, datum: Any) -> np.ndarray:
        return datum_to_array(datum, self._transformer.force_color, self._transformer.force_gray)
