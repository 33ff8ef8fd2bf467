"""LMDB folders: reading and creating.

Readers see the database as it was when they opened it, whatever another process adds meanwhile; a cursor that goes
back to the start sees what was added. For that LMDB notes its readers in ``lock.mdb``, which it makes beside the
data, as Caffe does too. Where the folder may not be written to it is read without, which is safe as long as nobody
writes. A file cut short is found before LMDB maps it, since a read past the end of a mapped file would end the process.
"""

from __future__ import annotations

import itertools
import logging
import os
import struct
import weakref
from typing import Any, NoReturn

import lmdb

from barista.data.records import Database, DatabaseWriter, Handles, Walk
from barista.errors import DataError

logger = logging.getLogger("barista.data")

_META_MAGIC = 0xBEEFC0DE
_META_VERSION = 1
_META_BYTES = 152  # page header (16) and the meta record up to and with its transaction number
_FIRST_MAP_BYTES = 16 << 20
# Addresses kept free behind a file that is read, so that it can grow there; they cost no memory. Windows has no such
# maps: there a reader stays with what it saw when it opened.
_ROOM_TO_GROW_BYTES = 256 << 30 if os.name == "posix" else 0

_environments = Handles()


class LMDBDatabase(Database):
    """An LMDB open for reading. Every one of one folder in one process shares one LMDB environment."""

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            key, self._environment = _environments.acquire(os.path.join(source, "data.mdb"),
                                                           lambda: _open_environment(source))
        except (lmdb.Error, OSError) as error:
            _fail(source, error)
        self._release = weakref.finalize(self, _environments.release, key)
        try:
            self.transaction = self._environment.begin()
            self._length = int(self.transaction.stat()["entries"])
        except lmdb.Error as error:
            self._release()
            _fail(source, error)
        if self._length == 0:
            self.close()
            raise self.refuse_empty()

    def __len__(self) -> int:
        return self._length

    def walk(self) -> Walk:
        return _LMDBWalk(self)

    def refresh(self) -> None:
        """See the records that were added since the database was opened, or since the last such call."""
        if not _ROOM_TO_GROW_BYTES:
            return
        try:
            newest = self._environment.begin()
            length = int(newest.stat()["entries"])
        except lmdb.MapResizedError:
            logger.warning("database %r has grown by more than %d GiB since it was opened: what was added is seen "
                           "when it is opened anew", self.source, _ROOM_TO_GROW_BYTES >> 30)
            return
        except lmdb.Error as error:
            _fail(self.source, error)
        # Somebody may have emptied it: then the walk goes on through what was there.
        if newest.id() != self.transaction.id() and length:
            self.transaction, self._length = newest, length
        else:
            newest.abort()

    def close(self) -> None:
        if self._release.alive:
            self.transaction.abort()
            self._release()

    @property
    def closed(self) -> bool:
        return not self._release.alive


class _LMDBWalk(Walk):
    """A cursor of LMDB. It holds its transaction, so that what it sees stays, whatever others refresh."""

    def __init__(self, database: LMDBDatabase) -> None:
        self._database = database
        self._start()

    def key(self) -> bytes:
        try:
            return bytes(self._cursor.key())
        except lmdb.Error as error:
            _fail(self._database.source, error)

    def value(self) -> bytes:
        try:
            return bytes(self._cursor.value())
        except lmdb.Error as error:
            _fail(self._database.source, error)

    def advance(self) -> bool:
        try:
            return bool(self._cursor.next())
        except lmdb.Error as error:
            _fail(self._database.source, error)

    def restart(self) -> None:
        self._database.refresh()
        self._start()

    def find(self, key: bytes) -> bool:
        try:
            return bool(key) and bool(self._cursor.set_key(key))
        except lmdb.Error as error:
            _fail(self._database.source, error)

    def _start(self) -> None:
        try:
            self._cursor = self._database.transaction.cursor()
            self._cursor.first()
        except lmdb.Error as error:
            _fail(self._database.source, error)


class LMDBWriter(DatabaseWriter):
    """Writes a new LMDB, whose map grows with it."""

    kind = "LMDB"

    def _start(self) -> None:
        self._map_bytes = _FIRST_MAP_BYTES
        try:
            # Nobody else uses this new folder: it needs no lock file, and one flush at the end will do.
            self._environment = lmdb.open(self.path, map_size=self._map_bytes, lock=False, sync=False)
        except (lmdb.Error, OSError) as error:
            _fail(self.path, error)
        self.longest_key_bytes = self._environment.max_key_size()

    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                # The failed transaction left nothing behind: the whole batch is written again.
                self._map_bytes *= 2
                self._environment.set_mapsize(self._map_bytes)
            except (lmdb.Error, OSError) as error:
                _fail(self.path, error)

    def _finish(self, keep: bool) -> None:
        if keep:
            try:
                self._environment.sync(True)
            except (lmdb.Error, OSError) as error:
                _fail(self.path, error)
        self._environment.close()


def _fail(source: str, error: Exception) -> NoReturn:
    raise DataError(f"database {source!r}: {error} (LMDB); is the file damaged or the disk full?") from error


def _open_environment(source: str) -> Any:
    """Open a folder for reading, with lock and room to grow where the system gives them."""
    path = os.path.join(source, "data.mdb")
    _check_data_file(source, path)
    room_bytes = os.path.getsize(path) + _ROOM_TO_GROW_BYTES
    refused: Exception | None = None
    for lock, map_bytes in itertools.product((True, False), (room_bytes, _FIRST_MAP_BYTES)):
        try:
            environment = lmdb.open(source, readonly=True, create=False, lock=lock, map_size=map_bytes, mode=0o664)
        except (lmdb.Error, OSError) as error:
            refused = error
            continue
        if lock:
            environment.reader_check()  # those that were killed hold their places no longer
        else:
            logger.info("database %r is read without its lock (%s); nobody may write to it meanwhile", source, refused)
        return environment
    assert refused is not None
    raise refused


def _check_data_file(source: str, path: str) -> None:
    """Refuse a data.mdb that is no LMDB file or ends before its last page."""
    with open(path, "rb") as file:
        first = file.read(_META_BYTES)
        if len(first) < _META_BYTES:
            raise DataError(f"database {source!r}: data.mdb has {len(first)} bytes, less than one LMDB meta "
                            "page; the file is empty or cut short, copy or create it anew")
        page_bytes, pages, transaction = _read_meta(source, first)
        file.seek(page_bytes)
        second = file.read(_META_BYTES)
        # Asked last: somebody who adds to the file has made it longer before a meta page says so.
        size_bytes = os.fstat(file.fileno()).st_size
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
