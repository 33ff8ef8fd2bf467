"""ContrastiveLoss, InfogainLoss, MultinomialLogisticLoss and SmoothL1Loss against plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import Shape, inputs, layer, make

from barista.errors import BaristaError, DataError, NetError, ShapeError
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.blobs import array_to_blob
from barista.proto.caffe_pb2 import BlobProto

Array = npt.NDArray[np.float64]

OPS = CpuOps(np.float64, 2)
FEW = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def run(net: Net, **values: npt.ArrayLike) -> float:
    """The loss, once forward and backward have run with these values; what stood in the gradients does not count."""
    for name, value in values.items():
        net.blobs[name].data[...] = value
        net.blobs[name].diff[...] = np.nan
    net.forward_pass()
    net.backward_pass()
    return float(net.blobs["y"].data)


def check(net: Net, name: str, gradient: Array) -> None:
    np.testing.assert_allclose(net.blobs[name].diff.reshape(-1), gradient.reshape(-1), rtol=1e-10, atol=1e-12)


# ---- ContrastiveLoss --------------------------------------------------------------------------------------


def contrastive(a: Array, b: Array, similar: Array, margin: float, legacy: bool) -> tuple[float, Array]:
    """The loss and its gradient with respect to a(N, C)."""
    loss, da = 0.0, np.zeros(a.shape)
    for n, (one, other) in enumerate(zip(a, b, strict=True)):
        square = sum((one - other) ** 2)
        distance = math.sqrt(square)
        if int(similar[n]):
            loss, da[n] = loss + square, one - other
        elif legacy and square < margin:
            loss, da[n] = loss + margin - square, other - one
        elif not legacy and distance < margin:
            loss += (margin - distance) ** 2
            da[n] = (other - one) * (margin - distance) / (distance + 1e-4)
    return loss / len(a) / 2, da / len(a)


@FEW
@given(pairs=st.integers(1, 6), channels=st.integers(1, 5), margin=st.sampled_from([0.5, 1.4, 6.0]),
       legacy=st.booleans(), long=st.booleans(), seed=st.integers(0, 99))
def test_contrastive(pairs: int, channels: int, margin: float, legacy: bool, long: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, (2, pairs, channels))
    b[0] = a[0]  # a pair at no distance
    # What counts is the integer part.
    similar = rng.choice([0.0, 1.0, 0.9, -0.9, 1.5, 2.0, -1.0], pairs)
    shape = (pairs, channels, 1, 1) if long else (pairs, channels)
    net = make(inputs(a=shape, b=(pairs, channels), t=(pairs,)) + layer(
        "ContrastiveLoss", "a b t", more=f"loss_weight: 3 contrastive_loss_param {{ margin: {margin} "
                                         f"legacy_version: {str(legacy).lower()} }}"), OPS)
    margin = net.layers[-1].param.contrastive_loss_param.margin
    loss, da = contrastive(a, b, similar, margin, legacy)
    np.testing.assert_allclose(run(net, a=a.reshape(shape), b=b, t=similar), loss, rtol=1e-12)
    check(net, "a", 3 * da)
    check(net, "b", -3 * da)


def test_contrastive_with_another_batch_and_one_gradient() -> None:
    net = make(inputs(a=(2, 3), b=(2, 3), t=(2,)) + layer("ContrastiveLoss", "a b t"), OPS)
    for name, shape in (("a", (5, 3)), ("b", (5, 3)), ("t", (5, 1))):
        net.blobs[name].reshape(*shape)
    net.reshape()
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-1, 1, (2, 5, 3))
    loss, da = contrastive(a, b, np.array([1, 0, 0, 1, 0]), 1.0, False)
    assert run(net, a=a, b=b, t=np.array([[1], [0], [0], [1], [0]])) == pytest.approx(loss, rel=1e-12)
    check(net, "b", -da)
    net.blobs["a"].diff[...] = 7
    net.layers[-1].backward([net.blobs["y"]], [False, True, False], [net.blobs[name] for name in "abt"])
    check(net, "b", -da)
    assert (net.blobs["a"].diff == 7).all()


# ---- InfogainLoss -----------------------------------------------------------------------------------------


def infogain(x: Array, labels: Array, gains: Array, ignore: int | None, mode: str) -> tuple[float, Array]:
    """The loss and its gradient, of x(outer, classes, inner)."""
    loss, dx, counted = 0.0, np.zeros(x.shape), 0
    for n in range(x.shape[0]):
        for s in range(x.shape[2]):
            label = int(labels[n, s])
            if label == ignore:
                continue
            counted += 1
            exponentials = [math.exp(value - max(x[n, :, s])) for value in x[n, :, s]]
            for k, value in enumerate(exponentials):
                probability = value / sum(exponentials)
                loss -= gains[label, k] * math.log(max(probability, 1e-20))
                dx[n, k, s] = probability * sum(gains[label]) - gains[label, k]
    share = max(1, {"VALID": counted, "FULL": labels.size, "BATCH_SIZE": x.shape[0], "NONE": 1}[mode])
    return loss / share, dx / share


@FEW
@given(outer=st.integers(1, 3), classes=st.integers(1, 4), inner=st.integers(1, 3),
       ignore=st.sampled_from([None, 0, 9]), mode=st.sampled_from(["VALID", "FULL", "BATCH_SIZE", "NONE"]),
       seed=st.integers(0, 99))
def test_infogain(outer: int, classes: int, inner: int, ignore: int | None, mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (outer, classes, inner)) * rng.choice([1, 30])
    gains = rng.uniform(-1, 2, (classes, classes))
    labels = rng.integers(0, classes, (outer, inner))
    if ignore is not None:
        labels.flat[seed % labels.size] = ignore
    rule = f"normalization: {mode} " + (f"ignore_label: {ignore}" if ignore is not None else "")
    net = make(inputs(x=x.shape, t=labels.shape, h=(1, 1, classes, classes))
               + layer("InfogainLoss", "x t h", "y p", f"loss_param {{ {rule} }} loss_weight: 2 loss_weight: 0"), OPS)
    loss, dx = infogain(x, labels, gains, ignore, mode)
    np.testing.assert_allclose(run(net, x=x, t=labels, h=gains), loss, rtol=1e-10, atol=1e-13)
    check(net, "x", 2 * dx)
    np.testing.assert_allclose(net.blobs["p"].data.sum(axis=1), 1, rtol=1e-12)


def test_infogain_of_the_identity_is_softmax_loss() -> None:
    rng = np.random.default_rng(3)
    x, t = rng.uniform(-2, 2, (2, 3, 4)), rng.integers(0, 4, (2, 3))
    head = inputs(x=x.shape, t=t.shape)
    one = make(head + inputs(h=(4, 4)) + layer("InfogainLoss", "x t h", more="infogain_loss_param { axis: -1 }"), OPS)
    other = make(head + layer("SoftmaxWithLoss", "x t", more="softmax_param { axis: -1 }"), OPS)
    assert run(one, x=x, t=t, h=np.eye(4)) == pytest.approx(run(other, x=x, t=t), rel=1e-13)
    check(one, "x", other.blobs["x"].diff)


def write_gains(path: Path, gains: Array) -> str:
    blob = BlobProto()
    array_to_blob(gains, blob)
    path.write_bytes(blob.SerializeToString())
    return f"infogain_loss_param {{ source: '{path}' }}"


def test_infogain_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x, t, gains = rng.uniform(-2, 2, (5, 3)), rng.integers(0, 3, 5), rng.uniform(-1, 1, (3, 3))
    param = write_gains(tmp_path / "gains.binaryproto", gains.reshape(1, 1, 3, 3))
    net = make(inputs(x=x.shape, t=t.shape) + layer("InfogainLoss", "x t", more=param), OPS)
    loss, dx = infogain(x[:, :, None], t[:, None], gains, None, "VALID")
    assert run(net, x=x, t=t) == pytest.approx(loss, rel=1e-12)
    check(net, "x", dx)


# ---- MultinomialLogisticLoss ------------------------------------------------------------------------------


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), seed=st.integers(0, 99))
def test_multinomial(shape: Shape, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, shape) * rng.choice([0.0, 1, 1, -1], shape)  # zeros and less count as 1e-20
    rows, dx = x.reshape(shape[0], -1), np.zeros(x.shape).reshape(shape[0], -1)
    labels = rng.integers(0, rows.shape[1], shape[0])
    loss = 0.0
    for n, label in enumerate(labels):
        probability = max(rows[n, label], 1e-20)
        loss -= math.log(probability) / shape[0]
        dx[n, label] = -1.5 / probability / shape[0]
    net = make(inputs(x=shape, t=(shape[0], 1)) + layer("MultinomialLogisticLoss", "x t", more="loss_weight: 1.5"), OPS)
    np.testing.assert_allclose(run(net, x=x, t=labels[:, None]), loss, rtol=1e-12, atol=1e-14)
    check(net, "x", dx)


# ---- SmoothL1Loss -----------------------------------------------------------------------------------------


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), weights=st.integers(0, 2),
       sigma=st.sampled_from([1.0, 3.0, 0.5]), seed=st.integers(0, 99))
def test_smooth_l1(shape: Shape, weights: int, sigma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {name: rng.uniform(-2, 2, shape) * rng.choice([0.0, 1], shape) for name in "xzio"[:2 + weights]}
    inside = values.get("i", np.ones(shape))
    outside = values.get("o", np.ones(shape))
    loss, dx = 0.0, np.zeros(shape)
    for place in np.ndindex(shape):
        d = inside[place] * (values["x"][place] - values["z"][place])
        near = abs(d) < 1 / sigma**2
        loss += outside[place] * (0.5 * (sigma * d) ** 2 if near else abs(d) - 0.5 / sigma**2) / shape[0]
        dx[place] = outside[place] * inside[place] * (sigma**2 * d if near else math.copysign(1, d)) / shape[0]
    net = make(inputs(**dict.fromkeys(values, shape)) + layer(
        "SmoothL1Loss", " ".join(values), more=f"loss_weight: 2 smooth_l1_loss_param {{ sigma: {sigma} }}"), OPS)
    np.testing.assert_allclose(run(net, **values), loss, rtol=1e-12, atol=1e-14)
    check(net, "x", 2 * dx)
    check(net, "z", -2 * dx)


def test_smooth_l1_weights_are_constants() -> None:
    """Behind a layer that learns their gradient is asked for: it is 0, not what stood there."""
    text = inputs(x=(2, 3), z=(2, 3, 1), h=(2, 3)) + layer("Scale", "h", "i", name="scale") + layer(
        "SmoothL1Loss", "x z i")
    net = make(text, OPS, head="")
    net.params["scale"][0].diff[...] = 0
    net.blobs["i"].diff[...] = 5
    run(net, x=np.ones((2, 3)), z=np.zeros((2, 3, 1)), h=np.ones((2, 3)))
    assert net.propagate_down[-1] == [False, False, True]
    assert not net.blobs["i"].diff.any()
    assert not net.params["scale"][0].diff.any()


# ---- wrong arguments --------------------------------------------------------------------------------------

LABELLED = inputs(x=(4, 3), t=(4,))

WRONG: dict[str, tuple[str, type[BaristaError], str]] = {
    "contrastive_features": (inputs(a=(4, 3), b=(4, 2), t=(4,)) + layer("ContrastiveLoss", "a b t"), ShapeError,
                             "layer (ContrastiveLoss): compares as many features of as many images, both (N, C) or "
                             "(N, C, 1, 1); got shapes (4, 3) and (4, 2)"),
    "contrastive_images": (inputs(a=(4, 3, 2, 2), b=(4, 3, 2, 2), t=(4,)) + layer("ContrastiveLoss", "a b t"),
                           ShapeError, "got shapes (4, 3, 2, 2) and (4, 3, 2, 2)"),
    "contrastive_similar": (inputs(a=(4, 3), b=(4, 3), t=(4, 2)) + layer("ContrastiveLoss", "a b t"), ShapeError,
                            "t, which says what is similar, has shape (4, 2) (8 elements); 4 pairs of shape (4, 3) "
                            "need one number each"),
    "contrastive_bottoms": (inputs(a=(4, 3), b=(4, 3)) + layer("ContrastiveLoss", "a b"), NetError,
                            "takes exactly 3 bottom blob(s), got 2"),
    "infogain_labels": (inputs(x=(4, 3), t=(5,), h=(3, 3)) + layer("InfogainLoss", "x t h"), ShapeError,
                        "the target t has shape (5,) (5 elements); the prediction (4, 3) needs 4 (one label for each "
                        "prediction)"),
    "infogain_gains": (LABELLED + inputs(h=(3, 4)) + layer("InfogainLoss", "x t h"), ShapeError,
                       "the matrix of gains has shape (3, 4) (12 numbers); the 3 classes on axis 1 of the prediction "
                       "(4, 3) need 3 x 3 = 9"),
    "infogain_no_gains": (LABELLED + layer("InfogainLoss", "x t"), NetError,
                          "layer (InfogainLoss): needs the matrix of gains: a third bottom, or a BlobProto file as "
                          "infogain_loss_param { source: ... }"),
    "infogain_no_file": (LABELLED + layer("InfogainLoss", "x t", more="infogain_loss_param { source: '/no/gains' }"),
                         NetError, "layer (InfogainLoss): the matrix of gains '/no/gains' cannot be read: No such file "
                         "or directory"),
    "multinomial_labels": (inputs(x=(4, 3), t=(4, 3)) + layer("MultinomialLogisticLoss", "x t"), ShapeError,
                           "the target t has shape (4, 3) (12 elements); the prediction (4, 3) needs 4 (one label an "
                           "image)"),
    "smooth_l1_target": (inputs(x=(4, 3), z=(4, 2)) + layer("SmoothL1Loss", "x z"), ShapeError,
                         "layer (SmoothL1Loss): all bottoms need the shape of the prediction x, (4, 3); z has (4, 2)"),
    "smooth_l1_weights": (inputs(x=(4, 3), z=(4, 3), i=(3,)) + layer("SmoothL1Loss", "x z i"), ShapeError,
                          "i has (3,)"),
    "smooth_l1_sigma": (inputs(x=(4, 3), z=(4, 3))
                        + layer("SmoothL1Loss", "x z", more="smooth_l1_loss_param { sigma: 0 }"), NetError,
                        "sigma=0 must be above 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    text, kind, message = WRONG[name]
    with pytest.raises(kind) as error:
        make(text, OPS)
    assert message in str(error.value)


@pytest.mark.parametrize(("content", "message"), [
    (b"\xff\xff\xff", "is no BlobProto file"), (b"", "a blob of shape () needs 1 numbers; the message holds 0"),
    (b"\x08\x03\x10\x03\x18\x01\x20\x01", "a blob of shape (3, 3, 1, 1) needs 9 numbers; the message holds 0"),
    (b"\x08\x04", "has shape (4, 0, 0, 0) (0 numbers); the 3 classes")])
def test_infogain_from_a_damaged_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "gains"
    path.write_bytes(content)
    with pytest.raises(NetError, match=r"layer \(InfogainLoss\): the matrix of gains") as error:
        make(LABELLED + layer("InfogainLoss", "x t", more=f"infogain_loss_param {{ source: '{path}' }}"), OPS)
    assert message in str(error.value)


@pytest.mark.parametrize(("type_", "bottom"), [("InfogainLoss", "x t h"), ("MultinomialLogisticLoss", "x t")])
def test_labels_that_are_no_class(type_: str, bottom: str) -> None:
    net = make(LABELLED + (inputs(h=(3, 3)) if "h" in bottom else "") + layer(type_, bottom), OPS)
    with pytest.raises(DataError, match=rf"layer \({type_}\): label 3 is none of the 3 classes 0 to 2"):
        run(net, x=np.ones((4, 3)), t=[0, 1, 2, 3])


@pytest.mark.parametrize(("type_", "bottom", "index"), [
    ("ContrastiveLoss", "a b t", 2), ("InfogainLoss", "x s h", 1), ("InfogainLoss", "x s h", 2),
    ("MultinomialLogisticLoss", "x s", 1)])
def test_what_has_no_gradient(type_: str, bottom: str, index: int) -> None:
    net = make(inputs(a=(4, 3), b=(4, 3), x=(4, 3), h=(3, 3), t=(4,), s=(4,)) + layer(type_, bottom), OPS, head="")
    names = bottom.split()
    wanted = [place == index for place in range(len(names))]
    message = rf"layer \({type_}\): has no gradient with respect to .*; set propagate_down: false"
    with pytest.raises(NetError, match=message):
        net.layers[-1].backward([net.blobs["y"]], wanted, [net.blobs[name] for name in names])
