"""Gradients of convolutions' weights on CPU devices, summed in register tiles straight from x and dy.

A tile has some weights of one output channel ("taps") by some output channels.  Which tile is fastest depends on
the geometry: how many channels are left over at the edges, and how many of the tile's loads hide behind its arithmetic.
`grad_weight_variants` estimates that, and offers the best few.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterator

from ...gemm.shapes import ConvolutionGeometry
from ...runtime.space import MAX_COUNT, DeviceArray
from .conv_pass import GradWeightPass, Variant
from .device import Device
from .tuning import AVX512_FLAGS

FILE = "conv_grad_weight.cl"
# How many variants of each instruction set are offered.
OFFERED = {True: 3, False: 2}
# dy of a round, turned: about a core's nearest cache, so that tile after tile finds most of it there.
ROUND_BYTES = 32 << 10
# Sums of all parts of the batch: at most so much, and nothing is offered where one part alone needs more than the most.
PARTS_BYTES = 16 << 20
MOST_BYTES = 32 << 20
# Work-items for each unit of the device, so that all units finish at about the same time: so many if every unit
# gets as many as the others, else up to the most.
ITEMS_A_UNIT, MOST_ITEMS_A_UNIT = 2, 8
# A core's nearest cache as far as rows of x go: those that lie whole periods apart share few places.
CACHE_LINE, CACHE_PERIOD, CACHE_WAYS = 64, 4096, 8
# Weights that a work-item adds up.
BLOCK = 16
# What loads cost where they, not sums, are the most of a tile: more than their number says.
LOAD_COST = 1.1
# Cycles from a sum's last addition to its next, those that a row costs beside its pixels, and those of a tile.
LATENCY_CYCLES, ROW_CYCLES, TILE_CYCLES = 5.0, 4.0, 40.0


@dataclasses.dataclass(frozen=True)
class Tile:
    """Weights by output channels that are summed in registers.

    Parameters
    ----------
    channels : input channels
    rows, columns : of the kernel
    vectors, vector_bytes : vectors of output channels, and the size of one
    avx512 : whether it uses AVX-512
    """

    channels: int
    rows: int
    columns: int
    vectors: int
    vector_bytes: int
    avx512: bool

    @property
    def taps(self) -> int:
        """Weights of one output channel."""
        return self.channels * self.rows * self.columns

    def name(self, itemsize: int) -> str:
        """Such as ``taps 6x16`` or ``taps 9x32 avx512``."""
        return f"taps {self.taps}x{self.vectors * self.vector_bytes // itemsize}" + (" avx512" if self.avx512 else "")


class TapsGradWeight(GradWeightPass):
    """dw of one geometry, summed tile by tile."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry, tile: Tile) -> None:
        g, itemsize = geometry, device.dtype.itemsize
        self._batch, self._scratch = g.batch, device.scratch
        plan = _Plan.of(g, tile, itemsize, device.context.device.max_compute_units)
        self._parts, self._blocks, self._step = plan.parts, plan.blocks, g.stride[-1]
        self._items, self._adding = plan.items, plan.adding
        self._turned_bytes, self._copied_bytes = plan.turned * itemsize, max(plan.copied, 1) * itemsize
        self._count = plan.parts * plan.sums
        self.scratch_bytes = self._scratch.reserve("sums", self._count)
        vector, self._images, self._outputs = tile.vector_bytes // itemsize, plan.images, g.out_channels // g.group
        constants = {
            "VECTOR": vector, "VECTORS": tile.vectors, "TAPS_C": tile.channels,
            "TAPS_Y": tile.rows, "TAPS_X": tile.columns, "AVX512": int(tile.avx512), "BLOCK": BLOCK,
            "LAST_VECTORS": (-(-self._outputs // vector) - 1) % tile.vectors + 1, "ROWS": plan.rows,
            "PITCH": plan.pitch, "GROUPS": g.group, "CHANNELS": g.in_channels // g.group,
            **{letter + axis: size for letter, sizes in (("I", g.input), ("O", g.output), ("K", g.kernel),
                                                         ("S", g.stride), ("P", g.pad), ("D", g.dilation))
               for axis, size in zip("YX", sizes, strict=True)}}
        self._sum = device.kernel(FILE, "grad_weight", "bbbll" + "i" * 6, constants, heavy=True)
        self._add = device.kernel(FILE, "add", "bbiii", constants, heavy=True)

    def run(self, x: DeviceArray, dy: DeviceArray, dw: DeviceArray, accumulate: bool) -> None:
        sums = self._scratch.array("sums", self._count)
        self._sum.run(self._items, x, dy, sums, self._turned_bytes, self._copied_bytes, self._batch,
                      self._images, self._outputs, self._parts, self._blocks, self._step)
        self._add.run(self._adding, sums, dw, self._outputs, self._parts, int(accumulate))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How the work of a geometry is cut.

    Parameters
    ----------
    images, rows : of a round; 1 image where not all of its rows are in
    turned, copied : elements of a round's dy and of the copy of a tile's x
    pitch : from channel to channel of that copy; 0: x is read where it lies
    parts : of the batch, each with its own sums
    blocks : of the input channels
    sums : elements of a part's sums
    items, adding : work-items that sum, and that add up the parts
    """

    images: int
    rows: int
    turned: int
    copied: int
    pitch: int
    parts: int
    blocks: int
    sums: int
    items: int
    adding: int

    @classmethod
    def of(cls, g: ConvolutionGeometry, tile: Tile, itemsize: int, units: int) -> _Plan:
        vector = tile.vector_bytes // itemsize
        lanes, all_vectors = tile.vectors * vector, -(-g.out_channels // g.group // vector)
        slices = -(-all_vectors // tile.vectors)
        sums = g.group * all_vectors * vector * g.depth
        pixels = max(1, ROUND_BYTES // (lanes * itemsize))
        height, width = g.output
        images = max(1, min(g.batch, pixels // (height * width)))
        images = -(-g.batch // -(-g.batch // images))
        bands = 1 if images > 1 else -(-height // max(1, min(height, pixels // width)))
        rows = -(-height // bands)
        rounds = -(-g.batch // images) * -(-height // rows)
        wanted = ITEMS_A_UNIT * units
        items = g.group * slices
        parts = -(-wanted // items)
        while items * parts % units and items * parts < MOST_ITEMS_A_UNIT * units:
            parts += 1
        parts = max(1, min(parts, rounds, PARTS_BYTES // (sums * itemsize)))
        blocks = min(-(-wanted // (items * parts)), -(-g.in_channels // g.group // tile.channels))
        pitch = _pitch(g, rows, itemsize) if _collide(g, tile, itemsize) else 0
        return cls(images, rows, images * rows * width * lanes, images * tile.channels * pitch, pitch, parts, blocks,
                   sums, items * parts * blocks, items * -(-g.depth // BLOCK))


def _collide(g: ConvolutionGeometry, tile: Tile, itemsize: int) -> bool:
    """Whether so many of a tile's channels share a place in the cache that they would drive each other out."""
    plane = math.prod(g.input) * itemsize
    places = collections.Counter(channel * plane % CACHE_PERIOD // CACHE_LINE for channel in range(tile.channels))
    return max(places.values()) > CACHE_WAYS // 2


def _pitch(g: ConvolutionGeometry, rows: int, itemsize: int) -> int:
    """From channel to channel of the rows of x that `rows` of the output need: an odd number of lines of the cache."""
    count = min(g.input[0], (rows - 1) * g.stride[0] + g.extent[0]) * g.input[1]
    return (-(-count * itemsize // CACHE_LINE) | 1) * CACHE_LINE // itemsize


def grad_weight_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradWeightPass]]:
    """The tiles that should be fastest, best first; none on other devices than CPUs, for more than two spatial axes,
    where there is nothing to sum, or where the sums need too much memory."""
    if not device.context.is_cpu or len(geometry.input) > 2 or not geometry.macs:
        return []
    g, itemsize, units = _flat(geometry), device.dtype.itemsize, device.context.device.max_compute_units
    local_bytes = device.context.device.local_mem_size

    def fits(tile: Tile) -> bool:
        plan = _Plan.of(g, tile, itemsize, units)
        return (plan.parts * plan.sums * itemsize <= MOST_BYTES and plan.parts * plan.sums <= MAX_COUNT
                and (plan.turned + plan.copied) * itemsize < local_bytes)

    best: dict[str, Tile] = {}
    avx512 = device.context.processor_flags >= AVX512_FLAGS
    for tile in sorted(filter(fits, _tiles(g, itemsize, avx512)), key=lambda tile: _cycles(g, tile, itemsize)):
        best.setdefault(tile.name(itemsize), tile)
    offered: list[Variant[GradWeightPass]] = []
    left, lanes = dict(OFFERED), set()
    for name, tile in best.items():
        # One tile of each width: those with a tap more or less differ little.
        width = (tile.avx512, tile.vectors * tile.vector_bytes)
        if left[tile.avx512] and width not in lanes:
            left[tile.avx512] -= 1
            lanes.add(width)
            offered.append(Variant(name, functools.partial(TapsGradWeight, device, g, tile)))
    return offered


def _flat(g: ConvolutionGeometry) -> ConvolutionGeometry:
    """The same convolution over two axes, with the longest rows that it can have."""
    if g.is_pointwise:
        return dataclasses.replace(g, input=(1, math.prod(g.input)), kernel=(1, 1), stride=(1, 1), pad=(0, 0),
                                   dilation=(1, 1))
    if len(g.input) == 2:
        return g
    return dataclasses.replace(g, input=(1, *g.input), kernel=(1, *g.kernel), stride=(1, *g.stride), pad=(0, *g.pad),
                               dilation=(1, *g.dilation))


def _tiles(g: ConvolutionGeometry, itemsize: int, avx512: bool) -> Iterator[Tile]:
    """The tiles that the registers hold."""
    places = {(1, 1)}
    if not g.pad[1]:
        places.add((1, g.kernel[1]))
        if not g.pad[0]:
            places.add((g.kernel[0], g.kernel[1]))
    outputs = g.out_channels // g.group
    for vector_bytes, wide in ((32, False), (32, True), (64, True)) if avx512 else ((32, False),):
        registers = 32 if wide else 16
        vector = vector_bytes // itemsize
        for vectors in range(1, min(6 if wide else 4, -(-outputs // vector)) + 1):
            if wide and vector_bytes == 32 and vectors % 2 == 0:
                continue  # as wide vectors
            for rows, columns in places:
                for channels in range(1, g.in_channels // g.group + 1):
                    taps = channels * rows * columns
                    if taps * vectors + min(taps, vectors) + 1 > registers:
                        break
                    yield Tile(channels, rows, columns, vectors, vector_bytes, wide)


def _cycles(g: ConvolutionGeometry, tile: Tile, itemsize: int) -> float:
    """Estimated cycles of a core for an image."""
    vector = tile.vector_bytes // itemsize
    # Vectors multiplied in a cycle, vectors loaded, and numbers loaded.
    rate, loads = (2, 2) if tile.vector_bytes == 32 else (1, 1)
    all_vectors, channels = -(-g.out_channels // g.group // vector), g.in_channels // g.group
    slices, last = divmod(all_vectors, tile.vectors)
    tiles, tail = divmod(channels, tile.channels)
    pixels = max(1, ROUND_BYTES // (tile.vectors * tile.vector_bytes))
    height, width = g.output
    total = 0.0
    for vectors, times_vectors in ((tile.vectors, slices), (last, bool(last))):
        for some, times_channels in ((tile.channels, tiles), (tail, bool(tail))):
            taps = some * tile.rows * tile.columns
            pixel = max(taps * vectors / rate, LOAD_COST * (vectors / loads + taps / 2), LATENCY_CYCLES)
            per_image = (height * width * pixel + height * ROW_CYCLES
                         + height * width / pixels * (TILE_CYCLES + 2 * taps * vectors / loads))
            total += per_image * times_vectors * times_channels
    return total * g.group * math.prod(g.kernel) / (tile.rows * tile.columns)
