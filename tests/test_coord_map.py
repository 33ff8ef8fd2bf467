"""Where pixels lie in other blobs: against real layers, and what cannot be mapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import barista as caffe
from barista.coord_map import (
    AxisMismatchException,
    CropError,
    UnconnectedError,
    UndefinedMapException,
    compose,
    coord_map,
    coord_map_from_to,
    crop,
    inverse,
)
from barista.errors import NetError
from barista.net_spec import layers as L  # noqa: N812 (the name that scripts give it)


def up_and_down(kernel: Any = 3, pad: Any = 0, pool: int = 2, up: int = 2, up_pad: int = 0) -> tuple[Any, Any]:
    data = L.Input(shape={"dim": [1, 1, 60, 60]})
    conv = L.Convolution(data, num_output=1, kernel_size=kernel, pad=pad)
    pooled = L.Pooling(conv, pool=1, kernel_size=pool, stride=pool)
    return data, L.Deconvolution(pooled, num_output=1, kernel_size=2 * up, stride=up, pad=up_pad)


@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation"), [
    (3, 1, 0, 1), (5, 2, 3, 1), (3, 3, 2, 2), (1, 2, 0, 1)])
def test_a_window_looks_at_its_middle(kernel: int, stride: int, pad: int, dilation: int) -> None:
    """A kernel that keeps its middle alone: an output holds the number of the place that the map names."""
    size = 40
    data = L.Input(shape={"dim": [1, 1, 1, size]})
    conv = L.Convolution(data, num_output=1, kernel_h=1, kernel_w=kernel, stride_h=1, stride_w=stride, pad_h=0,
                         pad_w=pad, dilation=[1, dilation], bias_term=False)
    net = caffe.Net(conv.to_proto(), caffe.TEST)
    weights = net.params["Convolution1"][0]
    weights.data[...] = 0
    weights.data[..., kernel // 2] = 1
    net.blobs["Input1"].data[...] = np.arange(1, size + 1)
    out = net.forward()["Convolution1"][0, 0, 0]
    axis, a, b = coord_map_from_to(conv, data)
    assert axis == 1
    places = a[1] * np.arange(out.size) + b[1]
    inside = (places >= 0) & (places < size)
    assert np.array_equal(out[inside], places[inside] + 1)
    assert not out[~inside].any()


def test_deconvolution_is_the_reverse() -> None:
    data = L.Input()
    settings = {"kernel_size": [3, 4], "stride": [2, 3], "pad": [1, 0]}
    there = coord_map(L.Convolution(data, convolution_param=settings).fn)
    back = coord_map(L.Deconvolution(data, convolution_param=settings).fn)
    axis, a, b = compose(back, there)
    assert axis == 1
    assert np.allclose(a, 1)
    assert np.allclose(b, 0)
    for one, other in zip(inverse(there)[1:], back[1:], strict=True):
        assert np.allclose(one, other)


def test_offsets_between_data_and_what_was_made_larger_again() -> None:
    for settings, wanted in (({}, 0), ({"pool": 4, "up": 4}, -1), ({"pad": 7}, -7), ({"up_pad": 7}, 7),
                             ({"pad": 5, "up_pad": 5}, 0)):
        data, top = up_and_down(**settings)  # type: ignore[arg-type]
        axis, a, b = coord_map_from_to(L.ReLU(top), data)
        assert (axis, a, b) == (1, 1, wanted), settings


def test_two_axes_are_mapped_each_for_itself() -> None:
    data, top = up_and_down(kernel=[3, 5], pad=[0, 9])
    _, a, b = coord_map_from_to(top, data)
    assert np.all(a == 1)
    assert b.tolist() == [0, -8]


def test_over_a_common_ancestor() -> None:
    """Between two branches: neither comes from the other."""
    data = L.Input()
    left = L.Convolution(data, num_output=1, kernel_size=3)
    right = L.Convolution(data, num_output=1, kernel_size=7, pad=1)
    assert coord_map_from_to(left, right) == (1, 1, -1)
    assert coord_map_from_to(right, left) == (1, 1, 1)
    assert coord_map_from_to(left, left) == (None, 1, 0)


def test_a_crop_moves_and_its_reference_does_not_connect() -> None:
    data, top = up_and_down()
    cut = L.Crop(top, data, axis=2, offset=4)
    assert coord_map_from_to(cut, data) == (1, 1, 4)
    other = L.Input()
    with pytest.raises(UnconnectedError, match="no map from a top of Crop to a top of Input"):
        coord_map_from_to(L.Crop(other, data), data)


def test_the_crop_that_fits() -> None:
    data, top = up_and_down(pad=10)
    layer = crop(top, data).to_proto().layer[-1]
    assert (layer.type, layer.crop_param.axis, list(layer.crop_param.offset)) == ("Crop", 2, [10])


def test_what_no_crop_mends() -> None:
    for settings, message in (({"pool": 3}, r"a pixel of one is \[1\.5\] pixels of the other"),
                              ({"up_pad": 9}, r"it begins \[9\.\] pixels inside"),
                              ({"kernel": 4, "pad": 3}, "is a fraction of a pixel")):
        data, top = up_and_down(**settings)  # type: ignore[arg-type]
        with pytest.raises(CropError, match=message) as caught:
            crop(top, data)
        assert isinstance(caught.value, AssertionError)
        assert isinstance(caught.value, NetError)


def test_layers_without_places() -> None:
    data, top = up_and_down()
    for layer in (L.InnerProduct(top, num_output=2), L.Pooling(top, global_pooling=True)):
        with pytest.raises(UndefinedMapException, match=f"^{layer.fn.type_name}: has no"):
            coord_map(layer.fn)
        with pytest.raises(RuntimeError, match="come from no common blob by layers that keep places"):
            coord_map_from_to(layer, data)


def test_axes_must_agree() -> None:
    with pytest.raises(AxisMismatchException, match="along the axes behind 1 and behind 2 cannot be composed"):
        compose((1, 1, 0), (2, 1, 0))
    assert compose((None, 1, 0), (2, 3, 4)) == (2, 3, 4)
    assert compose((2, 3, 4), (None, 1, 0)) == (2, 3, 4)
