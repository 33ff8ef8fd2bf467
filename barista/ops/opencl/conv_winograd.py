"""Convolutions of square windows at stride 1 by Winograd's minimal filtering, on CPU devices.

S. Winograd, Arithmetic Complexity of Computations, 1980; F(m x m, r x r) makes a tile of m x m outputs of
(m + r - 1)^2 products.  Its numbers differ from those of the direct sums by rounding; a NaN or an infinity in a pixel
makes all of its tile NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from ...gemm.shapes import ConvolutionGeometry
from ...runtime.space import DeviceArray
from .conv_pass import ForwardPass, GradInputPass, GradWeightPass, Variant
from .device import Device
from .tuning import AVX512_FLAGS

FILE, WEIGHT_FILE = "conv_winograd.cl", "conv_winograd_weight.cl"
# Local memory that a work-item may take: about what a core's second cache has.
LOCAL_BYTES = 768 << 10
# What a block costs beside its tiles, in tiles.
BLOCK_OVERHEAD = 1.5
MOST_TILES = 64
# Up to as many channels of a group short vectors are worth a trial, and come first; where there are more of the
# input, vectors of weights that are read should serve more sums.
FEW_CHANNELS, FEWEST_CHANNELS, MANY_CHANNELS = 64, 8, 128
# From as many channels of a group on the gradient of the weights is worth a trial: with fewer entering tiles is all.
LEAST_SUM_CHANNELS = 4
# What entering a tile costs for a channel, in products of a tile.
TRANSFORM = 8
# Bytes of windows that are turned at a time, and of shares of dw.
MOST_BYTES = 32 << 20
# For each size of a patch the points of its polynomials besides 0 and infinity, each with its opposite.  Those for 6
# have a fourth of the largest error of 1 and 2; the squares of all of them are exact.
POINTS = {4: (Fraction(1),), 6: (Fraction(5, 8), Fraction(3, 2)), 8: (Fraction(1, 2), Fraction(1), Fraction(2))}
SLOT = "winograd weights"
SHARES = "winograd shares"


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way to specialise conv_winograd.cl.

    Parameters
    ----------
    tile : outputs of a tile along an axis, 2 or 4
    rows : tiles whose products are summed at once
    vectors : vectors of output channels that are summed at once
    avx512 : vectors of 64 bytes, of 32 else
    """

    tile: int
    rows: int
    vectors: int
    avx512: bool = False

    def vector(self, device: Device) -> int:
        """Channels of a vector; at least the 8 that conv_winograd.cl turns about at a time."""
        return max(8, (64 if self.avx512 else 32) // device.dtype.itemsize)

    def panel(self, device: Device) -> int:
        """Output channels that are summed at once."""
        return self.vector(device) * self.vectors

    def name(self, device: Device) -> str:
        """How tables and schedules call it."""
        return (f"winograd {self.tile}x{self.tile} {self.rows}x{self.panel(device)}"
                + (" avx512" if self.avx512 else ""))


KINDS = (Kind(4, 8, 2, True), Kind(4, 16, 1, True), Kind(4, 6, 2), Kind(2, 8, 2, True), Kind(2, 6, 2))
SUM_KINDS = (Kind(4, 8, 2, True), Kind(4, 16, 1, True), Kind(4, 4, 2), Kind(2, 8, 2, True), Kind(2, 4, 2))


@dataclasses.dataclass(frozen=True)
class _Maps:
    """What a pass convolves: sizes of its window, input and output, and its padding, which may be below 0."""

    batch: int
    groups: int
    inputs: int
    outputs: int
    window: int
    source: tuple[int, ...]
    result: tuple[int, ...]
    pad: tuple[int, ...]


def _forward_maps(g: ConvolutionGeometry) -> _Maps:
    return _Maps(g.batch, g.group, g.in_channels // g.group, g.out_channels // g.group, g.kernel[0],
                 g.input, g.output, g.pad)


def _grad_input_maps(g: ConvolutionGeometry) -> _Maps:
    return _Maps(g.batch, g.group, g.out_channels // g.group, g.in_channels // g.group, g.kernel[0],
                 g.output, g.input, tuple(g.kernel[0] - 1 - p for p in g.pad))


def _kinds(device: Device, geometry: ConvolutionGeometry, maps: _Maps, kinds: tuple[Kind, ...],
           cut_up: Callable[[Device, _Maps, Kind], object]) -> list[Kind]:
    """Those of `kinds` for a pass over `maps` that `cut_up` finds room for in local memory, the fastest by rule first.
    """
    g = geometry
    if not (device.context.is_cpu and len(g.kernel) == 2 and min(g.kernel) == max(g.kernel) >= 3
            and g.stride == (1, 1) and g.dilation == (1, 1)):
        return []
    found = []
    wide = set()  # tiles with AVX-512
    for kind in kinds:
        if _side(maps, kind) not in POINTS:
            continue
        idle = -maps.outputs % kind.panel(device)  # channels that the last panel has too many
        if kind.avx512 and not (device.context.processor_flags >= AVX512_FLAGS and idle < kind.vector(device)):
            continue
        # Beside AVX-512 short vectors win at times where channels are few, and with the larger tile alone.
        if not kind.avx512 and kind.tile in wide and (kind.tile == 2 or max(maps.inputs, maps.outputs) > FEW_CHANNELS):
            continue
        if cut_up(device, maps, kind):
            if kind.avx512:
                wide.add(kind.tile)
            found.append(kind)
    short, many = min(maps.inputs, maps.outputs) <= FEWEST_CHANNELS, maps.inputs > MANY_CHANNELS
    return sorted(found, key=lambda kind: (_products(maps, kind), kind.avx512 == short, (kind.vectors > 1) != many))


def _products(maps: _Maps, kind: Kind) -> int:
    """Multiplications of an image and pair of channels."""
    return math.prod(-(-size // kind.tile) for size in maps.result) * _side(maps, kind) ** 2


def _side(maps: _Maps, kind: Kind) -> int:
    """Pixels of a patch along an axis."""
    return kind.tile + maps.window - 1


@functools.cache
def _head(side: int) -> str:
    """What conv_winograd_tiles.cl computes with."""
    points = POINTS[side]
    powers, spreads, others = [], [], []
    for p in points:
        rest = [q for q in points if q != p]
        distances = 2 * p * p * math.prod(p * p - q * q for q in rest)
        powers.append([p ** k for k in range(side)])
        spreads.append([p ** k / distances for k in range(side)])
        others.append(_product(rest))
    tables = {"POWERS": _braces(powers), "SPREADS": _braces(spreads), "OTHERS": _braces(others),
              "EVERYONE": _braces(_product(points))}
    return "".join(f"#define {name} {value}\n" for name, value in {"PAIRS": len(points), **tables}.items())


def _product(points: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (u - p * p) for all points, powers of u rising."""
    found = [Fraction(1)]
    for p in points:
        found = [low - p * p * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _braces(numbers: Sequence[Fraction] | Sequence[Sequence[Fraction]]) -> str:
    """An initialiser in C."""
    return "{" + ", ".join(repr(float(n)) if isinstance(n, Fraction) else _braces(n) for n in numbers) + "}"


def _macros(device: Device, maps: _Maps, kind: Kind, images: int, rows: int, columns: int) -> dict[str, object]:
    """The names under which conv_winograd.cl knows all that."""
    return {"TILE": kind.tile, "WINDOW": maps.window, "VECTOR": kind.vector(device), "VECTORS": kind.vectors,
            "ROWS": kind.rows, "AVX512": int(kind.avx512), "GROUPS": maps.groups, "INPUTS": maps.inputs,
            "OUTPUTS": maps.outputs, "IY": maps.source[0], "IX": maps.source[1], "OY": maps.result[0],
            "OX": maps.result[1], "PY": f"({maps.pad[0]})", "PX": f"({maps.pad[1]})", "BATCH": maps.batch,
            "BLOCK_IMAGES": images, "BLOCK_Y": rows, "BLOCK_X": columns}


class _Convolution:
    """Turns windows and convolves with them block after block, for as many panels at a time as memory is meant to hold.

    Attributes
    ----------
    scratch_bytes : the turned windows
    """

    def __init__(self, device: Device, maps: _Maps, kind: Kind) -> None:
        blocks = _blocks(device, maps, kind)
        if blocks is None:
            raise ValueError(f"{kind} does not fit into local memory for {maps}")
        self._local_bytes, self._items = blocks.local_bytes, maps.groups * blocks.blocks
        part = _part(device, maps, kind)
        self._firsts = range(0, -(-maps.outputs // kind.panel(device)), part)
        macros = {**_macros(device, maps, kind, blocks.images, blocks.rows, blocks.columns), "PART": part}
        head = _head(_side(maps, kind))
        self._pack = device.kernel(FILE, "pack", "bbiiii", macros, True, head)
        self._convolve = device.kernel(FILE, "convolve", "bbbbllllii", macros, True, head)
        self._windows = maps.groups * part * maps.inputs
        self._scratch = device.scratch
        self.scratch_bytes = self._scratch.reserve(SLOT, maps.groups * part * _panel_numbers(device, maps, kind))

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool,
            output_stride: int, input_stride: int, flip: bool) -> None:
        """y = x * w, the strides being those of the windows in w, which `flip` turns about."""
        packed = self._scratch.array(SLOT)
        for first in self._firsts:
            self._pack.run(self._windows, w, packed, output_stride, input_stride, int(flip), first)
            self._convolve.run(self._items, x, packed, bias, y, *self._local_bytes, int(rectify), first)


def _panel_numbers(device: Device, maps: _Maps, kind: Kind) -> int:
    """Numbers of the turned windows of a panel."""
    return _side(maps, kind) ** 2 * maps.inputs * kind.panel(device)


def _part(device: Device, maps: _Maps, kind: Kind) -> int:
    """Panels whose windows are turned at a time, or 0 where a single one takes too much memory."""
    panels = -(-maps.outputs // kind.panel(device))
    most = MOST_BYTES // (maps.groups * _panel_numbers(device, maps, kind) * device.dtype.itemsize)
    return -(-panels // -(-panels // most)) if most else 0


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """How the tiles are cut up: images, rows and columns of tiles of a block, and how many blocks that makes."""

    images: int
    rows: int
    columns: int
    blocks: int
    local_bytes: tuple[int, ...]


def _blocks(device: Device, maps: _Maps, kind: Kind) -> _Blocks | None:
    """The blocks that take least time, or None where not even the smallest fits into local memory."""
    if not _part(device, maps, kind):
        return None
    units = device.context.device.max_compute_units
    best: tuple[float, _Blocks] | None = None
    for images, rows, columns, blocks in _shapes(maps, kind):
        padded = -(-images * rows * columns // kind.rows) * kind.rows
        local_bytes = _local_bytes(device, maps, kind, padded, rows, columns)
        if sum(local_bytes) > _limit(device):
            continue
        cost = -(-maps.groups * blocks // units) * (padded + BLOCK_OVERHEAD)
        if best is None or cost < best[0]:
            best = cost, _Blocks(images, rows, columns, blocks, local_bytes)
    return best[1] if best else None


def _shapes(maps: _Maps, kind: Kind) -> Iterator[tuple[int, int, int, int]]:
    """Images, rows and columns of tiles that a block may have, and how many blocks that makes."""
    high, wide = (-(-size // kind.tile) for size in maps.result)
    shapes = [(images, high, wide) for images in range(2, min(MOST_TILES // (high * wide), maps.batch) + 1)]
    shapes += [(1, rows, wide) for rows in range(1, high + 1)]
    shapes += [(1, 1, -(-wide // parts)) for parts in range(2, wide + 1)]
    for images, rows, columns in shapes:
        if images * rows * columns <= MOST_TILES:
            yield images, rows, columns, -(-maps.batch // images) * -(-high // rows) * -(-wide // columns)


def _limit(device: Device) -> int:
    return min(LOCAL_BYTES, device.context.device.local_mem_size)


def _local_bytes(device: Device, maps: _Maps, kind: Kind, tiles: int, rows: int, columns: int) -> tuple[int, ...]:
    """Bytes of patches, entered, products and pixels, as conv_winograd.cl has them."""
    vector, places, margin = kind.vector(device), _side(maps, kind) ** 2, maps.window - 1
    bytes_ = vector * device.dtype.itemsize
    return ((rows * kind.tile + margin) * (columns * kind.tile + margin) * bytes_,
            places * (tiles * (-(-maps.inputs // vector) | 1) | 1) * bytes_,
            places * (tiles * kind.vectors | 1) * bytes_,
            rows * columns * kind.tile ** 2 * bytes_)


class _Forward(ForwardPass):
    """y = x * w + bias."""

    mixes = True

    def __init__(self, device: Device, geometry: ConvolutionGeometry, kind: Kind) -> None:
        self._convolution = _Convolution(device, _forward_maps(geometry), kind)
        self.scratch_bytes = self._convolution.scratch_bytes
        self._taps, self._inputs = math.prod(geometry.kernel), geometry.in_channels // geometry.group

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        self._convolution.run(x, w, bias, y, rectify, self._taps * self._inputs, self._taps, flip=False)


class _GradInput(GradInputPass):
    """dx = dy * w, its windows turned about."""

    mixes = True

    def __init__(self, device: Device, geometry: ConvolutionGeometry, kind: Kind) -> None:
        self._convolution = _Convolution(device, _grad_input_maps(geometry), kind)
        self.scratch_bytes = self._convolution.scratch_bytes
        self._taps, self._inputs = math.prod(geometry.kernel), geometry.in_channels // geometry.group

    def run(self, dy: DeviceArray, w: DeviceArray, dx: DeviceArray) -> None:
        self._convolution.run(dy, w, None, dx, False, self._taps, self._taps * self._inputs, flip=True)


@dataclasses.dataclass(frozen=True)
class _Sums:
    """How grad_weight is cut up: blocks of tiles, and the input and output channels that a work-item sums."""

    images: int
    rows: int
    columns: int
    blocks: int
    inputs: int
    outputs: int
    local_bytes: tuple[int, ...]


def _sums(device: Device, maps: _Maps, kind: Kind) -> _Sums | None:
    """The blocks that take least time, or None where not even the smallest fits into local memory."""
    vector, size, places = kind.vector(device), device.dtype.itemsize, _side(maps, kind) ** 2
    if maps.groups * maps.inputs * maps.outputs * maps.window ** 2 * size > MOST_BYTES:
        return None
    unit, panel, margin = max(vector, kind.rows), kind.panel(device), maps.window - 1
    best: tuple[float, _Sums] | None = None
    for most in (64, 48, 32, 16):
        inputs, outputs = (_even_share(count, step, most) for count, step in ((maps.inputs, unit),
                                                                             (maps.outputs, panel)))
        in_parts, out_parts = -(-maps.inputs // inputs), -(-maps.outputs // outputs)
        for images, rows, columns, blocks in _shapes(maps, kind):
            tiles = images * rows * columns
            local_bytes = ((rows * kind.tile + margin) * (columns * kind.tile + margin) * vector * size,
                           tiles * kind.tile ** 2 * vector * size,
                           places * (tiles * (inputs // vector | 1) | 1) * vector * size,
                           places * (tiles * (outputs // vector | 1) | 1) * vector * size,
                           places * inputs * outputs * size)
            if sum(local_bytes) > _limit(device):
                continue
            # Products, sums that are fetched and put back, and patches that are entered.
            cost = in_parts * out_parts * blocks * (inputs * outputs * (tiles + 3) + TRANSFORM * tiles
                                                    * (inputs + outputs))
            if best is None or cost < best[0]:
                best = cost, _Sums(images, rows, columns, blocks, inputs, outputs, local_bytes)
    return best[1] if best else None


def _even_share(count: int, step: int, most: int) -> int:
    """Multiples of `step` not much above `most` that cut `count` into parts of about the same size."""
    steps, most_steps = -(-count // step), max(1, most // step)
    return -(-steps // -(-steps // most_steps)) * step


class _GradWeight(GradWeightPass):
    """Sums of shares of the tiles, which are added in their order."""

    mixes = True

    def __init__(self, device: Device, geometry: ConvolutionGeometry, kind: Kind) -> None:
        maps = _forward_maps(geometry)
        sums = _sums(device, maps, kind)
        if sums is None:
            raise ValueError(f"{kind} does not fit into local memory for {maps}")
        macros = {**_macros(device, maps, kind, sums.images, sums.rows, sums.columns),
                  "IN_BLOCK": sums.inputs, "OUT_BLOCK": sums.outputs}
        head = _head(_side(maps, kind))
        self._count = math.prod(geometry.w_shape)
        parts = maps.groups * -(-maps.inputs // sums.inputs) * -(-maps.outputs // sums.outputs)
        units = device.context.device.max_compute_units
        # As many shares as make all compute units finish together, unless there is plenty of work for each.
        self._shares = min(sums.blocks, 1 if parts >= 16 * units else units // math.gcd(parts, units),
                           max(1, MOST_BYTES // (self._count * device.dtype.itemsize)))
        self._items, self._local_bytes = self._shares * parts, sums.local_bytes
        self._sum = device.kernel(WEIGHT_FILE, "grad_weight", "bbbllllli", macros, True, head)
        self._add = device.kernel(WEIGHT_FILE, "add_shares", "bbii", macros, head=head)
        self._scratch = device.scratch
        self.scratch_bytes = self._scratch.reserve(SHARES, max(self._shares, 1) * self._count)

    def run(self, x: DeviceArray, dy: DeviceArray, dw: DeviceArray, accumulate: bool) -> None:
        partial = self._scratch.array(SHARES)
        self._sum.run(self._items, x, dy, partial, *self._local_bytes, self._shares)
        self._add.run(self._count, partial, dw, self._shares, int(accumulate))


def forward_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[ForwardPass]]:
    """The ways to compute y, where `geometry` has square windows at stride 1."""
    maps = _forward_maps(geometry)
    return [Variant(kind.name(device), functools.partial(_Forward, device, geometry, kind))
            for kind in _kinds(device, geometry, maps, KINDS, _blocks)]


def grad_input_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradInputPass]]:
    """The ways to compute dx, where `geometry` has square windows at stride 1."""
    maps = _grad_input_maps(geometry)
    return [Variant(kind.name(device), functools.partial(_GradInput, device, geometry, kind))
            for kind in _kinds(device, geometry, maps, KINDS, _blocks)]


def grad_weight_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradWeightPass]]:
    """The ways to compute dw, where `geometry` has square windows at stride 1."""
    maps = _forward_maps(geometry)
    if min(maps.inputs, maps.outputs) < LEAST_SUM_CHANNELS:
        return []
    return [Variant(kind.name(device), functools.partial(_GradWeight, device, geometry, kind))
            for kind in _kinds(device, geometry, maps, SUM_KINDS, _sums)]
