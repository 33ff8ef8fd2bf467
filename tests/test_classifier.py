"""Classifier and Detector: what reaches the net, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import barista as caffe
from barista.errors import DataError, NetError, UnsupportedError
from barista.net_spec import NetSpec
from barista.net_spec import layers as L  # noqa: N812 (the name that scripts give it)

BATCH, SIZE = 4, 6


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A deploy net of two classes with random weights, and its caffemodel."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [BATCH, 3, SIZE, SIZE]})
    n.ip = L.InnerProduct(n.data, num_output=2, weight_filler={"type": "gaussian", "std": 0.1})
    n.prob = L.Softmax(n.ip)
    (tmp_path / "deploy.prototxt").write_text(str(n.to_proto()))
    model, weights = str(tmp_path / "deploy.prototxt"), str(tmp_path / "net.caffemodel")
    caffe.set_random_seed(3)
    caffe.Net(model, caffe.TEST).save(weights)
    return model, weights


def expected(files: tuple[str, str], crops: np.ndarray) -> np.ndarray:
    """Probabilities of (N,K,H,W) inputs, computed from the weights."""
    params = caffe.Net(*files, caffe.TEST).params["ip"]
    scores = crops.reshape(len(crops), -1) @ params[0].data.T + params[1].data
    grown = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(grown / grown.sum(1, keepdims=True))


def images(count: int, height: int = SIZE, width: int = SIZE) -> list[np.ndarray]:
    return list(np.random.default_rng(0).random((count, height, width, 3)).astype(np.float32))


SETTINGS: dict[str, Any] = {"mean": np.array([100.0, 110, 120]), "raw_scale": 255, "input_scale": 0.02,
                            "channel_swap": (2, 1, 0)}


def as_input(image: np.ndarray) -> np.ndarray:
    return np.asarray((image[:, :, ::-1] * 255 - SETTINGS["mean"]).transpose(2, 0, 1) * 0.02)


def test_the_centre_alone(files: tuple[str, str]) -> None:
    """More images than a batch holds, larger than the net's input."""
    net = caffe.Classifier(*files, image_dims=(9, 8), **SETTINGS)
    given = images(6, 9, 8)
    result = net.predict(given, oversample=False)
    wanted = expected(files, np.stack([as_input(image[1:7, 1:7]) for image in given]))
    assert result.shape == (6, 2)
    assert np.allclose(result, wanted, atol=1e-4)


def test_ten_crops_are_averaged(files: tuple[str, str]) -> None:
    net = caffe.Classifier(*files, image_dims=(8, 8), **SETTINGS)
    given = images(3, 8, 8)
    wanted = [expected(files, np.stack([as_input(crop) for crop in caffe.io.oversample([image], (SIZE, SIZE))])).mean(0)
              for image in given]
    assert np.allclose(net.predict(given), wanted, atol=1e-4)


def test_images_are_resized(files: tuple[str, str]) -> None:
    net = caffe.Classifier(*files)
    small, large = images(1, 3, 4)[0], images(1, 20, 17)[0]
    wanted = expected(files, np.stack([caffe.io.resize_image(image, (SIZE, SIZE)).transpose(2, 0, 1)
                                       for image in (small, large)]))
    assert np.allclose(net.predict([small, large], oversample=False), wanted, atol=1e-4)


def test_what_a_classifier_refuses(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image_dims of \(5, 9\) are smaller than what net '' takes, \(6, 6\)"):
        caffe.Classifier(*files, image_dims=(5, 9))
    with pytest.raises(DataError, match="predict was given no image"):
        caffe.Classifier(*files).predict([])
    with pytest.raises(DataError, match="a mean of 2 numbers, but the input has 3 channels"):
        caffe.Classifier(*files, mean=np.zeros(2))
    for layer, message in ((L.DummyData(shape={"dim": [1, 3, 4, 4]}), "has no input of images, .*; give a deploy"),
                           (L.Input(shape={"dim": [1, 3]}), r"but 'Input1' of shape \(1, 3\); give a deploy")):
        path = tmp_path / "other.prototxt"
        path.write_text(str(layer.to_proto()))
        with pytest.raises(NetError, match=message):
            caffe.Classifier(path, files[1])


@pytest.fixture
def photo(tmp_path: Path) -> tuple[str, np.ndarray]:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png"), (pixels / np.float32(255)).astype(np.float32)


def test_windows(files: tuple[str, str], photo: tuple[str, np.ndarray]) -> None:
    name, image = photo
    windows = [(2, 3, 8, 9), (0, 0, 20, 30), (5, 5, 6, 25), (1, 2, 3, 4), (10, 20, 18, 29)]
    found = caffe.Detector(*files, **SETTINGS).detect_windows([(name, windows), (name, [])])
    assert [(entry["filename"], entry["window"]) for entry in found] == [(name, window) for window in windows]
    crops = [caffe.io.resize_image(image[top:bottom, left:right], (SIZE, SIZE))
             for top, left, bottom, right in windows]
    wanted = expected(files, np.stack([as_input(crop) for crop in crops]))
    assert np.allclose([entry["prediction"] for entry in found], wanted, atol=1e-4)
    assert caffe.Detector(*files).detect_windows([(name, [])]) == []


def test_windows_with_context(files: tuple[str, str], photo: tuple[str, np.ndarray]) -> None:
    """A window of 4 pixels a side, shown as 4 of 6 with a pixel around; at the corner that is the mean."""
    _, image = photo
    detector = caffe.Detector(*files, context_pad=1, **SETTINGS)
    inner = detector.crop(image, (8, 10, 11, 13))
    assert np.allclose(inner, caffe.io.resize_image(image[7:13, 9:15], (SIZE, SIZE))[:SIZE, :SIZE], atol=0.2)
    assert inner.shape == (SIZE, SIZE, 3)
    corner = detector.crop(image, (0, 0, 3, 3))
    mean = np.array([120, 110, 100]) / 255  # as an image has it: red first
    assert np.allclose(corner[0], mean)
    assert np.allclose(corner[:, 0], mean)
    assert not np.isclose(corner[1:, 1:], mean).all(axis=2).any()
    end = detector.crop(image, (15, 25, 19, 29))
    assert np.allclose(end[-1], mean)
    assert not np.allclose(end[0], mean)


def test_the_mean_image_around_a_window(files: tuple[str, str], photo: tuple[str, np.ndarray]) -> None:
    mean = np.random.default_rng(5).random((3, SIZE, SIZE)).astype(np.float32)
    detector = caffe.Detector(*files, mean=mean, context_pad=2)
    assert np.array_equal(detector.crop(photo[1], (0, 0, 2, 2))[0], mean.transpose(1, 2, 0)[0])
    detector.configure_crop(None)
    assert detector.crop(photo[1], (1, 2, 4, 9)).shape == (3, 7, 3)
    assert not caffe.Detector(*files, context_pad=2).crop_mean.any()


def test_what_a_detector_refuses(files: tuple[str, str], photo: tuple[str, np.ndarray]) -> None:
    for pad in (None, 1):
        detector = caffe.Detector(*files, context_pad=pad)
        for window in ((30, 5, 40, 15), (-30, 0, -20, 10), (2, 90, 4, 95)):
            with pytest.raises(DataError, match="has no pixel of the image, 20 x 30; it must be"):
                detector.crop(photo[1], window)
    with pytest.raises(DataError, match="a context of 3 pixels on each side leaves nothing of the input's 6 x 6"):
        detector.configure_crop(3)
    with pytest.raises(UnsupportedError, match=r"runs a MATLAB program .* give them to detect_windows"):
        detector.detect_selective_search(["photo.png"])
