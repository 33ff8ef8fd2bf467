"""Op sets that stand on a host op set: what a device lacks runs there, and the report says so."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Mapping, Sequence

from ..blob import Tensor
from ..gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from .base import (
    LRN,
    Accuracy,
    ArgMax,
    AxisGeometry,
    BatchNorm,
    Broadcast,
    Combine,
    Convolution,
    Detection,
    DetectionRule,
    Dropout,
    Elementwise,
    ElementwiseGroup,
    Fold,
    Gather,
    Gemm,
    InfogainLoss,
    Interpolation,
    Join,
    Lookup,
    LookupGeometry,
    Loss,
    LossRule,
    MarginLoss,
    MatMul,
    OpSet,
    Owner,
    P,
    Pooling,
    PoolingGeometry,
    PReLU,
    Primitive,
    Rearrange,
    Shape,
    Softmax,
    StageSeconds,
    StochasticPooling,
    StridedGeometry,
    Taps,
    Unfold,
    UnitLength,
    WindowGeometry,
    WindowPooling,
)

log = logging.getLogger(__name__)

@dataclasses.dataclass(frozen=True)
class Placement:
    """Where one primitive runs.

    Attributes
    ----------
    op : the method of `OpSet` that made it
    shape : the sizes that it was made for
    where : name of the memory space in which it computes
    variant : the way that it chose, '' where there is only one
    workspace_bytes, scratch_bytes : memory that it alone holds, and that it shares, see `Primitive`
    """

    op: str
    shape: str
    where: str
    variant: str
    workspace_bytes: int
    scratch_bytes: int


class HostedOps(OpSet):
    """An op set that hands everything to a host op set.

    A device's op set derives from it and overrides what the device can do, passing what it
    makes through `placed`.  Blobs move by themselves, since a primitive asks its tensors for
    arrays in its own space.  What stays on the host is logged once for each kind of op.

    Parameters
    ----------
    host : computes what the device does not

    Attributes
    ----------
    host, dtype : the host op set and its element type
    """

    def __init__(self, host: OpSet) -> None:
        self.host = host
        self.dtype = host.dtype
        # Primitives leave with the layer that holds them.
        self._placed: weakref.WeakKeyDictionary[Primitive, tuple[str, str]] = weakref.WeakKeyDictionary()
        self._fallen_back: set[tuple[str, str]] = set()

    @property
    def owner(self) -> Owner:
        """Whose primitives are made next."""
        return self.host.owner

    @owner.setter
    def owner(self, owner: Owner) -> None:
        self.host.owner = owner

    @property
    def parts(self) -> tuple[OpSet, ...]:
        return (self, *self.host.parts)

    # ---- placement --------------------------------------------------------------------------

    @property
    def placement(self) -> list[Placement]:
        """Where each primitive that is in use runs, in the order of making."""
        return [Placement(op, shape, primitive.space.name, primitive.variant, primitive.workspace_bytes,
                          primitive.scratch_bytes)
                for primitive, (op, shape) in self._placed.items()]

    def placement_report(self) -> str:
        """The placement as an aligned table."""
        rows = [("op", "shape", "where", "variant", "workspace bytes", "scratch bytes")]
        rows += [(p.op, p.shape, p.where, p.variant or "-", str(p.workspace_bytes), str(p.scratch_bytes))
                 for p in self.placement]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(width) if column < 4 else cell.rjust(width)
                                   for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
                         for row in rows)

    def placed(self, op: str, shape: object, primitive: P) -> P:
        """Take a primitive of this op set into the placement, count it among those in use, and return it."""
        self._placed[primitive] = (op, str(shape))
        return self.use(primitive)

    def on_host(self, op: str, shape: object, primitive: P, reason: str = "") -> P:
        """Take a primitive of the host op set into the placement, say so, and return it.

        Parameters
        ----------
        reason : why the device does not do it; '' means that it has no kernel for it
        """
        self.say_host(op, reason)
        self._placed[primitive] = (op, str(shape))
        return primitive

    def say_host(self, op: str, reason: str = "") -> None:
        """Log, once for each op and reason, that it runs on the host."""
        if (op, reason) not in self._fallen_back:
            self._fallen_back.add((op, reason))
            log.info("%s runs on the host: %s", op, reason or f"the {self.name} op set has no kernel for it")

    # ---- the contract, all of it on the host ------------------------------------------------

    def finish(self) -> None:
        self.host.finish()

    def elementwise(self, source: str, tensors: Sequence[str], count: int) -> Elementwise:
        return self.on_host("elementwise", count, self.host.elementwise(source, tensors, count))

    def elementwise_group(self, source: str, tensors: Sequence[str], counts: Sequence[int]) -> ElementwiseGroup:
        return self.on_host("elementwise_group", counts_text(counts),
                            self.host.elementwise_group(source, tensors, counts))

    def sum_squares(self, tensors: Sequence[Tensor]) -> float:
        self.say_host("sum_squares")
        return self.host.sum_squares(tensors)

    def sum_absolute(self, tensors: Sequence[Tensor]) -> float:
        self.say_host("sum_absolute")
        return self.host.sum_absolute(tensors)

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        return self.on_host("gemm", gemm_text(shape), self.host.gemm(shape, trans_a, trans_b))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        return self.on_host("convolution", convolution_text(geometry), self.host.convolution(geometry))

    def broadcast(self, geometry: AxisGeometry) -> Broadcast:
        return self.on_host("broadcast", geometry.shape, self.host.broadcast(geometry))

    def max_pooling(self, geometry: PoolingGeometry) -> Pooling:
        return self.on_host("max_pooling", geometry.x_shape, self.host.max_pooling(geometry))

    def average_pooling(self, geometry: PoolingGeometry) -> Pooling:
        return self.on_host("average_pooling", geometry.x_shape, self.host.average_pooling(geometry))

    def stochastic_pooling(self, geometry: PoolingGeometry) -> StochasticPooling:
        return self.on_host("stochastic_pooling", geometry.x_shape, self.host.stochastic_pooling(geometry))

    def lrn_across(self, shape: Shape, size: int, alpha: float, beta: float, k: float) -> LRN:
        return self.on_host("lrn_across", shape, self.host.lrn_across(shape, size, alpha, beta, k))

    def lrn_within(self, shape: Shape, size: int, alpha: float, beta: float) -> LRN:
        return self.on_host("lrn_within", shape, self.host.lrn_within(shape, size, alpha, beta))

    def batch_norm(self, geometry: AxisGeometry, eps: float, in_place: bool = False) -> BatchNorm:
        return self.on_host("batch_norm", geometry.shape, self.host.batch_norm(geometry, eps, in_place))

    def unit_length(self, geometry: AxisGeometry, eps: float) -> UnitLength:
        return self.on_host("unit_length", geometry.shape, self.host.unit_length(geometry, eps))

    def prelu(self, geometry: AxisGeometry) -> PReLU:
        return self.on_host("prelu", geometry.shape, self.host.prelu(geometry))

    def dropout(self, count: int, ratio: float) -> Dropout:
        return self.on_host("dropout", count, self.host.dropout(count, ratio))

    def softmax(self, geometry: AxisGeometry) -> Softmax:
        return self.on_host("softmax", geometry.shape, self.host.softmax(geometry))

    def softmax_loss(self, geometry: AxisGeometry, rule: LossRule) -> Loss:
        return self.on_host("softmax_loss", geometry.shape, self.host.softmax_loss(geometry, rule))

    def infogain_loss(self, geometry: AxisGeometry, rule: LossRule) -> InfogainLoss:
        return self.on_host("infogain_loss", geometry.shape, self.host.infogain_loss(geometry, rule))

    def multinomial_loss(self, geometry: AxisGeometry) -> Loss:
        return self.on_host("multinomial_loss", geometry.shape, self.host.multinomial_loss(geometry))

    def euclidean_loss(self, count: int, batch: int) -> Loss:
        return self.on_host("euclidean_loss", count, self.host.euclidean_loss(count, batch))

    def sigmoid_cross_entropy_loss(self, count: int, batch: int, rule: LossRule) -> Loss:
        return self.on_host("sigmoid_cross_entropy_loss", count,
                            self.host.sigmoid_cross_entropy_loss(count, batch, rule))

    def hinge_loss(self, geometry: AxisGeometry, norm: str) -> MarginLoss:
        return self.on_host("hinge_loss", geometry.shape, self.host.hinge_loss(geometry, norm))

    def accuracy(self, geometry: AxisGeometry, top_k: int, ignore_label: int | None) -> Accuracy:
        return self.on_host("accuracy", geometry.shape, self.host.accuracy(geometry, top_k, ignore_label))

    def combine(self, operation: str, coefficients: Sequence[float], count: int, stable: bool = True) -> Combine:
        return self.on_host("combine", f"{len(coefficients)} x {count}",
                            self.host.combine(operation, coefficients, count, stable))

    def join(self, outer: int, sizes: Sequence[int], inner: int) -> Join:
        return self.on_host("join", join_text(outer, sizes, inner), self.host.join(outer, sizes, inner))

    def rearrange(self, geometry: StridedGeometry) -> Rearrange:
        return self.on_host("rearrange", geometry.sizes, self.host.rearrange(geometry))

    def gather(self, rows: int, inner: int, count: int) -> Gather:
        return self.on_host("gather", gather_text(rows, inner, count), self.host.gather(rows, inner, count))

    def unfold(self, geometry: ConvolutionGeometry) -> Unfold:
        return self.on_host("unfold", geometry.x_shape, self.host.unfold(geometry))

    def arg_max(self, geometry: AxisGeometry, top_k: int) -> ArgMax:
        return self.on_host("arg_max", geometry.shape, self.host.arg_max(geometry, top_k))

    def interpolation(self, planes: int, rows: Taps, columns: Taps) -> Interpolation:
        return self.on_host("interpolation", (planes, rows.outputs, columns.outputs),
                            self.host.interpolation(planes, rows, columns))

    def lookup(self, geometry: LookupGeometry) -> Lookup:
        return self.on_host("lookup", geometry.y_shape, self.host.lookup(geometry))

    def fold(self, geometry: AxisGeometry, operation: str) -> Fold:
        return self.on_host("fold", geometry.shape, self.host.fold(geometry, operation))

    def matmul(self, a_shape: Shape, b_shape: Shape, trans_a: bool, trans_b: bool) -> MatMul:
        return self.on_host("matmul", f"{a_shape} * {b_shape}", self.host.matmul(a_shape, b_shape, trans_a, trans_b))

    def window_pooling(self, geometry: WindowGeometry, maximum: bool) -> WindowPooling:
        return self.on_host("window_pooling", geometry.x_shape, self.host.window_pooling(geometry, maximum))

    def detection_output(self, images: int, priors: int, rule: DetectionRule) -> Detection:
        return self.on_host("detection_output", (images, priors, rule.classes),
                            self.host.detection_output(images, priors, rule))


def counts_text(counts: Sequence[int]) -> str:
    """Sizes of a group of sets of tensors, for the report."""
    return f"{sum(counts)} in {len(counts)} sets"


class WrappedOps(HostedOps):
    """An op set around an op set, to which it hands on everything but what a subclass changes.

    Parameters
    ----------
    ops : computes
    """

    def __init__(self, ops: OpSet) -> None:
        super().__init__(ops)
        self.name, self.space = ops.name, ops.space

    def check_net(self, net: str, phase: int, passes: Mapping[str, frozenset[Pass]]) -> None:
        self.host.check_net(net, phase, passes)

    def describe(self) -> str:
        return self.host.describe()

    def summary(self) -> str:
        return self.host.summary()

    def measure(self) -> None:
        self.host.measure()

    def take_queue(self) -> dict[str, float]:
        return self.host.take_queue()

    def take_stages(self) -> StageSeconds:
        return self.host.take_stages()

    def on_host(self, op: str, shape: object, primitive: P, reason: str = "") -> P:
        """Pass on what the op set below made, and has reported."""
        return primitive

    def say_host(self, op: str, reason: str = "") -> None:
        """The op set below says it."""


def gemm_text(shape: GemmShape) -> str:
    """Sizes of a matrix product, for the report."""
    return f"M={shape.m} N={shape.n} K={shape.k}"


def convolution_text(geometry: ConvolutionGeometry) -> str:
    """Sizes of a convolution, for the report."""
    return f"{geometry.x_shape} * {geometry.w_shape}"


def join_text(outer: int, sizes: Sequence[int], inner: int) -> str:
    """Sizes of a concatenation, for the report."""
    return f"({outer}, {'+'.join(map(str, sizes))}, {inner})"


def gather_text(rows: int, inner: int, count: int) -> str:
    """Sizes of a choice of rows, for the report."""
    return f"{count} of ({rows}, {inner})"
