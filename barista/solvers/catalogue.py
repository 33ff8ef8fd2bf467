"""Snapshots as they lie on disk: reading one with all that belongs to it, and finding one that is complete."""

from __future__ import annotations

import dataclasses
import logging
import os
import re

from ..errors import SnapshotError
from ..proto.caffe_pb2 import NetParameter
from ..weights import read_weights
from .resume import Resume, check_digest, read_resume, resume_path
from .snapshot import State, learned_nets, read_state

log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<prefix>.*)_iter_(?P<iteration>\d{1,10})\.solverstate(\.h5)?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What the files of a snapshot hold.

    Attributes
    ----------
    state : the solver's state
    weights, weights_path : the parameters, and where they lay
    resume, resume_path : the resume file, None where there is none, as beside Caffe's own; and where it would lie
    """

    state: State
    weights: NetParameter
    weights_path: str
    resume: Resume | None
    resume_path: str


def read_snapshot(path: str, prefix: str = "") -> Snapshot:
    """Read a solverstate, the weights that it names and the resume file beside it, and check their checksums.

    Parameters
    ----------
    path : the solverstate
    prefix : the solver's snapshot_prefix, for the message where there is no such file

    Raises
    ------
    SnapshotError : one is missing, damaged or of another kind; the message offers the newest complete snapshot
        of the same prefix before this one, or the newest of all, where there is one
    """
    try:
        state, weights_path, resume = _verified(path)
        return Snapshot(state, read_weights(weights_path), weights_path, resume, resume_path(path))
    except SnapshotError as error:
        name = _NAME.fullmatch(path)
        earlier = newest_complete(name["prefix"], int(name["iteration"])) if name else None
        if earlier is not None:
            raise SnapshotError(f"{error}. The newest complete snapshot before this one: go on with "
                                f"--snapshot {earlier}") from error
        if os.path.exists(path):
            raise
        for known in dict.fromkeys([*([name["prefix"]] if name else []), *([prefix] if prefix else [])]):
            if newest := newest_complete(known):
                raise SnapshotError(f"{error}. The newest complete snapshot of {known}: go on with "
                                    f"--snapshot {newest}") from error
        raise


def newest_complete(prefix: str, before: int | None = None) -> str | None:
    """The solverstate of the newest complete snapshot of a prefix; None if there is none.

    One is complete where its resume file agrees with its two other files.  Where no state of the prefix has a
    resume file, Caffe wrote them, and readable ones count.

    Parameters
    ----------
    prefix : the solver's snapshot_prefix
    before : only snapshots of earlier iterations than this
    """
    folder, stem = os.path.split(prefix)
    found = []
    for name in os.listdir(folder or ".") if os.path.isdir(folder or ".") else []:
        match = _NAME.fullmatch(name)
        if match and match["prefix"] == stem and (before is None or int(match["iteration"]) < before):
            found.append((int(match["iteration"]), os.path.join(folder, name)))
    states = [path for _, path in sorted(found, reverse=True)]
    sealed = [path for path in states if os.path.isfile(resume_path(path))]
    return next((path for path in sealed or states if _is_complete(path)), None)


def _verified(path: str) -> tuple[State, str, Resume | None]:
    """A state, where its weights lie, and its resume file; the checksums agree."""
    source = resume_path(path)
    if not os.path.isfile(source):
        state = read_state(path)
        return state, learned_nets(state, path)[0], None
    resume = read_resume(source)
    check_digest(path, resume.state, source)
    state = read_state(path)
    problem = None
    for weights_path in learned_nets(state, path):
        try:
            check_digest(weights_path, resume.weights, source)
            return state, weights_path, resume
        except SnapshotError as error:
            problem = problem or error
    assert problem is not None  # learned_nets gives one or more
    raise problem


def _is_complete(path: str) -> bool:
    try:
        _verified(path)
    except SnapshotError as error:
        log.info("Passing over a snapshot that is not complete: %s", error)
        return False
    return True
