"""What the OpenCL op set has no kernel for runs on the host, and says so."""

from __future__ import annotations

import gc
import logging

import numpy as np
import pytest
from opencl_device import empty, host, open_opencl, tensor

from barista.blob import HOST
from barista.gemm.shapes import ConvolutionGeometry, GemmShape
from barista.ops.base import (
    AxisGeometry,
    DetectionRule,
    LookupGeometry,
    LossRule,
    OpSet,
    PoolingGeometry,
    Primitive,
    StridedGeometry,
    Taps,
    WindowGeometry,
)
from barista.ops.cpu import CpuOps
from barista.ops.hosted import HostedOps
from barista.ops.opencl import OpenCLOps

AXIS = AxisGeometry(2, 3, 4)
POOL = PoolingGeometry(1, 1, (2, 2), (2, 2), (1, 1), (0, 0), (1, 1))

# What makes each primitive that runs on the host where a device's op set leaves it out.
HOSTED = {
    "lrn_across": lambda ops: ops.lrn_across((1, 3, 2, 2), 3, 1.0, 0.75, 1.0),
    "lrn_within": lambda ops: ops.lrn_within((1, 3, 2, 2), 3, 1.0, 0.75),
    "euclidean_loss": lambda ops: ops.euclidean_loss(12, 2),
    "sigmoid_cross_entropy_loss": lambda ops: ops.sigmoid_cross_entropy_loss(12, 2, LossRule()),
    "hinge_loss": lambda ops: ops.hinge_loss(AxisGeometry(2, 3, 1), "L1"),
    "accuracy": lambda ops: ops.accuracy(AXIS, 1, None),
    "rearrange": lambda ops: ops.rearrange(StridedGeometry((3, 2), (1, 3), 0, 6)),
    "gather": lambda ops: ops.gather(3, 2, 4),
}


@pytest.fixture
def ops() -> OpenCLOps:
    return open_opencl()


class AllHosted(HostedOps):
    """A device that can do nothing."""

    name = "none"

    def __init__(self, below: OpSet) -> None:
        super().__init__(below)
        self.space = HOST

    def describe(self) -> str:
        return "no device"


def test_every_op_of_the_contract_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    made = {**HOSTED,
            "elementwise": lambda o: o.elementwise("y = x", ("x", "y"), 3),
            "elementwise_group": lambda o: o.elementwise_group("y = x", ("x", "y"), [3, 5]),
            "gemm": lambda o: o.gemm(GemmShape(1, 1, 1), False, False),
            "broadcast": lambda o: o.broadcast(AXIS),
            "batch_norm": lambda o: o.batch_norm(AXIS, 1e-5),
            "prelu": lambda o: o.prelu(AXIS),
            "max_pooling": lambda o: o.max_pooling(POOL),
            "average_pooling": lambda o: o.average_pooling(POOL),
            "stochastic_pooling": lambda o: o.stochastic_pooling(POOL),
            "dropout": lambda o: o.dropout(3, 0.5),
            "softmax": lambda o: o.softmax(AXIS),
            "softmax_loss": lambda o: o.softmax_loss(AXIS, LossRule()),
            "combine": lambda o: o.combine("SUM", [1, 1], 3),
            "infogain_loss": lambda o: o.infogain_loss(AXIS, LossRule()),
            "multinomial_loss": lambda o: o.multinomial_loss(AxisGeometry(2, 3, 1)),
            "unit_length": lambda o: o.unit_length(AXIS, 1e-10),
            "unfold": lambda o: o.unfold(ConvolutionGeometry(1, 1, 1, (3,), (2,), (1,), (0,), (1,))),
            "arg_max": lambda o: o.arg_max(AXIS, 1),
            "interpolation": lambda o: o.interpolation(2, Taps.linear(3, 0, 3, 5), Taps.linear(2, 0, 2, 1)),
            "detection_output": lambda o: o.detection_output(1, 2, DetectionRule(
                2, 0, True, "CORNER", False, None, 0.5, 1.0, None, None)),
            "lookup": lambda o: o.lookup(LookupGeometry((2, 3), ((1,), (0, -1, 2)))),
            "fold": lambda o: o.fold(AXIS, "MAX"),
            "matmul": lambda o: o.matmul((2, 3), (5, 3, 4), False, False),
            "window_pooling": lambda o: o.window_pooling(WindowGeometry(1, (3,), (2,), (1,), (1,), (0,), (0,), (2,)),
                                                         True),
            "join": lambda o: o.join(1, [1, 2], 3)}
    op_set = AllHosted(CpuOps())
    with caplog.at_level(logging.INFO, "barista.ops.hosted"):
        kept = [make(op_set) for make in made.values()]
        assert op_set.sum_squares([tensor([3, -4])]) == 25
        assert op_set.sum_absolute([tensor([3, -4])]) == 7
    assert all(isinstance(primitive, Primitive) for primitive in kept)
    assert [p.op for p in op_set.placement] == list(made)
    said = {record.getMessage().split(" ")[0] for record in caplog.records}
    assert said == {*made, "sum_squares", "sum_absolute"}
    contract = {name for name in OpSet.__abstractmethods__ if name not in ("describe", "finish")}
    assert contract == said | {"convolution"}


@pytest.mark.opencl
@pytest.mark.parametrize("op", HOSTED)
def test_ops_have_kernels(ops: OpenCLOps, caplog: pytest.LogCaptureFixture, op: str) -> None:
    with caplog.at_level(logging.INFO, "barista.ops.hosted"):
        first, second = HOSTED[op](ops), HOSTED[op](ops)
    assert first.space is ops.space
    assert not caplog.records
    assert [(p.op, p.where) for p in ops.placement] == [(op, ops.space.name)] * 2
    assert first is not second


@pytest.mark.opencl
def test_blobs_move_to_the_host_and_back_by_themselves(ops: OpenCLOps) -> None:
    x = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    scores, result, labels = tensor(x), empty(), tensor([1, 2])
    doubled = empty(2, 3)
    ops.elementwise("y = 2 * x", ("x", "y"), 6).run({"x": scores, "y": doubled})
    assert doubled.memory.spaces == {ops.space}
    before = ops.space.bytes_out
    ops.host.accuracy(AxisGeometry(2, 3, 1), 1, None).forward(doubled, labels, result, None)
    assert ops.space.bytes_out - before == (0 if ops.space.shares_host else 2 * 3 * 4)
    assert host(result) == 0.5
    assert doubled.memory.spaces == {ops.space, HOST}


@pytest.mark.opencl
def test_the_report_is_a_table_of_what_is_in_use(ops: OpenCLOps) -> None:
    gemm = ops.gemm(GemmShape(5, 20, 7), False, True)
    accuracy = HostedOps.accuracy(ops, AxisGeometry(2, 3, 1), 1, None)
    lines = ops.placement_report().splitlines()
    assert lines[0].split() == ["op", "shape", "where", "variant", "workspace", "bytes", "scratch", "bytes"]
    assert lines[1].startswith("gemm      M=5 N=20 K=7  OpenCL device ")
    assert lines[1].split()[-2:] == [str(gemm.workspace_bytes), str(gemm.scratch_bytes)]
    assert lines[2].split() == ["accuracy", "(2,", "3,", "1)", "host", "-", "0", "0"]
    assert len({len(line) for line in lines}) == 1
    assert len({line.index(word) for line, word in zip(lines, ("where", "OpenCL", "host"), strict=True)}) == 1
    del gemm
    gc.collect()
    assert [p.op for p in ops.placement] == ["accuracy"]
    assert accuracy.space is HOST
