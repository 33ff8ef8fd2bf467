"""INP between memory and array: decode, construct, im2col (thesis, sections 5.3.6 and A.1.2 to A.1.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .fifo import BLOCKED, BUSY, IDLE, STARVED, Fifo, front, has_entry, has_room, pop, push

Array = npt.NDArray[Any]

_PLANE, _BEATS, _HELD, _GROUPS = 0, 1, 2, 3


@compiled
def decode(source: Fifo, out: Fifo) -> int:
    """Split a beat over BAND FIFOs, which go in step and are one here."""
    if not has_entry(source):
        return STARVED
    if not has_room(out):
        return BLOCKED
    at = front(source)
    to = push(out, source.valid[at])
    out.entries[to, :] = source.entries[at, :]
    pop(source)
    return BUSY


class Construct(NamedTuple):
    """Turns beats of BAND words into groups of Z.

    Parameters
    ----------
    planes : pieces of Z_channel words that come
    beats, groups : of a piece, in and out; what is left of the last group is zeros
    residue : words that wait for their group
    state : piece, beats taken and groups given of it, words in the residue
    """

    planes: int
    beats: int
    groups: int
    residue: Array
    state: Array


def make_construct(planes: int, z: int, z_channel: int, band: int) -> Construct:
    """For pieces of `z_channel` words.

    Where a beat holds several groups it is always unpacked whole; where a group takes several beats none is made
    that holds no word.
    """
    beats = -(-z_channel // band)
    groups = -(-beats * band // z) if z < band else -(-z_channel // z)
    return Construct(planes, beats, groups, np.zeros(z + 2 * band, np.float32), np.zeros(4, np.int64))


@compiled
def construct(unit: Construct, source: Fifo, out: Fifo) -> int:
    """Take a beat where words are wanted, and give a group where there is one."""
    state, band, z = unit.state, source.entries.shape[1], out.entries.shape[1]
    if state[_PLANE] == unit.planes:
        return IDLE
    if not has_room(out):
        return BLOCKED
    if state[_HELD] < z:
        if state[_BEATS] < unit.beats:
            if not has_entry(source):
                return STARVED
            unit.residue[state[_HELD]:state[_HELD] + band] = source.entries[front(source), :]
            state[_BEATS] += 1
            pop(source)
        else:
            unit.residue[state[_HELD]:state[_HELD] + band] = 0.0
        state[_HELD] += band
    if state[_HELD] >= z:
        at = push(out, z)
        out.entries[at, :] = unit.residue[:z]
        state[_HELD] -= z
        for word in range(state[_HELD]):
            unit.residue[word] = unit.residue[word + z]
        state[_GROUPS] += 1
        if state[_GROUPS] == unit.groups:
            state[_PLANE] += 1
            state[_BEATS] = state[_HELD] = state[_GROUPS] = 0
    return BUSY


class Im2col(NamedTuple):
    """Keeps two line buffers: one is filled while X words a cycle are taken from the other.

    Parameters
    ----------
    pieces : [set], where the piece of each set of X positions begins in its plane
    rows, columns : [position], row and column of KERN's first word on the dilated and padded INP
    tap_rows, tap_columns : [product of a plane], where on KERN each word lies
    height, width : of INP
    row_dilation, column_dilation : distance of its words once zeros lie between them
    channels, sets, rounds : how often planes follow one another: channels of a set, sets of a round
    lines : [2][words]
    filled : [2], words that each buffer holds
    found : [X], the words that are given next
    state : see the indices below
    """

    pieces: Array
    rows: Array
    columns: Array
    tap_rows: Array
    tap_columns: Array
    height: int
    width: int
    row_dilation: int
    column_dilation: int
    channels: int
    sets: int
    rounds: int
    lines: Array
    filled: Array
    found: Array
    state: Array


_FILLS, _READS, _TAP, _CHANNEL, _SET, _ROUND = 0, 1, 2, 3, 4, 5
IM2COL_STATES = 6


@compiled
def fill_line(unit: Im2col, source: Fifo) -> None:
    """Take a group into the buffer that is being filled, unless both are in use."""
    state, z = unit.state, source.entries.shape[1]
    buffer = state[_FILLS]
    if unit.filled[buffer] == unit.lines.shape[1] or not has_entry(source):
        return
    begin = unit.filled[buffer]
    unit.lines[buffer, begin:begin + z] = source.entries[front(source), :]
    unit.filled[buffer] += z
    pop(source)
    if unit.filled[buffer] == unit.lines.shape[1]:
        state[_FILLS] = 1 - buffer


@compiled
def _find(unit: Im2col) -> bool:
    """Look up the X words of a product; False where one has not come yet."""
    state = unit.state
    buffer, piece = state[_READS], unit.pieces[state[_SET]]
    tap_row, tap_column = unit.tap_rows[state[_TAP]], unit.tap_columns[state[_TAP]]
    x, filled = len(unit.found), unit.filled[buffer]
    first = state[_SET] * x
    for column in range(min(x, len(unit.rows) - first)):
        row = unit.rows[first + column] + tap_row
        along = unit.columns[first + column] + tap_column
        value = np.float32(0.0)
        if row >= 0 and along >= 0:
            if unit.row_dilation > 1 or unit.column_dilation > 1:
                between = row % unit.row_dilation != 0 or along % unit.column_dilation != 0
                row //= unit.row_dilation
                along //= unit.column_dilation
            else:
                between = False
            if not between and row < unit.height and along < unit.width:
                address = row * unit.width + along - piece
                if address >= filled:
                    return False
                value = unit.lines[buffer, address]
        unit.found[column] = value
    return True


@compiled
def im2col(unit: Im2col, out: Fifo) -> int:
    """Give the X words of the next product, zeros where INP is padded or dilated."""
    state = unit.state
    if state[_ROUND] == unit.rounds:
        return IDLE
    if not has_room(out):
        return BLOCKED
    last = state[_TAP] == len(unit.tap_rows) - 1
    # A buffer is given up whole: words of its piece that nobody needs must have come too.
    if not _find(unit) or (last and unit.filled[state[_READS]] < unit.lines.shape[1]):
        return STARVED
    at = push(out, len(unit.found))
    out.entries[at, :] = unit.found
    state[_TAP] += 1
    if last:
        state[_TAP] = 0
        unit.filled[state[_READS]] = 0
        state[_READS] = 1 - state[_READS]
        state[_CHANNEL] += 1
    if state[_CHANNEL] == unit.channels:
        state[_CHANNEL] = 0
        unit.found[:] = 0.0
        state[_SET] += 1
    if state[_SET] == unit.sets:
        state[_SET] = 0
        state[_ROUND] += 1
    return BUSY
