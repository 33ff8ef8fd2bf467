"""The card's memory behind a port: bursts that are asked for ahead and come after a latency, a beat a cycle."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .fifo import BLOCKED, BUSY, IDLE, STARVED, Fifo, front, has_entry, has_room, pop, push

Array = npt.NDArray[Any]

_RANGE, _SLOT, _ASKED, _RECEIVED = 0, 1, 2, 3
_WRITTEN, _LAST = 0, 1


class Reader(NamedTuple):
    """Reads ranges of words one after another, each with the same loop nest.

    Parameters
    ----------
    memory : words of the card's memory
    starts : where each range begins
    words, beats : of a range
    slots : beats that the loop nest reads for a range; those beyond `beats` are thrown away
    burst : beats of a burst
    bursts : of all ranges
    latency : cycles from asking for a burst to its first beat
    ready : ring of the bursts that were asked for: the cycle from which each delivers
    state : range, slot within it, bursts asked for, bursts received
    """

    memory: Array
    starts: Array
    words: int
    beats: int
    slots: int
    burst: int
    bursts: int
    latency: int
    ready: Array
    state: Array


def make_reader(memory: Array, starts: Array, words: int, band: int, latency: int, longest: int,
                outstanding: int, nested: bool) -> Reader:
    """A port that reads `words` words from each of `starts`.

    Parameters
    ----------
    longest : beats of the longest burst
    nested : the loop nest that HLS asks for where ranges are not one behind the other: an inner loop over a burst,
        in blocks of 16 beats, and an outer loop that turns at least 3 times (thesis, section A.1.1)
    """
    beats = -(-words // band)
    slots, burst = beats, longest
    if nested:
        burst = -(-min(beats, longest) // 16) * 16
        slots = max(-(-beats // longest), 3) * burst
    return Reader(memory, starts, words, beats, slots, burst, len(starts) * -(-slots // burst), latency,
                  np.zeros(outstanding, np.int64), np.zeros(4, np.int64))


@compiled
def read(reader: Reader, out: Fifo, cycle: int) -> int:
    """Ask for a burst where one more may be under way, and receive a beat."""
    state, ring = reader.state, reader.ready.shape[0]
    if state[_ASKED] < reader.bursts and state[_ASKED] - state[_RECEIVED] < ring:
        reader.ready[state[_ASKED] % ring] = cycle + reader.latency
        state[_ASKED] += 1
    if state[_RANGE] == len(reader.starts):
        return IDLE
    if state[_RECEIVED] == state[_ASKED] or reader.ready[state[_RECEIVED] % ring] > cycle:
        return STARVED
    slot = state[_SLOT]
    if slot < reader.beats:
        if not has_room(out):
            return BLOCKED
        band = out.entries.shape[1]
        first = reader.starts[state[_RANGE]] + slot * band
        valid = min(band, reader.words - slot * band)
        at = push(out, valid)
        for word in range(valid):
            # A range may reach beyond the tensor; nothing uses what lies there.
            inside = first + word < len(reader.memory)
            out.entries[at, word] = reader.memory[first + word] if inside else 0.0
    slot += 1
    if slot % reader.burst == 0 or slot == reader.slots:
        state[_RECEIVED] += 1
    if slot == reader.slots:
        slot = 0
        state[_RANGE] += 1
    state[_SLOT] = slot
    return BUSY


class Writer(NamedTuple):
    """Writes beats one behind the other.

    Parameters
    ----------
    memory : words to fill
    state : words written, cycle of the last beat
    """

    memory: Array
    state: Array


def make_writer(memory: Array) -> Writer:
    """A port that fills `memory`."""
    return Writer(memory, np.zeros(2, np.int64))


@compiled
def write(writer: Writer, source: Fifo, cycle: int) -> int:
    """Write a beat."""
    state = writer.state
    if state[_WRITTEN] == len(writer.memory):
        return IDLE
    if not has_entry(source):
        return STARVED
    at = front(source)
    for word in range(source.valid[at]):
        writer.memory[state[_WRITTEN] + word] = source.entries[at, word]
    state[_WRITTEN] += source.valid[at]
    state[_LAST] = cycle
    pop(source)
    return BUSY


@compiled
def is_written(writer: Writer) -> bool:
    """Whether all words have been."""
    return writer.state[_WRITTEN] == len(writer.memory)
