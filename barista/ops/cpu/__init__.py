"""The CPU op set: NumPy, its BLAS and a few threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...errors import UnsupportedError
from ...gemm.shapes import ConvolutionGeometry, GemmShape
from ..base import (
    AxisGeometry,
    DetectionRule,
    LookupGeometry,
    LossRule,
    OpSet,
    PoolingGeometry,
    Shape,
    StridedGeometry,
    Taps,
    WindowGeometry,
)
from ..program import parse
from .broadcast import CpuBroadcast, CpuPReLU
from .combine import CpuCombine, CpuDropout, CpuJoin
from .convolution import CpuConvolution
from .detection import CpuDetection
from .elementwise import CpuElementwise, CpuElementwiseGroup
from .gemm import CpuGemm
from .label_loss import CpuInfogainLoss, CpuMultinomialLoss
from .lookup import CpuFold, CpuLookup
from .loss import (
    CpuAccuracy,
    CpuEuclideanLoss,
    CpuHingeLoss,
    CpuSigmoidCrossEntropyLoss,
    CpuSoftmax,
    CpuSoftmaxLoss,
)
from .matmul import CpuMatMul
from .norm import CpuBatchNorm, CpuLRN
from .picking import CpuArgMax, CpuGather
from .pooling import CpuAveragePooling, CpuMaxPooling
from .rearrange import CpuRearrange, CpuUnfold
from .sampling import CpuInterpolation
from .stochastic_pooling import CpuStochasticPooling
from .threads import Threads
from .unit_length import CpuUnitLength
from .window_pooling import CpuMaxWindows, CpuMeanWindows


class CpuOps(OpSet):
    """Computes on the host.

    Parameters
    ----------
    dtype : float32 or float64
    threads : worker threads; None takes all cores

    Results for a fixed seed are the same from run to run with the same number of threads.
    """

    name = "cpu"
    space = HOST

    def __init__(self, dtype: npt.DTypeLike = np.float32, threads: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise UnsupportedError(f"the CPU op set computes in float32 or float64, not {self.dtype}")
        self.threads = Threads(threads)

    def describe(self) -> str:
        return f"CPU: NumPy {np.__version__}, {self.threads.count} thread(s), {self.dtype}"

    def finish(self) -> None:
        """Everything is computed when a call returns."""

    def elementwise(self, source: str, tensors: Sequence[str], count: int) -> CpuElementwise:
        return self.use(CpuElementwise(parse(source, tuple(tensors)), count, self.dtype, self.threads))

    def elementwise_group(self, source: str, tensors: Sequence[str], counts: Sequence[int]) -> CpuElementwiseGroup:
        return self.use(CpuElementwiseGroup(parse(source, tuple(tensors)), counts, self.dtype, self.threads))

    def sum_squares(self, tensors: Sequence[Tensor]) -> float:
        arrays = [x.read(HOST).reshape(-1) for x in tensors]
        return sum(float(np.dot(array, array)) for array in arrays)

    def sum_absolute(self, tensors: Sequence[Tensor]) -> float:
        return sum(float(np.abs(x.read(HOST)).sum()) for x in tensors)

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> CpuGemm:
        return self.use(CpuGemm(shape, trans_a, trans_b, self.dtype, self.threads))

    def convolution(self, geometry: ConvolutionGeometry) -> CpuConvolution:
        return self.use(CpuConvolution(geometry, self.dtype, self.threads))

    def broadcast(self, geometry: AxisGeometry) -> CpuBroadcast:
        return self.use(CpuBroadcast(geometry, self.dtype, self.threads))

    def max_pooling(self, geometry: PoolingGeometry) -> CpuMaxPooling:
        return self.use(CpuMaxPooling(geometry, self.dtype, self.threads))

    def average_pooling(self, geometry: PoolingGeometry) -> CpuAveragePooling:
        return self.use(CpuAveragePooling(geometry, self.dtype, self.threads))

    def stochastic_pooling(self, geometry: PoolingGeometry) -> CpuStochasticPooling:
        return self.use(CpuStochasticPooling(geometry, self.dtype, self.threads))

    def lrn_across(self, shape: Shape, size: int, alpha: float, beta: float, k: float) -> CpuLRN:
        return self.use(CpuLRN.across(shape, size, alpha, beta, k, self.dtype, self.threads))

    def lrn_within(self, shape: Shape, size: int, alpha: float, beta: float) -> CpuLRN:
        return self.use(CpuLRN.within(shape, size, alpha, beta, self.dtype, self.threads))

    def batch_norm(self, geometry: AxisGeometry, eps: float, in_place: bool = False) -> CpuBatchNorm:
        return self.use(CpuBatchNorm(geometry, eps, self.dtype, self.threads))

    def unit_length(self, geometry: AxisGeometry, eps: float) -> CpuUnitLength:
        return self.use(CpuUnitLength(geometry, eps, self.dtype, self.threads))

    def prelu(self, geometry: AxisGeometry) -> CpuPReLU:
        return self.use(CpuPReLU(geometry, self.dtype, self.threads))

    def dropout(self, count: int, ratio: float) -> CpuDropout:
        return self.use(CpuDropout(count, ratio, self.dtype))

    def softmax(self, geometry: AxisGeometry) -> CpuSoftmax:
        return self.use(CpuSoftmax(geometry))

    def softmax_loss(self, geometry: AxisGeometry, rule: LossRule) -> CpuSoftmaxLoss:
        return self.use(CpuSoftmaxLoss(geometry, rule))

    def infogain_loss(self, geometry: AxisGeometry, rule: LossRule) -> CpuInfogainLoss:
        return self.use(CpuInfogainLoss(geometry, rule))

    def multinomial_loss(self, geometry: AxisGeometry) -> CpuMultinomialLoss:
        return self.use(CpuMultinomialLoss(geometry))

    def euclidean_loss(self, count: int, batch: int) -> CpuEuclideanLoss:
        return self.use(CpuEuclideanLoss(batch))

    def sigmoid_cross_entropy_loss(self, count: int, batch: int, rule: LossRule) -> CpuSigmoidCrossEntropyLoss:
        return self.use(CpuSigmoidCrossEntropyLoss(batch, rule))

    def hinge_loss(self, geometry: AxisGeometry, norm: str) -> CpuHingeLoss:
        return self.use(CpuHingeLoss(geometry, norm))

    def accuracy(self, geometry: AxisGeometry, top_k: int, ignore_label: int | None) -> CpuAccuracy:
        return self.use(CpuAccuracy(geometry, top_k, ignore_label))

    def combine(self, operation: str, coefficients: Sequence[float], count: int, stable: bool = True) -> CpuCombine:
        return self.use(CpuCombine(operation, coefficients, count, stable, self.dtype, self.threads))

    def join(self, outer: int, sizes: Sequence[int], inner: int) -> CpuJoin:
        return self.use(CpuJoin(outer, sizes, inner))

    def rearrange(self, geometry: StridedGeometry) -> CpuRearrange:
        return self.use(CpuRearrange(geometry, self.threads))

    def gather(self, rows: int, inner: int, count: int) -> CpuGather:
        return self.use(CpuGather(rows, inner, self.threads))

    def unfold(self, geometry: ConvolutionGeometry) -> CpuUnfold:
        return self.use(CpuUnfold(geometry, self.dtype, self.threads))

    def arg_max(self, geometry: AxisGeometry, top_k: int) -> CpuArgMax:
        return self.use(CpuArgMax(geometry, top_k, self.threads))

    def interpolation(self, planes: int, rows: Taps, columns: Taps) -> CpuInterpolation:
        return self.use(CpuInterpolation(planes, rows, columns, self.dtype, self.threads))

    def lookup(self, geometry: LookupGeometry) -> CpuLookup:
        return self.use(CpuLookup(geometry))

    def fold(self, geometry: AxisGeometry, operation: str) -> CpuFold:
        return self.use(CpuFold(geometry, operation, self.threads))

    def matmul(self, a_shape: Shape, b_shape: Shape, trans_a: bool, trans_b: bool) -> CpuMatMul:
        return self.use(CpuMatMul(a_shape, b_shape, trans_a, trans_b))

    def window_pooling(self, geometry: WindowGeometry, maximum: bool) -> CpuMaxWindows | CpuMeanWindows:
        return self.use(CpuMaxWindows(geometry, self.threads) if maximum else CpuMeanWindows(geometry, self.threads))

    def detection_output(self, images: int, priors: int, rule: DetectionRule) -> CpuDetection:
        return self.use(CpuDetection(images, priors, rule, self.dtype))
