"""The OpenCL op set for tests.  Where there is no device they fail: skipping is for those who ask for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from barista.blob import HOST, Tensor
from barista.compose import make_ops
from barista.errors import DeviceError, MissingExtraError

if TYPE_CHECKING:
    from barista.ops.opencl import OpenCLOps


def open_opencl(dtype: npt.DTypeLike = np.float32) -> OpenCLOps:
    """An OpenCL op set on the default device."""
    try:
        from barista.ops.opencl import OpenCLOps

        ops = make_ops("opencl", dtype)
    except (DeviceError, MissingExtraError) as error:
        if os.environ.get("BARISTA_ALLOW_NO_OPENCL") == "1":
            pytest.skip(str(error))
        pytest.fail(f"{error}; to skip the OpenCL tests set BARISTA_ALLOW_NO_OPENCL=1", pytrace=False)
    assert isinstance(ops, OpenCLOps)
    return ops


def tensor(array: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """A tensor with these numbers, on the host."""
    values = np.asarray(array, dtype)
    result = Tensor(values.shape, values.dtype)
    result.write(HOST)[...] = values
    return result


def empty(*shape: int, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """A tensor full of NaN on the host, so that what a primitive leaves out shows."""
    return tensor(np.full(shape, np.nan), dtype)


def host(t: Tensor) -> npt.NDArray[np.float64]:
    """The numbers of a tensor in float64."""
    return np.asarray(t.read(HOST), np.float64)


def numbers(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float64]:
    """Numbers of both signs, some of them zero, that float32 holds exactly."""
    values = rng.normal(size=shape)
    values[rng.random(shape) < 0.1] = 0
    return values.astype(np.float32).astype(np.float64)
