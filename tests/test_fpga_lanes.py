"""Columns that are cut into tiles straight from the framed input are those that a matrix of columns would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensors import numbers

from barista.errors import ShapeError
from barista.gemm.array_model import ModelArray
from barista.gemm.engine import BlockedGemm
from barista.gemm.shapes import ConvolutionGeometry, GemmShape
from barista.gemm.tiles import TileSizes, tile_lanes
from barista.ops.columns import Chunk, Columns
from barista.ops.fpga.lanes import FramedLanes, Pixels
from barista.precision.formats import FORMATS


def laid_out(lanes: FramedLanes, size: int, depth: int, cut: int) -> np.ndarray:
    """All tiles, laid out in two parts, the first of `cut` strips, in memory that was used."""
    count, k = lanes.shape
    tiles = np.full((-(-count // size), -(-k // depth), depth, size), np.nan, np.float32)
    for first, last in ((0, cut), (cut, len(tiles))):
        if first < last:
            lanes.lay_out(first, tiles[first:last])
    return tiles


GEOMETRIES = [
    ConvolutionGeometry(5, 4, 6, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    ConvolutionGeometry(7, 3, 6, (12, 11), (5, 2), (2, 3), (2, 0), (1, 1)),
    ConvolutionGeometry(6, 4, 6, (10, 9), (3, 3), (1, 1), (0, 2), (2, 2), 2),
    ConvolutionGeometry(4, 16, 6, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    ConvolutionGeometry(3, 2, 2, (20,), (4,), (1,), (1,), (1,), 2),
    ConvolutionGeometry(4, 2, 5, (5, 6, 7), (2, 3, 2), (1, 2, 1), (1, 0, 1), (1, 1, 1)),
    ConvolutionGeometry(1, 2, 5, (1, 9), (1, 3), (1, 1), (0, 0), (1, 1)),
]


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
@given(size=st.integers(1, 20), depth=st.integers(1, 9), images=st.integers(1, 7), cut=st.integers(0, 9),
       images_last=st.booleans())
@example(size=4, depth=5, images=4, cut=1, images_last=True)
@example(size=16, depth=16, images=4, cut=3, images_last=True)
@settings(max_examples=25, deadline=None)
def test_tiles_are_those_of_the_matrix(g: ConvolutionGeometry, size: int, depth: int, images: int, cut: int,
                                       images_last: bool) -> None:
    x = numbers(g.x_shape)
    last = min(images, g.batch)
    chunk = Chunk(g.batch - last, g.batch, 0, g.output[0])
    columns = Columns(g, np.dtype(np.float32), images_last)
    columns.reserve(chunk)
    frame, window = columns.frame(x, chunk)
    unrolled = columns.unroll(x, chunk, np.empty(g.group * g.depth * last * g.pixels, np.float32))
    pixels = Pixels(g, np.dtype(np.float32))
    pixels.reserve(chunk)
    in_turn = Columns(g, np.dtype(np.float32), False)
    in_turn.reserve(chunk)
    matrix = in_turn.unroll(x, chunk, np.empty(unrolled.size, np.float32))
    channels = g.in_channels // g.group
    weights = pixels.lanes(x, chunk)
    for group in range(g.group):
        positions = FramedLanes(frame, window[group * channels:(group + 1) * channels], 1 + len(g.kernel))
        # Weights are ordered (*kernel, C).
        rows = np.moveaxis(matrix[group].reshape(channels, *g.kernel, -1), 0, -2).reshape(g.depth, -1)
        for lanes, expected in ((positions, unrolled[group].T), (weights[group], rows)):
            assert lanes.shape == expected.shape
            tiles = laid_out(lanes, size, depth, min(cut, -(-len(expected) // size)))
            other = np.full_like(tiles, np.nan)
            tile_lanes(expected, other)
            np.testing.assert_array_equal(tiles, other)


def test_runs_are_what_lies_side_by_side() -> None:
    g = GEOMETRIES[0]
    chunk = Chunk(0, 5, 0, g.output[0])
    columns, pixels = Columns(g, np.dtype(np.float32), True), Pixels(g, np.dtype(np.float32))
    columns.reserve(chunk)
    pixels.reserve(chunk)
    x = numbers(g.x_shape)
    assert FramedLanes(*columns.frame(x, chunk), 3).run == 8 * 5
    assert [lanes.run for lanes in pixels.lanes(x, chunk)] == [3 * 4]


def test_fixed_point_needs_a_matrix() -> None:
    g = GEOMETRIES[0]
    chunk = Chunk(0, 5, 0, g.output[0])
    pixels = Pixels(g, np.dtype(np.float32))
    pixels.reserve(chunk)
    [lanes] = pixels.lanes(numbers(g.x_shape), chunk)
    engine = BlockedGemm(ModelArray(TileSizes(2, 3, 4), FORMATS["dfxp8"]), GemmShape(6, *lanes.shape))
    with pytest.raises(ShapeError, match="dfxp8 scales B by its largest number, so B must be a matrix; unroll it"):
        engine.run(numbers((6, lanes.shape[1])), lanes, np.empty((6, lanes.shape[0]), np.float32))
    wrong = BlockedGemm(ModelArray(TileSizes(2, 3, 4), FORMATS["fp32"]), GemmShape(6, 7, 8))
    with pytest.raises(ShapeError, match=r"B has shape \(36, 360\), expected \(7, 8\)"):
        wrong.run(numbers((6, 8)), lanes, np.empty((6, 7), np.float32))
