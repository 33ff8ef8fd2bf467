"""A convolution that rectifies what it writes, and the net that lets it do so in the place of a ReLU."""

from __future__ import annotations

import numpy as np
import pytest
from opencl_device import empty, host, numbers, open_opencl, tensor

from barista import TRAIN, Net
from barista.frontends.prototxt import parse_net
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.ops.opencl.choice import Choices
from barista.ops.opencl.conv_families import variants
from barista.ops.opencl.convolution import OpenCLConvolution
from barista.ops.verify import VerifiedOps

GEOMETRIES = {
    "padded": ConvolutionGeometry(17, 4, 6, (9, 10), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    "strided": ConvolutionGeometry(3, 3, 5, (11, 9), (3, 2), (2, 2), (0, 1), (1, 1)),
    "pointwise": ConvolutionGeometry(2, 6, 7, (5, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
    "depthwise": ConvolutionGeometry(2, 6, 6, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 6),
    "one axis": ConvolutionGeometry(3, 2, 4, (12,), (4,), (1,), (0,), (1,)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_rectified_is_the_maximum_with_zero(ops: OpSet, name: str, bias: bool) -> None:
    """To the bit; NaN passes, whatever y held."""
    g, rng = GEOMETRIES[name], np.random.default_rng(3)
    values = numbers(rng, *g.x_shape)
    values[0, 0].flat[0] = np.nan
    x, w, b = tensor(values), tensor(numbers(rng, *g.w_shape)), tensor(numbers(rng, g.out_channels)) if bias else None
    plain, rectified = empty(*g.y_shape), empty(*g.y_shape)
    convolution = ops.convolution(g)
    convolution.forward(x, w, b, plain)
    convolution.forward(x, w, b, rectified, rectify=True)
    expected = np.maximum(host(plain), 0)
    assert np.isnan(expected).any() and (expected == 0).any() and (expected > 0).any()
    np.testing.assert_array_equal(host(rectified), expected)
    convolution.forward(x, w, b, rectified)
    np.testing.assert_array_equal(host(rectified), host(plain))


@pytest.mark.opencl
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_variant_rectifies(name: str) -> None:
    g, rng, ops = GEOMETRIES[name], np.random.default_rng(3), open_opencl()
    choices = Choices(ops._device, measured=False)
    values = numbers(rng, *g.x_shape)
    values[0, 0].flat[0] = np.nan
    x, w, b = tensor(values), tensor(numbers(rng, *g.w_shape)), tensor(numbers(rng, g.out_channels))
    for variant in variants(ops._device, g, Pass.FORWARD):
        convolution = OpenCLConvolution(ops._device, g, choices, {Pass.FORWARD: variant.name})
        plain, rectified = empty(*g.y_shape), empty(*g.y_shape)
        convolution.forward(x, w, b, plain)
        convolution.forward(x, w, b, rectified, rectify=True)
        assert np.isnan(host(plain)).any(), variant.name
        np.testing.assert_array_equal(host(rectified), np.maximum(host(plain), 0), err_msg=variant.name)


def test_verification_compares_rectified_numbers() -> None:
    ops = VerifiedOps(CpuOps(), CpuOps())
    g, rng = GEOMETRIES["padded"], np.random.default_rng(3)
    x, w, y = tensor(numbers(rng, *g.x_shape)), tensor(numbers(rng, *g.w_shape)), empty(*g.y_shape)
    ops.convolution(g).forward(x, w, None, y, rectify=True)
    assert host(y).min() == 0


# ---- nets -----------------------------------------------------------------------------------

NET = """name: "net"
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 3 dim: 2 dim: 6 dim: 6 }
  shape { dim: 3 dim: 4 dim: 6 dim: 6 } } }
layer { name: "conv1" type: "Convolution" bottom: "x" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "TOP" relu_param { SLOPE } }
layer { name: "conv2" type: "Convolution" bottom: "TOP" top: "conv2" convolution_param { num_output: 4 kernel_size: 1
  weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "conv2" bottom: "t" top: "loss" }
"""


def open_net(ops: OpSet, top: str = "conv1", slope: str = "") -> Net:
    net = Net(parse_net(NET.replace("TOP", top).replace("SLOPE", slope)), TRAIN, ops=ops)
    rng = np.random.default_rng(4)
    for name in "x", "t":
        net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)
    return net


def step(net: Net, alone: bool) -> list[np.ndarray]:
    """Values and gradients of a step: its layers each alone, or all together."""
    net.clear_param_diffs()
    if alone:
        for index in range(len(net.layers)):
            net.forward_pass(index, index)
    else:
        net.forward_pass()
    net.backward_pass()
    return [net.blobs[name].data.copy() for name in ("conv1", "conv2", "loss")] + [
        blob.diff.copy() for name in ("conv1", "conv2") for blob in net.params[name]]


def test_a_net_computes_the_same_with_and_without(ops: OpSet) -> None:
    net = open_net(ops)
    assert list(net.forward_steps()) == [(0, 0), (1, 2), (3, 3), (4, 4)]
    together = step(net, alone=False)
    assert together[0].min() == 0
    for one, other in zip(together, step(net, alone=True), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_ends_before_the_relu_is_not_rectified(ops: OpSet) -> None:
    net = open_net(ops)
    assert net.forward(end="conv1")["conv1"].min() < 0
    assert net.forward(end="relu1")["conv1"].min() == 0
    assert list(net.forward_steps(2)) == [(2, 2), (3, 3), (4, 4)]
    net.forward(end="conv1")
    rectified = np.maximum(net.blobs["conv1"].data, 0)
    net.forward(start="relu1", end="relu1")
    np.testing.assert_array_equal(net.blobs["conv1"].data, rectified)


@pytest.mark.parametrize(("top", "slope"), [("relu1", ""), ("conv1", "negative_slope: 0.1")])
def test_what_is_no_relu_in_place_runs_by_itself(top: str, slope: str) -> None:
    net = open_net(CpuOps(), top, slope)
    assert all(first == last for first, last in net.forward_steps())
    net.forward_pass()
    assert net.blobs["conv1"].data.min() < 0


def test_other_shapes_are_carried_through_both_layers(ops: OpSet) -> None:
    net = open_net(ops)
    net.forward_pass()
    for name in "x", "t":
        net.blobs[name].reshape(2, *net.blobs[name].shape[1:])
        net.blobs[name].data[...] = np.random.default_rng(5).normal(size=net.blobs[name].shape)
    results = [step(net, alone) for alone in (False, True)]
    assert results[0][0].shape == (2, 4, 6, 6)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
