"""FPGPT's array: a whole convolution on the device, im2col included (thesis, chapter 5, appendix A)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import BaristaError
from ...gemm.shapes import ConvolutionGeometry, Pass
from ..integers import require_whole
from .conv_layout import group_roles, operand_shapes, require_operands
from .settings import Array, SimulatedRun, SimulatorSettings, as_float32


def simulate_conv(inp: npt.ArrayLike, kern: npt.ArrayLike, geometry: ConvolutionGeometry, pass_: Pass, x: int, y: int,
                  settings: SimulatorSettings) -> SimulatedRun:
    """Compute one pass of a convolution on an array of X columns and Y rows, group by group.

    Parameters
    ----------
    inp, kern : x and w in forward, dy and w in grad_input, x and dy in grad_weight, shaped as the framework has them

    Returns
    -------
    the run; its output is y, dx or dw

    Raises
    ------
    UnsupportedError : sizes below 1, or a convolution that has not two spatial axes
    ShapeError : operands of other shapes than the geometry's
    MissingExtraError : Numba is not installed
    """
    from . import conv_machine

    require_whole("simulate_conv", 1, x=x, y=y)
    inp, kern = as_float32(inp), as_float32(kern)
    require_operands(inp, kern, geometry, pass_)
    shape = operand_shapes(geometry, pass_)[2]
    sums_up = pass_ is Pass.GRAD_WEIGHT
    # Groups are rows of OUT where KERN's filters are, else columns.
    parts: list[Array] = []
    cycles, did = 0, np.zeros((len(conv_machine.COMPONENTS), 4), np.int64)
    for group in range(geometry.group):
        part_shape = ((shape[0] // geometry.group, *shape[1:]) if sums_up
                      else (shape[0], shape[1] // geometry.group, *shape[2:]))
        out = np.zeros(int(np.prod(part_shape)), np.float32)
        machine = conv_machine.make_machine(group_roles(inp, kern, geometry, pass_, group), x, y, settings, out)
        took, did_here = conv_machine.run(machine, sums_up, settings.axi_latency_cycles)
        if not took:
            raise BaristaError(f"simulate_conv: the array got stuck in {pass_.value} of {geometry}, X={x}, Y={y}: no "
                               "component could go on; this is a mistake of the simulator")
        cycles, did = cycles + took, did + did_here
        parts.append(out.reshape(part_shape))
    output = np.concatenate(parts, axis=0 if sums_up else 1)
    _, busy, starved, blocked = ({name: int(count) for name, count in zip(conv_machine.COMPONENTS, column, strict=True)}
                                 for column in did.T)
    return SimulatedRun(output, cycles, busy, starved, blocked, settings.transfer_s(inp, kern),
                        cycles / settings.clock_hz, settings.transfer_s(output))
