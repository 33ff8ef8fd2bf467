"""Figures that the thesis published, computed again with the models of this package.

A row names every assumption that it takes.  Rows to be held (`HOLD`) follow from the equations under the assumptions
named; rows for the record (`RECORD`) do not, under any reading tried: they are shown with what the models say, and no
assumption is tuned to meet them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..gemm.shapes import ConvolutionGeometry, Pass
from ..gemm.tiles import TileSizes
from .conv_model import ConvAssumptions, conv_latency
from .gemm_model import GemmAssumptions, gemm_latency, pass_latency
from .integers import Array
from .networks import NETWORKS, network_workloads
from .resources import BRAM18, DSP_EVALUATED, Ram, conv_blocks, conv_dsp, gemm_blocks, gemm_bram_bits, gemm_dsp
from .workload import Workload

HOLD, RECORD = "hold", "record"

Value = float | str

# The board of chapter 4 (section 4.3): XCVU9P on AWS F1.
VU9P_DSP, VU9P_BRAM_BITS, VU9P_BRAM18, VU9P_CLOCK_HZ, FPGA_POWER_W = 6840, 75.9e6, 4320, 250e6, 80.0
# A region of the U250 of chapter 5 (section 5.6.4), on which each of INP, SA, KERN and OUT has its own.
REGION_DSP, REGION_BLOCKS = 3072, 1344
# Words of 32 bits a block, as the reference values of chapter 5 have it: blocks of 36 Kb.
REGION_RAM = Ram("BRAM36", ((9, 4096), (18, 2048), (36, 1024)))
# Section 5.6.1.
FPGPT_BATCH = 256

TABLE_4_1_TILES = ("32,32,74", "32,32,64", "36,36,64", "32,32,64", "32,32,64")
TABLE_4_1_FPGA = (0.59, 0.29, 0.078, 0.076, 0.073)
TABLE_4_1_CPU = (0.35, 0.24, 0.089, 0.13, 0.11)


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """A published figure, or a list of them, beside what is computed.

    Parameters
    ----------
    what : the figure, with its unit
    source : where in the thesis it stands
    published, computed : value by value; text must be equal, numbers within `tolerance`
    assumptions : under which it was computed
    use : ``hold`` or ``record``
    tolerance : largest relative difference that still counts as reproduced; 0 for counts
    """

    what: str
    source: str
    published: tuple[Value, ...]
    computed: tuple[Value, ...]
    assumptions: str
    use: str = HOLD
    tolerance: float = 0.0

    @property
    def reproduces(self) -> bool:
        """Whether every computed value is the published one."""
        return len(self.published) == len(self.computed) and all(
            given == found if isinstance(given, str) or isinstance(found, str)
            else math.isclose(given, found, rel_tol=self.tolerance)
            for given, found in zip(self.published, self.computed, strict=True))

    @property
    def verdict(self) -> str:
        """In words."""
        if self.use == HOLD:
            return "reproduced" if self.reproduces else "NOT reproduced"
        return "met, though not held" if self.reproduces else "does not follow"


def published_rows(progress: Callable[[], None] = lambda: None) -> list[PublishedRow]:
    """Compute every row, those to be held first.

    Parameters
    ----------
    progress : called once for each of `ROW_MAKERS`
    """
    rows: list[PublishedRow] = []
    for maker in ROW_MAKERS:
        rows += list(maker())
        progress()
    return sorted(rows, key=lambda row: row.use != HOLD)


# ---- chapter 4 --------------------------------------------------------------------------------------------


def _ppw(workload: Workload, tiles: str, assumptions: GemmAssumptions) -> float:
    """Performance per watt of one image's product, GOPS/W."""
    shape, size = workload.geometry.gemm(workload.pass_), TileSizes.parse(tiles)
    latency = gemm_latency(shape.m, shape.n, shape.k, size.tr, size.tc, size.tp, assumptions)
    return 2 * shape.macs / float(latency.total_s) / FPGA_POWER_W / 1e9


def _layers(network: str) -> list[list[Workload]]:
    """The passes of each layer, image by image."""
    found: dict[str, list[Workload]] = {layer.name: [] for layer in NETWORKS[network]}
    for workload in network_workloads(network, batch=1):
        found[workload.layer].append(workload)
    return list(found.values())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _dsp_share() -> Iterator[PublishedRow]:
    share = 100 * float(gemm_dsp(16, 16, DSP_EVALUATED)) / VU9P_DSP
    yield PublishedRow("DSP blocks of a 16 x 16 array, % of 6,840", "section 4.3", (18.8,), (share,),
                       "Eq. 4.10 with V = 5", tolerance=0.01)


def _table_4_1_power() -> Iterator[PublishedRow]:
    assumptions = GemmAssumptions(VU9P_CLOCK_HZ, dram_bytes_per_s=30e9, pcie_bytes_per_s=4.57e9)
    said = "mean over a layer's products, Eq. 4.7, memory 30 GB/s, PCIe 4.57 GB/s (fitted), 250 MHz, S = 10, 80 W"
    layers = _layers("alexnet_cifar10")
    best = [_mean([_ppw(each, tiles, assumptions) for each in layer])
            for layer, tiles in zip(layers, TABLE_4_1_TILES, strict=True)]
    yield PublishedRow("AlexNet, best tiles: GOPS/W of conv1 to conv5", "Table 4.1", TABLE_4_1_FPGA, tuple(best), said,
                       tolerance=0.03)
    single = _mean([_mean([_ppw(each, "32,32,64", assumptions) for each in layer]) for layer in layers])
    mixed = _mean([max(pair) for pair in zip(best, TABLE_4_1_CPU, strict=True)])
    yield PublishedRow("AlexNet, GOPS/W: one 32,32,64; CPU and FPGA mixed; CPU", "section 4.3.3", (0.22, 0.24, 0.18),
                       (single, mixed, _mean(TABLE_4_1_CPU)),
                       said + "; unweighted mean over layers; the CPU's figures as published", tolerance=0.03)


def _table_4_1_tiles() -> Iterator[PublishedRow]:
    for step, pcie_bytes_per_s, use in ((2, 9.5e9, HOLD), (4, 9.5e9, HOLD), (4, 13.5e9, HOLD), (2, 13.5e9, RECORD)):
        assumptions = GemmAssumptions(VU9P_CLOCK_HZ, 32e9, pcie_bytes_per_s, padding="output")
        resnet = _layers("resnet20_cifar10")
        found = [_best_tiles([layer], step, assumptions) for layer in _layers("alexnet_cifar10")]
        yield PublishedRow(
            "best tiles of AlexNet's conv1 to conv5, and of ResNet-20", "Table 4.1 and section 4.3.3",
            (*TABLE_4_1_TILES, "36,36,72"), (*found, _best_tiles(resnet, step, assumptions)),
            f"Tr = Tc in steps of {step}, even Tp, PCIe volume padded in R and C, a layer's rate = its operations over "
            f"its latencies, a network's = mean over layers, memory 32 GB/s, PCIe {pcie_bytes_per_s / 1e9} GB/s, "
            "V = 5, Eq. 4.11 within 75.9 Mb", use)


def _best_tiles(layers: Sequence[Sequence[Workload]], step: int, assumptions: GemmAssumptions) -> str:
    """The tiles with the most performance per watt, averaged over layers (Eq. 4.12, 4.13)."""
    square, depth = np.meshgrid(np.arange(step, 65, step), np.arange(2, 513, 2), indexing="ij")
    fits = ((gemm_dsp(square, square, DSP_EVALUATED) <= VU9P_DSP)
            & (gemm_bram_bits(square, square, depth) <= VU9P_BRAM_BITS))
    square, depth = square[fits], depth[fits]
    rates = sum(sum(each.ops for each in layer)
                / sum(pass_latency(each, square, square, depth, assumptions).total_s for each in layer)
                for layer in layers)
    best = int(np.argmax(rates))
    return str(TileSizes(int(square[best]), int(square[best]), int(depth[best])))


def _resnet20_power() -> Iterator[PublishedRow]:
    layers = _layers("resnet20_cifar10")
    fitted = GemmAssumptions(VU9P_CLOCK_HZ, 30e9, 4.57e9)
    padded = GemmAssumptions(VU9P_CLOCK_HZ, 32e9, 9.5e9, padding="output")
    by_product = _mean([_mean([_ppw(each, "36,36,72", fitted) for each in layer]) for layer in layers])
    by_layer = _mean([sum(each.ops for each in layer) / FPGA_POWER_W / 1e9
                      / sum(float(pass_latency(each, 36, 36, 72, padded).total_s) for each in layer)
                      for layer in layers])
    for computed, said in ((by_product, "as in Table 4.1: mean over a layer's products, 30 GB/s, PCIe 4.57 GB/s"),
                           (by_layer, "as for the best tiles: operations over latencies, 32 GB/s, PCIe 9.5 GB/s")):
        yield PublishedRow("ResNet-20 with 36,36,72, GOPS/W", "section 4.3.3", (0.33,), (computed,), said, RECORD, 0.03)


def _bram_share() -> Iterator[PublishedRow]:
    bits = 100 * float(gemm_bram_bits(16, 16, 64)) / VU9P_BRAM_BITS
    blocks = 100 * float(gemm_blocks(16, 16, 64, ram=BRAM18).total) / VU9P_BRAM18
    for computed, said in ((bits, "bits of Eq. 4.11 over 75.9 Mb"),
                           (blocks, "blocks of 18 Kb by ports and words, double buffers, over 4,320")):
        yield PublishedRow("BRAM of a 16,16,64 array, % of the device", "section 4.3", (14.1,), (computed,), said,
                           RECORD, 0.03)


# ---- chapter 5 --------------------------------------------------------------------------------------------


class _Space(NamedTuple):
    """Array sizes (X, Y) that are looked through."""

    x: Array
    y: Array


@functools.cache
def _space(x_most: int, y_most: int, least: int, most: int) -> _Space:
    """The sizes with X <= x_most, Y <= y_most and least <= X Y <= most."""
    x, y = np.meshgrid(np.arange(1, x_most + 1), np.arange(1, y_most + 1), indexing="ij")
    fits = (least <= x * y) & (x * y <= most)
    return _Space(x[fits], y[fits])


def _fitting_s(geometry: ConvolutionGeometry, pass_: Pass, space: _Space, assumptions: ConvAssumptions,
               fixed: bool = False) -> Array:
    """Seconds for each size; infinite where the array or one of the memories does not fit its region."""
    seconds = conv_latency(geometry, pass_, *space, assumptions).total_s
    blocks = conv_blocks(geometry, pass_, *space, assumptions, ram=REGION_RAM)
    fits = ((conv_dsp(*space, fixed=fixed) <= REGION_DSP)
            & (np.maximum(np.maximum(blocks.inp, blocks.kern), blocks.out) <= REGION_BLOCKS))
    return np.where(fits, seconds, np.inf)


def _googlenet_counts() -> Iterator[PublishedRow]:
    yield PublishedRow("convolutions in a training step of GoogLeNet", "section 5.6.2", (170,),
                       (len(network_workloads("googlenet", 1)),),
                       "57 layers, three passes, no grad_input for the first")
    growth = max(layer.geometry(1).depth * layer.geometry(1).pixels / (layer.in_channels * layer.side ** 2)
                 for layer in NETWORKS["googlenet"])
    yield PublishedRow("largest growth of an input by im2col in GoogLeNet", "chapter 5", (25,), (growth,),
                       "the 5x5 branches as published, with kernels of 5x5")
    yield PublishedRow("array sizes (X, Y) of inception 3b, branch 3-1", "section 5.6.2", (12_424,),
                       (len(_space(341, 96, 4, 4096).x),), "X <= 341, Y <= 96, 4 <= X Y <= 4,096")


def _inception_3b() -> Iterator[PublishedRow]:
    layer = next(each for each in NETWORKS["googlenet"] if each.name == "inception_3b/5x5")
    space = _space(341, 96, 4, 4096)
    for pass_ in Pass:
        seconds = conv_latency(layer.geometry(FPGPT_BATCH), pass_, *space, ConvAssumptions()).total_s
        elements = (space.x * space.y)[np.argsort(seconds, kind="stable")[:10]]
        yield PublishedRow(f"inception 3b, branch 3-1, {pass_.value}: best s; elements of the best ten, least and most",
                           "section 5.6.2, Fig. 5.13", (0.26, 530, 737),
                           (float(seconds.min()), int(elements.min()), int(elements.max())),
                           "32 to 96 channels, kernel 5x5, 28x28, batch 256, BAND 16, 100 MHz, all 12,424 sizes",
                           RECORD, 0.05)


class _Explored(NamedTuple):
    """The best design of each pass of a network within the region's limits."""

    conv_gops: float
    peak_gops: float
    kernels: int
    batch_s: float


@functools.cache
def _explored(network: str) -> _Explored:
    space = _space(REGION_DSP // 9, REGION_DSP // 9, 1, REGION_DSP // 9)
    workloads = network_workloads(network, FPGPT_BATCH)
    seconds = np.stack([_fitting_s(each.geometry, each.pass_, space, ConvAssumptions()) for each in workloads])
    best = seconds.min(axis=1)
    ops = np.array([each.ops for each in workloads], dtype=np.float64)
    return _Explored(float(ops.sum() / best.sum() / 1e9), float((ops / best).max() / 1e9),
                     _fewest_covering(seconds == best[:, None]), float(best.sum()))


def _fewest_covering(optimal: Array) -> int:
    """How many designs give every pass one that is optimal for it, chosen greedily.

    Parameters
    ----------
    optimal : (passes, designs), whether a design is optimal for a pass
    """
    count = 0
    while optimal.size:
        optimal = optimal[~optimal[:, int(np.argmax(optimal.sum(axis=0)))]]
        count += 1
    return count


def _fpgpt_networks() -> Iterator[PublishedRow]:
    said = ("best X, Y of each pass within 3,072 DSP and 1,344 blocks of 36 Kb for each memory; batch 256, BAND 16, "
            "100 MHz, no transfers; networks as they ship")
    names = ("alexnet_cifar10", "alexnet", "resnet20_cifar10", "googlenet", "squeezenet_1_1")
    who = "AlexNet CIFAR-10, AlexNet, ResNet-20, GoogLeNet, SqueezeNet"
    found = [_explored(name) for name in names]
    yield PublishedRow(f"GOPS over all convolutions: {who}", "Table 5.7", (27.4, 400, 55.3, 156, 110),
                       tuple(each.conv_gops for each in found), said, RECORD, 0.03)
    yield PublishedRow(f"GOPS of the best convolution: {who}", "Tables 5.5 and 5.7", (685, 752, 570, 643, 685),
                       tuple(each.peak_gops for each in found), said, RECORD, 0.03)
    yield PublishedRow(f"designs without loss: {who}", "Table 5.8", (7, 9, 17, 30, 22),
                       tuple(each.kernels for each in found), said + "; a greedy cover of all optima", RECORD)
    epochs_h = tuple(each.batch_s * 1_281_167 / FPGPT_BATCH / 3600 for each in found if each is not found[0]
                     and each is not found[2])
    yield PublishedRow("hours an epoch of ImageNet: AlexNet, GoogLeNet, SqueezeNet", "Table 5.6",
                       (38.0, 212.42, 143.35), epochs_h, said + "; convolutions only, 1,281,167 images", RECORD, 0.03)


def _gm_reduction() -> Iterator[PublishedRow]:
    workloads = network_workloads("resnet20_cifar10", FPGPT_BATCH)
    single = _space(REGION_DSP // 3, REGION_DSP // 3, 1, REGION_DSP // 3)
    gains = []
    for each in workloads:
        floating = _fitting_s(each.geometry, each.pass_, single, ConvAssumptions()).min()
        fixed = _fitting_s(each.geometry, each.pass_, single, ConvAssumptions(band=64, word_bits=8), fixed=True).min()
        gains.append(float(floating - fixed))
    order = np.argsort(gains)[::-1]
    reached = np.cumsum(np.array(gains)[order])
    count = int(np.searchsorted(reached, 0.8 * reached[-1])) + 1
    sums = sum(workloads[index].pass_ is Pass.GRAD_WEIGHT for index in order[:count])
    yield PublishedRow("ResNet-20: convolutions that give 80 % of the gain of 8 bits, of them grad_weight; of how many",
                       "section 6.3.3", (21, 0, 63), (count, sums, len(workloads)),
                       "float32 with BAND 16 and 9 X Y DSP against 8 bits with BAND 64 and 3 X Y; the rest as for "
                       "Table 5.7; no grad_input for the first layer", RECORD)


ROW_MAKERS: tuple[Callable[[], Iterator[PublishedRow]], ...] = (
    _dsp_share, _table_4_1_power, _table_4_1_tiles, _googlenet_counts, _resnet20_power, _bram_share, _inception_3b,
    _fpgpt_networks, _gm_reduction)
"""Each gives some rows."""
