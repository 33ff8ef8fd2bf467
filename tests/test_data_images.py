"""Records, images and mean files."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from barista.data import images
from barista.data.datum import array_to_datum, datum_to_array, encoded_datum, parse_datum
from barista.data.images import decode_image, encode_image, read_image, resize
from barista.data.mean import read_mean, write_mean
from barista.errors import DataError
from barista.proto import caffe_pb2

GOLDEN = Path(__file__).parent / "golden" / "data"
RGB = np.random.default_rng(5).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def file_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# ---- records


def test_bytes_are_uint8_and_come_back() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 10
    datum = parse_datum(array_to_datum(array, -3).SerializeToString())
    assert datum.label == -3 and not datum.encoded
    back = datum_to_array(datum)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, array)


def test_other_types_go_through_float_data() -> None:
    array = np.array([[[-1.5, 0.0, 2.25]]], dtype=np.float64)
    datum = array_to_datum(array)
    assert not datum.HasField("label") and not datum.data
    back = datum_to_array(datum)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array)


def test_encoded_records_are_decoded_as_told() -> None:
    color = encoded_datum(file_bytes(Image.fromarray(RGB)), 4)
    grey = encoded_datum(file_bytes(Image.fromarray(RGB[:, :, 0])))
    np.testing.assert_array_equal(datum_to_array(color), RGB[:, :, ::-1].transpose(2, 0, 1))
    assert color.label == 4 and datum_to_array(color, force_gray=True).shape == (1, 7, 5)
    assert datum_to_array(grey).shape == (1, 7, 5)
    np.testing.assert_array_equal(datum_to_array(grey, force_color=True), np.stack([RGB[:, :, 0]] * 3))


@pytest.mark.parametrize("fields, message", [
    ({"channels": 3, "height": 2, "width": 2, "data": b"x" * 11},
     "Datum has 11 bytes of data, but channels=3 height=2 width=2 need 12"),
    ({"channels": 1, "height": 2, "width": 2, "float_data": [1.0] * 5}, "has 5 values of float_data.*need 4"),
    ({"channels": 1, "height": 2, "width": 2}, "has 0 values of float_data.*need 4"),
    ({"channels": 0, "height": 2, "width": 2, "data": b"x"}, "zero size: channels=0 height=2 width=2"),
    ({"channels": -1, "height": -2, "width": 2, "data": b"x" * 4}, "zero size: channels=-1"),
    ({}, "zero size"),
    ({"encoded": True}, "encoded Datum with 0 bytes"),
    ({"encoded": True, "data": b"no image"}, "cannot be decoded"),
])
def test_bad_records_are_named(fields: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        datum_to_array(caffe_pb2.Datum(**fields))


def test_bad_use_of_records() -> None:
    with pytest.raises(DataError, match="3 bytes that are not a Datum"):
        parse_datum(b"\xff\xff\xff")
    with pytest.raises(DataError, match="both set"):
        datum_to_array(array_to_datum(np.zeros((1, 1, 1), np.uint8)), True, True)
    for shape in ((2, 2), (0, 2, 2)):
        with pytest.raises(DataError, match="cannot become a Datum"):
            array_to_datum(np.zeros(shape, np.uint8))


# ---- images


def test_channels_are_blue_green_red(tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    Image.fromarray(RGB).save(path)
    np.testing.assert_array_equal(read_image(path), RGB[:, :, ::-1].transpose(2, 0, 1))
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(path, color=False)[0] - luma).max() <= 1


@pytest.mark.parametrize("mode, unchanged",
                         [("1", 1), ("L", 1), ("LA", 4), ("P", 3), ("RGB", 3), ("RGBA", 4)])
def test_every_mode_of_pillow_becomes_what_was_asked(mode: str, unchanged: int) -> None:
    data = file_bytes(Image.fromarray(RGB).convert(mode))
    assert decode_image(data, color=True).shape == (3, 7, 5)
    assert decode_image(data, color=False).shape == (1, 7, 5)
    assert decode_image(data, color=None).shape == (unchanged, 7, 5)


def test_alpha_is_the_fourth_channel() -> None:
    rgba = np.dstack([RGB, RGB[:, :, 0] // 2 + 7])
    data = file_bytes(Image.fromarray(rgba))
    np.testing.assert_array_equal(decode_image(data, color=None), rgba[:, :, [2, 1, 0, 3]].transpose(2, 0, 1))
    np.testing.assert_array_equal(decode_image(data), RGB[:, :, ::-1].transpose(2, 0, 1))


def test_cmyk_and_sixteen_bits() -> None:
    cmyk = file_bytes(Image.fromarray(RGB).convert("CMYK"), "JPEG")
    assert decode_image(cmyk, color=False).shape == (1, 7, 5)
    deep = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    data = file_bytes(Image.fromarray(deep))
    np.testing.assert_array_equal(decode_image(data, color=False), [[[0, 0, 1, 255]]])
    np.testing.assert_array_equal(decode_image(data, color=True)[2], [[0, 0, 1, 255]])
    with pytest.raises(DataError, match="only 8-bit samples"):
        decode_image(data, color=None)


def test_resize_is_what_opencv_computes() -> None:
    # The reference layer resized to 8 x 9, took the 6 x 6 in the middle, and subtracted 10.
    with np.load(GOLDEN / "data_image_data.npz") as golden:
        for batch in range(4):
            for row in range(3):
                image = read_image(GOLDEN / "png" / f"{(3 * batch + row) % 10}.png", height=8, width=9)
                np.testing.assert_array_equal(image[:, 1:7, 1:7] - 10.0, golden[f"data:{batch}"][row])


def test_resize_enlarges_and_keeps() -> None:
    image = np.array([[[0, 100], [200, 40]]], dtype=np.uint8)
    assert resize(image, 0, 0) is image and resize(image, 2, 2) is image
    np.testing.assert_array_equal(resize(image, 2, 4)[0], [[0, 25, 75, 100], [200, 160, 80, 40]])
    assert (resize(np.full((3, 9, 4), 255, np.uint8), 31, 2) == 255).all()
    assert resize(image, 1, 1).tolist() == [[[85]]]
    for height, width in ((3, 0), (0, 3), (-1, -1), (-1, 0)):
        with pytest.raises(DataError, match=f"height {height} and width {width}"):
            resize(image, height, width)


@pytest.mark.parametrize("encoding", ["png", ".PNG", "bmp", "ppm"])
def test_lossless_encodings_come_back(encoding: str) -> None:
    image = RGB[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(encode_image(image, encoding)), image)
    np.testing.assert_array_equal(decode_image(encode_image(image[:1], encoding), color=None), image[:1])


def test_encoding_errors() -> None:
    image = np.zeros((3, 2, 2), np.uint8)
    with pytest.raises(DataError, match="cannot encode images as 'jpgg'; did you mean 'jpg'"):
        encode_image(image, "jpgg")
    with pytest.raises(DataError, match=r"shape \(2, 2, 2\)"):
        encode_image(image[:2], "png")


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_bytes(Image.fromarray(RGB))
    for limit in (34, 10):  # Pillow warns above the limit and raises above twice the limit
        monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(), pytest.raises(DataError, match=r"(5 x 7|\(35) pixels.*limit of"):
            warnings.simplefilter("ignore")
            decode_image(data)


def test_files_that_are_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png' cannot be read: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_image(tmp_path)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n"
    unknown = "it is damaged, or no image of the formats BMP, GIF, JPEG, .*, WEBP$"
    for name, data, why in (("empty.png", b"", "it is empty$"), ("text.jpg", b"hello", unknown),
                            ("eps.png", postscript, unknown)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}' cannot be decoded: {why}"):
            read_image(tmp_path / name)


def test_images_cut_anywhere_are_refused() -> None:
    for kind in ("PNG", "JPEG", "BMP"):
        data = file_bytes(Image.fromarray(RGB), kind)
        for cut in range(0, len(data) - 20, 7):
            with pytest.raises(DataError, match="cannot be decoded"):
                decode_image(data[:cut])


# ---- mean files


def test_mean_of_caffe_is_written_back_to_the_byte(tmp_path: Path) -> None:
    for name, shape in (("mnist_mean.binaryproto", (1, 9, 9)), ("png_mean.binaryproto", (3, 11, 13))):
        mean = read_mean(GOLDEN / name)
        assert mean.shape == shape and mean.dtype == np.float32
        write_mean(tmp_path / name, mean)
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("fields, shape", [
    ({"shape": {"dim": [1, 2, 1, 3]}, "data": range(6)}, (2, 1, 3)),
    ({"shape": {"dim": [2, 1, 3]}, "double_data": range(6)}, (2, 1, 3)),
    ({"shape": {"dim": [2, 3]}, "data": range(6)}, (1, 2, 3)),
])
def test_mean_in_every_form(tmp_path: Path, fields: dict, shape: tuple[int, ...]) -> None:
    (tmp_path / "mean").write_bytes(caffe_pb2.BlobProto(**fields).SerializeToString())
    np.testing.assert_array_equal(read_mean(tmp_path / "mean"), np.arange(6).reshape(shape))


@pytest.mark.parametrize("fields, message", [
    ({"num": 1, "channels": 1, "height": 2, "width": 2, "data": [1.0]},
     r"shape \(1, 1, 2, 2\) needs 4 numbers; the message holds 1"),
    ({"num": 2, "channels": 1, "height": 1, "width": 1, "data": [1.0, 2.0]},
     r"shape \(2, 1, 1, 1\); it must hold one image"),
    ({}, "needs 1 numbers; the message holds 0"),
    ({"shape": {"dim": [1, 1, 2]}, "data": [1.0, float("nan")]}, "1 of 2 values not finite"),
])
def test_mean_files_that_cannot_be_used(tmp_path: Path, fields: dict, message: str) -> None:
    (tmp_path / "mean").write_bytes(caffe_pb2.BlobProto(**fields).SerializeToString())
    with pytest.raises(DataError, match=message):
        read_mean(tmp_path / "mean")


def test_mean_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "mean").write_bytes(b"\xff\xff\xff")
    with pytest.raises(DataError, match="is not a BlobProto"):
        read_mean(tmp_path / "mean")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_mean(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be written"):
        write_mean(tmp_path / "no" / "mean", np.zeros((1, 1, 1)))
    with pytest.raises(DataError, match=r"must be \(C,H,W\)"):
        write_mean(tmp_path / "mean", np.zeros(3))
