"""How far results may lie from the truth: one table, by precision and by the length of the sums.

The error of a sum of K products grows with K at worst and with sqrt(K) as a rule; the figures
are about ten times the latter, of the unit roundoff 6e-8 of float32 and 1e-16 of float64.
They are relative to the largest magnitude in the expected array, or to `scale` where the terms
of the sums are larger than the sums (cancellation).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# For each precision: (largest K, relative tolerance), rising.
TABLE: dict[str, tuple[tuple[int, float], ...]] = {
    "float32": ((1, 1.5e-6), (64, 5e-6), (1024, 2e-5), (65536, 1.5e-4)),
    "float64": ((1, 4e-15), (64, 1e-14), (1024, 4e-14), (65536, 3e-13)),
}


def tolerance(dtype: npt.DTypeLike, k: int = 1) -> float:
    """Relative tolerance for sums of `k` products in `dtype`."""
    for largest, value in TABLE[np.dtype(dtype).name]:
        if k <= largest:
            return value
    raise ValueError(f"the table of tolerances ends before K={k}; add a row")


def training_tolerance(step: int) -> float:
    """Relative tolerance of a loss after `step` steps in float32: rounding differs, and each step builds on the
    one before."""
    return 1e-5 * (step + 1)


# Largest difference of a trained parameter after 20 steps, relative to the largest of its array: a pooled maximum
# that goes to the other of two nearly equal pixels moves a whole gradient.
TRAINED_WEIGHTS = 1e-2


def assert_close(actual: npt.NDArray[Any], expected: npt.ArrayLike, k: int = 1,
                 scale: float | None = None) -> None:
    """Hold `actual`, computed in its dtype with sums of `k` products, against `expected`."""
    truth = np.asarray(expected, np.float64)
    assert actual.shape == truth.shape
    if not truth.size:
        return
    if scale is None:
        scale = float(np.abs(truth).max())
    bound = tolerance(actual.dtype, k) * max(scale, 1e-30)
    np.testing.assert_allclose(actual.astype(np.float64), truth, rtol=0, atol=bound)
