"""``blob.data`` and ``blob.diff`` are writable NumPy views of what the blob holds, on every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from little_nets import inputs, layer, make
from opencl_device import open_opencl

from barista.blob import Blob
from barista.compose import make_ops
from barista.net import Net
from barista.ops.base import OpSet
from barista.solvers import SGDSolver

IP = "inner_product_param { num_output: 3 weight_filler { type: 'gaussian' std: 1 } bias_filler { type: 'uniform' } }"
LOSS = inputs(x=(4, 5), t=(4,)) + layer("InnerProduct", "x", "h", IP, "ip") + layer(
    "SoftmaxWithLoss", "h t", "loss", name="loss")


def opencl(shared: bool) -> OpSet:
    ops = open_opencl()
    if shared and not ops.space.shares_host:
        pytest.skip("the device has memory of its own")
    ops.space.shares_host = shared
    return ops


@pytest.fixture(scope="module", params=["cpu", pytest.param("shared", marks=pytest.mark.opencl),
                                        pytest.param("apart", marks=pytest.mark.opencl)])
def ops(request: pytest.FixtureRequest) -> OpSet:
    """The CPU, a device that works in the host's memory, and one that has its own."""
    return make_ops("cpu") if request.param == "cpu" else opencl(request.param == "shared")


@pytest.fixture
def net(ops: OpSet) -> Net:
    made = make(LOSS, ops)
    made.blobs["x"].data[...] = np.random.default_rng(0).normal(size=(4, 5))
    return made


def expected(net: Net) -> np.ndarray:
    return net.blobs["x"].data @ net.params["ip"][0].data.T + net.params["ip"][1].data


def test_what_is_written_between_passes_counts(net: Net) -> None:
    gen = np.random.default_rng(1)
    for _ in range(3):
        net.blobs["x"].data[1:3, ::2] = gen.normal(size=(2, 3))
        net.params["ip"][0].data[...] *= -1
        net.params["ip"][1].data[0] += 1
        net.forward()
        np.testing.assert_allclose(net.blobs["h"].data, expected(net), rtol=1e-4, atol=1e-5)
        net.blobs["h"].diff[...] = 1
        net.backward(start="ip")
        np.testing.assert_allclose(net.blobs["x"].diff, np.tile(net.params["ip"][0].data.sum(axis=0), (4, 1)),
                                   rtol=1e-4, atol=1e-5)


def test_a_kept_view_of_an_input_is_read_at_each_pass(net: Net) -> None:
    """Filling one array in a loop is what scripts do."""
    x = net.blobs["x"].data
    weight, bias = (blob.data.copy() for blob in net.params["ip"])
    for step in range(3):
        x[...] = step - 1
        net.forward()
        np.testing.assert_allclose(net.blobs["h"].data, np.full((4, 5), step - 1) @ weight.T + bias, rtol=1e-4,
                                   atol=1e-5)


def test_kept_views_show_later_results(net: Net, ops: OpSet) -> None:
    """Where the device computes in the host's memory; elsewhere the view is asked for again, as with Caffe's GPU."""
    keeps = ops.space.name == "host" or ops.space.shares_host
    h, dw = net.blobs["h"].data, net.params["ip"][0].diff
    for _ in range(2):
        net.blobs["x"].data[...] += 1
        net.forward()
        net.clear_param_diffs()
        net.backward()
        np.testing.assert_allclose(h if keeps else net.blobs["h"].data, expected(net), rtol=1e-4, atol=1e-5)
        dh = net.blobs["h"].diff
        np.testing.assert_allclose(dw if keeps else net.params["ip"][0].diff, dh.T @ net.blobs["x"].data, rtol=1e-4,
                                   atol=1e-5)


def test_cleared_gradients_show_in_a_kept_view(net: Net) -> None:
    net.forward()
    net.backward()
    dw = net.params["ip"][0].diff
    assert dw.any()
    net.clear_param_diffs()
    assert not dw.any()
    net.backward()
    gradient = net.params["ip"][0].diff.copy()
    assert gradient.any()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * gradient, rtol=1e-4, atol=1e-6)


def test_what_is_written_into_a_kept_view_after_a_clear_is_added_to(net: Net, ops: OpSet) -> None:
    if ops.space.name != "host" and not ops.space.shares_host:
        pytest.skip("views of a device with memory of its own are asked for again")
    net.forward()
    net.backward()
    dw = net.params["ip"][0].diff
    gradient = dw.copy()
    net.clear_param_diffs()
    dw[...] = 5
    net.backward()
    np.testing.assert_allclose(dw, gradient + 5, rtol=1e-4, atol=1e-5)


def test_kept_views_in_a_solver(tmp_path: Path, ops: OpSet) -> None:
    (tmp_path / "net.prototxt").write_text(LOSS)
    (tmp_path / "solver.prototxt").write_text(f"net: '{tmp_path}/net.prototxt' base_lr: 0.01 momentum: 0.9 "
                                              "weight_decay: 0.5 lr_policy: 'fixed'")
    solver = SGDSolver(tmp_path / "solver.prototxt", ops=ops)
    weights = solver.net.layers[2].blobs[0].data[...]
    weights[...] = 0
    solver.net.layers[2].blobs[0].diff[...] = 1
    solver.apply_update()
    if ops.space.name != "host" and not ops.space.shares_host:
        weights = solver.net.layers[2].blobs[0].data
    np.testing.assert_allclose(weights, -0.01, rtol=1e-5)


def test_views_are_the_callers_own(ops: OpSet) -> None:
    """What is done to the array object, not to its numbers, does not reach the blob; it outlives the net."""
    net = make(LOSS, ops)
    view = net.blobs["x"].data
    assert view.flags.writeable and view.flags.c_contiguous
    view.shape = (20,)
    assert net.blobs["x"].data.shape == (4, 5)
    view[...] = 2
    weights = net.params["ip"][0].data
    total = weights.sum()
    del net
    assert view.sum() == 40
    assert weights.sum() == total


def test_writing_after_a_clear_counts_on_the_host() -> None:
    blob = Blob((3,))
    view = blob.diff
    view[...] = 5
    blob.grad.clear()
    assert (view == 0).all() and not blob.grad.memory.is_zero
    view[1] = 2
    np.testing.assert_array_equal(blob.diff, [0, 2, 0])
