"""What tiling and untiling cost, by themselves and in a product of the emulated array.

For each product: milliseconds to lay out the tiles of A and B and to untile C (with alpha = 1, beta = 0, and
with beta = 1), one thread, and their rate in bytes read and written; then a call of the engine on a bitstream that
is built for this machine's OpenCL device with the fast kernel: milliseconds of each stage, and the share of tiling
and untiling in their sum.  Medians; buffers are reused as in training.

Run: python benchmarks/tiling.py [--tile 16,16,64] [--device NAME] [--repeat 15] [--csv FILE] [M,N,K ...]
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from barista.gemm.engine import BlockedGemm, StageTimes, TileArray
from barista.gemm.shapes import GemmShape
from barista.gemm.tiles import TileSizes, aligned_empty, tile_lanes, untile_c
from barista.hardware.board import EMULATED, load_board
from barista.runtime.bitstream_build import build
from barista.runtime.bitstream_program import DeviceArrayEngine
from barista.runtime.context import Context

Array = npt.NDArray[Any]

# Squares, and the products of convolutions: CIFAR-10 quick conv2 (an image; a batch of 100), AlexNet conv3 (16
# images), and gradients with respect to weights of both.
SHAPES = ["256,256,256", "512,512,512", "1024,1024,1024", "1000,1000,1000", "2048,2048,2048", "32,256,800",
          "32,25600,800", "32,800,256", "384,2704,2304", "384,2304,2704"]
STAGES = [field.name for field in dataclasses.fields(StageTimes)]


def median_s(work: Callable[[], None], repeat: int) -> float:
    """Median seconds of `repeat` runs, after one that warms up."""
    work()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def operands(shape: GemmShape, trans: bool) -> tuple[Array, Array]:
    """A and B; `trans` gives them as transposed views."""
    rng = np.random.default_rng(1)
    a, b = (rng.random(size[::-1] if trans else size, np.float32)
            for size in ((shape.m, shape.k), (shape.k, shape.n)))
    return (a.T, b.T) if trans else (a, b)


def measure_alone(shape: GemmShape, tiles: TileSizes, trans: bool, repeat: int) -> dict[str, float]:
    """Seconds of tiling and untiling."""
    nr, nc, np_ = tiles.counts(shape)
    a, b = operands(shape, trans)
    c = np.zeros((shape.m, shape.n), np.float32)
    a_tiles, b_tiles, c_tiles = (aligned_empty(size, np.float32) for size in (
        tiles.a_shape(nr, np_), tiles.b_shape(nc, np_), tiles.c_shape(nr, nc)))
    c_tiles[...] = 1
    return {"tile A": median_s(lambda: tile_lanes(a, a_tiles), repeat),
            "tile B": median_s(lambda: tile_lanes(b.T, b_tiles), repeat),
            "untile": median_s(lambda: untile_c(c_tiles, c), repeat),
            "untile, beta=1": median_s(lambda: untile_c(c_tiles, c, 1.0, 1.0), repeat)}


def measure_call(shape: GemmShape, array: TileArray, trans: bool, repeat: int) -> tuple[StageTimes, float]:
    """Median seconds of each stage of a call, and the median share of tiling and untiling."""
    a, b = operands(shape, trans)
    c = np.zeros((shape.m, shape.n), np.float32)
    engine = BlockedGemm(array, shape)
    engine.run(a, b, c)
    calls = [engine.run(a, b, c) for _ in range(repeat)]
    medians = StageTimes(*(statistics.median(getattr(call, stage) for call in calls) for stage in STAGES))
    return medians, statistics.median((call.tiling + call.untiling) / call.total for call in calls)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="M,N,K")
    parser.add_argument("--tile", type=TileSizes.parse, default="16,16,64")
    parser.add_argument("--device", help="which OpenCL device: a number or a part of its name")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    context = Context(options.device)
    with tempfile.TemporaryDirectory() as folder:
        array = DeviceArrayEngine(context, build(context, folder, options.tile, "fp32", load_board(EMULATED), "fast"))
    rows = []
    print(f"{array.name}: milliseconds; share of tiling and untiling in a call")
    heads = ("tile A", "tile B", "untile", "beta=1")
    print(f"{'M,N,K':>16} {'views':>10} " + " ".join(f"{head:>8}" for head in heads) + f" {'GB/s':>6} |"
          + " ".join(f"{stage:>8}" for stage in STAGES) + f" {'share':>7}")
    for text in options.shapes:
        shape = GemmShape(*(int(part) for part in text.split(",")))
        moved_bytes = 2 * 4 * (shape.m * shape.k + shape.k * shape.n + shape.m * shape.n)
        for trans in (False, True):
            alone = measure_alone(shape, options.tile, trans, options.repeat)
            overhead_s = alone["tile A"] + alone["tile B"] + alone["untile"]
            stages, share = measure_call(shape, array, trans, options.repeat)
            taken = [getattr(stages, stage) for stage in STAGES]
            views = "transposed" if trans else "plain"
            print(f"{text:>16} {views:>10} " + " ".join(f"{1e3 * value:8.3f}" for value in alone.values())
                  + f" {moved_bytes / overhead_s / 1e9:6.1f} |" + " ".join(f"{1e3 * value:8.3f}" for value in taken)
                  + f" {share:7.1%}", flush=True)
            rows.append([text, str(options.tile), views, *(f"{value:.3e}" for value in (*alone.values(), *taken)),
                         f"{share:.4f}"])
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["shape", "tile", "views", "tile_a_s", "tile_b_s", "untile_s", "untile_beta_1_s",
                             *(f"call_{stage}_s" for stage in STAGES), "share"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
