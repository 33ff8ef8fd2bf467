"""C = alpha op(A) op(B) + beta C over tiles: what an array is asked to do, and the engine that asks it.

The engine cuts C into blocks of tiles.  While the array computes one block, the host lays out the tiles of the
next and untiles the one before, where the array leaves the host's cores free for it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError, ShapeError, out_of_memory
from ..precision.formats import NumberFormat, quantise_product
from .shapes import GemmShape
from .tiles import Lanes, Matrix, TileSizes, Workspace, untile_c

Array = npt.NDArray[Any]

_log = logging.getLogger(__name__)

# Blocks of a product whose tiling overlaps with the array's work: the first one's tiling and the last one's
# untiling stay exposed, a quarter of the whole.
OVERLAPPED_BLOCKS = 4
# Multiply-accumulates below which cutting a block costs more (a launch, a thread) than overlapping gains: some
# 0.3 ms of an array of 100 GMAC/s.
SMALLEST_BLOCK_MACS = 1 << 25

# Words of tiles from which on two threads share the tiling (measured: below, waking one costs what it gains; results
# of common products are too small for it).
SHARED_WORDS = 1 << 19


@dataclasses.dataclass(frozen=True)
class StageTimes:
    """Seconds that a product spent in each stage (thesis, Fig. 4.5); they add up with ``+``.

    Stages that overlap are each counted in full.
    """

    tiling: float = 0.0
    write: float = 0.0
    kernel: float = 0.0
    read: float = 0.0
    untiling: float = 0.0

    def __add__(self, other: StageTimes) -> StageTimes:
        return StageTimes(self.tiling + other.tiling, self.write + other.write, self.kernel + other.kernel,
                          self.read + other.read, self.untiling + other.untiling)

    @property
    def total(self) -> float:
        """Sum of all stages, in seconds."""
        return self.tiling + self.write + self.kernel + self.read + self.untiling


class TileArray(Protocol):
    """Something that multiplies tiles, in the layouts of `tiles`.

    Attributes
    ----------
    name : for messages
    tiles : its tile sizes
    format : its number format
    overlaps : whether the host's cores are free while it computes, so that tiling the next block meanwhile pays
    """

    name: str
    tiles: TileSizes
    format: NumberFormat
    overlaps: bool

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        """Begin a product of nr x nc tiles of C with `np_` tiles along K, or begin it again after a failure.

        Memory is found too small in `multiply`, never here.

        Returns
        -------
        (rows, columns) : the largest block, in tiles of C, that one `multiply` takes; each from 1 to nr and nc
        """
        ...

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        """Overwrite `c_tiles` with the product of one block; returns when it is in host memory.

        Until the next `begin`, memory that was given once as `a_tiles` or `b_tiles` does not change, so an
        array may keep an operand on the device and recognise it by its address and size.

        Parameters
        ----------
        a_tiles : [nr][np][Tp][Tr], C order, 64-byte aligned buffers, dtype `format.storage`
        b_tiles : [nc][np][Tp][Tc], likewise
        c_tiles : [nr][nc][Tr][Tc], dtype `format.accumulator`
        nr, nc, np_ : tiles of this block, each at least 1

        Returns
        -------
        StageTimes : write, kernel and read; tiling and untiling are 0

        Raises
        ------
        DeviceError : the device failed; where the message names one of `errors.OUT_OF_MEMORY` the engine comes back
            with a smaller block
        """
        ...


@dataclasses.dataclass(frozen=True)
class _Block:
    """Tiles of C from row r0 to r1 and from column c0 to c1."""

    r0: int
    r1: int
    c0: int
    c1: int

    @property
    def rows(self) -> int:
        return self.r1 - self.r0

    @property
    def columns(self) -> int:
        return self.c1 - self.c0

    def cut(self, rows: int, columns: int) -> list[_Block]:
        """The block in pieces of at most `rows` x `columns` tiles."""
        return [_Block(r, min(r + rows, self.r1), c, min(c + columns, self.c1))
                for r in range(self.r0, self.r1, rows) for c in range(self.c0, self.c1, columns)]


class BlockedGemm:
    """C(M, N) = alpha op(A)(M, K) op(B)(K, N) + beta C(M, N), row-major, by an array of tiles.

    Made once a shape, run many times.

    Parameters
    ----------
    array : what multiplies
    shape : M, N and K, any of which may be 0
    trans_a, trans_b : A is given as (K, M), B as (N, K)
    rng : None rounds to nearest where the array computes in fixed point, a generator rounds stochastically
    workspace : tile buffers; engines that run one after another may share one, None makes one

    Attributes
    ----------
    times : what all calls so far took, together
    counts : (nr, nc, np), tiles along M, N and K
    limits : largest block, in tiles of C, that the array was not seen to fail on
    """

    def __init__(self, array: TileArray, shape: GemmShape, trans_a: bool = False, trans_b: bool = False,
                 rng: np.random.Generator | None = None, workspace: Workspace | None = None) -> None:
        self.array, self.shape = array, shape
        self.trans_a, self.trans_b = trans_a, trans_b
        self.times = StageTimes()
        self.rng = rng
        self.workspace = workspace or Workspace()
        self.counts = array.tiles.counts(shape)
        self.limits = self.counts[:2]

    @property
    def tile_bytes(self) -> dict[str, int]:
        """Bytes of the tiles of A, B and C that one call needs on the host, where nothing has to be cut."""
        (nr, nc, steps), tiles, fmt = self.counts, self.array.tiles, self.array.format
        depth_bytes = steps * tiles.tp * fmt.storage_dtype.itemsize
        return {"a": nr * tiles.tr * depth_bytes, "b": nc * tiles.tc * depth_bytes,
                "c": nr * tiles.tr * nc * tiles.tc * fmt.accumulator_dtype.itemsize}

    @property
    def workspace_bytes(self) -> int:
        """All of these."""
        return sum(self.tile_bytes.values())

    def run(self, a: Array, b: Array | Lanes, c: Array, alpha: float = 1.0, beta: float = 0.0) -> StageTimes:
        """Compute one product.

        In fixed point each operand gets one scale, and C is exact but for the rounding of A and B and of the
        result to the dtype of `c`.

        Parameters
        ----------
        a, b : A and B as the engine was told, any strides, floats; in floating point B may also be the columns of
            op(B) that lay themselves out
        c : (M, N), any strides, floats; shares no memory with `a` and `b`
        beta : 0 overwrites C whatever it held; alpha = 0 likewise does not read A and B

        Returns
        -------
        StageTimes : of this call; quantising counts as tiling, scaling as untiling

        Raises
        ------
        ShapeError : an array of another shape
        DeviceError : the array failed, or has too little memory for a single tile of C
        DataError : fixed point was given NaN or infinity
        """
        self._check(a, b, c)
        if c.size == 0:
            return StageTimes()
        if self.shape.k == 0 or alpha == 0:
            c[...] = 0 if beta == 0 else c * beta
            return StageTimes()
        rows = a.T if self.trans_a else a
        columns = b if not isinstance(b, np.ndarray) else b if self.trans_b else b.T
        times = _Call(self, rows, columns, c, float(alpha), float(beta)).run()
        self.times += times
        return times

    def _check(self, a: Array, b: Array | Lanes, c: Array) -> None:
        """Raise the error where an operand does not fit."""
        shape = self.shape
        transposed = self.trans_b or not isinstance(b, np.ndarray)
        wanted = {"A": (shape.k, shape.m) if self.trans_a else (shape.m, shape.k),
                  "B": (shape.n, shape.k) if transposed else (shape.k, shape.n), "C": (shape.m, shape.n)}
        for (name, expected), given in zip(wanted.items(), (a, b, c), strict=True):
            if given.shape != expected:
                raise ShapeError(f"GEMM M={shape.m} N={shape.n} K={shape.k} on {self.array.name}: {name} has shape "
                                 f"{given.shape}, expected {expected}; transpose it or make an engine of its shape")
        if self.array.format.is_fixed and not isinstance(b, np.ndarray):
            raise ShapeError(f"GEMM M={shape.m} N={shape.n} K={shape.k} on {self.array.name}: {self.array.format.name} "
                             "scales B by its largest number, so B must be a matrix; unroll it")


# Strips of an operand to be laid out: its lanes, the first strip, the tiles of this one and the next.
_Strips = tuple[Lanes, int, Array]


class _Call:
    """One product on its way: which tiles are laid out, which block computes."""

    def __init__(self, engine: BlockedGemm, rows: Array, columns: Array | Lanes, c: Array, alpha: float,
                 beta: float) -> None:
        self._engine, self._array = engine, engine.array
        nr, nc, self._steps = engine.counts
        self._c, self._alpha, self._beta = c, alpha, beta
        self._tiling = self._untiling = 0.0
        start = time.perf_counter()
        if self._array.format.is_fixed and isinstance(columns, np.ndarray):
            rows, a_exponent, turned, b_exponent = quantise_product(rows, columns.T, self._array.format, engine.rng)
            columns = turned.T
            self._alpha = float(np.ldexp(alpha, -(a_exponent + b_exponent)))
        self._a: Lanes = Matrix(rows)
        self._b: Lanes = Matrix(columns) if isinstance(columns, np.ndarray) else columns
        tiles, dtype = self._array.tiles, self._array.format.storage_dtype
        self._a_tiles = engine.workspace.take("a", tiles.a_shape(nr, self._steps), dtype)
        self._b_tiles = engine.workspace.take("b", tiles.b_shape(nc, self._steps), dtype)
        self._a_ready = np.zeros(nr, bool)
        self._b_ready = np.zeros(nc, bool)
        self._tiling += time.perf_counter() - start

    def run(self) -> StageTimes:
        """Work through the blocks, cutting those that the array cannot take."""
        nr, nc, _ = self._engine.counts
        rows, columns = self._block_limits()
        waiting = deque(_Block(0, nr, 0, nc).cut(rows, columns))
        if self._array.overlaps and len(waiting) > 1:
            with ThreadPoolExecutor(1, "barista-array") as pool:
                times = self._work(waiting, pool.submit)
        else:
            times = self._work(waiting, _at_once)
        return times + StageTimes(tiling=self._tiling, untiling=self._untiling)

    def _work(self, waiting: deque[_Block], submit: Callable[..., Future[StageTimes]]) -> StageTimes:
        """Tile a block, wait for the one before, hand the tiled one over, untile the one before."""
        times = StageTimes()
        running: tuple[_Block, Array, Future[StageTimes]] | None = None
        turn = 0
        while waiting or running:
            block = waiting.popleft() if waiting else None
            if block is not None:
                self._tile(block)
            finished = None
            if running is not None:
                failed, c_tiles, future = running
                running = None
                try:
                    times += future.result()
                    finished = failed, c_tiles
                except DeviceError as error:
                    if not out_of_memory(error):
                        raise
                    limits = self._halve(failed, error)
                    left = [failed, *([block] if block is not None else []), *waiting]
                    waiting = deque(piece for part in left for piece in part.cut(*limits))
                    continue
            if block is not None:
                # Two buffers in turn: one is being computed, the other untiled.
                c_tiles = self._engine.workspace.take(f"c{turn}", self._array.tiles.c_shape(block.rows, block.columns),
                                                       self._array.format.accumulator_dtype)
                turn = 1 - turn
                running = block, c_tiles, submit(self._array.multiply, self._a_tiles[block.r0:block.r1],
                                                 self._b_tiles[block.c0:block.c1], c_tiles, block.rows, block.columns,
                                                 self._steps)
            if finished is not None:
                self._untile(*finished)
        return times

    def _block_limits(self) -> tuple[int, int]:
        """Rows and columns of tiles that the array shall take at a time."""
        offered = self._array.begin(*self._engine.counts)
        rows, columns = (min(pair) for pair in zip(offered, self._engine.limits, strict=True))
        if not self._array.overlaps:
            return rows, columns
        pieces = min(OVERLAPPED_BLOCKS, self._engine.shape.macs // SMALLEST_BLOCK_MACS)
        if pieces < 2:
            return rows, columns
        nr, nc, _ = self._engine.counts
        if self._engine.shape.m > self._engine.shape.n:
            return min(rows, -(-nr // pieces)), columns
        return rows, min(columns, -(-nc // pieces))

    def _halve(self, block: _Block, error: DeviceError) -> tuple[int, int]:
        """Limits after a block was too large for the array's memory; they hold for later calls too."""
        tiles = self._array.tiles
        rows, columns = block.rows, block.columns
        if rows == columns == 1:
            raise error
        if columns == 1 or (rows > 1 and rows * tiles.tr >= columns * tiles.tc):
            rows = (rows + 1) // 2
        else:
            columns = (columns + 1) // 2
        self._engine.limits = (rows, columns)
        _log.warning("%s: too little memory for %d x %d tiles of C; going on with blocks of %d x %d (%s)",
                     self._array.name, block.rows, block.columns, rows, columns, error)
        return self._block_limits()

    def _tile(self, block: _Block) -> None:
        """Lay out those tiles of A and B that no block before this one needed."""
        start = time.perf_counter()
        rows, columns = slice(block.r0, block.r1), slice(block.c0, block.c1)
        work: list[_Strips] = []
        if not self._a_ready[rows].all():
            work.append((self._a, block.r0, self._a_tiles[rows]))
        if not self._b_ready[columns].all():
            work.append((self._b, block.c0, self._b_tiles[columns]))
        self._a_ready[rows] = self._b_ready[columns] = True
        _lay_out(work)
        self._tiling += time.perf_counter() - start

    def _untile(self, block: _Block, c_tiles: Array) -> None:
        start = time.perf_counter()
        tr, tc = self._array.tiles.tr, self._array.tiles.tc
        untile_c(c_tiles, self._c[block.r0 * tr:block.r1 * tr, block.c0 * tc:block.c1 * tc], self._alpha, self._beta)
        self._untiling += time.perf_counter() - start


def _lay_out(work: Sequence[_Strips]) -> None:
    """Lay out all strips; where they are many, two threads take half of each operand's."""
    def part(second: bool) -> None:
        for lanes, first, tiles in work:
            half = len(tiles) // 2
            if second:
                lanes.lay_out(first + half, tiles[half:])
            elif half:
                lanes.lay_out(first, tiles[:half])

    if sum(tiles.size for _, _, tiles in work) < SHARED_WORDS:
        for lanes, first, tiles in work:
            lanes.lay_out(first, tiles)
        return
    other = _helper().submit(part, False)
    try:
        part(True)
    finally:
        other.result()


@functools.cache
def _second_thread(process: int) -> ThreadPoolExecutor:
    """A thread of this process: threads do not survive a fork."""
    return ThreadPoolExecutor(1, f"barista-tiles-{process}")


def _helper() -> ThreadPoolExecutor:
    """The thread that lays out half of the tiles; it stays, since starting one takes as long as some tiles."""
    return _second_thread(os.getpid())


def _at_once(work: Callable[..., StageTimes], *arguments: Any) -> Future[StageTimes]:
    """Do the work here and now, and give what it gave as a future."""
    done: Future[StageTimes] = Future()
    try:
        done.set_result(work(*arguments))
    except DeviceError as error:
        done.set_exception(error)
    return done
