"""Reference values are read, computed again and compared; errors of predictions have the thesis's statistics."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from barista.errors import DataError
from barista.latency.validation import Comparison, grouped, statistics
from barista.latency.vectors import CONVOLUTION, GEMM, read_vectors

FOLDER = Path(__file__).parent / "latency"


def write(path: Path, rows: list[list[object]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def table(name: str) -> list[list[str]]:
    with open(FOLDER / name, newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(("name", "format_", "count"), [("gemm_vectors.csv", GEMM, 60),
                                                         ("conv_vectors.csv", CONVOLUTION, 240)])
def test_reference_values_agree(name: str, format_: object, count: int) -> None:
    file = read_vectors(FOLDER / name)
    assert file.format is format_
    assert len(file.rows) == count
    assert set(file.compared) == set(file.format.outputs)
    assert file.differences() == []


@pytest.mark.parametrize("name", ["gemm_vectors.csv", "conv_vectors.csv"])
def test_what_is_written_reads_as_what_was_read(name: str, tmp_path: Path) -> None:
    file = read_vectors(FOLDER / name)
    path = tmp_path / name
    path.write_text(file.recomputed(), newline="")
    again = read_vectors(path)
    assert again.columns == file.columns
    assert again.computed == file.computed
    assert again.differences() == []


def test_whole_numbers_are_written_as_they_came() -> None:
    text = (FOLDER / "conv_vectors.csv").read_bytes().decode()
    assert read_vectors(FOLDER / "conv_vectors.csv").recomputed() == text


def test_columns_may_stand_in_any_order_and_spaces_do_not_matter(tmp_path: Path) -> None:
    turned = [[f" {cell} " for cell in reversed(row)] for row in table("conv_vectors.csv")[:9]]
    file = read_vectors(write(tmp_path / "turned.csv", turned))
    assert file.columns == table("conv_vectors.csv")[0][::-1]
    assert file.differences() == []


def test_a_changed_figure_is_found_with_its_line(tmp_path: Path) -> None:
    rows = table("conv_vectors.csv")[:5]
    column = rows[0].index("sa")
    right = int(rows[3][column])
    rows[3][column] = str(right - 1)
    [difference] = read_vectors(write(tmp_path / "wrong.csv", rows)).differences()
    assert (difference.line, difference.column, difference.given, difference.computed) == (4, "sa", right - 1, right)
    assert difference.relative == pytest.approx(1 / (right - 1))


def test_seconds_may_differ_in_their_last_digits_only(tmp_path: Path) -> None:
    rows = table("gemm_vectors.csv")[:3]
    column = rows[0].index("total_s")
    seconds = [float(row[column]) for row in rows[1:]]
    rows[1][column] = repr(seconds[0] * (1 + 5e-13))
    rows[2][column] = repr(seconds[1] * (1 + 5e-12))
    assert [each.line for each in read_vectors(write(tmp_path / "seconds.csv", rows)).differences()] == [3]


def test_nan_is_a_difference(tmp_path: Path) -> None:
    rows = table("gemm_vectors.csv")[:2]
    rows[1][rows[0].index("mem_s")] = "nan"
    [difference] = read_vectors(write(tmp_path / "nan.csv", rows)).differences()
    assert difference.column == "mem_s"


def test_zero_given_is_an_infinite_difference(tmp_path: Path) -> None:
    rows = table("gemm_vectors.csv")[:2]
    rows[1][rows[0].index("cycles")] = "0"
    [difference] = read_vectors(write(tmp_path / "zero.csv", rows)).differences()
    assert difference.relative == math.inf


def test_a_file_without_figures_gets_them_all(tmp_path: Path) -> None:
    rows = [row[:len(GEMM.inputs)] for row in table("gemm_vectors.csv")]
    file = read_vectors(write(tmp_path / "inputs.csv", rows))
    assert file.differences() == []
    path = tmp_path / "full.csv"
    path.write_text(file.recomputed())
    full = read_vectors(path)
    assert list(full.columns) == table("gemm_vectors.csv")[0]
    assert full.computed == read_vectors(FOLDER / "gemm_vectors.csv").computed


def test_empty_cells_are_filled_and_not_compared(tmp_path: Path) -> None:
    rows = table("conv_vectors.csv")[:3]
    column = rows[0].index("total")
    right = rows[1][column]
    rows[1][column] = ""
    file = read_vectors(write(tmp_path / "gap.csv", rows))
    assert file.given(0, "total") is None
    assert file.differences() == []
    assert list(csv.reader(file.recomputed().splitlines()))[1][column] == right


@pytest.mark.parametrize(("rows", "message"), [
    ([], "is empty; its first line names the columns"),
    ([["a", "b"], [1, 2]], "the header is of neither format; it must have R, C, P"),
    ([["R", "C", "P", "Tr", "Tc", "Tp", "word_bits"]], "a file of products needs the columns S, f_hz"),
    ([[*GEMM.inputs, "cycels"], [1] * 12], "a file of products has no column 'cycels'; did you mean 'cycles'?"),
    ([[*GEMM.inputs, "cycles", "cycles"], [1] * 13], "the column 'cycles' comes more than once"),
    ([[*GEMM.inputs]], "has a header and no rows"),
    ([[*GEMM.inputs], [1] * 10], "bad.csv:2: 10 cells under 11 columns"),
    ([[*GEMM.inputs], [1.5] + [1] * 10], "bad.csv:2: R is '1.5'; give a whole number"),
    ([[*GEMM.inputs], [1] * 8 + ["fast", 1, 1]], "bad.csv:2: f_hz is 'fast'; give a number"),
    ([[*GEMM.inputs], [0] + [1] * 10], "bad.csv:2: gemm_latency: m=0 is below 1"),
    ([[*GEMM.inputs], [1] * 8 + [-5, 1, 1]], "bad.csv:2: GEMM model: clock_hz is -5.0"),
    ([[*CONVOLUTION.inputs], [1, 1, 1, 3, 1, 0, 5, 5, "backward", 1, 1, 16, "printed"]],
     "bad.csv:2: pass is 'backward'; give one of forward, grad_weight, grad_input"),
    ([[*CONVOLUTION.inputs], [1, 1, 1, 3, 1, 0, 5, 5, "forward", 1, 1, 16, "corected"]],
     "bad.csv:2: FPGPT model: reading 'corected' is not known; did you mean 'corrected'?"),
    ([[*CONVOLUTION.inputs], [1, 1, 1, 7, 1, 0, 5, 5, "forward", 1, 1, 16, "corrected"]],
     "bad.csv:2: FPGPT model: a kernel of 7x7 exceeds the input"),
])
def test_files_that_cannot_be_read(rows: list[list[object]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_vectors(write(tmp_path / "bad.csv", rows))
    assert message in str(caught.value)


def test_a_figure_that_is_no_number(tmp_path: Path) -> None:
    rows = table("gemm_vectors.csv")[:2]
    rows[1][rows[0].index("cycles")] = "many"
    with pytest.raises(DataError, match=r"text\.csv:2: cycles is 'many', which is no number"):
        read_vectors(write(tmp_path / "text.csv", rows)).differences()


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="is no text; give a CSV file with a header"):
        read_vectors(tmp_path / "binary.csv")
    with pytest.raises(DataError, match="No such file"):
        read_vectors(tmp_path / "absent.csv")


# ---- statistics -------------------------------------------------------------------------------------------


def comparison(predicted: float, observed: float, pass_: str = "forward", part: str = "total") -> Comparison:
    return Comparison("model", "conv1", pass_, "16,16", part, "cycles", predicted, observed)


def test_errors_have_the_sign_of_the_prediction() -> None:
    assert comparison(110, 100).error == pytest.approx(0.1)
    assert comparison(90, 100).error == pytest.approx(-0.1)
    assert comparison(100, 100).error == 0


def test_statistics_of_errors() -> None:
    found = statistics([comparison(110, 100), comparison(98, 100), comparison(100, 100), comparison(104, 100)])
    assert found.count == 4
    assert found.mean == pytest.approx(0.04)
    assert found.median == pytest.approx(0.03)
    assert found.largest == pytest.approx(0.1)
    assert found.smallest == 0
    assert found.most_optimistic == pytest.approx(-0.02)
    assert found.deviation == pytest.approx(math.sqrt((0.06**2 + 0.02**2 + 0.04**2 + 0) / 4))


def test_statistics_of_nothing() -> None:
    assert statistics([]).count == 0
    assert math.isnan(statistics([]).mean)


def test_groups_keep_the_order_of_their_first() -> None:
    some = [comparison(1, 1, "grad_weight"), comparison(2, 1), comparison(3, 1, "grad_weight"),
            comparison(4, 1, part="kernel")]
    assert grouped(some, "pass_") == {("grad_weight",): [some[0], some[2]], ("forward",): [some[1], some[3]]}
    assert list(grouped(some, "pass_", "part")) == [("grad_weight", "total"), ("forward", "total"),
                                                    ("forward", "kernel")]
