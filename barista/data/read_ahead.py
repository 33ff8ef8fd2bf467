"""Batches read ahead by a thread while the network computes, whatever they are made of."""

from __future__ import annotations

import abc
import math
import queue
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from barista.errors import DataError

Shapes = Sequence[tuple[int, ...]]


class Batches(abc.ABC):
    """Makes batches one after the other, without end; knows nothing of threads.

    Attributes
    ----------
    name : what it reads, as messages begin with it
    shapes : the shape of each array of the next batch, or of the last one
    """

    name: str
    shapes: Shapes

    @abc.abstractmethod
    def fill(self, room: Room) -> None:
        """Make the next batch in arrays that `Room.arrays` gives."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """Where the next batch begins, and where the random numbers stand, in values that JSON can hold."""

    @abc.abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on as the same batches did when they gave this state.

        Raises
        ------
        DataError
            If the state was not made by `state`, or what is read has no such place.
        """

    def close(self) -> None:
        """Close what is read; a second call does nothing."""
        return None

    def bad_state(self, error: Exception) -> DataError:
        """The error for a state that something else made."""
        return DataError(f"{self.name}: {error!r} in the state to go on from; it must come from state() of the same "
                         "data and the same kind of random numbers")


class Room:
    """The memory of one batch, which is used for one batch after the other.

    Attributes
    ----------
    memory : flat; one array lies behind the other in it
    shapes : the shapes of the arrays
    state : the state of the batches after this one
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.memory = np.empty(0, dtype)
        self.shapes: Shapes = ()
        self.state: dict[str, Any] = {}

    def arrays(self, shapes: Shapes) -> list[np.ndarray]:
        """Return arrays of these shapes, to be filled."""
        self.shapes = tuple(shapes)
        count = sum(math.prod(shape) for shape in shapes)
        if count > self.memory.size:
            self.memory = np.empty(count, self.memory.dtype)
        return cut(self.memory, shapes)


def cut(memory: np.ndarray, shapes: Shapes) -> list[np.ndarray]:
    """Return arrays of these shapes that lie one behind the other on a flat one."""
    arrays, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        arrays.append(memory[start:stop].reshape(shape))
        start = stop
    return arrays


class ReadAhead:
    """Hands out batches that a thread has made ahead, up to `prefetch` of them.

    Buffers are used again once nobody holds their arrays any more. The thread starts with the first
    `next_batch` and ends with `close`, with the collection of this object, or with the interpreter.

    Parameters
    ----------
    batches : makes them
    prefetch : batches to read ahead, 1 or more
    dtype : float32 or float64, of all arrays

    Attributes
    ----------
    shapes : of each array in the first batch; later ones may differ where the data do
    """

    def __init__(self, batches: Batches, prefetch: int = 4, dtype: npt.DTypeLike = np.float32) -> None:
        if prefetch < 1:
            raise DataError(f"{batches.name}: prefetch={prefetch} must be 1 or more")
        self.batches = batches
        self.shapes = tuple(batches.shapes)
        self._prefetch = prefetch
        self._dtype = np.dtype(dtype)
        self._state = batches.state()
        self._worker: _Worker | None = None
        self._stop: weakref.finalize[[], ReadAhead] | None = None
        self._closed = False

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def next_batch(self) -> tuple[np.ndarray, ...]:
        """Return the next batch's arrays; they do not change as long as they are held.

        Raises
        ------
        DataError
            If something cannot be read; the message names it.
        """
        self._check_open()
        if self._worker is None:
            self._worker = _Worker(self.batches, self._dtype, self._prefetch)
            self._stop = weakref.finalize(self, self._worker.stop)
        result = self._worker.ready.get()
        if isinstance(result, BaseException):
            self._worker.ready.put(result)  # for every later call too: the thread has ended
            raise result
        self._worker.room.put(None)
        self._state = result.state
        return self._worker.lend(result)

    def state(self) -> dict[str, Any]:
        """Return where the batch after the one last handed out begins, for `restore`, in values that JSON can hold."""
        return dict(self._state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as another on the same data did after it gave this state.

        Raises
        ------
        DataError, SnapshotError
            If the state was not made by `state`, or there is no such place.
        """
        self._check_open()
        self._stop_worker()
        self.batches.restore(state)
        self._state = self.batches.state()

    def close(self) -> None:
        """End the thread and close what it reads; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._stop_worker()
            self.batches.close()

    def _stop_worker(self) -> None:
        if self._stop is not None:
            self._stop()
        self._worker = self._stop = None

    def _check_open(self) -> None:
        if self._closed:
            raise DataError(f"{self.batches.name}: its feeder is closed")


class _Worker:
    """The thread that fills buffers. It holds no reference to the `ReadAhead`, which can so be collected.

    Attributes
    ----------
    ready : filled buffers in order, or why there are no more
    room : one entry for each batch that may still be read ahead; unlike a semaphore, a queue of this kind loses nothing
        when Ctrl-C comes in the middle
    """

    def __init__(self, batches: Batches, dtype: np.dtype[Any], prefetch: int) -> None:
        self.ready: queue.SimpleQueue[Room | BaseException] = queue.SimpleQueue()
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(prefetch):
            self.room.put(None)
        self._free: queue.SimpleQueue[Room] = queue.SimpleQueue()
        self._dtype = dtype
        self._batches = batches
        self._stopping = threading.Event()
        # A daemon, because the interpreter joins other threads before it would run our finalizer.
        self._thread = threading.Thread(target=self._run, name="barista-feeder", daemon=True)
        self._thread.start()

    def lend(self, room: Room) -> tuple[np.ndarray, ...]:
        """The arrays of a buffer, which comes back when neither they nor views of them are held any more."""
        # NumPy takes what an array of another kind of memory owns for that array's: its views hold it, and not `room`.
        memory = np.frombuffer(room.memory.data, self._dtype)
        weakref.finalize(memory, self._free.put, room).atexit = False
        return tuple(cut(memory, room.shapes))

    def stop(self) -> None:
        """End the thread and wait for it, at most for the batch that it is at."""
        self._stopping.set()
        self.room.put(None)
        # The collector may run this in the thread itself, which cannot wait for its own end.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self.room.get()
                if self._stopping.is_set():
                    return
                try:
                    room = self._free.get_nowait()
                except queue.Empty:
                    room = Room(self._dtype)
                self._batches.fill(room)
                room.state = self._batches.state()
                self.ready.put(room)
        except BaseException as error:
            # Whatever it is, it belongs to the one who waits for the batch.
            self.ready.put(error)
