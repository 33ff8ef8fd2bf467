"""Whole passes of convolutions on either array, on data of their own, with the result checked.

How long an array takes depends on shapes alone, so products of one shape are simulated once.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import BaristaError
from ...gemm.shapes import ConvolutionGeometry, Pass
from ...gemm.tiles import TileSizes
from ..workload import Workload
from .conv_array import simulate_conv
from .conv_layout import operand_shapes
from .gemm_array import simulate_gemm
from .settings import Array, SimulatedRun, SimulatorSettings

_SEED = 20240229


def simulate_conv_pass(workload: Workload, x: int, y: int, settings: SimulatorSettings) -> SimulatedRun:
    """Run a pass on FPGPT's array.

    Raises
    ------
    UnsupportedError, MissingExtraError : see `simulate_conv`
    BaristaError : the result is wrong, which is a mistake of the simulator
    """
    g, pass_ = workload.geometry, workload.pass_
    inp, kern = (random_words(shape) for shape in operand_shapes(g, pass_)[:2])
    run = simulate_conv(inp, kern, g, pass_, x, y, settings)
    require_close(workload, run.output, convolve(inp, kern, g, pass_), convolve(abs(inp), abs(kern), g, pass_))
    return run


def simulate_gemm_pass(workload: Workload, tiles: TileSizes, settings: SimulatorSettings) -> tuple[SimulatedRun, int]:
    """Run a pass on Barista's array: one product of an image and group, and how many of them the pass takes.

    Raises
    ------
    MissingExtraError : Numba is not installed
    BaristaError : the result is wrong, which is a mistake of the simulator
    """
    (shape, count), = workload.gemms()
    a, b = random_words((shape.m, shape.k)), random_words((shape.k, shape.n))
    run = simulate_gemm(a, b, tiles, settings)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    require_close(workload, run.output, a64 @ b64, abs(a64) @ abs(b64))
    return run, count


def convolve(inp: Array, kern: Array, geometry: ConvolutionGeometry, pass_: Pass) -> Array:
    """A pass of a convolution in float64, product by product of the kernel.

    Parameters
    ----------
    inp, kern : x and w in forward, dy and w in grad_input, x and dy in grad_weight

    Returns
    -------
    y, dx or dw
    """
    g, groups = geometry, geometry.group
    channels, filters = g.in_channels // groups, g.out_channels // groups
    (height, width), (pad_h, pad_w) = g.input, g.pad
    padded = np.zeros((g.batch, groups, channels, height + 2 * pad_h, width + 2 * pad_w))
    x = padded[:, :, :, pad_h:pad_h + height, pad_w:pad_w + width]
    y = np.zeros((g.batch, groups, filters, *g.output))
    w = np.zeros((groups, filters, channels, *g.kernel))
    for given, array in zip({Pass.FORWARD: (x, w), Pass.GRAD_INPUT: (y, w), Pass.GRAD_WEIGHT: (x, y)}[pass_],
                            (inp, kern), strict=True):
        given[...] = array.reshape(given.shape)
    for row, column in np.ndindex(*g.kernel):
        rows, columns = (slice(at * d, at * d + (o - 1) * s + 1, s) for at, d, o, s in
                         zip((row, column), g.dilation, g.output, g.stride, strict=True))
        window, tap = padded[:, :, :, rows, columns], w[:, :, :, row, column]
        if pass_ is Pass.FORWARD:
            y += np.einsum("ngchw,gdc->ngdhw", window, tap, optimize=True)
        elif pass_ is Pass.GRAD_INPUT:
            window += np.einsum("ngdhw,gdc->ngchw", y, tap, optimize=True)
        else:
            tap[...] = np.einsum("ngchw,ngdhw->gdc", window, y, optimize=True)
    if pass_ is Pass.FORWARD:
        return y.reshape(g.y_shape)
    return x.reshape(g.x_shape) if pass_ is Pass.GRAD_INPUT else w.reshape(g.w_shape)


def random_words(shape: tuple[int, ...]) -> Array:
    """Numbers of both signs, the same for one size."""
    return np.random.default_rng(_SEED + math.prod(shape)).standard_normal(shape, np.float32)


def require_close(workload: Workload, output: Array, wanted: Array, magnitude: Array, who: str = "simulator") -> None:
    """Refuse errors beyond what rounding of float32 explains: some hundred units in the last place of the sum.

    Parameters
    ----------
    magnitude : sums of the terms' absolute values
    who : what computed `output`

    Raises
    ------
    BaristaError : an error beyond that
    """
    error = np.abs(output - wanted)
    if np.any(error > 200 * np.finfo(np.float32).eps * magnitude + 1e-30):
        raise BaristaError(f"{who}: {workload.name} is off by {float(error.max()):.3g}; this is a mistake of the {who}")
