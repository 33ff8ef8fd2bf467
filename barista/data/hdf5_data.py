"""Data in HDF5 files: batches out of the files of a list, and rows into a file."""

from __future__ import annotations

import concurrent.futures
import logging
import math
import os
import stat
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from barista import rng as random
from barista.data.order import Order
from barista.data.read_ahead import Batches, Room
from barista.errors import DataError, MissingExtraError, hdf5_reason

logger = logging.getLogger("barista.data")

# So much is taken into memory whatever a file holds of it, and more where compression explains it.
_SMALL_BYTES = 64 << 20
_MOST_COMPRESSION = 1100  # deflate ends at 1032
# What h5py raises where a file is damaged.
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)


class HDF5Batches(Batches):
    """Rows of datasets in HDF5 files, file after file and round again; a batch may run over the end of a file.

    Parameters
    ----------
    source : list of files, their names apart by blanks or lines
    names : the datasets to read, an array of the batch each
    batch_size : rows in a batch
    shuffle : take files, and rows within each, in random order; each file is held in memory then
    rng : source of the orders

    Raises
    ------
    DataError
        If a file, a dataset or a number given cannot be used.
    MissingExtraError
        If h5py is not installed.

    Notes
    -----
    Caffe: files are read in the order of the list, which is drawn anew each turn where shuffled.
    """

    def __init__(self, source: str, names: Sequence[str], batch_size: int, shuffle: bool,
                 rng: np.random.Generator) -> None:
        self.name = f"HDF5 list {source!r}"
        if batch_size < 1:
            raise DataError(f"{self.name}: batch_size={batch_size} must be 1 or more")
        self._source, self._names, self._batch_size = source, tuple(names), batch_size
        self._shuffle, self._rng = shuffle, rng
        self._file: Any = None
        logger.info("Loading list of HDF5 filenames from: %s", source, extra={"origin": "hdf5_data_layer.cpp:80"})
        self._files = _read_names(source)
        logger.info("Number of HDF5 files: %d", len(self._files), extra={"origin": "hdf5_data_layer.cpp:94"})
        _check_there(source, self._files)
        self._order = Order(len(self._files), rng if shuffle else None)
        self._turn = self._row = 0
        self._open()
        self.shapes = tuple((batch_size, *rows.shape[1:]) for rows in self._datasets)

    def _open(self) -> None:
        """Open the file whose turn it is, and draw the order of its rows."""
        self.close()
        path, number = self._files[int(self._order.places[self._turn])]
        who = f"{self._source}:{number}: HDF5 file {path!r}"
        h5py = _h5py()
        try:
            self._file = h5py.File(path, "r")
            datasets = [_dataset(h5py, self._file, name, who) for name in self._names]
            self._check_rows(datasets, who)
            self._datasets = [_whole(dataset, who) for dataset in datasets] if self._shuffle else datasets
        except _UNREADABLE as error:
            self.close()
            if isinstance(error, DataError):
                raise
            raise DataError(f"{who} cannot be read: {hdf5_reason(error)}") from error
        self._rows = len(self._datasets[0])
        self._row_order = Order(self._rows, self._rng) if self._shuffle else None

    def _check_rows(self, datasets: Sequence[Any], who: str) -> None:
        """Refuse datasets of unlike lengths, and rows unlike those of the first file."""
        if len({len(dataset) for dataset in datasets}) > 1:
            counts = ", ".join(f"{name!r} {len(rows)}" for name, rows in zip(self._names, datasets, strict=True))
            raise DataError(f"{who}: its datasets differ in rows ({counts}); they must have one a sample")
        if not len(datasets[0]):
            raise DataError(f"{who}: its datasets have 0 rows; take it out of the list")
        for index, dataset in enumerate(datasets):
            if hasattr(self, "shapes") and dataset.shape[1:] != self.shapes[index][1:]:
                raise DataError(f"{who}: rows of dataset {self._names[index]!r} have shape {dataset.shape[1:]}, "
                                f"those of the first file {self.shapes[index][1:]}; all must agree")

    def fill(self, room: Room) -> None:
        arrays = room.arrays(self.shapes)
        filled = 0
        while filled < self._batch_size:
            count = min(self._batch_size - filled, self._rows - self._row)
            rows = slice(self._row, self._row + count)
            chosen = rows if self._row_order is None else self._row_order.places[rows]
            try:
                with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, as in Caffe
                    for array, dataset in zip(arrays, self._datasets, strict=True):
                        array[filled:filled + count] = dataset[chosen]
            except _UNREADABLE as error:
                path, number = self._files[int(self._order.places[self._turn])]
                raise DataError(f"{self._source}:{number}: HDF5 file {path!r}: rows {rows.start} to "
                                f"{rows.stop - 1} cannot be read: {hdf5_reason(error)}") from error
            filled += count
            self._row += count
            if self._row == self._rows:
                self._next_file()

    def _next_file(self) -> None:
        self._row = 0
        if len(self._files) == 1:
            if self._row_order is not None:
                self._row_order.draw()
            return
        self._turn += 1
        if self._turn == len(self._files):
            self._turn = 0
            self._order.draw()
        self._open()

    def state(self) -> dict[str, Any]:
        """``file`` (in order) and ``row`` (in order) that come next, both orders, and ``rng``."""
        rows = None if self._row_order is None else self._row_order.state()
        return {"file": self._turn, "row": self._row, "files": self._order.state(), "rows": rows,
                "rng": random.state_of(self._rng)}

    def restore(self, state: dict[str, Any]) -> None:
        try:
            turn, row, stand = int(state["file"]), int(state["row"]), state["rng"]
            files, rows = state["files"], state["rows"]
        except (KeyError, TypeError, ValueError) as error:
            raise self.bad_state(error) from error
        if not 0 <= turn < len(self._files):
            raise DataError(f"{self.name}: cannot go to file {turn}, it names {len(self._files)}; was it changed "
                            "since that place was noted?")
        self._order.restore(files)
        self._turn = turn
        self._open()
        if self._row_order is not None:
            self._row_order.restore(rows)
        if not 0 <= row < self._rows:
            raise DataError(f"{self.name}: cannot go to row {row}, the file has {self._rows}; was it changed since "
                            "that place was noted?")
        self._row = row
        random.restore(self._rng, stand)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class HDF5Rows:
    """Writes rows of data and labels into the datasets ``data`` and ``label`` of a new HDF5 file.

    After each `append` all rows are on their way to the disk; one that fails leaves none of its rows.  A thread writes,
    so that Ctrl-C neither cuts a batch in two nor gets lost inside h5py, where Python can only report it.

    Parameters
    ----------
    path : file to write; an older HDF5 file is replaced

    Raises
    ------
    DataError
        If the file cannot be made, or would replace one of another kind.
    """

    NAMES = ("data", "label")

    def __init__(self, path: str) -> None:
        self.path = path
        h5py = _h5py()
        # A definition from elsewhere may name any file.
        if os.path.exists(path) and os.path.getsize(path) and not h5py.is_hdf5(path):
            raise DataError(f"HDF5 file {path!r} is not made in the place of a file that is no HDF5 file; remove that "
                            "one, or name another")
        try:
            file = h5py.File(path, "w")
        except (OSError, ValueError) as error:
            raise DataError(f"HDF5 file {path!r} cannot be made: {hdf5_reason(error)}; its folder must exist and be "
                            "one that you may write to, and no other net may have it open (give the layer an "
                            "`include`, so that it is in one phase alone)") from error
        self._file = file
        self._complete = [0]  # rows of which both datasets have all
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "barista-hdf5")
        self._close = weakref.finalize(self, _finish, self._thread, file, self._complete)

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return self._complete[0]

    def append(self, *arrays: np.ndarray) -> None:
        """Write the rows of an array for each dataset, behind those that are there.

        Raises
        ------
        DataError
            If rows differ in number, or in shape from those before, or cannot be written.
        """
        if not self._close.alive:
            raise DataError(f"HDF5 file {self.path!r} is closed; nothing more can be written to it")
        self._thread.submit(self._append, arrays).result()

    def _append(self, arrays: tuple[np.ndarray, ...]) -> None:
        first, count = self.rows, len(arrays[0])
        for name, array in zip(self.NAMES, arrays, strict=True):
            before = self._file.get(name)
            if len(array) != count or (before is not None and before.shape[1:] != array.shape[1:]):
                had = f"{count} rows" if len(array) != count else f"rows of shape {before.shape[1:]}"
                raise DataError(f"HDF5 file {self.path!r}: dataset {name!r} would get an array of shape {array.shape} "
                                f"beside {had}; all must agree")
        try:
            for name, array in zip(self.NAMES, arrays, strict=True):
                if name in self._file:
                    self._file[name].resize(first + count, axis=0)
                    self._file[name][first:] = array
                else:
                    self._file.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]), chunks=True)
            self._complete[0] = first + count
            self._file.flush()
        except (OSError, RuntimeError) as error:
            raise DataError(f"HDF5 file {self.path!r} cannot be written: {hdf5_reason(error)}; is the disk "
                            "full?") from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._close()


def _finish(thread: concurrent.futures.Executor, file: Any, complete: list[int]) -> None:
    """Close a file when what is being written is there; no dataset keeps more rows than the other."""
    thread.shutdown()
    for dataset in file.values():
        if len(dataset) > complete[0]:
            dataset.resize(complete[0], axis=0)
    file.close()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "hdf5", "data in HDF5 files") from None
    return h5py


def _read_names(source: str) -> list[tuple[str, int]]:
    """Return the names in a list of files, each with the number of its line."""
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape") as file:
            names = [(name, number) for number, line in enumerate(file, start=1) for name in line.split()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"HDF5 list {source!r} cannot be read: {reason} (working folder {os.getcwd()!r}); it is a "
                        "text file with the name of an HDF5 file in each line") from error
    if not names:
        raise DataError(f"HDF5 list {source!r} names no file; write one a line")
    if any("\0" in name for name, _ in names):
        raise DataError(f"HDF5 list {source!r} is no text: its lines hold zero bytes; it names HDF5 files, one a line")
    return names


def _check_there(source: str, files: Sequence[tuple[str, int]]) -> None:
    """Refuse a file that is not there or may not be read before hours of training come to its turn."""
    for path, number in files:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise DataError(f"{source}:{number}: HDF5 file {path!r} cannot be read: it is no file")
            with open(path, "rb"):
                pass
        except OSError as error:
            raise DataError(f"{source}:{number}: HDF5 file {path!r} cannot be read: {error.strerror} (working folder "
                            f"{os.getcwd()!r})") from error


def _dataset(h5py: Any, file: Any, name: str, who: str) -> Any:
    """A dataset of numbers that lies in this file itself, with rows."""
    item = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if part and isinstance(item, h5py.Group) else None
        if link is None:
            raise DataError(f"{who}: has no dataset {name!r}, which the layer's top asks for; it has {sorted(file)}")
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"{who}: {name!r} is a link to another place, which is not followed; copy the dataset")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"{who}: {name!r} is no dataset; it holds {sorted(item)}")
    if item.external or item.is_virtual:
        raise DataError(f"{who}: dataset {name!r} keeps its values in other files, which are not read; copy it")
    if item.dtype.kind not in "fiu":
        raise DataError(f"{who}: dataset {name!r} holds {item.dtype}, no numbers")
    if not item.shape:
        raise DataError(f"{who}: dataset {name!r} has no axis; the first counts the rows")
    if item.chunks:
        _check_held(item, math.prod(item.chunks), who, "reading takes whole chunks")
    return item


def _whole(dataset: Any, who: str) -> np.ndarray:
    """All rows in memory, where the file really holds them."""
    _check_held(dataset, dataset.size, who, "shuffling reads all of it at once")
    array: np.ndarray = dataset[()]
    return array


def _check_held(dataset: Any, count: int, who: str, why: str) -> None:
    """Refuse to take `count` numbers into memory for a dataset that holds next to nothing."""
    claimed, stored = count * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if claimed > _SMALL_BYTES + _MOST_COMPRESSION * stored:
        raise DataError(f"{who}: dataset {dataset.name!r} claims {claimed} bytes, but holds {stored}; {why}: write it "
                        "anew")
