"""KERN between memory and array, in two designs (thesis, sections 5.3.7 and A.2).

Forward and grad_input keep all of KERN on the chip: it is read once, a word a cycle, and the array waits until then.
grad_weight, whose KERN is a feature map, keeps two blocks of Y filters: one is filled while the other is fed.

Row y of the array works one product behind row y - 1, so each vector that is fed holds word ``s - y`` for row y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .fifo import BLOCKED, BUSY, IDLE, STARVED, Fifo, front, has_entry, has_room, pop, push

Array = npt.NDArray[Any]


class Unpack(NamedTuple):
    """Cuts ranges of words, which come in beats, into groups.

    Parameters
    ----------
    group : words of a group, no more than a beat's
    words : of a range; its last group may hold fewer
    state : words given of the range, words taken from the front beat
    """

    group: int
    words: int
    state: Array


def make_unpack(group: int, words: int) -> Unpack:
    """For ranges of `words` words."""
    return Unpack(group, words, np.zeros(2, np.int64))


@compiled
def unpack(unit: Unpack, source: Fifo, out: Fifo) -> int:
    """Give a group, which may span two beats."""
    state = unit.state
    if not has_entry(source):
        return STARVED
    if not has_room(out):
        return BLOCKED
    wanted = min(unit.group, unit.words - state[0])
    at, taken = front(source), state[1]
    left = source.valid[at] - taken
    if left < wanted and source.state[1] < 2:
        return STARVED
    to = push(out, wanted)
    for word in range(min(left, wanted)):
        out.entries[to, word] = source.entries[at, taken + word]
    taken += wanted
    if taken >= source.valid[at]:
        pop(source)
        taken = 0
        if wanted > left:
            at, taken = front(source), wanted - left
            for word in range(taken):
                out.entries[to, left + word] = source.entries[at, word]
    state[1] = taken
    state[0] = 0 if state[0] + wanted == unit.words else state[0] + wanted
    return BUSY


@compiled
def _feed_rows(kept: Array, stored: Array, step: int, steps: int, out: Array) -> None:
    """Give each row its word; 0 where a row has no filter or no product, and for KERN's zeros."""
    product = step % len(stored)
    for row in range(len(out)):
        value = np.float32(0.0)
        if 0 <= step - row < steps and row < len(kept) and stored[product] >= 0:
            value = kept[row, stored[product]]
        out[row] = value
        product = (product if product > 0 else len(stored)) - 1


# ---- forward and grad_input -------------------------------------------------------------------------------


class Feeder(NamedTuple):
    """Keeps all of KERN on the chip, then feeds it block of Y filters after block.

    Parameters
    ----------
    place : [word of memory], filter and product where it is kept, as one index: permuted and turned on the way
    kept : [filter][stored product]
    stored : [product], which stored product it is; below 0 for KERN's zeros
    sets, blocks, rounds : sets of X positions, blocks of Y filters, images
    state : words kept, step of the block, block
    """

    place: Array
    kept: Array
    stored: Array
    sets: int
    blocks: int
    rounds: int
    state: Array


@compiled
def feed(unit: Feeder, source: Fifo, out: Fifo) -> int:
    """Keep a word; once all are there, feed a vector."""
    state = unit.state
    if state[2] == unit.blocks * unit.rounds:
        return IDLE
    if state[0] < len(unit.place):
        if not has_entry(source):
            return STARVED
        products = unit.kept.shape[1]
        place = unit.place[state[0]]
        unit.kept[place // products, place % products] = source.entries[front(source), 0]
        pop(source)
        state[0] += 1
        return BUSY
    if not has_room(out):
        return BLOCKED
    rows, products = out.entries.shape[1], len(unit.stored)
    steps, step = products * unit.sets, state[1]
    first = state[2] % unit.blocks * rows
    used = min(rows, unit.kept.shape[0] - first)
    _feed_rows(unit.kept[first:first + used], unit.stored, step, steps, out.entries[push(out, rows)])
    state[1] += 1
    if state[1] == steps + rows - 1:
        state[1] = 0
        state[2] += 1
    return BUSY


# ---- grad_weight ------------------------------------------------------------------------------------------


class SwappingFeeder(NamedTuple):
    """Feeds one block of Y filters while the next is filled.

    Words are kept in Y by Y memories, so that Y words of one filter come in and one word of Y filters goes out in a
    cycle; a filter therefore takes whole groups of Y on both sides.

    Parameters
    ----------
    filters : of KERN
    kept : [2][row][stored product]
    stored : [product], which stored product it is; below 0 for KERN's zeros
    sets, blocks, rounds : sets of X positions, blocks of Y filters, and planes of INP, for each of which KERN is read
    residue : words that came and are not kept yet
    state : see the indices below
    """

    filters: int
    kept: Array
    stored: Array
    sets: int
    blocks: int
    rounds: int
    residue: Array
    state: Array


_FILLED, _ROW, _WORD, _HELD, _FED, _TICK = 0, 1, 2, 3, 4, 5
SWAPPING_STATES = 6


@compiled
def _fill(unit: SwappingFeeder, source: Fifo) -> bool:
    """Keep up to Y words of a filter, unless both blocks are in use."""
    state, rows = unit.state, unit.kept.shape[1]
    if state[_FILLED] == unit.blocks * unit.rounds or state[_FILLED] - state[_FED] == 2:
        return False
    if has_entry(source) and state[_HELD] < rows:
        at = front(source)
        for word in range(source.valid[at]):
            unit.residue[state[_HELD] + word] = source.entries[at, word]
        state[_HELD] += source.valid[at]
        pop(source)
    words = unit.kept.shape[2]
    taken = min(rows, words - state[_WORD])
    if state[_HELD] < taken:
        return False
    block = state[_FILLED] % 2
    for word in range(taken):
        unit.kept[block, state[_ROW], state[_WORD] + word] = unit.residue[word]
    state[_HELD] -= taken
    for word in range(state[_HELD]):
        unit.residue[word] = unit.residue[word + taken]
    state[_WORD] += taken
    if state[_WORD] == words:
        state[_WORD] = 0
        state[_ROW] += 1
    if state[_ROW] == min(rows, unit.filters - state[_FILLED] % unit.blocks * rows):
        state[_ROW] = 0
        state[_FILLED] += 1
    return True


@compiled
def feed_swapping(unit: SwappingFeeder, source: Fifo, out: Fifo) -> int:
    """Fill the one block and feed a vector of the other."""
    state = unit.state
    if state[_FED] == unit.blocks * unit.rounds:
        return IDLE
    fed, was_filled = state[_FED], state[_FILLED]
    worked = _fill(unit, source)
    if was_filled == fed:
        return BUSY if worked else STARVED
    if not has_room(out):
        return BUSY if worked else BLOCKED
    rows, products = out.entries.shape[1], len(unit.stored)
    # Turns of the loop over groups of Y products: those beyond the last product feed nothing.
    turns = (products + rows - 1) // rows * rows
    tick, steps = state[_TICK], products * unit.sets
    if tick < turns * unit.sets:
        if tick % turns >= products:
            state[_TICK] += 1
            return BUSY
        step = tick // turns * products + tick % turns
    else:
        step = steps + tick - turns * unit.sets
    used = min(rows, unit.filters - fed % unit.blocks * rows)
    _feed_rows(unit.kept[fed % 2, :used], unit.stored, step, steps, out.entries[push(out, rows)])
    state[_TICK] += 1
    if state[_TICK] == turns * unit.sets + rows - 1:
        state[_TICK] = 0
        state[_FED] += 1
    return BUSY
