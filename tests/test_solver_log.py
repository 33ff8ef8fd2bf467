"""The solver's log lines against a log that Caffe wrote."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from barista.ops.cpu import CpuOps
from barista.solvers import Solver
from barista.solvers.report import OutputMeans

NET = """
name: "LogNet"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 } data_param { source: "mnist_lmdb" batch_size: 5 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 } data_param { source: "mnist_lmdb" batch_size: 3 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "log_net.prototxt" test_iter: 3 test_interval: 10 base_lr: 0.01 display: 5 max_iter: 20
lr_policy: "inv" gamma: 0.0001 power: 0.75 momentum: 0.9 weight_decay: 0.0005
snapshot: 10 snapshot_prefix: "lognet" solver_mode: CPU random_seed: 7 train_state { level: 0 stage: "" }
"""


def masked(lines: list[str]) -> list[str]:
    """Lines without the numbers that depend on chance and time; learning rates stay."""
    result = []
    for line in lines:
        line = re.sub(r"\([0-9.e+-]+ iter/s, [0-9.e-]+s/", "(R iter/s, Ts/", line)
        if "lr =" not in line:
            line = re.sub(r"= [0-9.e-]+", "= N", line)
        result.append(line)
    return result


def test_the_log_of_a_training_is_caffes(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log_net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "mnist_lmdb").symlink_to(golden / "data" / "mnist_lmdb")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "barista")
    with Solver("solver.prototxt", ops=CpuOps()) as solver:
        solver.solve()
    ours: list[str] = []
    for record in caplog.records:
        if record.name.startswith(("barista.solvers", "barista.net")):
            ours += f"{record.origin}] {record.getMessage()}".splitlines()
    # The kept log is without the lines of net.cpp; the text of the net, which follows one, is there.
    ours = [line for line in ours if not line.startswith("net.cpp")]
    theirs = [re.sub(r"^I\d+ [\d:.]+ \d+ ", "", line)
              for line in (golden / "logs" / "train.log").read_text().splitlines()]
    theirs = [line for line in theirs if not re.match(r"(caffe|db_lmdb|data_layer)\.cpp", line)]
    assert masked(ours) == masked(theirs)
    assert {p.name for p in tmp_path.glob("lognet*")} == {
        f"lognet_iter_{i}.{kind}" for i in (10, 20)
        for kind in ("caffemodel", "solverstate", "solverstate.resume.json")}


def test_an_output_that_changes_its_size_has_no_mean(caplog: pytest.LogCaptureFixture) -> None:
    outputs = OutputMeans()
    with caplog.at_level(logging.INFO, "barista.solvers.report"):
        for count in (14, 7, 14):
            outputs.add({"loss": np.array([float(count)]), "found": np.ones(count)})
    assert list(outputs.means()) == ["loss"] and outputs.means()["loss"] == pytest.approx(35 / 3)
    assert [record.getMessage() for record in caplog.records] == [
        "Test net output found has no mean: 14 numbers, and 7 in batch 2"]
