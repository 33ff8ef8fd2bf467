"""Databases of serialised ``Datum`` records: reading and creating LMDB folders.

Reading never writes: no lock file, no write permission needed, any number of
readers, in one process too. A file cut short is found before LMDB maps it,
since a read past the end of a mapped file would end the process.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import struct
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NoReturn

import lmdb

from barista.errors import DataError, UnsupportedError, nearest

logger = logging.getLogger("barista.data")

_META_MAGIC = 0xBEEFC0DE
_META_VERSION = 1
_META_BYTES = 152  # page header (16) and the meta record up to and with its transaction number
_FIRST_MAP_BYTES = 16 << 20
_RECORDS_PER_COMMIT = 1000


def open_database(source: str | os.PathLike[str], backend: str = "LMDB") -> Database:
    """Open a database for reading.

    Parameters
    ----------
    source : folder of the database
    backend : ``LMDB`` (``lmdb``); ``LEVELDB`` is refused

    Raises
    ------
    DataError
        If the folder is missing, is no LMDB, is cut short or has no record.
    UnsupportedError
        If the backend is LEVELDB.

    Notes
    -----
    LMDB trusts the pages of a file of the right length: open only databases from people you trust.
    """
    _require_lmdb(source, backend)
    return Database(source)


def create_database(path: str | os.PathLike[str], backend: str = "LMDB") -> DatabaseWriter:
    """Create a database in a new folder and return its writer.

    Raises
    ------
    DataError
        If the path exists already or cannot be made.
    UnsupportedError
        If the backend is LEVELDB.
    """
    _require_lmdb(path, backend)
    return DatabaseWriter(path)


class Database:
    """A database open for reading; use it as a context manager or call `close`.

    ``len(database)`` is the number of records. Every open `Database` of one
    folder in one process shares one LMDB environment.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        self.source = os.fspath(source)
        key, environment = _acquire(self.source)
        self._release = weakref.finalize(self, _release, key)
        try:
            self._transaction = environment.begin()
            self._length = int(self._transaction.stat()["entries"])
        except lmdb.Error as error:
            self._release()
            _fail(self.source, error)
        if self._length == 0:
            self.close()
            raise DataError(f"database {self.source!r} has 0 records; fill it first (convert_imageset)")

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def cursor(self) -> Cursor:
        """Return a cursor that stands before the first record and never ends."""
        return Cursor(self)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of every record once, in the order of the keys."""
        self._check_open()
        try:
            yield from self._transaction.cursor()
        except lmdb.Error as error:
            _fail(self.source, error)

    def close(self) -> None:
        """Close the database and its cursors; a second call does nothing."""
        if self._release.alive:
            self._transaction.abort()
            self._release()

    def _check_open(self) -> None:
        if not self._release.alive:
            raise DataError(f"database {self.source!r} is closed; open it again to read")


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
        self._database = database
        self.restarts = 0
        self.seek(0)

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> bytes:
        return self.next()

    def next(self) -> bytes:
        """Return the value of the next record and move on."""
        self._database._check_open()
        try:
            self.key, value = self._cursor.item()
            self.index = self._position
            self._advance()
        except lmdb.Error as error:
            _fail(self._database.source, error)
        return bytes(value)

    def skip(self, count: int) -> None:
        """Pass over `count` records."""
        self._database._check_open()
        try:
            for _ in range(count):
                self._advance()
        except lmdb.Error as error:
            _fail(self._database.source, error)

    def position(self) -> int:
        """Return the index (from 0) of the record that `next` will return."""
        return self._position

    def seek(self, position: int) -> None:
        """Go to a place that `position` gave, so that the walk goes on from there.

        Raises
        ------
        DataError
            If the database has no record of that index.
        """
        self._database._check_open()
        length = len(self._database)
        if not 0 <= position < length:
            raise DataError(f"database {self._database.source!r}: cannot go to record {position}, it has "
                            f"{length} (0 to {length - 1}); was it made anew since that place was noted?")
        try:
            self._cursor = self._database._transaction.cursor()
            self._cursor.first()
            # Keys alone: the values, which fill most of the file, are not touched.
            next(itertools.islice(self._cursor.iternext(keys=True, values=False), position, position), None)
            if position:
                self._cursor.next()
        except lmdb.Error as error:
            _fail(self._database.source, error)
        self._position = position
        self.key, self.index = b"", -1

    def _advance(self) -> None:
        self._position += 1
        if not self._cursor.next():
            logger.info("Restarting data prefetching from start.", extra={"origin": "data_layer.cpp:73"})
            self._cursor.first()
            self._position = 0
            self.restarts += 1


class DatabaseWriter:
    """Writes records into a new database; made by `create_database`.

    Use it as a context manager: a block that ends in an exception removes the
    half-written folder again, so that the same command can be run once more.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._pending: list[tuple[bytes, bytes]] = []
        self._map_bytes = _FIRST_MAP_BYTES
        if os.path.lexists(self.path):
            raise DataError(f"database {self.path!r} exists already; remove it or choose another path")
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise DataError(f"database {self.path!r} cannot be made: {error.strerror}; "
                            "its parent must be a folder that you may write to") from error
        try:
            # Nobody else uses this new folder: it needs no lock file, and one flush at the end will do.
            self._environment = lmdb.open(self.path, map_size=self._map_bytes, lock=False, sync=False)
        except (lmdb.Error, OSError) as error:
            shutil.rmtree(self.path, ignore_errors=True)
            _fail(self.path, error)
        self._open = True

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
            If the key is empty or longer than LMDB takes, or the disk is full.
        """
        if not self._open:
            raise DataError(f"database {self.path!r} is closed; nothing more can be written to it")
        name = os.fsencode(key) if isinstance(key, str) else key
        longest = self._environment.max_key_size()
        if not 1 <= len(name) <= longest:
            raise DataError(f"database {self.path!r}: key {key!r} has {len(name)} bytes, LMDB takes 1 to "
                            f"{longest}; use shorter file names")
        self._pending.append((name, value))
        if len(self._pending) >= _RECORDS_PER_COMMIT:
            self._commit()

    def close(self) -> None:
        """Write what is pending, flush to the disk and close; a second call does nothing."""
        if not self._open:
            return
        self._commit()
        try:
            self._environment.sync(True)
        except (lmdb.Error, OSError) as error:
            _fail(self.path, error)
        self._open = False
        self._environment.close()

    def discard(self) -> None:
        """Close and remove the folder with all that was written."""
        if self._open:
            self._open = False
            self._environment.close()
            shutil.rmtree(self.path, ignore_errors=True)

    def _commit(self) -> None:
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                self._pending.clear()
            except lmdb.MapFullError:
                # The failed transaction left nothing behind: the whole batch is written again.
                self._map_bytes *= 2
                self._environment.set_mapsize(self._map_bytes)
            except (lmdb.Error, OSError) as error:
                _fail(self.path, error)


def _require_lmdb(path: str | os.PathLike[str], backend: str) -> None:
    name = backend.upper()
    if name == "LEVELDB" and os.path.isfile(os.path.join(path, "data.mdb")):
        raise DataError(f"database {os.fspath(path)!r} is an LMDB, and the backend given is LEVELDB; write "
                        "`backend: LMDB` in data_param, which means LEVELDB where it says nothing")
    if name == "LEVELDB":
        raise UnsupportedError(f"database {os.fspath(path)!r}: backend LEVELDB; this version knows LMDB. "
                               "Convert it (barista convert_imageset --backend lmdb) and set "
                               "`backend: LMDB` in data_param, which means LEVELDB where it says nothing")
    if name != "LMDB":
        hint = nearest(backend, ["LMDB", "LEVELDB"])
        raise DataError(f"database {os.fspath(path)!r}: unknown backend {backend!r}; " + (hint or "use LMDB"))


def _fail(source: str, error: Exception) -> NoReturn:
    raise DataError(f"database {source!r}: {error} (LMDB); is the file damaged or the disk full?") from error


# LMDB opens a file once a process, so its users share: (process, device, inode) to (environment, user count).
_environments: dict[tuple[int, int, int], tuple[Any, int]] = {}
_environments_lock = threading.Lock()


def _acquire(source: str) -> tuple[tuple[int, int, int], Any]:
    """Return the shared environment of a database folder and the key to release it with."""
    path = os.path.join(source, "data.mdb")
    if not os.path.exists(source):
        raise DataError(f"database {source!r} does not exist (working folder {os.getcwd()!r}); "
                        "check `source` or create the database first")
    if not os.path.isdir(source):
        raise DataError(f"database {source!r} is a file; `source` names the folder that holds data.mdb")
    if not os.path.isfile(path):
        raise DataError(f"database {source!r} holds no data.mdb; it is not an LMDB folder")
    with _environments_lock:
        try:
            stat = os.stat(path)
            key = (os.getpid(), stat.st_dev, stat.st_ino)
            environment, users = _environments.get(key, (None, 0))
            if environment is None:
                _check_data_file(source, path, stat.st_size)
                environment = lmdb.open(source, readonly=True, lock=False, create=False)
        except (lmdb.Error, OSError) as error:
            _fail(source, error)
        _environments[key] = (environment, users + 1)
    return key, environment


def _release(key: tuple[int, int, int]) -> None:
    with _environments_lock, contextlib.suppress(KeyError):
        environment, users = _environments.pop(key)
        if users > 1:
            _environments[key] = (environment, users - 1)
        else:
            environment.close()


def _check_data_file(source: str, path: str, size_bytes: int) -> None:
    """Refuse a data.mdb that is no LMDB file or ends before its last page."""
    with open(path, "rb") as file:
        first = file.read(_META_BYTES)
        if len(first) < _META_BYTES:
            raise DataError(f"database {source!r}: data.mdb has {size_bytes} bytes, less than one LMDB meta "
                            "page; the file is empty or cut short, copy or create it anew")
        page_bytes, pages, transaction = _read_meta(source, first)
        file.seek(page_bytes)
        second = file.read(_META_BYTES)
    if len(second) == _META_BYTES:
        _, other_pages, other_transaction = _read_meta(source, second)
        if other_transaction > transaction:
            pages = other_pages
    # Both meta pages are always there, even in a database that was never written to.
    needed_bytes = max(pages, 2) * page_bytes
    if size_bytes < needed_bytes:
        raise DataError(f"database {source!r}: data.mdb has {size_bytes} bytes, but its meta page counts "
                        f"{needed_bytes} ({max(pages, 2)} pages of {page_bytes}); the file is cut short, "
                        "copy or create it anew")


def _read_meta(source: str, page: bytes) -> tuple[int, int, int]:
    """Return page size in bytes, number of pages and transaction number of an LMDB meta page."""
    magic, version = struct.unpack_from("=II", page, 16)
    (page_bytes,) = struct.unpack_from("=I", page, 40)
    last_page, transaction = struct.unpack_from("=QQ", page, 136)
    if magic != _META_MAGIC:
        raise DataError(f"database {source!r}: data.mdb is not an LMDB file (magic number {magic:#010x} "
                        f"instead of {_META_MAGIC:#010x}, in this machine's byte order)")
    if version != _META_VERSION or page_bytes.bit_count() != 1 or not 256 <= page_bytes <= 65536:
        raise DataError(f"database {source!r}: data.mdb has LMDB data version {version} and pages of "
                        f"{page_bytes} bytes; only version {_META_VERSION} of 64-bit machines can be read")
    return page_bytes, last_page + 1, transaction
