"""Messages to arrays and back, images, and the transformer of pycaffe, against loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from barista import io
from barista.errors import DataError, UnsupportedError
from barista.proto.caffe_pb2 import BlobProto, Datum

# ---- messages ---------------------------------------------------------------------------------------------


def test_blobs_in_both_forms() -> None:
    old = BlobProto(num=1, channels=2, height=1, width=3, data=range(6), diff=range(6, 12))
    assert io.blobproto_to_array(old).tolist() == [[[[0, 1, 2]], [[3, 4, 5]]]]
    assert io.blobproto_to_array(old, return_diff=True).tolist() == [[[[6, 7, 8]], [[9, 10, 11]]]]
    new = BlobProto(data=[-1, 0.5])
    new.shape.dim.append(2)
    array = io.blobproto_to_array(new)
    assert (array.dtype, array.tolist()) == (np.float64, [-1, 0.5])
    assert io.blobproto_to_array(BlobProto(data=[7])) == 7


def test_a_blob_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"a blob of shape \(\) needs 1 numbers; the message holds 3 values"):
        io.blobproto_to_array(BlobProto(data=[1, 2, 3]))


def test_arrays_into_blobs() -> None:
    values = np.array([[1.5, -2], [0, 4]])
    blob = io.array_to_blobproto(values, diff=-values)
    assert list(blob.data) == [1.5, -2, 0, 4]
    assert list(blob.shape.dim) == [2, 2]
    assert np.array_equal(io.blobproto_to_array(blob), values)
    assert np.array_equal(io.blobproto_to_array(blob, True), -values)
    arrays = [values, np.zeros((0, 3)), np.array(3.0)]
    again = io.blobprotovector_str_to_arraylist(io.arraylist_to_blobprotovector_str(arrays))
    assert [a.shape for a in again] == [(2, 2), (0, 3), ()]
    assert all(map(np.array_equal, again, arrays))
    with pytest.raises(DataError, match="4 bytes that are not a BlobProtoVector message; they were cut short"):
        io.blobprotovector_str_to_arraylist(b"\x0a\x05ab")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_datums(dtype: Any) -> None:
    image = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = Datum.FromString(io.array_to_datum(image, label=5).SerializeToString())
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 4, 5)
    back = io.datum_to_array(datum)
    assert back.dtype == (np.uint8 if dtype is np.uint8 else np.float64)
    assert np.array_equal(back, image)
    back[0, 0, 0] = 9  # its own, and writable
    assert not io.array_to_datum(image).HasField("label")


def test_what_is_no_datum() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4\) cannot become a Datum; it must be \(C,H,W\)"):
        io.array_to_datum(np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"Datum has 3 bytes of data, but channels=1 height=2 width=2 need 4"):
        io.datum_to_array(Datum(channels=1, height=2, width=2, data=b"abc"))


# ---- images -----------------------------------------------------------------------------------------------


def test_images_are_red_green_blue(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    image = io.load_image(tmp_path / "colour.png")
    assert image.dtype == np.float32
    assert np.allclose(image, pixels / 255)
    grey = io.load_image(str(tmp_path / "colour.png"), color=False)
    assert grey.shape == (1, 3, 1)
    assert np.allclose(grey[0, :, 0], [0.2125, 0.7154, 0.0721 * 0.2])


def test_grey_images_and_transparent_ones(tmp_path: Path) -> None:
    grey = np.array([[0, 51], [255, 102]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.allclose(io.load_image(tmp_path / "grey.png"), np.repeat(grey[:, :, None], 3, 2) / 255)
    assert np.allclose(io.load_image(tmp_path / "grey.png", color=False), grey[:, :, None] / 255)
    Image.fromarray(np.full((2, 2, 4), 51, np.uint8)).save(tmp_path / "alpha.png")
    assert np.allclose(io.load_image(tmp_path / "alpha.png"), np.full((2, 2, 3), 0.2))
    with pytest.raises(DataError, match=r"missing\.png' cannot be read: No such file"):
        io.load_image(tmp_path / "missing.png")


def resized(im: np.ndarray, height: int, width: int, order: int) -> np.ndarray:
    """Place by place: squares with the smallest value around them, or a grid with fixed corners."""
    area = im.shape[2] in (1, 3)
    result = np.zeros((height, width, im.shape[2]))
    outside = np.full(im.shape[2], im.min() if area else 0.0)

    def pixel(y: int, x: int) -> np.ndarray:
        inside = 0 <= y < im.shape[0] and 0 <= x < im.shape[1]
        return im[y, x].astype(float) if inside else outside

    def place(i: int, size: int, new: int) -> float:
        return (i + 0.5) * size / new - 0.5 if area else i * (size - 1) / max(new - 1, 1)

    for i in range(height):
        for j in range(width):
            y, x = place(i, im.shape[0], height), place(j, im.shape[1], width)
            if order == 0:
                result[i, j] = pixel(int(np.floor(y + 0.5)), int(np.floor(x + 0.5)))
                continue
            top, left = int(np.floor(y)), int(np.floor(x))
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
                result[i, j] += weight * pixel(top + dy, left + dx)
    return result


sizes = st.integers(1, 7)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(1, 4), sizes, sizes, st.sampled_from([0, 1]), st.integers(0, 2**31))
def test_resizing(height: int, width: int, channels: int, new_height: int, new_width: int, order: int,
                  seed: int) -> None:
    im = np.random.default_rng(seed).normal(size=(height, width, channels)).astype(np.float32)
    result = io.resize_image(im, (new_height, new_width), order)
    assert result.dtype == np.float32
    assert np.allclose(result, resized(im, new_height, new_width, order), atol=1e-5)


def test_resizing_of_one_colour_and_to_its_own_size() -> None:
    assert np.array_equal(io.resize_image(np.full((3, 2, 3), -2.0), (5, 7)), np.full((5, 7, 3), -2, np.float32))
    im = np.random.default_rng(0).integers(0, 255, (5, 4, 3), np.uint8)
    assert np.array_equal(io.resize_image(im, np.array([5, 4])), im)


def test_what_cannot_be_resized() -> None:
    with pytest.raises(DataError, match=r"an array of shape \(3, 4\) to 2 x 2; it must be \(H,W,K\)"):
        io.resize_image(np.zeros((3, 4)), (2, 2))
    with pytest.raises(DataError, match="to 0 x 2; it must be"):
        io.resize_image(np.zeros((3, 4, 1)), (0, 2))
    with pytest.raises(UnsupportedError, match=r"no interpolation of order 3; use 0 \(nearest\) or 1 \(linear\)"):
        io.resize_image(np.zeros((3, 4, 1)), (2, 2), interp_order=3)


def test_ten_crops() -> None:
    images = [np.random.default_rng(seed).normal(size=(6, 9, 2)) for seed in (1, 2)]
    crops = io.oversample(images, (3, 4))
    assert (crops.shape, crops.dtype) == ((20, 3, 4, 2), np.float32)
    for number, image in enumerate(images):
        ten = crops[10 * number:10 * number + 10]
        for crop, (top, left) in zip(ten, [(0, 0), (0, 5), (3, 0), (3, 5), (1, 2)], strict=False):
            assert np.array_equal(crop, image[top:top + 3, left:left + 4].astype(np.float32))
        assert np.array_equal(ten[5:], ten[:5, :, ::-1])
    with pytest.raises(DataError, match="crops of 7 x 4 are larger than the images, 6 x 9"):
        io.oversample(images, (7, 4))


# ---- the transformer --------------------------------------------------------------------------------------


def caffenet() -> io.Transformer:
    transformer = io.Transformer({"data": (10, 3, 5, 4)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117, 123]))
    transformer.set_input_scale("data", 0.017)
    return transformer


def test_an_image_becomes_what_a_net_takes() -> None:
    image = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    before = image.copy()
    result = caffenet().preprocess("data", image)
    assert (result.shape, result.dtype) == ((3, 5, 4), np.float32)
    for k, mean in enumerate((104, 117, 123)):
        assert np.allclose(result[k], (image[:, :, 2 - k] * 255 - mean) * 0.017, atol=1e-4)
    assert np.array_equal(image, before)
    assert np.allclose(caffenet().deprocess("data", result), image, atol=1e-5)
    assert np.allclose(caffenet().deprocess("data", result[np.newaxis]), image, atol=1e-5)


def test_an_image_of_another_size_is_resized_first() -> None:
    image = np.random.default_rng(0).random((7, 9, 3)).astype(np.float32)
    transformer = caffenet()
    assert np.array_equal(transformer.preprocess("data", image),
                          transformer.preprocess("data", io.resize_image(image, (5, 4))))


def test_what_is_not_set_is_left_out() -> None:
    transformer = io.Transformer({"data": (1, 1, 2, 3)})
    transformer.set_transpose("data", (2, 0, 1))
    image = np.array([[0, -1, 2], [3, 4, 5]])
    assert np.array_equal(transformer.preprocess("data", image[:, :, np.newaxis]), image[np.newaxis])
    assert transformer.deprocess("data", image[np.newaxis].astype(np.float32)).shape == (2, 3, 1)
    plain = io.Transformer({"data": (1, 1, 2, 3)})
    assert np.array_equal(plain.deprocess("data", image[np.newaxis, np.newaxis]), image)


def test_means() -> None:
    transformer = io.Transformer({"data": (1, 2, 4, 3)})
    image = np.zeros((2, 4, 3))
    with_rows = np.arange(12.0).reshape(4, 3)
    one = io.Transformer({"data": (1, 1, 4, 3)})
    one.set_mean("data", with_rows)
    assert np.array_equal(one.preprocess("data", np.zeros((4, 3))), -with_rows)
    for mean, message in ((np.zeros(3), "a mean of 3 numbers, but the input has 2 channels"),
                          (np.zeros((2, 5, 5)), r"of shape \(2, 5, 5\) does not fit the input's images, \(2, 4, 3\)"),
                          (np.zeros((1, 2, 4, 3)), r"of shape \(1, 2, 4, 3\) does not fit")):
        with pytest.raises(ValueError, match=message):
            transformer.set_mean("data", mean)
    transformer.set_mean("data", image + 1)
    assert transformer.mean["data"].shape == (2, 4, 3)


def test_wrong_settings() -> None:
    transformer = io.Transformer({"data": (1, 3, 4, 3), "label": (1, 1, 1, 1)})
    for call in (transformer.set_raw_scale, transformer.set_input_scale, transformer.set_mean,
                 transformer.set_transpose, transformer.set_channel_swap, transformer.preprocess,
                 transformer.deprocess):
        with pytest.raises(DataError, match=r"^the net has no input 'dat'; did you mean 'data'\?$"):
            call("dat", np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"the transposition \(0, 1\) must name each of its 3 axes once"):
        transformer.set_transpose("data", (0, 1))
    with pytest.raises(DataError, match=r"the order of channels \(1, 0\) has 2 entries, the input 3 channels"):
        transformer.set_channel_swap("data", (1, 0))
