"""Run-time parameters of FPGPT's kernel in ``hls/fpgpt_conv``: the set beta of the thesis (Eq. 5.5)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gemm.shapes import ConvolutionGeometry, Pass
from ..latency.conv_roles import conv_roles, line_buffer

Array = npt.NDArray[Any]

# Of the parameters and the kernel's enums together; both sides count up when one changes, so that a bitstream that was
# built before is not given what it does not know.
LAYOUT = 1

# In the order of the kernel's enum Pass.
PASSES = (Pass.FORWARD, Pass.GRAD_WEIGHT, Pass.GRAD_INPUT)


@dataclasses.dataclass(frozen=True)
class ConvParameters:
    """What a launch of the kernel computes: one group of one pass.

    Fields stand in the order of the kernel's enum Parameter.  Addresses count words of the whole tensor.

    Parameters
    ----------
    pass_ : index into `PASSES`
    a, inp_n, inp_c, inp_h, inp_w, kern_n, kern_h, kern_w, out_h, out_w : see `ConvRoles`
    step_h, step_w : between neighbouring positions of KERN, in words of INP with its zeros
    pad_h, pad_w : zeros around INP; below 0 where positions begin inside of it
    inp_dilation_h, inp_dilation_w, kern_dilation_h, kern_dilation_w : distance of words with zeros between them
    z_channel : words of a plane of INP that X positions need
    inp_start, inp_a_next, inp_n_next : the group's first word of INP, and words from one A and one N to the next
    kern_start, kern_a_next, out_start, out_n_next : likewise
    """

    pass_: int
    a: int
    inp_n: int
    inp_c: int
    inp_h: int
    inp_w: int
    kern_n: int
    kern_h: int
    kern_w: int
    out_h: int
    out_w: int
    step_h: int
    step_w: int
    pad_h: int
    pad_w: int
    inp_dilation_h: int
    inp_dilation_w: int
    kern_dilation_h: int
    kern_dilation_w: int
    z_channel: int
    inp_start: int
    inp_a_next: int
    inp_n_next: int
    kern_start: int
    kern_a_next: int
    out_start: int
    out_n_next: int

    def as_array(self) -> Array:
        """What the kernel reads, a C ``int`` each."""
        return np.array(dataclasses.astuple(self), np.intc)


def conv_parameters(geometry: ConvolutionGeometry, pass_: Pass, x: int, group: int = 0) -> ConvParameters:
    """The parameters of a launch.

    Parameters
    ----------
    x : columns of the array
    group : which, from 0

    Raises
    ------
    UnsupportedError : a convolution that has not two spatial axes, or no output
    """
    g, r = geometry, conv_roles(geometry, pass_)
    sums_up = pass_ is Pass.GRAD_WEIGHT
    pad = tuple(e - 1 - p for e, p in zip(g.extent, g.pad, strict=True)) if pass_ is Pass.GRAD_INPUT else g.pad
    kern_dilation = g.stride if sums_up else g.dilation
    # Words of an image of x and of y, of a filter of w; and of the part of them that a group takes.
    in_words, out_words = (math.prod(shape[1:]) for shape in (g.x_shape, g.y_shape))
    x_part, y_part, w_part = in_words // g.group, out_words // g.group, math.prod(g.w_shape) // g.group
    x_place, y_place = (group * x_part, in_words), (group * y_part, out_words)
    inp_start, inp_next = y_place if pass_ is Pass.GRAD_INPUT else x_place
    out_start, out_next = x_place if pass_ is Pass.GRAD_INPUT else y_place
    kern_start, kern_next = group * w_part, 0
    inp_a_next, inp_n_next = 0, inp_next
    if sums_up:
        inp_a_next, inp_n_next = inp_next, math.prod(r.inp)
        kern_start, kern_next = y_place
        out_start, out_next = group * w_part, w_part
    return ConvParameters(*[
        PASSES.index(pass_), r.a, r.inp_n, r.inp_c, *r.inp, r.kern_n, *r.kern, *r.out, *r.step, *pad, *r.dilation,
        *kern_dilation, int(line_buffer(r, x)[1]), inp_start, inp_a_next, inp_n_next, kern_start, kern_next, out_start,
        out_next])
