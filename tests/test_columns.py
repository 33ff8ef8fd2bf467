"""Columns gathered from images and folded back, in the layouts of memory that are copied in ways of their own."""

from __future__ import annotations

import numpy as np
import pytest
from tensors import numbers

from barista.gemm.batching import collide
from barista.gemm.shapes import ConvolutionGeometry
from barista.ops.columns import ASIDE_WORDS, Chunk, Columns

# (channels, height, width): images that collide in the cache, whole channels and several of them put aside at a
# time, one channel larger than what is put aside; and images that do not collide.
IMAGES = [(4, 16, 16), (3, 32, 32), (40, 8, 16), (1, 64, 128), (3, 5, 7)]


@pytest.mark.parametrize("image", IMAGES, ids=str)
@pytest.mark.parametrize("rows", [(0, None), (1, 3)], ids=["all rows", "some rows"])
@pytest.mark.parametrize("images", [2, 10, 15])
def test_images_innermost(image: tuple[int, int, int], rows: tuple[int, int | None], images: int) -> None:
    """Position (row, column, image) of tap t holds the pixel that t steps from there, or 0 beyond the edge."""
    channels, height, width = image
    g = ConvolutionGeometry(images + 3, channels, 5, (height, width), (3, 2), (1, 1), (1, 0), (1, 1))
    x = numbers(g.x_shape)
    first, last = rows[0], g.output[0] if rows[1] is None else rows[1]
    chunk = Chunk(2, 2 + images, first, last)
    columns = Columns(g, np.dtype(np.float32), images_last=True)
    columns.reserve(chunk)
    padded = np.pad(x[2:2 + images], ((0, 0), (0, 0), (1, 1), (0, 0)))
    expected = np.stack([padded[:, :, first + i:last + i, j:j + g.output[1]] for i in range(3) for j in range(2)], 2)
    expected = np.moveaxis(expected, 0, -1).reshape(1, g.depth, -1)
    for _ in range(2):  # the second time in memory that has been used
        found = columns.unroll(x, chunk, np.full(expected.size, np.nan, np.float32))
        np.testing.assert_array_equal(found, expected)
    dy = numbers(g.y_shape, 1)
    gathered = columns.gather(dy, chunk, np.full(dy.size, np.nan, np.float32))
    np.testing.assert_array_equal(gathered, np.moveaxis(dy[2:2 + images, :, first:last], 0, -1).reshape(5, -1))


def test_the_cases_collide_as_they_say() -> None:
    assert [collide(15, c * h * w * 4) for c, h, w in IMAGES] == [True, True, True, True, False]
    assert not any(collide(10, c * h * w * 4) for c, h, w in IMAGES)
    assert [h * w > ASIDE_WORDS for _, h, w in IMAGES] == [False, False, False, True, False]
    assert collide(21, 2048 * 27) and not collide(20, 2048 * 27)  # two sets of eight, and a quarter more
    assert not collide(100, 4096 + 64)
