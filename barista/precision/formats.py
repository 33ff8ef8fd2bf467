"""Number formats that an array computes in: float32 and dynamic fixed point.

In dynamic fixed point a whole matrix shares one scale: each value is a signed integer of
`bits` bits times 2^-s (thesis, section 3.1.2).  Products are added up in 32 bits.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, UnsupportedError, nearest

Array = npt.NDArray[Any]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class NumberFormat:
    """How an array stores its operands and adds up its products.

    Parameters
    ----------
    name : as manifests and the command line say it
    bits : word length of an operand
    storage : dtype name of an operand in memory; the smallest that holds `bits`
    accumulator : dtype name of a sum and of the result; integers wrap around
    partial_sums : interleaved sums of a processing element, S + 1.  An addition of floats takes S = 10
        cycles in the thesis's array (section 4.3), one of integers a single cycle, which needs no interleaving.
    """

    name: str
    bits: int
    storage: str
    accumulator: str
    partial_sums: int

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the tiles of A and B."""
        return np.dtype(self.storage)

    @property
    def accumulator_dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the tiles of C."""
        return np.dtype(self.accumulator)

    @property
    def is_fixed(self) -> bool:
        """Whether operands are integers with a scale."""
        return self.storage_dtype.kind == "i"

    @property
    def lower(self) -> int:
        """LB, the smallest integer of a fixed-point operand."""
        return -(1 << (self.bits - 1))

    @property
    def upper(self) -> int:
        """UB, the largest integer of a fixed-point operand."""
        return (1 << (self.bits - 1)) - 1


FORMATS = {entry.name: entry for entry in (
    NumberFormat("fp32", 32, "float32", "float32", 11),
    NumberFormat("dfxp8", 8, "int8", "int32", 1),
    NumberFormat("dfxp12", 12, "int16", "int32", 1),
    NumberFormat("dfxp14", 14, "int16", "int32", 1),
    NumberFormat("dfxp16", 16, "int16", "int32", 1),
)}


def number_format(name: str) -> NumberFormat:
    """Find a format by its name.

    Raises
    ------
    UnsupportedError : no such format; the message lists those that there are
    """
    try:
        return FORMATS[name]
    except KeyError:
        hint = nearest(name, FORMATS)
        raise UnsupportedError(f"number format {name!r} is unknown; " + (f"{hint} " if hint else "")
                               + f"there are {', '.join(FORMATS)}") from None


def scale_exponent(array: Array, fmt: NumberFormat) -> int:
    """Choose s so that the integers of ``array * 2^s`` make full use of the word (thesis, Eq. 3.4).

    s = floor(log2(min((UB + 0.5) / max, (LB - 0.5) / min))); a side without values of its sign sets no bound,
    and a matrix of zeros has s = 0.

    Parameters
    ----------
    array : any shape, floats

    Raises
    ------
    DataError : the array holds NaN or infinity, which no integer stands for
    """
    highest, lowest = (float(array.max()), float(array.min())) if array.size else (0.0, 0.0)
    if not (math.isfinite(highest) and math.isfinite(lowest)):
        raise DataError(f"{fmt.name}: a matrix of shape {array.shape} holds NaN or infinity (minimum {lowest}, maximum "
                        f"{highest}), which fixed point cannot hold; training has diverged, or use fp32")
    exponents = [_floor_log2_ratio(bound, extreme)
                 for bound, extreme in ((fmt.upper + 0.5, highest), (fmt.lower - 0.5, lowest)) if bound * extreme > 0]
    return min(exponents, default=0)


def _floor_log2_ratio(bound: float, extreme: float) -> int:
    """floor(log2(bound / extreme)), exact: no quotient is formed that could overflow or round up to a power."""
    bound_mantissa, bound_exponent = math.frexp(abs(bound))
    mantissa, exponent = math.frexp(abs(extreme))
    return bound_exponent - exponent - (bound_mantissa < mantissa)


def quantise(array: Array, fmt: NumberFormat, rng: np.random.Generator | None = None,
             exponent: int | None = None) -> tuple[Array, int]:
    """Turn floats into integers with one scale: ``value = integer * 2^-s`` (thesis, Eq. 3.4 and 3.5).

    Stochastic rounding goes up with the probability of the fraction, which is what rounding
    ``x * 2^s + Unif(-0.5, 0.5)`` does; nearest takes the even one of a tie.  Integers that rounding lifts
    past the word's end (Eq. 3.4 leaves half a step of room) stay at the end.

    Parameters
    ----------
    array : any shape and strides, float32 or float64
    fmt : a fixed-point format
    rng : None rounds to nearest, a generator rounds stochastically with its numbers
    exponent : s, or None to choose it by `scale_exponent`

    Returns
    -------
    integers : C order, dtype `fmt.storage`
    exponent : s

    Raises
    ------
    UnsupportedError : `fmt` is no fixed-point format
    DataError : the array holds NaN or infinity
    """
    _require_fixed(fmt)
    if exponent is None:
        exponent = scale_exponent(array, fmt)
    scaled = np.empty(array.shape, array.dtype)
    np.ldexp(array, exponent, out=scaled)
    if rng is None:
        np.rint(scaled, out=scaled)
    else:
        # The fraction is exact in the array's own precision, where adding noise to a large number would not be.
        whole = np.floor(scaled)
        scaled -= whole
        np.add(whole, rng.random(array.shape, dtype=scaled.dtype.type) < scaled, out=scaled)
    np.clip(scaled, fmt.lower, fmt.upper, out=scaled)
    return scaled.astype(fmt.storage_dtype), exponent


def dequantise(integers: Array, exponent: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Return ``integers * 2^-exponent`` as floats of `dtype`."""
    return np.ldexp(np.asarray(integers).astype(np.float64), -exponent).astype(dtype)


def _require_fixed(fmt: NumberFormat) -> None:
    if not fmt.is_fixed:
        fixed = ", ".join(name for name, entry in FORMATS.items() if entry.is_fixed)
        raise UnsupportedError(f"{fmt.name} holds floats and needs no quantisation; fixed-point formats are {fixed}")


def quantise_product(a: Array, b: Array, fmt: NumberFormat,
                     rng: np.random.Generator | None = None) -> tuple[Array, int, Array, int]:
    """Quantise both matrices of a product as `quantise_operands` does.

    By the inequality of Cauchy and Schwarz no entry exceeds the largest row norm of A times the largest column norm
    of B.

    Parameters
    ----------
    a, b : (M, K) and (K, N), any strides
    fmt, rng : as for `quantise`

    Returns
    -------
    a_integers, a_exponent, b_integers, b_exponent : see `quantise_operands`
    """
    return quantise_operands(a, b, fmt, a.shape[1], lambda left, right: _largest_norm(left) * _largest_norm(right.T),
                             rng)


def quantise_operands(a: Array, b: Array, fmt: NumberFormat, terms: int, largest_sum: Callable[[Array, Array], float],
                      rng: np.random.Generator | None = None) -> tuple[Array, int, Array, int]:
    """Quantise two operands, each with one scale, so that no sum of products leaves the 32-bit accumulator.

    Eq. 3.4 uses the whole word, and the thesis finds 32 bits enough for the sums in its networks.  That is no
    matter of course: two products of 16-bit words can exceed them.  So where a sum could, both scales are lowered by
    as much as it takes.

    Parameters
    ----------
    a, b : any shapes and strides
    fmt, rng : as for `quantise`
    terms : products of a sum
    largest_sum : a bound of the sums' magnitudes, from the integers of a and b

    Returns
    -------
    a_integers, a_exponent, b_integers, b_exponent : the product's value is ``integers * 2^-(a + b exponents)``
    """
    a_integers, a_exponent = quantise(a, fmt, rng)
    b_integers, b_exponent = quantise(b, fmt, rng)
    limit = float(np.iinfo(fmt.accumulator_dtype).max)
    if terms * float(fmt.lower) ** 2 <= limit:
        return a_integers, a_exponent, b_integers, b_exponent
    while (bound := largest_sum(a_integers, b_integers)) > limit:
        excess = math.ceil(math.log2(bound / limit)) or 1
        a_exponent -= (excess + 1) // 2
        b_exponent -= excess // 2
        _log.debug("%s: sums of %d products could reach 2^%.1f; scales lowered by %d bits", fmt.name, terms,
                   math.log2(bound), excess)
        a_integers, _ = quantise(a, fmt, rng, a_exponent)
        b_integers, _ = quantise(b, fmt, rng, b_exponent)
    return a_integers, a_exponent, b_integers, b_exponent


def _largest_norm(rows: Array) -> float:
    """Largest Euclidean norm of a row of integers."""
    return math.sqrt(float(np.einsum("mk,mk->m", rows, rows, dtype=np.float64).max(initial=0.0)))
