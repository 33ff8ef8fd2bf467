"""Barista's array in a cycle: three ports on one memory, double-buffered tiles, the mesh, its adding up.

Each element (i, j) of the mesh holds a word of A, which moves right a step later, and one of B, which moves down.  Row
i and column j are fed i and j steps late, so that product k of a tile meets in element (i, j) at step k + i + j.  The
mesh runs empty between two tiles of K.  An element has S + 1 partial sums, product k is added to sum k mod (S + 1);
after the last tile of K all multiplications stop until the sums are added up (thesis, section 4.1.3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .fifo import BLOCKED, BUSY, IDLE, STARVED
from .settings import SimulatorSettings

Array = npt.NDArray[Any]

COMPONENTS = ("read_a", "read_b", "mesh", "add_up", "write_c")


class Port(NamedTuple):
    """Reads or writes tiles, a beat at a time.

    Parameters
    ----------
    words : of a tile
    state : tiles begun, cycle from which the present one's bursts deliver, words of it that have moved, tiles done
    """

    words: int
    state: Array


_BEGUN, _FROM, _MOVED, _DONE = 0, 1, 2, 3


class Machine(NamedTuple):
    """The array and its memory.

    Parameters
    ----------
    a, b : tiles in memory, [nr][np][Tp*Tr] and [nc][np][Tp*Tc]
    c : [nr][nc][Tr*Tc]
    a_buffer, b_buffer : [2][words of a tile]
    c_buffer : [Tr][Tc], the tile that is being written
    sums : [Tr][S + 1][Tc], see `_step`
    read_a, read_b, write_c : ports
    words_a_cycle : that the memory moves, for all ports together
    band, latency : words of a beat, cycles from a request to its first beat
    credit : words that the memory may still move in this cycle, and whose turn it is
    state : products done, steps of the present product, cycles of adding up, tiles of C that are added up
    """

    a: Array
    b: Array
    c: Array
    a_buffer: Array
    b_buffer: Array
    c_buffer: Array
    sums: Array
    read_a: Port
    read_b: Port
    write_c: Port
    words_a_cycle: float
    band: int
    latency: int
    credit: Array
    state: Array


_PRODUCTS, _STEPS, _ADDING, _TILES = 0, 1, 2, 3


def make_machine(a: Array, b: Array, tr: int, tc: int, settings: SimulatorSettings) -> Machine:
    """Build an array for the tiles a [nr][np][Tp][Tr] and b [nc][np][Tp][Tc]."""
    nr, np_, tp, _ = a.shape
    nc = b.shape[0]

    def port(words: int) -> Port:
        return Port(words, np.zeros(4, np.int64))

    s = settings
    return Machine(a.reshape(nr, np_, tp * tr), b.reshape(nc, np_, tp * tc), np.zeros((nr, nc, tr * tc), np.float32),
                   np.zeros((2, tp * tr), np.float32), np.zeros((2, tp * tc), np.float32),
                   np.zeros((tr, tc), np.float32), np.zeros((tr, s.partial_sums + 1, tc), np.float32),
                   port(tp * tr), port(tp * tc), port(tr * tc), s.dram_bytes_per_s / s.clock_hz / 4, s.band,
                   s.axi_latency_cycles, np.zeros(2), np.zeros(4, np.int64))


@compiled
def run(m: Machine) -> tuple[int, Array]:
    """Let the machine work until all of C is written.

    Returns
    -------
    cycles, [component][what it did] as counts of cycles
    """
    did = np.zeros((5, 4), np.int64)
    cycle, tiles = 0, m.a.shape[0] * m.b.shape[0]
    products = tiles * m.a.shape[1]
    while m.write_c.state[_DONE] < tiles:
        cycle += 1
        _begin(m, cycle, products)
        for component, status in enumerate(_move(m, cycle, products)):
            did[(4, 0, 1)[component], status] += 1
        multiplied, added = _compute(m, products)
        did[2, multiplied] += 1
        did[3, added] += 1
    return cycle + m.latency, did


@compiled
def _begin(m: Machine, cycle: int, products: int) -> None:
    """Ask for the bursts of a tile: of A and B where a buffer is free, of C where a tile is added up."""
    for port in (m.read_a, m.read_b):
        state = port.state
        if state[_BEGUN] == state[_DONE] and state[_BEGUN] < min(products, m.state[_PRODUCTS] + 2):
            state[_BEGUN] += 1
            state[_FROM] = cycle + m.latency
            state[_MOVED] = 0
    state = m.write_c.state
    if state[_BEGUN] == state[_DONE] and state[_BEGUN] < m.state[_TILES]:
        state[_BEGUN] += 1
        state[_FROM] = cycle
        state[_MOVED] = 0


@compiled
def _move(m: Machine, cycle: int, products: int) -> tuple[int, int, int]:
    """Let the memory move as many beats as its rate allows, the ports in turn; what C, A and B did."""
    # What is not used in a cycle is lost, but for part of a beat.
    m.credit[0] = min(m.credit[0], float(m.band)) + m.words_a_cycle
    status = np.zeros(3, np.int64)
    for index, port in enumerate((m.write_c, m.read_a, m.read_b)):
        if port.state[_BEGUN] > port.state[_DONE]:
            status[index] = STARVED
        elif index > 0 and port.state[_BEGUN] < products:
            status[index] = BLOCKED  # both buffers are in use
    passed = 0
    while m.credit[0] >= m.band and passed < 3:
        index = int(m.credit[1])
        m.credit[1] = (index + 1) % 3
        port = m.write_c if index == 0 else m.read_a if index == 1 else m.read_b
        if port.state[_BEGUN] == port.state[_DONE] or port.state[_FROM] > cycle:
            passed += 1
            continue
        passed = 0
        _move_beat(m, index, port)
        status[index] = BUSY
        m.credit[0] -= m.band
    return status[0], status[1], status[2]


@compiled
def _move_beat(m: Machine, index: int, port: Port) -> None:
    """Move the next beat of a port's tile."""
    state = port.state
    first, last = state[_MOVED], min(state[_MOVED] + m.band, port.words)
    tile = state[_DONE]
    if index == 0:
        columns = m.c_buffer.shape[1]
        target = m.c[tile // m.c.shape[1], tile % m.c.shape[1]]
        for word in range(first, last):
            target[word] = m.c_buffer[word // columns, word % columns]
    else:
        depth, strips = m.a.shape[1], m.b.shape[0]
        c_tile, step = tile // depth, tile % depth
        source = m.a[c_tile // strips, step] if index == 1 else m.b[c_tile % strips, step]
        buffer = m.a_buffer[tile % 2] if index == 1 else m.b_buffer[tile % 2]
        buffer[first:last] = source[first:last]
    state[_MOVED] = last
    if last == port.words:
        state[_DONE] += 1


@compiled
def _compute(m: Machine, products: int) -> tuple[int, int]:
    """Take a step of the mesh, or a cycle of adding up; what each did."""
    state, (tr, sums, tc), depth = m.state, m.sums.shape, m.a.shape[1]
    if state[_PRODUCTS] == (state[_TILES] + 1) * depth:
        # Sums are added up one after another, each addition taking S cycles and one to store it.
        if state[_ADDING] < sums * sums:
            state[_ADDING] += 1
            if state[_ADDING] < sums * sums:
                return IDLE, BUSY
        if m.write_c.state[_DONE] < state[_TILES]:
            return IDLE, BLOCKED
        _add_up(m, state[_PRODUCTS])
        state[_ADDING] = 0
        state[_TILES] += 1
        return IDLE, BUSY
    if state[_PRODUCTS] == products:
        return IDLE, IDLE
    if min(m.read_a.state[_DONE], m.read_b.state[_DONE]) <= state[_PRODUCTS]:
        return STARVED, IDLE
    _step(m, state[_STEPS], state[_PRODUCTS])
    state[_STEPS] += 1
    if state[_STEPS] == m.a_buffer.shape[1] // tr + tr + tc - 2:
        state[_STEPS] = 0
        state[_PRODUCTS] += 1
    return BUSY, IDLE


@compiled
def _step(m: Machine, step: int, product: int) -> None:
    """One multiply-accumulate in each element that holds a product of this tile.

    Along a row, column j holds product k - j when column 0 holds k.  Sums are kept turned by j, so that a row's lie one
    behind the other: place u of column j is sum (u - j) mod (S + 1).
    """
    tr, sums, tc = m.sums.shape
    tp = m.a_buffer.shape[1] // tr
    a, b = m.a_buffer[product % 2], m.b_buffer[product % 2]
    before = product % m.a.shape[1] * tp
    for row in range(max(0, step - tp - tc + 2), min(tr, step + 1)):
        k = step - row
        total = m.sums[row, (before + k) % sums]
        for column in range(max(0, k - tp + 1), min(tc, k + 1)):
            total[column] += a[(k - column) * tr + row] * b[(k - column) * tc + column]


@compiled
def _add_up(m: Machine, product: int) -> None:
    """Move the sums of all elements to the buffer of C, and clear them."""
    tr, sums, tc = m.sums.shape
    for row in range(tr):
        for column in range(tc):
            total = m.sums[row, column % sums, column]
            for index in range(1, sums):
                total += m.sums[row, (index + column) % sums, column]
            m.c_buffer[row, column] = total
    m.sums[:] = 0.0
