"""The kernels of the array: the mesh equals its model bit for bit, the fast one within rounding; integers always."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opencl_device import open_opencl

from barista.gemm.array_model import ModelArray
from barista.gemm.engine import TileArray
from barista.gemm.tiles import TileSizes
from barista.hardware.board import load_board
from barista.precision.formats import FORMATS, NumberFormat, number_format
from barista.runtime.bitstream_build import build
from barista.runtime.bitstream_program import DeviceArrayEngine
from barista.runtime.context import Context
from barista.runtime.driver import cl

pytestmark = pytest.mark.opencl

Make = Callable[..., DeviceArrayEngine]

# Among them: a single element, no power of two, a long and a wide mesh, fewer products than partial sums.
TILES = ["1,1,1", "3,5,2", "2,16,7", "12,1,11", "7,9,13", "16,16,64", "24,8,40"]
COUNTS = [(1, 1, 1), (2, 3, 2), (1, 2, 5)]
# Those whose kernels an OpenCL device runs.
ENGINES = ["array", "fast"]


@pytest.fixture(scope="module")
def context() -> Context:
    return open_opencl().context


@pytest.fixture(scope="module")
def make(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Build a bitstream and load it."""
    folder: Path = tmp_path_factory.mktemp("bitstreams")

    def make(tile: str, precision: str = "fp32", engine: str = "array", **options: Any) -> DeviceArrayEngine:
        bitstream = build(context, folder, TileSizes.parse(tile), precision, load_board("emulated"), engine)
        return DeviceArrayEngine(context, bitstream, **options)

    return make


def operands(array: TileArray, nr: int, nc: int, np_: int, seed: int = 0) -> tuple[Any, Any]:
    """Tiles with numbers of both signs over the whole range, some of them zero."""
    rng, fmt = np.random.default_rng(seed), array.format
    result = []
    for shape in (array.tiles.a_shape(nr, np_), array.tiles.b_shape(nc, np_)):
        if fmt.is_fixed:
            values = rng.integers(fmt.lower, fmt.upper, shape, fmt.storage_dtype, endpoint=True)
        else:
            values = rng.standard_normal(shape, np.float32)
        values[rng.random(shape) < 0.1] = 0
        result.append(values)
    return result[0], result[1]


def product(array: TileArray, a: Any, b: Any) -> Any:
    """The tiles of C, in memory that held NaN or -1 before."""
    (nr, np_), nc = a.shape[:2], b.shape[0]
    c = np.full(array.tiles.c_shape(nr, nc), -1 if array.format.is_fixed else np.nan, array.format.accumulator_dtype)
    assert array.begin(nr, nc, np_) == (nr, nc)
    array.multiply(a, b, c, nr, nc, np_)
    return c


def bits(values: Any) -> Any:
    return values.view(np.int32)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("tile", TILES)
def test_the_mesh_is_its_model_bit_for_bit(make: Make, tile: str, counts: tuple[int, int, int]) -> None:
    array = make(tile)
    a, b = operands(array, *counts)
    expected = product(ModelArray(array.tiles, array.format), a, b)
    np.testing.assert_array_equal(bits(product(array, a, b)), bits(expected))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tile", ["3,5,2", "16,16,64", "6,4,9"])
@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS.values() if fmt.is_fixed], ids=lambda fmt: fmt.name)
def test_fixed_point_is_exact_and_wraps_around(make: Make, fmt: NumberFormat, tile: str, engine: str) -> None:
    array = make(tile, fmt.name, engine)
    a, b = operands(array, 2, 3, 4)
    a[0, :, :, 0], b[0, :, :, 0] = fmt.lower, fmt.lower  # sums that grow as fast as they can
    found = product(array, a, b)
    exact = np.einsum("ipkr,jpkc->ijrc", a.astype(np.int64), b.astype(np.int64))
    np.testing.assert_array_equal(found, exact.astype(np.int32))
    np.testing.assert_array_equal(found, product(ModelArray(array.tiles, array.format), a, b))
    if fmt.name == "dfxp16" and tile == "16,16,64":
        assert (found != exact).any()  # 256 products of 2^30 do not fit


def test_products_are_rounded_before_they_are_added(make: Make) -> None:
    """A fused multiply-add would leave what rounding takes off."""
    array = make("2,2,16")
    a, b = (np.zeros(shape, np.float32) for shape in (array.tiles.a_shape(1, 1), array.tiles.b_shape(1, 1)))
    value = np.float32(1 + 2**-12)
    rounded = np.float32(value * value)
    assert float(value) * float(value) != float(rounded)
    sums = number_format("fp32").partial_sums  # products this far apart meet in one sum
    a[0, 0, 0], b[0, 0, 0] = -rounded, 1
    a[0, 0, sums], b[0, 0, sums] = value, value
    np.testing.assert_array_equal(product(array, a, b), 0)


# Strips of A that are all kept in the cache, three and two of five at a time, and one at a time.
LONG = [("16,16,64", (5, 3, 10)), ("16,16,64", (5, 3, 35)), ("16,16,64", (3, 2, 150))]


@pytest.mark.parametrize(("tile", "counts"), [
    *((tile, counts) for tile in (*TILES, "4,2,5", "5,4,3", "6,24,8") for counts in COUNTS), *LONG])
def test_the_fast_kernel_is_right_within_rounding(make: Make, tile: str, counts: tuple[int, int, int]) -> None:
    array = make(tile, engine="fast")
    a, b = operands(array, *counts)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    expected = np.einsum("ipkr,jpkc->ijrc", a64, b64)
    bound = np.einsum("ipkr,jpkc->ijrc", abs(a64), abs(b64)) * 2.0**-23 * np.sqrt(a.shape[1] * a.shape[2])
    assert (abs(product(array, a, b) - expected) <= bound).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_any_range_is_right(make: Make, context: Context, engine: str) -> None:
    """One work-item for all tiles, as on a card, and more work-items than tiles."""
    array = make("4,3,5", engine=engine)
    a, b = operands(array, 3, 2, 2)
    expected = product(array, a, b)
    kernel = array._kernel
    flags = cl.mem_flags.COPY_HOST_PTR
    buffers = [cl.Buffer(context.handle, flags, hostbuf=values) for values in (a, b)]
    for items in (1, 4, 9):
        c = np.full_like(expected, np.nan)
        result = cl.Buffer(context.handle, flags, hostbuf=c)
        kernel.set_args(*buffers, result, np.int32(3), np.int32(2), np.int32(2))
        cl.enqueue_nd_range_kernel(context.queue, kernel, (items,), (1,))
        cl.enqueue_copy(context.queue, c, result)
        np.testing.assert_array_equal(bits(c), bits(expected))


# ---- the ways that tiles travel ---------------------------------------------------------------------------

@pytest.mark.parametrize("migrate", [False, True], ids=["copy", "migrate"])
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_overlapping_parts_give_the_same(make: Make, parts: int, migrate: bool) -> None:
    whole, cut = make("8,4,6"), make("8,4,6", parts=parts, migrate=migrate)
    for seed, nr in ((0, 7), (1, 7), (2, 1), (3, 9)):
        a, b = operands(whole, nr, 3, 2, seed)
        np.testing.assert_array_equal(bits(product(cut, a, b)), bits(product(whole, a, b)))


@pytest.mark.parametrize("migrate", [False, True], ids=["copy", "migrate"])
def test_an_operand_travels_once_a_product(make: Make, migrate: bool) -> None:
    array = make("8,8,8", migrate=migrate)
    a, b = operands(array, 2, 2, 2)
    c = np.empty(array.tiles.c_shape(2, 2), np.float32)
    array.begin(2, 2, 2)
    first = array.multiply(a, b, c, 2, 2, 2)
    again = array.multiply(a, b, c, 2, 2, 2)
    assert first.write > 0
    assert again.write == 0
    assert first.kernel > 0
    assert again.read > 0 or migrate
    b *= 2
    twice = 2 * c
    array.begin(2, 2, 2)
    assert array.multiply(a, b, c, 2, 2, 2).write > 0
    np.testing.assert_array_equal(c, twice)
