"""Reduction, MVN, Normalize and Axpy against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make

from barista.errors import NetError, ShapeError
from barista.net import Net
from barista.ops.cpu import CpuOps

Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]

OPS = CpuOps(np.float64, 2)
FEW = settings(max_examples=25, derandomize=True, deadline=None, database=None)
SHAPES = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


def run(net: Net, **values: Array) -> tuple[Array, Array]:
    """y, and the gradient dy that was set."""
    for name, value in values.items():
        net.blobs[name].data[...] = value
    net.forward_pass()
    dy = np.random.default_rng(5).uniform(-1, 1, net.blobs["y"].shape)
    net.blobs["y"].diff[...] = dy
    net.clear_param_diffs()
    net.backward_pass()
    return net.blobs["y"].data.copy(), dy


def signed(shape: Shape, seed: int) -> Array:
    """Numbers of both signs, zeros among them."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 2, shape) * rng.choice([0.0, 1, 1, 1], shape)


# ---- Reduction --------------------------------------------------------------------------------------------


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), operation=st.sampled_from(
    ["SUM", "ASUM", "SUMSQ", "MEAN"]), place=st.integers(0, 9), coeff=st.sampled_from([1.0, -2.5, 0.0]))
def test_reduction(shape: Shape, operation: str, place: int, coeff: float) -> None:
    axis = place % (2 * len(shape)) - len(shape)
    x = signed(shape, place)
    net = make(inputs(x=shape) + layer("Reduction", more=f"reduction_param {{ operation: {operation} axis: {axis} "
                                                         f"coeff: {coeff} }}"), OPS)
    y, dy = run(net, x=x)
    kept = shape[:axis % len(shape)]
    assert y.shape == kept
    rows, dx = x.reshape(math.prod(kept), -1), np.zeros(x.size).reshape(math.prod(kept), -1)
    for n, row in enumerate(rows):
        total = 0.0
        for k, value in enumerate(row):
            total += {"SUM": value, "ASUM": abs(value), "SUMSQ": value**2, "MEAN": value / len(row)}[operation]
            slope = {"SUM": 1, "ASUM": np.sign(value), "SUMSQ": 2 * value, "MEAN": 1 / len(row)}[operation]
            dx[n, k] = coeff * slope * dy.reshape(-1)[n]
        np.testing.assert_allclose(y.reshape(-1)[n], coeff * total, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(net.blobs["x"].diff, dx.reshape(shape), rtol=1e-12, atol=1e-12)


def test_reduction_to_a_loss() -> None:
    net = make(inputs(x=(2, 3)) + layer("Reduction", more="loss_weight: 0.5 reduction_param { operation: SUMSQ }"), OPS)
    net.blobs["x"].data[...] = [[1, -2, 3], [0, 1, -1]]
    net.forward_pass()
    assert net.loss() == 8
    net.backward_pass()
    assert net.blobs["x"].diff.tolist() == [[1, -2, 3], [0, 1, -1]]


# ---- MVN --------------------------------------------------------------------------------------------------


def mvn(x: Array, dy: Array, across: bool, whiten: bool, eps: float) -> tuple[Array, Array]:
    """y and dx of x(N, C, ...), row after row."""
    rows = x.reshape(len(x) if across else len(x) * x.shape[1], -1)
    y, dx = np.zeros(rows.shape), np.zeros(rows.shape)
    for n, (row, gradient) in enumerate(zip(rows, dy.reshape(rows.shape), strict=True)):
        mean = sum(row) / len(row)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row)) + eps if whiten else 1.0
        y[n] = [(value - mean) / deviation for value in row]
        along = sum(a * b for a, b in zip(gradient, y[n], strict=True)) / len(row) if whiten else 0.0
        dx[n] = [(g - sum(gradient) / len(row) - along * value) / deviation
                 for g, value in zip(gradient, y[n], strict=True)]
    return y, dx


@FEW
@given(shape=SHAPES, across=st.booleans(), whiten=st.booleans(), eps=st.sampled_from([1e-9, 0.5]),
       seed=st.integers(0, 9))
def test_mvn(shape: Shape, across: bool, whiten: bool, eps: float, seed: int) -> None:
    shape = (*shape[:-1], shape[-1] + 1)
    x = np.random.default_rng(seed).uniform(-2, 5, shape)
    net = make(inputs(x=shape) + layer("MVN", more=f"mvn_param {{ across_channels: {str(across).lower()} "
                                       f"normalize_variance: {str(whiten).lower()} eps: {eps} }}"), OPS)
    y, dy = run(net, x=x)
    assert y.shape == (*shape, 1, 1)[:4]  # as Caffe's, always four axes
    # A row of one element has no deviation: rounding would be divided by eps.
    if math.prod(shape[1 if across else 2:]) > 1:
        expected, dx = mvn(x, dy, across, whiten, net.layers[1].param.mvn_param.eps)
        np.testing.assert_allclose(y.reshape(-1), expected.reshape(-1), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(net.blobs["x"].diff.reshape(-1), dx.reshape(-1), rtol=1e-8, atol=1e-8)


def test_mvn_of_a_constant_is_zero() -> None:
    y, _ = run(make(inputs(x=(2, 3, 4, 4)) + layer("MVN"), OPS), x=np.full((2, 3, 4, 4), 0.75))
    assert not y.any()


# ---- Normalize --------------------------------------------------------------------------------------------


def normalize(x: Array, dy: Array, scale: Array, spatial: bool, eps: float) -> tuple[Array, Array, Array]:
    """y, dx and the gradient of each channel's scale, of x(N, C, S)."""
    y, dx, dscale = np.zeros(x.shape), np.zeros(x.shape), np.zeros(x.shape[1])
    channels, pixels = range(x.shape[1]), range(x.shape[2])
    for n in range(len(x)):
        groups = ([list(itertools.product(channels, pixels))] if spatial
                  else [[(c, s) for c in channels] for s in pixels])
        for group in groups:
            length = math.sqrt(sum(x[n, c, s] ** 2 for c, s in group) + eps)
            along = sum(x[n, c, s] * scale[c] * dy[n, c, s] for c, s in group)
            for c, s in group:
                y[n, c, s] = scale[c] * x[n, c, s] / length
                dx[n, c, s] = (scale[c] * dy[n, c, s] - x[n, c, s] * along / length**2) / length
                dscale[c] += dy[n, c, s] * x[n, c, s] / length
    return y, dx, dscale


@FEW
@given(shape=SHAPES, spatial=st.booleans(), shared=st.booleans(), seed=st.integers(0, 9))
def test_normalize(shape: Shape, spatial: bool, shared: bool, seed: int) -> None:
    x = signed(shape, seed)
    net = make(inputs(x=shape) + layer("Normalize", more=f"norm_param {{ across_spatial: {str(spatial).lower()} "
                                       f"channel_shared: {str(shared).lower()} eps: 0.01 }}"), OPS)
    blob = net.params["layer"][0]
    assert blob.shape == (() if shared else (shape[1],))
    assert (blob.data == 1).all()
    blob.data[...] = np.random.default_rng(seed).uniform(-3, 3, blob.shape)
    y, dy = run(net, x=x)
    assert y.shape == shape
    folded = (*shape[:2], math.prod(shape[2:]))
    scale = np.broadcast_to(blob.data, shape[1])
    expected, dx, dscale = normalize(x.reshape(folded), dy.reshape(folded), scale, spatial,
                                     net.layers[1].param.norm_param.eps)
    np.testing.assert_allclose(y, expected.reshape(shape), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(net.blobs["x"].diff, dx.reshape(shape), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(blob.diff, dscale.sum() if shared else dscale, rtol=1e-10, atol=1e-12)


def test_normalize_takes_a_filler_and_other_shapes_later() -> None:
    param = "scale_filler { type: 'constant' value: 20 } across_spatial: false channel_shared: false"
    net = make(inputs(x=(1, 4, 3, 3)) + layer("Normalize", more=f"norm_param {{ {param} }}"), OPS)
    assert net.params["layer"][0].data.tolist() == [20] * 4
    net.blobs["x"].reshape(2, 4, 1, 5)
    net.reshape()
    y, _ = run(net, x=signed((2, 4, 1, 5), 1) + 3)
    np.testing.assert_allclose((y**2).sum(axis=1), 400, rtol=1e-9)


def test_normalize_without_gradient_of_its_scale_or_its_bottom() -> None:
    frozen = make(inputs(x=(2, 3)) + layer("Normalize", more="loss_weight: 1 param { lr_mult: 0 }"), OPS, head="")
    run(frozen, x=signed((2, 3), 1))
    assert frozen.layer_need_backward == [False, False]
    learning = make(inputs(x=(2, 3)) + layer("Normalize", more="loss_weight: 1"), OPS, head="")
    run(learning, x=signed((2, 3), 1))
    assert learning.params["layer"][0].diff != 0
    assert not learning.blobs["x"].diff.any()


# ---- Axpy -------------------------------------------------------------------------------------------------


@FEW
@given(shape=SHAPES, long=st.booleans(), seed=st.integers(0, 9), wanted=st.lists(st.booleans(), min_size=3, max_size=3))
def test_axpy(shape: Shape, long: bool, seed: int, wanted: list[bool]) -> None:
    factors = (*shape[:2], 1, 1) if long else shape[:2]
    a, x, z = signed(factors, seed), signed(shape, seed + 1), signed(shape, seed + 2)
    net = make(inputs(a=factors, x=shape, z=shape) + layer("Axpy", "a x z"), OPS)
    y, dy = run(net, a=a, x=x, z=z)
    for name in "axz":
        net.blobs[name].diff[...] = 9
    net.layers[-1].backward([net.blobs["y"]], wanted, [net.blobs[name] for name in "axz"])
    spread = a.reshape(*shape[:2], *[1] * (len(shape) - 2))
    np.testing.assert_allclose(y, spread * x + z, rtol=1e-13)
    expected = ((dy * x).reshape(*shape[:2], -1).sum(axis=2).reshape(factors), dy * spread, dy)
    for name, gradient, value in zip("axz", expected, wanted, strict=True):
        np.testing.assert_allclose(net.blobs[name].diff, gradient if value else np.full(gradient.shape, 9), rtol=1e-12,
                                   atol=1e-13)


# ---- wrong arguments --------------------------------------------------------------------------------------

WRONG = {
    "reduction_axis": (inputs(x=(2, 3)) + layer("Reduction", more="reduction_param { axis: 2 }"), ShapeError,
                       "layer (Reduction): axis 2 does not exist in a blob of 2 axes, shape (2, 3); give -2 to 1"),
    "reduction_in_place": (inputs(x=(2, 3)) + layer("Reduction", "x", "x"), NetError,
                           "layer (Reduction): cannot work in place; give the top a name of its own"),
    "mvn_axes": (inputs(x=(2, 3, 4, 5, 6)) + layer("MVN"), ShapeError,
                 "layer (MVN): needs a bottom of up to 4 axes (N, C, H, W), got shape (2, 3, 4, 5, 6)"),
    "normalize_axes": (inputs(x=(2,)) + layer("Normalize"), ShapeError,
                       "layer (Normalize): needs a bottom (N, C, ...) of at least 2 axes, got shape (2,)"),
    "axpy_in_place": (inputs(x=(2, 3), z=(2, 3), a=(2, 3)) + layer("Axpy", "x z a", "x"), NetError,
                      "layer (Axpy): cannot work in place"),
    "axpy_factors": (inputs(a=(2, 4), x=(2, 3, 5), z=(2, 3, 5)) + layer("Axpy", "a x z"), ShapeError,
                     "layer (Axpy): the first bottom needs shape (2, 3), or that with axes of size 1 behind it, to go "
                     "with the second (N, C, ...) of shape (2, 3, 5); got (2, 4)"),
    "axpy_factor_axes": (inputs(a=(2, 3, 5), x=(2, 3, 5), z=(2, 3, 5)) + layer("Axpy", "a x z"), ShapeError,
                         "got (2, 3, 5)"),
    "axpy_sum": (inputs(a=(2, 3), x=(2, 3, 5), z=(2, 3, 1)) + layer("Axpy", "a x z"), ShapeError,
                 "the second and third bottom must have one shape; got (2, 3, 5) and (2, 3, 1)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    text, kind, message = WRONG[name]
    with pytest.raises(kind) as error:
        make(text, OPS)
    assert message in str(error.value)


def test_normalize_refuses_other_channels_later() -> None:
    net = make(inputs(x=(2, 3)) + layer("Normalize", more="norm_param { channel_shared: false }"), OPS)
    net.blobs["x"].reshape(2, 4)
    with pytest.raises(ShapeError, match=r"layer \(Normalize\): has 3 scales but the bottom \(2, 4\) has 4 channels"):
        net.reshape()
