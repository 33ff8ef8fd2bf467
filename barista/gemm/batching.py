"""How a convolution over a batch becomes matrix products: how many images go into one.

Barista's papers multiply image by image, as Caffe does (`ConvolutionGeometry.gemm`).  Here several images lie side
by side along N, or one behind the other along K, so that an array gets few, large products, and the processor
chunks that its caches hold.  Pure arithmetic: the CPU and the FPGA backend cut their batches by it, and models that
predict the backends count the same products.
"""

from __future__ import annotations

import dataclasses
import math

from .shapes import ConvolutionGeometry, GemmShape, Pass

# Columns of one product (measured): as many images as fit, so that what the array reads of the weights is read seldom,
# and few enough to stay in a processor's caches between im2col and tiling.
COLUMN_BYTES = 4 << 20
# Columns of one chunk and thread on the processor: about the second cache of a core (measured).
CHUNK_COLUMN_BYTES = 1 << 20
# Images from which on they are the innermost axis of the positions: their runs are then long enough (measured).
IMAGES_INNERMOST = 4
# How much more arithmetic grad_input may take as a convolution with turned weights, which gathers, rather than as a
# product that is scattered with one addition a tap (measured).
TURNED_LIMIT = 1.5
# Rows that the product of turned weights must have at least: BLAS is slow on a handful.
TURNED_ROWS = 8
# A core's first cache: lines this far apart share a set, which holds so many of them.
_ALIKE_BYTES, _WAYS, _LINE_BYTES = 4096, 8, 64


def images_a_product(geometry: ConvolutionGeometry, word_bytes: int = 4) -> int:
    """Images that one product takes: as many as `COLUMN_BYTES` hold, and as equal products as can be."""
    g = geometry
    image_bytes = max(1, g.group * g.depth * g.pixels * word_bytes)
    products = -(-g.batch // max(1, COLUMN_BYTES // image_bytes))
    return max(1, -(-g.batch // max(1, products)))


def side_by_side(geometry: ConvolutionGeometry, pass_: Pass, images: int, images_last: bool) -> int:
    """Lanes of the columns of `images` images, cut into tiles, that lie side by side in the framed input.

    These are positions, or for grad_weight, where channels are innermost, weights.
    """
    g = geometry
    if pass_ is Pass.GRAD_WEIGHT:
        return g.in_channels // g.group * (g.kernel[-1] if g.dilation[-1] == g.group == 1 else 1)
    return (g.output[-1] if g.stride[-1] == 1 else 1) * (images if images_last else 1)


def straight(geometry: ConvolutionGeometry, pass_: Pass, images: int, size: int, fixed: bool) -> bool:
    """Whether columns are cut into an array's tiles straight from the framed input, never a matrix themselves.

    Parameters
    ----------
    images : of a product; the first one's where the last product has fewer
    size : positions of a tile
    fixed : in fixed point the scale of all columns must be known first
    """
    if fixed or geometry.is_pointwise or pass_ is Pass.GRAD_INPUT:
        return False
    return pass_ is Pass.GRAD_WEIGHT or side_by_side(geometry, pass_, images, images >= IMAGES_INNERMOST) >= size


def batched_gemm(geometry: ConvolutionGeometry, pass_: Pass, images: int) -> GemmShape:
    """The product of one group over `images` images."""
    one = geometry.gemm(pass_)
    if pass_ is Pass.GRAD_WEIGHT:
        return dataclasses.replace(one, k=one.k * images)
    return dataclasses.replace(one, n=one.n * images)


def batched_gemms(geometry: ConvolutionGeometry, pass_: Pass, word_bytes: int = 4) -> list[tuple[GemmShape, int]]:
    """All products of a pass over the whole batch, as (shape, how often); groups count one by one."""
    images = images_a_product(geometry, word_bytes)
    full, rest = divmod(geometry.batch, images)
    found = [(batched_gemm(geometry, pass_, images), full * geometry.group)] if full else []
    if rest:
        found.append((batched_gemm(geometry, pass_, rest), geometry.group))
    return found


def chunk_of(geometry: ConvolutionGeometry, threads: int, word_bytes: int = 4) -> tuple[int, int]:
    """Images and output rows that a thread of the processor takes at a time.

    Their columns fit into `CHUNK_COLUMN_BYTES`, and every thread has as many chunks.
    """
    g = geometry
    row_bytes = max(1, g.group * g.depth * math.prod(g.output[1:]) * word_bytes)
    image_bytes = row_bytes * g.output[0]
    if image_bytes > CHUNK_COLUMN_BYTES:
        return 1, max(1, min(g.output[0], CHUNK_COLUMN_BYTES // row_bytes))
    pieces = max(1, -(-g.batch * image_bytes // CHUNK_COLUMN_BYTES))
    pieces = -(-pieces // threads) * threads
    return max(1, -(-g.batch // pieces)), g.output[0]


def turned(geometry: ConvolutionGeometry) -> ConvolutionGeometry | None:
    """The convolution of dy with turned weights that gives dx on the processor, where that is the better way."""
    g = geometry
    pad = tuple(e - 1 - p for e, p in zip(g.extent, g.pad, strict=True))
    if max(g.stride) > 1 or min(pad) < 0 or g.is_pointwise:
        return None
    other = ConvolutionGeometry(g.batch, g.out_channels, g.in_channels, g.output, g.kernel, g.stride, pad, g.dilation,
                                g.group)
    if other.macs > TURNED_LIMIT * g.macs or g.in_channels // g.group < TURNED_ROWS:
        return None
    return other


def collide(images: int, stride_bytes: int) -> bool:
    """Whether a copy that makes `images` the innermost axis is worth another one before it, further apart.

    Images `stride_bytes` apart may share so few sets of the first cache that each line is evicted before it is used
    up; some are worth it only when there are a quarter more of them than places (measured).
    """
    places = _WAYS * (_ALIKE_BYTES // max(_LINE_BYTES, math.gcd(stride_bytes, _ALIKE_BYTES)))
    return 4 * images > 5 * places
