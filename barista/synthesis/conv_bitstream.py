"""FPGPT's kernel in C-simulation, as a bitstream has it."""

from __future__ import annotations

import logging
from typing import Any

import numpy.typing as npt

from ..gemm.engine import StageTimes
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..hardware.bitstream import Bitstream
from .bitstream_library import open_library
from .conv_array import SimulatedConv
from .conv_design import ConvDesign
from .simulation import SimulationReport

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


class SimulatedConvArray:
    """A `ConvArray` that is the C++ code of a card's design, step by step.

    A launch is not interrupted: Ctrl-C is seen when a group of a pass is computed.

    Parameters
    ----------
    bitstream : of engine csim

    Attributes
    ----------
    name, sizes, format : see `ConvArray`

    Raises
    ------
    BitstreamError : see `open_library`; or it multiplies tiles
    """

    def __init__(self, bitstream: Bitstream) -> None:
        manifest = bitstream.manifest
        self.sizes, self.format = manifest.sizes, manifest.format
        self.name = f"{bitstream.name} in C-simulation"
        design = ConvDesign.of(self.sizes, manifest.precision)
        self._conv = SimulatedConv(open_library(bitstream, design), design)
        log.debug("loaded %s", self.name)

    @property
    def report(self) -> SimulationReport:
        """What the last pass did."""
        return self._conv.report

    def convolve(self, geometry: ConvolutionGeometry, pass_: Pass, inp: Array,
                 kern: Array) -> tuple[Array, StageTimes]:
        """See `ConvArray.convolve`; the kernel works in the host's memory."""
        output = self._conv.run(geometry, pass_, inp, kern)
        return output, self._conv.times
