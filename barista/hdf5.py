"""Caffe's HDF5 files: ``.caffemodel.h5`` and ``.solverstate.h5``.

Weights lie in ``data/<layer>/<index>`` and gradients in ``diff/<layer>/<index>``; a solver's
state is ``iter``, ``current_step``, ``learned_net`` and ``history/<index>``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MissingExtraError, SnapshotError
from .files import replacing
from .proto.blobs import array_to_blob, blob_to_array
from .proto.caffe_pb2 import NetParameter


def require_h5py() -> None:
    """Raise MissingExtraError now, rather than when hours of training are to be written."""
    _h5py()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "hdf5", "a snapshot in HDF5") from None
    return h5py


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        with _h5py().File(path, "r") as file:
            yield file
    except OSError as error:
        raise SnapshotError(f"{os.fspath(path)} is not a readable HDF5 file ({error}); "
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
    h5py = _h5py()
    net = NetParameter()

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Group):
            return
        datasets = {int(key): value for key, value in item.items() if isinstance(value, h5py.Dataset)}
        layer = net.layer.add(name=name)
        for index in range(max(datasets, default=-1) + 1):
            blob = layer.blobs.add()
            if index in datasets:
                array_to_blob(datasets[index][()], blob)

    with _reading(path) as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise SnapshotError(f"{os.fspath(path)} holds no weights: it has {sorted(file)}, a caffemodel "
                                "has 'data'" + ("; it is a solverstate" if "history" in file else ""))
        try:
            file["data"].visititems(visit)
        except ValueError as error:
            raise SnapshotError(f"{os.fspath(path)}: {error}; "
                                "a caffemodel has data/<layer>/<number>") from error
    return net


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
    with _reading(path) as file:
        missing = [name for name in ("iter", "current_step", "history") if name not in file]
        if missing:
            hint = "; it is a caffemodel, give the .solverstate.h5" if "data" in file else ""
            raise SnapshotError(f"{os.fspath(path)} is not a solverstate: it has {sorted(file)} "
                                f"and lacks {missing}{hint}")
        learned_net = bytes(file["learned_net"][()]).decode() if "learned_net" in file else ""
        group = file["history"]
        names = [str(index) for index in range(len(group))]
        if set(names) != set(group):
            raise SnapshotError(f"{os.fspath(path)}: history is numbered {sorted(group)}, "
                                f"not 0 to {len(group) - 1}")
        history = [np.asarray(group[name][()]) for name in names]
        return int(file["iter"][0]), int(file["current_step"][0]), learned_net, history


def _write_string(file: Any, name: str, text: str) -> None:
    """Write a string as Caffe reads it: with a zero byte at its end, which counts."""
    h5py = _h5py()
    raw = text.encode()
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(raw) + 1)
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(raw, f"S{len(raw) + 1}"), mtype=kind)
