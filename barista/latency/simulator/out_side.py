"""OUT between array and memory: construct in two designs, encode (thesis, sections 5.3.8 and A.3).

Rows of the array finish one after another, each with X words of one filter.  Forward and grad_input keep two blocks
of Y filters, one that comes from the array while the other goes to memory.  grad_weight keeps all of OUT, adds up in
place what comes image by image, and sends it when the last image is in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .fifo import BLOCKED, BUSY, IDLE, STARVED, Fifo, front, has_entry, has_room, pop, push
from .mesh import Mesh, can_take, take

Array = npt.NDArray[Any]

_TAKEN, _SENT = 0, 1


class Construct(NamedTuple):
    """Keeps what comes from the array until it can go on in order.

    Parameters
    ----------
    filters, sets, blocks, rounds : filters of KERN, sets of X positions, blocks of Y filters, and how often these come
    positions : words of a plane of OUT
    planes : planes of OUT that a filter has on the chip: INP's where OUT is added up, else 1
    kept : where OUT is not added up [2][row][set][column], else [filter][plane][set][column]
    row : words that come from a row
    state : rows taken, vectors sent
    """

    filters: int
    sets: int
    blocks: int
    rounds: int
    positions: int
    planes: int
    kept: Array
    row: Array
    state: Array


@compiled
def construct(unit: Construct, mesh: Mesh, out: Fifo, cycle: int) -> int:
    """Take a row of the array into one block, and send a vector of the other."""
    state, rows = unit.state, unit.kept.shape[1]
    block_rows = rows * unit.sets
    total = unit.blocks * unit.rounds * block_rows
    whole_blocks = state[_TAKEN] // block_rows
    sent_blocks = state[_SENT] // block_rows
    status = IDLE if state[_SENT] == total else STARVED

    if sent_blocks < whole_blocks:
        row, index = state[_SENT] % block_rows // unit.sets, state[_SENT] % unit.sets
        if sent_blocks % unit.blocks * rows + row >= unit.filters:
            state[_SENT] += 1  # a row without a filter: nothing to send
            status = BUSY
        elif has_room(out):
            at = push(out, min(len(unit.row), unit.positions - index * len(unit.row)))
            out.entries[at, :] = unit.kept[sent_blocks % 2, row, index]
            state[_SENT] += 1
            status = BUSY
        else:
            status = BLOCKED

    if whole_blocks - sent_blocks < 2 and can_take(mesh, cycle):
        set_, row = take(mesh, unit.row)
        unit.kept[whole_blocks % 2, row, set_ % unit.sets] = unit.row
        state[_TAKEN] += 1
        status = BUSY
    return status


@compiled
def construct_sums(unit: Construct, mesh: Mesh, out: Fifo, cycle: int) -> int:
    """Add a row of the array to what is kept; once all have come, send a vector."""
    state, rows = unit.state, mesh.passing.shape[0]
    if state[_TAKEN] < unit.blocks * unit.rounds * rows * unit.sets:
        if not can_take(mesh, cycle):
            return STARVED
        set_, row = take(mesh, unit.row)
        block = set_ // unit.sets
        filter_ = block % unit.blocks * rows + row
        if filter_ < unit.filters:
            unit.kept[filter_, block // unit.blocks % unit.planes, set_ % unit.sets] += unit.row
        state[_TAKEN] += 1
        return BUSY
    if state[_SENT] == unit.filters * unit.planes * unit.sets:
        return IDLE
    if not has_room(out):
        return BLOCKED
    index, plane = state[_SENT] % unit.sets, state[_SENT] // unit.sets
    at = push(out, min(len(unit.row), unit.positions - index * len(unit.row)))
    out.entries[at, :] = unit.kept[plane // unit.planes, plane % unit.planes, index]
    state[_SENT] += 1
    return BUSY


class Encode(NamedTuple):
    """Turns vectors of X words, some of which do not count, into beats.

    Parameters
    ----------
    words : that come in all
    residue : words that wait for their beat
    state : words in the residue, words sent
    """

    words: int
    residue: Array
    state: Array


def make_encode(words: int, x: int, band: int) -> Encode:
    """For `words` words."""
    return Encode(words, np.zeros(x + 2 * band, np.float32), np.zeros(2, np.int64))


@compiled
def encode(unit: Encode, source: Fifo, out: Fifo) -> int:
    """Send a beat where there is one, and take a vector where the next beat wants words."""
    state, band = unit.state, out.entries.shape[1]
    if state[1] == unit.words:
        return IDLE
    status = STARVED
    size = min(band, unit.words - state[1])
    if state[0] >= size:
        if not has_room(out):
            return BLOCKED
        at = push(out, size)
        for word in range(size):
            out.entries[at, word] = unit.residue[word]
        state[0] -= size
        state[1] += size
        for word in range(state[0]):
            unit.residue[word] = unit.residue[word + size]
        status = BUSY
    if state[0] < band and has_entry(source):
        at = front(source)
        for word in range(source.valid[at]):
            unit.residue[state[0] + word] = source.entries[at, word]
        state[0] += source.valid[at]
        pop(source)
        status = BUSY
    return status
