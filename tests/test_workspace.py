"""What memory op sets say that their primitives take: what each holds, and what they use in turn."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from little_nets import inputs, layer, make
from opencl_device import empty, numbers, open_opencl, tensor

from barista.compose import make_ops
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.ops.base import AxisGeometry, OpSet, Owner, Pooling, PoolingGeometry
from barista.ops.cpu import CpuOps
from barista.ops.verify import VerifiedOps

POOL = PoolingGeometry(2, 3, (8, 8), (2, 2), (2, 2), (0, 0), (4, 4))
TAPS = 2 * 3 * 4 * 4  # a byte each
CONV = ConvolutionGeometry(2, 8, 16, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), 1)


def pooled(ops: OpSet, layer: str) -> Pooling:
    ops.owner = Owner("net", 0, layer, Pass.FORWARD)
    return ops.max_pooling(POOL)


def test_primitives_count_while_they_are_in_use() -> None:
    ops = CpuOps()
    one, other, third = pooled(ops, "a"), pooled(ops, "a"), pooled(ops, "b")
    workspace = ops.workspace()
    assert workspace.held == {Owner("net", 0, "a"): 2 * TAPS, Owner("net", 0, "b"): TAPS}
    assert (workspace.shared, workspace.total) == (0, 3 * TAPS)
    assert one is not third
    del other
    gc.collect()
    assert ops.workspace().total == 2 * TAPS


@pytest.mark.opencl
def test_on_a_device_the_largest_scratch_counts_and_the_sum_of_what_is_held() -> None:
    ops = open_opencl()
    before = ops.workspace().shared
    kept = [pooled(ops, "a"), pooled(ops, "b")]
    large, small = (ops.gemm(GemmShape(m, 300, 200), True, True) for m in (400, 100))
    assert large.scratch_bytes > small.scratch_bytes > 0 == large.workspace_bytes
    workspace = ops.workspace()
    assert workspace.shared - before == large.scratch_bytes
    assert [workspace.held[Owner("net", 0, name)] for name in "ab"] == [kept[0].workspace_bytes] * 2 == [TAPS] * 2


@pytest.mark.opencl
def test_what_an_op_set_hands_on_counts_once() -> None:
    device = open_opencl()
    ops = VerifiedOps(device, device.host)
    ops.owner = Owner("net", 0, "a")
    wide = PoolingGeometry(1, 1, (1, 20000), (1, 2), (1, 2), (0, 0), (1, 10000))
    kept = [ops.max_pooling(POOL), ops.max_pooling(wide), ops.convolution(CONV)]
    assert "host" in device.placement_report()
    on_host = device.host.workspace().held[Owner("net", 0, "a")]
    held = ops.workspace().held[Owner("net", 0, "a")]
    assert held == on_host + TAPS > kept[1].workspace_bytes + TAPS  # the reference convolution holds something too


@pytest.mark.opencl
def test_the_scratch_memory_holds_what_it_says() -> None:
    ops = open_opencl()
    product = ops.gemm(GemmShape(400, 300, 200), True, True)
    rng = np.random.default_rng(0)
    product.run(tensor(numbers(rng, 200, 400)), tensor(numbers(rng, 300, 200)), empty(400, 300))
    arrays = ops._device.scratch._arrays
    assert sum(array.shape[0] * array.dtype.itemsize for array in arrays.values()) == ops.workspace().shared > 0


@pytest.mark.opencl
def test_what_is_only_tried_leaves_no_scratch_behind() -> None:
    device = open_opencl()._device
    device.scratch.reserve("a", 10)
    with device.scratch.aside():
        device.scratch.reserve("a", 1000)
        assert device.scratch.array("a").shape == (1000,)
    assert device.scratch.nbytes == 40 and device.scratch.array("a").shape == (10,)
    with pytest.raises(KeyError), device.scratch.aside():
        device.scratch.array("a")


@pytest.mark.opencl
def test_batch_normalisation_holds_a_copy_in_place_alone() -> None:
    ops, shape = open_opencl(), AxisGeometry(4, 3, 50)
    apart, in_place = ops.batch_norm(shape, 0.1), ops.batch_norm(shape, 0.1, in_place=True)
    assert in_place.workspace_bytes - apart.workspace_bytes == 4 * 4 * 3 * 50


@pytest.mark.parametrize(("text", "kept", "grows"), [
    (layer("Scale", "x", "x"), 4 * 96, True), (layer("Scale", "x", "y"), 0, False),
    (layer("PReLU", "x", "x"), 4 * 96, True), (layer("BatchNorm", "x", "y"), 4 * 2 * 3, False),
    (layer("SoftmaxWithLoss", "x t", "y"), 4 * 96, True)])
def test_layers_say_what_they_keep(text: str, kept: int, grows: bool) -> None:
    net = make(inputs(x=(2, 3, 16), t=(2, 16)) + text, CpuOps(), head="")
    assert net.layers[-1].scratch_bytes == kept
    net.blobs["x"].reshape(4, 3, 16)
    net.blobs["t"].reshape(4, 16)
    net.reshape()
    assert net.layers[-1].scratch_bytes == (2 * kept if grows else kept)


@pytest.mark.opencl
def test_tiles_of_the_largest_product_count(tmp_path: Path) -> None:
    open_opencl()
    ops = make_ops("fpga", inner_products=True)
    large, small = (ops.gemm(GemmShape(m, 60, 50), False, True) for m in (300, 70))
    assert large.scratch_bytes > small.scratch_bytes > 0
    assert ops.workspace().shared == large.scratch_bytes
    rng = np.random.default_rng(0)
    large.run(tensor(numbers(rng, 300, 50)), tensor(numbers(rng, 60, 50)), empty(300, 60))
    small.run(tensor(numbers(rng, 70, 50)), tensor(numbers(rng, 60, 50)), empty(70, 60))
    assert ops.workspace().shared == large.scratch_bytes
