"""FIFOs of limited depth, and what a component can do in a cycle.

Components are asked from the last to the first in each cycle.  An entry that is taken makes room that the component
before sees in the same cycle, and an entry that is put in is seen by the next component a cycle later.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled

Array = npt.NDArray[Any]

# What a component did in a cycle.
IDLE, BUSY, STARVED, BLOCKED = 0, 1, 2, 3

_FIRST, _HELD = 0, 1


class Fifo(NamedTuple):
    """Entries of several words.

    Parameters
    ----------
    entries : [depth][words of an entry]
    valid : [depth], how many words of each entry count
    state : index of the first entry, entries held
    """

    entries: Array
    valid: Array
    state: Array


def make_fifo(depth: int, words: int) -> Fifo:
    """An empty FIFO."""
    return Fifo(np.zeros((depth, words), np.float32), np.zeros(depth, np.int64), np.zeros(2, np.int64))


@compiled
def has_room(fifo: Fifo) -> bool:
    """Whether another entry fits."""
    return fifo.state[_HELD] < fifo.entries.shape[0]


@compiled
def has_entry(fifo: Fifo) -> bool:
    """Whether there is one to take."""
    return fifo.state[_HELD] > 0


@compiled
def front(fifo: Fifo) -> int:
    """Index of the entry that is taken next."""
    return fifo.state[_FIRST]


@compiled
def pop(fifo: Fifo) -> None:
    """Drop the front entry."""
    following = fifo.state[_FIRST] + 1
    fifo.state[_FIRST] = 0 if following == fifo.entries.shape[0] else following
    fifo.state[_HELD] -= 1


@compiled
def push(fifo: Fifo, valid: int) -> int:
    """Add an entry and return its index; the caller fills in its words."""
    at = fifo.state[_FIRST] + fifo.state[_HELD]
    if at >= fifo.entries.shape[0]:
        at -= fifo.entries.shape[0]
    fifo.valid[at] = valid
    fifo.state[_HELD] += 1
    return at
