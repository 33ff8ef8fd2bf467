"""LevelDB folders: reading and creating, with the package of the extra ``leveldb``.

LevelDB lets one process at a time open a folder, for reading too, and writes its lock and its journal there.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any, NoReturn

from barista.data.records import Database, DatabaseWriter, Handles, Walk
from barista.errors import DataError, MissingExtraError, UnsupportedError

# Caffe's own sizes.
_WRITE_BUFFER_BYTES = 256 << 20
_BLOCK_BYTES = 64 << 10
_OPEN_FILES = 100

_databases = Handles()


class LevelDBDatabase(Database):
    """A LevelDB open for reading. Every one of one folder in one process shares one handle of the library.

    Counting the records takes a walk through all of them, once.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.library = _plyvel(source)
        self._length: int | None = None
        try:
            key, self.handle = _databases.acquire(source, self._open)
        except (self.library.Error, OSError) as error:
            _fail(source, error)
        self._release = weakref.finalize(self, _databases.release, key)
        try:
            self.walk()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        return self.library.DB(self.source, create_if_missing=False, max_open_files=_OPEN_FILES)

    def __len__(self) -> int:
        if self._length is None:
            walk = self.walk()
            self._length = 1
            while walk.advance():
                self._length += 1
        return self._length

    def walk(self) -> Walk:
        return _LevelDBWalk(self)

    def close(self) -> None:
        self._release()

    @property
    def closed(self) -> bool:
        return not self._release.alive


class _LevelDBWalk(Walk):
    """An iterator of LevelDB, which sees what was there when it was made, and the record that it gave last."""

    def __init__(self, database: LevelDBDatabase) -> None:
        self._database = database
        self.restart()

    def key(self) -> bytes:
        return self._record[0]

    def value(self) -> bytes:
        return self._record[1]

    def advance(self) -> bool:
        try:
            record = next(self._iterator, None)
        except (self._database.library.Error, RuntimeError) as error:
            _fail(self._database.source, error)
        if record is not None:
            self._record = record
        return record is not None

    def restart(self) -> None:
        if not self._go(b""):
            raise self._database.refuse_empty()

    def find(self, key: bytes) -> bool:
        return self._go(key) and self.key() == key

    def _go(self, key: bytes) -> bool:
        """Go to the first record whose key is not before this one."""
        self._iterator = self._database.handle.iterator(start=key, verify_checksums=True, fill_cache=False)
        return self.advance()


class LevelDBWriter(DatabaseWriter):
    """Writes a new LevelDB."""

    kind = "LevelDB"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._library = _plyvel(os.fspath(path))
        super().__init__(path)

    def _start(self) -> None:
        try:
            self._handle = self._library.DB(self.path, create_if_missing=True, error_if_exists=True,
                                            write_buffer_size=_WRITE_BUFFER_BYTES, block_size=_BLOCK_BYTES,
                                            max_open_files=_OPEN_FILES)
        except (self._library.Error, OSError) as error:
            _fail(self.path, error)

    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        try:
            with self._handle.write_batch(sync=False) as batch:
                for key, value in records:
                    batch.put(key, value)
        except (self._library.Error, OSError) as error:
            _fail(self.path, error)

    def _finish(self, keep: bool) -> None:
        try:
            if keep:
                self._handle.write_batch(sync=True).write()  # an empty one, which brings all before it to the disk
        except (self._library.Error, OSError) as error:
            _fail(self.path, error)
        finally:
            self._handle.close()


def _plyvel(source: str) -> Any:
    try:
        import plyvel
    except ImportError:
        # setup.cfg has the same condition: elsewhere the extra would install nothing.
        if sys.platform == "linux" and os.uname().machine == "x86_64" and sys.version_info < (3, 13):
            raise MissingExtraError("plyvel", "leveldb", f"database {source!r}: backend LEVELDB") from None
        raise UnsupportedError(
            f"database {source!r}: backend LEVELDB needs the package 'plyvel', which comes ready for Python 3.11 and "
            "3.12 on x86-64 Linux alone; build it (pip install plyvel, with LevelDB's headers), or convert the "
            "database to LMDB (barista convert_imageset --backend lmdb) and set `backend: LMDB` in data_param, which "
            "means LEVELDB where it says nothing") from None
    return plyvel


def _fail(source: str, error: Exception) -> NoReturn:
    hint = "is it damaged, or the disk full?"
    if "lock" in str(error).lower():
        hint = ("another process has it open, and LevelDB lets in one at a time; wait for that one, or use an LMDB, "
                "which several can read")
    raise DataError(f"database {source!r}: {error} (LevelDB); {hint}") from error
