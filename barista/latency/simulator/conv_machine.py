"""FPGPT's components, wired up, and what they do in a cycle.

    memory -> inp_ddr -> inp_decode -> inp_construct -> inp_im2col --+
    memory -> kern_ddr -> kern_decode -> kern_feed ------------------+-> sa
                                              sa -> out_construct -> out_encode -> out_ddr -> memory
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import inp_side, kern_side, memory, mesh, out_side
from .compiled import compiled
from .conv_layout import Roles, Windows, stored_products, windows
from .fifo import BUSY, Fifo, make_fifo
from .settings import SimulatorSettings

Array = npt.NDArray[Any]

COMPONENTS = ("inp_ddr", "inp_decode", "inp_construct", "inp_im2col", "sa", "kern_ddr", "kern_decode", "kern_feed",
              "out_construct", "out_encode", "out_ddr")

# Cycles without any work after which the machine stands for good.
_PATIENCE = 10_000


class Machine(NamedTuple):
    """All components and the FIFOs between them."""

    inp_reader: memory.Reader
    inp_beats: Fifo
    inp_words: Fifo
    inp_construct: inp_side.Construct
    inp_groups: Fifo
    im2col: inp_side.Im2col
    inp_vectors: Fifo
    kern_reader: memory.Reader
    kern_beats: Fifo
    kern_unpack: kern_side.Unpack
    kern_words: Fifo
    feeder: Any
    kern_vectors: Fifo
    mesh: mesh.Mesh
    construct: out_side.Construct
    out_vectors: Fifo
    encode: out_side.Encode
    out_beats: Fifo
    writer: memory.Writer


def make_machine(roles: Roles, x: int, y: int, settings: SimulatorSettings, out: Array) -> Machine:
    """Build an array of X columns and Y rows for one group of a pass.

    Parameters
    ----------
    out : words to fill, in the order in which they are written: one behind the other
    """
    s, band = settings, settings.band
    view = windows(roles, x)
    stored = stored_products(roles)
    sets, blocks, rounds = len(view.pieces), -(-roles.filters // y), roles.rounds
    channels, products = roles.channels, len(stored)
    sums_up = roles.readings is not None
    words = roles.place.size
    planes = np.arange(rounds * channels).reshape(rounds, 1, 1, channels) * (roles.inp.shape[2] * roles.inp.shape[3])
    starts = np.broadcast_to(planes + view.pieces[:, None], (rounds, blocks, sets, channels)).reshape(-1).copy()

    inp_construct = inp_side.make_construct(starts.size, view.z, view.z_channel, band)
    feeder: Any
    if roles.readings is not None:
        group = min(y, band)
        feeder = kern_side.SwappingFeeder(
            roles.filters, np.zeros((2, y, words // roles.filters), np.float32), stored, sets, blocks, rounds,
            np.zeros(y + group, np.float32), np.zeros(kern_side.SWAPPING_STATES, np.int64))
        kept: tuple[int, ...] = (roles.filters, roles.out_planes, sets, x)
    else:
        group = 1
        feeder = kern_side.Feeder(roles.place, np.zeros((roles.filters, words // roles.filters), np.float32), stored,
                                  sets, blocks, rounds, np.zeros(3, np.int64))
        kept = (2, y, sets, x)
    readings = np.zeros(1, np.int64) if roles.readings is None else roles.readings

    def fifo(width: int) -> Fifo:
        return make_fifo(s.fifo_depth, width)

    def reader(source: Array, where: Array, length: int, nested: bool) -> memory.Reader:
        return memory.make_reader(source.ravel(), where, length, band, s.axi_latency_cycles, s.burst_beats,
                                  s.outstanding, nested)

    return Machine(
        inp_reader=reader(roles.inp, starts, view.z_channel, nested=True),
        inp_beats=fifo(band), inp_words=fifo(band), inp_construct=inp_construct, inp_groups=fifo(view.z),
        im2col=_im2col(roles, view, x, inp_construct.groups, rounds * blocks), inp_vectors=fifo(x),
        kern_reader=reader(roles.kern, readings, words, nested=sums_up),
        kern_beats=fifo(band), kern_unpack=kern_side.make_unpack(group, words), kern_words=fifo(group),
        feeder=feeder, kern_vectors=fifo(y),
        mesh=mesh.make_mesh(x, y, products, sets, blocks * rounds, roles.positions),
        construct=out_side.Construct(roles.filters, sets, blocks, rounds, roles.positions, roles.out_planes,
                                     np.zeros(kept, np.float32), np.zeros(x, np.float32), np.zeros(2, np.int64)),
        out_vectors=fifo(x), encode=out_side.make_encode(out.size, x, band), out_beats=fifo(band),
        writer=memory.make_writer(out))


def _im2col(roles: Roles, view: Windows, x: int, groups: int, rounds: int) -> inp_side.Im2col:
    height, width = roles.inp.shape[2:]
    return inp_side.Im2col(view.pieces, view.rows, view.columns, view.tap_rows, view.tap_columns, height, width,
                           roles.dilation[0], roles.dilation[1], roles.channels, len(view.pieces), rounds,
                           np.zeros((2, groups * view.z), np.float32), np.zeros(2, np.int64),
                           np.zeros(x, np.float32), np.zeros(inp_side.IM2COL_STATES, np.int64))


def run(machine: Machine, sums_up: bool, latency: int) -> tuple[int, Array]:
    """Let the machine work until all of OUT is written.

    Parameters
    ----------
    sums_up : whether it is a machine for grad_weight
    latency : cycles from the last beat to the memory's answer

    Returns
    -------
    cycles, [component][what it did] as counts of cycles; 0 cycles where the machine got stuck
    """
    did = np.zeros((len(COMPONENTS), 4), np.int64)
    cycles = (_run_sums if sums_up else _run)(machine, did)
    return (cycles + latency if cycles else 0), did


@compiled
def _before_array(m: Machine, did: Array, cycle: int) -> bool:
    """What comes before the array, the last first; whether any of it worked."""
    given = inp_side.im2col(m.im2col, m.inp_vectors)
    inp_side.fill_line(m.im2col, m.inp_groups)
    grouped = inp_side.construct(m.inp_construct, m.inp_words, m.inp_groups)
    split = inp_side.decode(m.inp_beats, m.inp_words)
    received = memory.read(m.inp_reader, m.inp_beats, cycle)
    unpacked = kern_side.unpack(m.kern_unpack, m.kern_beats, m.kern_words)
    kern_received = memory.read(m.kern_reader, m.kern_beats, cycle)
    worked = False
    for component, status in ((0, received), (1, split), (2, grouped), (3, given), (5, kern_received), (6, unpacked)):
        did[component, status] += 1
        worked = worked or status == BUSY
    return worked


@compiled
def _after_array(m: Machine, did: Array, cycle: int) -> bool:
    """What comes after OUT's construct, the last first; whether any of it worked."""
    written = memory.write(m.writer, m.out_beats, cycle)
    encoded = out_side.encode(m.encode, m.out_vectors, m.out_beats)
    did[9, encoded] += 1
    did[10, written] += 1
    return written == BUSY or encoded == BUSY


@compiled
def _count(did: Array, constructed: int, multiplied: int, fed: int) -> bool:
    """Count what the array and its neighbours did; whether any of them worked."""
    did[8, constructed] += 1
    did[4, multiplied] += 1
    did[7, fed] += 1
    return constructed == BUSY or multiplied == BUSY or fed == BUSY


@compiled
def _run(m: Machine, did: Array) -> int:
    """Forward and grad_input."""
    cycle, idle = 0, 0
    while not memory.is_written(m.writer) and idle < _PATIENCE:
        cycle += 1
        after = _after_array(m, did, cycle)
        constructed = out_side.construct(m.construct, m.mesh, m.out_vectors, cycle)
        multiplied = mesh.multiply(m.mesh, m.inp_vectors, m.kern_vectors, cycle)
        fed = kern_side.feed(m.feeder, m.kern_words, m.kern_vectors)
        before = _before_array(m, did, cycle)
        worked = _count(did, constructed, multiplied, fed)
        idle = 0 if after or worked or before else idle + 1
    return 0 if idle else cycle


@compiled
def _run_sums(m: Machine, did: Array) -> int:
    """grad_weight."""
    cycle, idle = 0, 0
    while not memory.is_written(m.writer) and idle < _PATIENCE:
        cycle += 1
        after = _after_array(m, did, cycle)
        constructed = out_side.construct_sums(m.construct, m.mesh, m.out_vectors, cycle)
        multiplied = mesh.multiply(m.mesh, m.inp_vectors, m.kern_vectors, cycle)
        fed = kern_side.feed_swapping(m.feeder, m.kern_words, m.kern_vectors)
        before = _before_array(m, did, cycle)
        worked = _count(did, constructed, multiplied, fed)
        idle = 0 if after or worked or before else idle + 1
    return 0 if idle else cycle
