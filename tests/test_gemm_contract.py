"""One table of matrix products for every op set, against float64."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from tensors import Array, got, put
from tolerances import assert_close

from barista.blob import Tensor
from barista.gemm.shapes import GemmShape
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.ops.verify import VerifiedOps

# Tiles of the op sets and of the arrays that they run on: rows, columns, depth.
TILES = {"OpenCL, AVX2": (6, 16, 64), "OpenCL, AVX-512": (12, 32, 256), "array": (16, 16, 64)}
TRANSPOSED = list(itertools.product((False, True), repeat=2))


def edges(tile: int) -> tuple[int, ...]:
    """The sizes at which a tile's edge is met."""
    return (1, tile - 1, tile, 2 * tile + 1)


def operands(m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """A(M, K), B(K, N) and C(M, N) in float32, of both signs, with zeros."""
    rng = np.random.default_rng((seed, m, n, k))
    return tuple((rng.normal(size=shape) * (rng.random(shape) >= 0.15)).astype(np.float32)  # type: ignore[return-value]
                 for shape in ((m, k), (k, n), (m, n)))


def product(ops: OpSet, a: Array, b: Array, c: npt.ArrayLike, trans_a: bool = False, trans_b: bool = False,
            alpha: float = 1.0, beta: float = 0.0) -> Array:
    """What the op set makes of them; the operands are stored as the transpositions say."""
    shape = GemmShape(len(a), b.shape[1], len(b))
    out = put(ops, c)
    ops.gemm(shape, trans_a, trans_b).run(put(ops, a.T if trans_a else a), put(ops, b.T if trans_b else b), out,
                                          alpha, beta)
    return got(out)


def check(result: Array, a: Array, b: Array, c: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """Hold a product against float64, within what sums of its terms may be off."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    truth = alpha * (left @ right) + (beta * c if beta else 0)
    terms = abs(alpha) * (np.abs(left) @ np.abs(right)) + abs(beta) * np.abs(np.nan_to_num(c))
    assert_close(result, truth, max(a.shape[1], 1), float(terms.max()) if terms.size else None)


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSED)
@pytest.mark.parametrize("tile", [pytest.param(tile, marks=pytest.mark.slow) if "AVX2" in tile else tile
                                  for tile in TILES])
def test_at_the_edges_of_tiles(ops: OpSet, tile: str, trans_a: bool, trans_b: bool) -> None:
    for m, n, k in itertools.product(*map(edges, TILES[tile])):
        a, b, c = operands(m, n, k)
        check(product(ops, a, b, np.full_like(c, np.nan), trans_a, trans_b), a, b, c)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (-0.5, 0), (0, 0), (1, 1), (2, -0.25), (0, 3)])
@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSED)
def test_alpha_and_beta(ops: OpSet, trans_a: bool, trans_b: bool, alpha: float, beta: float) -> None:
    for m, n, k in ((1, 1, 1), (13, 33, 65), (25, 70, 300)):
        a, b, c = operands(m, n, k)
        check(product(ops, a, b, c if beta else np.full_like(c, np.nan), trans_a, trans_b, alpha, beta), a, b, c,
              alpha, beta)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (0, 0), (-2, 1), (1, -0.5)])
@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSED)
def test_a_bias_is_added_to_each_row(ops: OpSet, trans_a: bool, trans_b: bool, alpha: float, beta: float) -> None:
    """As it is, whatever alpha and beta: products of a short side, of none, and one cut over the cores."""
    for m, n, k in ((1, 5, 3), (13, 33, 300), (4, 9, 0), (140, 150, 133)):
        a, b, c = operands(m, n, k)
        bias = operands(1, n, 0)[2]
        out = put(ops, c if beta else np.full_like(c, np.nan))
        ops.gemm(GemmShape(m, n, k), trans_a, trans_b).run(
            put(ops, a.T if trans_a else a), put(ops, b.T if trans_b else b), out, alpha, beta, put(ops, bias[0]))
        one = np.ones((m, 1), np.float32)
        check(got(out), np.hstack([alpha * a, one]), np.vstack([b, bias]), c, 1.0, beta)


def test_a_bias_is_verified() -> None:
    """The checking mode compares with it and passes it on; it counts as a term of the sum."""
    verified = VerifiedOps(CpuOps(), CpuOps())
    a, b, c = operands(9, 17, 5)
    bias = 1e4 * operands(1, 17, 0)[2]
    out = put(verified, c)
    verified.gemm(GemmShape(9, 17, 5), False, False).run(put(verified, a), put(verified, b), out, 2.0, 0.5,
                                                         put(verified, bias[0]))
    check(got(out), np.hstack([2 * a, np.ones((9, 1), np.float32)]), np.vstack([b, bias]), c, 1.0, 0.5)
    assert "1 other products" in verified.summary()


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 4), (5, 0, 4), (0, 0, 0)])
def test_of_nothing(ops: OpSet, m: int, n: int, k: int) -> None:
    a, b, c = operands(m, n, k)
    assert product(ops, a, b, c).shape == (m, n)


@pytest.mark.parametrize("beta", [0.0, 1.0, -2.0])
def test_an_empty_sum(ops: OpSet, beta: float) -> None:
    """With K = 0 the product is zero and C is only scaled."""
    a, b, c = operands(5, 33, 0)
    np.testing.assert_array_equal(product(ops, a, b, c if beta else np.full_like(c, np.nan), beta=beta), beta * c)


@pytest.mark.parametrize("k", [64, 512])
def test_terms_that_cancel(ops: OpSet, k: int) -> None:
    """Every element is the sum of large terms that leave nothing, within the rounding of the terms."""
    half, b, _ = operands(13, 33, k // 2)
    a, b = np.hstack([1000 * half, -1000 * half]), np.vstack([b, b])
    result = product(ops, a, b, np.full((13, 33), np.nan))
    check(result, a, b, np.zeros((13, 33), np.float32))


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSED)
def test_operands_are_read_as_they_lie(ops: OpSet, trans_a: bool, trans_b: bool) -> None:
    """Values that come from strided views: every second row, backwards, and columns of something wider."""
    a, b, c = operands(26, 70, 40)
    a, b, c = a[::-2, 3:23], b[10:30, ::2], c[::2, 69:34:-1]
    check(product(ops, a, b, c, trans_a, trans_b, 1.5, 0.5), a, b, c, 1.5, 0.5)


def test_tensors_that_share_memory(ops: OpSet) -> None:
    """Operands may be other shapes of one memory, as layers make them of blobs and parameters."""
    a, b, c = operands(12, 40, 30)
    whole = put(ops, a.reshape(3, 4, 30))
    out = put(ops, np.full((3, 4, 40), np.nan))
    ops.gemm(GemmShape(12, 40, 30), False, False).run(Tensor((12, 30), ops.dtype, whole.memory), put(ops, b), out)
    check(got(out).reshape(12, 40), a, b, c)


def test_again_with_other_numbers(ops: OpSet) -> None:
    """A product is made once and runs many times; what it kept from one run must not show in the next."""
    primitive = ops.gemm(GemmShape(14, 35, 70), False, True)
    for seed in range(3):
        a, b, c = operands(14, 35, 70, seed)
        out = put(ops, np.full_like(c, np.nan))
        primitive.run(put(ops, a), put(ops, b.T), out)
        check(got(out), a, b, c)


def test_the_same_bits_each_time(ops: OpSet) -> None:
    a, b, c = operands(70, 130, 600)
    first = product(ops, a, b, c)
    for _ in range(3):
        np.testing.assert_array_equal(product(ops, a, b, c), first)


def test_nan_and_infinity_stay_in_their_rows_and_columns(ops: OpSet) -> None:
    """Nor may the padding of a tile spread them."""
    a, b, c = operands(13, 33, 20)
    clean = product(ops, a, b, c)
    a[3, 5], b[7, 30] = np.nan, np.inf
    a[:, 7] = np.where(np.arange(13) % 2, 1, -1)
    b[5, :] = 1
    result = product(ops, a, b, c)
    assert np.isnan(result[3]).all()
    others = np.delete(result, 3, axis=0)
    assert np.isinf(others[:, 30]).all()
    assert np.isfinite(np.delete(others, 30, axis=1)).all()
    assert np.isfinite(clean).all()
