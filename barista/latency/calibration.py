"""From measurements to what things cost, and the file in which that is kept.

A stage takes so much for each thing that it does (`engine_work`), and nothing takes less than nothing: costs are found
by least squares over relative errors with no cost below 0, in which measurements that fit badly lose their weight, so
that what else the machine did meanwhile does not count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, UnsupportedError
from ..gemm.tiles import TileSizes
from ..hardware.board import Board
from ..hardware.manifest import CALIBRATION, OTHER, recognise
from ..precision.formats import FORMATS, number_format
from ..resources import cache_folder
from .engine_model import ARRAY_STAGES, HOST_STAGES, ArrayFigures, Costs, EngineFigures
from .engine_work import Counts

Vector = npt.NDArray[np.float64]

FORMAT = 2
# Rounds of weighing, and the relative error below which no measurement gains more weight.
ROUNDS = 20
SMALL_ERROR = 0.02
# Seconds below which a clock says nothing.
SHORTEST_S = 1e-7


def fit(counts: Sequence[Counts], seconds: Sequence[float]) -> Costs:
    """Find what each thing counted costs.

    Parameters
    ----------
    counts : of each measurement, by what is counted
    seconds : what each took

    Returns
    -------
    Costs : none below 0; 0 for what no measurement has, and for what explains nothing that others do not

    Raises
    ------
    DataError : no measurement that took time
    """
    names = list(dict.fromkeys(name for one in counts for name in one))
    table = np.array([[one.get(name, 0.0) for name in names] for one in counts]).reshape(len(counts), len(names))
    taken = np.asarray(seconds, np.float64)
    usable = (taken > SHORTEST_S) & table.any(1)
    if not usable.any():
        raise DataError(f"none of {len(counts)} measurements took more than {SHORTEST_S:g} s; there is nothing to "
                        "calibrate")
    relative = table[usable] / taken[usable, None]
    scale = relative.max(0)
    present = scale > 0
    scaled = relative[:, present] / scale[present]
    weights = np.ones(len(scaled))
    found = np.zeros(scaled.shape[1])
    for _ in range(ROUNDS):
        found = nonnegative_least_squares(scaled * weights[:, None], weights)
        weights = np.maximum(abs(scaled @ found - 1), SMALL_ERROR) ** -0.5
    errors = abs(scaled @ found - 1)
    costs = np.zeros(len(names))
    costs[present] = found / scale[present]
    return Costs(dict(zip(names, costs.tolist(), strict=True)), float(np.median(errors)), float(np.max(errors)),
                 len(errors))


def nonnegative_least_squares(a: Vector, y: Vector) -> Vector:
    """The x >= 0 with the least ``|a x - y|`` (Lawson and Hanson's active sets).

    Parameters
    ----------
    a : (measurements, unknowns)
    y : (measurements,)
    """
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], bool)
    tolerance = 1e-10 * float(np.max(np.abs(a.T @ y), initial=0.0))
    for _ in range(3 * a.shape[1]):
        slope = np.where(free, -np.inf, a.T @ (y - a @ x))
        if free.all() or slope.max() <= tolerance:
            break
        free[np.argmax(slope)] = True
        while free.any():
            tried = np.zeros_like(x)
            tried[free] = np.linalg.lstsq(a[:, free], y, rcond=None)[0]
            if (tried[free] > 0).all():
                x = tried
                break
            # As far towards the new solution as nothing falls below 0; what reaches it is held there.
            falling = free & (tried <= 0)
            step = min(x[falling] / np.maximum(x[falling] - tried[falling], np.finfo(float).tiny))
            x = x + step * (tried - x)
            free &= x > tolerance
            x[~free] = 0
    return x


def calibrated_board(board: Board, figures: EngineFigures, array: ArrayFigures) -> Board:
    """A board with what was measured in the place of what was assumed, for the models of cards.

    The effective clock is that at which an array of this size would multiply tiles as fast (thesis, Eq. 4.5).

    Parameters
    ----------
    board : whose other figures stay, such as DSP blocks and power
    figures, array : what was measured, and the bitstream whose clock, tiling and loading count
    """
    write, read = figures.host["write"].seconds, figures.host["read"].seconds
    tiling, kernel, untiling = (array.stages[stage].seconds for stage in ARRAY_STAGES)
    tiles, storage = array.tiles, number_format(array.precision).storage_dtype.itemsize
    sums = number_format(array.precision).accumulator_dtype.itemsize
    cycles = (tiles.tp + tiles.tr + tiles.tc - 2) * figures.units
    rates = {"pcie_bytes_per_s": (1.0, max(write["bytes"], read["bytes"])),
             "clock_hz": (cycles, kernel["tile_products"]),
             "tiling_bytes_per_s": (storage, tiling["words"]),
             "untiling_bytes_per_s": (sums, untiling["words"])}
    measured: dict[str, Any] = {name: amount / seconds for name, (amount, seconds) in rates.items() if seconds}
    measured |= {name: seconds for name, seconds in (
        ("pcie_latency_s", write["transfers"]), ("reconfiguration_s", array.load_s),
        ("launch_s", kernel["launches"] + figures.host["overhead"].seconds["products"])) if seconds}
    source = f"measured by barista calibrate on {figures.device} with the bitstream {array.title}"
    return dataclasses.replace(board, **measured, sources={**board.sources, **dict.fromkeys(measured, source)})


# ---- the file -----------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where calibrations are kept: in the user's cache folder (XDG)."""
    return cache_folder("calibrations")


def kept_path(device: str) -> Path:
    """The file of a device's calibration."""
    return folder() / f"{hashlib.sha256(device.encode()).hexdigest()[:16]}.json"


def save(figures: EngineFigures, path: str | os.PathLike[str]) -> None:
    """Write a calibration; the file is replaced whole."""
    table = dataclasses.asdict(figures)
    for array, one in zip(table["arrays"], figures.arrays, strict=True):
        array["tiles"] = [one.tiles.tr, one.tiles.tc, one.tiles.tp]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(target.name + ".new")
    written.write_text(json.dumps({"format": FORMAT, **table}, indent=2) + "\n", encoding="utf-8")
    written.replace(target)


def load(path: str | os.PathLike[str]) -> EngineFigures:
    """Read a calibration.

    Raises
    ------
    DataError : no such file, not a calibration, or of another format
    """
    where = os.fspath(path)
    give = "give a file that `barista calibrate --out FILE` wrote"
    try:
        text = Path(path).read_text(encoding="utf-8")
        table: Any = json.loads(text)
    except FileNotFoundError:
        raise DataError(f"there is no calibration {where}; make one: barista calibrate --out {where}") from None
    except OSError as error:
        raise DataError(f"{where}: the calibration cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{where} is no calibration: it is not text; {give}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is no calibration, or was cut off: line {error.lineno} is no JSON: {error.msg}; "
                        f"{give}") from None
    kind = recognise(text)
    if kind != CALIBRATION:
        what = "is no calibration" if kind == OTHER else f"is a {kind}, no calibration"
        raise DataError(f"{where} {what}; {give}")
    if table.get("format") != FORMAT:
        raise DataError(f"{where} is a calibration of format {table.get('format')!r}, and this version reads format "
                        f"{FORMAT}; calibrate again: barista calibrate")
    try:
        return _figures(table)
    except _DamagedError as error:
        raise DataError(f"{where}: the calibration is damaged: {error}; calibrate again: barista calibrate") from None


def find(device: str | None = None) -> EngineFigures:
    """The calibration that the user's cache folder holds.

    Parameters
    ----------
    device : the identity of a device; None takes the only calibration that there is

    Raises
    ------
    UnsupportedError : there is none, or several and no device
    DataError : it cannot be read
    """
    if device is not None:
        if not kept_path(device).exists():
            raise UnsupportedError(f"{device} has not been calibrated; run: barista calibrate")
        return load(kept_path(device))
    kept = sorted(folder().glob("*.json"))
    if not kept:
        raise UnsupportedError("no device has been calibrated, so nothing is known of its speed; "
                               "run: barista calibrate")
    if len(kept) > 1:
        found = "; ".join(f"{path} ({load(path).device})" for path in kept)
        raise UnsupportedError(f"{len(kept)} devices have been calibrated: {found}; give the file of one with "
                               "--calibration")
    return load(kept[0])


class _DamagedError(ValueError):
    """What is wrong with a file, in words."""


_KINDS = {str: "text", int: "whole number", bool: "truth value", dict: "object", list: "list"}


def _figures(table: Mapping[str, Any]) -> EngineFigures:
    """The figures of a file; `_DamagedError` where it does not have them."""
    cpu, opencl = (None if table.get(name) is None else _costs(_field(table, name, dict), name)
                   for name in ("cpu", "opencl"))
    return EngineFigures(
        _field(table, "device", str), _field(table, "processor", str), _field(table, "units", int),
        _field(table, "overlaps", bool), _field(table, "threads", int), _stages(table, "host", HOST_STAGES),
        tuple(_array(one, f"array {index}") for index, one in enumerate(_field(table, "arrays", list))), cpu, opencl)


def _array(table: Any, where: str) -> ArrayFigures:
    if not isinstance(table, dict):
        raise _DamagedError(f"{where} is no object")
    sizes, precision = _field(table, "tiles", list, where), _field(table, "precision", str, where)
    if len(sizes) != 3 or not all(type(size) is int and size >= 1 for size in sizes):
        raise _DamagedError(f"{where}: tiles {sizes} are not three whole numbers of 1 or more")
    if precision not in FORMATS:
        raise _DamagedError(f"{where}: precision {precision!r} is none of {', '.join(FORMATS)}")
    return ArrayFigures(TileSizes(*sizes), precision, _field(table, "engine", str, where),
                        _seconds(table.get("load_s"), f"{where}: load_s"),
                        _stages(table, "stages", ARRAY_STAGES, where))


def _stages(table: Mapping[str, Any], name: str, wanted: Sequence[str], where: str = "") -> dict[str, Costs]:
    stages = _field(table, name, dict, where)
    if missing := [stage for stage in wanted if stage not in stages]:
        raise _DamagedError(f"{name} has no costs of {', '.join(missing)}")
    return {stage: _costs(_field(stages, stage, dict, name), f"{name} {stage}") for stage in stages}


def _costs(table: Mapping[str, Any], where: str) -> Costs:
    return Costs({name: _seconds(seconds, f"{where}: {name}")
                  for name, seconds in _field(table, "seconds", dict, where).items()},
                 _seconds(table.get("median_error"), f"{where}: median_error"),
                 _seconds(table.get("worst_error"), f"{where}: worst_error"), _field(table, "measured", int, where))


def _field(table: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    """A field, of exactly this type."""
    title = f"{where}: {name}" if where else name
    if name not in table:
        raise _DamagedError(f"{title} is missing")
    if type(table[name]) is not kind:
        raise _DamagedError(f"{title} {table[name]!r} is no {_KINDS[kind]}")
    return table[name]


def _seconds(value: Any, title: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise _DamagedError(f"{title} {value!r} is no number of 0 or more")
    return float(value)
