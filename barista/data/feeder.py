"""Batches from a database, read ahead by a thread while the network computes."""

from __future__ import annotations

import logging
import math
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
    used again once nobody holds their arrays any more. It starts with the first `next_batch`
    and ends with `close`, with the collection of the feeder, or with the interpreter.

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
        self._stop: weakref.finalize[[], Feeder] | None = None
        self._closed = False

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def next_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the next data (N,C,h,w) and labels (N,); they do not change as long as they are held.

        Raises
        ------
        DataError
            If a record cannot be read, decoded or transformed; the message names it.
        """
        self._check_open()
        if self._worker is None:
            self._worker = _Worker(self._reader, self.shape, np.dtype(self._dtype), self._prefetch)
            self._stop = weakref.finalize(self, self._worker.stop)
        result = self._worker.ready.get()
        if isinstance(result, BaseException):
            self._worker.ready.put(result)  # for every later call too: the thread has ended
            raise result
        self._worker.room.release()
        self._state = result.state
        return self._worker.lend(result)

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
        self._worker = self._stop = None

    def _check_open(self) -> None:
        if self._closed:
            raise DataError(f"database {self._database.source!r}: its feeder is closed")


@dataclass
class _Batch:
    """The memory of one batch, data and labels in it, and the reader's state after it."""

    memory: np.ndarray
    data: np.ndarray
    labels: np.ndarray
    state: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Batch:
        """A batch of data (N,C,h,w) that is yet to be filled."""
        images = math.prod(shape)
        memory = np.empty(images + shape[0], dtype)
        return cls(memory, memory[:images].reshape(shape), memory[images:])


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
    """The thread that fills buffers. It holds no reference to the feeder, which can so be collected.

    Attributes
    ----------
    ready : filled buffers in order, or why there are no more
    room : one for each batch that may still be read ahead
    """

    def __init__(self, reader: _Reader, shape: tuple[int, ...], dtype: np.dtype[Any], prefetch: int) -> None:
        self.ready: queue.SimpleQueue[_Batch | BaseException] = queue.SimpleQueue()
        self.room = threading.Semaphore(prefetch)
        self._free: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._shape, self._dtype = shape, dtype
        self._reader = reader
        self._stopping = threading.Event()
        # A daemon, because the interpreter joins other threads before it would run our finalizer.
        self._thread = threading.Thread(target=self._run, name="barista-feeder", daemon=True)
        self._thread.start()

    def lend(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """The arrays of a buffer, which comes back when neither they nor views of them are held any more."""
        # NumPy takes what an array of another kind of memory owns for that array's: its views hold it, and not `batch`.
        data = np.frombuffer(batch.memory.data, self._dtype)
        weakref.finalize(data, self._free.put, batch).atexit = False
        images = data.size - self._shape[0]
        return data[:images].reshape(self._shape), data[images:]

    def stop(self) -> None:
        """End the thread and wait for it, at most for the batch that it is at."""
        self._stopping.set()
        self.room.release()
        # The collector may run this in the thread itself, which cannot wait for its own end.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self.room.acquire() and not self._stopping.is_set():
                try:
                    batch = self._free.get_nowait()
                except queue.Empty:
                    batch = _Batch.empty(self._shape, self._dtype)
                self._reader.fill(batch)
                self.ready.put(batch)
        except BaseException as error:
            # Whatever it is, it belongs to the one who waits for the batch.
            self.ready.put(error)
