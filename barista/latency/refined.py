"""Both latency models with what their equations leave out: how components begin, wait for one another and end.

The thesis takes the busiest component for the whole (Eq. 4.6, 5.13), as if all of them worked from the first cycle to
the last.  The simulator shows where that is too good, and each term here follows from the design, none is fitted.

FPGPT's array, forward and grad_input:

    start    the array waits until all of KERN is on the chip, a word a cycle, and INP can run ahead by no more than its
             two line buffers: reading KERN and reading INP add up, where the equations take the longer
    drain    the last block of filters goes to memory when the array is done with it

FPGPT's array, grad_weight:

    stall    a reading of KERN ends with beats that are thrown away.  Until those pass the next cannot begin, and they
             do not come before the others have found room, at the pace of KERN's decoder and in one of two buffers
    drain    OUT leaves the chip when the last image is in

Barista's array:

    bursts   a tile is asked for when a buffer is free, so each pays the memory's latency
    depth    memory moves whole tiles along K too, not K words
    stall    while the sums of a tile of C are added up, one product's tiles can be read ahead, no more
    ends     nothing covers the first tiles' way in and the last tile's way out
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..gemm.shapes import ConvolutionGeometry, Pass
from .conv_model import Compiled, ConvAssumptions, ConvLatency, conv_latency
from .conv_roles import ConvRoles, conv_roles
from .gemm_model import GemmAssumptions, GemmLatency, gemm_latency
from .integers import Array, align, ceil_div, counts

# Cycles from one end of a chain of FIFOs and components to the other, a step each: memory, decode, construct, im2col or
# feeder, array; array, construct, encode, memory.
_WAY_IN, _WAY_OUT = 6, 5
_ADD_UP_CYCLES = 8
# Entries of each FIFO between components.
_FIFO_DEPTH = 16


def refined_conv_latency(geometry: ConvolutionGeometry, pass_: Pass, x: npt.ArrayLike, y: npt.ArrayLike,
                         assumptions: ConvAssumptions, compiled: Compiled | None = None) -> ConvLatency:
    """Predict one pass of a convolution on FPGPT's array; parameters and errors as `conv_latency`.

    Returns
    -------
    as `conv_latency`; `components` has the cycles of ``start``, ``stall`` and ``drain`` beside those of the
    components, and `total_cycles` and what follows from it count them
    """
    plain = conv_latency(geometry, pass_, x, y, assumptions, compiled)
    x, y = counts("refined_conv_latency", x=x, y=y)
    roles = conv_roles(geometry, pass_)
    # Of one group: each starts anew.
    steady = {name: cycles // roles.groups for name, cycles in plain.components.items()}
    phases = (_sum_phases if roles.sums_up else _phases)(roles, x, y, plain, steady, assumptions)
    total = np.asarray((phases.start + phases.steady + phases.stall + phases.drain) * roles.groups)
    kernel_s = np.asarray(total / assumptions.clock_hz)
    beside = np.minimum(plain.host_to_device_s + plain.device_to_host_s, kernel_s) if assumptions.overlap else 0.0
    transfers_s = plain.host_to_device_s + plain.device_to_host_s
    named = {name: np.broadcast_to(getattr(phases, name) * roles.groups, total.shape)
             for name in ("start", "stall", "drain")}
    return plain._replace(
        components={**plain.components, **named}, total_cycles=total, kernel_s=kernel_s,
        total_s=plain.reconfiguration_s + plain.launch_s + kernel_s + transfers_s - beside)


class _Phases(NamedTuple):
    """Cycles of a group: before the array can begin, while all work, in which all wait, after the array's end."""

    start: Array
    steady: Array
    stall: Array
    drain: Array


def _block(r: ConvRoles, x: Array, y: Array) -> Array:
    """Cycles of a block of Y filters in the array, which ends when its last row is empty and added up.

    Rows work one product behind one another.  Where there are fewer products than rows, words of OUT are finished
    faster than the one a cycle that leaves the array.
    """
    sets = ceil_div(r.positions, x)
    return np.asarray(np.maximum(r.products * sets + y, r.products + y * sets) - 1 + _ADD_UP_CYCLES)


def _emptying(r: ConvRoles, sets: Array, y: Array) -> Array:
    """Cycles in which the array empties after the last product of a block.

    The last row is Y - 1 products behind the first.  Where that is more than a set has, words of several sets are
    finished meanwhile, and leave one a cycle.
    """
    waves = np.minimum(sets, ceil_div(y - 1, r.products))
    return np.asarray(np.maximum(waves * (y - 1) - r.products * waves * (waves - 1) // 2, 0))


def _phases(r: ConvRoles, x: Array, y: Array, plain: ConvLatency, steady: dict[str, Array],
            a: ConvAssumptions) -> _Phases:
    """Forward and grad_input."""
    sets, blocks = ceil_div(r.positions, x), ceil_div(r.kern_n, y)
    start = a.axi_latency_cycles + r.kern_words + _WAY_IN

    array = _block(r, x, y) * blocks * r.batches
    # INP: when the array starts, pieces lie in the two line buffers and in the FIFOs before them, as beats and as
    # groups of Z.  The last piece's beats that are thrown away are not waited for, its products are.
    pieces = sets * blocks * r.batches * r.inp_c
    piece = np.maximum(steady["inp_ddr"], steady["inp_construct"]) // pieces
    beats = ceil_div(plain.z_channel, a.band)
    groups = np.where(plain.z < a.band, ceil_div(beats * a.band, plain.z), ceil_div(plain.z_channel, plain.z))
    # Z is a bound; where it is cut at the plane's size, padding has left the design a smaller one.
    groups = np.maximum(groups, 2 if r.products > r.inp_c else 1)
    room = 2 + 2 * _FIFO_DEPTH / beats + _FIFO_DEPTH / groups
    ahead = np.minimum(room, r.kern_words / piece).astype(np.int64)
    emptying = _emptying(r, sets, y) + _ADD_UP_CYCLES
    unseen = np.maximum(emptying - (room * piece).astype(np.int64), 0) * (blocks * r.batches - 1)
    inp = (np.maximum(pieces - ahead, 0) * piece + unseen - np.maximum(piece - beats, 0)
           + ceil_div(r.products, r.inp_c) + emptying)
    # OUT: a block goes out while the next comes in, in vectors or in beats.
    rows, last = y * sets, r.kern_n - (blocks - 1) * y
    sent_whole = np.maximum(rows, ceil_div(y * r.positions, a.band))
    sent_last = np.maximum(rows, ceil_div(last * r.positions, a.band))
    out = (sent_whole * (blocks - 1) + sent_last) * r.batches - sent_last + _block(r, x, y)
    busiest = np.maximum(np.maximum(array, inp), out)

    drain = np.maximum(last * sets, ceil_div(last * r.positions, a.band)) + _WAY_OUT + a.axi_latency_cycles
    return _Phases(np.asarray(start), busiest, np.asarray(0), drain)


def _sum_phases(r: ConvRoles, x: Array, y: Array, plain: ConvLatency, steady: dict[str, Array],
                a: ConvAssumptions) -> _Phases:
    """grad_weight: what happens in a round, in which all of KERN passes, happens again for each plane of INP."""
    sets, blocks, rounds = ceil_div(r.positions, x), ceil_div(r.kern_n, y), r.batches
    # Filling a block: whole groups of Y for each of its filters, as fast as words come.
    filters = np.minimum(y, r.kern_n)
    fill = np.maximum(filters * ceil_div(r.stored_products, y),
                      ceil_div(filters * r.stored_products, np.minimum(y, a.band)))
    start = a.axi_latency_cycles + fill + _WAY_IN

    # The feeder's loop goes over whole groups of Y products.
    block = np.maximum(_block(r, x, y), align(r.products, y) * sets + _emptying(r, sets, y))
    reading, decode = steady["kern_ddr"] // rounds, steady["kern_decode"] // rounds
    filling = r.kern_n * ceil_div(r.stored_products, y)
    inp = np.maximum(steady["inp_ddr"], steady["inp_construct"]) // rounds
    beats = ceil_div(r.kern_words, a.band)
    last = np.max(np.stack(np.broadcast_arrays(block * blocks, beats, decode, filling, inp)), axis=0)
    busiest = np.maximum(last, reading)

    # A reading ends when the FIFOs hold all of its words that are not in a buffer yet.  The block at which that is so
    # waits for a buffer until the array is done with the last but one before it; then come its words, the beats that
    # are thrown away, and the first block of the next reading.
    thrown, block_words = reading - beats, filters * r.stored_products
    before = np.maximum(r.kern_words - _FIFO_DEPTH * (a.band + np.minimum(y, a.band)), 0)
    late = ceil_div(before, block_words)
    coming = ceil_div((before - (late - 1) * block_words) * fill, block_words)
    waiting = np.where(late > 2, (late - 2) * block + coming + thrown + fill, 0)
    # Of two blocks each has a buffer of its own, which is filled anew when the array is done with it.
    waiting = np.where(blocks == 2, fill + block, waiting)
    # Without any wait for buffers, all but what one FIFO holds comes at the decoder's pace.
    paced = ceil_div(np.maximum(beats - _FIFO_DEPTH, 0) * np.maximum(decode, filling), beats) + thrown
    stall = np.maximum(np.maximum(waiting, paced) - busiest, 0)

    vectors = np.maximum(sets * r.out_c * r.out_n, ceil_div(r.positions * r.out_c * r.out_n, a.band))
    drain = vectors + _WAY_OUT + a.axi_latency_cycles
    return _Phases(start, busiest * (rounds - 1) + last, stall * (rounds - 1), drain)


def refined_gemm_latency(m: npt.ArrayLike, n: npt.ArrayLike, k: npt.ArrayLike, tr: npt.ArrayLike, tc: npt.ArrayLike,
                         tp: npt.ArrayLike, assumptions: GemmAssumptions, axi_latency_cycles: int = 35) -> GemmLatency:
    """Predict one product on Barista's array; parameters and errors as `gemm_latency`.

    Parameters
    ----------
    axi_latency_cycles : from a request to the memory to its first beat, and from the last beat written to its answer

    Returns
    -------
    as `gemm_latency`; `kernel_s` and `total_s` count the waits, and `memory_s` the bursts' latencies and padding
    """
    plain = gemm_latency(m, n, k, tr, tc, tp, assumptions)
    m, n, k, tr, tc, tp = counts("refined_gemm_latency", m=m, n=n, k=k, tr=tr, tc=tc, tp=tp)
    a = assumptions
    bytes_a_cycle = a.dram_bytes_per_s / a.clock_hz
    tiles, depth = ceil_div(m, tr) * ceil_div(n, tc), ceil_div(k, tp)

    load = axi_latency_cycles + 1 + (tr + tc) * tp * (a.word_bits / 8) / bytes_a_cycle
    store = tr * tc * (a.bits_of_c / 8) / bytes_a_cycle
    product = tp + tr + tc - 2
    add_up = (a.partial_sums + 1) ** 2
    memory = depth * load + store
    # The sums are added up while two products' tiles are at hand and no more can be read; the rest of the products of
    # the tile of C then wait for memory.
    waiting = np.where(depth > 2, (depth - 2) * load + store + 2 * product + add_up, 0)
    tile = np.maximum(np.maximum(depth * product + add_up, memory), waiting)
    # The last tile of C has nothing to read ahead for: its products follow its loads.
    kernel_s = (load + tiles * tile + store + axi_latency_cycles) / a.clock_hz

    device_s = np.maximum(kernel_s, plain.pcie_s) if a.overlap else kernel_s + plain.pcie_s
    others_s = plain.reconfiguration_s + plain.tiling_s + plain.launch_s + plain.untiling_s
    return plain._replace(memory_s=np.asarray(memory * tiles / a.clock_hz), kernel_s=np.asarray(kernel_s),
                          total_s=np.asarray(others_s + device_s))
