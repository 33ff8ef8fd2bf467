"""Tensors for tests of primitives: numbers in, numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from barista.blob import HOST, Tensor
from barista.ops.base import OpSet

Array = npt.NDArray[Any]


def numbers(shape: tuple[int, ...], seed: int = 0, zeros: float = 0.15) -> Array:
    """Normal numbers of both signs in float32, some of them exactly 0."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, shape) * (rng.random(shape) >= zeros)).astype(np.float32)


def put(ops: OpSet, array: npt.ArrayLike) -> Tensor:
    """A tensor that holds `array`."""
    values = np.asarray(array)
    tensor = Tensor(values.shape, ops.dtype)
    tensor.write(HOST)[...] = values
    return tensor


def blank(ops: OpSet, shape: tuple[int, ...]) -> Tensor:
    """A tensor full of NaN, for an output."""
    return put(ops, np.full(shape, np.nan))


def got(tensor: Tensor) -> Array:
    """What a tensor holds, by value."""
    return np.array(tensor.read(HOST))
