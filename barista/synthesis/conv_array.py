"""FPGPT's kernel in C-simulation: whole passes of convolutions."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError, ShapeError, UnsupportedError
from ..gemm.engine import StageTimes
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..gemm.tiles import aligned_empty
from ..latency.simulator.conv_layout import operand_shapes
from .conv_design import ConvDesign
from .conv_parameters import conv_parameters
from .simulation import Library, PortUse, SimulationReport, StreamUse

Array = npt.NDArray[Any]

PORTS = ("inp", "kern", "out")


class SimulatedConv:
    """The C++ code of a card's design, which takes tensors as the framework has them.

    Parameters
    ----------
    library : what `toolchain.build_library` made of `design`
    design : sizes and number format

    Attributes
    ----------
    times : what the last pass took: copying into whole beats, the launches, and copying back

    Raises
    ------
    DeviceError : the library is of another design
    """

    def __init__(self, library: Library, design: ConvDesign) -> None:
        # The kernel cannot see that it is given more than it was compiled for.
        if library.config != design.config():
            raise DeviceError(f"{library.name} was compiled for another design than {design.name} with its sizes; "
                              "build it again")
        self.design = design
        self._library = library
        self._report: SimulationReport | None = None
        self._reads: dict[str, npt.NDArray[np.uint32]] = {}
        self.times = StageTimes()

    @property
    def report(self) -> SimulationReport:
        """What the launches of the last pass did, those of all groups together.

        Raises
        ------
        DeviceError : there was none
        """
        if self._report is None:
            raise DeviceError(f"{self.design.name}: nothing was run yet, so there is no report; run a pass first")
        return self._report

    def reads(self, port: str) -> npt.NDArray[np.uint32]:
        """How often the last pass read each beat of ``inp``, ``kern`` or ``out``.

        Raises
        ------
        DeviceError : nothing was run yet, or there is no such port
        """
        if port not in self._reads:
            raise DeviceError(f"{self.design.name}: no reads of port {port!r} were counted; run a pass first, ports "
                              f"are {', '.join(PORTS)}")
        return self._reads[port]

    def run(self, geometry: ConvolutionGeometry, pass_: Pass, inp: Array, kern: Array) -> Array:
        """Compute one pass, group by group.

        Parameters
        ----------
        inp, kern : x and w in forward, dy and w in grad_input, x and dy in grad_weight, in the number format's words

        Returns
        -------
        y, dx or dw; in fixed point sums of 32 bits, which wrap around

        Raises
        ------
        UnsupportedError : the design is too small for it, or the words are of another type
        ShapeError : operands of other shapes than the geometry's
        DeviceError : the run failed
        """
        d, fmt = self.design, self.design.format
        d.require_fits(geometry, pass_)
        *shapes, out_shape = operand_shapes(geometry, pass_)
        for name, array, shape in zip(("INP", "KERN"), (inp, kern), shapes, strict=True):
            if array.shape != shape:
                raise ShapeError(f"{d.name}: {name} of {pass_.value} has shape {array.shape}, the geometry asks for "
                                 f"{shape}")
            if array.dtype != fmt.storage_dtype:
                raise UnsupportedError(f"{d.name}: {name} of {pass_.value} is of type {array.dtype}, words of "
                                       f"{d.precision} are {fmt.storage_dtype}; convert it first")
        started = time.perf_counter()
        output = np.zeros(out_shape, fmt.accumulator_dtype)
        buffers = [self._in_beats(array) for array in (inp, kern, output)]
        sized = [part for buffer in buffers for part in (buffer, ctypes.c_size_t(8 * buffer.nbytes // d.port_bits))]
        reports, reads = [], []
        written = time.perf_counter()
        for group in range(geometry.group):
            beta = conv_parameters(geometry, pass_, d.x, group).as_array()
            self._library.run(f"{d.kernel}_csim", *sized, beta)
            reports.append(self._library.report())
            reads.append([self._library.reads(port) for port in PORTS])
        computed = time.perf_counter()
        self._report = _together(reports)
        self._reads = {port: np.sum(counts, axis=0, dtype=np.uint32)
                       for port, counts in zip(PORTS, zip(*reads, strict=True), strict=True)}
        result = buffers[2][:output.size].reshape(out_shape)
        self.times = StageTimes(write=written - started, kernel=computed - written,
                                read=time.perf_counter() - computed)
        return result

    def _in_beats(self, array: Array) -> Array:
        """A copy in whole beats, with zeros behind it."""
        beat = self.design.port_bits // 8
        buffer = aligned_empty((-(-array.nbytes // beat) * beat // array.itemsize,), array.dtype)
        buffer[:array.size] = array.ravel()
        buffer[array.size:] = 0
        return buffer


def _together(reports: list[SimulationReport]) -> SimulationReport:
    """One report of several launches: beats that all of them moved, and the most entries that a stream held."""
    first = reports[0]
    ports = {name: PortUse(sum(report.ports[name].reads for report in reports),
                           sum(report.ports[name].writes for report in reports)) for name in first.ports}
    streams = {name: StreamUse(use.depth, max(report.streams[name].most for report in reports))
               for name, use in first.streams.items()}
    return SimulationReport(first.on_chip, streams, ports)
