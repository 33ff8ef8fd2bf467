"""Solver states on disk: ``.solverstate`` (binary) and ``.solverstate.h5``, exchangeable with Caffe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from .. import hdf5
from ..blob import HOST, Tensor
from ..errors import DataError, SnapshotError
from ..files import is_hdf5, write_message
from ..proto.blobs import array_to_blob, blob_to_array
from ..proto.caffe_pb2 import NetParameter, SolverState
from ..proto.wire import parse


@dataclasses.dataclass(frozen=True)
class State:
    """What a solver needs, beside the weights, to continue.

    Attributes
    ----------
    iteration : iterations done
    current_step : steps of the learning rate policy done
    learned_net : path of the weights, as it was when they were written
    history : the rule's arrays, in the order of `Update.history`
    """

    iteration: int
    current_step: int
    learned_net: str
    history: Sequence[npt.NDArray[Any]]


def write_state(state: State, path: str) -> None:
    """Write a state: HDF5 where the name ends in ``.h5``, binary otherwise.

    Raises
    ------
    SnapshotError : the file cannot be written; an older one of its name is untouched
    """
    if path.endswith(".h5"):
        hdf5.write_state(path, state.iteration, state.current_step, state.learned_net, state.history)
        return
    message = SolverState(iter=state.iteration, learned_net=state.learned_net,
                          current_step=state.current_step)
    for array in state.history:
        array_to_blob(array, message.history.add())
    write_message(message, path)


def read_state(path: str) -> State:
    """Read a state; the first bytes of the file tell which of the two forms it has.

    Raises
    ------
    SnapshotError : no such file, another kind of file, or one that was cut short
    """
    try:
        if is_hdf5(path):
            return State(*hdf5.read_state(path))
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise SnapshotError(f"cannot read the solverstate {path}: {error.strerror}") from error
    try:
        message = parse(raw, SolverState)
    except DecodeError as error:
        raise SnapshotError(f"{path} is not a solverstate, or was cut short "
                            f"({len(raw)} bytes): {error}") from error
    if not message.HasField("iter"):
        reason = f"its {len(raw)} bytes name no iteration"
        if _is_net(raw):
            reason = "it is a caffemodel: give the .solverstate of the same iteration, or load it as weights"
        raise SnapshotError(f"{path} is not a solverstate; {reason}")
    try:
        history = [blob_to_array(blob) for blob in message.history]
    except DataError as error:
        raise SnapshotError(f"{path}: {error}") from error
    return State(message.iter, message.current_step, message.learned_net, history)


def _is_net(raw: bytes) -> bool:
    try:
        net = parse(raw, NetParameter)
    except DecodeError:
        return False
    return bool(net.layer or net.layers)


def learned_nets(state: State, path: str) -> list[str]:
    """Where the weights of a state may lie: where it says, and beside it; one file or two.

    Raises
    ------
    SnapshotError : they lie in neither place
    """
    if not state.learned_net:
        raise SnapshotError(f"{path} names no weights (learned_net)")
    beside = os.path.join(os.path.dirname(path), os.path.basename(state.learned_net))
    found = [candidate for candidate in (state.learned_net, beside) if os.path.isfile(candidate)]
    if not found:
        raise SnapshotError(f"{path}: its weights {state.learned_net!r} are neither there nor at {beside!r}; "
                            "put the caffemodel beside the solverstate")
    return list(dict.fromkeys(found))


def check_history(state: State, history: Sequence[Tensor], names: Sequence[str], path: str) -> None:
    """Hold a state's arrays against those of a solver.

    Caffe: old files give all shapes four axes; axes of size 1 in front do not count.

    Raises
    ------
    SnapshotError : another number of arrays, or an array of another shape
    """
    if len(state.history) != len(history):
        raise SnapshotError(f"{path} holds {len(state.history)} history blob(s), this solver has "
                            f"{len(history)}; it belongs to another net or to another solver type")
    for index, (array, tensor, name) in enumerate(zip(state.history, history, names, strict=True)):
        if _without_ones(array.shape) != _without_ones(tensor.shape):
            raise SnapshotError(f"{path}: history blob {index}, of parameter {name}, has shape "
                                f"{array.shape}; this net has {tensor.shape}: it belongs to another net")


def restore_history(state: State, history: Sequence[Tensor]) -> None:
    """Copy a state's arrays, which `check_history` has accepted."""
    for array, tensor in zip(state.history, history, strict=True):
        tensor.write(HOST)[...] = array.reshape(tensor.shape)


def check_finite(name: str, values: npt.NDArray[Any], path: str) -> None:
    """Refuse to write numbers from which training cannot continue.

    Raises
    ------
    SnapshotError : NaN or infinite values
    """
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise SnapshotError(f"{path} is not written: {bad} of the {values.size} values of {name} are not "
                            "finite, training diverged; restore an earlier snapshot and lower base_lr")


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    return tuple(sizes)
