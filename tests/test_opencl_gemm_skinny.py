"""Matrix products with a short side on OpenCL: every tile, chunk, share and way of storing, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from little_nets import inputs, layer, make
from opencl_device import host, numbers, open_opencl

from barista.blob import HOST, SyncedMemory, Tensor
from barista.gemm.shapes import GemmShape
from barista.ops.opencl import OpenCLOps, gemm_skinny
from barista.ops.opencl.device import Device
from barista.ops.opencl.gemm import OpenCLGemm
from barista.ops.opencl.tuning import GemmParameters
from barista.runtime.kernel import Kernel

pytestmark = pytest.mark.opencl

Array = npt.NDArray[np.float64]

SETS = [GemmParameters(6, 32, 2, 256, 256), GemmParameters(12, 64, 2, 256, 256, True)]
BEYOND = 64
# Ways are for A and B as they are or with B, or A, turned.
NT, NN, TN = (False, True), (False, False), (True, False)
# M, N, K; each way meets one row and many, less than a vector, edges of tiles, several tiles and chunks.
SHAPES = {NT: [(1, 1, 1), (1, 40, 70), (3, 5, 9), (16, 33, 50), (17, 9, 64), (33, 100, 21), (64, 50, 40),
               (100, 10, 129), (128, 130, 17)],
          NN: [(1, 2, 1), (1, 70, 40), (4, 64, 33), (7, 5, 20), (16, 35, 300), (14, 16, 8), (25, 97, 130),
               (64, 40, 10)],
          TN: [(1, 2, 1), (2, 70, 16), (300, 33, 16), (50, 128, 3), (25, 17, 100), (7, 3, 128), (13, 65, 64)]}
CASES = [(way, shape) for way, shapes in SHAPES.items() for shape in shapes]


@pytest.fixture(scope="module", params=["float32", "float64"])
def ops(request: pytest.FixtureRequest) -> OpenCLOps:
    return open_opencl(request.param)


@pytest.fixture(params=SETS, ids=["AVX2", "AVX-512"])
def device(ops: OpenCLOps, request: pytest.FixtureRequest) -> Device:
    """A device with these parameters; the test is skipped where the processor cannot have them."""
    problem = request.param.problem(ops.context, ops.dtype)
    if problem:
        assert "avx512" in problem, problem
        pytest.skip(problem)
    return Device(ops.context, ops.dtype, request.param)


def within(values: Array, dtype: np.dtype[Any], beyond: float) -> Tensor:
    """A tensor at the start of a larger memory, which is full of `beyond` behind it."""
    memory = SyncedMemory(values.size + BEYOND, dtype)
    whole = Tensor((memory.count,), dtype, memory).write(HOST)
    whole[:values.size], whole[values.size:] = values.reshape(-1), beyond
    return Tensor(values.shape, dtype, memory)


def check(device: Device, shape: tuple[int, int, int], way: tuple[bool, bool], alpha: float = 1.0, beta: float = 0.0,
          bias: bool = False) -> Array:
    """Multiply, hold what comes out against float64, and return it.

    NaN lies behind what is read and, where it is overwritten, in C; a mark lies behind C.
    """
    (m, n, k), (trans_a, trans_b) = shape, way
    rng = np.random.default_rng((m, n, k))
    a, b, c, v = numbers(rng, m, k), numbers(rng, k, n), numbers(rng, m, n), numbers(rng, n)
    product = OpenCLGemm(device, GemmShape(m, n, k), trans_a, trans_b)
    assert "pass by" in product.variant
    left, right = (within(np.ascontiguousarray(x.T if turned else x), device.dtype, np.nan)
                   for x, turned in ((a, trans_a), (b, trans_b)))
    result = within(c if beta else np.full_like(c, np.nan), device.dtype, 7.0)
    product.run(left, right, result, alpha, beta, within(v, device.dtype, np.nan) if bias else None)
    found = host(result)
    truth = alpha * (a @ b) + bias * v + (beta * c if beta else 0)
    terms = abs(alpha) * (np.abs(a) @ np.abs(b)) + np.abs(v) + np.abs(beta * c)
    bound = 4 * np.finfo(device.dtype).eps * np.sqrt(k + 3) * terms
    np.testing.assert_array_less(np.abs(found - truth), bound + 1e-300)
    np.testing.assert_array_equal(Tensor((m * n + BEYOND,), device.dtype, result.memory).read(HOST)[m * n:], 7.0)
    return found


@pytest.mark.parametrize(("way", "shape"), CASES)
def test_each_way(device: Device, way: tuple[bool, bool], shape: tuple[int, int, int]) -> None:
    check(device, shape, way)
    check(device, shape, way, bias=True)
    check(device, shape, way, -0.5, 2.0, bias=True)


@pytest.mark.parametrize(("way", "shape"), CASES)
def test_chunks_of_k(device: Device, monkeypatch: pytest.MonkeyPatch, way: tuple[bool, bool],
                     shape: tuple[int, int, int]) -> None:
    """K goes by in several steps: the bias is added once, C is scaled once."""
    monkeypatch.setattr(gemm_skinny, "LOCAL_BYTES", 1 << 11)
    monkeypatch.setattr(gemm_skinny, "CHUNK_K", 7)
    if way == NN:
        monkeypatch.setattr(gemm_skinny, "MOST_K", 0)
    check(device, shape, way, 1.5, -1.0, bias=True)
    check(device, shape, way, bias=True)


@pytest.mark.parametrize("shape", [(300, 64, 16), (301, 64, 5), (300, 70, 16), (300, 1000, 1)])
def test_what_is_written_past_the_caches(device: Device, monkeypatch: pytest.MonkeyPatch,
                                         shape: tuple[int, int, int]) -> None:
    """Whole lines or, where rows do not begin at a line, the usual way."""
    usual = check(device, shape, TN, bias=True)
    monkeypatch.setattr(gemm_skinny, "CACHED_BYTES", 0)
    np.testing.assert_array_equal(check(device, shape, TN, bias=True), usual)
    check(device, shape, TN, 2.0, 1.0)


@pytest.mark.parametrize("way", SHAPES)
def test_the_same_bits_each_time(device: Device, way: tuple[bool, bool]) -> None:
    first = check(device, (60, 70, 90), way)
    for _ in range(3):
        np.testing.assert_array_equal(check(device, (60, 70, 90), way), first)


@pytest.mark.parametrize("way", SHAPES)
def test_nan_stays_in_its_row_and_column(device: Device, way: tuple[bool, bool]) -> None:
    """Also where rows and columns are computed twice to fill a tile."""
    rng = np.random.default_rng(3)
    a, b = numbers(rng, 21, 30), numbers(rng, 30, 37)
    a[20, 3], b[4, 36] = np.nan, np.nan
    c = within(np.zeros((21, 37)), device.dtype, 0)
    OpenCLGemm(device, GemmShape(21, 37, 30), *way).run(
        within(np.ascontiguousarray(a.T if way[0] else a), device.dtype, 0),
        within(np.ascontiguousarray(b.T if way[1] else b), device.dtype, 0), c)
    expected = np.zeros((21, 37), bool)
    expected[20], expected[:, 36] = True, True
    np.testing.assert_array_equal(np.isnan(host(c)), expected)


@pytest.mark.parametrize(("m", "n", "k", "way", "taken"), [
    (16, 4096, 9216, NT, "rows"), (200, 128, 500, NT, "rows"), (129, 129, 500, NT, "packed"),
    (64, 9216, 4096, NN, "columns"), (65, 9216, 4096, NN, "packed"), (16, 1, 4096, NN, "packed"),
    (4096, 9216, 128, TN, "columns"), (4096, 9216, 129, TN, "packed"), (16, 16, 16, (True, True), "packed"),
    (0, 16, 16, NT, "packed"), (16, 16, 0, TN, "packed")])
def test_which_way_is_taken(ops: OpenCLOps, m: int, n: int, k: int, way: tuple[bool, bool], taken: str) -> None:
    here = Device(ops.context, ops.dtype, SETS[0])
    assert OpenCLGemm(here, GemmShape(m, n, k), *way).variant.startswith(taken)
    assert OpenCLGemm(here, GemmShape(m, n, k), *way, packed=True).variant.startswith("packed")
    # Strips are for CPU devices, and so are these.
    others = Device(ops.context, ops.dtype, GemmParameters(4, 16, 1, 256, 0))
    assert OpenCLGemm(others, GemmShape(m, n, k), *way).variant.startswith("packed")


@pytest.mark.parametrize("transpose", [False, True])
def test_launches_of_an_inner_product(monkeypatch: pytest.MonkeyPatch, transpose: bool) -> None:
    """One forward, with the bias; one for each of the three gradients, of cleared parameters and of the bottom."""
    net = make(inputs(x=(16, 40)) + layer("InnerProduct", "x", "y", "inner_product_param { num_output: 24 transpose: "
                                          + ("true" if transpose else "false") + " weight_filler { type: 'xavier' } }"),
               open_opencl())
    launches: list[str] = []
    run = Kernel.run

    def counted(kernel: Kernel, items: int, *arguments: Any) -> None:
        launches.append(kernel.recipe.name)
        run(kernel, items, *arguments)

    monkeypatch.setattr(Kernel, "run", counted)
    index = [each.name for each in net.layers].index("layer")
    net.blobs["x"].data[...] = 1
    net.forward_pass(index, index)
    assert launches == ["multiply_columns" if transpose else "multiply_rows"]
    launches.clear()
    net.blobs["y"].diff[...] = 1
    net.clear_param_diffs()
    net.backward_pass(index, index)
    assert sorted(launches) == sorted(["multiply_columns", "gradients_of_columns",
                                       "multiply_rows" if transpose else "multiply_columns"])
