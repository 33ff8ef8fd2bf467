"""Image lists into databases, the mean of a database, and the digits."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from barista.data.convert import convert_imageset, read_list
from barista.data.database import create_database, open_database
from barista.data.datum import array_to_datum, datum_to_array, parse_datum
from barista.data.digits import digits_to_lmdb
from barista.data.images import read_image
from barista.data.mean import compute_image_mean, read_mean
from barista.errors import DataError, MissingExtraError

GOLDEN = Path(__file__).parent / "golden" / "data"
PNG = GOLDEN / "png"


def items(path: Path) -> list[tuple[bytes, bytes]]:
    with open_database(path) as database:
        return list(database.items())


def arrays(path: Path) -> list[np.ndarray]:
    return [datum_to_array(parse_datum(value)) for _, value in items(path)]


@pytest.mark.parametrize("encoded, golden", [(False, "png_lmdb"), (True, "png_encoded_lmdb")])
@pytest.mark.parametrize("root", [f"{PNG}/", str(PNG)])
def test_records_are_caffes_to_the_byte(tmp_path: Path, encoded: bool, golden: str, root: str) -> None:
    assert convert_imageset(root, PNG / "list.txt", tmp_path / "db", encoded=encoded) == 10
    assert items(tmp_path / "db") == items(GOLDEN / golden)


def test_encode_type_alone_means_encoded(tmp_path: Path) -> None:
    convert_imageset(PNG, PNG / "list.txt", tmp_path / "db", encode_type="png")
    assert items(tmp_path / "db") == items(GOLDEN / "png_encoded_lmdb")


def test_encoding_anew_where_the_file_does_not_fit(tmp_path: Path) -> None:
    plain = arrays(GOLDEN / "png_lmdb")
    convert_imageset(PNG, PNG / "list.txt", tmp_path / "bmp", encode_type="bmp")
    assert all(np.array_equal(a, b) for a, b in zip(arrays(tmp_path / "bmp"), plain, strict=True))
    convert_imageset(PNG, PNG / "list.txt", tmp_path / "gray", encoded=True, gray=True)
    convert_imageset(PNG, PNG / "list.txt", tmp_path / "small", encoded=True, resize_height=4, resize_width=5)
    assert {array.shape for array in arrays(tmp_path / "gray")} == {(1, 11, 13)}
    for number, array in enumerate(arrays(tmp_path / "small")):
        np.testing.assert_array_equal(array, read_image(PNG / f"{number}.png", height=4, width=5))
    with pytest.raises(DataError, match="cannot encode images as 'pmg'; did you mean"):
        convert_imageset(PNG, PNG / "list.txt", tmp_path / "bad", encode_type="pmg")
    assert not (tmp_path / "bad").exists()


def test_gray_and_resized_values(tmp_path: Path) -> None:
    convert_imageset(PNG, PNG / "list.txt", tmp_path / "db", gray=True, resize_height=3, resize_width=20)
    for number, array in enumerate(arrays(tmp_path / "db")):
        expected = read_image(PNG / f"{number}.png", color=False, height=3, width=20)
        np.testing.assert_array_equal(array, expected)


def test_shuffle_keeps_pairs_and_repeats_with_a_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert_imageset(PNG, PNG / "list.txt", tmp_path / name, shuffle=True, seed=3)
    shuffled, straight = items(tmp_path / "a"), items(GOLDEN / "png_lmdb")
    assert shuffled == items(tmp_path / "b")
    assert [value for _, value in shuffled] != [value for _, value in straight]
    assert {key[9:]: value for key, value in shuffled} == {key[9:]: value for key, value in straight}
    assert [key[:8] for key, _ in shuffled] == [b"%08d" % k for k in range(10)]


def test_unreadable_images_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista.data")
    shutil.copy(PNG / "0.png", tmp_path / "with space.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("bad.png 1\nnone.png 2\r\n\nwith space.png 3\n")
    assert convert_imageset(tmp_path, tmp_path / "list.txt", tmp_path / "db", progress=False) == 1
    ((key, value),) = items(tmp_path / "db")
    assert key == b"00000002_with space.png" and parse_datum(value).label == 3
    assert "A total of 3 images." in caplog.text and "2 of 3 images could not be read" in caplog.text
    for name in ("bad.png", "none.png"):
        assert f"Could not open or find file '{tmp_path}/{name}'" in caplog.text


def test_nothing_readable_is_an_error_and_leaves_no_database(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 10 images"):
        convert_imageset(tmp_path, PNG / "list.txt", tmp_path / "db")
    assert not (tmp_path / "db").exists()


def test_check_size(tmp_path: Path) -> None:
    for name, size in (("a.png", (4, 5)), ("b.png", (4, 6))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 0\n")
    assert convert_imageset(tmp_path, tmp_path / "list.txt", tmp_path / "loose") == 2
    with pytest.raises(DataError, match=r"'b.png' has shape \(3, 6, 4\), but 'a.png' has \(3, 5, 4\)"):
        convert_imageset(tmp_path, tmp_path / "list.txt", tmp_path / "db", check_size=True)
    assert convert_imageset(tmp_path, tmp_path / "list.txt", tmp_path / "same", check_size=True,
                            resize_height=2, resize_width=2) == 2


def test_file_names_of_any_bytes(tmp_path: Path) -> None:
    name = b"caf\xe9 \xc3\xa9.png"
    shutil.copy(PNG / "0.png", tmp_path / name.decode("utf-8", "surrogateescape"))
    (tmp_path / "list.txt").write_bytes(name + b" -7\nmissing\xff.png 1\n")
    assert convert_imageset(tmp_path, tmp_path / "list.txt", tmp_path / "db") == 1
    ((key, value),) = items(tmp_path / "db")
    assert key == b"00000000_" + name and parse_datum(value).label == -7


@pytest.mark.parametrize("line", ["name", "name x", " 3", "name 1.5", "name 2147483648", "name\t3",
                                  "na\0me 1"])
def test_bad_lines_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"good.png 1\n{line}\n")
    with pytest.raises(DataError, match=r"list\.txt:2: .* is not `name label`"):
        read_list(tmp_path / "list.txt")


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_list(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n \n")
    with pytest.raises(DataError, match="has no line"):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize("source, golden", [("mnist_lmdb", "mnist_mean"), ("png_lmdb", "png_mean"),
                                            ("png_encoded_lmdb", "png_mean")])
def test_mean_of_a_database_is_caffes_to_the_byte(tmp_path: Path, source: str, golden: str,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista.data")
    mean = compute_image_mean(GOLDEN / source, tmp_path / "mean")
    assert (tmp_path / "mean").read_bytes() == (GOLDEN / f"{golden}.binaryproto").read_bytes()
    np.testing.assert_array_equal(mean, read_mean(tmp_path / "mean"))
    assert f"Number of channels: {len(mean)}" in caplog.text
    for channel in range(len(mean)):
        assert f"mean_value channel [{channel}]: {mean[channel].mean(dtype=np.float64):g}" in caplog.text


def test_mean_of_floats_and_of_unlike_sizes(tmp_path: Path) -> None:
    for name, last in (("same", (1, 1, 2)), ("unlike", (1, 2, 1))):
        with create_database(tmp_path / name) as writer:
            writer.put("a", array_to_datum(np.array([[[-2.5, 1.0]]], np.float32)).SerializeToString())
            writer.put("b", array_to_datum(np.ones(last, np.float32)).SerializeToString())
    assert compute_image_mean(tmp_path / "same").tolist() == [[[-0.75, 1.0]]]
    message = r"record 1 \(key b'b'\): shape \(1, 2, 1\), but the first record has \(1, 1, 2\)"
    with pytest.raises(DataError, match=message):
        compute_image_mean(tmp_path / "unlike")


def test_sums_of_long_databases_lose_nothing(tmp_path: Path) -> None:
    # float32 sums would stop counting ones beside 2**24.
    with create_database(tmp_path / "db") as writer:
        for number, value in enumerate([2.0**25, 1.0, 1.0, 1.0, 1.0, -(2.0**25)]):
            writer.put(str(number), array_to_datum(np.full((1, 1, 1), value, np.float32)).SerializeToString())
    assert compute_image_mean(tmp_path / "db").item() == np.float32(4) / np.float32(6)


def test_digits(tmp_path: Path) -> None:
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("needs the extra `digits`")
    train, test = digits_to_lmdb(tmp_path)
    images: dict[str, np.ndarray] = {}
    for path, count in ((train, 1437), (test, 360)):
        records = [parse_datum(value) for _, value in items(Path(path))]
        assert len(records) == count
        shares = np.bincount([record.label for record in records]) / count
        np.testing.assert_allclose(shares, 0.1, atol=0.01)
        labels = [record.label for record in records[:50]]
        assert labels != sorted(labels)
        images[path] = np.stack([datum_to_array(record) for record in records])
        assert images[path].shape[1:] == (1, 28, 28) and images[path].dtype == np.uint8
        assert images[path].max() == 255
        rows, columns = (np.flatnonzero(images[path].any(axis=axes)) for axes in ((0, 1, 3), (0, 1, 2)))
        assert (rows[0], rows[-1]) == (4, 23) and columns[0] >= 4 and columns[-1] <= 23
    assert not {image.tobytes() for image in images[test]} <= {image.tobytes() for image in images[train]}
    with pytest.raises(DataError, match="exists already"):
        digits_to_lmdb(tmp_path)
    shutil.rmtree(train)
    before = items(Path(test))
    with pytest.raises(DataError, match="digits_test_lmdb' exists already"):
        digits_to_lmdb(tmp_path)
    assert not Path(train).exists() and items(Path(test)) == before


def test_digits_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'barista-caffe\[digits\]'"):
        digits_to_lmdb(tmp_path)
    assert not list(tmp_path.iterdir())
