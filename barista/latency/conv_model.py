"""Latency of FPGPT's array: a whole convolution on the device, im2col included (thesis, chapter 5, appendix A).

Pure functions on shapes.  X and Y, the columns and rows of the array, may be arrays that broadcast, so that one call
evaluates a whole design space.  All components run at once, coupled by FIFOs; the one that takes the most cycles binds
(Eq. 5.13).  `conv_roles` says what INP, KERN and OUT are in each pass.

The thesis's text errs in places.  Its equations can be had as they are printed, or corrected:

    A.3, A.24   count outer bursts from the inner count, which is already clipped to 256, and so always find 3
    A.8         counts words as cycles; the decoder takes BAND words a cycle
    A.10, A.11  round up before they multiply by Z, where Z words are grouped from BAND
    A.33        adds the cycles of one batch (A.30) where those of all (A.31) are meant
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..hardware.board import Board
from ..precision.formats import number_format
from .conv_roles import ConvRoles, conv_roles, line_buffer
from .integers import (
    Array,
    align,
    ceil_div,
    counts,
    require_not_negative,
    require_one_of,
    require_positive,
    require_whole,
)

READINGS = ("corrected", "printed")

# Components in the order of the data's way; all but the second may bind (Eq. 5.9, A.9).
COMPONENTS = ("inp_ddr", "inp_decode", "inp_construct", "inp_im2col", "sa", "kern_ddr", "kern_decode", "kern_feed",
              "out_construct", "out_encode", "out_ddr")
BINDING = tuple(name for name in COMPONENTS if name != "inp_decode")

# A burst reads up to 256 beats, in blocks of 16, and its outer loop turns at least 3 times (section A.1.1).
_BURST_BEATS, _BURST_BLOCK, _BURST_LEAST_OUTER = 256, 16, 3
# BAND as Eq. A.8 has it, whatever the design's.
_PRINTED_BAND = 16
# Cycles in which an element adds up its 4 interleaved sums (section 5.3.3).
_ADD_UP_CYCLES = 8


@dataclasses.dataclass(frozen=True)
class ConvAssumptions:
    """What the model takes for granted about a board, a design on it and its host.

    Parameters
    ----------
    band : BAND, words that a port of the card's memory moves a cycle
    clock_hz : clock of the design
    axi_latency_cycles : of a burst.  The equations count none of it, since bursts and doubled ports are to hide it
        (section 5.3.5); models that refine them do
    reading : ``corrected``, or ``printed`` for the equations with their slips
    pcie_bytes_per_s : rate of the host link; None leaves transfers out, as the thesis does
    pcie_latency_s : of each of the two transfers, to the card and back
    word_bits : length of a word
    overlap : transfers run beside the kernel, so that the longer of the two counts
    launch_s : from asking for the kernel to its first cycle
    reconfiguration_s : of loading the bitstream before the convolution; 0 where it is there

    Raises
    ------
    UnsupportedError : a figure that makes no sense, or an unknown reading
    """

    band: int = 16
    clock_hz: float = 100e6
    axi_latency_cycles: int = 35
    reading: str = "corrected"
    pcie_bytes_per_s: float | None = None
    pcie_latency_s: float = 0.0
    word_bits: int = 32
    overlap: bool = False
    launch_s: float = 0.0
    reconfiguration_s: float = 0.0

    def __post_init__(self) -> None:
        who = "FPGPT model"
        require_whole(who, 1, band=self.band, word_bits=self.word_bits)
        require_whole(who, 0, axi_latency_cycles=self.axi_latency_cycles)
        require_positive(who, clock_hz=self.clock_hz, pcie_bytes_per_s=self.pcie_bytes_per_s)
        require_not_negative(who, pcie_latency_s=self.pcie_latency_s, launch_s=self.launch_s,
                             reconfiguration_s=self.reconfiguration_s)
        require_one_of(who, "reading", self.reading, READINGS)

    @classmethod
    def of(cls, board: Board, precision: str = "fp32", **changes: Any) -> ConvAssumptions:
        """The assumptions that follow from a board and a number format.

        BAND is what fits the board's memory port, the clock the 100 MHz that the thesis's design reached.  Figures
        that the board does not have stay at their defaults.

        Parameters
        ----------
        precision : name of a number format; words travel as they are stored
        changes : assumptions that are to differ, by name

        Raises
        ------
        UnsupportedError : no such number format, or a figure that makes no sense
        """
        bits = 8 * number_format(precision).storage_dtype.itemsize
        figures: dict[str, Any] = {"pcie_bytes_per_s": board.pcie_bytes_per_s, "word_bits": bits}
        for name in ("axi_latency_cycles", "pcie_latency_s", "launch_s"):
            figure = getattr(board, name)
            if figure is not None:
                figures[name] = figure
        if board.port_bits_per_cycle is not None:
            figures["band"] = max(1, board.port_bits_per_cycle // bits)
        return cls(**{**figures, **changes})


class Compiled(NamedTuple):
    """What a bitstream was built for, where several convolutions share it; None is the convolution's own.

    Parameters
    ----------
    z, z_channel : words of INP that are at hand at once, and that are read at once; the largest of all
        convolutions at the bitstream's X
    kern_words : KRange, words of KERN that grad_weight reads at once
    """

    z: npt.ArrayLike | None = None
    z_channel: npt.ArrayLike | None = None
    kern_words: npt.ArrayLike | None = None


class ConvLatency(NamedTuple):
    """What a convolution takes; arrays of the shape that X and Y broadcast to.

    Parameters
    ----------
    z, z_channel : words of INP that are at hand at once, and that are read at once
    components : cycles of each of `COMPONENTS`
    total_cycles : the most of them
    binds : which one that is, as an index into `COMPONENTS`
    reconfiguration_s, host_to_device_s, launch_s, kernel_s, device_to_host_s : stages
    total_s : all of them
    """

    z: Array
    z_channel: Array
    components: dict[str, Array]
    total_cycles: Array
    binds: Array
    reconfiguration_s: Array
    host_to_device_s: Array
    launch_s: Array
    kernel_s: Array
    device_to_host_s: Array
    total_s: Array

    @property
    def binding(self) -> Array:
        """Name of the component that binds."""
        return np.array(COMPONENTS)[self.binds]


def conv_latency(geometry: ConvolutionGeometry, pass_: Pass, x: npt.ArrayLike, y: npt.ArrayLike,
                 assumptions: ConvAssumptions, compiled: Compiled | None = None) -> ConvLatency:
    """Predict one pass of a convolution, group by group.

    Parameters
    ----------
    x, y : columns and rows of the array, whole numbers or arrays of them that broadcast
    compiled : what the bitstream was built for; None for this convolution alone

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers, shapes that do not broadcast, a convolution that has not
        two spatial axes, or a bitstream that is too small for it
    """
    x, y = counts("conv_latency", x=x, y=y)
    roles = conv_roles(geometry, pass_)
    z, z_channel = line_buffer(roles, x)
    built = Built.of(roles, z, z_channel, compiled)
    shape = np.broadcast_shapes(x.shape, y.shape, *(size.shape for size in built))
    a = assumptions
    cycles = {**_inp_cycles(roles, x, y, z_channel, built, a), "sa": _array_cycles(roles, roles.products, x, y),
              **(_kern_cycles_sums(roles, x, y, built, a) if roles.sums_up else _kern_cycles(roles, x, y, a)),
              **_out_cycles(roles, x, y, a)}
    components = {name: np.broadcast_to(cycles[name] * roles.groups, shape) for name in COMPONENTS}
    total = functools.reduce(np.maximum, (components[name] for name in BINDING))
    # The first in the data's way where several take as long.
    binds = np.select([components[name] == total for name in BINDING], [COMPONENTS.index(name) for name in BINDING])

    kernel_s = total / a.clock_hz
    to_device, to_host = _transfers_s(geometry, pass_, a)
    device_s = np.maximum(kernel_s, to_device + to_host) if a.overlap else kernel_s + to_device + to_host
    stages: Mapping[str, npt.ArrayLike] = {
        "reconfiguration_s": a.reconfiguration_s, "host_to_device_s": to_device, "launch_s": a.launch_s,
        "kernel_s": kernel_s, "device_to_host_s": to_host, "total_s": a.reconfiguration_s + a.launch_s + device_s}
    return ConvLatency(np.broadcast_to(built.z, shape), np.broadcast_to(built.z_channel, shape), components,
                       np.asarray(total), np.asarray(binds),
                       **{name: np.broadcast_to(stage, shape) for name, stage in stages.items()})


class Built(NamedTuple):
    """The sizes that a bitstream has in the end, each an array."""

    z: Array
    z_channel: Array
    kern_words: Array

    @classmethod
    def of(cls, roles: ConvRoles, z: Array, z_channel: Array, compiled: Compiled | None) -> Built:
        """Take what was compiled, else the convolution's own.

        Raises
        ------
        UnsupportedError : compiled for less than the convolution needs
        """
        own = (z, z_channel, np.asarray(roles.kern_words))
        if compiled is None:
            return cls(*own)
        sizes = []
        for name, need, given in zip(cls._fields, own, compiled, strict=True):
            if given is None:
                sizes.append(need)
                continue
            size, = counts("compiled", **{name: given})
            short = np.flatnonzero(size < need)
            if short.size:
                has, needs = (int(each.flat[short[0]]) for each in np.broadcast_arrays(size, need))
                raise UnsupportedError(f"FPGPT model: a bitstream with {name}={has} is too small for the convolution, "
                                       f"which needs {needs}; build it for the largest of all that share it")
            sizes.append(size)
        return cls(*sizes)


def _burst(words: npt.ArrayLike, a: ConvAssumptions) -> Array:
    """Cycles of a partly sequential read (Eq. A.1 to A.3, A.22 to A.24)."""
    beats = ceil_div(words, a.band)
    inner = np.minimum(beats, _BURST_BEATS)
    outer = np.maximum(ceil_div(inner if a.reading == "printed" else beats, _BURST_BEATS), _BURST_LEAST_OUTER)
    return align(inner, _BURST_BLOCK) * outer


def _inp_cycles(r: ConvRoles, x: Array, y: Array, z_channel: Array, built: Built,
                a: ConvAssumptions) -> dict[str, Array]:
    """Eq. A.6, A.8, A.12 and A.13."""
    rounds = ceil_div(r.positions, x) * ceil_div(r.kern_n, y) * r.batches
    planes = rounds * r.inp_c
    beats = ceil_div(z_channel, a.band)
    printed = a.reading == "printed"
    groups_of_z = beats if printed else ceil_div(z_channel, built.z)
    construct = np.where(built.z < a.band, ceil_div(beats * a.band, built.z), ceil_div(groups_of_z * built.z, a.band))
    return {"inp_ddr": _burst(built.z_channel, a) * planes,
            "inp_decode": (align(z_channel, _PRINTED_BAND) if printed else beats) * planes,
            "inp_construct": construct * planes,
            "inp_im2col": r.products * rounds}


def _array_cycles(r: ConvRoles, products: npt.ArrayLike, x: Array, y: Array) -> Array:
    """Eq. 5.8 and A.20: M products for each set of X, then the skew of Y rows and the adding up."""
    planes = np.asarray(products) * ceil_div(r.positions, x) + y + _ADD_UP_CYCLES
    return np.asarray(planes * ceil_div(r.kern_n, y) * r.batches)


def _kern_cycles(r: ConvRoles, x: Array, y: Array, a: ConvAssumptions) -> dict[str, Array]:
    """Forward and grad_input: all of KERN is read once, a word a cycle (Eq. A.14, A.15, A.21)."""
    return {"kern_ddr": ceil_div(r.kern_words, a.band),
            "kern_decode": np.asarray(r.kern_words),
            "kern_feed": r.kern_words + _array_cycles(r, r.products, x, y)}


def _kern_cycles_sums(r: ConvRoles, x: Array, y: Array, built: Built, a: ConvAssumptions) -> dict[str, Array]:
    """grad_weight: KERN is read anew for each plane of INP, into Y buffers (Eq. A.25, A.27, A.33)."""
    fill = align(r.stored_products, y)
    feed = _array_cycles(r, align(r.products, y), x, y)
    if a.reading == "printed":
        feed = align(r.products, y) * ceil_div(r.positions, x) + y + _ADD_UP_CYCLES
    return {"kern_ddr": _burst(built.kern_words, a) * r.batches,
            "kern_decode": ceil_div(r.kern_words, np.minimum(y, a.band)) * r.batches,
            "kern_feed": fill + feed}


def _out_cycles(r: ConvRoles, x: Array, y: Array, a: ConvAssumptions) -> dict[str, Array]:
    """Eq. A.38, A.41, A.43 and A.44."""
    sets = ceil_div(r.positions, x)
    if r.sums_up:
        construct = y * sets * ceil_div(r.out_n, y) * r.out_c * r.a + sets * r.out_c * r.out_n
    else:
        construct = y * sets * (1 + ceil_div(r.kern_n, y) * r.inp_n)
    plane = r.out_c * r.positions
    return {"out_construct": construct,
            "out_encode": ceil_div(plane, np.minimum(x, a.band)) * r.out_n,
            "out_ddr": ceil_div(r.out_n * plane, a.band)}


def _transfers_s(geometry: ConvolutionGeometry, pass_: Pass, a: ConvAssumptions) -> tuple[float, float]:
    """Seconds to the card and back: whole tensors, as the framework has them."""
    if a.pcie_bytes_per_s is None:
        return 0.0, 0.0
    x, w, y = (math.prod(shape) for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape))
    read, written = {Pass.FORWARD: (x + w, y), Pass.GRAD_INPUT: (y + w, x), Pass.GRAD_WEIGHT: (x + y, w)}[pass_]
    word = a.word_bits / 8 / a.pcie_bytes_per_s
    return a.pcie_latency_s + read * word, a.pcie_latency_s + written * word
