"""What this package's own engines will take for a pass: counted work (`engine_work`) times calibrated costs.

The papers' models say what an array of their hardware takes; this one says what the backends here take on the machine
that was calibrated (`calibration`), host work, transfers and calls included.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from ..errors import UnsupportedError
from ..gemm.batching import batched_gemm, images_a_product
from ..gemm.engine import OVERLAPPED_BLOCKS, SMALLEST_BLOCK_MACS
from ..gemm.tiles import TileSizes
from ..precision.formats import number_format
from .engine_work import FPGA_STAGES, WORD_BYTES, Counts, cpu_work, fpga_work, opencl_work
from .workload import Workload

# Stages whose costs all bitstreams share, and those that each has for itself.
HOST_STAGES = ("im2col", "write", "read", "overhead")
ARRAY_STAGES = ("tiling", "kernel", "untiling")
# What the host itself computes for a pass on an array, whichever array that is.
HOST_WORK = ("im2col", "tiling", "untiling")
# Parts of a product whose transfers and computation overlap where the device works on its own.
DEVICE_PARTS = 4


@dataclasses.dataclass(frozen=True)
class Costs:
    """What each thing that a stage counts costs, and how well that fits what was measured.

    Parameters
    ----------
    seconds : of one of each thing counted
    median_error, worst_error : relative errors of the fit over what it was made from
    measured : how many measurements that were
    """

    seconds: Mapping[str, float]
    median_error: float = 0.0
    worst_error: float = 0.0
    measured: int = 0

    def of(self, counts: Counts) -> float:
        """Seconds of what was counted."""
        return sum(self.seconds.get(name, 0.0) * count for name, count in counts.items())


@dataclasses.dataclass(frozen=True)
class ArrayFigures:
    """What one bitstream's own stages cost.

    Parameters
    ----------
    tiles, precision, engine : which bitstream, as its manifest says
    load_s : until it is on the device
    stages : costs of `ARRAY_STAGES`
    """

    tiles: TileSizes
    precision: str
    engine: str
    load_s: float
    stages: Mapping[str, Costs]

    @property
    def title(self) -> str:
        """As messages and tables name it."""
        return f"{self.engine} {self.tiles} {self.precision}"


@dataclasses.dataclass(frozen=True)
class EngineFigures:
    """What a calibration found on one machine.

    Parameters
    ----------
    device : the OpenCL device, its driver and compiler
    processor : what host work and the CPU op set ran on
    units : tiles of C that the device computes at a time
    overlaps : whether the host's cores are free while the device computes
    threads : of the CPU op set
    host : costs of `HOST_STAGES`
    arrays : of each bitstream that was measured
    cpu, opencl : costs of a pass on these op sets; None where they were not measured
    """

    device: str
    processor: str
    units: int
    overlaps: bool
    threads: int
    host: Mapping[str, Costs]
    arrays: tuple[ArrayFigures, ...]
    cpu: Costs | None = None
    opencl: Costs | None = None

    def array(self, tiles: TileSizes, precision: str, engine: str = "fast") -> ArrayFigures:
        """The figures of a bitstream.

        Raises
        ------
        UnsupportedError : it was not calibrated
        """
        for array in self.arrays:
            if (array.tiles, array.precision, array.engine) == (tiles, precision, engine):
                return array
        there = "; ".join(array.title for array in self.arrays) or "none"
        raise UnsupportedError(f"the calibration of {self.device} has no bitstream {engine} {tiles} {precision}, it "
                               f"has {there}; run: barista calibrate --bitstreams FOLDER")

    def nearest(self, tiles: TileSizes, precision: str) -> ArrayFigures:
        """The bitstream of this number format whose tiles are nearest, by the ratios of their sizes.

        Raises
        ------
        UnsupportedError : none of this number format was calibrated
        """
        def distance(array: ArrayFigures) -> float:
            pairs = ((array.tiles.tr, tiles.tr), (array.tiles.tc, tiles.tc), (array.tiles.tp, tiles.tp))
            return sum(abs(math.log(one / other)) for one, other in pairs)

        alike = [array for array in self.arrays if array.precision == precision]
        if not alike:
            there = "; ".join(array.title for array in self.arrays) or "none"
            raise UnsupportedError(
                f"the calibration of {self.device} has no bitstream of {precision}, so what the host takes to cut "
                f"matrices into tiles of {precision} is not known; it has {there}; build one for the board emulated "
                f"(barista bitstream build --engine fast --tile {tiles} --precision {precision} --out FOLDER), then "
                "run: barista calibrate --bitstreams FOLDER --out FILE")
        return min(alike, key=distance)


@dataclasses.dataclass(frozen=True)
class StagePrediction:
    """Seconds of one pass on an array, stage by stage.

    Parameters
    ----------
    im2col_s : columns unrolled and folded, results put into place, on the host
    tiling_s, write_s, kernel_s, read_s, untiling_s : of all products
    overhead_s : between the stages: calls, waiting for the device to begin and to report
    total_s : from the call to the result; less than the sum where stages overlap
    """

    im2col_s: float
    tiling_s: float
    write_s: float
    kernel_s: float
    read_s: float
    untiling_s: float
    overhead_s: float
    total_s: float

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by the stages' names."""
        return {stage: float(getattr(self, f"{stage}_s")) for stage in FPGA_STAGES}


def predict_fpga(workload: Workload, tiles: TileSizes, precision: str, figures: EngineFigures,
                 engine: str = "fast") -> StagePrediction:
    """What a pass takes on the FPGA backend, the bitstream being on the device.

    Parameters
    ----------
    workload : the pass
    tiles, precision, engine : the bitstream, as its manifest says
    figures : of the machine

    Raises
    ------
    UnsupportedError : the bitstream was not calibrated
    """
    array = figures.array(tiles, precision, engine)
    work = fpga_work(workload.geometry, workload.pass_, tiles, number_format(precision), figures.units)
    costs = {**figures.host, **array.stages}
    stages = {stage: costs[stage].of(work[stage]) for stage in FPGA_STAGES}
    return StagePrediction(**{f"{stage}_s": seconds for stage, seconds in stages.items()},
                           total_s=elapsed_s(workload, stages, figures.overlaps))


def predict_host(workload: Workload, tiles: TileSizes, precision: str, figures: EngineFigures) -> dict[str, float]:
    """What the host itself takes for a pass on an array that another device has, such as a card in this machine.

    Unrolling columns costs the same beside all arrays.  Cutting matrices into tiles and joining them again costs a word
    what it does with the nearest of the calibrated bitstreams.

    Parameters
    ----------
    workload : the pass
    tiles, precision : of the array, which need not be calibrated
    figures : of the machine

    Returns
    -------
    dict : seconds of each of `HOST_WORK`

    Raises
    ------
    UnsupportedError : no bitstream of this number format was calibrated
    """
    costs = {**figures.host, **figures.nearest(tiles, precision).stages}
    work = fpga_work(workload.geometry, workload.pass_, tiles, number_format(precision), figures.units)
    return {stage: costs[stage].of(work[stage]) for stage in HOST_WORK}


def elapsed_s(workload: Workload, stages: Mapping[str, float], overlaps: bool) -> float:
    """What passes on the clock while the stages of a pass take as long as they do.

    Where the device computes on its own, transfers and computation overlap in parts, and tiling and untiling overlap
    with both in blocks: of two things that overlap in n pieces the shorter one hides but for one piece.
    """
    total = sum(stages.values())
    if not overlaps:
        return total
    moves = [stages.get(name, 0.0) for name in ("write", "kernel", "read")]
    device = sum(moves)
    hidden = (device - max(moves)) * (1 - 1 / DEVICE_PARTS)
    geometry = workload.geometry
    shape = batched_gemm(geometry, workload.pass_, images_a_product(geometry, WORD_BYTES))
    blocks = min(OVERLAPPED_BLOCKS, shape.macs // SMALLEST_BLOCK_MACS)
    if blocks >= 2:
        host = stages.get("tiling", 0.0) + stages.get("untiling", 0.0)
        hidden += min(host, device - hidden) * (1 - 1 / blocks)
    return total - hidden


def predict_cpu(workload: Workload, figures: EngineFigures) -> float | None:
    """Seconds of a pass on the CPU op set; None where it was not calibrated."""
    if figures.cpu is None:
        return None
    return figures.cpu.of(cpu_work(workload.geometry, workload.pass_, figures.threads))


def predict_opencl(workload: Workload, figures: EngineFigures) -> float | None:
    """Seconds of a pass on the OpenCL op set, operands and result being in the host's memory; None as above."""
    if figures.opencl is None:
        return None
    return figures.opencl.of(opencl_work(workload.geometry, workload.pass_))


def reconfiguration_s(tiles: TileSizes, precision: str, figures: EngineFigures, engine: str = "fast") -> float:
    """Seconds until a bitstream is on the device.

    Raises
    ------
    UnsupportedError : the bitstream was not calibrated
    """
    return figures.array(tiles, precision, engine).load_s
