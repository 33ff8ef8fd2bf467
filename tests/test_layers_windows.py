"""PoolingNd and Resize against loops over windows and over kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from extension_cases import one, pool
from hypothesis import given, settings
from hypothesis import strategies as st
from one_layer import run
from test_layers_extension import forward, numbers

from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]
OPS = CpuOps(np.float64, 1)


# ---- pooling ----------------------------------------------------------------------------------------------

@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes and settings of one to three axes that leave at least one window."""
    axes = draw(st.integers(1, 3))
    settings_: dict[str, Any] = {name: draw(st.lists(st.integers(1, most), min_size=axes, max_size=axes))
                                 for name, most in (("kernel", 3), ("stride", 3), ("dilation", 2), ("size", 5))}
    reach = [d * (k - 1) for k, d in zip(settings_["kernel"], settings_["dilation"], strict=True)]
    settings_["pad_begin"] = [draw(st.integers(0, r)) for r in reach]
    settings_["pad_end"] = [draw(st.integers(max(0, r + 1 - s - b), r + 1)) for r, s, b in zip(
        reach, settings_["size"], settings_["pad_begin"], strict=True)]
    settings_["ceil"], settings_["count"] = draw(st.booleans()), draw(st.booleans())
    return settings_


def outputs(w: dict[str, Any], axis: int) -> int:
    """How many windows there are, laid down one by one."""
    size, stride = w["size"][axis], w["stride"][axis]
    begin, end = w["pad_begin"][axis], w["pad_end"][axis]
    last = w["dilation"][axis] * (w["kernel"][axis] - 1)
    starts = [start for start in range(-begin, size + end, stride) if start + last < size + end]
    if w["ceil"]:
        if starts[-1] + last < size + end - 1:
            starts.append(starts[-1] + stride)
        if starts[-1] >= size:
            starts.pop()
    return len(starts)


def pooled(x: Array, w: dict[str, Any], average: bool) -> tuple[Array, Array]:
    """Every window by itself: values, and numbers of the maxima."""
    sizes = tuple(outputs(w, axis) for axis in range(x.ndim - 2))
    y, indices = np.empty((*x.shape[:2], *sizes)), np.empty((*x.shape[:2], *sizes))
    for place in itertools.product(*map(range, y.shape)):
        taps = itertools.product(*(
            [o * s - b + k * d for k in range(kernel)] for o, s, b, d, kernel in zip(
                place[2:], w["stride"], w["pad_begin"], w["dilation"], w["kernel"], strict=True)))
        seen, counted = [], 0
        for tap in taps:
            inside = all(0 <= t < size for t, size in zip(tap, x.shape[2:], strict=True))
            counted += all(-b <= t < size + e for t, b, size, e in zip(tap, w["pad_begin"], x.shape[2:], w["pad_end"],
                                                                      strict=True))
            if inside:
                seen.append((*place[:2], *tap))
        values = [x[index] for index in seen]
        if average:
            y[place] = sum(values) / max(counted if w["count"] else len(values), 1)
        else:
            y[place] = max(values, default=-np.inf)
            indices[place] = np.ravel_multi_index(seen[int(np.argmax(values))], x.shape) if values else -1
    return y, indices


def written(w: dict[str, Any]) -> str:
    names = ("kernel", "stride", "dilation", "pad_begin", "pad_end")
    return " ".join(numbers(name, w[name]) for name in names) + f" ceil_mode: {str(w['ceil']).lower()}"


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(0, 2**31))
def test_pooling(w: dict[str, Any], seed: int) -> None:
    x = np.random.default_rng(seed).integers(-9, 9, (2, 2, *w["size"])).astype(np.float64)
    mean = forward(pool(f"pool: AVE count_include_pad: {str(w['count']).lower()} {written(w)}"), OPS, x)
    np.testing.assert_allclose(mean, pooled(x, w, True)[0], rtol=1e-14, atol=1e-14)
    net, _ = run(pool(written(w), "y i"), OPS, {"x": x})
    values, indices = pooled(x, w, False)
    np.testing.assert_array_equal(net.blobs["y"].data, values)
    np.testing.assert_array_equal(net.blobs["i"].data, indices)
    # Without numbers of maxima another primitive may do it.
    other, _ = run(pool(written(w)), OPS, {"x": x})
    np.testing.assert_array_equal(other.blobs["y"].data, values)
    for one_net in (net, other):
        one_net.blobs["y"].diff[...] = np.arange(values.size).reshape(values.shape)
        one_net.backward_pass()
    np.testing.assert_array_equal(net.blobs["x"].diff, other.blobs["x"].diff)


def test_numbers_of_maxima_by_columns_and_nan(cpu: CpuOps) -> None:
    x = np.array([[1.0, 2, 3], [6, 5, 4]])[None, None]
    x = np.concatenate([x, -x], 1)
    net, _ = run(pool("kernel: [1, 3] column_major: true", "y i"), cpu, {"x": x})
    np.testing.assert_array_equal(net.blobs["y"].data.ravel(), [3, 6, -1, -4])
    np.testing.assert_array_equal(net.blobs["i"].data.ravel(), [4, 1, 6, 11])
    x[0, 0, 0, 1] = np.nan
    for tops in ("y", "y i"):
        net, seeds = run(pool("kernel: 2", tops), cpu, {"x": x})
        np.testing.assert_array_equal(np.isnan(net.blobs["y"].data[0, :, 0]), [[True, True], [False, False]])
    np.testing.assert_array_equal(net.blobs["i"].data[0, 0, 0], [1, 1])
    assert net.blobs["x"].diff[0, 0, 0, 1] == pytest.approx(seeds["y"][0, 0, 0].sum())


# ---- resizing ---------------------------------------------------------------------------------------------

def kernel(mode: str, a: float) -> Callable[[Array], Array]:
    """The weight of an element at some distance."""
    if mode == "LINEAR":
        return lambda d: np.maximum(1 - np.abs(d), 0)
    return lambda d: np.where(np.abs(d) <= 1, (a + 2) * np.abs(d)**3 - (a + 3) * d**2 + 1, np.where(
        np.abs(d) < 2, a * (np.abs(d)**3 - 5 * d**2 + 8 * np.abs(d) - 4), 0))


def place(o: int, size: int, outputs: int, scale: float, coordinates: str) -> float:
    length = size * scale
    return {"HALF_PIXEL": (o + 0.5) / scale - 0.5, "ASYMMETRIC": o / scale, "TF_HALF_PIXEL": (o + 0.5) / scale,
            "PYTORCH_HALF_PIXEL": (o + 0.5) / scale - 0.5 if outputs > 1 else 0.0,
            "ALIGN_CORNERS": o * (size - 1) / (length - 1) if length != 1 else 0.0,
            "HALF_PIXEL_SYMMETRIC": size / 2 * (1 - outputs / length) + (o + 0.5) / scale - 0.5}[coordinates]


def weights(size: int, outputs: int, scale: float, coordinates: str, mode: str, exclude: bool = False,
            antialias: bool = False) -> Array:
    """The matrix that resamples an axis: the kernel at all elements, those beyond the border being the border's."""
    around = 40
    table = np.zeros((outputs, size))
    elements = np.arange(-around, size + around)
    for o in range(outputs):
        distances = elements - place(o, size, outputs, scale, coordinates)
        shares = kernel(mode, -0.75)(distances * (min(scale, 1) if antialias else 1))
        inside = np.where((elements < 0) | (elements >= size), 0, shares)
        shares = inside if exclude and inside.any() else shares
        shares /= shares.sum()
        np.add.at(table[o], np.clip(elements, 0, size - 1), shares)
    return table


COORDINATES = ("HALF_PIXEL", "HALF_PIXEL_SYMMETRIC", "PYTORCH_HALF_PIXEL", "ALIGN_CORNERS", "ASYMMETRIC",
               "TF_HALF_PIXEL")
X = np.random.default_rng(2).normal(size=(2, 3, 7, 6))


@pytest.mark.parametrize("mode", ["LINEAR", "CUBIC"])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(("scales", "sizes"), [((2, 3.5), None), ((0.625, 0.5), None), (None, (5, 9)), (None, (1, 1)),
                                               ((0.75, 1.75), (6, 11))])
def test_resize(mode: str, coordinates: str, scales: Any, sizes: Any) -> None:
    outputs = sizes or tuple(math.floor(size * scale) for size, scale in zip(X.shape[2:], scales, strict=True))
    used = scales or tuple(o / size for o, size in zip(outputs, X.shape[2:], strict=True))
    given_ = f"axis: [2, 3] {numbers('scale', scales or ())} {numbers('size', sizes or ())}"
    for exclude, antialias in itertools.product((False, True), repeat=2):
        text = one("Resize", f"resize_param {{ mode: {mode} coordinates: {coordinates} {given_} exclude_outside: "
                             f"{str(exclude).lower()} antialias: {str(antialias).lower()} }}")
        rows, columns = (weights(size, o, scale, coordinates, mode, exclude, antialias)
                         for size, o, scale in zip(X.shape[2:], outputs, used, strict=True))
        np.testing.assert_allclose(forward(text, OPS, X), np.einsum("oh,pw,nchw->ncop", rows, columns, X), rtol=1e-10,
                                   atol=1e-12)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(("rounding", "nearest"), [
    ("ROUND_PREFER_FLOOR", lambda x: math.ceil(x - 0.5)), ("ROUND_PREFER_CEIL", lambda x: math.floor(x + 0.5)),
    ("FLOOR", math.floor), ("CEIL", math.ceil)])
def test_resize_to_the_nearest(coordinates: str, rounding: str, nearest: Callable[[float], int]) -> None:
    for axis, scale in ((0, 2), (2, 0.5), (3, 1.5), (1, 4)):
        size = X.shape[axis]
        outputs = int(size * scale)
        indices = np.clip([nearest(place(o, size, outputs, scale, coordinates)) for o in range(outputs)], 0, size - 1)
        text = one("Resize", f"resize_param {{ coordinates: {coordinates} rounding: {rounding} axis: {axis} scale: "
                             f"{scale} }}")
        np.testing.assert_array_equal(forward(text, OPS, X), np.take(X, indices, axis=axis))


def test_sizes_are_rounded_as_in_single_precision() -> None:
    """0.7 is a little less than that as a float32, but ten times it is 7 in one."""
    assert forward(one("Resize", "resize_param { axis: 0 scale: 0.7 }"), OPS, np.arange(10.0)).shape == (7,)


def test_crop_and_resize() -> None:
    """From row 0.5 to beyond the last, and columns in reverse."""
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    text = one("Resize", "resize_param { mode: LINEAR axis: [2, 3] size: [4, 3] coordinates: TF_CROP_AND_RESIZE "
                         "roi_begin: [0.25, 1] roi_end: [1.75, 0] extrapolation_value: -7 }")
    rows = np.array([2.0, 6, -7, -7])[:, None]  # at rows 0.5, 1.5, 2.5 and 3.5
    expected = np.where(rows < 0, -7, rows + [3, 1.5, 0])
    np.testing.assert_allclose(forward(text, OPS, x)[0, 0], expected)
