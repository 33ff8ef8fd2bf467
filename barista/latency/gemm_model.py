"""Latency of Barista's array: C(M, N) = A(M, K) B(K, N) in tiles (thesis, chapter 4).

Pure functions on shapes.  Sizes of products and of tiles may be arrays that broadcast, so that one call evaluates a
whole design space.  The thesis writes R, C, P for M, N, K; with nr = ceil(M/Tr), nc = ceil(N/Tc), np = ceil(K/Tp):

    memory   bits/8 nr nc ((Tr + Tc) K + Tr Tc) / rate          Eq. 4.2, 4.3
    cycles   nr nc (np (Tp + Tr + Tc - 2) + (S + 1)^2)          Eq. 4.5
    kernel   the longer of cycles / clock and memory            Eq. 4.6
    PCIe     bits/8 (M K + N K + M N) / rate                    Eq. 4.7, 4.8
    total    PCIe + kernel                                      Eq. 4.9

What the thesis leaves out is there as assumptions of their own, off where not asked for: tiling and untiling on the
host, padded transfers, latencies of transfers and launches, and loading of the bitstream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..gemm.batching import batched_gemms
from ..hardware.board import Board
from ..precision.formats import number_format
from .integers import Array, ceil_div, counts, require_not_negative, require_one_of, require_positive, require_whole
from .workload import Workload

PADDINGS = ("none", "output", "once", "tiles")
PRODUCTS = ("image", "batched")

# Arguments of the kernel that travel with tile-padded transfers: nr, nc and np, in 32 bits each.
_PARAMETER_BYTES = 3 * 4


@dataclasses.dataclass(frozen=True)
class GemmAssumptions:
    """What the model takes for granted about a board, a design on it and its host.

    Parameters
    ----------
    clock_hz : clock of the design
    dram_bytes_per_s, pcie_bytes_per_s : rates of the card's memory and of the host link
    word_bits : length of a word of A and B
    partial_sums : S, the cycles of an accumulation; an element keeps S + 1 sums.  10 for float32 in the thesis's
        array, 1 for fixed point
    result_bits : length of a word of C; None for `word_bits`, as the thesis has it
    padding : what travels over PCIe.  ``none``: the matrices (Eq. 4.7).  ``output``: M and N rounded up to whole
        tiles.  ``once``: whole tiles, those of A and B to the card and those of C back, as the FPGA backend does.
        ``tiles``: the tiles of A, B and C and the parameters, all of them both ways, as the code that was released
        with the thesis has it
    overlap : transfers run beside the kernel, so that the longer of the two counts
    pcie_latency_s : of each of the two transfers, to the card and back
    launch_s : from asking for the kernel to its first cycle
    reconfiguration_s : of loading the bitstream before the first product; 0 where it is there
    tiling_bytes_per_s, untiling_bytes_per_s : rates at which the host writes the tiles of A and B and reads those
        of C; None leaves the work out, as the thesis does

    Raises
    ------
    UnsupportedError : a figure that makes no sense, or an unknown padding
    """

    clock_hz: float
    dram_bytes_per_s: float
    pcie_bytes_per_s: float
    word_bits: int = 32
    partial_sums: int = 10
    pcie_latency_s: float = 0.0
    padding: str = "none"
    overlap: bool = False
    tiling_bytes_per_s: float | None = None
    untiling_bytes_per_s: float | None = None
    result_bits: int | None = None
    launch_s: float = 0.0
    reconfiguration_s: float = 0.0

    def __post_init__(self) -> None:
        who = "GEMM model"
        require_positive(who, clock_hz=self.clock_hz, dram_bytes_per_s=self.dram_bytes_per_s,
                         pcie_bytes_per_s=self.pcie_bytes_per_s, tiling_bytes_per_s=self.tiling_bytes_per_s,
                         untiling_bytes_per_s=self.untiling_bytes_per_s)
        require_not_negative(who, pcie_latency_s=self.pcie_latency_s, launch_s=self.launch_s,
                             reconfiguration_s=self.reconfiguration_s)
        require_whole(who, 1, word_bits=self.word_bits, result_bits=self.bits_of_c)
        require_whole(who, 0, partial_sums=self.partial_sums)
        require_one_of(who, "padding", self.padding, PADDINGS)

    @property
    def bits_of_c(self) -> int:
        """Length of a word of C."""
        return self.word_bits if self.result_bits is None else self.result_bits

    @classmethod
    def of(cls, board: Board, precision: str = "fp32", **changes: Any) -> GemmAssumptions:
        """The assumptions that follow from a board and a number format.

        Figures that the board does not have stay as the thesis has them: left out.

        Parameters
        ----------
        precision : name of a number format; words travel as they are stored
        changes : assumptions that are to differ, by name

        Raises
        ------
        UnsupportedError : no such number format, or a figure that makes no sense
        """
        fmt = number_format(precision)
        figures: dict[str, Any] = {
            "clock_hz": board.clock_hz, "dram_bytes_per_s": board.dram_bytes_per_s,
            "pcie_bytes_per_s": board.pcie_bytes_per_s,
            "word_bits": 8 * fmt.storage_dtype.itemsize, "result_bits": 8 * fmt.accumulator_dtype.itemsize,
            "partial_sums": max(1, fmt.partial_sums - 1)}
        for name in ("pcie_latency_s", "launch_s", "tiling_bytes_per_s", "untiling_bytes_per_s"):
            figure = getattr(board, name)
            if figure is not None:
                figures[name] = figure
        return cls(**{**figures, **changes})


class GemmLatency(NamedTuple):
    """What a product takes, stage by stage; arrays of the shape that the sizes broadcast to.

    Parameters
    ----------
    reconfiguration_s : loading the bitstream
    tiling_s, untiling_s : the host's work on tiles
    host_to_device_s, device_to_host_s, pcie_s : transfers, and both together
    launch_s : until the kernel begins
    memory_s : the kernel's traffic with the card's memory
    compute_cycles, compute_s : of the mesh
    kernel_s : the longer of memory and compute
    total_s : all of it
    """

    reconfiguration_s: Array
    tiling_s: Array
    host_to_device_s: Array
    launch_s: Array
    memory_s: Array
    compute_cycles: Array
    compute_s: Array
    kernel_s: Array
    device_to_host_s: Array
    untiling_s: Array
    pcie_s: Array
    total_s: Array


def gemm_latency(m: npt.ArrayLike, n: npt.ArrayLike, k: npt.ArrayLike, tr: npt.ArrayLike, tc: npt.ArrayLike,
                 tp: npt.ArrayLike, assumptions: GemmAssumptions) -> GemmLatency:
    """Predict one product.

    Parameters
    ----------
    m, n, k : sizes of the product
    tr, tc, tp : sizes of the tiles
        Whole numbers, or arrays of them that broadcast.

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers, or shapes that do not broadcast
    """
    m, n, k, tr, tc, tp = counts("gemm_latency", m=m, n=n, k=k, tr=tr, tc=tc, tp=tp)
    a = assumptions
    word, result = a.word_bits / 8, a.bits_of_c / 8  # bytes
    nr, nc, np_ = ceil_div(m, tr), ceil_div(n, tc), ceil_div(k, tp)

    memory_s = nr * nc * ((tr + tc) * k * word + tr * tc * result) / a.dram_bytes_per_s
    cycles = nr * nc * (np_ * (tp + tr + tc - 2) + (a.partial_sums + 1) ** 2)
    compute_s = cycles / a.clock_hz
    kernel_s = np.maximum(compute_s, memory_s)

    rows, columns, depth = nr * tr, nc * tc, np_ * tp
    inputs, outputs = (rows + columns) * depth * word, rows * columns * result
    if a.padding == "none":
        sent, returned = (m + n) * k * word, m * n * result
    elif a.padding == "output":
        sent, returned = (rows + columns) * k * word, outputs
    elif a.padding == "once":
        sent, returned = inputs, outputs
    else:
        sent = returned = inputs + outputs + _PARAMETER_BYTES
    to_device = a.pcie_latency_s + sent / a.pcie_bytes_per_s
    to_host = a.pcie_latency_s + returned / a.pcie_bytes_per_s
    pcie_s = to_device + to_host

    tiling_s = inputs / a.tiling_bytes_per_s if a.tiling_bytes_per_s is not None else 0.0
    untiling_s = outputs / a.untiling_bytes_per_s if a.untiling_bytes_per_s is not None else 0.0
    device_s = np.maximum(pcie_s, kernel_s) if a.overlap else pcie_s + kernel_s
    total_s = a.reconfiguration_s + tiling_s + a.launch_s + device_s + untiling_s

    shape = np.broadcast_shapes(*(size.shape for size in (m, n, k, tr, tc, tp)))
    stages: Mapping[str, npt.ArrayLike] = {
        "reconfiguration_s": a.reconfiguration_s, "tiling_s": tiling_s, "host_to_device_s": to_device,
        "launch_s": a.launch_s, "memory_s": memory_s, "compute_cycles": cycles, "compute_s": compute_s,
        "kernel_s": kernel_s, "device_to_host_s": to_host, "untiling_s": untiling_s, "pcie_s": pcie_s,
        "total_s": total_s}
    return GemmLatency(**{name: np.broadcast_to(stage, shape) for name, stage in stages.items()})


def pass_latency(workload: Workload, tr: npt.ArrayLike, tc: npt.ArrayLike, tp: npt.ArrayLike,
                 assumptions: GemmAssumptions, products: str = "image") -> GemmLatency:
    """Predict a pass over its whole batch: the sum over its products.

    Parameters
    ----------
    tr, tc, tp : sizes of the tiles, whole numbers or arrays of them that broadcast
    products : ``image``: a product for each image and group, as Caffe issues them and as the thesis has it.
        ``batched``: several images a product, as the FPGA backend issues them

    Raises
    ------
    UnsupportedError : as `gemm_latency`, or an unknown way to cut the batch
    """
    require_one_of("GEMM model", "products", products, PRODUCTS)
    found = workload.gemms() if products == "image" else batched_gemms(workload.geometry, workload.pass_)
    # The bitstream is loaded once, not for each product.
    each = dataclasses.replace(assumptions, reconfiguration_s=0.0)
    parts = [(count, gemm_latency(shape.m, shape.n, shape.k, tr, tc, tp, each)) for shape, count in found]
    sums = {name: np.asarray(sum(count * getattr(part, name) for count, part in parts))
            for name in GemmLatency._fields}
    sums["reconfiguration_s"] = np.full(sums["total_s"].shape, assumptions.reconfiguration_s)
    sums["total_s"] = np.asarray(sums["total_s"] + assumptions.reconfiguration_s)
    return GemmLatency(**sums)
