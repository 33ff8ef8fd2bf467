"""parse_log and plot_log: what they find in logs of Caffe and of Barista."""

from __future__ import annotations

import csv
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from barista.cli import curves
from barista.cli.main import main
from barista.cli.training_log import read_log
from barista.errors import DataError

# The lines of two solvers: a loss of two parts and an output of two numbers; two test nets.
LINES = """
Solving Net
Iteration 0, Testing net (#0)
    Test net output #0: acc = 0.25
    Test net output #1: acc = 0.75
    Test net output #2: loss = 2.5 (* 1 = 2.5 loss)
Iteration 0, Testing net (#1)
    Test net output #0: top5 = 1
Iteration 0 (0 iter/s, 0.1s/5 iters), loss = -1.5e+01
    Train net output #0: a = -10 (* 1.5 = -15 loss)
    Train net output #1: b = 0
Iteration 0, lr = 0.1
Iteration 5, loss = nan
    Train net output #0: a = nan (* 1.5 = nan loss)
    Train net output #1: b = -0.5
Iteration 5, lr = 1e-05
Iteration 10, Testing net (#0)
    Test net output #0: acc = 1
    Test net output #1: acc = 0
""".strip("\n").splitlines()


def stamped(times: list[str], lines: list[str] = LINES) -> str:
    """The lines with times, the last of which goes on to the end."""
    times = times + times[-1:] * (len(lines) - len(times))
    return "".join(f"I{time} 4242 solver.cpp:1] {line}\n" for time, line in zip(times, lines, strict=True))


def table(path: Path, delimiter: str = ",") -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_caffes_own_log_gives_caffes_own_tables(golden: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """Worked out by hand from the log's lines."""
    assert main(["parse_log", str(golden / "logs" / "train.log"), str(tmp_path), "--verbose"]) == 0
    assert capsys.readouterr().out == f"Wrote {tmp_path}/train.log.train\nWrote {tmp_path}/train.log.test\n"
    assert table(tmp_path / "train.log.train") == [
        ["NumIters", "Seconds", "LearningRate", "loss"],
        ["0.0", "0.000204", "0.01", "2.51002"],
        ["5.0", "0.000417", "0.01", "2.34364"],
        ["10.0", "0.000839", "0.00999625", "2.31928"],
        ["15.0", "0.001011", "0.00999251", "2.3362"]]
    assert table(tmp_path / "train.log.test") == [
        ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"],
        ["0.0", "0.000126", "0.00999625", "0.0", "2.67688"],
        ["10.0", "0.000764", "0.00999625", "0.222222", "2.23379"],
        ["20.0", "0.001297", "0.00998876", "0.222222", "2.32794"]]


def test_outputs_of_several_numbers_nets_and_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(stamped(["20261121 05:29:31.5"]))
    assert main(["parse_log", str(tmp_path / "a.log"), str(tmp_path), "--delimiter=;"]) == 0
    assert table(tmp_path / "a.log.train", ";") == [
        ["NumIters", "Seconds", "LearningRate", "a", "b"],
        ["0.0", "0.0", "0.1", "-10.0", "0.0"], ["5.0", "0.0", "0.1", "nan", "-0.5"]]
    # The last row of net 0 is not complete.
    assert table(tmp_path / "a.log.test", ";") == [
        ["NumIters", "Seconds", "LearningRate", "acc[0]", "acc[1]", "loss", "top5", "TestNet"],
        ["0.0", "0.0", "nan", "0.25", "0.75", "2.5", "", "0"], ["0.0", "0.0", "nan", "", "", "", "1.0", "1"]]


def seconds(path: Path, times: list[str]) -> list[float]:
    path.write_text(stamped(times))
    log = read_log(path)
    return [row.seconds for row in log.test[:1]] + [row.seconds for row in log.train]


def test_seconds_over_new_year_with_and_without_the_year(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for first, second in (("20251231", "20260101"), ("1231", "0101")):
        times = [f"{first} 23:59:50.25"] * 3 + [f"{second} 00:00:10.5"] * 8 + [f"{second} 01:00:10.75"]
        assert seconds(path, times) == [0.0, 20.25, 3620.5]


def test_seconds_never_run_backwards(tmp_path: Path) -> None:
    times = ["20261121 05:29:31.5"] * 3 + ["20261121 05:29:33.5"] * 3 + ["20261121 05:29:32.0"]
    assert seconds(tmp_path / "a.log", times) == [0.0, 2.0, 2.0]


def test_a_leap_day_without_a_year(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(stamped(["0229 23:59:59.0"] * 3 + ["0301 00:00:01.0"]))
    when = datetime(2025, 6, 1).timestamp()  # no leap year
    os.utime(path, (when, when))
    assert [row.seconds for row in read_log(path).test] == [0.0, 2.0]


def test_the_log_of_barista_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
          shape { dim: 4 dim: 3 } shape { dim: 4 dim: 1 }
          data_filler { type: "gaussian" } data_filler { value: 0.5 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }""")
    (tmp_path / "solver.prototxt").write_text("""net: "net.prototxt" base_lr: 0.1
        lr_policy: "step" gamma: 0.5 stepsize: 4
        max_iter: 6 display: 2 test_iter: 1 test_interval: 3 solver_mode: CPU snapshot_after_train: false""")
    capsys.readouterr()
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    (tmp_path / "train.log").write_text(capsys.readouterr().err)
    log = read_log("train.log")
    assert [row.iteration for row in log.train] == [0, 2, 4]
    assert [row.iteration for row in log.test] == [0, 3, 6]
    assert [(point.iteration, point.value) for point in log.rates] == [(0, 0.1), (2, 0.1), (4, 0.05)]
    assert [point.iteration for point in log.losses] == [0, 2, 4, 6]
    assert all(row.losses == {"loss"} for row in log.train + log.test)


def test_what_parse_log_refuses(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(golden / "logs" / "train.log")

    def fails(*words: str) -> str:
        assert main(["parse_log", *words]) == 1
        return capsys.readouterr().err

    assert "no line of a training run is in it" in fails(str(golden / "logs" / "time.log"), str(tmp_path))
    assert "cannot be read: No such file" in fails(str(tmp_path / "none"), str(tmp_path))
    assert "there is no such folder; make it first" in fails(log, str(tmp_path / "none"))
    assert "give one character" in fails(log, str(tmp_path), "--delimiter", "::")
    assert list(tmp_path.iterdir()) == []


# ---- charts -----------------------------------------------------------------------------------------------

def drawn(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """The figure that a command draws."""
    figures: list[Any] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    assert main(["plot_log", *words]) == 0
    return figures[0]


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    """The points of each curve, by its label."""
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.get_lines()
            if not line.get_label().startswith("_")}


def test_curves_of_one_run(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    figure = drawn(monkeypatch, str(golden / "logs" / "train.log"), "--out", str(tmp_path / "a.png"))
    loss, accuracy, rate = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    assert lines(loss) == {
        "train": [(0, 2.51002), (5, 2.34364), (10, 2.31928), (15, 2.3362), (20, 1.93094)],
        "test": [(0, 2.67688), (10, 2.23379), (20, 2.32794)]}
    assert lines(accuracy) == {"test": [(0, 0.0), (10, 0.222222), (20, 0.222222)]}
    # Each rate stands at its own iteration, and the last holds to the end.
    assert lines(rate) == {"learning rate": [(0, 0.01), (5, 0.00999625), (10, 0.00999251), (15, 0.00998876),
                                             (20, 0.00998876)]}
    assert rate.get_xlabel() == "iterations"


def test_curves_of_two_runs_against_seconds(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    (tmp_path / "a.log").write_text(stamped(["20261121 05:29:31.5"] * 3 + ["20261121 05:29:33.5"]))
    figure = drawn(monkeypatch, str(golden / "logs" / "train.log"), str(tmp_path / "a.log"), "--x", "seconds",
                   "--out", str(tmp_path / "a.svg"))
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "outputs", "learning rate"]
    assert set(lines(figure.axes[0])) == {"train.log train loss", "a.log train loss", "train.log test loss",
                                          "a.log test loss (net 0)"}
    assert lines(figure.axes[0])["a.log train loss"][0] == (2.0, -15.0)
    assert lines(figure.axes[1])["a.log test top5 (net 1)"] == [(2.0, 1.0)]
    assert set(lines(figure.axes[2])) == {"train.log", "a.log"}
    assert figure.axes[2].get_xlabel() == "seconds"
    colours = {line.get_label(): line.get_color() for line in figure.axes[0].get_lines()}
    assert colours["a.log train loss"] == colours["a.log test loss (net 0)"] != colours["train.log train loss"]


def test_runs_that_lie_on_each_other_can_be_seen(golden: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    text = (golden / "logs" / "train.log").read_text()
    paths = [tmp_path / f"{name}.log" for name in "abc"]
    for path in paths:
        path.write_text(text)
    figure = drawn(monkeypatch, *map(str, paths), "--out", str(tmp_path / "a.png"))
    for axes in figure.axes:
        widths: dict[str, list[float]] = {}
        for line in axes.get_lines():  # in the order in which they are drawn
            widths.setdefault(line.get_label().partition(" ")[2], []).append(line.get_linewidth())
        assert all(found == sorted(found, reverse=True) and len(set(found)) == 3 for found in widths.values())


@pytest.mark.parametrize(("number", "along", "label", "first"), [
    (0, "iterations", "test accuracy", 0.0), (2, "iterations", "test loss", 2.67688),
    (5, "seconds", "learning rate", 0.01), (7, "seconds", "train loss", 2.51002)])
def test_caffes_charts(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, along: str,
                       label: str, first: float) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    figure = drawn(monkeypatch, str(golden / "logs" / "train.log"), "--chart", str(number), "--out",
                   str(tmp_path / "a.png"))
    [axes] = figure.axes
    assert (axes.get_ylabel(), axes.get_xlabel()) == (label, along)
    assert axes.get_lines()[0].get_ydata()[0] == first


def test_a_long_curve_has_its_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    text = [f"Iteration {number}, loss = {2 + (-1) ** number}" for number in range(400)]
    (tmp_path / "a.log").write_text(stamped(["20261121 05:29:31.5"], [*LINES, *text]))
    figure = drawn(monkeypatch, str(tmp_path / "a.log"), "--chart", "6", "--out", str(tmp_path / "a.png"))
    faint, mean = figure.axes[0].get_lines()
    assert len(faint.get_xdata()) == 402 and faint.get_alpha() < 1
    assert all(abs(value - 2) < 0.2 for value in mean.get_ydata()[20:])


def test_a_chart_is_a_file(golden: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    out = tmp_path / "a.png"
    assert main(["plot_log", str(golden / "logs" / "train.log"), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_what_plot_log_refuses(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    log, out = str(golden / "logs" / "train.log"), str(tmp_path / "a.png")

    def fails(*words: str) -> str:
        assert main(["plot_log", *words]) == 1
        return capsys.readouterr().err

    assert "--out a.xyz: the ending 'xyz' says no format" in fails(log, "--out", "a.xyz")
    assert "--chart 8: there are the charts 0 test accuracy against iterations, 1" in fails(
        log, "--chart", "8", "--out", out)
    assert "leave --x away" in fails(log, "--chart", "1", "--x", "seconds", "--out", out)
    lossy = tmp_path / "a.log"
    lossy.write_text(stamped(["20261121 05:29:31.5"], [line for line in LINES if "acc" not in line]))
    assert "--chart 0 draws test accuracy against iterations" in fails(str(lossy), "--chart", "0", "--out", out)
    assert not os.path.exists(out)
    with pytest.raises(DataError, match="no line of a training run"):
        read_log(golden / "logs" / "test.log")
