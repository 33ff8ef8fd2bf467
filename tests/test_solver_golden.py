"""Every solver and every learning rate policy against weights that Caffe computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from barista.frontends.prototxt import parse_net, parse_solver
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import SolverParameter
from barista.solvers import Solver

FOLDER = Path(__file__).parent / "golden" / "solvers"
CASES = sorted(path.stem for path in FOLDER.glob("solver_*.npz"))

STEPS = 8

# A bias before BatchNorm whose channel lies wholly above ReLU's bend has a gradient of exactly 0; what is
# computed is rounding, below this. Adam divides a gradient by its own magnitude and makes a step of it.
ROUNDING = 1e-7


def close(actual: npt.NDArray[Any], expected: npt.NDArray[Any], what: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(initial=1e-30),
                               err_msg=what)


def golden_solver(case: Any, **fields: Any) -> Solver:
    """The solver of a case, with the case's first weights."""
    param = SolverParameter()
    param.CopyFrom(parse_solver(str(case["solver"])))
    param.net_param.CopyFrom(parse_net(str(case["net"])))
    param.max_iter = STEPS
    solver = Solver(param, ops=CpuOps(), **fields)
    for key in case.files:
        if key.startswith("init:"):
            _, layer, index = key.split(":")
            solver.net.params[layer][int(index)].data[...] = case[key]
    return solver


def train(solver: Solver, case: Any, step: int) -> None:
    """One step on the case's batch."""
    solver.net.blobs["x"].data[...] = case[f"x:{step}"]
    solver.net.blobs["l"].data[...] = case[f"l:{step}"]
    solver.step(1)
    if solver.param.type == "Adam" and step == 0:
        solver.net.params["conv"][1].data[0] = case["after0:conv:1"][0]  # see ROUNDING


def test_all_cases_are_here() -> None:
    assert len(CASES) == 16


@pytest.mark.parametrize("name", CASES)
def test_weights_after_each_step(name: str) -> None:
    case = np.load(FOLDER / f"{name}.npz")
    solver = golden_solver(case, display=1)
    losses: list[float | None] = []
    solver.progress = lambda iteration, loss: losses.append(loss)
    rounding: list[npt.NDArray[Any]] = []
    bias = solver.net.params["conv"][1]
    solver.add_callback(lambda: None, lambda: rounding.append(np.abs(bias.diff) < ROUNDING))
    for step in range(STEPS):
        train(solver, case, step)
        for key in case.files:
            if key.startswith(f"after{step}:"):
                _, layer, index = key.split(":")
                close(solver.net.params[layer][int(index)].data, case[key], key)
    close(np.array(losses), case["loss"], "loss")
    assert solver.iter == STEPS
    if name == "solver_adam":
        assert rounding[0].tolist() == [True, False, False]


@pytest.mark.parametrize("name", ["adam", "sgd_fixed"])
def test_caffes_own_state_is_that_of_the_run(name: str) -> None:
    """A state of Caffe gives its weights, and the history that our own run has arrived at."""
    case = np.load(FOLDER / f"solver_{name}.npz")
    own = golden_solver(case)
    for step in range(STEPS):
        train(own, case, step)
    for ending in (".solverstate", ".solverstate.h5"):
        path = FOLDER / f"{name}_iter_8{ending}"
        if not path.exists():
            continue
        resumed = golden_solver(case)
        resumed.restore(path)
        assert resumed.iter == STEPS
        for key in case.files:
            if key.startswith("after7:"):
                _, layer, index = key.split(":")
                np.testing.assert_array_equal(resumed.net.params[layer][int(index)].data, case[key])
        for mine, theirs, parameter in zip(own.history, resumed.history, own.history_names, strict=True):
            close(mine, theirs, f"history of {parameter}")


@pytest.mark.parametrize("name", ["adam", "nesterov", "adadelta", "rmsprop"])
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_run_cut_in_two_ends_as_a_whole_one(name: str, form: str, tmp_path: Path) -> None:
    case = np.load(FOLDER / f"solver_{name}.npz")
    whole = golden_solver(case)
    first = golden_solver(case, snapshot_prefix=str(tmp_path / "cut"), snapshot_format=form)
    for step in range(5):
        train(first, case, step)
    path = first.snapshot()
    second = golden_solver(case)
    second.restore(path)
    for step in range(STEPS):
        train(whole, case, step)
        if step >= 5:
            train(second, case, step)
    for layer, blobs in whole.net.params.items():
        for one, other in zip(blobs, second.net.params[layer], strict=True):
            np.testing.assert_array_equal(one.data, other.data)
