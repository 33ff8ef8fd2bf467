"""How fast the HLS code of both arrays runs in C-simulation: million multiply-accumulates of the convolution a second.

    python benchmarks/csim.py --runs 5

Barista's array multiplies 4 x 4 tiles along 4; FPGPT's computes every pass of a network at batch 2, compiled once for
all of them.  Medians of the runs, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.gemm.tiles import TileSizes
from barista.latency.networks import NETWORKS
from barista.latency.simulator.conv_layout import operand_shapes
from barista.precision.formats import NumberFormat, number_format
from barista.synthesis.conv_array import SimulatedConv
from barista.synthesis.conv_design import ConvDesign
from barista.synthesis.gemm_design import GemmDesign
from barista.synthesis.simulation import Library
from barista.synthesis.toolchain import build_library

TILES = ("16,16,64", "32,32,64")
PRECISIONS = ("fp32", "dfxp8")
NETS = ("lenet", "cifar10_full", "resnet20_cifar10")
ARRAY, BATCH, COUNT = (16, 16), 2, 4


def words(shape: tuple[int, ...], fmt: NumberFormat) -> np.ndarray:
    """Numbers of both signs."""
    rng = np.random.default_rng(1)
    if fmt.is_fixed:
        return rng.integers(fmt.lower, fmt.upper, shape, fmt.storage_dtype, endpoint=True)
    return rng.standard_normal(shape, np.float32)


def report(name: str, macs: int, run: Callable[[], object], runs: int) -> None:
    """Measure and print a line."""
    run()
    rates = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        rates.append(macs / (time.perf_counter() - start) / 1e6)
    print(f"{name:<40} {statistics.median(rates):7.1f}  ({min(rates):.1f} to {max(rates):.1f})", flush=True)


def product(tile: str, precision: str, runs: int) -> None:
    """Barista's array."""
    design = GemmDesign(TileSizes.parse(tile), precision)
    tiles, fmt = design.tiles, design.format
    library = Library(build_library(design))
    a, b = (words(shape, fmt) for shape in (tiles.a_shape(COUNT, COUNT), tiles.b_shape(COUNT, COUNT)))
    c = np.zeros(tiles.c_shape(COUNT, COUNT), fmt.accumulator_dtype)
    report(f"barista_gemm {tile} {precision}", COUNT ** 3 * tiles.tr * tiles.tc * tiles.tp,
           lambda: library.run(f"{design.kernel}_csim", a, b, c, COUNT, COUNT, COUNT), runs)


def network(net: str, precision: str, runs: int) -> None:
    """FPGPT's array."""
    passes = [(layer.geometry(BATCH), pass_) for layer in NETWORKS[net] for pass_ in Pass]
    design = ConvDesign.for_passes(*ARRAY, passes, precision)
    array, fmt = SimulatedConv(Library(build_library(design)), design), number_format(precision)
    work: list[tuple[ConvolutionGeometry, Pass, np.ndarray, np.ndarray]] = []
    for g, pass_ in passes:
        inp, kern = (words(shape, fmt) for shape in operand_shapes(g, pass_)[:2])
        work.append((g, pass_, inp, kern))
    report(f"fpgpt_conv {ARRAY[0]},{ARRAY[1]} {net} {precision}", sum(g.macs for g, _ in passes),
           lambda: [array.run(*one) for one in work], runs)


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs whose median counts (default 5)")
    runs = parser.parse_args().runs
    for tile in TILES:
        for precision in PRECISIONS:
            product(tile, precision, runs)
    for net in NETS:
        for precision in PRECISIONS:
            network(net, precision, runs)


if __name__ == "__main__":
    main()
