"""Matrix products of the OpenCL op set beside NumPy's BLAS, in one process and one run.

A product is what a layer asks for: packing of both operands, the product itself and the wait for
it, all three matrices on the device.  The contenders take turns, with a pause before each, since
the workers of a BLAS spin after a call and would slow what comes next.

Run: python benchmarks/gemm.py [--device NAME] [--rounds 15] [--csv FILE] [MxNxK[:nn|nt|tn|tt] ...]
(n: an operand as it is, t: stored transposed)
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import statistics
from collections.abc import Callable
from pathlib import Path

# PoCL reads it when it loads: unpinned workers share a core and lose a third.
os.environ.setdefault("POCL_AFFINITY", "1")

import numpy as np
from threadpoolctl import threadpool_info
from turns import compare, ratio, spread

import barista
from barista.blob import HOST, Tensor
from barista.compose import make_ops
from barista.gemm.shapes import GemmShape
from barista.ops.base import OpSet

# Cubes, products of convolutions, an inner product with its gradient with respect to the weights, and one that
# is mostly overhead.
SHAPES = ("256x256x256", "512x512x512", "1024x1024x1024", "2048x2048x2048", "384x2704x2304", "64x8192x576",
          "32x25600x800", "96x3025x363", "16x4096x4096", "500x4096x50", "100x500x800:nt", "500x800x100:tn",
          "64x10x500:nt")
# Calls of one turn take at least this long together, so that the clock and the first call do not matter.
TURN_S = 0.02


def parse(text: str) -> tuple[GemmShape, bool, bool]:
    """Read ``MxNxK`` or ``MxNxK:nt`` as the shape and whether A and B are transposed."""
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?::([nt])([nt]))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; give MxNxK or MxNxK:nt, such as 384x2704x2304")
    m, n, k = map(int, found.groups()[:3])
    return GemmShape(m, n, k), found[4] == "t", found[5] == "t"


def ours(ops: OpSet, shape: GemmShape, a: np.ndarray, b: np.ndarray, trans_a: bool,
         trans_b: bool) -> tuple[Callable[[], None], Tensor]:
    """One product of the op set, and where its result lies; `a` and `b` as they are stored."""
    tensors = [Tensor(size, ops.dtype) for size in (a.shape, b.shape, (shape.m, shape.n))]
    for tensor, values in zip(tensors, (a, b), strict=False):
        tensor.write(HOST)[...] = values
    product = ops.gemm(shape, trans_a, trans_b)

    def call() -> None:
        product.run(*tensors)
        ops.finish()

    return call, tensors[2]


def main() -> None:
    """Print a table, and write it as CSV where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", type=parse, default=list(map(parse, SHAPES)), metavar="SHAPE")
    parser.add_argument("--device", help="which OpenCL device: a number or a part of its name")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    ops = make_ops("opencl", device=options.device)
    blas = ", ".join(f"{x['internal_api']} {x['version']} {x.get('architecture', '')} {x['num_threads']} threads"
                     for x in threadpool_info() if x["user_api"] == "blas")
    print(f"Barista {barista.__version__}, {ops.describe()}; NumPy {np.__version__}, {blas}; "
          f"Python {platform.python_version()}, {platform.machine()}")
    print(f"{'M x N x K, op':>21} {'OpenCL ms (quartiles)':>30} {'BLAS ms (quartiles)':>30} {'OpenCL GFLOP/s':>15} "
          f"{'BLAS GFLOP/s':>13} {'BLAS/OpenCL':>12} {'(quartiles)':>16} {'of the best':>12} {'error':>8}")
    rows = []
    for shape, trans_a, trans_b in options.shapes:
        rng = np.random.default_rng(0)
        stored = [rng.normal(size=size[::-1] if turned else size).astype(np.float32)
                  for size, turned in (((shape.m, shape.k), trans_a), ((shape.k, shape.n), trans_b))]
        a, b = (matrix.T if turned else matrix for matrix, turned in zip(stored, (trans_a, trans_b), strict=True))
        c = np.empty((shape.m, shape.n), np.float32)
        mine, result = ours(ops, shape, *stored, trans_a, trans_b)
        found = compare({"opencl": mine, "blas": lambda a=a, b=b, c=c: np.matmul(a, b, out=c)}, options.rounds, TURN_S)
        times, other = found["opencl"], found["blas"]
        truth = a.astype(np.float64) @ b.astype(np.float64)
        error = float(np.abs(result.read(HOST) - truth).max() / np.abs(truth).max())
        low, middle, high = ratio(other, times)
        flops = 2e-9 * shape.macs
        medians = [statistics.median(times), statistics.median(other)]
        # On a machine that others use too, the fastest turn of each says most about the programs.
        best = min(other) / min(times)
        letters = "nt"[trans_a] + "nt"[trans_b]
        print(f"{f'{shape.m} x {shape.n} x {shape.k} {letters}':>21} {spread(times):>30} {spread(other):>30} "
              f"{flops / medians[0]:15.1f} {flops / medians[1]:13.1f} {middle:12.2f} "
              f"{f'({low:.2f} to {high:.2f})':>16} {best:12.2f} {error:8.0e}", flush=True)
        rows.append([shape.m, shape.n, shape.k, letters, *(f"{ms * 1e3:.4f}" for ms in medians), f"{middle:.3f}",
                     f"{low:.3f}", f"{high:.3f}", f"{best:.3f}", f"{error:.1e}"])
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["m", "n", "k", "transposed", "opencl_ms", "blas_ms", "blas_over_opencl", "lower_quartile",
                             "upper_quartile", "blas_over_opencl_best", "relative_error"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
