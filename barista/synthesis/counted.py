"""What the models of both arrays count, held against what their HLS code does in C-simulation.

Cycles are no part of C-simulation; words are: how many move between the array and the card's memory, and how many lie
on the chip.  Every result is compared with NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gemm.shapes import GemmShape
from ..gemm.tiles import TileSizes
from ..latency.conv_model import ConvAssumptions, conv_latency
from ..latency.simulator.conv_layout import operand_shapes
from ..latency.simulator.workloads import convolve, random_words, require_close
from ..latency.validation import Comparison
from ..latency.workload import Workload
from .conv_array import SimulatedConv
from .conv_design import ConvDesign
from .gemm_design import GemmDesign
from .simulation import Library, SimulationReport
from .toolchain import build_library

Array = npt.NDArray[Any]

# Eq. 4.2 counts P words along the common dimension; whole tiles move.
GEMM_MODEL, TILES_MODEL, CONV_MODEL = "product, Eq. 4.2", "product, whole tiles", "convolution, appendix A"
ON_CHIP = "on chip"
PRECISION = "fp32"


class CountedComparison:
    """Runs the HLS code of passes; kernels are compiled once for a design, products of one shape run once.

    Parameters
    ----------
    workloads : all passes that will be asked for: FPGPT's array is compiled for the largest of them
    """

    def __init__(self, workloads: list[Workload]) -> None:
        self._workloads = workloads
        self._gemm: dict[TileSizes, Library] = {}
        self._conv: dict[tuple[int, int], SimulatedConv] = {}
        self._moved: dict[tuple[GemmShape, TileSizes], SimulationReport] = {}

    def products(self, workload: Workload, tiles: TileSizes) -> list[Comparison]:
        """One product of a pass on Barista's array.

        Raises
        ------
        DeviceError, MissingExtraError : the kernel cannot be compiled here, or its run failed
        BaristaError : the kernel computed something wrong
        """
        (shape, _), = workload.gemms()
        design = GemmDesign(tiles, PRECISION)
        if (shape, tiles) not in self._moved:
            if tiles not in self._gemm:
                self._gemm[tiles] = Library(build_library(design))
            self._moved[shape, tiles] = _multiply(workload, shape, design, self._gemm[tiles])
        report = self._moved[shape, tiles]
        nr, nc, np_ = tiles.counts(shape)
        a, b, c = (port_bits // 32 for port_bits in (design.a_port_bits, design.b_port_bits, design.c_port_bits))
        moved = {"read A": report.ports["a"].reads * a, "read B": report.ports["b"].reads * b,
                 "write C": report.ports["c"].writes * c}
        found: list[Comparison] = []
        for model, depth in ((GEMM_MODEL, shape.k), (TILES_MODEL, np_ * tiles.tp)):
            words = {"read A": nr * nc * tiles.tr * depth, "read B": nr * nc * tiles.tc * depth,
                     "write C": nr * nc * tiles.tr * tiles.tc}
            found += _moved_words(model, workload, f"tiles {tiles}", words, moved)
        return found + _on_chip(TILES_MODEL, workload, f"tiles {tiles}", design.on_chip_words, report)

    def convolutions(self, workload: Workload, x: int, y: int) -> list[Comparison]:
        """A pass on FPGPT's array of X columns and Y rows.

        Raises
        ------
        DeviceError, MissingExtraError, BaristaError : as `products`
        UnsupportedError : a convolution that has not two spatial axes
        """
        if (x, y) not in self._conv:
            design = ConvDesign.for_passes(x, y, [(each.geometry, each.pass_) for each in self._workloads], PRECISION)
            self._conv[x, y] = SimulatedConv(Library(build_library(design)), design)
        array = self._conv[x, y]
        g, pass_, design = workload.geometry, workload.pass_, array.design
        inp, kern = (random_words(shape) for shape in operand_shapes(g, pass_)[:2])
        require_close(workload, array.run(g, pass_, inp, kern), convolve(inp, kern, g, pass_),
                       convolve(abs(inp), abs(kern), g, pass_), "HLS code")
        band = design.port_bits // 32
        cycles = conv_latency(g, pass_, x, y, ConvAssumptions(band)).components
        words = {f"{what} {port.upper()}": band * int(cycles[f"{port}_ddr"])
                 for what, port in (("read", "inp"), ("read", "kern"), ("write", "out"))}
        ports = array.report.ports
        moved = {"read INP": ports["inp"].reads * band, "read KERN": ports["kern"].reads * band,
                 "write OUT": ports["out"].writes * band}
        return [*_moved_words(CONV_MODEL, workload, f"X {x}, Y {y}", words, moved),
                *_on_chip(CONV_MODEL, workload, f"X {x}, Y {y}", design.on_chip_words, array.report)]


def _moved_words(model: str, workload: Workload, configuration: str, words: Mapping[str, int],
                 moved: Mapping[str, int]) -> list[Comparison]:
    """What each port moves, and all of them together."""
    pairs = {**{part: (count, moved[part]) for part, count in words.items()},
             "total": (sum(words.values()), sum(moved.values()))}
    return [Comparison(model, workload.layer, workload.pass_.value, configuration, part, "words", float(predicted),
                       float(observed)) for part, (predicted, observed) in pairs.items()]


def _on_chip(model: str, workload: Workload, configuration: str, words: Mapping[str, int],
             report: SimulationReport) -> list[Comparison]:
    """The words of each memory, Eq. 4.11 (double) and 5.14 to 5.16."""
    return [Comparison(model, workload.layer, workload.pass_.value, f"{configuration}, memory {name}", ON_CHIP, "words",
                       float(count), float(report.on_chip[name])) for name, count in words.items()]


def _multiply(workload: Workload, shape: GemmShape, design: GemmDesign, library: Library) -> SimulationReport:
    """Run one product of whole tiles; returns what the run did."""
    tiles = design.tiles
    nr, nc, np_ = tiles.counts(shape)
    a, b = random_words(tiles.a_shape(nr, np_)), random_words(tiles.b_shape(nc, np_))
    c = np.empty(tiles.c_shape(nr, nc), np.float32)
    library.run(f"{design.kernel}_csim", a, b, c, nr, nc, np_)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    wanted, magnitude = (np.einsum("ipkr,jpkc->ijrc", left, right, optimize=True)
                         for left, right in ((a64, b64), (abs(a64), abs(b64))))
    require_close(workload, c, wanted, magnitude, "HLS code")
    return library.report()
