"""Databases of serialised ``Datum`` records, whatever their kind: reading, walking without end, writing.

`Database`, `Walk` and `DatabaseWriter` are what a kind fills in (`lmdb`, `leveldb`); `Cursor` is the same for all.
"""

from __future__ import annotations

import abc
import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from barista.errors import DataError

logger = logging.getLogger("barista.data")

_RECORDS_PER_COMMIT = 1000


class Walk(abc.ABC):
    """A place among the records, in the order of their keys; it stands at the first when it is made."""

    @abc.abstractmethod
    def key(self) -> bytes:
        """The key of the record here."""

    @abc.abstractmethod
    def value(self) -> bytes:
        """The value of the record here."""

    @abc.abstractmethod
    def advance(self) -> bool:
        """Go to the next record; False where there is none."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Go to the first record of the database as it is now, records that were added meanwhile included."""

    @abc.abstractmethod
    def find(self, key: bytes) -> bool:
        """Go to the record of this key; False where there is none."""


class Database(abc.ABC):
    """A database open for reading; use it as a context manager or call `close`.

    ``len(database)`` is the number of records when it was opened, or when a cursor last went back to the start.
    """

    source: str

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def walk(self) -> Walk:
        """Return a place at the first record."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the database and its cursors; a second call does nothing."""

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether `close` was called."""

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def cursor(self) -> Cursor:
        """Return a cursor that stands before the first record and never ends."""
        return Cursor(self)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of every record once, in the order of the keys."""
        self.check_open()
        walk = self.walk()
        yield walk.key(), walk.value()
        while walk.advance():
            yield walk.key(), walk.value()

    def check_open(self) -> None:
        """Raise DataError where the database is closed."""
        if self.closed:
            raise DataError(f"database {self.source!r} is closed; open it again to read")

    def refuse_empty(self) -> DataError:
        """The error for a database without a record."""
        return DataError(f"database {self.source!r} has 0 records; fill it first (convert_imageset)")


class Cursor:
    """Walks through a database without end; made by `Database.cursor`.

    Attributes
    ----------
    key : key of the record that `next` returned last, ``b""`` before the first
    index : its place in the database, counted from 0; -1 before the first
    restarts : how often the walk has gone back to the first record

    Notes
    -----
    Caffe: the walk goes back to the start, and says so in the log, as soon as the
    last record is taken and not when the next one is wanted.
    """

    def __init__(self, database: Database) -> None:
        database.check_open()
        self._database = database
        self._walk = database.walk()
        self._position = 0
        self.key, self.index, self.restarts = b"", -1, 0

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> bytes:
        return self.next()

    def next(self) -> bytes:
        """Return the value of the next record and move on."""
        self._database.check_open()
        self.key, value, self.index = self._walk.key(), self._walk.value(), self._position
        self._advance()
        return value

    def skip(self, count: int) -> None:
        """Pass over `count` records."""
        self._database.check_open()
        for _ in range(count):
            self._advance()

    def position(self) -> int:
        """Return the index (from 0) of the record that `next` will return."""
        return self._position

    def next_key(self) -> bytes:
        """Return the key of the record that `next` will return."""
        self._database.check_open()
        return self._walk.key()

    def seek(self, position: int, key: bytes | None = None) -> None:
        """Go to a place that `position` gave, so that the walk goes on from there.

        Parameters
        ----------
        position : index of the record
        key : what `next_key` gave there: it is found at once, where an index must be counted up to

        Raises
        ------
        DataError
            If the database has no such record.
        """
        self._database.check_open()
        if key is not None:
            if position < 0 or not self._walk.find(key):
                raise DataError(f"database {self._database.source!r}: cannot go to record {position}, there is none of "
                                f"the key {key!r}; was it made anew since that place was noted?")
        else:
            length = len(self._database)
            if not 0 <= position < length:
                raise DataError(f"database {self._database.source!r}: cannot go to record {position}, it has "
                                f"{length} (0 to {length - 1}); was it made anew since that place was noted?")
            self._walk = self._database.walk()
            for _ in range(position):
                self._walk.advance()
        self._position = position
        self.key, self.index = b"", -1

    def _advance(self) -> None:
        self._position += 1
        if not self._walk.advance():
            logger.info("Restarting data prefetching from start.", extra={"origin": "data_layer.cpp:73"})
            self._walk.restart()
            self._position = 0
            self.restarts += 1


class DatabaseWriter(abc.ABC):
    """Writes records into a new database; made by `create_database`.

    Use it as a context manager: a block that ends in an exception removes the
    half-written folder again, so that the same command can be run once more.

    Parameters
    ----------
    path : folder to create
    """

    longest_key_bytes: int | None = None  # None: any length
    kind: str

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._pending: list[tuple[bytes, bytes]] = []
        if os.path.lexists(self.path):
            raise DataError(f"database {self.path!r} exists already; remove it or choose another path")
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise DataError(f"database {self.path!r} cannot be made: {error.strerror}; "
                            "its parent must be a folder that you may write to") from error
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        self._open = True

    @abc.abstractmethod
    def _start(self) -> None:
        """Make the files in the new folder."""

    @abc.abstractmethod
    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        """Write some records at once."""

    @abc.abstractmethod
    def _finish(self, keep: bool) -> None:
        """Close the files, which are on the disk then where they are to be kept."""

    def __enter__(self) -> DatabaseWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()  # does nothing where close has succeeded

    def put(self, key: str | bytes, value: bytes) -> None:
        """Write one record; a key given twice keeps the later value.

        Raises
        ------
        DataError
            If the key is empty or longer than the kind of database takes, or the disk is full.
        """
        if not self._open:
            raise DataError(f"database {self.path!r} is closed; nothing more can be written to it")
        name = os.fsencode(key) if isinstance(key, str) else key
        longest = self.longest_key_bytes
        if not name or (longest is not None and len(name) > longest):
            limit = f"1 to {longest}; use shorter file names" if longest is not None else "1 or more"
            raise DataError(f"database {self.path!r}: key {key!r} has {len(name)} bytes, {self.kind} takes {limit}")
        self._pending.append((name, value))
        if len(self._pending) >= _RECORDS_PER_COMMIT:
            self._flush()

    def close(self) -> None:
        """Write what is pending, flush to the disk and close; a second call does nothing."""
        if not self._open:
            return
        self._flush()
        self._finish(keep=True)
        self._open = False

    def discard(self) -> None:
        """Close and remove the folder with all that was written."""
        if self._open:
            self._open = False
            self._finish(keep=False)
            shutil.rmtree(self.path, ignore_errors=True)

    def _flush(self) -> None:
        if self._pending:
            self._commit(self._pending)
            self._pending.clear()


Key = tuple[int, int, int]


class Handles:
    """What a process may open only once: its users share it, and the last one closes it."""

    def __init__(self) -> None:
        self._handles: dict[Key, tuple[Any, int]] = {}
        self._lock = threading.Lock()
        # What users let go of: the collector may do so in a thread that holds the lock, and must not wait for it.
        self._released: queue.SimpleQueue[Key] = queue.SimpleQueue()

    def acquire(self, path: str, open_handle: Callable[[], Any]) -> tuple[Key, Any]:
        """Return the handle of a file or folder, and the key to release it with."""
        with self._lock:
            self._close_unused()
            stat = os.stat(path)
            key = (os.getpid(), stat.st_dev, stat.st_ino)
            handle, users = self._handles.get(key, (None, 0))
            if handle is None:
                handle = open_handle()
            self._handles[key] = (handle, users + 1)
        self._tidy()
        return key, handle

    def release(self, key: Key) -> None:
        """Let go of a handle."""
        self._released.put(key)
        self._tidy()

    def _tidy(self) -> None:
        """Close what nobody uses, unless somebody holds the lock, who will do so afterwards."""
        while not self._released.empty() and self._lock.acquire(blocking=False):
            try:
                self._close_unused()
            finally:
                self._lock.release()

    def _close_unused(self) -> None:
        while not self._released.empty():
            key = self._released.get()
            handle, users = self._handles.pop(key, (None, 0))
            if users > 1:
                self._handles[key] = (handle, users - 1)
            elif handle is not None:
                handle.close()
