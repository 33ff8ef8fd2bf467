"""LeNet trains on an OpenCL device as it does on the CPU, and its blobs stay there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lenet import lenet, train
from opencl_device import open_opencl
from tolerances import training_tolerance

from barista.blob import Space
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps
from barista.proto.caffe_pb2 import TRAIN
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
        np.testing.assert_allclose(ours, other, rtol=1e-3, atol=1e-5)


def spaces(solver: Solver) -> set[frozenset[Space]]:
    """Where the values and gradients between the layers, and the parameters, are current."""
    net = solver.net
    between = [net.blobs[name] for name in ("conv1", "pool1", "conv2", "pool2", "ip1", "ip2")]
    blobs = between + [item.blob for item in net.learnable]
    return {tensor.memory.spaces for blob in blobs for tensor in (blob.value, blob.grad)}


def test_blobs_stay_on_the_device(digits: Path) -> None:
    ops = open_opencl()
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
        assert ops.space.bytes_in - before[0] == steps * batch
        assert ops.space.bytes_out == before[1]
        assert spaces(solver) == {frozenset([ops.space])}
        solver.net.loss()
        assert ops.space.bytes_out - before[1] == 4  # one float32


def test_no_training_op_runs_on_the_host(digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    ops = open_opencl()
    with caplog.at_level("INFO", "barista.ops.hosted"), lenet(ops, digits) as solver:
        assert solver.net.phase == TRAIN
        hosted = {placement.op for placement in ops.placement if placement.where == "host"}
    assert hosted == {"accuracy"}  # of the test net
    assert [r.getMessage() for r in caplog.records if r.name == "barista.ops.hosted"] == [
        "accuracy runs on the host: the opencl op set has no kernel for it"]


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
