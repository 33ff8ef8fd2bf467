"""How a convolution over a batch becomes matrix products: how many images go into one.

Barista's papers multiply image by image, as Caffe does (`ConvolutionGeometry.gemm`).  Here several images lie side
by side along N, or one behind the other along K, so that an array gets few, large products.  Pure arithmetic: the
FPGA backend cuts its batches by it, and models that predict the backend count the same products.
"""

from __future__ import annotations

import dataclasses

from .shapes import ConvolutionGeometry, GemmShape, Pass

# Columns of one product (measured): as many images as fit, so that what the array reads of the weights is read seldom,
# and few enough to stay in a processor's caches between im2col and tiling.
COLUMN_BYTES = 4 << 20


def images_a_product(geometry: ConvolutionGeometry, word_bytes: int = 4) -> int:
    """Images that one product takes: as many as `COLUMN_BYTES` hold, and as equal products as can be."""
    g = geometry
    image_bytes = max(1, g.group * g.depth * g.pixels * word_bytes)
    products = -(-g.batch // max(1, COLUMN_BYTES // image_bytes))
    return max(1, -(-g.batch // max(1, products)))


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
