"""``barista explore``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from barista.cli.arguments import Parser, UsageError
from barista.cli.explore import add_arguments
from barista.cli.main import main
from barista.cli.numbers import above, counted, number
from barista.gemm.shapes import Pass
from barista.hardware.board import load_board
from barista.hardware.host import load_host
from barista.latency.gemm_model import GemmAssumptions, pass_latency
from barista.latency.networks import network_workloads
from barista.resources import find

Capture = pytest.CaptureFixture[str]

LENET = ("--model", str(find("prototxt", "lenet", "train_val.prototxt")), "--input-shape", "1,28,28")
PASSES = ["conv1 forward", "conv2 forward", "conv2 grad_weight", "conv2 grad_input", "conv1 grad_weight"]
GRID = ("--grid", "tr=8:32:8,tp=32:128:32")
SMALL = ("--kind", "conv", "--grid", "x=1:20,y=1:16")


def explore(*words: str) -> int:
    return main(["explore", *LENET, "--board", "u250", *words])


def refused(capsys: Capture, *words: str, status: int = 1) -> str:
    assert explore(*words) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def costs_of(line: str) -> float:
    """The cost that a line of the summary says, in its unit."""
    found = re.search(r": ([\d,.]+) (?:ms|J) \(", line)
    assert found is not None, line
    return float(found[1].replace(",", ""))


def test_gemm_prints_each_the_single_one_and_the_set(capsys: Capture, tmp_path: Path) -> None:
    assert explore(*GRID, "--max-bitstreams", "2", "--csv", str(tmp_path / "designs.csv")) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["best", "Tr,Tc,Tp", "ms", "GOPS"]
    assert [line[:18].strip() for line in lines[:5]] == PASSES
    assert lines[6] == "Designs: of 16 points nothing is excluded; 16 legal"
    own, single, best = (costs_of(line) for line in lines[7:10])
    assert lines[7].startswith("Each on its own best design")
    assert lines[8].startswith("Best single design ")
    assert lines[9].startswith("Best set found, of 2: ") and lines[9].endswith("; no set is better")
    assert own < best < single
    assert lines[12].startswith("The thesis's heuristic")
    assert lines[13:] == [
        "Limits: u250; grid tr=8:32:8,tc=tr,tp=32:128:32 (--grid widens it; tc=4:64:4 in it makes tiles that are not "
        "square; --limits region takes one of its regions)",
        "Not counted: im2col on the host, the same for every design, and tiling and untiling, for which board u250 has "
        "no rate: --host-model FILE with a host file of your own counts them"]

    with (tmp_path / "designs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["names"] for row in rows] == PASSES
    assert sum(float(row["best_ms"]) for row in rows) == pytest.approx(own, rel=1e-3)
    assert sum(float(row["single_ms"]) for row in rows) == pytest.approx(single, rel=1e-3)
    assert sum(float(row["set_ms"]) for row in rows) == pytest.approx(best, rel=1e-3)
    assert len({row["set"] for row in rows}) == 2
    assumptions = GemmAssumptions.of(load_board("u250"), padding="once")
    for row, workload in zip(rows, network_workloads("lenet", 64), strict=True):
        assert workload.name == row["names"]
        sizes = [int(size) for size in row["best"].split(",")]
        assert float(row["best_ms"]) == pytest.approx(
            1e3 * float(pass_latency(workload, *sizes, assumptions, "batched").total_s))
        assert int(row["ops"]) == workload.ops
        assert float(row["set_penalty"]) == pytest.approx(float(row["set_ms"]) / float(row["best_ms"]) - 1, abs=1e-12)


def test_conv_finds_the_fewest_within_a_penalty(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "designs.csv"
    assert explore(*SMALL, "--max-penalty", "30%", "--csv", str(path)) == 0
    text = capsys.readouterr().out
    assert "best X,Y" in text
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert all(-1e-12 <= float(row["set_penalty"]) <= 0.3 + 1e-12 for row in rows)
    found = re.search(r"Best set found, of (\d): ", text)
    thesis = re.search(r"The thesis's heuristic, (\d) designs: ", text)
    assert found is not None and thesis is not None
    assert int(found[1]) <= int(thesis[1])


def test_energy_is_power_times_latency_where_the_host_does_nothing(capsys: Capture) -> None:
    assert explore(*GRID) == 0
    milliseconds = costs_of(next(line for line in capsys.readouterr().out.splitlines() if "own best" in line))
    assert explore(*GRID, "--objective", "energy") == 0
    joules = costs_of(next(line for line in capsys.readouterr().out.splitlines() if "own best" in line))
    assert joules == pytest.approx(milliseconds / 1e3 * load_board("u250").power_w, rel=1e-3)


def test_a_host_adds_its_tiling(capsys: Capture, tmp_path: Path) -> None:
    host = tmp_path / "slow.toml"
    host.write_text('name = "slow"\ndescription = "for this test"\n' + "".join(
        f'[{name}]\nvalue = {value}\nsource = "assumed"\n' for name, value in
        (("power_w", 50), ("gemm_flops_per_s", 1e9), ("tiling_bytes_per_s", 1e8), ("untiling_bytes_per_s", 1e8))))
    costs = []
    for words in ((), ("--host-model", str(host))):
        assert explore(*GRID, *words) == 0
        costs.append(costs_of(next(line for line in capsys.readouterr().out.splitlines() if "own best" in line)))
    assert costs[1] > 2 * costs[0]


def test_a_host_without_rates_counts_what_it_has(capsys: Capture, tmp_path: Path) -> None:
    text = load_host("xeon_e5_2686v4").path.read_text().replace('name = "xeon_e5_2686v4"', 'name = "half"')
    half = tmp_path / "half.toml"
    half.write_text(text + '\n[tiling_bytes_per_s]\nvalue = 1e8\nsource = "assumed"\n')
    said = {}
    for host in ("", "xeon_e5_2686v4", str(half)):
        assert explore(*GRID, *(("--host-model", host) if host else ())) == 0
        lines = capsys.readouterr().out.splitlines()
        said[host] = costs_of(next(line for line in lines if "own best" in line)), lines[-1]
    assert said[""][0] == said["xeon_e5_2686v4"][0] < said[str(half)][0]
    assert "tiling and untiling, for which neither board u250 nor host xeon_e5_2686v4 has a rate" in (
        said["xeon_e5_2686v4"][1])
    assert ", and untiling, for which neither board u250 nor host half has a rate" in said[str(half)][1]
    assert explore(*SMALL, "--host-model", "xeon_e5_2686v4") == 0
    assert "--host-model has no effect" in capsys.readouterr().out


def test_the_thesis_s_view_is_there_too(capsys: Capture) -> None:
    costs = []
    for words in ((), ("--padding", "once", "--products", "batched"), ("--padding", "none", "--products", "image")):
        assert explore(*GRID, *words) == 0
        costs.append(costs_of(next(line for line in capsys.readouterr().out.splitlines() if "own best" in line)))
    assert costs[0] == costs[1] != costs[2]


def test_one_point_is_one_design(capsys: Capture) -> None:
    assert explore("--grid", "tr=36,tc=36,tp=64") == 0
    out = capsys.readouterr().out
    assert "-0.0%" not in out
    assert "Designs: of 1 point nothing is excluded; 1 legal" in out
    assert "Each on its own best design (1 design)" in out
    assert "Best set found, of 1:" in out
    assert len(re.findall(r"^  36,36,64 ", out, re.MULTILINE)) == 1
    assert "tc=4:64:4 in it" not in out, "this grid is not of square tiles alone"


def test_layers_get_one_design_for_all_their_passes(capsys: Capture) -> None:
    assert explore(*GRID, "--per", "layer") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["conv1", "conv2"]


def test_the_forward_pass_alone(capsys: Capture) -> None:
    assert explore(*GRID, "--phase", "TEST") == 0
    out = capsys.readouterr().out
    assert Pass.FORWARD.value in out and Pass.GRAD_WEIGHT.value not in out


def test_fixed_point_takes_fewer_blocks(capsys: Capture) -> None:
    assert explore("--grid", "tr=60,tp=64", "--precision", "dfxp8", "--limits", "card") == 1
    assert "DSP (at most 12,288) excludes" not in capsys.readouterr().err
    error = refused(capsys, "--grid", "tr=60,tp=64")
    assert "DSP (at most 12,288) excludes 1" in error


def test_the_plot_shows_sets_of_every_size(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "designs.svg"
    assert explore(*GRID, "--max-bitstreams", "3", "--plot", str(path)) == 0
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(("words", "message"), [
    (("--grid", "tr=200:300:50"), "the grid has no legal point: of 768 points DSP (at most 12,288) excludes 768; "),
    (("--grid", "tq=1"), "there is no axis 'tq' for --kind gemm"),
    (("--board", "u520"), "board 'u520' is not known; did you mean"),
    (("--precision", "fp8"), "fp8"),
])
def test_what_cannot_be_explored(capsys: Capture, words: tuple[str, ...], message: str) -> None:
    assert message in refused(capsys, *words)


def test_a_net_without_convolutions(capsys: Capture, tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text('name: "flat" layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } } '
                     'layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" '
                     'inner_product_param { num_output: 4 } }')
    assert main(["explore", "--model", str(model), "--board", "u250"]) == 1
    assert "flat has no convolution to explore designs for" in capsys.readouterr().err


def test_a_board_without_blocks_is_no_board_for_conv(capsys: Capture, tmp_path: Path) -> None:
    text = load_board("u250").path.read_text()
    board = tmp_path / "bare.toml"
    board.write_text(re.sub(r"\[(bram18|uram|regions|region_\w+)\]\n(?:(?!\n\[)[\s\S])*", "", text))
    assert "bram18" in refused(capsys, *SMALL, "--board", str(board))
    assert "region" in refused(capsys, *GRID, "--board", str(board), "--limits", "region")
    assert explore(*GRID, "--board", str(board)) == 0


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.25", 0.25), ("0", 0.0), ("1", 1.0), ("150%", 1.5)])
def test_penalties_are_shares(text: str, value: float) -> None:
    parser = Parser("barista explore", "", "")
    add_arguments(parser)
    assert parser.read([*LENET, "--board", "u250", "--max-penalty", text]).max_penalty == pytest.approx(value)


@pytest.mark.parametrize(("words", "message"), [
    (("--max-penalty", "some"), "'some' is no share such as 10% or 0.1"),
    (("--max-penalty", "-1"), "-1"),
    (("--max-penalty", "5"), "5 as a share is 500 %; write 5% or 500%, whichever is meant"),
    (("--max-penalty", "1", "--max-bitstreams", "2"), "not allowed with"),
    (("--max-bitstreams", "0"), "0 is too small; give 1 or more"),
])
def test_choices_that_cannot_be_read(words: tuple[str, ...], message: str) -> None:
    parser = Parser("barista explore", "", "")
    add_arguments(parser)
    with pytest.raises(UsageError, match=re.escape(message)):
        parser.read([*LENET, "--board", "u250", *words])


def test_numbers_have_no_exponents() -> None:
    assert [number(value) for value in (0.0, 1.5e-7, 0.0123456, 12.3456, 999.94, 999.99, 1234.5, 1234567.8)] == [
        "0", "0.00000015", "0.01235", "12.35", "999.9", "1,000", "1,234", "1,234,568"]


def test_shares_above_are_never_minus_nothing() -> None:
    least = 0.1 + 0.2
    assert [above(cost, least) for cost in (0.3, least, 0.33, 0.6)] == ["+0.0%", "+0.0%", "+10.0%", "+100.0%"]


def test_one_has_no_plural() -> None:
    assert [counted(count, "design") for count in (0, 1, 1146)] == ["0 designs", "1 design", "1,146 designs"]
