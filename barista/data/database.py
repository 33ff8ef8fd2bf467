"""Databases of serialised ``Datum`` records by the name of their kind: ``LMDB`` or ``LEVELDB``."""

from __future__ import annotations

import os

from barista.data.leveldb import LevelDBDatabase, LevelDBWriter
from barista.data.lmdb import LMDBDatabase, LMDBWriter
from barista.data.records import Cursor, Database, DatabaseWriter
from barista.errors import DataError, nearest

__all__ = ["Cursor", "Database", "DatabaseWriter", "create_database", "open_database"]

_READERS = {"LMDB": LMDBDatabase, "LEVELDB": LevelDBDatabase}
_WRITERS = {"LMDB": LMDBWriter, "LEVELDB": LevelDBWriter}


def open_database(source: str | os.PathLike[str], backend: str = "LMDB", option: str | None = None) -> Database:
    """Open a database for reading.

    Parameters
    ----------
    source : folder of the database
    backend : ``LMDB`` or ``LEVELDB``, in capital letters or small ones
    option : what of a command line gives the backend, such as ``--backend``; None where a definition does

    Raises
    ------
    DataError
        If the folder is missing, holds no such database, is damaged or has no record.
    MissingExtraError
        If the backend is LEVELDB and its package is not installed.

    Notes
    -----
    Both libraries trust the pages of files that look right: open only databases from people you trust.
    """
    name = _known(source, backend)
    path = os.fspath(source)
    if not os.path.exists(path):
        raise DataError(f"database {path!r} does not exist (working folder {os.getcwd()!r}); "
                        "check `source` or create the database first")
    if not os.path.isdir(path):
        holds = "data.mdb" if name == "LMDB" else "the files of the database"
        raise DataError(f"database {path!r} is a file; `source` names the folder that holds {holds}")
    is_lmdb = os.path.isfile(os.path.join(path, "data.mdb"))
    is_leveldb = os.path.isfile(os.path.join(path, "CURRENT"))
    if name == "LEVELDB" and is_lmdb:
        raise DataError(f"database {path!r} is an LMDB, and the backend given is LEVELDB; " + (
            f"give {option} lmdb" if option else
            "write `backend: LMDB` in data_param, which means LEVELDB where it says nothing"))
    if name == "LMDB" and is_leveldb and not is_lmdb:
        raise DataError(f"database {path!r} is a LevelDB, and the backend given is LMDB; " + (
            f"give {option} leveldb" if option else "write `backend: LEVELDB` in data_param"))
    if not (is_lmdb if name == "LMDB" else is_leveldb):
        missing = "data.mdb; it is not an LMDB folder" if name == "LMDB" else "CURRENT; it is not a LevelDB folder"
        raise DataError(f"database {path!r} holds no {missing}")
    return _READERS[name](path)


def create_database(path: str | os.PathLike[str], backend: str = "LMDB") -> DatabaseWriter:
    """Create a database in a new folder and return its writer.

    Raises
    ------
    DataError
        If the path exists already or cannot be made.
    MissingExtraError
        If the backend is LEVELDB and its package is not installed.
    """
    return _WRITERS[_known(path, backend)](path)


def _known(path: str | os.PathLike[str], backend: str) -> str:
    name = backend.upper()
    if name not in _READERS:
        hint = nearest(backend, _READERS) or "use LMDB or LEVELDB"
        raise DataError(f"database {os.fspath(path)!r}: unknown backend {backend!r}; {hint}")
    return name
