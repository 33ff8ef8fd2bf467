"""What the engines of this package do for a pass, counted from its shapes: words copied, tiles multiplied, calls made.

Counts are what happens, whatever it costs; `engine_model` multiplies them by calibrated costs.

calls : of NumPy
words, bytes : moved.  A word is an element of the tensor or of a tile
runs : words side by side that one step of a copy moves
turned : words of a copy whose source and target run along different axes
far : words of buffers that a core's second cache does not hold
added : words that are added to others, or folded
edges : short rows of tiles, at the edge of a matrix or where lanes do not lie side by side
aside : words that are copied aside first, since their addresses collide in a core's first cache
gathered : words that go straight from the framed input into tiles
jumps : words of tiles whose rows lie so far apart that each is another page
quantised : words brought into fixed point
tile_products, tiles : of the busiest unit of the device: Tr x Tp by Tp x Tc, and tiles of C
streamed : words of operands that a unit reads from beyond its caches
"""

from __future__ import annotations

import math

from ..gemm.batching import (
    IMAGES_INNERMOST,
    batched_gemm,
    chunk_of,
    collide,
    images_a_product,
    side_by_side,
    straight,
    turned,
)
from ..gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from ..gemm.tiles import ALIAS_BYTES, TileSizes
from ..precision.formats import NumberFormat

Counts = dict[str, float]

# Stages of a pass on an array, as the engine measures them, and what lies between them.
FPGA_STAGES = ("im2col", "tiling", "write", "kernel", "read", "untiling", "overhead")
# What may be counted in each stage, in the order in which reports show it.
COUNTED = {
    "im2col": ("calls", "words", "runs", "turned", "aside", "added"),
    "tiling": ("calls", "words", "turned", "edges", "aside", "gathered", "far", "quantised"),
    "write": ("transfers", "bytes"),
    "kernel": ("launches", "tile_products", "tiles", "streamed"),
    "read": ("transfers", "bytes"),
    "untiling": ("calls", "words", "far", "jumps", "added"),
    "overhead": ("passes", "products", "bytes"),
}
WORD_BYTES = 4
# A core's second cache: what is larger comes from further away each time.
CACHE_BYTES = 1 << 20


def add(total: Counts, more: Counts, times: float = 1.0) -> None:
    """Add `times` as much as `more` to `total`."""
    for name, count in more.items():
        total[name] = total.get(name, 0.0) + times * count


# ---- the array ----------------------------------------------------------------------------------------------


def fpga_work(geometry: ConvolutionGeometry, pass_: Pass, tiles: TileSizes, fmt: NumberFormat,
              units: int = 1) -> dict[str, Counts]:
    """What a pass on the array does, stage by stage.

    Parameters
    ----------
    geometry, pass_ : the pass; several images make a product, as in `gemm.batching`
    tiles, fmt : of the bitstream
    units : tiles of C that the device computes at a time

    Returns
    -------
    dict : for each of `FPGA_STAGES` the counts of `COUNTED`
    """
    work: dict[str, Counts] = {stage: dict.fromkeys(names, 0.0) for stage, names in COUNTED.items()}
    work["overhead"]["passes"] = 1
    images = images_a_product(geometry, WORD_BYTES)
    full, rest = divmod(geometry.batch, images)
    images_last = images >= IMAGES_INNERMOST
    direct = straight(geometry, pass_, images, tiles.tc, fmt.is_fixed)
    if direct and pass_ is Pass.GRAD_WEIGHT:
        add(work["im2col"], {"calls": 1, "added": math.prod(geometry.w_shape)})  # back into the order of the weights
    for some, chunks in ((images, full), (rest, 1 if rest else 0)):
        if not chunks:
            continue
        add(work["im2col"], _im2col(geometry, pass_, some, images_last, direct), chunks)
        run = side_by_side(geometry, pass_, some, images_last) if direct else 0
        product = _product(batched_gemm(geometry, pass_, some), pass_, tiles, fmt, units, run)
        for stage, counts in product.items():
            add(work[stage], counts, chunks * geometry.group)
    return work


def _im2col(g: ConvolutionGeometry, pass_: Pass, images: int, images_last: bool, direct: bool = False) -> Counts:
    """Host work around the products of one chunk of images; `direct` where columns go straight into tiles."""
    work = dict.fromkeys(COUNTED["im2col"], 0.0)
    positions = images * g.pixels
    size, width = math.prod(g.input), g.input[-1]

    def copy(channels: int, pixels: int, run: int) -> None:
        """Images first to channels first."""
        words = channels * pixels * images
        if not images_last:
            add(work, {"calls": 1, "words": words, "runs": words / run})
            return
        aside = words if collide(images, channels * pixels * WORD_BYTES) else 0
        add(work, {"calls": 1, "turned": words, "runs": words / images, "aside": aside})

    def place(channels: int, pixels: int, run: int) -> None:
        """Back: channels first to images first."""
        words = channels * pixels * images
        kind, run = ("turned", images) if images_last else ("words", run)
        add(work, {"calls": 1, kind: words, "runs": words / run})

    def gather(channels: int) -> None:
        """Channels first; one image is a view."""
        if images > 1:
            copy(channels, g.pixels, g.pixels)

    if direct and pass_ is Pass.GRAD_WEIGHT:
        words = g.in_channels * size * images  # channels innermost; the gradient's images one behind the other
        images_last = False
        gather(g.out_channels)
        add(work, {"calls": 1, "turned": words, "runs": words / g.in_channels})
        return work
    unrolled = g.in_channels * math.prod(g.kernel) * positions
    # Positions that lie side by side in the framed input.
    run = (images if images_last else 1) * (g.output[-1] if g.stride[-1] == 1 else 1)
    if pass_ is not Pass.GRAD_INPUT:
        if g.is_pointwise:
            gather(g.in_channels)
        else:
            copy(g.in_channels, size, width)
            if not direct:
                add(work, {"calls": 1, "words": unrolled, "runs": unrolled / run})
    if pass_ is Pass.FORWARD:
        add(work, {"calls": 1, "added": g.out_channels * positions})  # the bias, where the product lies
        place(g.out_channels, g.pixels, g.pixels)
        return work
    gather(g.out_channels)
    if pass_ is Pass.GRAD_INPUT:
        if g.is_pointwise:
            place(g.in_channels, g.pixels, g.pixels)
        else:
            taps = math.prod(g.kernel)
            add(work, {"calls": taps, "added": unrolled, "runs": unrolled / run})
            place(g.in_channels, size, width)
    return work


def _product(shape: GemmShape, pass_: Pass, tiles: TileSizes, fmt: NumberFormat, units: int,
             run: int) -> dict[str, Counts]:
    """One product of the engine, `gemm.engine.BlockedGemm`, where nothing has to be cut.

    `run` is how many columns of B lie side by side in the framed input that they come from, 0 where B is a matrix.
    """
    nr, nc, np_ = tiles.counts(shape)
    k = np_ * tiles.tp
    a, b, c = nr * tiles.tr * k, nc * tiles.tc * k, nr * tiles.tr * nc * tiles.tc
    storage, sums = fmt.storage_dtype.itemsize, fmt.accumulator_dtype.itemsize
    tiling = dict.fromkeys(COUNTED["tiling"], 0.0)
    # Operands that are tiled as they lie have runs; those of which rows become columns are turned.
    matrices = [(shape.m, tiles.tr, pass_ is Pass.GRAD_INPUT, shape.k)]
    if run:
        add(tiling, _gathered(shape, tiles, run, CACHE_BYTES // storage))
    else:
        matrices.append((shape.n, tiles.tc, pass_ is not Pass.GRAD_WEIGHT, shape.k))
    for length, size, lies, stride in matrices:
        strips = -(-length // size)
        words = strips * size * k
        turned = length // size * size * shape.k
        add(tiling, {"calls": 1, "words": words if lies else words - turned, "turned": 0 if lies else turned,
                     "edges": shape.k if length % size else 0,
                     "aside": turned if not lies and stride * WORD_BYTES % ALIAS_BYTES == 0 else 0,
                     "far": words if words * storage > CACHE_BYTES else 0})
    tiling["quantised"] = shape.m * shape.k + shape.k * shape.n if fmt.is_fixed else 0
    tiles_a_unit = -(-nr * nc // units)
    # Each tile of C reads a strip of A and one of B; those that a cache keeps come from afar only once.
    a_far = nr * nc if tiles.tr * k * storage > CACHE_BYTES else nr
    b_far = nr * nc if b * storage > CACHE_BYTES else nc
    results = shape.m * shape.n
    return {
        "tiling": tiling,
        "write": {"transfers": 2, "bytes": (a + b) * storage},
        "kernel": {"launches": 1, "tile_products": tiles_a_unit * np_, "tiles": tiles_a_unit,
                   "streamed": (a_far * tiles.tr + b_far * tiles.tc) * k / units},
        "read": {"transfers": 1, "bytes": c * sums},
        "untiling": {"calls": (1 + (shape.m % tiles.tr > 0)) * (1 + (shape.n % tiles.tc > 0)), "words": results,
                     "far": results if c * sums > CACHE_BYTES else 0,
                     "jumps": results if c // nr * sums > CACHE_BYTES // 2 else 0,
                     "added": results if pass_ is Pass.GRAD_WEIGHT or fmt.is_fixed else 0},
        "overhead": {"products": 1, "bytes": (a + b) * storage + c * sums},
    }


def _gathered(shape: GemmShape, tiles: TileSizes, run: int, near: int) -> Counts:
    """Tiles of B out of a framed input, of whose columns `run` lie side by side; a cache holds `near` words."""
    size, k = tiles.tc, -(-shape.k // tiles.tp) * tiles.tp
    strips, runs = -(-shape.n // size), -(-shape.n // run)
    words, gathered = strips * size * k, shape.n * shape.k
    # Ends of runs within a strip, which is copied in pieces then.
    cuts = runs - 1 - (runs - 1) // (size // math.gcd(run, size))
    pieces = cuts + min(cuts, strips)
    return {"calls": pieces + (runs if run % size else 1), "words": words - gathered, "gathered": gathered,
            "edges": (pieces + (shape.n % size > 0)) * shape.k, "far": words if words > near else 0}


# ---- the processor ------------------------------------------------------------------------------------------

CPU_COUNTED = (*COUNTED["im2col"], "passes", "macs", "operands")


def cpu_work(geometry: ConvolutionGeometry, pass_: Pass, threads: int) -> Counts:
    """What the busiest thread of the CPU op set does for a pass: the counts of `CPU_COUNTED`."""
    other = turned(geometry) if pass_ is Pass.GRAD_INPUT else None
    if other is not None:
        return cpu_work(other, Pass.FORWARD, threads)
    g = geometry
    images, rows = chunk_of(g, threads, WORD_BYTES)
    share = rows / g.output[0]
    # Chunks of one image cannot be shared out where they overlap.
    parts = -(-g.output[0] // rows)
    groups = -(-g.batch // images)
    chunks = groups * parts
    if pass_ is Pass.GRAD_INPUT:
        mine = -(-groups // max(1, min(threads, groups))) * parts
    else:
        mine = -(-chunks // max(1, min(threads, chunks)))
    shape = batched_gemm(g, pass_, images)
    work: Counts = {"passes": 1}
    host = _im2col(g, pass_, images, images >= IMAGES_INNERMOST)
    calls = host.pop("calls")
    # The last chunks are smaller than the others.
    work_share = mine * min(share, g.batch * g.output[0] / (chunks * images * g.output[0]))
    add(work, host, work_share)
    add(work, {"calls": calls}, mine)
    add(work, {"macs": shape.macs, "operands": shape.m * shape.k + shape.k * shape.n + shape.m * shape.n},
        work_share * g.group)
    return work


# ---- OpenCL -------------------------------------------------------------------------------------------------

# Unrolled images of one round on a CPU device, and about how many columns a tile has.
OPENCL_ROUND_BYTES = 4 << 20
OPENCL_TILE = 32
OPENCL_COUNTED = ("passes", "rounds", "macs", "packed", "unrolled", "tested", "results", "folded", "bytes")


def opencl_work(geometry: ConvolutionGeometry, pass_: Pass) -> Counts:
    """What the OpenCL op set does for a pass whose operands come from the host and whose result goes there.

    The counts are those of `OPENCL_COUNTED`; an unrolled element is *tested* where the input has a border of zeros.
    """
    g = geometry
    image = g.gemm(pass_)
    columns = -(-image.n // OPENCL_TILE) * OPENCL_TILE
    image_words = g.group * g.depth * -(-g.pixels // OPENCL_TILE) * OPENCL_TILE
    images = max(1, min(g.batch, OPENCL_ROUND_BYTES // max(1, image_words * WORD_BYTES)))
    rounds, products = -(-g.batch // images), g.batch * g.group
    weights, x, y = (math.prod(shape) for shape in (g.w_shape, g.x_shape, g.y_shape))
    work: Counts = {"passes": 1, "rounds": rounds, "macs": products * image.m * columns * image.k,
                    "bytes": (x + y + weights) * WORD_BYTES}
    right = products * columns * image.k
    if pass_ is Pass.GRAD_INPUT:
        return {**work, "packed": weights + right, "results": products * image.m * image.n,
                "folded": 0 if g.is_pointwise else products * g.depth * g.pixels}
    tested = right if max(g.pad) else 0
    if pass_ is Pass.FORWARD:
        return {**work, "packed": weights, "unrolled": right, "tested": tested, "results": y}
    return {**work, "packed": y, "unrolled": right, "tested": tested, "results": rounds * weights,
            "bytes": work["bytes"] + weights * WORD_BYTES}
