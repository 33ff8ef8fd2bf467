"""Checking mode: matrix products and convolutions are computed a second time on the CPU and compared."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blob import HOST, Tensor
from ..errors import DeviceError
from ..gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from .base import Convolution, Gemm, OpSet
from .hosted import WrappedOps, convolution_text, gemm_text

Array = npt.NDArray[Any]

# How far a sum of K products may lie off, in units of the roundoff of the sum of their magnitudes: errors
# add up like sqrt(K), as a rule, and this is several times that.
ROOTS = 4.0


@dataclasses.dataclass
class Tally:
    """What has been compared so far.

    Parameters
    ----------
    products, passes : how many matrix products, and passes of convolutions
    largest : the largest difference of a number from the CPU's, over what is allowed for it
    """

    products: int = 0
    passes: int = 0
    largest: float = 0.0

    def __str__(self) -> str:
        if not self.products + self.passes:
            return "nothing was compared with the CPU"
        return (f"{self.passes} passes of convolutions and {self.products} other products were compared with the "
                f"CPU's; the largest difference was {100 * self.largest:.3g} % of what is allowed")


class VerifiedOps(WrappedOps):
    """An op set that compares each product and convolution with another op set's.

    The first that differs raises a `DeviceError`, which the net lets name the layer.  For looking for
    faults: every product is computed three times, and everything comes back to the host.

    Parameters
    ----------
    ops : computes, and is checked
    reference : computes the same on the CPU
    """

    def __init__(self, ops: OpSet, reference: OpSet) -> None:
        super().__init__(ops)
        self._reference = reference
        self._tally = Tally()

    def describe(self) -> str:
        return f"{self.host.describe()}; each product is compared with the CPU's"

    def summary(self) -> str:
        return "; ".join(filter(None, (self.host.summary(), f"Verified: {self._tally}")))

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        checked, reference = self.host.gemm(shape, trans_a, trans_b), self._reference.gemm(shape, trans_a, trans_b)
        return self.placed("gemm", gemm_text(shape), _VerifiedGemm(shape, checked, reference, self._tally))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        checked, reference = self.host.convolution(geometry), self._reference.convolution(geometry)
        return self.placed("convolution", convolution_text(geometry),
                           _VerifiedConvolution(geometry, checked, reference, self._tally))


@dataclasses.dataclass(frozen=True)
class _Check:
    """One comparison: sums of `k` products of numbers with a relative step of `resolution`."""

    what: str
    k: int
    resolution: float

    def compare(self, actual: Tensor, expected: Array, magnitudes: Array, largest: float) -> float:
        """Hold `actual` against `expected`; `magnitudes` are the sums of the products' magnitudes.

        Parameters
        ----------
        largest : the largest magnitude of a factor of one matrix times that of the other

        Returns
        -------
        float : the largest difference over what is allowed for it

        Raises
        ------
        DeviceError : one is larger
        """
        values = actual.read(HOST)
        roundoff = float(np.finfo(values.dtype).eps)
        bound = ROOTS * roundoff * math.sqrt(self.k + 1) * magnitudes
        if self.resolution:
            bound += 2 * self.resolution * self.k * largest
        same = (values == expected) | (np.isnan(values) & np.isnan(expected))
        difference = np.where(same, 0.0, np.abs(values - expected))
        wrong = ~same & ~(difference <= bound)
        if wrong.any():
            place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            raise DeviceError(f"{self.what} differs from the CPU's in {np.count_nonzero(wrong)} of {wrong.size} "
                              f"numbers: at {tuple(int(i) for i in place)} it is {values[place]:g}, the CPU says "
                              f"{expected[place]:g}, and sums of {self.k} products allow {bound[place]:.2g}; "
                              "the device, its driver or its kernel computes wrongly")
        limited = np.isfinite(bound) & (bound > 0)
        return float(np.divide(difference, bound, out=np.zeros_like(difference), where=limited).max(initial=0.0))


def _copy(tensor: Tensor) -> Tensor:
    copy = Tensor(tensor.shape, tensor.dtype)
    copy.write(HOST)[...] = tensor.read(HOST)
    return copy


def _absolute(tensor: Tensor) -> Tensor:
    copy = Tensor(tensor.shape, tensor.dtype)
    np.abs(tensor.read(HOST), out=copy.write(HOST))
    return copy


def _largest(a: Tensor, b: Tensor) -> float:
    return math.prod(float(np.abs(t.read(HOST)).max(initial=0.0)) for t in (a, b))


class _VerifiedGemm(Gemm):
    def __init__(self, shape: GemmShape, checked: Gemm, reference: Gemm, tally: Tally) -> None:
        self._checked, self._reference = checked, reference
        self.space, self.resolution = checked.space, checked.resolution
        self.variant = f"{checked.variant}, verified".removeprefix(", ")
        self._tally = tally
        self._check = _Check(f"the product {gemm_text(shape)}", shape.k, checked.resolution)

    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0,
            bias: Tensor | None = None) -> None:
        expected = _copy(c) if beta else Tensor(c.shape, c.dtype)
        magnitudes = _absolute(expected)
        self._reference.run(a, b, expected, alpha, beta, bias)
        self._reference.run(_absolute(a), _absolute(b), magnitudes, abs(alpha), abs(beta),
                            None if bias is None else _absolute(bias))
        self._checked.run(a, b, c, alpha, beta, bias)
        share = self._check.compare(c, expected.read(HOST), magnitudes.read(HOST), abs(alpha) * _largest(a, b))
        self._tally.products += 1
        self._tally.largest = max(self._tally.largest, share)


class _VerifiedConvolution(Convolution):
    def __init__(self, geometry: ConvolutionGeometry, checked: Convolution, reference: Convolution,
                 tally: Tally) -> None:
        g, self._tally = geometry, tally
        self._checked, self._reference = checked, reference
        self.space, self.resolution = checked.space, checked.resolution
        self.variant = f"{checked.variant}, verified".removeprefix(", ")
        lengths = {Pass.FORWARD: g.depth, Pass.GRAD_WEIGHT: g.batch * g.pixels,
                   Pass.GRAD_INPUT: g.out_channels // g.group * math.prod(g.kernel)}
        self._checks = {pass_: _Check(f"{pass_.value}, {convolution_text(g)},", k, checked.resolution)
                        for pass_, k in lengths.items()}

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        expected, magnitudes = Tensor(y.shape, y.dtype), Tensor(y.shape, y.dtype)
        self._reference.forward(x, w, bias, expected, rectify)
        self._reference.forward(_absolute(x), _absolute(w), None if bias is None else _absolute(bias), magnitudes)
        self._checked.forward(x, w, bias, y, rectify)
        self._compare(Pass.FORWARD, y, expected, magnitudes, _largest(x, w))

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        expected, magnitudes = _copy(dw), _absolute(dw)
        self._reference.grad_weight(x, dy, expected)
        self._reference.grad_weight(_absolute(x), _absolute(dy), magnitudes)
        self._checked.grad_weight(x, dy, dw)
        self._compare(Pass.GRAD_WEIGHT, dw, expected, magnitudes, _largest(x, dy))

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        expected, magnitudes = Tensor(dx.shape, dx.dtype), Tensor(dx.shape, dx.dtype)
        self._reference.grad_input(dy, w, expected)
        self._reference.grad_input(_absolute(dy), _absolute(w), magnitudes)
        self._checked.grad_input(dy, w, dx)
        self._compare(Pass.GRAD_INPUT, dx, expected, magnitudes, _largest(dy, w))

    def _compare(self, pass_: Pass, actual: Tensor, expected: Tensor, magnitudes: Tensor, largest: float) -> None:
        sums = magnitudes.read(HOST)
        if self._checked.mixes(pass_):
            # Rounding is that of the largest sums near a number, not of its own.
            sums = np.full_like(sums, sums.max(initial=0.0))
        share = self._checks[pass_].compare(actual, expected.read(HOST), sums, largest)
        self._tally.passes += 1
        self._tally.largest = max(self._tally.largest, share)
