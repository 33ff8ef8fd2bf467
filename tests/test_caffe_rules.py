"""Corners of Caffe's rules that figures of whole layers seldom reach."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from little_nets import Case, check_gradients, inputs, layer, make
from one_layer import again, run

from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

Array = npt.NDArray[np.float64]


def numbers(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape)


# ---- convolutions -----------------------------------------------------------------------------------------


def by_groups(weight: Array, groups: int, transposed: bool) -> Array:
    """The weights of all groups as one matrix (outputs, inputs) with zeros between groups."""
    parts = [part.T if transposed else part for part in np.split(weight, groups)]
    rows, columns = parts[0].shape
    whole = np.zeros((rows * groups, columns * groups))
    for index, part in enumerate(parts):
        whole[index * rows:(index + 1) * rows, index * columns:(index + 1) * columns] = part
    return whole


@pytest.mark.parametrize("type_", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize(("shape", "param", "groups"), [
    ((3, 4), "axis: 1 kernel_size: 3 stride: 2 pad: 1", 1), ((2, 5, 4), "axis: -1", 2), ((6,), "axis: 0", 3),
])
def test_convolution_without_spatial_axes(type_: str, shape: tuple[int, ...], param: str, groups: int,
                                          ops: OpSet) -> None:
    """A product with the channels, whatever the window is said to be."""
    x = numbers(shape)
    text = layer(type_, more=f"convolution_param {{ num_output: 6 group: {groups} {param} "
                             "weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }")
    net, seeds = run(text, ops, {"x": x})
    weight, bias = (blob.data.astype(float) for blob in net.params["layer"])
    inner, outer = (6, shape[-1]) if type_ == "Deconvolution" else (shape[-1], 6)
    assert weight.shape == (outer, inner // groups)
    matrix = by_groups(weight, groups, transposed=type_ == "Deconvolution")
    np.testing.assert_allclose(net.blobs["y"].data, x @ matrix.T + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.blobs["x"].diff, seeds["y"] @ matrix, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.params["layer"][1].diff, seeds["y"].reshape(-1, 6).sum(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("type_", ["Convolution", "Deconvolution"])
def test_gradients_without_spatial_axes(type_: str, cpu64: CpuOps) -> None:
    check_gradients(Case(layer(type_, more="convolution_param { num_output: 4 group: 2 axis: 2 }"), {"x": (2, 3, 6)}),
                    cpu64)


@pytest.mark.parametrize(("type_", "param", "shape"), [
    ("Convolution", "num_output: 2 kernel_size: 2", (2, 3, 3)),
    ("Deconvolution", "num_output: 2 kernel_size: 2", (2, 5, 5)), ("Im2col", "kernel_size: 2", (12, 3, 3)),
])
def test_windows_of_no_images(type_: str, param: str, shape: tuple[int, ...], ops: OpSet) -> None:
    """A Filter that lets nothing through, and then something."""
    text = (layer("Filter", "x keep", "some", name="filter")
            + layer(type_, "some", "y", f"convolution_param {{ {param} }}"))
    x = numbers((2, 3, 4, 4))
    net, _ = run(text, ops, {"x": x, "keep": np.zeros(2)})
    assert net.blobs["y"].shape == (0, *shape)
    assert all(not blob.diff.any() for blob in net.params.get("layer", []))
    assert not net.blobs["x"].diff.any()
    for blob in net.params.get("layer", []):
        blob.data[...] = 1
    again(net, {"x": x, "keep": np.array([0, 1])})
    assert net.blobs["y"].shape == (1, *shape)
    assert np.abs(net.blobs["y"].data).max() > 0
    assert np.abs(net.blobs["x"].diff[1]).max() > 0 and not net.blobs["x"].diff[0].any()


# ---- others -----------------------------------------------------------------------------------------------


def test_a_maximum_takes_coefficients_and_ignores_them(cpu64: CpuOps) -> None:
    a, b = numbers((3, 4), 1), numbers((3, 4), 2)
    net, seeds = run(layer("Eltwise", "a b", more="eltwise_param { operation: MAX coeff: -2 coeff: 3 }"), cpu64,
                     {"a": a, "b": b})
    np.testing.assert_array_equal(net.blobs["y"].data, np.maximum(a, b))
    np.testing.assert_array_equal(net.blobs["a"].diff, seeds["y"] * (a > b))


def test_an_axis_from_the_end_follows_the_number_of_axes(cpu64: CpuOps) -> None:
    """An InnerProduct looks for its axis at each reshape."""
    text = layer("InnerProduct", more="inner_product_param { num_output: 2 axis: -1 weight_filler { type: 'xavier' } }")
    net, _ = run(text, cpu64, {"x": numbers((2, 3, 5))})
    x = numbers((4, 5))
    seeds = again(net, {"x": x})
    weight = net.params["layer"][0].data
    np.testing.assert_allclose(net.blobs["y"].data, x @ weight.T)
    np.testing.assert_allclose(net.blobs["x"].diff, seeds["y"] @ weight)


def test_the_euclidean_loss_of_no_images_is_0(ops: OpSet) -> None:
    net = make(inputs(a=(0, 3), b=(0, 3)) + layer("EuclideanLoss", "a b"), ops)
    assert net.forward()["y"] == 0
    net.backward_pass()


@pytest.mark.parametrize("x", [-9.0, -14.0, -80.0, -200.0])
def test_a_gate_that_is_all_but_shut_is_exact(x: float, ops: OpSet) -> None:
    """LSTMUnit: h = sigmoid(o) tanh(c), where 1 + tanh would leave nothing of so small a gate."""
    gates = np.array([50, 0, x, 1], np.float32).reshape(1, 1, 4)
    zero = np.zeros((1, 1, 1), np.float32)
    net = make(inputs(c=(1, 1, 1), x=(1, 1, 4), cont=(1, 1)) + layer("LSTMUnit", "c x cont", "d h"), ops, head="")
    for name, value in (("c", zero), ("x", gates), ("cont", np.ones((1, 1)))):
        net.blobs[name].data[...] = value
    net.forward()
    expected = np.tanh(np.tanh(1.0)) / (1 + np.exp(-x)) if x > -87 else 0.0
    np.testing.assert_allclose(net.blobs["h"].data.reshape(()), expected, rtol=1e-5, atol=1e-37)
