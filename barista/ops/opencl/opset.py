"""The OpenCL op set: one method for each op that has kernels."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from ...blob import Tensor
from ...errors import UnsupportedError
from ...gemm.shapes import ConvolutionGeometry, GemmShape
from ...runtime.context import Context
from ..base import (
    AxisGeometry,
    Broadcast,
    Combine,
    Convolution,
    Dropout,
    Elementwise,
    Gemm,
    Join,
    Loss,
    LossRule,
    OpSet,
    Pooling,
    PoolingGeometry,
    Softmax,
)
from ..hosted import HostedOps, convolution_text, gemm_text, join_text
from ..program import parse
from .broadcast import OpenCLBroadcast
from .combine import OpenCLCombine, OpenCLJoin
from .convolution import MAX_AXES, OpenCLConvolution
from .device import Device
from .dropout import OpenCLDropout
from .elementwise import OpenCLElementwise
from .gemm import OpenCLGemm
from .pooling import OpenCLAveragePooling, OpenCLMaxPooling
from .reduce import Reduction
from .softmax import OpenCLSoftmax, OpenCLSoftmaxLoss
from .tuner import tune


class OpenCLOps(HostedOps):
    """Computes on an OpenCL device, in the host op set's dtype.

    Parameters
    ----------
    host : computes what has no kernel
    device : which device, see `runtime.devices.choose`

    Raises
    ------
    DeviceError : no platform or no such device
    UnsupportedError : float64 on a device without it
    """

    name = "opencl"

    def __init__(self, host: OpSet, device: str | None = None) -> None:
        super().__init__(host)
        self.context = Context(device)
        if self.dtype.itemsize == 8 and not self.context.has_fp64:
            raise UnsupportedError(f"{self.context.name} has no float64 (cl_khr_fp64); use float32, or the cpu backend")
        self._device = Device(self.context, self.dtype)
        self.space = self._device.space

    def describe(self) -> str:
        return f"OpenCL: {self.context.describe()}, {self.dtype}"

    def tune(self) -> Iterator[str]:
        yield from tune(self._device)

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

    @functools.cached_property
    def _sum_squares(self) -> Reduction:
        return Reduction(self._device, "sum_squares")

    @functools.cached_property
    def _sum_absolute(self) -> Reduction:
        return Reduction(self._device, "sum_absolute")

    def sum_squares(self, x: Tensor) -> float:
        return self._sum_squares(x)

    def sum_absolute(self, x: Tensor) -> float:
        return self._sum_absolute(x)

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        return self.placed("gemm", gemm_text(shape), OpenCLGemm(self._device, shape, trans_a, trans_b))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        text = convolution_text(geometry)
        axes = len(geometry.input)
        if axes > MAX_AXES:
            return self.on_host("convolution", text, self.host.convolution(geometry),
                                f"the kernels go up to {MAX_AXES} spatial axes, this one has {axes}")
        return self.placed("convolution", text, OpenCLConvolution(self._device, geometry))

    def broadcast(self, geometry: AxisGeometry) -> Broadcast:
        return self.placed("broadcast", geometry.shape, OpenCLBroadcast(self._device, geometry))

    def max_pooling(self, geometry: PoolingGeometry) -> Pooling:
        return self.placed("max_pooling", geometry.x_shape, OpenCLMaxPooling(self._device, geometry))

    def average_pooling(self, geometry: PoolingGeometry) -> Pooling:
        return self.placed("average_pooling", geometry.x_shape, OpenCLAveragePooling(self._device, geometry))

    def dropout(self, count: int, ratio: float) -> Dropout:
        return self.placed("dropout", count, OpenCLDropout(self._device, count, ratio))

    def softmax(self, geometry: AxisGeometry) -> Softmax:
        return self.placed("softmax", geometry.shape, OpenCLSoftmax(self._device, geometry))

    def softmax_loss(self, geometry: AxisGeometry, rule: LossRule) -> Loss:
        return self.placed("softmax_loss", geometry.shape, OpenCLSoftmaxLoss(self._device, geometry, rule))

    def combine(self, operation: str, coefficients: Sequence[float], count: int, stable: bool = True) -> Combine:
        primitive = OpenCLCombine(self._device, operation, coefficients, count, stable)
        return self.placed("combine", f"{len(coefficients)} x {count}", primitive)

    def join(self, outer: int, sizes: Sequence[int], inner: int) -> Join:
        return self.placed("join", join_text(outer, sizes, inner), OpenCLJoin(self._device, outer, sizes, inner))
