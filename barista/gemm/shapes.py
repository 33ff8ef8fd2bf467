"""Shapes of convolutions and of the matrix products that they become.

Pure arithmetic, with no device and no data: backends, latency models and the
design space exploration all read from here.
"""

from __future__ import annotations

import dataclasses
import enum
import math

Shape = tuple[int, ...]


class Pass(enum.Enum):
    """The three passes of a convolution."""

    FORWARD = "forward"
    GRAD_WEIGHT = "grad_weight"
    GRAD_INPUT = "grad_input"


@dataclasses.dataclass(frozen=True)
class GemmShape:
    """C(M, N) = A(M, K) B(K, N), row-major."""

    m: int
    n: int
    k: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one product."""
        return self.m * self.n * self.k


@dataclasses.dataclass(frozen=True)
class ConvolutionGeometry:
    """A convolution of x(N, C, *I) with w(D, C/group, *kernel) to y(N, D, *O).

    Spatial tuples have one entry an axis (1 to 3 axes in practice).

    Parameters
    ----------
    batch : images N
    in_channels, out_channels : C and D
    input : sizes I
    kernel, stride, pad, dilation : as in Caffe's ConvolutionParameter
    group : C and D are cut into this many independent groups
    """

    batch: int
    in_channels: int
    out_channels: int
    input: Shape
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape
    group: int = 1

    @property
    def extent(self) -> Shape:
        """Sizes of the dilated kernel, dilation * (kernel - 1) + 1."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def output(self) -> Shape:
        """Sizes O = (I + 2 pad - extent) // stride + 1.

        Caffe: convolution rounds down, pooling rounds up.
        """
        return tuple((i + 2 * p - e) // s + 1
                     for i, p, e, s in zip(self.input, self.pad, self.extent, self.stride, strict=True))

    @property
    def x_shape(self) -> Shape:
        """(N, C, *I)"""
        return (self.batch, self.in_channels, *self.input)

    @property
    def y_shape(self) -> Shape:
        """(N, D, *O)"""
        return (self.batch, self.out_channels, *self.output)

    @property
    def w_shape(self) -> Shape:
        """(D, C/group, *kernel)"""
        return (self.out_channels, self.in_channels // self.group, *self.kernel)

    @property
    def depth(self) -> int:
        """Rows of the unrolled matrix of one group: C/group * prod(kernel)."""
        return self.in_channels // self.group * math.prod(self.kernel)

    @property
    def pixels(self) -> int:
        """Output positions of one image: prod(O)."""
        return math.prod(self.output)

    @property
    def is_pointwise(self) -> bool:
        """Whether the unrolled matrix is the input itself (1x1, stride 1, no padding)."""
        return all(k == s == 1 and p == 0 for k, s, p in zip(self.kernel, self.stride, self.pad, strict=True))

    def gemm(self, pass_: Pass) -> GemmShape:
        """Matrix product of one image and group (thesis, chapter 4: as Caffe issues them)."""
        rows = self.out_channels // self.group
        if pass_ is Pass.FORWARD:
            return GemmShape(rows, self.pixels, self.depth)
        if pass_ is Pass.GRAD_WEIGHT:
            return GemmShape(rows, self.depth, self.pixels)
        return GemmShape(self.depth, self.pixels, rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass over the whole batch."""
        return self.batch * self.group * self.gemm(Pass.FORWARD).macs
