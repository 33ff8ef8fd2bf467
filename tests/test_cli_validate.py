"""``barista validate``: each target prints what it found, writes three files, and fails where it must."""

from __future__ import annotations

import csv
import html
import json
import re
import runpy
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from opencl_device import open_opencl

from barista.cli.calibrate import geometries
from barista.cli.findings import Goal, errors_report, published_report, stages_chart, vectors_report
from barista.cli.main import main
from barista.cli.report import Chart, Report, Table, lines, write_report
from barista.errors import DataError
from barista.latency import published
from barista.latency.published import HOLD, RECORD, PublishedRow
from barista.latency.validation import Comparison, statistics
from barista.latency.vectors import read_vectors

Capture = pytest.CaptureFixture[str]
VECTORS = Path(__file__).parent / "latency"
ROOT = Path(__file__).parents[1]


def say(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``barista validate``."""
    status = main(["validate", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def check_files(folder: Path, stem: str) -> tuple[dict[str, Any], list[list[str]], str]:
    """A report's JSON, CSV and HTML; the page needs no other file, and its pictures are well-formed."""
    report = json.loads((folder / f"{stem}.json").read_text())
    with open(folder / f"{stem}.csv", newline="") as file:
        rows = list(csv.reader(file))
    page = (folder / f"{stem}.html").read_text()
    assert html.escape(report["title"]) in page
    assert len(report["details"]["rows"]) == len(rows) - 1
    assert not re.search(r'(?:src|href)="(?!#)', page)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert pictures
    for picture in pictures:
        ElementTree.fromstring(picture)
    return report, rows, page


# ---- targets ----------------------------------------------------------------------------------------------


def test_vectors_that_agree(tmp_path: Path, capsys: Capture) -> None:
    status, out, err = say(capsys, "--against", "vectors", VECTORS / "conv_vectors.csv",
                           "--out", tmp_path / "again.csv", "--report", tmp_path / "report")
    assert status == 0, err
    assert "All 4080 figures in 240 rows of convolutions agree." in out
    assert (tmp_path / "again.csv").read_bytes() == (VECTORS / "conv_vectors.csv").read_bytes()
    report, rows, _ = check_files(tmp_path / "report", "vectors_conv_vectors")
    assert len(rows) == 1
    assert {row["rows"] for row in report["tables"][0]["rows"]} == {0}


def test_vectors_that_differ_are_listed_and_fail(tmp_path: Path, capsys: Capture) -> None:
    text = (VECTORS / "gemm_vectors.csv").read_text().splitlines()
    column = text[0].split(",").index("cycles")
    for line in range(1, 31):
        cells = text[line].split(",")
        cells[column] = str(int(cells[column]) + 1)
        text[line] = ",".join(cells)
    (tmp_path / "wrong.csv").write_text("\n".join(text) + "\n")
    status, out, err = say(capsys, "--against", "vectors", tmp_path / "wrong.csv", "--report", tmp_path)
    assert status == 1
    assert "30 of 60 rows differ, in 30 of 480 figures." in out
    assert "... and 10 more" in out
    assert "30 of 60 rows differ from what is computed; the report lists them all" in err
    _, rows, _ = check_files(tmp_path, "vectors_wrong")
    assert [row[:2] for row in rows[1:]] == [[str(line), "cycles"] for line in range(2, 32)]


def test_published(tmp_path: Path, capsys: Capture) -> None:
    status, out, err = say(capsys, "--against", "published", "--report", tmp_path)
    assert status == 0, err
    held = re.search(r"(\d+) of (\d+) figures that must be reproduced are\.", out)
    assert held is not None
    assert held[1] == held[2]
    assert "reproduced: DSP blocks of a 16 x 16 array" in out
    assert re.search(r"does not follow: ResNet-20 with 36,36,72.*\n  published  0\.33\n  computed   0\.43", out)
    report, rows, page = check_files(tmp_path, "published")
    assert rows[0] == ["use", "what", "source", "number", "published", "computed", "verdict"]
    assert "Eq. 4.10 with V = 5" in page
    assert len(report["tables"]) == 2


def test_a_published_figure_that_is_lost_fails(tmp_path: Path, capsys: Capture,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "DSP_EVALUATED", 9)
    status, out, err = say(capsys, "--against", "published", "--report", tmp_path)
    assert status == 1
    assert "NOT reproduced: DSP blocks" in out
    assert re.search(r"\d published figures that follow from the equations are not reproduced: DSP blocks", err)


def test_simulator(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("numba", reason="the simulator needs the extra simulate")
    status, out, err = say(capsys, "--against", "simulator", "--network", "lenet", "--batch", "1", "--array", "8,4",
                           "--tile", "8,8,16", "--report", tmp_path)
    assert status == 0, err
    for model in ("product, equations", "product, refined", "convolution, equations", "convolution, refined"):
        assert re.search(rf"^{model}: mean error [\d.]+ %, .* over 5 comparisons", out, re.MULTILINE)
    assert re.search(r"^convolution, refined +total +all +5 .*met$", out, re.MULTILINE)
    _, rows, page = check_files(tmp_path, "simulator")
    assert len(rows) == 1 + 4 * 5
    assert {row[3] for row in rows[1:]} == {"tiles 8,8,16", "X 8, Y 4"}
    assert all(float(row[6]) > 0 and float(row[7]) > 0 for row in rows[1:])
    assert "convolution, refined: errors" in page


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of this machine."""
    open_opencl()
    path = tmp_path_factory.mktemp("calibration") / "machine.json"
    assert main(["calibrate", "--quick", "--out", str(path)]) == 0
    return path


@pytest.mark.opencl
def test_device(tmp_path: Path, capsys: Capture, machine: Path) -> None:
    """Nothing is said about how long anything takes, only about what is compared."""
    status, out, err = say(capsys, "--against", "device", "--calibration", machine, "--network", "lenet",
                           "--batch", "2", "--runs", "1", "--report", tmp_path)
    assert status == 0, err
    assert f"Medians of 1 runs; the calibration was made from other shapes, before, {machine}." in out
    _, rows, page = check_files(tmp_path, "device")
    models = {row[0] for row in rows[1:]}
    assert models == {"array fast 16,16,16 fp32", "cpu", "opencl"}
    parts = {row[4] for row in rows[1:] if row[0].startswith("array")}
    assert parts == {"total", "im2col", "tiling", "write", "kernel", "read", "untiling"}
    assert "array fast 16,16,16 fp32: stages of each pass" in page


@pytest.mark.opencl
def test_device_refuses_the_calibration_of_another(tmp_path: Path, capsys: Capture, machine: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads(machine.read_text()), "device": "another device"}))
    status, _, err = say(capsys, "--against", "device", "--calibration", other, "--report", tmp_path)
    assert status == 1
    assert "other.json is the calibration of another device, and this device is " in err


@pytest.mark.opencl
def test_device_without_a_calibration_makes_one(tmp_path: Path, capsys: Capture,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    open_opencl()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("barista.cli.validate_device.geometries", lambda: geometries(2))
    assert main(["bitstream", "build", "--tile", "8,8,16", "--engine", "fast", "--out", str(tmp_path / "one")]) == 0
    status, out, err = say(capsys, "--against", "device", "--bitstreams", tmp_path / "one", "--network", "lenet",
                           "--batch", "1", "--runs", "1", "--report", tmp_path)
    assert status == 0, err
    assert "array fast 8,8,16 fp32: mean error" in out
    assert "the calibration was made from other shapes, in the same turns." in out
    assert not (tmp_path / "cache" / "barista" / "calibrations").exists()


# ---- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "status", "message"), [
    (["--against", "vector"], 2, "--against has no 'vector'; did you mean 'vectors'?"),
    (["--against", "vectors"], 2, "--against vectors needs a file"),
    (["--against", "published", "some.csv"], 2, "'some.csv' has no place in --against published"),
    (["--against", "published", "--out", "x"], 2, "--out has no place in --against published; it belongs to --against "
                                                  "vectors"),
    (["--against", "vectors", "--runs", "3", "a.csv"], 2, "--runs has no place in --against vectors"),
    (["--against", "simulator", "--array", "16x16"], 2, "--array '16x16' is not two whole numbers X,Y such as 16,16"),
    (["--against", "simulator", "--array", "0,16"], 2, "--array '0,16' is not two whole numbers"),
    (["--against", "simulator", "--tile", "16,16"], 1, "tile '16,16' is not three integers"),
    (["--against", "simulator", "--network", "lenet5"], 1, "network 'lenet5' is not known; did you mean 'lenet'"),
    (["--against", "vectors", "absent.csv"], 1, "absent.csv: No such file or directory"),
])
def test_mistakes(words: list[str], status: int, message: str, capsys: Capture) -> None:
    found, _, err = say(capsys, *words)
    assert found == status
    assert message in err


def test_without_matplotlib_it_says_so_before_it_works(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, err = say(capsys, "--against", "published")
    assert (status, out) == (1, "")
    assert "pip install 'barista-caffe[plot]'" in err


def test_a_report_that_cannot_be_written(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "taken").write_text("")
    status, _, err = say(capsys, "--against", "vectors", VECTORS / "gemm_vectors.csv", "--report", tmp_path / "taken")
    assert status == 1
    assert "the report cannot be written" in err


def test_the_tool_is_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    shutil.copy(VECTORS / "gemm_vectors.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["validate_latency.py", "--against", "vectors", "gemm_vectors.csv"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "validate_latency.py"), run_name="__main__")
    assert end.value.code == 0
    assert "All 480 figures in 60 rows of products agree." in capsys.readouterr().out
    check_files(tmp_path / "validation", "vectors_gemm_vectors")


# ---- reports ----------------------------------------------------------------------------------------------


def comparison(predicted: float, observed: float, part: str = "total", model: str = "ours") -> Comparison:
    return Comparison(model, "conv1", "forward", "16,16", part, "cycles", predicted, observed)


def test_goals() -> None:
    goal = Goal(mean=0.05, median=0.04, largest=0.1, optimistic=0.02)
    assert goal.missed(statistics([comparison(104, 100), comparison(99, 100)])) == []
    assert goal.missed(statistics([comparison(80, 100)])) == [
        "mean 20.00 % is above 5 %", "median 20.00 % is above 4 %", "largest 20.00 % is above 10 %",
        "most optimistic 20.00 % is above 2 %"]
    assert Goal(mean=0.05).missed(statistics([])) == ["mean nan % is above 5 %"]


def test_errors_say_whether_goals_are_met() -> None:
    found = [comparison(110, 100), comparison(101, 100, model="better"), comparison(150, 100, part="kernel")]
    report = errors_report("title", found, {("ours", "total"): Goal(mean=0.05), ("better", "total"): Goal(mean=0.05)})
    assert [sentence.split("; ")[1] for sentence in report.summary] == ["goal missed: mean 10.00 % is above 5 %.",
                                                                       "goal met."]
    [table] = report.tables
    assert [row[:3] for row in table.rows if row[2] == "all"] == [("ours", "total", "all"), ("better", "total", "all"),
                                                                  ("ours", "kernel", "all")]


def test_text_is_escaped_and_cells_are_formatted(tmp_path: Path) -> None:
    table = Table("a < b", ("name", "value"), [("<script>", 1.23456789), (None, 12345678), ("yes", True)])
    write_report(Report("A & B", ["1 < 2"], [], table, [Chart("c", lambda axes: axes.plot([1, 2]))]), tmp_path, "x")
    page = (tmp_path / "x.html").read_text()
    assert "<script>" not in page
    assert "<title>A &amp; B</title>" in page
    assert list(lines(table)) == ["a < b:", "name         value", "<script>     1.235", "          12345678",
                                  "yes            yes"]
    assert (tmp_path / "x.csv").read_text() == "name,value\n<script>,1.23456789\n,12345678\nyes,True\n"


def test_json_has_no_infinity(tmp_path: Path) -> None:
    write_report(Report("t", [], [], Table("d", ("v",), [(float("inf"),), (float("nan"),), (0.5,)])), tmp_path, "x")
    report = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert [row["v"] for row in report["details"]["rows"]] == [None, None, 0.5]


def test_the_same_findings_give_the_same_page(tmp_path: Path) -> None:
    rows = [PublishedRow("a", "b", (1.0,), (2.0,), "c", use) for use in (HOLD, RECORD)]
    for folder in ("one", "two"):
        write_report(published_report(rows), tmp_path / folder, "x")
    assert (tmp_path / "one" / "x.html").read_bytes() == (tmp_path / "two" / "x.html").read_bytes()


def test_charts_of_nothing_and_of_zeros(tmp_path: Path) -> None:
    """What is compared may be text alone, or figures that logarithmic axes cannot show."""
    rows = [PublishedRow("a", "b", ("x", 0), ("x", 0), "c", use) for use in (HOLD, RECORD)]
    write_report(published_report(rows), tmp_path, "x")
    stages = [comparison(1.0, 0.5, "tiling"), comparison(2.0, 2.5, "unheard of")]
    chart = stages_chart("ours", stages)
    write_report(errors_report("t", [*stages, comparison(3, 3)], {}, charts=[chart]), tmp_path, "y")
    assert "unheard of" in (tmp_path / "y.html").read_text()


def test_files_without_figures_are_reported_as_such(tmp_path: Path) -> None:
    file = read_vectors(VECTORS / "gemm_vectors.csv")
    inputs = [",".join(row[column] for column in file.format.inputs) for row in file.rows]
    (tmp_path / "inputs.csv").write_text("\n".join([",".join(file.format.inputs), *inputs]))
    report = vectors_report(read_vectors(tmp_path / "inputs.csv"))
    assert report.summary[0].endswith("gives no figures; 60 rows of products were computed.")
    write_report(report, tmp_path, "x")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(Report("t", [], [], Table("d", ("v",), [])), tmp_path / "file", "x")


@pytest.mark.hls
def test_the_hls_code_moves_and_keeps_what_the_models_count(tmp_path: Path, capsys: Capture) -> None:
    status, out, _ = say(capsys, "--against", "csim", "--network", "lenet", "--batch", "1", "--report", tmp_path)
    assert status == 0
    report, _, _ = check_files(tmp_path, "csim")
    assert re.search("product, whole tiles: mean error 0.00 %.* goal met", out)
    assert re.search(r"convolution, appendix A: .* lowest \+.* goal met", out)
    rows = report["details"]["rows"]
    on_chip = [row for row in rows if row["part"] == "on chip"]
    memories = {row["configuration"].split()[-1] for row in on_chip}
    assert memories == {"tile_a", "tile_b", "sums_c", "line", "kern", "out"}
    assert all(row["predicted"] == row["observed"] > 0 and row["unit"] == "words" for row in on_chip)
    # Eq. 4.2 leaves out that whole tiles move.
    assert any(row["predicted"] < row["observed"] for row in rows if row["model"] == "product, Eq. 4.2")
