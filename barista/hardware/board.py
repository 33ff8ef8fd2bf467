"""Boards: what a card offers to a bitstream, a TOML file each with a source for each figure."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .figures import Form, needed

EMULATED = "emulated"
"""The board that every machine with an OpenCL device has."""

_FORM = Form(
    kind="board", folder=Path(__file__).parent / "boards",
    texts=("name", "description", "part", "platform"),
    required=("dsp", "bram_bits", "clock_hz", "pcie_bytes_per_s", "dram_bytes_per_s", "power_w"),
    optional=("bram18", "uram", "regions", "region_dsp", "region_bram18", "port_bits_per_cycle", "axi_latency_cycles",
              "pcie_latency_s", "launch_s", "reconfiguration_s", "tiling_bytes_per_s", "untiling_bytes_per_s"),
    whole=frozenset({"dsp", "bram_bits", "bram18", "uram", "regions", "region_dsp", "region_bram18",
                     "port_bits_per_cycle", "axi_latency_cycles"}),
    words={"shell": re.compile(r"[A-Za-z0-9_.-]+"),
           "memories": re.compile(r"[A-Za-z]+\[\d+(:\d+)?\](, [A-Za-z]+\[\d+(:\d+)?\])*"),
           "kernel_region": re.compile(r"SLR\d+")})


@dataclasses.dataclass(frozen=True)
class BoardSummary:
    """What manifests keep of a board, so that who uses a bitstream never needs the board's file.

    Parameters
    ----------
    name : as manifests and the command line say it
    description : one line
    platform : part of the name of its OpenCL platform, ``any`` for an emulation
    dsp : multiplier blocks
    bram_bits : on-chip block memory
    """

    name: str
    description: str
    platform: str
    dsp: int
    bram_bits: int

    @property
    def is_emulated(self) -> bool:
        """Whether bitstreams for it are built from the OpenCL kernels, for any device."""
        return self.platform == "any"


@dataclasses.dataclass(frozen=True)
class Board(BoardSummary):
    """A card, or what stands in for one.  A figure that is None is not known: ask for it with `need`.

    Parameters
    ----------
    name, description, platform, dsp, bram_bits : see `BoardSummary`
    part : the vendor's number of the device, ``none`` where there is none
    clock_hz : clock that designs reach on it
    pcie_bytes_per_s : rate of the host link, in its slower direction
    dram_bytes_per_s : rate of the card's own memory, as far as a design at this clock can draw it
    power_w : while it computes
    sources : figure to where it comes from
    path : the file that says all this
    bram18, uram : blocks of 18,432 and of 294,912 bits
    regions : parts of the device (super logic regions) between which wires are few
    region_dsp, region_bram18 : blocks in one region, the limit of what may not cross into another
    port_bits_per_cycle : width of one port to the card's memory
    axi_latency_cycles : from a burst's request to its first word
    pcie_latency_s, launch_s : a transfer's and a kernel's time before anything moves
    reconfiguration_s : loading another bitstream
    tiling_bytes_per_s, untiling_bytes_per_s : rates at which its host cuts matrices into tiles and joins them again
    shell : name of the platform that designs are linked against
    memories : its memories as the linker calls them, such as ``DDR[0], DDR[1]``; a kernel's ports get one after another
    kernel_region : the region that is next to the memories, for a kernel that fits into one
    """

    part: str
    clock_hz: float
    pcie_bytes_per_s: float
    dram_bytes_per_s: float
    power_w: float
    sources: Mapping[str, str]
    path: Path
    bram18: int | None = None
    uram: int | None = None
    regions: int | None = None
    region_dsp: int | None = None
    region_bram18: int | None = None
    port_bits_per_cycle: int | None = None
    axi_latency_cycles: int | None = None
    pcie_latency_s: float | None = None
    launch_s: float | None = None
    reconfiguration_s: float | None = None
    tiling_bytes_per_s: float | None = None
    untiling_bytes_per_s: float | None = None
    shell: str | None = None
    memories: str | None = None
    kernel_region: str | None = None

    @property
    def summary(self) -> BoardSummary:
        """What manifests keep of it."""
        return BoardSummary(self.name, self.description, self.platform, self.dsp, self.bram_bits)

    def need(self, figure: str, who: str) -> float:
        """Return a figure that somebody cannot do without.

        Parameters
        ----------
        figure : name of a field
        who : what needs it, as a message should say it

        Raises
        ------
        UnsupportedError : the board does not have it; the message says who needs it and what to add where
        """
        return float(needed("board", self.name, self.path, figure, getattr(self, figure), who))

    def need_words(self, figure: str, who: str) -> str:
        """Return a text that somebody cannot do without, as `need` does."""
        return str(needed("board", self.name, self.path, figure, getattr(self, figure), who))

    def need_count(self, figure: str, who: str) -> int:
        """Return a figure that counts things, as `need` does."""
        return int(self.need(figure, who))


def board_names() -> list[str]:
    """The boards that ship, sorted."""
    return _FORM.names()


def load_board(name: str | os.PathLike[str]) -> Board:
    """Return the board of this name: one that ships, or the path of a ``.toml`` file.

    Raises
    ------
    UnsupportedError : no such board, the message lists those there are; or its file is wrong
    """
    return read_board(_FORM.find(name))


def read_board(path: Path) -> Board:
    """Return the board that a file describes.

    Raises
    ------
    UnsupportedError : no TOML, a figure is missing, not positive or without its source, or an unknown name
    """
    return Board(**_FORM.read(path), path=path)
