"""What tiling and untiling cost by themselves: the engine's overhead on the host, one thread.

For each product: milliseconds to lay out the tiles of A and B and to untile C (with alpha = 1, beta = 0, and
with beta = 1), the rate in bytes read and written, and the overhead's share of a call on an array of `--gflops`.
Medians; buffers are reused as in training.

Run: python benchmarks/tiling.py [--tile 16,16,64] [--gflops 100] [--repeat 15] [--csv FILE] [M,N,K ...]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from barista.gemm.shapes import GemmShape
from barista.gemm.tiles import TileSizes, aligned_empty, tile_a, tile_b, untile_c

# Squares, and the products of convolutions: CIFAR-10 quick conv2 (an image; a batch of 100), AlexNet conv3 (16
# images), and gradients with respect to weights of both.
SHAPES = ["256,256,256", "512,512,512", "1024,1024,1024", "1000,1000,1000", "2048,2048,2048", "32,256,800",
          "32,25600,800", "32,800,256", "384,2704,2304", "384,2304,2704"]


def median_s(work: Callable[[], None], repeat: int) -> float:
    """Median seconds of `repeat` runs, after one that warms up."""
    work()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(shape: GemmShape, tiles: TileSizes, trans: bool, repeat: int) -> dict[str, float]:
    """Seconds of each stage; `trans` gives A and B as transposed views."""
    nr, nc, np_ = tiles.counts(shape)
    rng = np.random.default_rng(1)
    a, b = (rng.random(size[::-1] if trans else size, np.float32)
            for size in ((shape.m, shape.k), (shape.k, shape.n)))
    if trans:
        a, b = a.T, b.T
    c = np.zeros((shape.m, shape.n), np.float32)
    a_tiles, b_tiles, c_tiles = (aligned_empty(size, np.float32) for size in (
        tiles.a_shape(nr, np_), tiles.b_shape(nc, np_), tiles.c_shape(nr, nc)))
    c_tiles[...] = 1
    return {"tile A": median_s(lambda: tile_a(a, a_tiles), repeat),
            "tile B": median_s(lambda: tile_b(b, b_tiles), repeat),
            "untile": median_s(lambda: untile_c(c_tiles, c), repeat),
            "untile, beta=1": median_s(lambda: untile_c(c_tiles, c, 1.0, 1.0), repeat)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="M,N,K")
    parser.add_argument("--tile", type=TileSizes.parse, default="16,16,64")
    parser.add_argument("--gflops", type=float, default=100.0, help="rate of the array, for the share")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"tile {options.tile}, milliseconds; share of a call at {options.gflops:g} GF/s")
    heads = ("tile A", "tile B", "untile", "beta=1")
    print(f"{'M,N,K':>16} {'views':>10} " + " ".join(f"{head:>8}" for head in heads) + f" {'GB/s':>6} {'share':>7}")
    for text in options.shapes:
        shape = GemmShape(*(int(part) for part in text.split(",")))
        moved_bytes = 2 * 4 * (shape.m * shape.k + shape.k * shape.n + shape.m * shape.n)
        for trans in (False, True):
            stages = measure(shape, options.tile, trans, options.repeat)
            overhead_s = stages["tile A"] + stages["tile B"] + stages["untile"]
            share = overhead_s / (overhead_s + 2 * shape.macs / options.gflops / 1e9)
            views = "transposed" if trans else "plain"
            print(f"{text:>16} {views:>10} " + " ".join(f"{1e3 * value:8.3f}" for value in stages.values())
                  + f" {moved_bytes / overhead_s / 1e9:6.1f} {share:7.1%}")
            rows.append([text, str(options.tile), views, *stages.values(), share])
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["shape", "tile", "views", "tile_a_s", "tile_b_s", "untile_s", "untile_beta_1_s", "share"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
