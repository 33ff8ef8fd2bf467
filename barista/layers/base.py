"""Layers: life cycle, registry and the rules on how many blobs each takes.

A layer is made from its LayerParameter and an op set, then

- `setup` once: reads and checks its parameters, makes its parameter blobs;
- `reshape` whenever the shapes of its bottoms change: sets the shapes of its tops
  and asks the op set for primitives;
- `forward` and `backward` as often as wanted: they only run primitives.

The methods have pycaffe's signatures.  A layer file holds shapes, parameters and the
order of operations; it knows neither NumPy kernels nor any device.
"""

from __future__ import annotations

import builtins
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np

from .. import rng as random
from ..blob import HOST, Blob, Tensor
from ..errors import (
    BaristaError,
    BitstreamError,
    DataError,
    DeviceError,
    NetError,
    ScheduleError,
    ShapeError,
    SnapshotError,
    nearest,
)
from ..fillers import fill
from ..gemm.shapes import Pass
from ..ops.base import OpSet
from ..proto.blobs import array_to_line, blob_to_array, line_to_array, significant
from ..proto.caffe_pb2 import FillerParameter, LayerParameter

Bottoms = Sequence[Blob]
Tops = Sequence[Blob]


# Errors of op sets and feeders, which do not know for which layer they work.
NAMELESS = (ShapeError, DataError, DeviceError, BitstreamError, ScheduleError)


@dataclasses.dataclass(frozen=True)
class Count:
    """How many blobs a layer takes: at least `least`, at most `most` (None: any number)."""

    least: int = 0
    most: int | None = None

    def check(self, number: int) -> bool:
        """Whether `number` blobs are allowed."""
        return number >= self.least and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {self.least}"
        return f"exactly {self.least}" if self.least == self.most else f"{self.least} to {self.most}"


@dataclasses.dataclass(frozen=True)
class Labels:
    """What bottom 1 of a layer holds where it holds labels: numbers below `classes`, or the one that is `ignored`."""

    classes: int
    ignored: int | None = None


def exactly(number: int) -> Count:
    """A fixed number of blobs."""
    return Count(number, number)


class Layer:
    """Base of all layers.

    Attributes
    ----------
    param : the LayerParameter
    blobs : the parameter blobs
    param_propagate_down : for each parameter blob, whether its gradient is wanted
    loss_weights : for each top, the weight of its sum in the loss (0: none)
    labels : what labels bottom 1 may hold, of a layer that takes labels
    before_splits : what the definition calls the blobs that Split layers made of one
    """

    type: ClassVar[str]
    bottoms: ClassVar[Count] = exactly(1)
    tops: ClassVar[Count] = exactly(1)
    equal_bottoms_and_tops: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    # Whether the tops' values, or gradients, lie on the memory of the bottom's.
    shares_value: ClassVar[bool] = False
    shares_grad: ClassVar[bool] = False
    # Whether the forward pass writes the gradient of bottom 0.
    early_grad: ClassVar[bool] = False
    # Whether it shows its blobs' arrays to code of the user's, who may keep them: they take no turns on memory.
    shows_blobs: ClassVar[bool] = False
    # Whether its tops may take other shapes although its bottoms keep theirs: it is reshaped before each forward pass.
    reshapes_always: ClassVar[bool] = False
    # Whether it has `forward_rectified`.
    can_rectify: ClassVar[bool] = False

    def __init__(self, param: LayerParameter, ops: OpSet, phase: int, rng: np.random.Generator) -> None:
        self.param = param
        self.ops = ops
        self.phase = phase
        self.rng = rng
        self.name = param.name
        self.blobs: list[Blob] = []
        self.param_propagate_down: list[bool] = []
        self.loss_weights: list[float] = []
        self.labels: Labels | None = None
        self.before_splits: Mapping[str, str] = {}
        self._scratch: dict[str, Tensor] = {}

    # ---- life cycle -------------------------------------------------------------------------

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        """Read the parameters and make the parameter blobs."""

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        """Set the shapes of the tops and ask the op set for primitives."""
        raise NotImplementedError

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        """Compute the tops' values."""
        raise NotImplementedError

    def forward_rectified(self, bottom: Bottoms, top: Tops) -> None:
        """Compute what `forward` and a ReLU on its tops do; only where `can_rectify`."""
        raise NotImplementedError

    @property
    def rectifies(self) -> bool:
        """Whether its forward pass is max(x, 0) and nothing else."""
        return False

    def backward_needs(self) -> tuple[bool, bool]:
        """Whether the backward pass reads the values of the bottoms, and those of the tops.

        A net that plans its memory gives the place of values that nobody needs any more to others.
        """
        return True, True

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        """Overwrite the gradients of the bottoms asked for and add to those of the parameters."""
        if any(propagate_down):
            raise self.error("has no gradient; set propagate_down: false or take it out of the path to the loss",
                             NetError)

    def allow_force_backward(self, index: int) -> bool:
        """Whether force_backward may ask for the gradient of bottom `index`."""
        return True

    def passes(self, backward: bool, propagate_down: Sequence[bool]) -> frozenset[Pass]:
        """The passes of a convolution that the layer runs; none unless it is one.

        Parameters
        ----------
        backward : whether its backward pass runs at all
        propagate_down : for which bottoms it runs
        """
        return frozenset()

    @property
    def scratch_bytes(self) -> int:
        """Memory of the tensors of its own, parameters apart."""
        return sum(tensor.memory.nbytes for tensor in self._scratch.values())

    def carried(self) -> Sequence[Tensor]:
        """Tensors, parameters apart, that the next forward pass reads as the last one left them."""
        return ()

    def state(self) -> dict[str, Any]:
        """What the coming passes depend on beside parameters and bottoms, in values that JSON can hold.

        Unless a layer adds to it: where its random numbers stand, and the values of `carried`.
        """
        state: dict[str, Any] = {"rng": random.state_of(self.rng)}
        if carried := self.carried():
            state["carried"] = [array_to_line(tensor.read(HOST)) for tensor in carried]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as a layer of the same definition did after it gave this `state`.

        Raises
        ------
        SnapshotError, DataError : the state was not made by `state`, or by a layer of other shapes
        """
        carried, lines = self.carried(), state.get("carried", [])
        if not isinstance(lines, list) or len(lines) != len(carried):
            raise SnapshotError(f"its state does not hold the {len(carried)} array(s) that the layer carries from pass "
                                "to pass: it belongs to another net, or is damaged")
        arrays = [line_to_array(line) for line in lines]
        for array, tensor in zip(arrays, carried, strict=True):
            if array.shape != tensor.shape:
                raise SnapshotError(f"its state carries an array of shape {array.shape}, where this net has "
                                    f"{tensor.shape}: it belongs to another net")
        random.restore(self.rng, state.get("rng"))
        for array, tensor in zip(arrays, carried, strict=True):
            tensor.write(HOST)[...] = array

    def close(self) -> None:
        """Release threads and files; the layer is not used again."""

    def fail(self, error: BaristaError) -> NoReturn:
        """Raise an error from below, where no names are known, with this layer's name."""
        who = f"{self.name} ({self.type}): "
        if str(error).startswith(who):
            raise error
        raise builtins.type(error)(f"{who}{error}") from error

    # ---- help for subclasses ----------------------------------------------------------------

    def error(self, message: str, kind: builtins.type[NetError] = ShapeError) -> NetError:
        """An error that says which layer speaks."""
        return kind(f"{self.name} ({self.type}): {self.in_users_names(message)}")

    def in_users_names(self, text: str) -> str:
        """`text` with the bottoms that come from a Split layer named as the definition names them."""
        for name in self.param.bottom:
            if user := self.before_splits.get(name):
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", user.replace("\\", r"\\"), text)
        return text

    def add_param(self, shape: Sequence[int], filler: FillerParameter | None = None) -> Blob:
        """Make the next parameter blob, from the weights in the definition if it carries them."""
        blob = Blob(shape, self.ops.dtype)
        if not self._take_weights(len(self.blobs), blob):
            try:
                fill(blob.value.write(HOST), filler if filler is not None else FillerParameter(), self.rng)
            except NetError as error:
                raise self.error(str(error), NetError) from None
        self.blobs.append(blob)
        self.param_propagate_down.append(True)
        return blob

    def _take_weights(self, index: int, blob: Blob) -> bool:
        """Fill parameter `index` from the weights in the definition, if it carries them."""
        if index >= len(self.param.blobs):
            return False
        given = blob_to_array(self.param.blobs[index])
        if significant(given.shape) != significant(blob.shape):
            raise self.error(f"parameter {index} needs shape {blob.shape} ({blob.count} numbers); "
                             f"the definition carries shape {given.shape} ({given.size})")
        blob.value.write(HOST)[...] = given.reshape(blob.shape)
        return True

    def scratch(self, name: str, shape: Sequence[int]) -> Tensor:
        """Make a tensor of the layer's own, in the op set's dtype, in place of the one that had this name."""
        tensor = self._scratch[name] = Tensor(tuple(shape), self.ops.dtype)
        return tensor

    def axis(self, bottom: Blob, index: int) -> int:
        """Canonical axis of `bottom` for a possibly negative `index`."""
        try:
            return bottom.axis(index)
        except ShapeError as error:
            raise self.error(str(error)) from None


class ZeroGradientLayer(Layer):
    """Base of layers whose bottoms have a gradient, which is 0.  What derives from it calls its `reshape`."""

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        self._zero = [self.ops.elementwise("dx = 0", ("dx",), blob.count) for blob in bottom]

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        for zero, blob, wanted in zip(self._zero, bottom, propagate_down, strict=True):
            if wanted:
                zero.run({"dx": blob.grad})


def rectified_before(before: Layer, layer: Layer) -> bool:
    """Whether a layer is a ReLU, in place on the one top of the layer before it, which can compute it on its way."""
    return (before.can_rectify and layer.rectifies and len(before.param.top) == 1
            and before.param.top == layer.param.bottom == layer.param.top)


_registry: dict[str, type[Layer]] = {}

L = TypeVar("L", bound=type[Layer])


def register(name: str) -> Callable[[L], L]:
    """Class decorator: make a layer known by its prototxt name."""

    def add(cls: L) -> L:
        cls.type = name
        _registry[name] = cls
        return cls

    return add


def layer_types() -> list[str]:
    """Names of all layer types, sorted."""
    return sorted(_registry)


def make_layer(param: LayerParameter, ops: OpSet, phase: int, rng: np.random.Generator) -> Layer:
    """Make the layer that `param.type` names.

    Raises
    ------
    NetError : no such type
    """
    try:
        cls = _registry[param.type]
    except KeyError:
        hint = nearest(param.type, _registry) or f"known types: {', '.join(layer_types())}"
        raise NetError(f"{param.name}: unknown layer type {param.type!r}; {hint}") from None
    return cls(param, ops, phase, rng)


def check_counts(layer: Layer, bottoms: int, tops: int) -> None:
    """Hold the numbers of bottoms and tops against what the layer takes.

    Raises
    ------
    NetError : too few or too many
    """
    for what, number, count in (("bottom", bottoms, layer.bottoms), ("top", tops, layer.tops)):
        if not count.check(number):
            raise layer.error(f"takes {count} {what} blob(s), got {number}; check its '{what}:' lines", NetError)
    if layer.equal_bottoms_and_tops and bottoms != tops:
        raise layer.error(f"takes as many tops as bottoms, got {bottoms} bottom(s) and {tops} top(s)", NetError)
