"""Caffe's HDF5 files: ``.caffemodel.h5`` and ``.solverstate.h5``.

Weights lie in ``data/<layer>/<index>`` and gradients in ``diff/<layer>/<index>``; a solver's
state is ``iter``, ``current_step``, ``learned_net`` and ``history/<index>``.

A file may come from anywhere.  What it names is opened only where it lies in the file itself, and its sizes are
held against the file's before memory is taken: no links, no storage elsewhere, no virtual datasets, no compression
that swells beyond twice the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MissingExtraError, SnapshotError, hdf5_reason
from .files import replacing
from .proto.blobs import MAX_AXES, array_to_blob, blob_to_array
from .proto.caffe_pb2 import NetParameter

# Numbers of weights that a layer may leave out because other layers own them.
MOST_MISSING = 64
# How deep groups lie at most: layers may have '/' in their names.
DEEPEST = 32
# What datasets may take beyond twice the file: small ones may be compressed well.
SPARE_BYTES = 16 * 2**20
# What a dataset takes in memory beside its numbers, and what looking into a group costs, about.
_DATASET_BYTES, _GROUP_BYTES = 512, 4096


def require_h5py() -> None:
    """Raise MissingExtraError now, rather than when hours of training are to be written."""
    _h5py()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "hdf5", "a snapshot in HDF5") from None
    return h5py


class _Reader:
    """The inside of a file from anywhere, of which nothing is trusted."""

    def __init__(self, path: str, file: Any) -> None:
        self._h5py = _h5py()
        self.path = path
        self.file = file
        self._left_bytes = 2 * os.path.getsize(path) + SPARE_BYTES

    def children(self, group: Any) -> list[str]:
        """Names in a group; one that is a link to elsewhere is refused."""
        self._spend(_GROUP_BYTES)  # links within the file may lead to one group in very many ways
        names = list(group)
        for name in names:
            if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
                raise self.error(f"{group.name}/{name} is a link to another place, which is not followed")
        return names

    def is_group(self, group: Any, name: str) -> bool:
        """Whether a child is a group."""
        return group.get(name, getclass=True) is self._h5py.Group

    def array(self, group: Any, name: str) -> npt.NDArray[Any]:
        """The numbers of a child; float64 stays, everything else becomes float32 or an integer as it is."""
        dataset = self._dataset(group, name)
        if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8 or dataset.shape is None:
            raise self.error(f"{dataset.name} holds {dataset.dtype}, not numbers of up to 64 bits")
        if len(dataset.shape) > MAX_AXES:
            raise self.error(f"{dataset.name} has {len(dataset.shape)} axes; a blob has at most {MAX_AXES}")
        self._take(dataset)
        return np.asarray(dataset[()])

    def number(self, name: str) -> int:
        """The first number of a dataset of the file's root."""
        values = self.array(self.file, name)
        if values.size < 1 or values.dtype.kind == "f":
            raise self.error(f"{name} holds no whole number")
        return int(values.reshape(-1)[0])

    def text(self, name: str) -> str:
        """The string of the root's dataset `name`."""
        dataset = self._dataset(self.file, name)
        if dataset.dtype.kind != "S" or dataset.shape != ():
            raise self.error(f"{name} holds {dataset.dtype}, not one string of a fixed length")
        self._take(dataset)
        return bytes(dataset[()]).decode("utf-8", "surrogateescape")

    def error(self, text: str) -> SnapshotError:
        """An error that names the file."""
        return SnapshotError(f"{self.path}: {text}")

    def _dataset(self, group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
            raise self.error(f"{group.name}/{name} is a link to another place, which is not followed")
        dataset = group[name]
        if not isinstance(dataset, self._h5py.Dataset):
            raise self.error(f"{dataset.name} is no dataset")
        if dataset.is_virtual or dataset.external:
            raise self.error(f"{dataset.name} has its numbers in another file, which is not opened")
        return dataset

    def _take(self, dataset: Any) -> None:
        """Count what a dataset states that it holds, before it is read."""
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > stored and dataset.compression is None and not dataset.chunks:
            raise self.error(f"{dataset.name} states {dataset.nbytes} bytes, and {stored} are there: it was cut short")
        # Reading takes whole chunks, which may be larger than the dataset.
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
        self._spend(max(dataset.nbytes, chunk_bytes) + _DATASET_BYTES)

    def _spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise self.error(f"its datasets state more than twice the {os.path.getsize(self.path)} bytes of the file: "
                             "they are compressed too strongly to be trusted, or damaged. Write it anew without "
                             "compression: h5repack -f NONE")


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[_Reader]:
    name = os.fspath(path)
    try:
        with _h5py().File(name, "r") as file:
            yield _Reader(name, file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        # The classes that h5py has for what its library finds broken.
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"{name} is not a readable HDF5 file ({hdf5_reason(error)}); "
                            "it was cut short, or is of another format") from error


@contextlib.contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[Any]:
    with replacing(path) as part:
        try:
            with _h5py().File(part, "w") as file:
                yield file
        except RuntimeError as error:
            # Where the disk is full only when the file is closed, h5py raises this class.
            raise OSError(str(error)) from error


def write_weights(net: NetParameter, path: str | os.PathLike[str]) -> None:
    """Write the parameters of all layers, with their gradients where they carry any."""
    with _writing(path) as file:
        with_diff = any(blob.diff or blob.double_diff for layer in net.layer for blob in layer.blobs)
        for what in ("data", "diff") if with_diff else ("data",):
            top = file.create_group(what)
            for layer in net.layer:
                group = top.require_group(layer.name)
                for index, blob in enumerate(layer.blobs):
                    group.create_dataset(str(index), data=blob_to_array(blob, diff=what == "diff"))


def read_weights(path: str | os.PathLike[str]) -> NetParameter:
    """Read the parameters of all layers.

    Caffe: a parameter that another layer owns is missing in the file; its blob is empty here.

    Raises
    ------
    SnapshotError : not HDF5, or not of this layout
    """
    with _reading(path) as reader:
        names = reader.children(reader.file)
        if "data" not in names or not reader.is_group(reader.file, "data"):
            raise SnapshotError(f"{os.fspath(path)} holds no weights: it has {names}, a caffemodel "
                                "has 'data'" + ("; it is a solverstate" if "history" in names else ""))
        net = NetParameter()
        _add_layers(reader, reader.file["data"], "", net)
        return net


def _add_layers(reader: _Reader, group: Any, name: str, net: NetParameter) -> None:
    """Add the layer whose datasets lie in a group, if there are any, and those in the groups below it."""
    datasets, children = [], reader.children(group)
    for child in children:
        inner = f"{name}/{child}" if name else child
        if not reader.is_group(group, child):
            datasets.append(child)
        elif inner.count("/") >= DEEPEST:
            raise reader.error(f"groups lie more than {DEEPEST} deep in each other, as in {inner[:80]}...")
        else:
            _add_layers(reader, group[child], inner, net)
    if not datasets and (children or not name):
        return
    most = len(datasets) + MOST_MISSING
    if not name or not all(re.fullmatch(r"[0-9]{1,6}", child) and int(child) < most for child in datasets):
        raise reader.error(f"data/{name} holds {sorted(datasets)[:5]}; a caffemodel has data/<layer>/<number>")
    layer = net.layer.add(name=name)
    for index in range(max(map(int, datasets), default=-1) + 1):
        blob = layer.blobs.add()
        if str(index) in datasets:
            array_to_blob(reader.array(group, str(index)), blob)


def write_state(path: str | os.PathLike[str], iteration: int, current_step: int, learned_net: str,
                history: Sequence[npt.NDArray[Any]]) -> None:
    """Write a solver's state."""
    with _writing(path) as file:
        file["iter"] = np.array([iteration], np.int32)
        file["current_step"] = np.array([current_step], np.int32)
        _write_string(file, "learned_net", learned_net)
        group = file.create_group("history")
        for index, array in enumerate(history):
            group.create_dataset(str(index), data=array)


def read_state(path: str | os.PathLike[str]) -> tuple[int, int, str, list[npt.NDArray[Any]]]:
    """Read what `write_state` wrote: iteration, current step, learned net and history.

    Raises
    ------
    SnapshotError : not HDF5, or not of this layout
    """
    with _reading(path) as reader:
        names = reader.children(reader.file)
        missing = [name for name in ("iter", "current_step", "history") if name not in names]
        if missing:
            hint = "; it is a caffemodel, give the .solverstate.h5" if "data" in names else ""
            raise SnapshotError(f"{os.fspath(path)} is not a solverstate: it has {names} "
                                f"and lacks {missing}{hint}")
        if not reader.is_group(reader.file, "history"):
            raise reader.error("history is no group")
        group = reader.file["history"]
        numbers = reader.children(group)
        wanted = [str(index) for index in range(len(numbers))]
        if set(wanted) != set(numbers):
            raise reader.error(f"history is numbered {sorted(numbers)[:5]}, not 0 to {len(numbers) - 1}")
        history = [reader.array(group, name) for name in wanted]
        learned_net = reader.text("learned_net") if "learned_net" in names else ""
        return reader.number("iter"), reader.number("current_step"), learned_net, history


def _write_string(file: Any, name: str, text: str) -> None:
    """Write a string as Caffe reads it: with a zero byte at its end, which counts."""
    h5py = _h5py()
    raw = text.encode()
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(raw) + 1)
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_obj_track_times(False)  # the same state gives the same bytes
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR), settings)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(raw, f"S{len(raw) + 1}"), mtype=kind)
