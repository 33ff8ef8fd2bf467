"""The operators that fill blobs with first values: an init net in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from barista.errors import UnsupportedError, nearest
from barista.proto.caffe2_pb2 import NetDef, TensorProto

from .operator import Operator

Array = npt.NDArray[Any]

# What all blobs of a model may take: neither an ONNX model nor a caffemodel holds more.
LARGEST_MODEL_BYTES = 2**31 - 1
# NumPy's limit is 64 axes; Caffe's blobs have 32.
MOST_AXES = 32

_TYPES: dict[int, npt.DTypeLike] = {
    TensorProto.FLOAT: np.float32, TensorProto.INT32: np.int32, TensorProto.INT64: np.int64, TensorProto.BOOL: np.bool_,
    TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8, TensorProto.UINT16: np.uint16, TensorProto.INT16: np.int16,
    TensorProto.DOUBLE: np.float64}


class Fills:
    """What the operators of an init net leave in their blobs.

    Parameters
    ----------
    seed : start of the random numbers; the same seed gives the same weights

    Attributes
    ----------
    random : the blobs that were drawn, not read
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._bytes = 0
        self.random: list[str] = []

    def net(self, init: NetDef) -> dict[str, Array]:
        """Run an init net and return its blobs by name.

        Raises
        ------
        NetError : an operator whose arguments contradict each other, or blobs of 2 GiB or more
        UnsupportedError : operators that are no fills; the message lists all of them
        """
        operators = [Operator(message, index) for index, message in enumerate(init.op)]
        if unknown := [operator for operator in operators if operator.type not in FILLS]:
            listed = "; ".join(f"{operator.label}: {nearest(operator.type, FILLS) or 'is no fill'}"
                               for operator in unknown)
            raise UnsupportedError(f"the init net has {len(unknown)} operators that fill no blob from their arguments: "
                                   f"{listed}. Known are {', '.join(FILLS)}")
        return {operator.outputs[0]: self.run(operator) for operator in operators}

    def run(self, operator: Operator) -> Array:
        """The array that one operator fills its blob with.

        Raises
        ------
        NetError : arguments that contradict each other, or too large a blob
        UnsupportedError : the shape comes from another blob
        """
        if operator.inputs:
            raise operator.unsupported(f"takes its shape from the blob {operator.inputs[0]!r}; only shapes among the "
                                       "arguments are read")
        if len(operator.outputs) != 1:
            raise operator.error(f"has {len(operator.outputs)} outputs; a fill has one")
        shape, fill = tuple(operator.integers("shape")), FILLS[operator.type]
        if len(shape) > MOST_AXES or any(size < 0 for size in shape):
            raise operator.error(f"the shape {shape[:MOST_AXES + 1]} is none: up to {MOST_AXES} sizes, none below 0")
        self._bytes += 8 * math.prod(shape) if fill is not _given_float else 4 * math.prod(shape)
        if self._bytes > LARGEST_MODEL_BYTES:
            raise operator.error(f"with its shape {shape} the blobs take {self._bytes} bytes; a model holds less than "
                                 f"2 GiB ({LARGEST_MODEL_BYTES} bytes at most)")
        if fill in (_xavier, _gaussian, _uniform, _msra):
            self.random.append(operator.outputs[0])
        generator = np.random.default_rng([self._seed, operator.random_seed, len(self.random)])
        return fill(operator, shape, generator)


def _given(operator: Operator, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    count = operator.count("values")
    if count != math.prod(shape):
        raise operator.error(f"its shape {shape} needs {math.prod(shape)} values; it holds {count}: the file is "
                             "damaged or was cut short")
    return operator.numbers("values", dtype).reshape(shape)


def _given_float(operator: Operator, shape: tuple[int, ...], _: np.random.Generator) -> Array:
    return _given(operator, shape, np.float32)


def _given_int(operator: Operator, shape: tuple[int, ...], _: np.random.Generator) -> Array:
    return _given(operator, shape, np.int32)


def _given_int64(operator: Operator, shape: tuple[int, ...], _: np.random.Generator) -> Array:
    return _given(operator, shape, np.int64)


def _constant(operator: Operator, shape: tuple[int, ...], _: np.random.Generator) -> Array:
    """Caffe2: without a ``dtype``, a value that is a whole number makes the blob int64."""
    kind = operator.integer("dtype", TensorProto.INT64 if operator.is_whole("value") else TensorProto.FLOAT)
    if kind not in _TYPES:
        raise operator.unsupported(f"is of element type {kind}; known are {sorted(_TYPES)} (TensorProto.DataType)")
    dtype = np.dtype(_TYPES[kind])
    value = operator.real("value") if dtype.kind == "f" else operator.integer("value")
    try:
        return np.full(shape, value, dtype)
    except OverflowError:
        raise operator.error(f"its value {value} is none of {dtype}") from None


def _fan(operator: Operator, shape: tuple[int, ...], axis: int) -> float:
    """How many numbers a blob has for each place along `axis`."""
    if len(shape) <= axis or shape[axis] == 0 or math.prod(shape) == 0:
        raise operator.error(f"its shape {shape} has no fan: it needs axis {axis}, and no size 0")
    return math.prod(shape) / shape[axis]


def _xavier(operator: Operator, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    limit = math.sqrt(3 / _fan(operator, shape, 0))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def _msra(operator: Operator, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Caffe2: by the fan out, which is counted along axis 1."""
    return (generator.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / _fan(operator, shape, 1))))


def _gaussian(operator: Operator, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    mean, deviation = operator.real("mean", 0.0), operator.real("std", 1.0)
    if not (math.isfinite(mean) and 0 <= deviation < math.inf):
        raise operator.error(f"mean {mean} and std {deviation} are no Gaussian's")
    return (generator.standard_normal(shape, np.float32) * np.float32(deviation) + np.float32(mean))


def _uniform(operator: Operator, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    low, high = operator.real("min", 0.0), operator.real("max", 1.0)
    if not -math.inf < low <= high < math.inf:
        raise operator.error(f"min {low} and max {high} are no range")
    return generator.uniform(low, high, shape).astype(np.float32)


Fill = Callable[[Operator, tuple[int, ...], np.random.Generator], Array]

FILLS: dict[str, Fill] = {
    "GivenTensorFill": _given_float, "GivenTensorIntFill": _given_int, "GivenTensorInt64Fill": _given_int64,
    "ConstantFill": _constant, "XavierFill": _xavier, "GaussianFill": _gaussian, "UniformFill": _uniform,
    "MSRAFill": _msra}
