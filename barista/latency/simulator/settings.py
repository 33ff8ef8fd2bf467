"""What can be set in a simulation, and what a run returns."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ..integers import require_not_negative, require_positive, require_whole

Array = npt.NDArray[Any]

WORD_BYTES = 4

# What the link carries at once: the largest payload that hosts usually grant a PCIe packet.
_PACKET_BYTES = 256


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
    """Figures of a design and of the card around it.

    Parameters
    ----------
    clock_hz : clock of the design
    band : words of a beat, which a port moves in a cycle
    axi_latency_cycles : from a request to its first beat, and from the last beat written to the memory's answer
    burst_beats : beats of the longest burst; AXI allows 256
    outstanding : bursts that a port may have asked for and not yet received
    fifo_depth : entries of each FIFO, at least 2
    partial_sums : S, cycles of an addition in Barista's elements, which keep S + 1 sums
    dram_bytes_per_s : rate of the card's memory, which the three ports of Barista's array share; FPGPT's ports have
        a channel each
    pcie_bytes_per_s : rate of the host link; None leaves transfers out
    pcie_latency_s : of each transfer

    Raises
    ------
    UnsupportedError : a figure that makes no sense
    """

    clock_hz: float = 100e6
    band: int = 16
    axi_latency_cycles: int = 35
    burst_beats: int = 256
    outstanding: int = 16
    fifo_depth: int = 16
    partial_sums: int = 10
    dram_bytes_per_s: float = 30e9
    pcie_bytes_per_s: float | None = None
    pcie_latency_s: float = 0.0

    def __post_init__(self) -> None:
        who = "simulator"
        require_positive(who, clock_hz=self.clock_hz, dram_bytes_per_s=self.dram_bytes_per_s,
                         pcie_bytes_per_s=self.pcie_bytes_per_s)
        require_not_negative(who, pcie_latency_s=self.pcie_latency_s)
        require_whole(who, 1, band=self.band, burst_beats=self.burst_beats, outstanding=self.outstanding)
        # A group of words may span two beats, which must both have come.
        require_whole(who, 2, fifo_depth=self.fifo_depth)
        require_whole(who, 0, axi_latency_cycles=self.axi_latency_cycles, partial_sums=self.partial_sums)

    def transfer_s(self, *buffers: Array) -> float:
        """Seconds in which the link carries buffers one behind the other, in whole packets; 0 without a link."""
        if self.pcie_bytes_per_s is None:
            return 0.0
        packets = sum(-(-buffer.size * WORD_BYTES // _PACKET_BYTES) for buffer in buffers)
        return self.pcie_latency_s + packets * _PACKET_BYTES / self.pcie_bytes_per_s


@dataclasses.dataclass(frozen=True)
class SimulatedRun:
    """What a simulation computed, and how long it took.

    Parameters
    ----------
    output : result, as the array wrote it
    cycles : of the kernel, from its start to the memory's last answer
    busy, starved, blocked : by component, cycles in which it worked, waited for input, and waited for room
    host_to_device_s, kernel_s, device_to_host_s : stages
    """

    output: Array
    cycles: int
    busy: dict[str, int]
    starved: dict[str, int]
    blocked: dict[str, int]
    host_to_device_s: float
    kernel_s: float
    device_to_host_s: float

    @property
    def total_s(self) -> float:
        """The three stages, one after another."""
        return self.host_to_device_s + self.kernel_s + self.device_to_host_s


def as_float32(array: npt.ArrayLike) -> Array:
    """A C-order float32 array."""
    return np.ascontiguousarray(array, np.float32)
