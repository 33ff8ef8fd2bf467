"""The fillers: their distributions, their fans, and that a seed repeats them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from barista import rng
from barista.errors import NetError, SolverError
from barista.fillers import FILLERS, fill
from barista.proto.caffe_pb2 import FillerParameter

BIG = (200, 60, 3, 3)


def filled(shape: tuple[int, ...], seed: int = 1, **param: Any) -> np.ndarray:
    array = np.full(shape, np.nan, np.float32)
    fill(array, FillerParameter(**param), np.random.default_rng(seed))
    assert np.isfinite(array).all()
    return array


def test_there_are_the_seven_of_caffe() -> None:
    assert set(FILLERS) == {"constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear"}


def test_constant() -> None:
    assert (filled((2, 3), type="constant", value=1.5) == 1.5).all()
    assert (filled((2, 3)) == 0).all()  # Caffe: a filler without a type is constant 0


def test_uniform() -> None:
    array = filled(BIG, type="uniform", min=-1, max=3)
    assert -1 <= array.min() < -0.99 and 2.99 < array.max() <= 3
    assert array.mean() == pytest.approx(1, abs=0.02)
    assert array.std() == pytest.approx(4 / 12**0.5, rel=0.01)


def test_gaussian() -> None:
    array = filled(BIG, type="gaussian", mean=2, std=0.5)
    assert array.mean() == pytest.approx(2, abs=0.01)
    assert array.std() == pytest.approx(0.5, rel=0.01)
    assert ((array - 2) > 1).mean() == pytest.approx(0.0228, abs=0.002)  # two deviations above


def test_sparse_gaussian() -> None:
    """`sparse` non-zero weights for each output on average."""
    array = filled((100, 500), type="gaussian", std=1, sparse=20)
    assert np.count_nonzero(array) / array.size == pytest.approx(20 / 100, rel=0.03)
    assert array[array != 0].std() == pytest.approx(1, rel=0.03)


def test_positive_unitball() -> None:
    array = filled((7, 5, 2), type="positive_unitball")
    assert (array > 0).all()
    np.testing.assert_allclose(array.reshape(7, -1).sum(axis=1), 1, rtol=1e-5)


FANS = [("FAN_IN", 60 * 9), ("FAN_OUT", 200 * 9), ("AVERAGE", (60 * 9 + 200 * 9) / 2)]


@pytest.mark.parametrize(("norm", "fan"), FANS)
def test_xavier(norm: str, fan: float) -> None:
    array = filled(BIG, type="xavier", variance_norm=FillerParameter.VarianceNorm.Value(norm))
    bound = (3 / fan)**0.5
    assert 0.99 * bound < np.abs(array).max() <= bound * 1.0001
    assert array.std() == pytest.approx(fan**-0.5, rel=0.01)
    assert array.mean() == pytest.approx(0, abs=0.01 * bound)


@pytest.mark.parametrize(("norm", "fan"), FANS)
def test_msra(norm: str, fan: float) -> None:
    array = filled(BIG, type="msra", variance_norm=FillerParameter.VarianceNorm.Value(norm))
    assert array.std() == pytest.approx((2 / fan)**0.5, rel=0.01)
    assert np.abs(array).max() > 3.5 * (2 / fan)**0.5  # no uniform distribution


def test_bilinear_enlarges_linearly() -> None:
    """A ramp enlarged twice by a stride-2 transposed convolution stays a ramp inside."""
    kernel = filled((1, 1, 4, 4), type="bilinear")[0, 0]
    np.testing.assert_allclose(kernel, kernel.T)
    np.testing.assert_allclose(kernel[0] / kernel[0, 0], [1, 3, 3, 1])
    ramp, out = np.arange(8.0), np.zeros(18)
    for i, value in enumerate(ramp):
        out[2 * i:2 * i + 4] += value * kernel.sum(axis=0) / kernel.sum() * 2
    np.testing.assert_allclose(np.diff(out[3:-3]), 0.5)


def test_bilinear_of_an_odd_size_is_symmetric() -> None:
    np.testing.assert_allclose(filled((1, 1, 3, 3), type="bilinear")[0, 0], np.outer([.5, 1, .5], [.5, 1, .5]))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 4), (2, 3, 4)])
def test_bilinear_needs_square_kernels(shape: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match=r"square kernels .* shape \(" + str(shape[0])):
        filled(shape, type="bilinear")


@pytest.mark.parametrize("kind", ["constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 2, 2, 2, 2), (0, 3)])
def test_any_shape(kind: str, shape: tuple[int, ...]) -> None:
    assert filled(shape, type=kind).shape == shape


def test_unknown_type_names_the_nearest() -> None:
    with pytest.raises(NetError, match=r"unknown filler type 'gausian'; known: .*msra.*; did you mean 'gaussian'\?"):
        filled((2,), type="gausian")


# ---- seeds ------------------------------------------------------------------------------------------------


def test_a_seed_repeats_and_streams_are_independent() -> None:
    rng.set_seed(5)
    one, two = rng.generator().random(100), rng.generator().random(100)
    rng.set_seed(5)
    first = rng.generator()
    first.random(7)  # what one draws shifts no other
    np.testing.assert_array_equal(rng.generator().random(100), two)
    assert (one != two).all()
    rng.set_seed(6)
    assert (rng.generator().random(100) != one).all()


def test_no_seed_takes_fresh_entropy() -> None:
    rng.set_seed(None)
    one = rng.generator().random(10)
    rng.set_seed(None)
    assert (rng.generator().random(10) != one).all()


def test_negative_seed() -> None:
    with pytest.raises(SolverError, match="random seed -3 is negative; give 0 or more"):
        rng.set_seed(-3)
