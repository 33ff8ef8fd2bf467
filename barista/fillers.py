"""The seven fillers that give parameters their first values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NetError, nearest
from .proto.caffe_pb2 import FillerParameter

Array = npt.NDArray[Any]
Filler = Callable[[Array, FillerParameter, np.random.Generator], None]


def _fan(array: Array, param: FillerParameter) -> float:
    """Number of inputs, outputs or their mean, as variance_norm says.

    Caffe: fan_in is count / shape[0], fan_out count / shape[1]; for an InnerProduct with
    ``transpose`` that exchanges the two, and grouped convolutions count one group's inputs.
    """
    fan_in = array.size / array.shape[0] if array.ndim else 1.0
    fan_out = array.size / array.shape[1] if array.ndim > 1 else float(array.size)
    if param.variance_norm == FillerParameter.FAN_OUT:
        return fan_out
    if param.variance_norm == FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_in


def _constant(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    array[...] = param.value


def _uniform(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    if not param.min <= param.max or not np.isfinite([param.min, param.max]).all():
        raise NetError(f"the uniform filler needs finite min <= max, got min {param.min:g} and max {param.max:g}")
    array[...] = rng.uniform(param.min, param.max, array.shape)


def _gaussian(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    if not param.std >= 0:
        raise NetError(f"the gaussian filler needs std of 0 or more, got {param.std:g}")
    array[...] = rng.normal(param.mean, param.std, array.shape)
    if param.sparse >= 0:
        # Caffe: `sparse` non-zero inputs for each output on average, drawn independently.
        outputs = array.shape[0] if array.ndim else 1
        array *= rng.random(array.shape) < param.sparse / outputs


def _positive_unitball(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    array[...] = rng.random(array.shape)
    rows = array.reshape(array.shape[0] if array.ndim else 1, -1)
    rows /= rows.sum(axis=1, keepdims=True)


def _xavier(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    """Uniform in +-sqrt(3 / fan) (Glorot and Bengio 2010; Caffe: fan_in by default)."""
    bound = math.sqrt(3.0 / _fan(array, param))
    array[...] = rng.uniform(-bound, bound, array.shape)


def _msra(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    """Gaussian of deviation sqrt(2 / fan) (He et al. 2015)."""
    array[...] = rng.normal(0.0, math.sqrt(2.0 / _fan(array, param)), array.shape)


def _bilinear(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    """Bilinear interpolation weights for a Deconvolution that enlarges."""
    if array.ndim != 4 or array.shape[2] != array.shape[3]:
        raise NetError(f"the bilinear filler needs square kernels (N, C, k, k); the parameter has shape {array.shape}")
    size = array.shape[3]
    factor = math.ceil(size / 2.0)
    centre = (size - 1) / (2.0 * factor)
    ramp = 1 - np.abs(np.arange(size) / factor - centre)
    array[...] = np.outer(ramp, ramp)


FILLERS: dict[str, Filler] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}


def fill(array: Array, param: FillerParameter, rng: np.random.Generator) -> None:
    """Fill `array` in place as `param` says.

    Raises
    ------
    NetError : no filler of that type, or one that does not fit the shape
    """
    try:
        filler = FILLERS[param.type]
    except KeyError:
        raise NetError(f"unknown filler type {param.type!r}; known: {', '.join(FILLERS)}; "
                       f"{nearest(param.type, FILLERS)}".rstrip("; ")) from None
    if array.size:
        filler(array, param, rng)
