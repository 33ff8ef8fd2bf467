"""Barista's GEMM kernel in C-simulation, as an array of tiles that any engine runs on."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError
from ..gemm.engine import StageTimes
from ..hardware.bitstream import Bitstream
from .bitstream_library import open_library
from .gemm_design import GemmDesign
from .simulation import SimulationReport

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

# Steps of elements that one run may take: a third of a second (measured: 40 to 80 million a second), since Ctrl-C is
# seen between runs.
LONGEST_STEPS = 1 << 24


class SimulatedArray:
    """A `TileArray` that is the C++ code of a card's design, step by step.

    Parameters
    ----------
    bitstream : of engine csim

    Attributes
    ----------
    name, tiles, format : see `TileArray`
    overlaps : False; all but some hundredths of a product's time is the simulation's, which runs on one core

    Raises
    ------
    BitstreamError : see `open_library`; or it takes whole convolutions
    """

    overlaps = False

    def __init__(self, bitstream: Bitstream) -> None:
        self.bitstream = bitstream
        manifest = bitstream.manifest
        self.tiles, self.format = manifest.tiles, manifest.format
        self.name = f"{bitstream.name} in C-simulation"
        self._function = f"{manifest.kernel}_csim"
        self._library = open_library(bitstream, GemmDesign(self.tiles, manifest.precision))
        log.debug("loaded %s", self.name)

    @property
    def report(self) -> SimulationReport:
        """What the last run did."""
        return self._library.report()

    def reads(self, port: str) -> npt.NDArray[np.uint32]:
        """How often the last run read each beat of port ``a`` or ``b``."""
        return self._library.reads(port)

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        """As many tiles of C as a run takes in good time, in as square a block as can be; one at least."""
        t = self.tiles
        blocks = max(1, LONGEST_STEPS // (np_ * t.tr * t.tc * (t.tp + t.tr + t.tc - 2)))
        rows = min(nr, max(1, int(blocks ** 0.5), blocks // nc))
        return rows, max(1, min(nc, blocks // rows))

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        """See `TileArray.multiply`; the kernel works in the host's memory."""
        t = self.tiles
        for name, array, dtype, shape in (("A", a_tiles, self.format.storage_dtype, t.a_shape(nr, np_)),
                                          ("B", b_tiles, self.format.storage_dtype, t.b_shape(nc, np_)),
                                          ("C", c_tiles, self.format.accumulator_dtype, t.c_shape(nr, nc))):
            if array.dtype != dtype or array.shape != shape:
                raise DeviceError(f"{self.name}: the tiles of {name} are {array.dtype} of {array.shape}, where {dtype} "
                                  f"of {shape} are expected")
        start = time.perf_counter()
        self._library.run(self._function, a_tiles, b_tiles, c_tiles, nr, nc, np_)
        return StageTimes(kernel=time.perf_counter() - start)
