"""FPGPT's systolic array of X columns and Y rows (thesis, section 5.3.3).

X words of INP enter at row 0 each cycle and move down one row a cycle; a word of KERN reaches all elements of its row.
An element adds products up in 4 interleaved sums and has them twice: while one set of sums is being added up, which
takes 8 cycles, products of the next word of OUT go to the other.  After a block of Y filters the array runs empty
before the next begins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .fifo import BLOCKED, BUSY, IDLE, STARVED, Fifo, front, has_entry, pop

Array = npt.NDArray[Any]

SUMS = 4  # a power of 2
ADD_UP_CYCLES = 8
_NOTHING = -1

_STEP, _BLOCK, _EMPTYING, _FIRST, _FINISHED = 0, 1, 2, 3, 4


class Mesh(NamedTuple):
    """The elements.

    Parameters
    ----------
    products, sets, blocks : products of a word of OUT, sets of X positions, blocks of Y filters over all rounds
    columns : that any set uses
    passing : [row][column], the vectors of INP that rows hold.  Vector s is at row s - t after t steps: instead of
        moving them all, the row that holds one moves.
    sums : [2][sum][row][column]
    ready : [2][row], cycle from which the sums are added up and can be taken; below 0 where there are none
    finished : ring of the words of OUT that wait to be taken, in the order in which rows finished them: the set,
        counted over all blocks, times Y, plus the row
    state : step of the block, block, cycles that are left to run empty, first of the ring, how many are in it
    """

    products: int
    sets: int
    blocks: int
    columns: int
    passing: Array
    sums: Array
    ready: Array
    finished: Array
    state: Array


def make_mesh(x: int, y: int, products: int, sets: int, blocks: int, positions: int) -> Mesh:
    """An empty array."""
    return Mesh(products, sets, blocks, min(x, positions), np.zeros((y, x), np.float32),
                np.zeros((2, SUMS, y, x), np.float32), np.full((2, y), _NOTHING, np.int64), np.zeros(2 * y, np.int64),
                np.zeros(5, np.int64))


@compiled
def multiply(mesh: Mesh, inp: Fifo, kern: Fifo, cycle: int) -> int:
    """Move everything on by a row, and add a product in each element that has one."""
    state, products, rows = mesh.state, mesh.products, mesh.passing.shape[0]
    if state[_BLOCK] == mesh.blocks:
        return IDLE
    if state[_EMPTYING] > 0:
        state[_EMPTYING] -= 1
        if state[_EMPTYING] == 0:
            state[_STEP] = 0
            state[_BLOCK] += 1
        return BUSY
    step, steps = state[_STEP], products * mesh.sets
    if not has_entry(kern) or (step < steps and not has_entry(inp)):
        return STARVED
    top, bottom = max(0, step - steps + 1), min(rows, step + 1)
    done_sets = state[_BLOCK] * mesh.sets
    # Rows that begin a word of OUT need sums that nobody waits for.
    for row in range(step % products, bottom, products):
        if row >= top and mesh.ready[(done_sets + (step - row) // products) % 2, row] != _NOTHING:
            return BLOCKED
    if step < steps:
        mesh.passing[step % rows, :] = inp.entries[front(inp), :]
        pop(inp)
    words = kern.entries[front(kern)]
    # From the last row up, products count up; divisions are slow.
    set_, product = divmod(step - bottom + 1, products)
    set_ += done_sets
    holder = (step - bottom + 1) % rows
    for row in range(bottom - 1, top - 1, -1):
        half = set_ & 1
        if product == 0:
            mesh.sums[half, :, row, :] = 0.0
        total, passing, word = mesh.sums[half, product & (SUMS - 1), row], mesh.passing[holder], words[row]
        for column in range(mesh.columns):
            total[column] += passing[column] * word
        if product == products - 1:
            mesh.ready[half, row] = cycle + ADD_UP_CYCLES
            mesh.finished[(state[_FIRST] + state[_FINISHED]) % len(mesh.finished)] = set_ * rows + row
            state[_FINISHED] += 1
            product = -1
            set_ += 1
        product += 1
        holder = 0 if holder + 1 == rows else holder + 1
    pop(kern)
    state[_STEP] += 1
    if state[_STEP] == steps + rows - 1:
        state[_EMPTYING] = ADD_UP_CYCLES
    return BUSY


@compiled
def can_take(mesh: Mesh, cycle: int) -> bool:
    """Whether the words of OUT that finished first are added up."""
    if mesh.state[_FINISHED] == 0:
        return False
    set_, row = divmod(mesh.finished[mesh.state[_FIRST]], mesh.passing.shape[0])
    return mesh.ready[set_ % 2, row] <= cycle


@compiled
def take(mesh: Mesh, out: Array) -> tuple[int, int]:
    """Move the words of OUT that finished first away: the interleaved sums, added up in pairs.

    Returns
    -------
    the set, counted over all blocks, and the row
    """
    set_, row = divmod(mesh.finished[mesh.state[_FIRST]], mesh.passing.shape[0])
    sums = mesh.sums[set_ % 2]
    for column in range(mesh.columns):
        out[column] = (sums[0, row, column] + sums[1, row, column]) + (sums[2, row, column] + sums[3, row, column])
    mesh.ready[set_ % 2, row] = _NOTHING
    mesh.state[_FIRST] = (mesh.state[_FIRST] + 1) % len(mesh.finished)
    mesh.state[_FINISHED] -= 1
    return set_, row
