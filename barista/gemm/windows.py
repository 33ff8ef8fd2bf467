"""How large the sums of a convolution can become, from what its operands hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .shapes import ConvolutionGeometry, Pass

Array = npt.NDArray[Any]


def products_a_sum(geometry: ConvolutionGeometry, pass_: Pass) -> int:
    """Products that a number of the result takes at the most."""
    g = geometry
    return {Pass.FORWARD: g.depth, Pass.GRAD_INPUT: g.out_channels // g.group * math.prod(g.kernel),
            Pass.GRAD_WEIGHT: g.batch * g.pixels}[pass_]


def largest_sum(geometry: ConvolutionGeometry, pass_: Pass, inp: Array, kern: Array) -> float:
    """A bound of the magnitude of all sums of a pass.

    By the inequality of Cauchy and Schwarz no sum exceeds the largest norm of a filter of KERN times the largest norm
    of what lies under one on INP, group by group; these are sums of squares over windows.

    Parameters
    ----------
    inp, kern : x and w in forward, dy and w in grad_input, x and dy in grad_weight, as the framework has them
    """
    filters, windows = _filters(geometry, pass_, kern), _windows(geometry, pass_, inp)
    return math.sqrt(float((filters * windows).max(initial=0.0)))


def _filters(g: ConvolutionGeometry, pass_: Pass, kern: Array) -> Array:
    """[group], the largest sum of squares of a filter."""
    if pass_ is Pass.GRAD_WEIGHT:
        parts = kern.reshape(g.batch, g.group, g.out_channels // g.group, -1)
        squares = np.einsum("ngdp,ngdp->gd", parts, parts, dtype=np.float64)
    else:
        parts = kern.reshape(g.group, g.out_channels // g.group, g.in_channels // g.group, -1)
        kept = "gd" if pass_ is Pass.FORWARD else "gc"
        squares = np.einsum(f"gdck,gdck->{kept}", parts, parts, dtype=np.float64)
    return np.asarray(squares.max(axis=1, initial=0.0))


def _windows(g: ConvolutionGeometry, pass_: Pass, inp: Array) -> Array:
    """[group], the largest sum of squares of what a filter meets."""
    sizes = g.output if pass_ is Pass.GRAD_INPUT else g.input
    parts = inp.reshape(g.batch, g.group, -1, math.prod(sizes))
    frame = np.zeros((g.batch, g.group, 1 if pass_ is not Pass.GRAD_WEIGHT else parts.shape[2],
                      *(i + 2 * p for i, p in zip(g.input, g.pad, strict=True))))
    inside: tuple[Any, ...] = (..., *(slice(p, p + i) for i, p in zip(g.input, g.pad, strict=True)))
    kept = "ngcp" if pass_ is Pass.GRAD_WEIGHT else "ngp"
    squares = np.einsum(f"ngcp,ngcp->{kept}", parts, parts, dtype=np.float64).reshape(*frame.shape[:3], *sizes)
    taps: list[tuple[Any, ...]] = [(..., *(slice(at * d, at * d + (o - 1) * s + 1, s) for at, d, o, s in
                    zip(tap, g.dilation, g.output, g.stride, strict=True))) for tap in np.ndindex(*g.kernel)]
    if pass_ is Pass.GRAD_INPUT:
        for tap in taps:
            frame[tap] += squares
        return np.asarray(np.moveaxis(frame[inside], 1, 0).reshape(g.group, -1).max(axis=1, initial=0.0))
    frame[inside] = squares
    if pass_ is Pass.FORWARD:
        sums = np.zeros((*frame.shape[:3], *g.output))
        for tap in taps:
            sums += frame[tap]
        return np.asarray(np.moveaxis(sums, 1, 0).reshape(g.group, -1).max(axis=1, initial=0.0))
    spatial = tuple(range(3, frame.ndim))
    return np.asarray(np.max([frame[tap].sum(axis=(0, *spatial)).max(axis=1, initial=0.0) for tap in taps], axis=0))
