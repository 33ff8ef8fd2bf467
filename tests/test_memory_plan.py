"""Blobs that take turns on memory: what the plan says, and that nets compute the same bits with it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from little_nets import inputs, layer, make
from opencl_device import open_opencl

import barista
from barista import rng
from barista.blob import HOST
from barista.errors import NetError, SolverError
from barista.frontends.prototxt import parse_net, read_net
from barista.memory_plan import Part, Plan, Use, make_plan
from barista.net import Net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import TEST, TRAIN, NetParameter, SolverParameter
from barista.resources import find
from barista.solvers import Solver

CONV = "convolution_param {{ num_output: {} kernel_size: 3 pad: 1 weight_filler {{ type: 'xavier' }} }} {}"


def conv(bottom: str, top: str, outputs: int = 4, more: str = "") -> str:
    return layer("Convolution", bottom, top, CONV.format(outputs, more), top)


def ip(bottom: str, top: str, outputs: int = 3, more: str = "") -> str:
    return layer("InnerProduct", bottom, top, f"inner_product_param {{ num_output: {outputs} weight_filler "
                 f"{{ type: 'xavier' }} }} {more}", top)


def relu(name: str) -> str:
    return layer("ReLU", name, name, name=f"{name}_relu")


def pool(bottom: str, top: str, more: str = "pool: MAX") -> str:
    return layer("Pooling", bottom, top, f"pooling_param {{ kernel_size: 2 stride: 2 {more} }}", top)


def norm(name: str) -> str:
    return (layer("BatchNorm", name, name, name=f"{name}_norm")
            + layer("Scale", name, name, "scale_param { bias_term: true }", f"{name}_scale"))


DATA = inputs(x=(2, 3, 8, 8), t=(2,))
LOSS = layer("SoftmaxWithLoss", "f t", "loss", name="loss")
NETS = {
    "a chain": DATA + conv("x", "a") + relu("a") + pool("a", "b") + conv("b", "c", 6) + pool("c", "d", "pool: AVE")
    + ip("d", "e", 5) + relu("e") + ip("e", "f") + LOSS,
    "residual": DATA + conv("x", "a") + norm("a") + relu("a") + conv("a", "b") + norm("b") + relu("b") + conv("b", "c")
    + norm("c") + layer("Eltwise", "a c", "d", name="sum") + relu("d") + conv("d", "e") + relu("e")
    + layer("Eltwise", "d e", "g", "eltwise_param { operation: MAX }", "most") + ip("g", "f") + LOSS,
    "branches": DATA + conv("x", "a") + relu("a") + conv("a", "b", 2) + conv("a", "c", 3) + relu("c") + pool("a", "p")
    + layer("Concat", "b c", "d", name="join") + layer("LRN", "d", "e", name="lrn")
    + layer("Slice", "e", "g h", "slice_param { slice_point: 2 }", "cut") + pool("g", "i") + pool("h", "j")
    + layer("Concat", "i j p", "k", name="join2") + layer("Dropout", "k", "k", name="drop") + ip("k", "f") + LOSS,
    "views": DATA + conv("x", "a") + layer("Flatten", "a", "b", name="flat")
    + layer("Reshape", "b", "c", "reshape_param { shape { dim: 0 dim: 2 dim: -1 } }", "shape")
    + layer("TanH", "c", "d", name="tanh") + layer("Sigmoid", "d", "e", name="sigmoid")
    + layer("ELU", "e", "g", name="elu") + layer("PReLU", "g", "h", name="prelu") + ip("h", "i", 7)
    + layer("Softmax", "i", "j", name="soft") + layer("Dropout", "j", "k", name="drop") + ip("k", "f") + LOSS,
    "two losses": DATA + conv("x", "a") + pool("a", "b") + ip("b", "h") + ip("b", "f") + LOSS
    + layer("HingeLoss", "h t", "hinge", "loss_weight: 0.5", "hinge") + layer("Accuracy", "f t", "right", name="right")
    + layer("Silence", "h", "", name="silent"),
    "shared weights": DATA + conv("x", "z") + conv("z", "a", 4, "param { name: 'w' } param { name: 'b' }") + relu("a")
    + conv("a", "b", 4, "param { name: 'w' } param { name: 'b' }") + layer("Eltwise", "a b", "c", "eltwise_param { "
    "operation: PROD }", "times") + ip("c", "f") + LOSS,
    "norms apart": DATA + conv("x", "a") + layer("BatchNorm", "a", "b", name="norm")
    + layer("Scale", "b", "c", name="scale") + layer("PReLU", "c", "c", name="prelu") + conv("c", "d")
    + layer("BatchNorm", "d", "e", "batch_norm_param { use_global_stats: true eps: 1 }", "norm2")
    + layer("Scale", "e", "g", "param { lr_mult: 0 }", "scale2")
    + ip("g", "s", 4) + layer("Scale", "g s", "h", "scale_param { axis: 0 }", "scale3") + ip("h", "f") + LOSS,
    "some parts not learnt": DATA + conv("x", "a") + conv("a", "b", 4, "param { lr_mult: 0 } param { lr_mult: 0 }")
    + relu("b") + conv("b", "c") + layer("Bias", "c", "d", name="bias") + ip("d", "e", 4, "propagate_down: false")
    + ip("e", "f") + LOSS,
}


def shipped(name: str, batch: int, shape: tuple[int, ...]) -> NetParameter:
    """A network that ships, on a batch that the caller fills."""
    net = read_net(find("prototxt", name, "train_val.prototxt"))
    layers = [item for item in net.layer if item.type != "Data"]
    del net.layer[:]
    net.MergeFrom(parse_net(inputs(data=(batch, *shape), label=(batch,))))
    net.layer.extend(layers)
    return net


def train(definition: NetParameter, ops: OpSet, plan_memory: bool, iter_size: int = 1) -> tuple[Net, list[Any]]:
    """Three steps on other data each; the losses and all parameters."""
    rng.set_seed(1)
    param = SolverParameter(base_lr=0.05, momentum=0.9, lr_policy="fixed", iter_size=iter_size, max_iter=3)
    param.train_net_param.CopyFrom(definition)
    solver = Solver(param, ops=ops, plan_memory=plan_memory)
    net = solver.net
    gen = np.random.default_rng(0)
    seen: list[Any] = []
    for _ in range(3):
        for name in net.inputs:
            shape = net.blobs[name].shape
            net.blobs[name].data[...] = gen.integers(0, 3, shape) if len(shape) == 1 else gen.normal(0, 1, shape)
        solver.step(1)
        seen += [net.loss(), *(net.blobs[name].data.copy() for name in net.outputs)]
    return net, seen + [item.blob.data.copy() for item in net.learnable]


def assert_same(definition: NetParameter, ops: OpSet, iter_size: int = 1) -> None:
    _, expected = train(definition, ops, False, iter_size)
    net, planned = train(definition, ops, True, iter_size)
    assert net.memory_plan().saved_count > 0
    for mine, other in zip(planned, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert np.isfinite(planned[0])


@pytest.mark.parametrize("iter_size", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_the_same_bits_with_and_without(name: str, iter_size: int, cpu: CpuOps) -> None:
    assert_same(parse_net(NETS[name]), cpu, iter_size)


@pytest.mark.opencl
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["residual", "branches", "views", "norms apart"])
def test_the_same_bits_on_a_device(name: str, shared: bool) -> None:
    ops = open_opencl()
    ops.space.shares_host = shared and ops.space.shares_host
    assert_same(parse_net(NETS[name]), ops)


@pytest.mark.parametrize(("name", "batch", "shape"), [("lenet", 4, (1, 28, 28)), ("cifar10_full", 2, (3, 32, 32)),
                                                      ("resnet20_cifar10", 2, (3, 32, 32))])
def test_shipped_networks(name: str, batch: int, shape: tuple[int, ...], cpu: CpuOps) -> None:
    assert_same(shipped(name, batch, shape), cpu)


@pytest.mark.parametrize("name", NETS)
def test_forward_passes_of_a_test_net(name: str, cpu: CpuOps) -> None:
    outputs = []
    for plan_memory in (False, True):
        rng.set_seed(1)
        net = Net(parse_net(NETS[name]), TEST, ops=cpu, plan_memory=plan_memory)
        gen = np.random.default_rng(0)
        net.blobs["x"].data[...] = gen.normal(0, 1, (2, 3, 8, 8))
        net.blobs["t"].data[...] = [0, 2]
        outputs.append([value for _ in range(2) for value in net.forward().values()])
    for mine, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert net.memory_plan().saved_count > 0
    with pytest.raises(NetError, match="net '' plans its memory for the forward passes of a test"):
        net.backward_pass()


# ---- the plan itself --------------------------------------------------------------------------------------


def plan_of(text: str, phase: int = TRAIN, head: str = "") -> Plan:
    return make(text, CpuOps(), phase, head=head).memory_plan()


def names(plan: Plan) -> set[str]:
    return {f"{name}.{part.value}" for lives in plan.memories for life in lives for name, part in life.names}


@pytest.mark.parametrize("name", NETS)
def test_lives_on_one_memory_do_not_meet(name: str) -> None:
    plan = plan_of(NETS[name])
    for lives in plan.memories:
        for first, second in itertools.pairwise(lives):
            assert first.last < second.first
    assert plan.count == plan.count_apart - plan.saved_count
    listed = [name for lives in plan.memories for life in lives for name in life.names]
    assert len(set(listed)) == len(listed)


def test_a_plan_by_hand() -> None:
    """A chain of three layers without values in backward: data -> a -> b -> c (loss)."""
    steps = [Use([], ["data"], False, []), Use(["data"], ["a"], True, [False], True, False),
             Use(["a"], ["b"], True, [True], True, False), Use(["b"], ["c"], True, [True], False, False)]
    counts = {"data": 100, "a": 10, "b": 8, "c": 1}
    plan = make_plan(steps, counts, ["c"], backward=True)
    lives = {life.names[0]: (life.first, life.last) for lives in plan.memories for life in lives}
    # Layer i runs forward at i and backward at 7 - i.
    assert lives == {("a", Part.VALUE): (1, 5), ("b", Part.VALUE): (2, 3), ("b", Part.GRAD): (4, 5),
                     ("a", Part.GRAD): (5, 6)}
    assert (plan.count_apart, plan.count) == (10 + 8 + 8 + 10, 10 + 10 + 8)  # b's value and a's gradient take turns
    forward = make_plan(steps, counts, ["c"], backward=False)
    assert (forward.count_apart, forward.count) == (18, 18)  # b is made from a


def test_what_people_read_keeps_its_memory() -> None:
    planned = names(plan_of(NETS["two losses"]))
    for kept in ("x.value", "t.value", "loss.value", "loss.gradient", "hinge.value", "right.value"):
        assert kept not in planned
    assert {"a.value", "a.gradient", "b.value"} <= planned


def test_a_gradient_that_nobody_writes_keeps_its_zeros() -> None:
    """Of a split, the branch without a gradient counts as zeros in the sum."""
    text = DATA + conv("x", "a") + ip("a", "f") + LOSS + layer("Pooling", "a", "p", "pooling_param { kernel_size: 2 }",
                                                              "p") + layer("Silence", "p", "", name="silent")
    planned = names(plan_of(text))
    assert "a_a_0_split_0.gradient" in planned
    assert "a_a_0_split_1.gradient" not in planned


def test_blobs_that_took_turns_cannot_be_read(cpu: CpuOps) -> None:
    net, _ = train(parse_net(NETS["a chain"]), cpu, True)
    sharing = [name for lives in net.memory_plan().memories if len(lives) > 1 for life in lives for name in life.names]
    values = [name for name, part in sharing if part is Part.VALUE]
    gradients = [name for name, part in sharing if part is Part.GRAD]
    message = rf"the values of blob '{values[0]}' of shape .* are gone: its net plans its memory.*plan_memory=False"
    with pytest.raises(NetError, match=message):
        _ = net.blobs[values[0]].data
    with pytest.raises(NetError, match=f"the gradients of blob {gradients[0]!r} of shape"):
        _ = net.blobs[gradients[0]].diff
    with pytest.raises(NetError, match="are gone"):
        net.forward(blobs=values)
    assert net.blobs["x"].data.any() and net.params["a"][0].diff.any()


def test_a_larger_batch_leaves_the_plan(cpu: CpuOps) -> None:
    net = Net(parse_net(NETS["branches"]), TEST, ops=cpu, plan_memory=True)
    net.blobs["x"].reshape(5, 3, 8, 8)
    net.blobs["t"].reshape(5)
    other = Net(parse_net(NETS["branches"]), TEST, ops=cpu)
    for mine, theirs in zip(net.learnable, other.learnable, strict=True):
        theirs.blob.data[...] = mine.blob.data
    x = np.random.default_rng(0).normal(0, 1, (5, 3, 8, 8))
    results = []
    for subject in (net, other):
        subject.blobs["x"].reshape(5, 3, 8, 8)
        subject.blobs["t"].reshape(5)
        results.append(subject.forward(x=x, t=np.zeros(5))["loss"].copy())
    assert results[0] == results[1]


def test_debug_info_reads_all_blobs(cpu: CpuOps) -> None:
    param = SolverParameter(base_lr=0.1, lr_policy="fixed", debug_info=True, display=1)
    param.train_net_param.CopyFrom(parse_net(NETS["a chain"]))
    solver = Solver(param, ops=cpu, plan_memory=True)
    solver.step(1)
    assert not solver.net.plans_memory


def test_divergence_is_still_found(cpu: CpuOps) -> None:
    param = SolverParameter(base_lr=0.1, lr_policy="fixed")
    param.train_net_param.CopyFrom(parse_net(NETS["a chain"]))
    solver = Solver(param, ops=cpu, plan_memory=True)
    solver.net.params["c"][0].value.update(HOST)[0, 0, 0, 0] = np.nan
    with pytest.raises(SolverError, match=r"parameter c\[0\]"):
        solver.step(1)
    solver.net.params["c"][0].value.update(HOST)[0, 0, 0, 0] = 0
    solver.net.blobs["x"].data[...] = np.inf
    with pytest.raises(SolverError, match="of blob 'x'"):
        solver.step(1)


def test_barista_makes_no_plan_by_itself(cpu: CpuOps) -> None:
    net = Net(parse_net(NETS["a chain"]), barista.TRAIN, ops=cpu)
    assert not net.plans_memory
    net.forward_pass()
    assert net.blobs["a"].data.shape == (2, 4, 8, 8)
