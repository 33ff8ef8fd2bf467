"""OpenCL losses and accuracy against the host op set in float64, and what they do with odd inputs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from little_nets import inputs, layer
from opencl_device import empty, host, numbers, open_opencl, tensor
from small_nets import ip

from barista.errors import SolverError
from barista.frontends.prototxt import parse_net
from barista.ops.base import AxisGeometry, Loss, LossRule, OpSet
from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps
from barista.proto.caffe_pb2 import SolverParameter
from barista.solvers import Solver

pytestmark = pytest.mark.opencl

RULES = [LossRule(normalization, ignore) for normalization in ("FULL", "VALID", "BATCH_SIZE", "NONE")
         for ignore in (None, 1)]
# Below, at and above what one work-item takes.
COUNTS = [1, 15, 64, 1001, 16384, 50_000]


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


@pytest.fixture(scope="module")
def reference() -> CpuOps:
    return CpuOps(np.float64)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def close(actual: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], tolerance: float = 3e-6) -> None:
    scale = max(float(np.abs(expected).max(initial=0)), 1e-30)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


def both_passes(loss: Loss, x: npt.ArrayLike, target: npt.ArrayLike,
                dtype: npt.DTypeLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The loss and its gradient with weight 0.5."""
    scores = tensor(x, dtype)
    result, dx = empty(dtype=dtype), empty(*scores.shape, dtype=dtype)
    loss.forward(scores, tensor(target, dtype), result)
    assert result.memory.spaces == {loss.space}
    loss.backward(scores, tensor(target, dtype), tensor(0.5, dtype), dx)
    return host(result), host(dx)


def compare(ops: OpSet, reference: OpSet, make: str, arguments: tuple[object, ...], x: npt.ArrayLike,
            target: npt.ArrayLike) -> None:
    actual = both_passes(getattr(ops, make)(*arguments), x, target, np.float32)
    expected = both_passes(getattr(reference, make)(*arguments), x, target, np.float64)
    for a, e in zip(actual, expected, strict=True):
        close(a, e)


@pytest.mark.parametrize("count", COUNTS)
def test_euclidean_loss(ops: OpenCLOps, reference: CpuOps, rng: np.random.Generator, count: int) -> None:
    compare(ops, reference, "euclidean_loss", (count, 3), numbers(rng, count), numbers(rng, count))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("count", COUNTS)
def test_sigmoid_cross_entropy_loss(ops: OpenCLOps, reference: CpuOps, rng: np.random.Generator, count: int,
                                    rule: LossRule) -> None:
    x = 8 * numbers(rng, count)
    x[:1] = 200
    target = rng.integers(0, 2, count) if rule.ignore_label == 1 else rng.random(count).astype(np.float32)
    compare(ops, reference, "sigmoid_cross_entropy_loss", (count, 7, rule), x, target)


def test_sigmoid_cross_entropy_loss_of_sure_predictions_is_exact(ops: OpenCLOps) -> None:
    """log(1 + exp(-30)) is 1e-13, which 1 + exp(-30) does not hold."""
    loss, _ = both_passes(ops.sigmoid_cross_entropy_loss(2, 1, LossRule()), [30, -30], [1, 0], np.float32)
    np.testing.assert_allclose(loss, math.log1p(math.exp(-30)), rtol=1e-5)


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 10), (3, 17), (100, 1000)])
def test_hinge_loss(ops: OpenCLOps, reference: CpuOps, rng: np.random.Generator, shape: tuple[int, int],
                    norm: str) -> None:
    x, labels = 2 * numbers(rng, *shape), rng.integers(0, shape[1], shape[0])
    x[0, 0] = 1 if labels[0] == 0 else -1  # on the margin
    found = []
    for op_set in (ops, reference):
        loss = op_set.hinge_loss(AxisGeometry(*shape, 1), norm)
        target, margins, result = tensor(labels, op_set.dtype), empty(*shape, dtype=op_set.dtype), \
            empty(dtype=op_set.dtype)
        loss.forward(tensor(x, op_set.dtype), target, margins, result)
        kept = host(margins).copy()
        loss.backward(target, tensor(0.5, op_set.dtype), margins)
        found.append((host(result), kept, host(margins)))
    for actual, expected in zip(*found, strict=True):
        close(actual, expected)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (70, 10, 1), (2, 3, 70), (3000, 4, 1), (1, 2, 3000), (3, 1001, 1)])
def test_softmax_loss(ops: OpenCLOps, reference: CpuOps, rng: np.random.Generator, shape: tuple[int, int, int],
                      rule: LossRule) -> None:
    p = rng.random(shape).astype(np.float32)
    labels = rng.integers(0, shape[1], (shape[0], shape[2]))
    compare(ops, reference, "softmax_loss", (AxisGeometry(*shape), rule), p, labels)


def test_losses_of_nan_are_nan(ops: OpenCLOps) -> None:
    x, rule = [[0.25, math.nan, 0.5]], LossRule()
    targets: dict[Loss, list[int]] = {ops.euclidean_loss(3, 1): [0, 0, 0],
                                      ops.sigmoid_cross_entropy_loss(3, 1, rule): [0, 0, 0],
                                      ops.softmax_loss(AxisGeometry(1, 3, 1), rule): [1]}
    for loss, target in targets.items():
        value, dx = both_passes(loss, x, target, np.float32)
        assert math.isnan(float(value))
        np.testing.assert_array_equal(np.isnan(dx), [[False, True, False]])
    result, margins = empty(), empty(1, 3)
    ops.hinge_loss(AxisGeometry(1, 3, 1), "L1").forward(tensor(x), tensor([0]), margins, result)
    assert math.isnan(float(host(result)))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_gives_nan(ops: OpenCLOps, label: int) -> None:
    result, labels, geometry = empty(), tensor([0, label]), AxisGeometry(2, 3, 1)
    ops.hinge_loss(geometry, "L2").forward(tensor(np.ones((2, 3))), labels, empty(2, 3), result)
    assert math.isnan(float(host(result)))
    result = empty()
    ops.accuracy(geometry, 1, None).forward(tensor(np.ones((2, 3))), labels, result, None)
    assert math.isnan(float(host(result)))


@pytest.mark.parametrize("plan_memory", [False, True])
@pytest.mark.parametrize("tested", [False, True])
def test_training_says_that_a_label_is_no_class(ops: OpenCLOps, plan_memory: bool, tested: bool) -> None:
    """Not that the learning rate is too high."""
    score = layer("Accuracy", "h t", "a", name="score") if tested else ""
    text = (inputs(x=(4, 5), t=(4,)) + ip("x", "h") + score
            + layer("SoftmaxWithLoss", "h t", "loss", "loss_param { ignore_label: 4 }", name="loss"))
    fields = {"test_iter": [1], "test_interval": 5} if tested else {}
    param = SolverParameter(net_param=parse_net(text), base_lr=0.1, lr_policy="fixed", display=1, max_iter=2,
                            snapshot_after_train=False, **fields)
    with Solver(param, ops=ops, plan_memory=plan_memory) as solver:
        for net in (solver.net, *solver.test_nets):
            net.blobs["t"].data[...] = [0, 3, 4, -1]
        where = "the loss of test net #0" if tested else "the loss"
        who = r"score \(Accuracy\), and 3" if tested else r"loss \(SoftmaxWithLoss\), and 2"
        message = (rf"^training stopped: at iteration 0 {where} is nan, since label 3 of blob 't' is none of the 3 "
                   rf"classes 0 to 2 of {who} of the 4 labels of the batch are none; check")
        with pytest.raises(SolverError, match=message):
            solver.solve()
        for net in (solver.net, *solver.test_nets):
            net.blobs["t"].data[...] = 1
            net.blobs["x"].data[...] = np.nan
        with pytest.raises(SolverError, match=r"^training diverged: at iteration 0 .*of blob 'x'.* Lower base_lr"):
            solver.solve()


def test_losses_of_nothing(ops: OpenCLOps) -> None:
    for loss in (ops.euclidean_loss(0, 1), ops.sigmoid_cross_entropy_loss(0, 1, LossRule())):
        value, _ = both_passes(loss, [], [], np.float32)
        assert value == 0


def test_sums_of_losses_repeat_to_the_bit(ops: OpenCLOps, rng: np.random.Generator) -> None:
    x, t = rng.normal(size=300_000), rng.normal(size=300_000)
    values = {float(both_passes(ops.euclidean_loss(300_000, 3), x, t, np.float32)[0]) for _ in range(3)}
    assert len(values) == 1


@pytest.mark.parametrize("ignore", [None, 2])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("shape", [(1, 2, 1), (50, 10, 1), (2, 5, 70), (3, 4, 7), (2, 1001, 1)])
def test_accuracy(ops: OpenCLOps, reference: CpuOps, rng: np.random.Generator, shape: tuple[int, int, int],
                  top_k: int, ignore: int | None) -> None:
    scores = np.round(numbers(rng, *shape))  # with ties
    labels = rng.integers(0, shape[1], (shape[0], shape[2]))
    found = []
    for op_set in (ops, reference):
        accuracy, per_class = empty(dtype=op_set.dtype), empty(shape[1], dtype=op_set.dtype)
        op_set.accuracy(AxisGeometry(*shape), top_k, ignore).forward(
            tensor(scores, op_set.dtype), tensor(labels, op_set.dtype), accuracy, per_class)
        found.append((host(accuracy), host(per_class)))
    for actual, expected in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("ignore", [1, 255])
def test_accuracy_of_ignored_labels_alone_is_zero(ops: OpenCLOps, ignore: int) -> None:
    accuracy, per_class = empty(), empty(3)
    ops.accuracy(AxisGeometry(2, 3, 1), 1, ignore).forward(tensor(np.ones((2, 3))), tensor([ignore, ignore]), accuracy,
                                                           per_class)
    assert host(accuracy) == 0
    np.testing.assert_array_equal(host(per_class), [0, 0, 0])


def test_float64(reference: CpuOps, rng: np.random.Generator) -> None:
    ops = open_opencl(np.float64)
    x, t = 3 * rng.normal(size=(20, 50)), rng.random((20, 50))
    labels = rng.integers(0, 50, 20)
    rule, rows = LossRule(), AxisGeometry(20, 50, 1)
    for make, arguments, target in (("euclidean_loss", (1000, 20), t),
                                    ("sigmoid_cross_entropy_loss", (1000, 20, rule), t),
                                    ("softmax_loss", (rows, rule), labels)):
        source = t if make == "softmax_loss" else x
        actual, expected = (both_passes(getattr(op_set, make)(*arguments), source, target, np.float64)
                            for op_set in (ops, reference))
        for a, e in zip(actual, expected, strict=True):
            close(a, e, 1e-13)
