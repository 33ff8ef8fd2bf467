"""Each pass of convolutions on our backends, beside PyTorch on the CPU and im2col with NumPy, in one run.

Contenders, each with its arrays in its own memory and the wait for its result counted:

- ``opencl``, ``cpu``: our op sets, with the variant that OpenCL chose
- ``pytorch``: torch.nn.functional.conv2d and its gradients
- ``numpy``: the whole batch unrolled by NumPy and one product an image and group, the columns folded back by NumPy
- ``host im2col``: columns unrolled and folded by the host, the products on the OpenCL device: what im2col on the device
  replaces (thesis, table 5.9, "no im2col")

The limit is the roofline of the device: floating-point operations of the pass, and each array read or written once.
Winograd's variants count as if they multiplied directly, so that they can pass it.

Run: python benchmarks/convolutions.py [--rounds 7] [--csv FILE] [--plot FILE] [--only opencl,pytorch] [SHAPE ...]
Needs PyTorch (pip install torch) for its column.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from roofline import Roofline, measure
from turns import compare, ratio, spread, write_csv

import barista
from barista.blob import HOST, Tensor
from barista.compose import make_ops
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.ops.base import OpSet
from barista.ops.columns import Chunk, Columns
from barista.ops.cpu.threads import available_cores
from barista.ops.opencl import OpenCLOps

Array = npt.NDArray[Any]
Contender = Callable[[], object]


def shape(batch: int, channels: int, out: int, size: int, kernel: int, stride: int = 1, pad: int = 0,
          group: int = 1) -> ConvolutionGeometry:
    """A square convolution."""
    return ConvolutionGeometry(batch, channels, out, (size, size), (kernel, kernel), (stride, stride), (pad, pad),
                               (1, 1), group)


# Layers of networks at the batch sizes of their training steps in train.py, and 16 for the larger ones.
SHAPES = {
    "lenet conv1": shape(64, 1, 20, 28, 5),
    "lenet conv2": shape(64, 20, 50, 12, 5),
    "cifar10 conv1": shape(100, 3, 32, 32, 5, pad=2),
    "cifar10 conv2": shape(100, 32, 32, 16, 5, pad=2),
    "cifar10 conv3": shape(100, 32, 64, 8, 5, pad=2),
    "resnet 16 to 16": shape(128, 16, 16, 32, 3, pad=1),
    "resnet 16 to 32": shape(128, 16, 32, 32, 3, 2, 1),
    "resnet 32 to 32": shape(128, 32, 32, 16, 3, pad=1),
    "resnet 64 to 64": shape(128, 64, 64, 8, 3, pad=1),
    "alexnet conv1": shape(16, 3, 96, 227, 11, 4),
    "alexnet conv2": shape(16, 96, 256, 27, 5, pad=2, group=2),
    "alexnet conv3": shape(16, 256, 384, 13, 3, pad=1),
    "alexnet conv5": shape(16, 384, 256, 13, 3, pad=1, group=2),
    "googlenet conv1": shape(16, 3, 64, 224, 7, 2, 3),
    "googlenet 1x1": shape(16, 192, 64, 28, 1),
    "googlenet 3x3": shape(16, 96, 128, 28, 3, pad=1),
    "googlenet 5x5": shape(16, 16, 32, 28, 5, pad=2),
    "squeezenet 3x3": shape(16, 16, 64, 55, 3, pad=1),
    "vgg conv3": shape(4, 128, 256, 56, 3, pad=1),
    "depthwise 3x3": shape(16, 128, 128, 56, 3, pad=1, group=128),
}
CONTENDERS = ("opencl", "cpu", "pytorch", "numpy", "host im2col")


def ours(ops: OpSet, g: ConvolutionGeometry, pass_: Pass, arrays: dict[str, Array]) -> tuple[Contender, str]:
    """A pass on one of our op sets, and the variant that it takes."""
    tensors = {name: Tensor(array.shape, ops.dtype) for name, array in arrays.items()}
    for name, array in arrays.items():
        tensors[name].write(HOST)[...] = array
    results = {Pass.FORWARD: g.y_shape, Pass.GRAD_WEIGHT: g.w_shape, Pass.GRAD_INPUT: g.x_shape}
    result = Tensor(results[pass_], ops.dtype)
    convolution = ops.convolution(g)

    def call() -> None:
        if pass_ is Pass.FORWARD:
            convolution.forward(tensors["x"], tensors["w"], None, result)
        elif pass_ is Pass.GRAD_WEIGHT:
            result.clear()
            convolution.grad_weight(tensors["x"], tensors["dy"], result)
        else:
            convolution.grad_input(tensors["dy"], tensors["w"], result)
        ops.finish()

    call()
    return call, convolution.variant


def pytorch(g: ConvolutionGeometry, pass_: Pass, arrays: dict[str, Array]) -> Contender:
    """A pass in PyTorch."""
    import torch

    torch.set_num_threads(available_cores())
    x, w, dy = (torch.from_numpy(arrays[name]) for name in ("x", "w", "dy"))
    settings = ([*g.stride], [*g.pad], [*g.dilation], False, [0, 0], g.group)
    if pass_ is Pass.FORWARD:
        return lambda: torch.ops.aten.convolution(x, w, None, *settings)
    mask = [pass_ is Pass.GRAD_INPUT, pass_ is Pass.GRAD_WEIGHT, False]
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *settings, mask)


class Im2col:
    """A convolution as columns that the host makes and products that something else computes, an image at a time.

    Parameters
    ----------
    multiply : makes the product C = op(A) op(B) or C += ... of fixed shape, given arrays
    """

    def __init__(self, g: ConvolutionGeometry,
                 multiply: Callable[[GemmShape, bool, bool], Callable[[Array, Array, Array, float], None]]) -> None:
        self._g = g
        self._columns = Columns(g, np.dtype(np.float32), images_last=False)
        self._buffer = np.empty(g.group * g.depth * g.pixels, np.float32)
        rows = g.out_channels // g.group
        self._forward = multiply(GemmShape(rows, g.pixels, g.depth), False, False)
        self._weight = multiply(GemmShape(rows, g.depth, g.pixels), False, True)
        self._input = multiply(GemmShape(g.depth, g.pixels, rows), True, False)

    def contender(self, pass_: Pass, arrays: dict[str, Array]) -> Contender:
        """One pass over the whole batch."""
        g = self._g
        x, dy, w = arrays["x"], arrays["dy"], arrays["w"].reshape(g.group, -1, g.depth)
        y, dx, dw = np.empty(g.y_shape, np.float32), np.empty(g.x_shape, np.float32), np.empty_like(w)

        def call() -> None:
            for n in range(g.batch):
                chunk = Chunk(n, n + 1, 0, g.output[0])
                gradient = dy[n].reshape(g.group, -1, g.pixels)
                if pass_ is Pass.GRAD_INPUT:
                    columns = self._buffer.reshape(g.group, g.depth, -1)
                    for a, b, c in zip(w, gradient, columns, strict=True):
                        self._input(a, b, c, 0.0)
                    self._columns.fold(columns, chunk, dx)
                    continue
                columns = self._columns.unroll(x, chunk, self._buffer)
                if pass_ is Pass.FORWARD:
                    for a, b, c in zip(w, columns, y[n].reshape(g.group, -1, g.pixels), strict=True):
                        self._forward(a, b, c, 0.0)
                else:
                    for a, b, c in zip(gradient, columns, dw, strict=True):
                        self._weight(a, b, c, float(n > 0))

        return call


def numpy_product(shape: GemmShape, trans_a: bool, trans_b: bool) -> Callable[[Array, Array, Array, float], None]:
    """A product by NumPy."""
    def run(a: Array, b: Array, c: Array, beta: float) -> None:
        left, right = a.T if trans_a else a, b.T if trans_b else b
        if beta:
            c += left @ right
        else:
            np.matmul(left, right, out=c)

    return run


def device_product(ops: OpSet) -> Callable[[GemmShape, bool, bool], Callable[[Array, Array, Array, float], None]]:
    """Products on a device: operands go there and the result comes back."""
    def make(shape: GemmShape, trans_a: bool, trans_b: bool) -> Callable[[Array, Array, Array, float], None]:
        product = ops.gemm(shape, trans_a, trans_b)
        tensors = [Tensor((count,), ops.dtype) for count in (shape.m * shape.k, shape.k * shape.n, shape.m * shape.n)]

        def run(a: Array, b: Array, c: Array, beta: float) -> None:
            for tensor, array in zip(tensors, (a, b, c) if beta else (a, b), strict=False):
                tensor.write(HOST)[...] = array.reshape(-1)
            product.run(*tensors, beta=beta)
            c[...] = tensors[2].read(HOST).reshape(c.shape)

        return run

    return make


def contenders(names: list[str], ops: dict[str, OpSet], g: ConvolutionGeometry, pass_: Pass,
               arrays: dict[str, Array]) -> tuple[dict[str, Contender], str]:
    """The contenders asked for, and the variant that OpenCL takes."""
    found: dict[str, Contender] = {}
    variant = ""
    for name in names:
        if name in ("opencl", "cpu"):
            found[name], chosen = ours(ops[name], g, pass_, arrays)
            variant = chosen if name == "opencl" else variant
        elif name == "pytorch":
            found[name] = pytorch(g, pass_, arrays)
        else:
            product = numpy_product if name == "numpy" else device_product(ops["opencl"])
            found[name] = Im2col(g, product).contender(pass_, arrays)
    return found, variant


def least_bytes(g: ConvolutionGeometry) -> int:
    """Bytes of x, w and y, or of their gradients: each pass reads two of them and writes the third."""
    return 4 * sum(int(np.prod(s)) for s in (g.x_shape, g.w_shape, g.y_shape))


def plot(rows: list[dict[str, Any]], names: list[str], path: Path) -> None:
    """Bars of the share of the device's limit, a row for each shape and pass."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.16 * len(rows) * len(names)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [row + index * height for row in range(len(rows))]
        axes.barh(places, [row["limit_ms"] / row[f"{name}_ms"] for row in rows], height, label=name)
    axes.set_yticks([row + 0.4 for row in range(len(rows))], [f"{row['layer']} {row['pass']}" for row in rows], size=7)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("share of the device's limit")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print a table, write it as CSV and draw it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"parts of the names {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, separated by ','; always opencl")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    names = ["opencl", *(name for name in options.only.split(",") if name != "opencl")]
    chosen = {name: g for name, g in SHAPES.items() if not options.shapes or any(s in name for s in options.shapes)}
    opencl = make_ops("opencl")
    assert isinstance(opencl, OpenCLOps)
    ops: dict[str, OpSet] = {"opencl": opencl, "cpu": make_ops("cpu")}
    limit: Roofline = measure(opencl.context)
    print(f"Barista {barista.__version__}, {opencl.describe()}; NumPy {np.__version__}; Python "
          f"{platform.python_version()}, {platform.machine()}; limits {limit.flops / 1e9:.0f} GFLOP/s and "
          f"{limit.bandwidth / 1e9:.0f} GB/s")
    print(f"{'layer':16} {'pass':11} {'opencl ms (quartiles)':>28} {'GFLOP/s':>8} {'of the limit':>12} "
          + " ".join(f"{name + '/opencl':>24}" for name in names[1:]) + "  variant")
    rows = []
    for (name, g), pass_ in itertools.product(chosen.items(), Pass):
        rng = np.random.default_rng(0)
        arrays = {key: rng.normal(size=size).astype(np.float32)
                  for key, size in (("x", g.x_shape), ("w", g.w_shape), ("dy", g.y_shape))}
        calls, variant = contenders(names, ops, g, pass_, arrays)
        times = compare(calls, options.rounds)
        median, least = statistics.median(times["opencl"]), limit.least_seconds(2.0 * g.macs, least_bytes(g))
        ratios = {other: ratio(times[other], times["opencl"]) for other in names[1:]}
        print(f"{name:16} {pass_.value:11} {spread(times['opencl']):>28} {2e-9 * g.macs / median:8.1f} "
              f"{least / median:12.0%} "
              + " ".join(f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':>24}" for low, middle, high in ratios.values())
              + f"  {variant}", flush=True)
        rows.append({"layer": name, "pass": pass_.value, "gflop": 2e-9 * g.macs, "limit_ms": least * 1e3,
                     **{f"{key}_ms": statistics.median(values) * 1e3 for key, values in times.items()},
                     **{f"{key}_over_opencl": middle for key, (_, middle, _) in ratios.items()}, "variant": variant})
    if options.csv:
        write_csv(options.csv, rows)
    if options.plot:
        plot(rows, names, options.plot)


if __name__ == "__main__":
    main()
