"""Batches from a database, read ahead by a thread while the network computes."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barista.data.database import Cursor, Database, open_database
from barista.data.datum import datum_to_array, parse_datum
from barista.data.transformer import Transformer
from barista.errors import DataError

logger = logging.getLogger("barista.data")


class Feeder:
    """Gives the batches of a database in order, without end.

    A thread decodes and transforms up to `prefetch` batches ahead, into buffers that are
    used again and again. It starts with the first `next_batch` and ends with `close`, with
    the collection of the feeder, or with the interpreter.

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
    shape : (N,C,h,w) of the data

    Raises
    ------
    DataError
        If the database, its first record or a number given cannot be used.
    """

    def __init__(self, source: str, backend: str, batch_size: int, transformer: Transformer,
                 prefetch: int = 4, rand_skip: int = 0, rng: np.random.Generator | None = None,
                 dtype: type[np.floating[Any]] = np.float32) -> None:
        for name, number, least in (("batch_size", batch_size, 1), ("prefetch", prefetch, 1),
                                    ("rand_skip", rand_skip, 0)):
            if number < least:
                raise DataError(f"database {source!r}: {name}={number} must be {least} or more")
        self._database = open_database(source, backend)
        try:
            self._reader = _Reader(self._database, transformer)
            self.shape = (batch_size, *self._reader.output_shape)
        except BaseException:
            self._database.close()
            raise
        if rand_skip:
            count = int((rng or transformer.rng).integers(0, rand_skip))
            logger.info("Skipping first %d data points.", count)
            self._reader.cursor.skip(count)
        self._prefetch = prefetch
        self._dtype = dtype
        self._state = self._reader.state()
        self._worker: _Worker | None = None
        self._current: _Batch | None = None
        self._stop: weakref.finalize[[], Feeder] | None = None
        self._closed = False

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def next_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the next data (N,C,h,w) and labels (N,); both are valid until the next call.

        Raises
        ------
        DataError
            If a record cannot be read, decoded or transformed; the message names it.
        """
        self._check_open()
        if self._worker is None:
            # One buffer more than is read ahead: the one that the caller holds.
            buffers = [_Batch(np.empty(self.shape, self._dtype), np.empty(self.shape[0], self._dtype))
                       for _ in range(self._prefetch + 1)]
            self._worker = _Worker(self._reader, buffers)
            self._stop = weakref.finalize(self, self._worker.stop)
        if self._current is not None:
            self._worker.free.put(self._current)
            self._current = None
        result = self._worker.ready.get()
        if isinstance(result, BaseException):
            self._worker.ready.put(result)  # for every later call too: the thread has ended
            raise result
        self._current = result
        self._state = result.state
        return result.data, result.labels

    def state(self) -> dict[str, Any]:
        """Return where the batch after the one last handed out begins, for `restore`.

        Returns
        -------
        dict : ``record``, the index of the next record, and ``rng``, the state of the transformer's random
            numbers; plain numbers, text and dicts, which JSON can hold
        """
        return dict(self._state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as a feeder of the same database did after it gave this state.

        Raises
        ------
        DataError
            If the state was not made by `state`, or the database has no such record.
        """
        self._check_open()
        self._stop_worker()
        self._reader.restore(state)
        self._state = self._reader.state()

    def close(self) -> None:
        """End the thread and close the database; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._stop_worker()
            self._database.close()

    def _stop_worker(self) -> None:
        if self._stop is not None:
            self._stop()
        self._worker = self._stop = self._current = None

    def _check_open(self) -> None:
        if self._closed:
            raise DataError(f"database {self._database.source!r}: its feeder is closed")


@dataclass
class _Batch:
    """Buffers of one batch, and the reader's state after it."""

    data: np.ndarray
    labels: np.ndarray
    state: dict[str, Any] = field(default_factory=dict)


class _Reader:
    """Reads batches one after the other; knows nothing of threads."""

    def __init__(self, database: Database, transformer: Transformer) -> None:
        self.cursor: Cursor = database.cursor()
        self._database = database
        self._transformer = transformer
        key, value = next(database.items())
        try:
            datum = parse_datum(value)
            if not datum.encoded and (transformer.force_color or transformer.force_gray):
                logger.warning("database %r: force_color and force_gray do nothing, its records are not "
                               "encoded images", database.source)
            self._first_shape = self._image(datum).shape
            self.output_shape = transformer.output_shape(*self._first_shape)
        except DataError as error:
            raise DataError(f"database {database.source!r}, record 0 (key {key!r}): {error}") from error

    def fill(self, batch: _Batch) -> None:
        """Read, decode and transform the next records into a batch."""
        images = []
        for row in range(len(batch.data)):
            value = self.cursor.next()
            try:
                datum = parse_datum(value)
                image = self._image(datum)
                if image.shape != self._first_shape \
                        and self._transformer.output_shape(*image.shape) != self.output_shape:
                    raise DataError(f"shape {image.shape}, but the first record has {self._first_shape}; "
                                    "set crop_size, or resize the images when converting them")
            except DataError as error:
                raise DataError(f"database {self._database.source!r}, record {self.cursor.index} "
                                f"(key {self.cursor.key!r}): {error}") from error
            images.append(image)
            batch.labels[row] = datum.label
        self._transformer.transform_batch(images, batch.data)
        batch.state = self.state()

    def state(self) -> dict[str, Any]:
        return {"record": self.cursor.position(), "rng": self._transformer.rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        try:
            record = int(state["record"])
            self._transformer.rng.bit_generator.state = state["rng"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"database {self._database.source!r}: {error!r} in the state to go on from; "
                            "it must come from Feeder.state() and the same kind of random numbers") from error
        self.cursor.seek(record)

    def _image(self, datum: Any) -> np.ndarray:
        return datum_to_array(datum, self._transformer.force_color, self._transformer.force_gray)


class _Worker:
    """The thread that fills buffers. It holds no reference to the feeder, which can so be collected."""

    def __init__(self, reader: _Reader, buffers: list[_Batch]) -> None:
        self.free: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self.ready: queue.SimpleQueue[_Batch | BaseException] = queue.SimpleQueue()
        for buffer in buffers:
            self.free.put(buffer)
        self._reader = reader
        self._stopping = threading.Event()
        # A daemon, because the interpreter joins other threads before it would run our finalizer.
        self._thread = threading.Thread(target=self._run, name="barista-feeder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it, at most for the batch that it is at."""
        self._stopping.set()
        self.free.put(None)
        # The collector may run this in the thread itself, which cannot wait for its own end.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self.free.get()) is not None and not self._stopping.is_set():
                self._reader.fill(batch)
                self.ready.put(batch)
        except BaseException as error:
            # Whatever it is, it belongs to the one who waits for the batch.
            self.ready.put(error)
