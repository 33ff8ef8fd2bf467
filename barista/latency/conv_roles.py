"""The three passes of a convolution as FPGPT's array sees them: one convolution of INP with KERN into OUT.

Which tensor plays which role (thesis, Tables 5.2 and 5.3), for D filters on C channels, a batch of B images:

    pass         INP               KERN             OUT          step       INP dilated by   KERN dilated by
    forward      x    B  C         w    D  C        y   B  D     stride     1                dilation
    grad_input   dy   B  D         w    C  D        dx  B  C     1          stride           dilation
    grad_weight  x    C  1, B sums dy   D  1        dw  D  C     dilation   1                stride

The thesis has no dilation of the kernel itself; it comes in where the stride of the other passes does.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..gemm.shapes import ConvolutionGeometry, Pass
from .integers import Array, ceil_div

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ConvRoles:
    """Sizes of INP, KERN and OUT of one group; tensors are A x N x C x H x W, pairs are (H, W).

    Parameters
    ----------
    a : tensors that are added up in OUT: the batch in grad_weight, else 1
    inp_n, inp_c, inp : of INP
    kern_n, kern_c, kern : of KERN as it is stored
    kern_dilated : H and W of KERN with zeros between its words
    out_n, out_c, out : of OUT
    step : distance between neighbouring positions of KERN, in words of the dilated INP
    dilation : distance between neighbouring words of INP once zeros lie between them
    groups : how many such convolutions the pass takes
    sums_up : whether OUT is added up in on-chip memory (grad_weight)
    """

    a: int
    inp_n: int
    inp_c: int
    inp: Pair
    kern_n: int
    kern_c: int
    kern: Pair
    kern_dilated: Pair
    out_n: int
    out_c: int
    out: Pair
    step: Pair
    dilation: Pair
    groups: int
    sums_up: bool

    @property
    def positions(self) -> int:
        """O: positions of KERN on INP, words of a plane of OUT."""
        return math.prod(self.out)

    @property
    def products(self) -> int:
        """M: multiply-accumulates of a word of OUT, those with KERN's zeros included."""
        return self.kern_c * math.prod(self.kern_dilated)

    @property
    def stored_products(self) -> int:
        """M0: stored words of KERN that a word of OUT takes."""
        return self.kern_c * math.prod(self.kern)

    @property
    def batches(self) -> int:
        """bi: how often the array goes through all of KERN's filters."""
        return self.inp_n * self.a

    @property
    def kern_words(self) -> int:
        """Words of KERN that are read in one go (KRange where OUT is added up)."""
        return self.kern_n * self.stored_products


def conv_roles(geometry: ConvolutionGeometry, pass_: Pass) -> ConvRoles:
    """Return who plays which role in a pass.

    Raises
    ------
    UnsupportedError : a convolution that has not two spatial axes, or no output
    """
    g = geometry
    if len(g.input) != 2:
        raise UnsupportedError(f"FPGPT model: a convolution of {_times(g.input)} has {len(g.input)} spatial axes; the "
                               "array is made for 2, use the GEMM model")
    if min(g.output) < 1:
        raise UnsupportedError(f"FPGPT model: a kernel of {_times(g.extent)} exceeds the input of {_times(g.input)}, "
                               f"padded by {_times(g.pad)}: there is no output; lower the kernel or raise pad")
    channels, filters = g.in_channels // g.group, g.out_channels // g.group
    inp, out, kernel, extent = (_pair(pair) for pair in (g.input, g.output, g.kernel, g.extent))
    stride, dilation = _pair(g.stride), _pair(g.dilation)
    if pass_ is Pass.FORWARD:
        return ConvRoles(1, g.batch, channels, inp, filters, channels, kernel, extent, g.batch, filters, out,
                         stride, (1, 1), g.group, False)
    if pass_ is Pass.GRAD_INPUT:
        return ConvRoles(1, g.batch, filters, out, channels, filters, kernel, extent, g.batch, channels, inp,
                         (1, 1), stride, g.group, False)
    spread = ((out[0] - 1) * stride[0] + 1, (out[1] - 1) * stride[1] + 1)
    return ConvRoles(g.batch, channels, 1, inp, filters, 1, out, spread, filters, channels, kernel,
                     dilation, (1, 1), g.group, True)


def line_buffer(roles: ConvRoles, x: npt.ArrayLike) -> tuple[Array, Array]:
    """Z and Z_channel: words of a plane of INP that X columns need at once, and for a whole plane of KERN.

    The thesis describes both in words (section 5.3.6).  Positions are taken in sets of X, in rows of OUT; from the
    first position of a set to its last INP moves on by `dr` rows and `dc` columns, and all words between are held.
    Both are bounds: never below what the positions read, wherever they stand.

    Parameters
    ----------
    x : columns of the array, whole numbers at least 1

    Returns
    -------
    z, z_channel : of the shape of x, between 1 and the words of a plane
    """
    columns, where = np.unique(np.asarray(x, np.int64), return_inverse=True)
    positions, (_, out_w), (inp_h, inp_w) = roles.positions, roles.out, roles.inp
    # All sets of all X, one behind the other.
    sets = ceil_div(positions, columns)
    starts = np.concatenate([[0], np.cumsum(sets)[:-1]])
    size = np.repeat(columns, sets)
    first = (np.arange(int(sets.sum())) - np.repeat(starts, sets)) * size
    last = np.minimum(first + size, positions) - 1
    dr = (last // out_w - first // out_w) * roles.step[0]
    dc = (last % out_w - first % out_w) * roles.step[1]
    found = []
    for rows, width in ((0, 0), (roles.kern_dilated[0] - 1, roles.kern_dilated[1] - 1)):
        words = ceil_div(dr + rows, roles.dilation[0]) * inp_w + ceil_div(dc + width, roles.dilation[1]) + 1
        most = np.maximum.reduceat(words, starts)
        found.append(np.clip(most, 1, inp_h * inp_w)[where].reshape(np.shape(x)))
    return found[0], found[1]


def _pair(values: tuple[int, ...]) -> Pair:
    return values[0], values[1]


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
