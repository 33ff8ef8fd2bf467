"""What each pass costs on each engine: the candidates among which the selector chooses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..errors import BitstreamError, ScheduleError
from ..hardware.board import Board
from ..hardware.host import Host
from ..hardware.manifest import Manifest
from ..latency.engine_model import (
    EngineFigures,
    predict_cpu,
    predict_fpga,
    predict_host,
    predict_opencl,
    reconfiguration_s,
)
from ..latency.gemm_model import GemmAssumptions, pass_latency
from ..latency.workload import Workload
from .schedule import CPU, FPGA, OPENCL
from .selector import Candidate, Key, key_of

# What travels: whole tiles, once each, as the FPGA backend sends them.
PADDING = "once"
WORD_BYTES = 4


@dataclasses.dataclass(frozen=True)
class CostTable:
    """What `selector.select` takes besides the passes.

    Parameters
    ----------
    candidates : for each layer and pass the ways to compute it
    reconfiguration_s : bitstream to what loading it takes
    notes : what is not in the times, in sentences
    """

    candidates: Mapping[Key, Sequence[Candidate]]
    reconfiguration_s: Mapping[str, float]
    notes: tuple[str, ...] = ()


def card_costs(workloads: Iterable[Workload], manifests: Mapping[str, Manifest], board: Board, host: Host,
               figures: EngineFigures | None = None) -> CostTable:
    """The candidates on a card and its host.

    The array multiplies as in `latency.gemm_model`, several images a product, at the clock of its bitstream; what the
    host does for it comes before and after.  The CPU computes whole convolutions.  OpenCL is no candidate: boards and
    hosts have no figures for it.

    Parameters
    ----------
    manifests : bitstreams by name
    board, host : where they run, and what computes the rest
    figures : a calibration of the machine that the card is in: the host's work comes from it, not from `host`

    Raises
    ------
    UnsupportedError : the board lacks a figure: with several bitstreams it needs reconfiguration_s; or the calibration
        has no bitstream of a number format
    """
    loads_s = {name: board.need("reconfiguration_s", f"planning with {len(manifests)} bitstreams")
               if len(manifests) > 1 else 0.0 for name in manifests}
    rates = {"im2col": host.im2col_bytes_per_s, "tiling": _either("tiling_bytes_per_s", board, host),
             "untiling": _either("untiling_bytes_per_s", board, host)} if figures is None else {}
    assumptions = {name: GemmAssumptions.of(board, manifest.precision, clock_hz=manifest.clock_hz, padding=PADDING,
                                            tiling_bytes_per_s=rates.get("tiling"),
                                            untiling_bytes_per_s=rates.get("untiling"))
                   for name, manifest in manifests.items()}
    candidates: dict[Key, list[Candidate]] = {}
    for workload in workloads:
        cpu_s = None if figures is None else predict_cpu(workload, figures)
        if cpu_s is None:
            cpu_s = (host.launch_s or 0.0) + workload.ops / host.gemm_flops_per_s
        ways = candidates[key_of(workload)] = [Candidate(CPU, cpu_s, breakdown={"processor": cpu_s})]
        for name, manifest in manifests.items():
            breakdown = _on_card(workload, manifest, assumptions[name], rates.get("im2col"))
            if figures is not None:
                breakdown |= predict_host(workload, manifest.tiles, manifest.precision, figures)
            ways.append(Candidate(FPGA, math.fsum(breakdown.values()), name, breakdown, "host"))
    if figures is None:
        return CostTable(candidates, loads_s, tuple(_not_counted(rates)))
    return CostTable(candidates, loads_s, tuple(_taken_instead(manifests.values(), host, figures)))


def calibrated_costs(workloads: Iterable[Workload], manifests: Mapping[str, Manifest],
                     figures: EngineFigures) -> CostTable:
    """The candidates on a machine that was calibrated: the CPU, the OpenCL device and its bitstreams.

    Raises
    ------
    UnsupportedError : a bitstream that was not calibrated
    """
    loads_s = {name: reconfiguration_s(m.tiles, m.precision, figures, m.engine) for name, m in manifests.items()}
    candidates: dict[Key, list[Candidate]] = {}
    for workload in workloads:
        ways = candidates[key_of(workload)] = []
        for engine, predict in ((CPU, predict_cpu), (OPENCL, predict_opencl)):
            seconds = predict(workload, figures)
            if seconds is not None:
                ways.append(Candidate(engine, seconds, breakdown={"processor": seconds}))
        for name, m in manifests.items():
            found = predict_fpga(workload, m.tiles, m.precision, figures, m.engine)
            ways.append(Candidate(FPGA, found.total_s, name, found.stages, "host"))
    missing = [engine for engine, measured in ((CPU, figures.cpu), (OPENCL, figures.opencl)) if measured is None]
    return CostTable(candidates, loads_s, tuple(f"No candidate: {engine}, which was not calibrated"
                                                for engine in missing))


def column_bytes(workload: Workload) -> int:
    """Bytes of columns that the host unrolls for a pass, or folds after it, over the whole batch."""
    g = workload.geometry
    return 0 if g.is_pointwise else g.batch * g.group * g.depth * g.pixels * WORD_BYTES


def require_usable(manifests: Mapping[str, Manifest], precisions: Sequence[str], where: str) -> dict[str, Manifest]:
    """The bitstreams of some number formats; a plan must not change the numbers that a net computes in by itself.

    Raises
    ------
    BitstreamError : there is none
    """
    kept = {name: manifest for name, manifest in manifests.items() if manifest.precision in precisions}
    if not kept:
        there = ", ".join(sorted({manifest.precision for manifest in manifests.values()}))
        raise BitstreamError(f"{where} has no bitstream of the precision {' or '.join(precisions)}, only of {there}; "
                             f"allow it with --precision {there}, or build one")
    return kept


def one_batch(workloads: Iterable[Workload], net: str) -> int:
    """The images of a batch.

    Raises
    ------
    ScheduleError : no convolution, or several that work on different batches
    """
    batches = {workload.geometry.batch for workload in workloads}
    if not batches:
        raise ScheduleError(f"net {net!r} has no convolution, so there is nothing to plan")
    if len(batches) > 1:
        raise ScheduleError(f"net {net!r} has convolutions over batches of {' and '.join(map(str, sorted(batches)))} "
                            "images; a schedule is for one batch")
    return batches.pop()


def _either(figure: str, board: Board, host: Host) -> float | None:
    """A figure of the board, or else of the host."""
    value: float | None = getattr(board, figure)
    return value if value is not None else getattr(host, figure)


def _on_card(workload: Workload, manifest: Manifest, assumptions: GemmAssumptions,
             im2col_bytes_per_s: float | None) -> dict[str, float]:
    """Seconds of a pass on one bitstream, stage by stage; what the host has no rate for counts as nothing."""
    tiles = manifest.tiles
    found = pass_latency(workload, tiles.tr, tiles.tc, tiles.tp, assumptions, "batched")
    im2col_s = column_bytes(workload) / im2col_bytes_per_s if im2col_bytes_per_s is not None else 0.0
    return {"im2col": im2col_s, "tiling": float(found.tiling_s), "write": float(found.host_to_device_s),
            "kernel": float(found.kernel_s + found.launch_s), "read": float(found.device_to_host_s),
            "untiling": float(found.untiling_s)}


def _not_counted(rates: Mapping[str, float | None]) -> Iterator[str]:
    """What the times on a card lack, and how to get it."""
    unknown = sorted(stage for stage, rate in rates.items() if rate is None)
    if unknown:
        yield (f"Not counted, because neither board nor host has a rate for it: {', '.join(unknown)}; the times on "
               "bitstreams are too low by that. To count it, run `barista calibrate --out FILE` on the machine with "
               "the card and give --calibration FILE, or give as --host-model a host file of your own with "
               f"{unknown[0]}_bytes_per_s")


def _taken_instead(manifests: Iterable[Manifest], host: Host, figures: EngineFigures) -> Iterator[str]:
    """What a calibration does not have itself, and what counts in its place."""
    if figures.cpu is None:
        yield f"The calibration has no figures of the CPU, whose passes count at the rate of host {host.name}"
    for tiles, precision in dict.fromkeys((manifest.tiles, manifest.precision) for manifest in manifests):
        near = figures.nearest(tiles, precision)
        if near.tiles != tiles:
            yield (f"Tiling for {tiles} {precision} counts at what a word costs with {near.tiles}, the nearest tiles "
                   "in the calibration")
