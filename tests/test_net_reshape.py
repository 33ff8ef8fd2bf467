"""Nets whose inputs take other shapes, and what is left where a layer refuses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from little_nets import inputs, layer
from small_nets import CONVNET, backward, ip, quiet

from barista import Layer
from barista.blob import Blob
from barista.errors import ShapeError
from barista.ops.cpu import CpuOps


@pytest.mark.parametrize("sizes", [[(5, 8, 9), (1, 8, 9), (2, 8, 9)], [(2, 12, 5), (3, 4, 4), (2, 8, 9)]])
def test_reshape_on_the_fly_equals_a_fresh_net(sizes: list[tuple[int, int, int]], cpu: CpuOps) -> None:
    net = quiet(CONVNET, cpu, head="force_backward: true")
    for seed, (batch, height, width) in enumerate(sizes):
        shapes = {"x": (batch, 3, height, width), "t": (batch,)}
        fresh = quiet(CONVNET, cpu, head="force_backward: true")
        for each in (net, fresh):
            for name, shape in shapes.items():
                each.blobs[name].reshape(*shape)
            each.reshape()
            assert each.blobs["f"].shape == (batch, 3)
        for item, other in zip(net.learnable, fresh.learnable, strict=True):
            other.blob.data[...] = item.blob.data
        for each in (net, fresh):
            backward(each, seed)
        assert net.loss() == pytest.approx(fresh.loss(), rel=1e-6)
        np.testing.assert_allclose(net.blobs["x"].diff, fresh.blobs["x"].diff, rtol=1e-4, atol=1e-7)
        for item, other in zip(net.learnable, fresh.learnable, strict=True):
            np.testing.assert_allclose(item.blob.diff, other.blob.diff, rtol=1e-4, atol=1e-6)


def test_forward_reshapes_by_itself(cpu: CpuOps) -> None:
    net = quiet(inputs(x=(2, 4)) + ip("x", "y"), cpu)
    net.blobs["x"].reshape(7, 4)
    net.forward_pass()
    assert net.blobs["y"].shape == (7, 3)


def test_a_refused_shape_can_be_taken_back(cpu: CpuOps) -> None:
    """The layers below have the new shapes by then, the others their old ones."""
    net = quiet(CONVNET, cpu, head="force_backward: true")
    fresh = quiet(CONVNET, cpu, head="force_backward: true")
    for item, other in zip(fresh.learnable, net.learnable, strict=True):
        item.blob.data[...] = other.blob.data
    for wrong in ((4, 3, 6, 7), (2, 5, 8, 9), (3, 3, 2, 2)):
        net.blobs["x"].reshape(*wrong)
        if wrong[1] == 5:
            with pytest.raises(ShapeError, match=r"conv \(Convolution\): was set up for 3 channels"):
                net.reshape()
        else:
            with pytest.raises(ShapeError, match=r"loss \(SoftmaxWithLoss\): "):
                net.forward_pass()
        net.blobs["x"].reshape(2, 3, 8, 9)
        for each in (net, fresh):
            backward(each)
        assert net.loss() == pytest.approx(fresh.loss(), rel=1e-6)
        np.testing.assert_allclose(net.blobs["x"].diff, fresh.blobs["x"].diff, rtol=1e-4, atol=1e-7)


class Moody(Layer):
    """Gives its top twice the rows, then refuses, while `angry`."""

    angry = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        rows, columns = bottom[0].shape
        if self.angry:
            top[0].reshape(1000 * rows, columns)
            raise ShapeError("not today")
        top[0].reshape(2 * rows, columns)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        rows = bottom[0].shape[0]
        top[0].data[:rows] = bottom[0].data
        top[0].data[rows:] = -bottom[0].data


def test_a_layer_that_stopped_halfway_is_reshaped_again(cpu: CpuOps) -> None:
    """Its top had other memory by then: those that lie on it move too."""
    net = quiet(inputs(x=(2, 3)) + layer("Python", "x", "m", f"python_param {{ module: '{__name__}' layer: 'Moody' }}",
                                        "moody") + layer("Silence", "m", "", name="first")
                + layer("Flatten", "m", "f", name="flat") + layer("ReLU", "f", "y", name="relu"), cpu)
    moody: Any = net.layer_dict["moody"]
    moody.angry = True
    with pytest.raises(ShapeError, match=r"moody \(Python\): not today"):
        net.reshape()
    moody.angry = False
    net.forward(x=[[1, -2, 3], [4, 5, -6]])
    np.testing.assert_array_equal(net.blobs["y"].data, [[1, 0, 3], [4, 5, 0], [0, 2, 0], [0, 0, 6]])


def test_memory_that_grew_and_shrank_between_passes(cpu: CpuOps) -> None:
    """The branches of a split lie on the memory that its bottom has now."""
    net = quiet(inputs(x=(2, 3)) + layer("ReLU", "x", "a", name="one") + layer("ReLU", "x", "b", name="other"), cpu)
    net.blobs["x"].reshape(50, 3)
    net.blobs["x"].reshape(2, 3)
    net.forward(x=[[1, -2, 3], [4, 5, -6]])
    np.testing.assert_array_equal(net.blobs["a"].data, [[1, 0, 3], [4, 5, 0]])
    np.testing.assert_array_equal(net.blobs["a"].data, net.blobs["b"].data)
