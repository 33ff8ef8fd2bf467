"""Where the words of a convolution lie and in which order FPGPT's array wants them (thesis, Tables 5.2 and 5.3).

Everything is found by listing: positions, products and the words of INP that they meet.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ShapeError, UnsupportedError
from ...gemm.shapes import ConvolutionGeometry, Pass

Array = npt.NDArray[Any]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Roles:
    """INP and KERN of one group of a pass, as memory holds them.

    Parameters
    ----------
    inp : [plane][H][W]; planes in rows of those that one word of OUT takes, so [round][channel][H][W]
    kern : as the framework keeps it
    place : [word of kern], the index of filter and stored product under which it is used; where KERN is read anew
        for each round, of one reading
    filters : of KERN
    readings : [round], where in kern a reading begins; None where all of it is read once
    kernel, spread : H and W of KERN, and with zeros between its words
    between : distance of KERN's words once zeros lie between them
    out : H and W of OUT
    step, pad, dilation : of positions on INP, around INP, and of INP's words
    out_planes : planes of OUT that a filter has on the chip; 1 where OUT is not added up
    """

    inp: Array
    kern: Array
    place: Array
    filters: int
    readings: Array | None
    kernel: Pair
    spread: Pair
    between: Pair
    out: Pair
    step: Pair
    pad: Pair
    dilation: Pair
    out_planes: int

    @property
    def positions(self) -> int:
        """Words of a plane of OUT."""
        return self.out[0] * self.out[1]

    @property
    def rounds(self) -> int:
        """How often all of KERN's filters are gone through."""
        return int(self.inp.shape[0])

    @property
    def channels(self) -> int:
        """Planes of INP that a word of OUT takes."""
        return int(self.inp.shape[1])


def operand_shapes(geometry: ConvolutionGeometry, pass_: Pass) -> tuple[tuple[int, ...], ...]:
    """Shapes of INP, KERN and OUT as the framework has them."""
    g = geometry
    return {Pass.FORWARD: (g.x_shape, g.w_shape, g.y_shape), Pass.GRAD_INPUT: (g.y_shape, g.w_shape, g.x_shape),
            Pass.GRAD_WEIGHT: (g.x_shape, g.y_shape, g.w_shape)}[pass_]


def require_operands(inp: Array, kern: Array, geometry: ConvolutionGeometry, pass_: Pass) -> None:
    """Refuse what the array does not compute.

    Raises
    ------
    UnsupportedError : not two spatial axes, or no output
    ShapeError : operands of other shapes than the geometry's
    """
    if len(geometry.input) != 2:
        raise UnsupportedError(f"simulate_conv: the convolution has {len(geometry.input)} spatial axes; the array is "
                               "made for 2")
    if min(geometry.output) < 1:
        raise UnsupportedError(f"simulate_conv: the output is {'x'.join(map(str, geometry.output))}; lower the kernel "
                               "or raise pad")
    for name, array, shape in zip(("INP", "KERN"), (inp, kern), operand_shapes(geometry, pass_), strict=False):
        if array.shape != shape:
            raise ShapeError(f"simulate_conv: {name} of {pass_.value} has shape {array.shape}, the geometry asks for "
                             f"{shape}")


def group_roles(inp: Array, kern: Array, geometry: ConvolutionGeometry, pass_: Pass, group: int) -> Roles:
    """Take one group of a pass apart.

    Parameters
    ----------
    inp, kern : both tensors, as the framework has them
    group : which, from 0
    """
    g = geometry
    channels, filters = g.in_channels // g.group, g.out_channels // g.group
    of_c, of_d = slice(group * channels, (group + 1) * channels), slice(group * filters, (group + 1) * filters)
    (height, width), stride, pad, dilation = g.kernel, _pair(g.stride), _pair(g.pad), _pair(g.dilation)
    kernel, extent = (height, width), _pair(g.extent)
    if pass_ is Pass.FORWARD:
        words = np.ascontiguousarray(kern[of_d])
        return Roles(np.ascontiguousarray(inp[:, of_c]), words.ravel(), np.arange(words.size), filters, None, kernel,
                     extent, dilation, _pair(g.output), stride, pad, (1, 1), 1)
    if pass_ is Pass.GRAD_INPUT:
        words = np.ascontiguousarray(kern[of_d])
        # Channels and filters change places, and each kernel is turned by half a turn.
        used = np.arange(words.size).reshape(words.shape).transpose(1, 0, 2, 3)[:, :, ::-1, ::-1].ravel()
        turned_pad = (extent[0] - 1 - pad[0], extent[1] - 1 - pad[1])
        return Roles(np.ascontiguousarray(inp[:, of_d]), words.ravel(), np.argsort(used), channels, None, kernel,
                     extent, dilation, _pair(g.input), (1, 1), turned_pad, stride, 1)
    planes, words = np.ascontiguousarray(inp[:, of_c]), np.ascontiguousarray(kern[:, of_d])
    image = words[0].size
    out_h, out_w = g.output
    spread = ((out_h - 1) * stride[0] + 1, (out_w - 1) * stride[1] + 1)
    readings = np.repeat(np.arange(g.batch) * image, channels)
    return Roles(planes.reshape(g.batch * channels, 1, *planes.shape[2:]), words.ravel(), np.arange(image), filters,
                 readings, (out_h, out_w), spread, stride, kernel, dilation, pad, (1, 1), channels)


@dataclasses.dataclass(frozen=True)
class Windows:
    """The words of a plane of INP that sets of X positions need.

    Parameters
    ----------
    rows, columns : [position], row and column of KERN's first word, on INP dilated and padded
    tap_rows, tap_columns : [product of a plane], where on KERN each word lies
    pieces : [set], where in the plane the words that it needs begin
    z, z_channel : words between the first and the last that any product and any set needs, both included
    """

    rows: Array
    columns: Array
    tap_rows: Array
    tap_columns: Array
    pieces: Array
    z: int
    z_channel: int


def windows(roles: Roles, x: int) -> Windows:
    """List every word that every product of every set of X positions meets."""
    rows, columns = (index.ravel() * step - pad for index, step, pad in
                     zip(np.indices(roles.out), roles.step, roles.pad, strict=True))
    tap_rows, tap_columns = (index.ravel() for index in np.indices(roles.spread))
    height, width = roles.inp.shape[2:]
    pieces, z, z_channel = [], 1, 1
    for first in range(0, roles.positions, x):
        row, column = (np.add.outer(taps, starts[first:first + x]) for taps, starts in
                       ((tap_rows, rows), (tap_columns, columns)))
        row, between_rows = np.divmod(row, roles.dilation[0])
        column, between_columns = np.divmod(column, roles.dilation[1])
        real = ((between_rows == 0) & (between_columns == 0)
                & (row >= 0) & (row < height) & (column >= 0) & (column < width))
        address = row * width + column
        lowest = np.where(real, address, height * width).min(axis=1)
        highest = np.where(real, address, -1).max(axis=1)
        met = highest >= 0
        pieces.append(int(lowest.min()) if met.any() else 0)
        if met.any():
            z = max(z, int((highest - lowest)[met].max()) + 1)
            z_channel = max(z_channel, int(highest.max()) - pieces[-1] + 1)
    return Windows(rows, columns, tap_rows, tap_columns, np.array(pieces), z, z_channel)


def stored_products(roles: Roles) -> Array:
    """[product], the stored word of a filter that it takes; -1 for the zeros between."""
    channels, (height, width) = roles.channels, roles.kernel
    stored = np.full((channels, *roles.spread), -1)
    stored[:, ::roles.between[0], ::roles.between[1]] = np.arange(channels * height * width).reshape(
        channels, height, width)
    return stored.ravel()


def _pair(values: tuple[int, ...]) -> Pair:
    return values[0], values[1]
