"""The transformation against Caffe's formula, written out pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from barista.data.mean import write_mean
from barista.data.transformer import Transformer
from barista.errors import DataError
from barista.proto import caffe_pb2

RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, (64, 3, 6, 8), dtype=np.uint8)
MEAN = RNG.normal(100, 60, (3, 6, 8)).astype(np.float32)


def transformer(phase: int = caffe_pb2.TEST, seed: int = 3, **fields: object) -> Transformer:
    return Transformer(caffe_pb2.TransformationParameter(**fields), phase, np.random.default_rng(seed))


def reference(image: np.ndarray, mean: np.ndarray, scale: float, top: int, left: int, mirror: bool,
              height: int, width: int) -> np.ndarray:
    """One image by loops; `mean` is (C,H,W)."""
    out = np.empty((image.shape[0], height, width), np.float32)
    for c in range(image.shape[0]):
        for y in range(height):
            for x in range(width):
                source = np.float32(image[c, top + y, left + x])
                target = width - 1 - x if mirror else x
                out[c, y, target] = (source - mean[c, top + y, left + x]) * np.float32(scale)
    return out


@pytest.fixture
def mean_file(tmp_path: Path) -> str:
    write_mean(tmp_path / "mean.binaryproto", MEAN)
    return str(tmp_path / "mean.binaryproto")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_asked_is_a_cast(dtype: type) -> None:
    subject = transformer()
    out = subject.transform_batch(IMAGES, np.full(IMAGES.shape, np.nan, dtype))
    np.testing.assert_array_equal(out, IMAGES)
    assert out.dtype == dtype and subject.output_shape(3, 6, 8) == (3, 6, 8)


def test_centre_crop_at_test(mean_file: str) -> None:
    for crop, top, left in ((5, 0, 1), (3, 1, 2), (6, 0, 1), (1, 2, 3)):
        subject = transformer(mean_file=mean_file, crop_size=crop, scale=0.3)
        assert subject.output_shape(3, 6, 8) == (3, crop, crop)
        out = subject.transform_batch(list(IMAGES[:4]), np.empty((4, 3, crop, crop), np.float32))
        for image, result in zip(IMAGES, out, strict=False):
            np.testing.assert_array_equal(result, reference(image, MEAN, 0.3, top, left, False, crop, crop))


@pytest.mark.parametrize("values", [[50.5], [104.0, -117.0, 123.25]])
def test_mean_values(values: list[float]) -> None:
    out = transformer(mean_value=values, scale=-2).transform_batch(IMAGES, np.empty(IMAGES.shape, np.float32))
    mean = np.broadcast_to(np.array(values * (3 // len(values)), np.float32)[:, None, None], (3, 6, 8))
    for image, result in zip(IMAGES[:3], out, strict=False):
        np.testing.assert_array_equal(result, reference(image, mean, -2, 0, 0, False, 6, 8))


@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
@pytest.mark.parametrize("crop", [0, 5])
def test_every_crop_and_mirror_of_caffe_happens(mean_file: str, phase: int, crop: int) -> None:
    height, width = (crop, crop) if crop else (6, 8)
    places = [(0, 0)]
    if crop:
        places = [(y, x) for y in range(2) for x in range(4)] if phase == caffe_pb2.TRAIN else [(0, 1)]
    subject = transformer(phase, mean_file=mean_file, crop_size=crop, mirror=True, scale=0.5)
    out = subject.transform_batch(IMAGES, np.empty((64, 3, height, width), np.float32))
    seen = set()
    for image, result in zip(IMAGES, out, strict=True):
        hits = [(top, left, mirror) for top, left in places for mirror in (False, True)
                if np.array_equal(result, reference(image, MEAN, 0.5, top, left, mirror, height, width))]
        assert len(hits) == 1
        seen.add(hits[0])
    assert len(seen) == 2 * len(places)


def test_the_same_state_gives_the_same_batch() -> None:
    first, second = (transformer(caffe_pb2.TRAIN, crop_size=3, mirror=True) for _ in range(2))
    shape = (64, 3, 3, 3)
    first.transform_batch(IMAGES, np.empty(shape, np.float32))
    second.rng.bit_generator.state = first.rng.bit_generator.state
    np.testing.assert_array_equal(first.transform_batch(IMAGES, np.empty(shape, np.float32)),
                                  second.transform_batch(IMAGES, np.empty(shape, np.float32)))


def test_floats_negative_and_zero() -> None:
    image = np.array([[[-1.5, 0.0], [1e6, 3.0]]], np.float32)
    out = transformer(mean_value=[3], scale=2).transform_batch([image], np.empty((1, 1, 2, 2), np.float32))
    np.testing.assert_array_equal(out[0, 0], [[-9, -6], [1999994, 0]])


def test_images_of_many_sizes_with_a_crop() -> None:
    images = [np.full((1, 4 + k, 9 - k), k, np.uint8) for k in range(5)]
    for phase in (caffe_pb2.TRAIN, caffe_pb2.TEST):
        out = transformer(phase, crop_size=4).transform_batch(images, np.empty((5, 1, 4, 4), np.float32))
        assert (out == np.arange(5)[:, None, None, None]).all()


def test_parameters_that_contradict(mean_file: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="and 2 mean_value are both set"):
        transformer(mean_file=mean_file, mean_value=[1, 2])
    with pytest.raises(DataError, match="force_color and force_gray are both set"):
        transformer(force_color=True, force_gray=True)
    with pytest.raises(DataError, match=r"mean file .*none' cannot be read"):
        transformer(mean_file=str(tmp_path / "none"))


def test_images_that_do_not_fit(mean_file: str) -> None:
    with pytest.raises(DataError, match="crop_size=7 exceeds the image, 6 x 8 pixels"):
        transformer(crop_size=7).output_shape(3, 6, 8)
    with pytest.raises(DataError, match=r"has shape \(3, 6, 8\), but the image has \(3, 6, 9\)"):
        transformer(mean_file=mean_file).output_shape(3, 6, 9)
    with pytest.raises(DataError, match=r"2 mean_value for 3 channels; give 1 or 3$"):
        transformer(mean_value=[1, 2]).output_shape(3, 6, 8)
    with pytest.raises(DataError, match=r"2 mean_value for 1 channels; give 1$"):
        transformer(mean_value=[1, 2]).output_shape(1, 6, 8)
    with pytest.raises(DataError, match=r"image 1 of shape \(3, 5, 8\) becomes \(3, 5, 8\), but the batch"):
        transformer().transform_batch([IMAGES[0], IMAGES[0][:, 1:]], np.empty((2, 3, 6, 8), np.float32))
    with pytest.raises(DataError, match="2 images for a batch of 3"):
        transformer().transform_batch(IMAGES[:2], np.empty((3, 3, 6, 8), np.float32))
    with pytest.raises(DataError, match=r"image 0 has shape \(6, 8\); it must be"):
        transformer().transform_batch(IMAGES[0], np.empty((3, 3, 6, 8), np.float32))
