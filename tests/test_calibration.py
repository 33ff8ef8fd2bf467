"""From measurements to costs: known coefficients are found again, and the file keeps them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.errors import DataError, UnsupportedError
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import write
from barista.hardware.board import load_board
from barista.latency import calibration
from barista.latency.calibration import fit, nonnegative_least_squares
from barista.latency.engine_model import HOST_STAGES, ArrayFigures, Costs, EngineFigures
from barista.schedule import Schedule

KNOWN = {"transfers": 4e-6, "bytes": 1e-10, "never": 0.0}


def transfers(count: int = 60, seed: int = 1) -> tuple[list[dict[str, float]], np.ndarray]:
    """Transfers of many sizes, and what each takes exactly."""
    rng = np.random.default_rng(seed)
    counts = [{"transfers": float(rng.integers(1, 9)), "bytes": float(2 ** rng.integers(8, 24)), "never": 0.0}
              for _ in range(count)]
    return counts, np.array([sum(KNOWN[name] * amount for name, amount in one.items()) for one in counts])


def figures(device: str = "Card / 1.0 / 3.0") -> EngineFigures:
    """Figures with a cost for each thing, none of them alike."""
    number = itertools.count(1)

    def costs(*names: str) -> Costs:
        return Costs({name: 1e-9 * next(number) for name in names}, 0.05, 0.25, 30)

    array = ArrayFigures(TileSizes(16, 8, 64), "fp32", "fast", 0.002,
                         {"tiling": costs("calls", "words"), "kernel": costs("launches", "tile_products"),
                          "untiling": costs("calls", "words")})
    return EngineFigures(device, "x86", 2, False, 2, {"im2col": costs("words"), "write": costs("transfers", "bytes"),
                                                      "read": costs("transfers", "bytes"),
                                                      "overhead": costs("products")}, (array,), costs("macs"))


# ---- fitting ------------------------------------------------------------------------------------------------


def test_known_coefficients_are_found_again() -> None:
    counts, seconds = transfers()
    found = fit(counts, seconds)
    assert found.seconds == pytest.approx(KNOWN, rel=1e-6)
    assert found.worst_error < 1e-6
    assert found.measured == len(counts)
    assert found.of({"transfers": 2, "bytes": 1e6}) == pytest.approx(2 * 4e-6 + 1e-4)


def test_noise_averages_out() -> None:
    counts, seconds = transfers(300)
    noise = np.random.default_rng(2).normal(1, 0.1, len(seconds))
    found = fit(counts, seconds * noise)
    assert found.seconds["transfers"] == pytest.approx(4e-6, rel=0.1)
    assert found.seconds["bytes"] == pytest.approx(1e-10, rel=0.1)
    assert 0.03 < found.median_error < 0.12


def test_outliers_do_not_count() -> None:
    """A fifth of the measurements met something else and took up to ten times as long."""
    counts, seconds = transfers(100)
    rng = np.random.default_rng(3)
    hit = rng.permutation(100)[:20]
    seconds[hit] *= rng.uniform(2, 10, 20)
    found = fit(counts, seconds)
    assert found.seconds == pytest.approx(KNOWN, rel=0.02)
    assert found.median_error < 0.01
    assert found.worst_error > 0.4


def test_what_took_no_time_or_counts_nothing_is_left_out() -> None:
    counts, seconds = transfers(20)
    found = fit([*counts, {"transfers": 3.0, "bytes": 1e6}, dict.fromkeys(KNOWN, 0.0)], [*seconds, 0.0, 1.0])
    assert found.seconds == pytest.approx(KNOWN, rel=1e-6)
    assert found.measured == 20


def test_nothing_to_fit() -> None:
    with pytest.raises(DataError, match="none of 2 measurements took more than"):
        fit([{"bytes": 1.0}, {"bytes": 0.0}], [0.0, 1.0])
    with pytest.raises(DataError, match="none of 0 measurements"):
        fit([], [])


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_least_squares_equal_the_best_subset(seed: int, unknowns: int, rows: int) -> None:
    """Against every choice of unknowns that may differ from 0."""
    rng = np.random.default_rng(seed)
    a, y = rng.normal(size=(rows, unknowns)), rng.normal(size=rows)
    found = nonnegative_least_squares(a, y)
    assert (found >= 0).all()
    best = float(y @ y)
    for size in range(1, unknowns + 1):
        for chosen in itertools.combinations(range(unknowns), size):
            x = np.linalg.lstsq(a[:, chosen], y, rcond=None)[0]
            if (x >= 0).all():
                best = min(best, float(((a[:, chosen] @ x - y) ** 2).sum()))
    assert float(((a @ found - y) ** 2).sum()) == pytest.approx(best, rel=1e-6, abs=1e-9)


# ---- the file -----------------------------------------------------------------------------------------------


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "made" / "machine.json"
    wanted = figures()
    calibration.save(wanted, path)
    assert calibration.load(path) == wanted
    assert [one.name for one in path.parent.iterdir()] == ["machine.json"]
    calibration.save(dataclasses.replace(wanted, cpu=None), path)
    assert calibration.load(path).cpu is None


@pytest.mark.parametrize(("field", "value", "message"), [
    ("format", 1, "is a calibration of format 1, and this version reads format 2"),
    ("format", None, "is a calibration of format None, and this version reads format 2"),
    ("units", "two", "damaged: units 'two' is no whole number"),
    ("units", True, "units True is no whole number"),
    ("threads", None, "threads None is no whole number"),
    ("host", {}, "host has no costs of im2col, write, read, overhead"),
    ("host", {stage: {"seconds": {"words": -1e-9}} for stage in HOST_STAGES},
     "host im2col: words -1e-09 is no number of 0 or more"),
    ("host", {stage: {"seconds": {}} for stage in HOST_STAGES},
     "host im2col: median_error None is no number of 0 or more"),
    ("host", dict.fromkeys(HOST_STAGES, 7), "host: im2col 7 is no object"),
    ("arrays", [{"tiles": [16, 16], "precision": "fp32"}], r"array 0: tiles \[16, 16\] are not three whole numbers"),
    ("arrays", [{"tiles": [16, 16, 0], "precision": "fp32"}], r"array 0: tiles \[16, 16, 0\] are not three whole"),
    ("arrays", [{"tiles": [16, 16, 8], "precision": "fp33"}], "array 0: precision 'fp33' is none of fp32, dfxp8"),
    ("arrays", [{"tiles": [16, 16, 8]}], "array 0: precision is missing"),
    ("arrays", [3], "array 0 is no object"),
    ("arrays", 3, "arrays 3 is no list"),
    ("cpu", [1], r"cpu \[1\] is no object"),
])
def test_damaged_files_are_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    path = tmp_path / "machine.json"
    calibration.save(figures(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(DataError, match=rf"machine\.json.*{message}.*; calibrate again: barista calibrate$"):
        calibration.load(path)


def test_a_field_that_is_missing_and_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    calibration.save(figures(), path)
    text = path.read_text()
    fields = json.loads(text)
    del fields["overlaps"]
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match=r"the calibration is damaged: overlaps is missing; calibrate again"):
        calibration.load(path)
    path.write_text(text[:200])
    with pytest.raises(DataError, match=r"machine\.json is no calibration, or was cut off: line \d+ is no JSON: "):
        calibration.load(path)
    with pytest.raises(DataError, match=r"there is no calibration .*other\.json; make one: barista calibrate --out"):
        calibration.load(tmp_path / "other.json")


def test_other_files_are_no_calibrations(tmp_path: Path) -> None:
    """What they are is said, and never that they should be written over."""
    path = tmp_path / "other.json"
    manifest = write(tmp_path, b"binary", TileSizes(8, 8, 16), "fp32", load_board("u250"))
    Schedule("net", 1, ()).save(tmp_path / "schedule.json")
    for content, message in ((manifest.path.read_bytes(), "is a manifest, no calibration"),
                             ((tmp_path / "schedule.json").read_bytes(), "is a schedule, no calibration"),
                             (b'{"format": 2}', "is no calibration"), (b"[1]", "is no calibration"),
                             (b"\xff\xfe", "is no calibration: it is not text")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"other\.json {message}; give a file that `barista calibrate --out FI"):
            calibration.load(path)
    with pytest.raises(DataError, match="the calibration cannot be read: Is a directory"):
        calibration.load(tmp_path)


def test_the_kept_calibration_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"no device has been calibrated.*run: barista calibrate"):
        calibration.find()
    one, other = figures("one"), figures("other")
    calibration.save(one, calibration.kept_path("one"))
    assert calibration.find() == calibration.find("one") == one
    with pytest.raises(UnsupportedError, match="other has not been calibrated; run: barista calibrate"):
        calibration.find("other")
    calibration.save(other, calibration.kept_path("other"))
    assert calibration.find("other") == other
    with pytest.raises(UnsupportedError, match=r"2 devices have been calibrated: .*\(one\).*--calibration"):
        calibration.find()


# ---- the board ----------------------------------------------------------------------------------------------


def test_measured_figures_take_the_place_of_assumed_ones() -> None:
    """The effective clock makes Eq. 4.5 say what was measured."""
    found = figures()
    array = found.arrays[0]
    emulated = load_board("emulated")
    board = calibration.calibrated_board(emulated, found, array)
    cycles_a_product = array.tiles.tp + array.tiles.tr + array.tiles.tc - 2
    seconds_a_product = array.stages["kernel"].seconds["tile_products"] / found.units
    assert cycles_a_product / board.clock_hz == pytest.approx(seconds_a_product)
    assert board.pcie_bytes_per_s == pytest.approx(1 / found.host["read"].seconds["bytes"])
    assert board.tiling_bytes_per_s == pytest.approx(4 / array.stages["tiling"].seconds["words"])
    assert board.reconfiguration_s == array.load_s
    assert board.dsp == emulated.dsp
    assert board.sources["clock_hz"].startswith("measured by barista calibrate on Card / 1.0 / 3.0")
    assert board.sources["dsp"] == emulated.sources["dsp"]


def test_what_was_too_cheap_to_measure_stays_as_it_was() -> None:
    found = figures()
    write = dataclasses.replace(found.host["write"], seconds={"transfers": 0.0, "bytes": 0.0})
    free = dataclasses.replace(found, host={**found.host, "write": write, "read": write})
    emulated = load_board("emulated")
    board = calibration.calibrated_board(emulated, free, free.arrays[0])
    assert board.pcie_bytes_per_s == emulated.pcie_bytes_per_s
    assert board.pcie_latency_s is None
