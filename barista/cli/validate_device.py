"""Predictions of what this package's engines take on a device, held against measurements (thesis, Fig. 4.5)."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UnsupportedError
from ..hardware.library import Library
from ..latency import calibration
from ..latency.engine_model import EngineFigures, predict_cpu, predict_fpga, predict_opencl
from ..latency.validation import Comparison
from ..latency.workload import Workload
from ..runtime.bitstream_program import device_identity
from ..runtime.context import Context
from .calibrate import Engine, Observed, calibrate, engines, geometries
from .findings import Goal
from .measure import Measurement, measure
from .progress import progress

# What lies between the stages has no clock of its own; it counts in the total.
_COMPARED = ("im2col", "tiling", "write", "kernel", "read", "untiling")
# On arrays half of the totals, and half of each stage, are to be within these.
_TOTAL_GOAL, _STAGE_GOAL = Goal(median=0.10), Goal(median=0.20)


def calibrated_now(context: Context, device: str | None, library: Library, workloads: Sequence[Workload], runs: int,
                   quiet: bool) -> tuple[EngineFigures, list[Comparison]]:
    """Calibrate on other shapes and measure the passes, in the same turns: both meet the same machine.

    Parameters
    ----------
    context, device : the device, and what the command line calls it
    library : the bitstreams
    workloads : what to predict; on a slow array passes of fewer images
    runs : whose medians count
    quiet : draw no progress bar

    Raises
    ------
    DeviceError, BitstreamError : the device, or a bitstream, cannot be used
    """
    figures, observed = calibrate(context, device, library, geometries(), quiet, runs, workloads)
    return figures, comparisons(figures, observed)


def calibrated_before(path: str, context: Context, device: str | None, library: Library,
                      workloads: Sequence[Workload], runs: int, quiet: bool
                      ) -> tuple[EngineFigures, list[Comparison]]:
    """Measure the passes and predict them from a calibration's file; parameters as of `calibrated_now`.

    Raises
    ------
    UnsupportedError : the file is of another device, or without one of the bitstreams
    DataError : it cannot be read
    DeviceError, BitstreamError : the device, or a bitstream, cannot be used
    """
    figures, identity = calibration.load(path), device_identity(context.device)
    if figures.device != identity:
        raise UnsupportedError(f"{path} is the calibration of {figures.device}, and this device is {identity}; give "
                               "its own, or choose the device with --device")
    for bitstream in library.bitstreams.values():
        manifest = bitstream.manifest
        figures.array(manifest.tiles, manifest.precision, manifest.engine)  # before anything is measured
    tasks = [(engine, workload) for engine in engines(library, device, figures.threads)
             for workload in engine.bearable(workloads)]
    with progress(len(tasks) * (runs + 1), "measuring", quiet) as bar:
        measured = measure([(engine.ops, workload) for engine, workload in tasks], runs, bar.update)
    return figures, comparisons(figures, [(engine, [one]) for (engine, _), one in zip(tasks, measured, strict=True)])


def comparisons(figures: EngineFigures, observed: Observed) -> list[Comparison]:
    """What was measured beside what is predicted, for engines that have been calibrated."""
    return [each for engine, measurements in observed for one in measurements
            for each in compared(engine.name, one, _predicted(figures, engine, one.workload))]


def _predicted(figures: EngineFigures, engine: Engine, workload: Workload) -> dict[str, float]:
    """Seconds by part."""
    if engine.bitstream is not None:
        manifest = engine.bitstream.manifest
        prediction = predict_fpga(workload, manifest.tiles, manifest.precision, figures, manifest.engine)
        return {"total": prediction.total_s, **prediction.stages}
    seconds = (predict_cpu if engine.name == "cpu" else predict_opencl)(workload, figures)
    return {} if seconds is None else {"total": seconds}


def device_goals(comparisons: Sequence[Comparison]) -> dict[tuple[str, str], Goal]:
    """The goals of whatever was compared on arrays."""
    return {(each.model, each.part): _TOTAL_GOAL if each.part == "total" else _STAGE_GOAL
            for each in comparisons if each.model.startswith("array ")}


def compared(name: str, measurement: Measurement, predicted: dict[str, float]) -> list[Comparison]:
    """A pass, its total and its stages, as far as both sides know them.

    Parameters
    ----------
    name : of the engine
    predicted : seconds by part
    """
    observed = {"total": measurement.total_s, **{stage: measurement.stages.get(stage, 0.0) for stage in _COMPARED}}
    workload = measurement.workload
    return [Comparison(name, workload.layer, workload.pass_.value, f"batch {workload.geometry.batch}", part, "s",
                       predicted[part], seconds)
            for part, seconds in observed.items() if part in predicted and seconds > 0]
