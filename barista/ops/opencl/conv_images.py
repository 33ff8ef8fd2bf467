"""Forward and grad_input of convolutions with some images side by side in a vector, for CPU devices.

Every lane of a vector stands at the same pixel, so only the taps that reach a pixel are computed, whatever the
stride, padding and dilation: fewer multiplications than any way that pads the image.  The batch must fill the
vectors.  One program serves all geometries.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...gemm.shapes import ConvolutionGeometry
from ...runtime.space import DeviceArray
from .conv_pass import ForwardPass, GradInputPass, Variant
from .device import Device
from .tuning import AVX512_FLAGS

# Bytes of local memory that a work-item takes at most: they should stay in a core's cache.
LOCAL_BYTES = 384 * 1024
# Rough costs of a number, as multiples of what its share of a vector multiplication costs.
COPY_COST = 12.0
SUM_COST = 8.0
ROW_COPY = 3.0  # how much more it costs to copy row by row
HALF_SET = 0.55  # what half a set of images costs

# Channels that a tile may have: the registers hold its sums.
AVX512_ROWS = range(12, 27)
AVX2_ROWS = range(4, 7)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Which taps and sources each coordinate of a result has: source = (o step + tap dilation - pad) / spread.

    Only taps whose source is whole and inside count.

    Parameters
    ----------
    result, source, taps : how many coordinates, and taps
    step, dilation, pad, spread : see above
    """

    result: int
    source: int
    taps: int
    step: int
    dilation: int
    pad: int
    spread: int

    @property
    def tap_step(self) -> int:
        """From one tap of a coordinate to its next."""
        return self.spread // int(np.gcd(self.spread, self.dilation))

    @property
    def source_step(self) -> int:
        """From the source of one tap to that of the next."""
        return self.dilation // int(np.gcd(self.spread, self.dilation))

    def table(self) -> list[tuple[int, int, int]]:
        """(first tap, its source, how many taps) of each coordinate."""
        found = []
        for o in range(self.result):
            reached = [(tap, position // self.spread) for tap in range(self.taps)
                       if (position := o * self.step + tap * self.dilation - self.pad) >= 0
                       and position % self.spread == 0 and position // self.spread < self.source]
            found.append((*reached[0], len(reached)) if reached else (0, 0, 0))
        return found

    def reach(self, parts: int) -> tuple[int, int]:
        """(most sources, most coordinates) that one of `parts` parts has."""
        table = self.table()
        width, count = 0, 0
        for part in range(parts):
            first, end = (self.result * index // parts for index in (part, part + 1))
            reached = [(source, source + (taps - 1) * self.source_step + 1)
                       for _, source, taps in table[first:end] if taps]
            width = max(width, max((e for _, e in reached), default=0) - min((s for s, _ in reached), default=0))
            count = max(count, end - first)
        return max(1, width), count  # local memory cannot be empty

    def turned(self) -> Axis:
        """The same axis of the gradient with respect to x, its taps reversed."""
        return Axis(self.source, self.result, self.taps, 1, self.dilation, (self.taps - 1) * self.dilation - self.pad,
                    self.step)


@dataclasses.dataclass(frozen=True)
class Tile:
    """The register tile of a program: `rows` channels times `vectors` vectors of `vector_bytes`."""

    rows: int
    vectors: int
    vector_bytes: int
    avx512: bool

    def lanes(self, dtype: np.dtype[Any]) -> int:
        """Images of a set."""
        return self.vector_bytes // dtype.itemsize * self.vectors

    def name(self, dtype: np.dtype[Any]) -> str:
        """What tables call it."""
        return f"{self.rows}x{self.lanes(dtype)}" + (" avx512" if self.avx512 else "")

    def macros(self, dtype: np.dtype[Any]) -> dict[str, object]:
        """The names under which `conv_images.cl` knows it."""
        return {"TILE_M": self.rows, "VECTOR": self.vector_bytes // dtype.itemsize, "VECTORS": self.vectors,
                "AVX512": int(self.avx512)}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A convolution y = x * w, of images or of gradients.

    Parameters
    ----------
    batch, groups : images, and groups of channels
    channels, y_channels : of x and y, in a group
    rows, columns : the two axes
    image : rows and columns of x as it lies
    sparse : how many of them there are for each that counts
    turned : whether `w` belongs to the convolution whose gradient this is
    """

    batch: int
    groups: int
    channels: int
    y_channels: int
    rows: Axis
    columns: Axis
    image: tuple[int, int]
    sparse: tuple[int, int]
    turned: bool

    @classmethod
    def forward(cls, geometry: ConvolutionGeometry) -> Problem:
        """y = x * w; the geometry has one axis or two."""
        rows, columns = _axes(geometry)
        image = (rows.source, columns.source)
        sparse = tuple(axis.step if axis.taps == 1 and axis.pad == 0 else 1 for axis in (rows, columns))
        rows, columns = (dataclasses.replace(axis, step=1, source=-(-axis.source // step)) if step > 1 else axis
                         for axis, step in zip((rows, columns), sparse, strict=True))
        return cls(geometry.batch, geometry.group, geometry.in_channels // geometry.group,
                   geometry.out_channels // geometry.group, rows, columns, image, (sparse[0], sparse[1]), False)

    @classmethod
    def grad_input(cls, geometry: ConvolutionGeometry) -> Problem:
        """dx = dy * w, turned; the geometry has one axis or two."""
        rows, columns = _axes(geometry)
        return cls(geometry.batch, geometry.group, geometry.out_channels // geometry.group,
                   geometry.in_channels // geometry.group, rows.turned(), columns.turned(),
                   (rows.result, columns.result), (1, 1), True)

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of y is made of one of x."""
        return all(axis.taps == axis.step == axis.spread == 1 and axis.pad == 0 and axis.source == axis.result
                   for axis in (self.rows, self.columns))

    @property
    def taps(self) -> int:
        """Taps of a pixel, in both axes."""
        return self.rows.taps * self.columns.taps


def _axes(geometry: ConvolutionGeometry) -> tuple[Axis, Axis]:
    """The axes of a forward convolution; before the only one there is a row of one."""
    axes = [Axis(result, source, taps, stride, dilation, pad, 1) for result, source, taps, stride, dilation, pad
            in zip(geometry.output, geometry.input, geometry.kernel, geometry.stride, geometry.dilation, geometry.pad,
                   strict=True)]
    return (Axis(1, 1, 1, 1, 1, 0, 1), axes[0]) if len(axes) == 1 else (axes[0], axes[1])


@dataclasses.dataclass(frozen=True)
class Strips:
    """How an image is cut into strips of rows, each of which is a lane.

    Parameters
    ----------
    count : strips of an image
    rows : the rows axis of a strip; where there are several, what lies before and behind the image counts as zeros
    step, base : the rows of strip i begin at row i step - base of the image
    """

    count: int
    rows: Axis
    step: int = 0
    base: int = 0

    @classmethod
    def of(cls, rows: Axis, height: int) -> Strips:
        """Strips of `height` rows of the result, which must be a multiple of the spread where there are several."""
        if height >= rows.result:
            return cls(1, rows)
        base = -(-rows.pad // rows.spread)
        pad = rows.pad - base * rows.spread
        last = (height - 1) * rows.step + (rows.taps - 1) * rows.dilation - pad
        strip = dataclasses.replace(rows, result=height, pad=pad, source=last // rows.spread + 1)
        return cls(-(-rows.result // height), strip, height * rows.step // rows.spread, base)


@dataclasses.dataclass(frozen=True)
class Split:
    """How the work is cut.

    Parameters
    ----------
    strips : lanes
    bands, spans, shares, blocks : of a strip's rows, of y's columns, of its channels, and of the channels of x
    pixel_count, sum_count : numbers in local memory that a work-item takes
    """

    strips: Strips
    bands: int
    spans: int
    shares: int
    blocks: int
    pixel_count: int
    sum_count: int


def splits(problem: Problem, strips: Strips, tile_rows: int, lanes: int, limit: int) -> Iterator[tuple[float, Split]]:
    """Ways to cut whose local memory holds at most `limit` numbers, with the cost of a work-item."""
    p = problem
    panels = -(-p.y_channels // tile_rows)
    taps = p.columns.taps * sum(taps for _, _, taps in strips.rows.table()) / max(1, strips.rows.result)
    spans = [(span, *p.columns.reach(span)) for span in _cuts(p.columns.result)]
    for bands in _cuts(strips.rows.result):
        height, row_count = strips.rows.reach(bands)
        for (span, width, column_count), shares in itertools.product(spans, _cuts(panels)):
            count, panels_here = row_count * column_count, -(-panels // shares)
            copying = COPY_COST * (1 if strips.count == span == 1 else ROW_COPY)
            for blocks in _cuts(p.channels):
                pixel_count = height * width * -(-p.channels // blocks) * lanes
                sum_count = (panels_here if blocks > 1 else 1) * tile_rows * (count | 1) * lanes
                if pixel_count + sum_count <= limit:
                    sums = count * panels_here * tile_rows
                    cost = (sums * (p.channels * taps + COPY_COST + SUM_COST * blocks)
                            + copying * height * width * p.channels)
                    yield cost, Split(strips, bands, span, shares, blocks, pixel_count, sum_count)
                    break  # more blocks cost more


def _cuts(count: int) -> list[int]:
    """Numbers of parts into which `count` things may be cut, each with parts about a fifth smaller."""
    parts, size = {1}, count
    while size > 1:
        size = min(size - 1, size * 4 // 5)
        parts.add(-(-count // size))
    return sorted(parts)


def best_split(problem: Problem, tile_rows: int, lanes: int, units: int, limit: int) -> Split | None:
    """The split that should take `units` compute units the least time; None where none fits."""

    def time(cost: float, split: Split) -> float:
        full, rest = divmod(problem.batch * split.strips.count, lanes)
        full, half = full + (rest > lanes // 2), int(0 < rest <= lanes // 2)
        parts = problem.groups * split.bands * split.spans * split.shares
        rounds = -(-full * parts // units)
        left = half * parts - 2 * (rounds * units - full * parts)
        return cost * (rounds + HALF_SET * -(-max(0, left) // units))

    found = [(time(cost, split), split)
             for height in _heights(problem, lanes)
             for cost, split in splits(problem, Strips.of(problem.rows, height), tile_rows, lanes, limit)]
    return min(found, key=lambda entry: entry[0])[1] if found else None


def _heights(problem: Problem, lanes: int) -> list[int]:
    """Rows of a strip worth trying: an image as a whole, and what leaves the fewest lanes idle."""
    rows = problem.rows

    def computed(height: int) -> int:
        used = problem.batch * -(-rows.result // height)
        return -(-used // (lanes // 2)) * (lanes // 2) * height

    heights = {-(-rows.result // count) for count in range(2, 2 * lanes + 1)} - {rows.result}
    fitting = [height for height in heights if height > 0 and height % rows.spread == 0]
    return [rows.result, *sorted(fitting, key=lambda height: (computed(height), -height))[:3]]


class Pointwise:
    """The kernels of a problem with a single tap and no padding, with one tile."""

    def __init__(self, device: Device, problem: Problem, tile: Tile, chunks: int) -> None:
        p = self._problem = problem
        lanes = tile.lanes(device.dtype)
        self._device, self._chunks = device, chunks
        self._pack = _Packing(device, problem, tile, 1)
        self._kernel = device.kernel("conv_images.cl", "pointwise", "bbbbll" + "i" * 11, tile.macros(device.dtype),
                                     heavy=True)
        tiles = -(-(p.rows.result * p.columns.result) // lanes)
        self._local = (-(-tiles // chunks) * lanes * p.channels * device.dtype.itemsize,
                       tile.rows * lanes * device.dtype.itemsize)
        self.workspace_bytes, self.scratch_bytes = 0, self._pack.scratch_bytes

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        """y = x * w + bias, rectified if wanted."""
        p = self._problem
        packed = self._pack.run(w)
        self._kernel.run(p.batch * p.groups * self._chunks, x, packed, bias, y, *self._local, p.groups, p.channels,
                         *p.image, *p.sparse, p.y_channels, p.columns.result, p.rows.result * p.columns.result,
                         self._chunks, int(rectify))


class _Packing:
    """Weights packed for a tile."""

    def __init__(self, device: Device, problem: Problem, tile: Tile, blocks: int) -> None:
        p = problem
        self._scratch = device.scratch
        self._items = p.groups * -(-p.y_channels // tile.rows) * p.channels
        self._numbers = (p.channels, p.y_channels, p.taps, blocks, int(p.turned))
        self._count = self._items * p.taps * tile.rows
        self._kernel = device.kernel("conv_images.cl", "pack_weights", "bbiiiii", tile.macros(device.dtype), heavy=True)
        self.scratch_bytes = device.scratch.reserve("a", self._count)

    def run(self, w: DeviceArray) -> DeviceArray:
        packed = self._scratch.array("a", self._count)
        self._kernel.run(self._items, w, packed, *self._numbers)
        return packed


class Convolution:
    """The kernels of one problem with one tile."""

    def __init__(self, device: Device, problem: Problem, tile: Tile, split: Split) -> None:
        p = self._problem = problem
        self._device, self._split = device, split
        lanes = tile.lanes(device.dtype)
        macros = tile.macros(device.dtype)
        self._pack = _Packing(device, problem, tile, split.blocks)
        self._convolve = device.kernel("conv_images.cl", "convolve", "bbbbbll" + "i" * 27, macros, heavy=True)
        self._items = -(-p.batch * split.strips.count // lanes) * p.groups * split.shares * split.spans * split.bands
        table = np.array(split.strips.rows.table() + p.columns.table(), np.int32).reshape(-1)
        self._table = device.space.allocate(table.size, table.dtype)
        device.space.upload(table, self._table)
        self.workspace_bytes, self.scratch_bytes = table.nbytes, self._pack.scratch_bytes

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        """y = x * w + bias, rectified if wanted."""
        p, split, itemsize = self._problem, self._split, self._device.dtype.itemsize
        packed = self._pack.run(w)
        strips = split.strips
        self._convolve.run(
            self._items, x, packed, bias, y, self._table, split.pixel_count * itemsize, split.sum_count * itemsize,
            p.batch, p.groups, strips.count, strips.step, strips.base, p.channels, *p.image, *p.sparse, p.rows.source,
            p.columns.source, p.y_channels, p.rows.result, strips.rows.result, p.columns.result, p.rows.taps,
            p.columns.taps, p.rows.source_step, p.rows.tap_step, p.columns.source_step, p.columns.tap_step,
            split.blocks, split.bands, split.spans, split.shares, int(rectify))


class _Forward(ForwardPass):
    def __init__(self, convolution: Convolution | Pointwise) -> None:
        self._convolution = convolution
        self.workspace_bytes, self.scratch_bytes = convolution.workspace_bytes, convolution.scratch_bytes

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        self._convolution.run(x, w, bias, y, rectify)


class _GradInput(GradInputPass):
    def __init__(self, convolution: Convolution | Pointwise) -> None:
        self._convolution = convolution
        self.workspace_bytes, self.scratch_bytes = convolution.workspace_bytes, convolution.scratch_bytes

    def run(self, dy: DeviceArray, w: DeviceArray, dx: DeviceArray) -> None:
        self._convolution.run(dy, w, None, dx, False)


def forward_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[ForwardPass]]:
    """The ways to compute the forward pass, what should be fastest first; none where they do not fit."""
    if not _serves(device, geometry):
        return []
    return [Variant(name, functools.partial(_make_forward, make))
            for name, make in _ways(device, Problem.forward(geometry))]


def grad_input_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradInputPass]]:
    """The ways to compute grad_input, what should be fastest first; none where they do not fit."""
    if not _serves(device, geometry):
        return []
    return [Variant(name, functools.partial(_make_grad_input, make))
            for name, make in _ways(device, Problem.grad_input(geometry))]


_Make = Callable[[], Convolution | Pointwise]


def _make_forward(make: _Make) -> ForwardPass:
    return _Forward(make())


def _make_grad_input(make: _Make) -> GradInputPass:
    return _GradInput(make())


def _serves(device: Device, geometry: ConvolutionGeometry) -> bool:
    return (device.context.is_cpu and len(geometry.input) in (1, 2)
            and all((*geometry.x_shape, *geometry.w_shape, *geometry.y_shape)))


def _ways(device: Device, problem: Problem) -> list[tuple[str, _Make]]:
    """The ways to compute a problem."""
    units = device.context.device.max_compute_units
    limit = min(LOCAL_BYTES, device.context.device.local_mem_size) // device.dtype.itemsize
    tiles = [_tile(problem.y_channels, AVX2_ROWS, 2, 32, False)]
    if device.context.processor_flags >= AVX512_FLAGS:
        tiles.insert(0, _tile(problem.y_channels, AVX512_ROWS, 1, 64, True))
    ways: list[tuple[str, _Make]] = []
    for tile in tiles:
        name, lanes = tile.name(device.dtype), tile.lanes(device.dtype)
        if problem.is_pointwise and (chunks := _chunks(problem, tile.rows, lanes, units, limit)):
            ways.append((f"pointwise {name}", functools.partial(Pointwise, device, problem, tile, chunks)))
        if split := best_split(problem, tile.rows, lanes, units, limit):
            ways.append((f"images {name}", functools.partial(Convolution, device, problem, tile, split)))
    return ways


def _tile(channels: int, sizes: range, vectors: int, vector_bytes: int, avx512: bool) -> Tile:
    """The tile that computes the fewest channels in vain; of those the largest."""
    rows = min(sizes, key=lambda rows: (-(-channels // rows) * rows, -rows))
    return Tile(rows, vectors, vector_bytes, avx512)


def _chunks(problem: Problem, tile_rows: int, lanes: int, units: int, limit: int) -> int:
    """Into how many chunks the pixels of an image are cut; 0 where one does not fit."""
    tiles = -(-(problem.rows.result * problem.columns.result) // lanes)
    most = (limit - tile_rows * lanes) // (lanes * problem.channels)
    if most < 1:
        return 0
    parts = problem.batch * problem.groups
    return min(tiles, max(-(-tiles // most), -(-4 * units // parts)))
