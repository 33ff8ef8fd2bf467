"""The OpenCL op set: one method for each op that has kernels."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...blob import Tensor
from ...errors import DeviceError, ScheduleError, UnsupportedError
from ...gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from ...runtime.context import Context
from ...runtime.devices import select
from ...runtime.pocl import is_pocl
from ...schedule import Schedule
from ..base import (
    LRN,
    Accuracy,
    AxisGeometry,
    BatchNorm,
    Broadcast,
    Combine,
    Convolution,
    Dropout,
    Elementwise,
    ElementwiseGroup,
    Gather,
    Gemm,
    Join,
    Loss,
    LossRule,
    MarginLoss,
    OpSet,
    Owner,
    Pooling,
    PoolingGeometry,
    PReLU,
    Rearrange,
    Shape,
    Softmax,
    StridedGeometry,
)
from ..hosted import HostedOps, convolution_text, counts_text, gather_text, gemm_text, join_text
from ..program import parse
from ..tuned import Tuned
from .accuracy import OpenCLAccuracy
from .batch_norm import OpenCLBatchNorm
from .broadcast import OpenCLBroadcast
from .choice import Choices, measures
from .combine import OpenCLCombine, OpenCLJoin
from .conv_families import MAX_AXES
from .convolution import OpenCLConvolution
from .device import Device
from .dropout import OpenCLDropout
from .elementwise import OpenCLElementwise, OpenCLElementwiseGroup
from .gemm import OpenCLGemm
from .losses import OpenCLEuclideanLoss, OpenCLHingeLoss, OpenCLSigmoidCrossEntropyLoss, OpenCLSoftmaxLoss
from .lrn import OpenCLLRN
from .pooling import MAX_LINE, TOO_WIDE, OpenCLAveragePooling, OpenCLMaxPooling, line
from .prelu import OpenCLPReLU
from .rearrange import TOO_MANY, OpenCLGather, OpenCLRearrange, fits
from .reduce import Reduction
from .softmax import OpenCLSoftmax
from .tuner import tune


class OpenCLOps(HostedOps):
    """Computes on an OpenCL device, in the host op set's dtype.

    Parameters
    ----------
    host : computes what has no kernel
    device : which device, see `runtime.devices.choose`
    schedule : names variants for some of its entries; None: none
    measure : whether passes of convolutions whose fastest variant is not known are measured, and kernels built, when
        a net is complete; else a rule chooses, and kernels are built when they first run

    Raises
    ------
    DeviceError : no platform or no such device
    UnsupportedError : float64 on a device without it
    """

    name = "opencl"

    def __init__(self, host: OpSet, device: str | None = None, schedule: Schedule | None = None,
                 measure: bool = True) -> None:
        super().__init__(host)
        self.context = Context(device)
        if self.dtype.itemsize == 8 and not self.context.has_fp64:
            raise UnsupportedError(f"{self.context.name} has no float64 (cl_khr_fp64); use float32, or the cpu backend")
        self._device = Device(self.context, self.dtype)
        self.space = self._device.space
        self._schedule = schedule
        self._choices = Choices(self._device, measures())
        self._measures = measure
        # Those that nets hold, by whose they are.
        self._convolutions: weakref.WeakValueDictionary[Owner, OpenCLConvolution] = weakref.WeakValueDictionary()

    @staticmethod
    def is_processor(device: str | None = None) -> bool:
        """Whether `device` (see `runtime.devices.choose`) is the host's processor, and works in the host's memory.

        Raises
        ------
        DeviceError : no platform or no such device
        """
        return is_pocl(select(device).device)

    def describe(self) -> str:
        return f"OpenCL: {self.context.describe()}, {self.dtype}"

    @property
    def scratch_bytes(self) -> int:
        return self._device.scratch.nbytes

    def tune(self) -> Iterator[str]:
        yield from tune(self._device)

    def tune_convolutions(self, works: Iterable[tuple[ConvolutionGeometry, Pass]]) -> Iterator[Tuned]:
        yield from self._choices.tune(works)

    def measure(self) -> None:
        self.context.measure()

    def take_queue(self) -> dict[str, float]:
        return self.context.take_seconds()

    def finish(self) -> None:
        self.context.finish()
        self.host.finish()

    def elementwise(self, source: str, tensors: Sequence[str], count: int) -> Elementwise:
        program = parse(source, tuple(tensors))
        return self.placed("elementwise", count, OpenCLElementwise(self._device, program, count))

    def elementwise_group(self, source: str, tensors: Sequence[str], counts: Sequence[int]) -> ElementwiseGroup:
        program = parse(source, tuple(tensors))
        return self.placed("elementwise_group", counts_text(counts),
                           OpenCLElementwiseGroup(self._device, program, counts))

    @functools.cached_property
    def _sum_squares(self) -> Reduction:
        return Reduction(self._device, "sum_squares")

    @functools.cached_property
    def _sum_absolute(self) -> Reduction:
        return Reduction(self._device, "sum_absolute")

    def sum_squares(self, tensors: Sequence[Tensor]) -> float:
        return self._sum_squares(tensors)

    def sum_absolute(self, tensors: Sequence[Tensor]) -> float:
        return self._sum_absolute(tensors)

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        return self.placed("gemm", gemm_text(shape), OpenCLGemm(self._device, shape, trans_a, trans_b))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        text = convolution_text(geometry)
        axes = len(geometry.input)
        if axes > MAX_AXES:
            return self.on_host("convolution", text, self.host.convolution(geometry),
                                f"the kernels go up to {MAX_AXES} spatial axes, this one has {axes}")
        made = self._convolutions[self.owner] = self._chosen(geometry)
        return self.placed("convolution", text, made)

    def _chosen(self, geometry: ConvolutionGeometry) -> OpenCLConvolution:
        """A convolution with the variants that the schedule names for the owner."""
        if self._schedule is None:
            return OpenCLConvolution(self._device, geometry, self._choices)
        wanted = {entry.pass_: entry.variant for entry in self._schedule.entries
                  if entry.layer == self.owner.layer and entry.variant}
        try:
            return OpenCLConvolution(self._device, geometry, self._choices, wanted)
        except ScheduleError as error:
            raise ScheduleError(f"{self._schedule.source}: {error}") from None

    def check_net(self, net: str, phase: int, passes: Mapping[str, frozenset[Pass]]) -> None:
        found = [(layer, run, made) for layer, run in passes.items()
                 if run and (made := self._convolutions.get(Owner(net, phase, layer))) is not None]
        with self.context.programs.helped():
            if self._measures:
                self._choices.settle((made.geometry, pass_) for _, run, made in found for pass_ in run - made.wanted)
            for layer, run, made in found:
                try:
                    made.make(run)
                except DeviceError as error:
                    raise DeviceError(f"{layer}: {error}") from error
            if self._measures:
                self._build()

    def _build(self) -> None:
        """Build the kernels of all primitives that were made."""
        for problem in self.context.programs.complete():
            raise DeviceError(problem)

    def broadcast(self, geometry: AxisGeometry) -> Broadcast:
        return self.placed("broadcast", geometry.shape, OpenCLBroadcast(self._device, geometry))

    def batch_norm(self, geometry: AxisGeometry, eps: float, in_place: bool = False) -> BatchNorm:
        return self.placed("batch_norm", geometry.shape, OpenCLBatchNorm(self._device, geometry, eps, in_place))

    def prelu(self, geometry: AxisGeometry) -> PReLU:
        return self.placed("prelu", geometry.shape, OpenCLPReLU(self._device, geometry))

    def max_pooling(self, geometry: PoolingGeometry) -> Pooling:
        if line(geometry) > MAX_LINE:
            return self.on_host("max_pooling", geometry.x_shape, self.host.max_pooling(geometry), TOO_WIDE)
        return self.placed("max_pooling", geometry.x_shape, OpenCLMaxPooling(self._device, geometry))

    def average_pooling(self, geometry: PoolingGeometry) -> Pooling:
        if line(geometry) > MAX_LINE:
            return self.on_host("average_pooling", geometry.x_shape, self.host.average_pooling(geometry), TOO_WIDE)
        return self.placed("average_pooling", geometry.x_shape, OpenCLAveragePooling(self._device, geometry))

    def lrn_across(self, shape: Shape, size: int, alpha: float, beta: float, k: float) -> LRN:
        return self.placed("lrn_across", shape, OpenCLLRN.across(self._device, shape, size, alpha, beta, k))

    def lrn_within(self, shape: Shape, size: int, alpha: float, beta: float) -> LRN:
        return self.placed("lrn_within", shape, OpenCLLRN.within(self._device, shape, size, alpha, beta))

    def dropout(self, count: int, ratio: float) -> Dropout:
        return self.placed("dropout", count, OpenCLDropout(self._device, count, ratio))

    def softmax(self, geometry: AxisGeometry) -> Softmax:
        return self.placed("softmax", geometry.shape, OpenCLSoftmax(self._device, geometry))

    def softmax_loss(self, geometry: AxisGeometry, rule: LossRule) -> Loss:
        return self.placed("softmax_loss", geometry.shape, OpenCLSoftmaxLoss(self._device, geometry, rule))

    def euclidean_loss(self, count: int, batch: int) -> Loss:
        return self.placed("euclidean_loss", count, OpenCLEuclideanLoss(self._device, count, batch))

    def sigmoid_cross_entropy_loss(self, count: int, batch: int, rule: LossRule) -> Loss:
        return self.placed("sigmoid_cross_entropy_loss", count,
                           OpenCLSigmoidCrossEntropyLoss(self._device, count, batch, rule))

    def hinge_loss(self, geometry: AxisGeometry, norm: str) -> MarginLoss:
        return self.placed("hinge_loss", geometry.shape, OpenCLHingeLoss(self._device, geometry, norm))

    def accuracy(self, geometry: AxisGeometry, top_k: int, ignore_label: int | None) -> Accuracy:
        return self.placed("accuracy", geometry.shape, OpenCLAccuracy(self._device, geometry, top_k, ignore_label))

    def combine(self, operation: str, coefficients: Sequence[float], count: int, stable: bool = True) -> Combine:
        primitive = OpenCLCombine(self._device, operation, coefficients, count, stable)
        return self.placed("combine", f"{len(coefficients)} x {count}", primitive)

    def join(self, outer: int, sizes: Sequence[int], inner: int) -> Join:
        return self.placed("join", join_text(outer, sizes, inner), OpenCLJoin(self._device, outer, sizes, inner))

    def rearrange(self, geometry: StridedGeometry) -> Rearrange:
        if not fits(geometry):
            return self.on_host("rearrange", geometry.sizes, self.host.rearrange(geometry), TOO_MANY)
        return self.placed("rearrange", geometry.sizes, OpenCLRearrange(self._device, geometry))

    def gather(self, rows: int, inner: int, count: int) -> Gather:
        return self.placed("gather", gather_text(rows, inner, count), OpenCLGather(self._device, rows, inner))
