"""What FPGPT's kernel computes, number by number, in NumPy: a plain model that judges bitstreams."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..gemm.shapes import ConvolutionGeometry, Pass
from ..latency.simulator.conv_layout import Roles, group_roles, operand_shapes, stored_products
from ..precision.formats import NumberFormat

Array = npt.NDArray[Any]

# Interleaved sums of an element of the array.
SUMS = 4


def conv_values(geometry: ConvolutionGeometry, pass_: Pass, inp: Array, kern: Array, fmt: NumberFormat) -> Array:
    """A pass with every number rounded as the array rounds it, the zeros that it multiplies included.

    Product p of a word of OUT, counted over KERN with the zeros between its words, goes to sum p mod 4; the sums are
    added as (s0 + s1) + (s2 + s3), and in grad_weight images one after the other to a memory that begins at 0.

    Parameters
    ----------
    inp, kern : x and w in forward, dy and w in grad_input, x and dy in grad_weight, in words of `fmt`

    Returns
    -------
    y, dx or dw; in fixed point sums of 32 bits, which wrap around

    Raises
    ------
    UnsupportedError : a convolution that has not two spatial axes
    """
    g, out_shape = geometry, operand_shapes(geometry, pass_)[2]
    parts = []
    for group in range(g.group):
        roles = group_roles(inp, kern, g, pass_, group)
        rounds = np.stack([_round(roles, number, fmt) for number in range(roles.rounds)])
        if pass_ is Pass.GRAD_WEIGHT:
            parts.append(_added_up(rounds.reshape(g.batch, roles.out_planes, *rounds.shape[1:])))
        else:
            parts.append(rounds)
    # Groups are filters of dw, and channels of y and dx.
    joined = np.concatenate(parts, axis=0 if pass_ is Pass.GRAD_WEIGHT else 1)
    return joined.reshape(out_shape)


def _round(roles: Roles, number: int, fmt: NumberFormat) -> Array:
    """[filter][position] of one round through all filters."""
    taken = roles.kern if roles.readings is None else \
        roles.kern[roles.readings[number]:roles.readings[number] + len(roles.place)]
    words = np.zeros(len(roles.place), fmt.accumulator_dtype)
    words[roles.place] = taken
    filters = words.reshape(roles.filters, -1)
    stored = stored_products(roles)
    sums = np.zeros((SUMS, roles.filters, roles.positions), fmt.accumulator_dtype)
    for product, place in enumerate(stored):
        channel, tap = divmod(product, len(stored) // roles.channels)
        factor = filters[:, place] if place >= 0 else np.zeros(roles.filters, words.dtype)
        sums[product % SUMS] += np.multiply.outer(factor, _met(roles, roles.inp[number, channel], tap, words.dtype))
    return np.asarray((sums[0] + sums[1]) + (sums[2] + sums[3]))


def _met(roles: Roles, plane: Array, tap: int, dtype: np.dtype[Any]) -> Array:
    """[position], the words of a plane of INP that a tap of KERN meets: zeros around it and between its words."""
    places = []
    inside = np.ones(roles.positions, bool)
    for index, step, pad, offset, dilation, size in zip(
            np.indices(roles.out), roles.step, roles.pad, divmod(tap, roles.spread[1]), roles.dilation, plane.shape,
            strict=True):
        place, between = np.divmod(index.ravel() * step - pad + offset, dilation)
        inside &= (between == 0) & (place >= 0) & (place < size)
        places.append(np.clip(place, 0, size - 1))
    return np.where(inside, plane[tuple(places)], 0).astype(dtype)


def _added_up(images: Array) -> Array:
    """[filter][plane][position] of [image][plane][filter][position]."""
    total = np.zeros_like(images[0])
    for image in images:
        total += image
    return np.moveaxis(total, 1, 0)
