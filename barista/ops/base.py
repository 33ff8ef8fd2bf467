"""The op set contract: what a layer may ask of whatever computes for it.

A layer says *what*; an op set says *how*.  At `reshape` a layer asks its op set for
primitives, one for each thing it will do at these shapes.  A primitive chooses its
variant, builds its kernels and reserves its workspace when it is made; running it
only computes.  Primitives take `Tensor`s and ask them for arrays in their own
memory space, so a primitive that runs on the host inside a device's op set moves
what it needs by itself.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..blob import Space, Tensor
from ..errors import UnsupportedError
from ..gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from .geometry import AxisGeometry as AxisGeometry
from .geometry import LookupGeometry as LookupGeometry
from .geometry import PoolingGeometry as PoolingGeometry
from .geometry import Shape as Shape
from .geometry import StridedGeometry as StridedGeometry
from .geometry import Taps as Taps
from .geometry import WindowGeometry as WindowGeometry
from .primitives import LRN as LRN
from .primitives import Accuracy as Accuracy
from .primitives import ArgMax as ArgMax
from .primitives import BatchNorm as BatchNorm
from .primitives import Broadcast as Broadcast
from .primitives import Combine as Combine
from .primitives import Convolution as Convolution
from .primitives import Detection as Detection
from .primitives import DetectionRule as DetectionRule
from .primitives import Dropout as Dropout
from .primitives import Elementwise as Elementwise
from .primitives import ElementwiseGroup as ElementwiseGroup
from .primitives import Fold as Fold
from .primitives import Gather as Gather
from .primitives import Gemm as Gemm
from .primitives import InfogainLoss as InfogainLoss
from .primitives import Interpolation as Interpolation
from .primitives import Join as Join
from .primitives import Lookup as Lookup
from .primitives import Loss as Loss
from .primitives import LossRule as LossRule
from .primitives import MarginLoss as MarginLoss
from .primitives import MatMul as MatMul
from .primitives import Pooling as Pooling
from .primitives import PReLU as PReLU
from .primitives import Primitive as Primitive
from .primitives import Rearrange as Rearrange
from .primitives import Softmax as Softmax
from .primitives import StochasticPooling as StochasticPooling
from .primitives import Unfold as Unfold
from .primitives import UnitLength as UnitLength
from .primitives import WindowPooling as WindowPooling
from .tuned import Tuned
from .workspace import Owner as Owner
from .workspace import Workspace as Workspace

P = TypeVar("P", bound=Primitive)

# (layer, pass) -> stage -> seconds.
StageSeconds = dict[tuple[str, str], dict[str, float]]


class OpSet(abc.ABC):
    """Makes primitives that compute in one memory space and one dtype.

    Each method makes one primitive; the classes in `primitives` say what it does.

    Attributes
    ----------
    owner : whose primitives are made next; a net sets it, schedules and reports look at it
    """

    name: str
    space: Space
    dtype: np.dtype[Any]
    owner: Owner = Owner()

    @functools.cached_property
    def _in_use(self) -> weakref.WeakKeyDictionary[Primitive, Owner]:
        """Its primitives, which leave with the layers that hold them."""
        return weakref.WeakKeyDictionary()

    def use(self, primitive: P) -> P:
        """Count a primitive that it made among those in use, as the present owner's, and return it."""
        self._in_use[primitive] = dataclasses.replace(self.owner, pass_=None)
        return primitive

    @property
    def parts(self) -> tuple[OpSet, ...]:
        """The op sets that compute: itself, and those that it hands work to; some may stand there twice."""
        return (self,)

    @property
    def scratch_bytes(self) -> int:
        """Memory that its primitives use in turn."""
        return 0

    def workspace(self) -> Workspace:
        """What the primitives in use take, here and in the op sets that compute for this one."""
        parts = dict.fromkeys(self.parts)
        held: collections.Counter[Owner] = collections.Counter()
        for part in parts:
            for primitive, owner in part._in_use.items():
                held[owner] += primitive.workspace_bytes
        return Workspace(held, sum(part.scratch_bytes for part in parts))

    def check_net(self, net: str, phase: int, passes: Mapping[str, frozenset[Pass]]) -> None:
        """Hold what was planned for a net against what it runs; a net calls it when it is complete.

        Parameters
        ----------
        net, phase : as in `Owner`
        passes : for each layer the passes of its convolution that run, forward ones alone in a net that does not
            train; none for layers without a convolution

        Raises
        ------
        ScheduleError : the plan does not fit the net
        """
        return None

    def measure(self) -> None:
        """From here on measure what the device's queue does, for `take_queue`, at the price of some speed."""
        return None

    def take_queue(self) -> dict[str, float]:
        """Seconds that the device's queue spent in ``write``, ``kernel`` and ``read`` since the last call.

        Empty where there is no queue, or before `measure`.
        """
        return {}

    def take_stages(self) -> StageSeconds:
        """What each layer's products took since the last call, stage by stage; empty where nothing is measured."""
        return {}

    def tune(self) -> Iterator[str]:
        """Measure which variants are fast here and keep them for later processes; gives a line a step.

        Raises
        ------
        UnsupportedError : nothing to tune
        """
        raise UnsupportedError(f"the {self.name} backend has nothing to tune; tune --backend opencl")

    def tune_convolutions(self, works: Iterable[tuple[ConvolutionGeometry, Pass]]) -> Iterator[Tuned]:
        """Measure all variants of these passes of convolutions and keep the fastest for later processes.

        Raises
        ------
        UnsupportedError : there are no variants
        """
        raise UnsupportedError(f"the {self.name} backend has one way to compute a convolution; tune opencl")

    @abc.abstractmethod
    def describe(self) -> str:
        """One line for the log: which device, how many threads."""

    def summary(self) -> str:
        """One line for the log at the end of a run; '' where there is nothing to say."""
        return ""

    @abc.abstractmethod
    def finish(self) -> None:
        """Wait until everything that was started has been computed."""

    @abc.abstractmethod
    def elementwise(self, source: str, tensors: Sequence[str], count: int) -> Elementwise: ...

    @abc.abstractmethod
    def elementwise_group(self, source: str, tensors: Sequence[str], counts: Sequence[int]) -> ElementwiseGroup: ...

    @abc.abstractmethod
    def sum_squares(self, tensors: Sequence[Tensor]) -> float:
        """Sum of squares of all elements of all `tensors`, read back to the host."""

    @abc.abstractmethod
    def sum_absolute(self, tensors: Sequence[Tensor]) -> float:
        """Sum of absolute values of all elements of all `tensors`, read back to the host."""

    @abc.abstractmethod
    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm: ...

    @abc.abstractmethod
    def convolution(self, geometry: ConvolutionGeometry) -> Convolution: ...

    @abc.abstractmethod
    def broadcast(self, geometry: AxisGeometry) -> Broadcast: ...

    @abc.abstractmethod
    def max_pooling(self, geometry: PoolingGeometry) -> Pooling: ...

    @abc.abstractmethod
    def average_pooling(self, geometry: PoolingGeometry) -> Pooling: ...

    @abc.abstractmethod
    def stochastic_pooling(self, geometry: PoolingGeometry) -> StochasticPooling: ...

    @abc.abstractmethod
    def lrn_across(self, shape: Shape, size: int, alpha: float, beta: float, k: float) -> LRN: ...

    @abc.abstractmethod
    def lrn_within(self, shape: Shape, size: int, alpha: float, beta: float) -> LRN: ...

    @abc.abstractmethod
    def batch_norm(self, geometry: AxisGeometry, eps: float, in_place: bool = False) -> BatchNorm:
        """`in_place`: whether `forward_train` will be, so that memory is there for what it overwrites."""

    @abc.abstractmethod
    def unit_length(self, geometry: AxisGeometry, eps: float) -> UnitLength: ...

    @abc.abstractmethod
    def prelu(self, geometry: AxisGeometry) -> PReLU: ...

    @abc.abstractmethod
    def dropout(self, count: int, ratio: float) -> Dropout: ...

    @abc.abstractmethod
    def softmax(self, geometry: AxisGeometry) -> Softmax: ...

    @abc.abstractmethod
    def softmax_loss(self, geometry: AxisGeometry, rule: LossRule) -> Loss:
        """Cross entropy of probabilities x (already softmax) with labels (outer, inner).

        Its gradient is with respect to the softmax's input: (x - one_hot) / normaliser.  A label that is no
        class raises DataError, or makes the loss NaN where a device cannot raise.
        """

    @abc.abstractmethod
    def infogain_loss(self, geometry: AxisGeometry, rule: LossRule) -> InfogainLoss:
        """Labels (outer, inner); one that is no class is reported as by `softmax_loss`."""

    @abc.abstractmethod
    def multinomial_loss(self, geometry: AxisGeometry) -> Loss:
        """-log of the probabilities x(outer, axis) at labels (outer,), summed up and divided by outer."""

    @abc.abstractmethod
    def euclidean_loss(self, count: int, batch: int) -> Loss:
        """sum((x - target)^2) / (2 batch)."""

    @abc.abstractmethod
    def sigmoid_cross_entropy_loss(self, count: int, batch: int, rule: LossRule) -> Loss:
        """Cross entropy of sigmoid(x) with targets in [0, 1]; FULL and VALID count elements."""

    @abc.abstractmethod
    def hinge_loss(self, geometry: AxisGeometry, norm: str) -> MarginLoss:
        """One-against-all hinge loss, `norm` L1 or L2, over labels (outer,); margins are max(0, 1 -+ x)."""

    @abc.abstractmethod
    def accuracy(self, geometry: AxisGeometry, top_k: int, ignore_label: int | None) -> Accuracy: ...

    @abc.abstractmethod
    def combine(self, operation: str, coefficients: Sequence[float], count: int,
                stable: bool = True) -> Combine:
        """`operation` SUM, PROD or MAX over len(coefficients) tensors; `stable`: PROD's gradient
        multiplies the other factors rather than dividing the product."""

    @abc.abstractmethod
    def join(self, outer: int, sizes: Sequence[int], inner: int) -> Join: ...

    @abc.abstractmethod
    def rearrange(self, geometry: StridedGeometry) -> Rearrange: ...

    @abc.abstractmethod
    def gather(self, rows: int, inner: int, count: int) -> Gather: ...

    @abc.abstractmethod
    def unfold(self, geometry: ConvolutionGeometry) -> Unfold:
        """The columns of a convolution of one group; its number of outputs does not matter."""

    @abc.abstractmethod
    def arg_max(self, geometry: AxisGeometry, top_k: int) -> ArgMax: ...

    @abc.abstractmethod
    def interpolation(self, planes: int, rows: Taps, columns: Taps) -> Interpolation: ...

    @abc.abstractmethod
    def lookup(self, geometry: LookupGeometry) -> Lookup: ...

    @abc.abstractmethod
    def fold(self, geometry: AxisGeometry, operation: str) -> Fold:
        """`operation`: MAX, MIN or PROD."""

    @abc.abstractmethod
    def matmul(self, a_shape: Shape, b_shape: Shape, trans_a: bool, trans_b: bool) -> MatMul:
        """Shapes of two axes or more, as they lie in memory."""

    @abc.abstractmethod
    def window_pooling(self, geometry: WindowGeometry, maximum: bool) -> WindowPooling:
        """`maximum`: else the mean."""

    @abc.abstractmethod
    def detection_output(self, images: int, priors: int, rule: DetectionRule) -> Detection: ...
