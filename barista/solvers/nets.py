"""The nets that a SolverParameter asks for: definitions, states and where their files lie."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable

from ..errors import SolverError
from ..frontends.prototxt import read_net
from ..proto.caffe_pb2 import TEST, TRAIN, NetParameter, NetState, SolverParameter

# Reads a net from the file of a name.
Read = Callable[[str], NetParameter]

log = logging.getLogger(__name__)

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")

# Fields of layers that name files which are read.
_LAYER_FILES = (("transform_param", "mean_file"), ("data_param", "source"), ("data_param", "mean_file"),
                ("image_data_param", "source"), ("image_data_param", "mean_file"),
                ("window_data_param", "source"), ("window_data_param", "mean_file"),
                ("hdf5_data_param", "source"))


@dataclasses.dataclass(frozen=True)
class NetSource:
    """A net to be made.

    Attributes
    ----------
    param : its definition, state included
    text : where it comes from, in the words of Caffe's log
    """

    param: NetParameter
    text: str


def locate(path: str, folder: str | None) -> str:
    """Where the file `path` lies: relative to `folder`, the solver file's, else as written.

    A path that is found nowhere is given back as written, for the reader of the file to say so.

    Caffe: relative to the current folder alone.  What lies beside the solver comes first here, since
    a file of the same name elsewhere is hardly meant; where both exist, a warning says which was taken.
    """
    if not folder or os.path.isabs(path):
        return path
    beside = os.path.join(folder, path)
    if not os.path.exists(beside):
        return path
    if os.path.exists(path) and not os.path.samefile(path, beside):
        log.warning("%s: taken from %s, beside the solver; there is another in %s", path, folder, os.getcwd())
    return beside


def train_source(param: SolverParameter, folder: str | None, read: Read = read_net) -> NetSource:
    """The train net; `read` reads files.

    Raises
    ------
    SolverError : none, or more than one, of the fields that give it
    """
    given = [name for name in _TRAIN_FIELDS if param.HasField(name)]
    if len(given) != 1:
        raise SolverError(f"a solver gives its train net by exactly one of {', '.join(_TRAIN_FIELDS)}; "
                          f"this one gives {' and '.join(given) or 'none'}")
    field = given[0]
    if field.endswith("_param"):
        text = f"Creating training net specified in {field}."
    else:
        text = f"Creating training net from {field} file: {getattr(param, field)}"
    return NetSource(_with_state(_definition(param, field, folder, read), TRAIN, param.train_state, folder), text)


def test_sources(param: SolverParameter, folder: str | None, read: Read = read_net) -> list[NetSource]:
    """The test nets in Caffe's order: test_net_param, test_net, then the common net for each test_iter left.

    Raises
    ------
    SolverError : test_iter, test_state or test_interval do not fit them
    """
    definitions = [(net, "test_net_param") for net in param.test_net_param]
    definitions += [(_read(path, "test_net", folder, read), f"test_net file: {path}") for path in param.test_net]
    own, rounds = len(definitions), len(param.test_iter)
    generic = next((name for name in ("net", "net_param") if param.HasField(name)), None)
    if rounds < own or (generic is None and rounds != own):
        raise SolverError(f"the solver has {own} test net(s) and {rounds} test_iter; "
                          "give one test_iter for each test net")
    if generic is not None and rounds > own:
        text = f"net file: {param.net}" if generic == "net" else generic
        definitions += [(_definition(param, generic, folder, read), text)] * (rounds - own)
    if len(param.test_state) not in (0, rounds):
        raise SolverError(f"the solver has {rounds} test net(s) and {len(param.test_state)} test_state; "
                          "give none, or one a test net")
    if rounds and param.test_interval <= 0:
        raise SolverError(f"the solver has {rounds} test net(s), but test_interval {param.test_interval}; "
                          "give the iterations from test to test, 1 or more, or take test_iter out")
    if not rounds and param.test_interval > 0:
        log.warning("test_interval %d has no effect: the solver gives no test_iter, the batches of a test; give one a "
                    "test net, or take test_interval out", param.test_interval)
    for count in param.test_iter:
        if count <= 0:
            raise SolverError(f"test_iter {count}: a test takes 1 batch or more")
    states = list(param.test_state) or [NetState()] * rounds
    return [NetSource(_with_state(net, TEST, state, folder),
                      f"Creating test net (#{index}) specified by {text}")
            for index, ((net, text), state) in enumerate(zip(definitions, states, strict=True))]


def weights_files(param: SolverParameter, folder: str | None) -> list[str]:
    """The files of the field weights; one entry may list several, separated by commas."""
    names = [name.strip() for entry in param.weights for name in entry.split(",")]
    return [locate(name, folder) for name in names if name]


def _definition(param: SolverParameter, field: str, folder: str | None, read: Read) -> NetParameter:
    if field.endswith("_param"):
        net: NetParameter = getattr(param, field)
        return net
    return _read(getattr(param, field), field, folder, read)


def _read(path: str, field: str, folder: str | None, read: Read) -> NetParameter:
    found = locate(path, folder)
    if not os.path.isfile(found):
        beside = f" nor in {folder}, beside the solver" if folder and not os.path.isabs(path) else ""
        raise SolverError(f"{field}: there is no file {path!r} in {os.getcwd()}{beside}")
    return read(found)


def _with_state(net: NetParameter, phase: int, extra: NetState, folder: str | None) -> NetParameter:
    """A copy whose files are found, and whose state is merged of the phase, its own, and the solver's."""
    result = NetParameter()
    result.CopyFrom(net)
    state = NetState(phase=phase)  # type: ignore[arg-type]
    state.MergeFrom(net.state)
    state.MergeFrom(extra)
    result.state.CopyFrom(state)
    for layer in result.layer:
        for message, field in _LAYER_FILES:
            if layer.HasField(message):
                part = getattr(layer, message)
                if getattr(part, field):
                    setattr(part, field, locate(getattr(part, field), folder))
    return result
