"""Number formats and quantisation, against Python's exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barista.errors import DataError, UnsupportedError
from barista.precision.formats import (
    FORMATS,
    dequantise,
    number_format,
    quantise,
    quantise_product,
    scale_exponent,
)

FIXED = [name for name, entry in FORMATS.items() if entry.is_fixed]
values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=12)


def reference_exponent(numbers: list[float], bits: int) -> int:
    """Eq. 3.4 in exact arithmetic: the largest s with max 2^s <= UB + 1/2 and min 2^s >= LB - 1/2."""
    upper, lower = Fraction(2 ** bits - 1, 2), -Fraction(2 ** bits + 1, 2)
    highest, lowest = Fraction(max(numbers)), Fraction(min(numbers))
    if highest <= 0 and lowest >= 0:
        return 0

    def fits(s: int) -> bool:
        scale = Fraction(2) ** s
        return highest * scale <= upper and lowest * scale >= lower

    s = 0
    while fits(s):
        s += 1
    while not fits(s):
        s -= 1
    return s


def test_formats() -> None:
    assert [(f.storage, f.accumulator, f.lower, f.upper) for f in map(number_format, FIXED)] == [
        ("int8", "int32", -128, 127), ("int16", "int32", -2048, 2047), ("int16", "int32", -8192, 8191),
        ("int16", "int32", -32768, 32767)]
    assert (number_format("fp32").storage_dtype, number_format("fp32").partial_sums) == (np.float32, 11)
    assert {number_format(name).partial_sums for name in FIXED} == {1}


def test_unknown_format() -> None:
    with pytest.raises(UnsupportedError, match=r"'dfxp7' is unknown; did you mean 'dfxp8'.*fp32, dfxp8, dfxp12"):
        number_format("dfxp7")


@given(values, st.sampled_from(FIXED))
def test_scale_is_equation_3_4(numbers: list[float], name: str) -> None:
    array = np.array(numbers, np.float32)
    assert scale_exponent(array, FORMATS[name]) == reference_exponent(array.tolist(), FORMATS[name].bits)


@given(values, st.sampled_from(FIXED))
def test_nearest_against_fractions(numbers: list[float], name: str) -> None:
    fmt, array = FORMATS[name], np.array(numbers, np.float32)
    integers, s = quantise(array, fmt)
    # Python rounds a Fraction to the nearest integer, ties to even.
    wanted = [min(max(round(Fraction(x) * Fraction(2) ** s), fmt.lower), fmt.upper) for x in array.tolist()]
    assert integers.tolist() == wanted
    assert integers.dtype == fmt.storage_dtype
    error = np.abs(dequantise(integers, s, np.float64) - array)
    assert error.max() <= math.ldexp(1.0, -s)  # half a step, or a whole one where the word ends


@given(values, st.sampled_from(FIXED), st.integers(0, 100))
def test_stochastic_stays_within_a_step(numbers: list[float], name: str, seed: int) -> None:
    fmt, array = FORMATS[name], np.array(numbers, np.float32)
    integers, s = quantise(array, fmt, np.random.default_rng(seed))
    assert (np.abs(integers - np.ldexp(array.astype(np.float64), s)) <= 1).all()
    again, _ = quantise(array, fmt, np.random.default_rng(seed))
    assert (integers == again).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stochastic_rounding_is_unbiased(dtype: type) -> None:
    """The mean of n draws lies within 5 standard deviations, at most 0.5 / sqrt(n) each, of the true value."""
    fmt, count = FORMATS["dfxp16"], 20000
    truth = np.array([-30000.75, -1.5, -0.125, 0.0, 0.2, 1.2, 3.0, 30000.9], dtype)
    draws, s = quantise(np.tile(truth, (count, 1)), fmt, np.random.default_rng(7), exponent=0)
    assert s == 0
    assert (np.abs(draws.mean(0) - truth) <= 5 * 0.5 / math.sqrt(count)).all()
    assert set(draws[:, 5]) == {1, 2} and set(draws[:, 6]) == {3}
    assert (draws[:, 5] == 2).mean() == pytest.approx(0.2, abs=0.015)  # the thesis's example, section 3.1.2


def test_different_seeds_differ() -> None:
    array = np.linspace(-1, 1, 1000, dtype=np.float32)
    one, two = (quantise(array, FORMATS["dfxp8"], np.random.default_rng(seed))[0] for seed in (1, 2))
    assert (one != two).any()


def test_zeros_empty_and_strided() -> None:
    assert quantise(np.zeros((2, 3), np.float32), FORMATS["dfxp8"])[1] == 0
    assert quantise(np.zeros((0, 3), np.float32), FORMATS["dfxp8"])[0].shape == (0, 3)
    array = np.arange(24, dtype=np.float32).reshape(4, 6) - 11
    for view in (array.T, array[::-2, ::3]):
        np.testing.assert_array_equal(quantise(view, FORMATS["dfxp12"])[0], quantise(view.copy(), FORMATS["dfxp12"])[0])


def test_smallest_and_largest_floats() -> None:
    for extreme in (np.float32(1e-45), np.float32(2e38)):
        integers, s = quantise(np.array([extreme, -extreme]), FORMATS["dfxp8"])
        assert 64 <= integers[0] <= 127 and integers[1] == -integers[0]
        np.testing.assert_allclose(dequantise(integers, s), [extreme, -extreme], rtol=1 / 64)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_integer_for_nan(bad: float) -> None:
    with pytest.raises(DataError, match=r"dfxp8: a matrix of shape \(2,\) holds NaN or infinity"):
        quantise(np.array([1, bad], np.float32), FORMATS["dfxp8"])


def test_floats_are_not_quantised() -> None:
    with pytest.raises(UnsupportedError, match=r"fp32 holds floats.*dfxp8"):
        quantise(np.ones(2, np.float32), FORMATS["fp32"])


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("stochastic", [False, True])
def test_sums_fit_the_accumulator(name: str, stochastic: bool) -> None:
    """The worst matrices there are: all entries at the word's end, where two products of 16 bits overflow."""
    rng = np.random.default_rng(3) if stochastic else None
    a, b = np.full((2, 700), -0.99, np.float32), np.full((700, 3), 0.99, np.float32)
    a_integers, a_s, b_integers, b_s = quantise_product(a, b, FORMATS[name], rng)
    exact = a_integers.astype(np.int64) @ b_integers.astype(np.int64)
    assert np.abs(exact).max() <= 2 ** 31 - 1
    np.testing.assert_allclose(np.ldexp(exact.astype(float), -a_s - b_s), a @ b, rtol=0.01)


def test_scales_stay_where_sums_fit() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(3, 900)).astype(np.float32), rng.normal(size=(900, 4)).astype(np.float32)
    _, a_s, _, b_s = quantise_product(a, b, FORMATS["dfxp12"])
    assert (a_s, b_s) == (scale_exponent(a, FORMATS["dfxp12"]), scale_exponent(b, FORMATS["dfxp12"]))
