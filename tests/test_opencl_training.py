"""LeNet trains on an OpenCL device as it does on the CPU, and its blobs stay there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lenet import lenet, train
from opencl_device import open_opencl
from tolerances import TRAINED_WEIGHTS, training_tolerance

from barista.blob import Space
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps
from barista.proto.caffe_pb2 import TRAIN
from barista.runtime.context import Context
from barista.runtime.space import OpenCLSpace
from barista.solvers import Solver

pytestmark = pytest.mark.opencl

def test_cpu_and_opencl_agree(digits: Path) -> None:
    expected, cpu_scores, cpu_weights = train(CpuOps(), digits)
    losses, scores, weights = train(open_opencl(), digits)
    assert expected[-1] < 0.7 * expected[0]
    for step, (loss, other) in enumerate(zip(losses, expected, strict=True)):
        assert loss == pytest.approx(other, rel=training_tolerance(step)), f"step {step}"
    assert scores["loss"] == pytest.approx(cpu_scores["loss"], rel=1e-3)
    assert scores["accuracy"] == pytest.approx(cpu_scores["accuracy"], abs=1 / 360 + 1e-6)
    for ours, other in zip(weights, cpu_weights, strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=TRAINED_WEIGHTS * np.abs(other).max())


def spaces(solver: Solver) -> set[frozenset[Space]]:
    """Where the values and gradients between the layers, and the parameters, are current."""
    net = solver.net
    between = [net.blobs[name] for name in ("conv1", "pool1", "conv2", "pool2", "ip1", "ip2")]
    blobs = between + [item.blob for item in net.learnable]
    return {tensor.memory.spaces for blob in blobs for tensor in (blob.value, blob.grad)}


@pytest.mark.parametrize("shared", [False, True])
def test_blobs_stay_on_the_device(digits: Path, shared: bool) -> None:
    ops = open_opencl()
    if shared and not ops.space.shares_host:
        pytest.skip("the device has memory of its own")
    ops.space.shares_host = shared
    with lenet(ops, digits) as solver:
        solver.step(2)
        batch = solver.net.blobs["data"].value.memory.nbytes + solver.net.blobs["label"].value.memory.nbytes
        before = ops.space.bytes_in, ops.space.bytes_out
        steps = 3
        solver.net.clear_param_diffs()
        for _ in range(steps):
            solver.net.forward_pass()
            solver.net.backward_pass()
            solver.apply_update()
        assert ops.space.bytes_in - before[0] == (0 if shared else steps * batch)
        assert ops.space.bytes_out == before[1]
        assert spaces(solver) == {frozenset([ops.space])}
        solver.net.loss()
        assert ops.space.bytes_out - before[1] == (0 if shared else 4)  # one float32


def _noted(method: Any, names: list[str]) -> Any:
    """`method`, whose name goes into `names` at each call."""
    def noted(*args: Any) -> Any:
        names.append(method.__name__)
        return method(*args)
    return noted


@pytest.mark.parametrize("shared", [False, True])
def test_the_host_does_not_wait_in_a_step(digits: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Without a loss to be shown, nothing in training reads back, copies at once or waits for the queue."""
    ops = open_opencl()
    if shared and not ops.space.shares_host:
        pytest.skip("the device has memory of its own")
    ops.space.shares_host = shared
    waits: list[str] = []
    with lenet(ops, digits) as solver:
        solver.param.ClearField("display")
        solver.param.ClearField("test_interval")
        solver.step(2)
        for owner, name in ((Context, "finish"), (OpenCLSpace, "upload"), (OpenCLSpace, "download")):
            monkeypatch.setattr(owner, name, _noted(getattr(owner, name), waits))
        solver.step(6)  # the loss of the last of them is read
        assert waits == (["finish"] if shared else ["download"])
        solver.net.loss()
        assert len(waits) == 1


def test_no_training_op_runs_on_the_host(digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    ops = open_opencl()
    with caplog.at_level("INFO", "barista.ops.hosted"), lenet(ops, digits) as solver:
        assert solver.net.phase == TRAIN
        hosted = {placement.op for placement in ops.placement if placement.where == "host"}
    assert not hosted
    assert not [r for r in caplog.records if r.name == "barista.ops.hosted"]


def test_a_net_moves_from_op_set_to_op_set_through_its_weights(digits: Path) -> None:
    ops: OpenCLOps = open_opencl()
    with lenet(ops, digits) as trained, lenet(CpuOps(), digits) as other:
        trained.step(3)
        other.net.copy_trained_layers(trained.net.to_proto(), "the trained net")
        data = trained.net.blobs["data"].data.copy()
        outputs = []
        for net in (trained.net, other.net):
            net.blobs["data"].data[...] = data
            net.forward_pass(start=1)
            outputs.append(net.blobs["ip2"].data.copy())
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
