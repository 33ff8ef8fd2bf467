"""Resume files: what Caffe's two files of a snapshot leave out, so that training goes on to the same bits.

Beside ``PREFIX_iter_N.solverstate`` lies ``PREFIX_iter_N.solverstate.resume.json`` (``.solverstate.h5.resume.json``
beside HDF5).  It is written last: a snapshot that has it is complete.  It holds the states of all layers (random
numbers, place in the data, values carried from pass to pass), the losses of the running mean, and the sizes and
checksums of the two other files.  Rates and update rules need nothing: they follow from the iteration and the state.

Its first line is the checksum of all that follows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..errors import DataError, SnapshotError
from ..files import replacing
from ..net import Net

FORMAT = "barista resume file"
VERSION = 1

# Values in a file (a net of 1,000 layers has about 10,000), so that a hostile one cannot fill the memory with them.
MOST_VALUES = 200_000

# State of each layer by its key (see `_keys`), with its type.
LayerStates = dict[str, dict[str, Any]]

T = TypeVar("T")

_SEAL = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n')


@dataclasses.dataclass(frozen=True)
class Digest:
    """What a file is known by: its name without folders, its size and its SHA-256."""

    name: str
    size_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Resume:
    """What a resume file says.

    Attributes
    ----------
    iteration : iterations done
    seed : from which all random streams came; for people, since the states say where each one stands
    losses : those of the running mean that the next report takes in
    weights, state : the caffemodel and the solverstate that it belongs to
    train, tests : states of the layers of the train net, and of each test net
    """

    iteration: int
    seed: int
    losses: Sequence[float]
    weights: Digest
    state: Digest
    train: LayerStates
    tests: Sequence[LayerStates]


def resume_path(state_path: str) -> str:
    """Where the resume file of a solverstate lies."""
    return f"{state_path}.resume.json"


def digest(path: str) -> Digest:
    """Size and checksum of a file.

    Raises
    ------
    SnapshotError : it cannot be read
    """
    try:
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            return Digest(os.path.basename(path), file.tell(), checksum)
    except OSError as error:
        raise SnapshotError(f"cannot read {path}: {error.strerror}") from error


def check_digest(path: str, expected: Digest, source: str) -> None:
    """Hold a file against what a resume file, `source`, says of it.

    Raises
    ------
    SnapshotError : it is damaged, or another file of this name
    """
    found = digest(path)
    if found.size_bytes != expected.size_bytes:
        raise SnapshotError(f"{path} has {found.size_bytes} bytes, it was written with {expected.size_bytes} "
                            f"(says {source}): it was cut short, or replaced")
    if found.sha256 != expected.sha256:
        raise SnapshotError(f"{path} is damaged, or was replaced: its checksum is {found.sha256[:16]}..., it was "
                            f"written with {expected.sha256[:16]}... (says {source})")


# ---- the file ---------------------------------------------------------------------------------------------


def write_resume(resume: Resume, path: str) -> None:
    """Write a resume file.

    Raises
    ------
    SnapshotError : it cannot be written; an older one of its name is untouched
    """
    document = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(resume)}
    body = json.dumps(document, indent=1, allow_nan=False).removeprefix("{\n").encode("ascii")
    with replacing(path) as part, open(part, "wb") as file:
        file.write(b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode("ascii"))
        file.write(body)


def read_resume(path: str) -> Resume:
    """Read a resume file.

    Raises
    ------
    SnapshotError : no such file, one that is damaged or was cut short, or one of a later version
    """
    text = _unsealed(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"{path} is not a resume file: {error}") from None
    if document.get("format") != FORMAT or type(document.get("version")) is not int:
        raise SnapshotError(f"{path} is not a resume file: its format is {document.get('format')!r:.80}")
    if document["version"] > VERSION:
        raise SnapshotError(f"{path} has version {document['version']} of its format, this Barista reads up to "
                            f"{VERSION}: install a newer one")
    return _resume(document, path)


def _unsealed(path: str) -> str:
    """The text of a resume file, whose checksum agrees."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise SnapshotError(f"cannot read the resume file {path}: {error.strerror}") from error
    seal = _SEAL.match(raw)
    if seal is None:
        raise SnapshotError(f"{path} is not a resume file: it does not begin with its checksum")
    if hashlib.sha256(memoryview(raw)[seal.end():]).hexdigest().encode("ascii") != seal[1]:
        raise SnapshotError(f"{path} is damaged, or was cut short or edited: its checksum does not agree")
    values = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
    if values > MOST_VALUES:
        raise SnapshotError(f"{path} holds {values} values; a resume file has at most {MOST_VALUES}")
    # A byte a character, whatever they are; what is written is ASCII.
    return raw.decode("latin-1")


def _resume(document: dict[str, Any], path: str) -> Resume:
    losses = [_kind(loss, float, "losses", path) for loss in _get(document, "losses", list, path)]
    tests = _get(document, "tests", list, path)
    return Resume(_get(document, "iteration", int, path), _get(document, "seed", int, path), losses,
                  _digest(document, "weights", path), _digest(document, "state", path),
                  _layers(_get(document, "train", dict, path), path),
                  [_layers(_kind(net, dict, "tests", path), path) for net in tests])


def _digest(document: dict[str, Any], key: str, path: str) -> Digest:
    part = _get(document, key, dict, path)
    return Digest(_get(part, "name", str, path), _get(part, "size_bytes", int, path), _get(part, "sha256", str, path))


def _layers(net: dict[str, Any], path: str) -> LayerStates:
    for name, state in net.items():
        _get(_kind(state, dict, name, path), "type", str, path)
    return net


def _get(part: dict[str, Any], key: str, kind: type[T], path: str) -> T:
    return _kind(part.get(key), kind, key, path)


def _kind(value: object, kind: type[T], key: str, path: str) -> T:
    if type(value) is not kind:  # a bool is no int here
        raise SnapshotError(f"{path} is not a resume file of version {VERSION}: {key!r} is {value!r:.80}, "
                            f"not of type {kind.__name__}")
    return value


# ---- the layers -------------------------------------------------------------------------------------------


def layer_states(net: Net) -> LayerStates:
    """The states of all layers of a net."""
    return {key: {"type": layer.type, **layer.state()} for key, layer in zip(_keys(net), net.layers, strict=True)}


def _keys(net: Net) -> list[str]:
    """What each layer of a net is known by: its name, with a number behind it where an earlier layer has the same."""
    keys: list[str] = []
    taken = set(net.layer_names)
    for name in net.layer_names:
        key, number = name, 1
        while key in keys or (number > 1 and key in taken):
            number += 1
            key = f"{name} ({number})"
        keys.append(key)
    return keys


def check_layers(net: Net, states: Mapping[str, Mapping[str, Any]], path: str) -> None:
    """Hold the layers of a net against those whose states a resume file keeps.

    Raises
    ------
    SnapshotError : other layers; names them
    """
    ours = {f"{key} ({layer.type})" for key, layer in zip(_keys(net), net.layers, strict=True)}
    theirs = {f"{name} ({state['type']})" for name, state in states.items()}
    differences = [f"{what} {', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''}"
                   for what, names in (("it has", theirs - ours), ("this net has", ours - theirs)) if names]
    if differences:
        raise SnapshotError(f"{path} belongs to another net than {net.name!r}: {'; '.join(differences)}. Give the net "
                            "that it was written with, or take that file away to go on as Caffe does: with the weights "
                            "and the history, the data from their start")


def restore_layers(net: Net, states: Mapping[str, dict[str, Any]], path: str) -> None:
    """Let the layers of a net, which `check_layers` has accepted, go on from their states.

    Raises
    ------
    SnapshotError : a state that its layer cannot take
    """
    for key, layer in zip(_keys(net), net.layers, strict=True):
        try:
            layer.restore(states[key])
        except (SnapshotError, DataError) as error:
            raise SnapshotError(f"{path}: {layer.name} ({layer.type}): {error}") from error
