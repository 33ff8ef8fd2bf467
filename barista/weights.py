"""Caffemodel files, binary or HDF5."""

from __future__ import annotations

import os

from . import hdf5
from .errors import PrototxtError, SnapshotError
from .files import is_hdf5, write_message
from .frontends.prototxt import read_binary_net
from .proto.caffe_pb2 import NetParameter


def read_weights(path: str | os.PathLike[str]) -> NetParameter:
    """Read a caffemodel; its first bytes tell which of the two forms it has.

    Raises
    ------
    SnapshotError : no such file, a file of another kind, or one that was cut short
    """
    try:
        of_hdf5 = is_hdf5(path)
    except OSError as error:
        raise SnapshotError(f"cannot read the weights {os.fspath(path)}: {error.strerror}") from error
    if of_hdf5:
        return hdf5.read_weights(path)
    try:
        return read_binary_net(os.fspath(path))
    except PrototxtError as error:
        raise SnapshotError(str(error)) from error


def write_weights(net: NetParameter, path: str | os.PathLike[str]) -> None:
    """Write a caffemodel: HDF5 where the name ends in ``.h5``, binary otherwise.

    Raises
    ------
    SnapshotError : the file cannot be written; an older one of its name is untouched
    """
    if os.fspath(path).endswith(".h5"):
        hdf5.write_weights(net, path)
    else:
        write_message(net, path)
