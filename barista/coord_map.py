"""``caffe.coord_map``: where a pixel of one blob lies in another, and the Crop layer that lays them over each other.

A map (axis, a, b) says that place x of one blob is place ``a * x + b`` of the other, along each spatial axis; `axis` is
the last one before the spatial ones, or None for a layer that changes no place.  `a` and `b` are arrays with a number
for each spatial axis or one for all; those of the map that changes nothing are plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NetError
from .net_spec import Function, Top, layers

Scalars = npt.NDArray[Any]
Map = tuple[int | None, Any, Any]

# Types that leave every pixel where it is.
PASS_THROUGH_LAYERS = ("AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log",
                       "MVN", "PReLU", "Power", "ReLU", "ReLU6", "Scale", "Sigmoid", "Softmax", "Split", "Swish",
                       "TanH", "Threshold")
_WINDOWS = {"Convolution": "convolution_param", "Deconvolution": "convolution_param", "Im2col": "convolution_param",
            "Pooling": "pooling_param"}
_IDENTITY: Map = (None, 1, 0)


class UndefinedMapException(NetError):  # noqa: N818 (pycaffe's name)
    """A layer for which no place of its top is a place of its bottom."""


class AxisMismatchException(NetError):  # noqa: N818 (pycaffe's name)
    """Two maps along different axes, which cannot be done one after the other."""


class UnconnectedError(NetError, RuntimeError):
    """Two tops that no chain of spatial layers connects."""


class CropError(NetError, AssertionError):
    """Two tops that no crop lays over each other."""


def conv_params(fn: Function) -> tuple[int, Scalars, Scalars, Scalars]:
    """The axis before the spatial ones, and stride, kernel size with its dilation, and padding of a layer.

    Raises
    ------
    UndefinedMapException : the kernel has no size, as that of global pooling
    """
    params = _params(fn, _WINDOWS[fn.type_name])
    if params.get("global_pooling") or not ({"kernel_size", "kernel_h"} & params.keys()):
        raise UndefinedMapException(f"{fn.type_name}: has no kernel_size, so its tops' places are no places below")
    kernel, stride, pad = (_pair(params, *names) for names in (
        ("kernel_size", "kernel_h", "kernel_w", 0), ("stride", "stride_h", "stride_w", 1),
        ("pad", "pad_h", "pad_w", 0)))
    dilation = np.array(params.get("dilation", 1), ndmin=1)
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, Scalars]:
    """The first axis that a Crop layer crops, and its offsets."""
    params = _params(fn, "crop_param")
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map from places of a layer's bottoms to places of its tops.

    Raises
    ------
    UndefinedMapException : there is none, as for an InnerProduct
    """
    if fn.type_name in _WINDOWS:
        axis, stride, kernel, pad = conv_params(fn)
        # Place x is the middle of a window of the larger blob, which starts at stride * x - pad.
        window = axis, stride, (kernel - 1) / 2 - pad
        return window if fn.type_name == "Deconvolution" else inverse(window)
    if fn.type_name in PASS_THROUGH_LAYERS:
        return _IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset
    raise UndefinedMapException(f"{fn.type_name}: has no map from places of its bottoms to places of its tops")


def inverse(coord_map: Map) -> Map:
    """The map that leads back."""
    axis, a, b = coord_map
    return axis, 1 / a, -b / a


def compose(base_map: Map, next_map: Map) -> Map:
    """The map that does `next_map` first and `base_map` on what comes out.

    Raises
    ------
    AxisMismatchException : they are along different axes
    """
    axis, a, b = base_map
    next_axis, next_a, next_b = next_map
    if None not in (axis, next_axis) and axis != next_axis:
        raise AxisMismatchException(f"maps along the axes behind {axis} and behind {next_axis} cannot be composed; "
                                    "give all layers between the two blobs one axis")
    return next_axis if axis is None else axis, a * next_a, a * next_b + b


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from places of one top to those of another, over the nearest blob that both come from.

    Returns
    -------
    (axis, a, b): place x of `top_from` is place ``a * x + b`` of `top_to`

    Raises
    ------
    UnconnectedError : the tops come from no common blob by spatial layers alone
    """
    from_maps, to_maps = _ancestors(top_from), _ancestors(top_to)
    for top, from_map in from_maps.items():
        if top in to_maps:
            # Both maps lead up from the common blob; the first is gone back.
            return compose(to_maps[top], inverse(from_map))
    raise UnconnectedError(f"no map from a top of {top_from.fn.type_name} to a top of {top_to.fn.type_name}: they come "
                           "from no common blob by layers that keep places (convolution, pooling, crop, activations)")


def crop(top_from: Top, top_to: Top) -> Top:
    """Make the Crop layer that cuts from one top what lies over another.

    Raises
    ------
    CropError : their pixels do not lie over each other: other distances, a fraction of a pixel, or too little to cut
    UnconnectedError : no chain of layers connects them
    """
    axis, a, b = coord_map_from_to(top_from, top_to)
    who = f"cannot crop a top of {top_from.fn.type_name} to a top of {top_to.fn.type_name}"
    if not np.all(np.asarray(a) == 1):
        raise CropError(f"{who}: a pixel of one is {a} pixels of the other; let the strides between them cancel out")
    if not np.all(np.asarray(b) <= 0):
        raise CropError(f"{who}: it begins {b} pixels inside; pad the data more, or the deconvolution less")
    if not np.all(np.asarray(b) == np.round(b)):
        raise CropError(f"{who}: the offset of {b} is a fraction of a pixel; choose kernels and padding of other sizes")
    offset = np.atleast_1d(-np.round(b).astype(int)).tolist()
    return layers.Crop(top_from, top_to, crop_param={"axis": (1 if axis is None else axis) + 1, "offset": offset})


def _ancestors(top: Top) -> dict[Top, Map]:
    """The blobs that a top comes from by spatial layers, the nearest first, with the maps from them to it."""
    found: dict[Top, Map] = {top: _IDENTITY}
    ahead = [top]
    for here in ahead:
        try:
            below = compose(found[here], coord_map(here.fn))
        except UndefinedMapException:
            continue
        # The second bottom of a Crop gives it a size, and no pixel.
        for bottom in here.fn.inputs[:1] if here.fn.type_name == "Crop" else here.fn.inputs:
            if bottom not in found:
                found[bottom] = below
                ahead.append(bottom)
    return found


def _params(fn: Function, message: str) -> Mapping[str, Any]:
    """A layer's parameters, whether it was given them one by one or as a message's fields."""
    return {**fn.params, **fn.params.get(message, {})}


def _pair(params: Mapping[str, Any], both: str, high: str, wide: str, default: int) -> Scalars:
    """A size along each spatial axis, from the field for all or from those for height and width."""
    if high in params or wide in params:
        return np.array([params.get(high, default), params.get(wide, default)])
    return np.array(params.get(both, default), ndmin=1)
