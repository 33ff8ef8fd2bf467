"""convert_mnist_data and convert_cifar_data: what they write, and what they refuse."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from barista.cli.main import main
from barista.data import datum_to_array, open_database
from barista.data.cifar import TEST_FILES, TRAIN_FILES
from barista.data.database import DatabaseWriter
from barista.data.datum import parse_datum


def records(path: Path) -> list[tuple[bytes, int, np.ndarray]]:
    """Key, label and image of every record."""
    with open_database(path) as database:
        parsed = [(key, parse_datum(value)) for key, value in database.items()]
    return [(bytes(key), datum.label, datum_to_array(datum)) for key, datum in parsed]


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that cannot do what it is asked for; return its message."""
    assert main([str(word) for word in words]) == 1
    return capsys.readouterr().err


# ---- MNIST ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_what_convert_imageset_makes_of_the_same_images(golden: Path, tmp_path: Path, packed: bool) -> None:
    files = []
    for name in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        data = (golden / "data" / name).read_bytes()
        files.append(tmp_path / (name + ".gz" * packed))
        files[-1].write_bytes(gzip.compress(data) if packed else data)
    assert main(["convert_mnist_data", *map(str, files), str(tmp_path / "out")]) == 0
    ours, theirs = records(tmp_path / "out"), records(golden / "data" / "mnist_lmdb")
    assert [key for key, _, _ in ours] == [b"%08d" % number for number in range(30)]
    for (_, label, image), (_, expected_label, expected) in zip(ours, theirs, strict=True):
        assert label == expected_label
        np.testing.assert_array_equal(image, expected)


def idx(path: Path, magic: int, shape: tuple[int, ...], data: bytes) -> Path:
    path.write_bytes(struct.pack(f">I{len(shape)}I", magic, *shape) + data)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of 2 x 3 pixels and their labels."""
    return (idx(tmp_path / "images", 2051, (2, 2, 3), bytes(range(244, 256))),
            idx(tmp_path / "labels", 2049, (2,), bytes([0, 200])))


def test_mnist_keeps_every_byte(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["convert_mnist_data", *map(str, pair), str(tmp_path / "out"), "-backend=lmdb"]) == 0
    found = records(tmp_path / "out")
    assert [label for _, label, _ in found] == [0, 200]
    np.testing.assert_array_equal(np.concatenate([image.ravel() for _, _, image in found]), np.arange(244, 256))


def test_what_mnist_refuses(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = pair
    out = tmp_path / "out"

    def refused(images: object, labels: object) -> str:
        said = fails(capsys, "convert_mnist_data", images, labels, out)
        assert not out.exists()
        return said

    assert "begins with 2049, where a file of images (idx3-ubyte) begins with 2051; which is a file of labels " \
        "(idx1-ubyte); were the two files exchanged?" in refused(labels, images)
    said = refused(images, idx(tmp_path / "x", 2049, (3,), b"123"))
    assert "has 2 images and" in said and "3 labels" in said
    assert "which is no idx file" in refused(idx(tmp_path / "x", 2052, (2, 2, 3), b""), labels)
    assert "has 6 bytes, less than the head" in refused(idx(tmp_path / "x", 2051, (), b"12"), labels)
    assert "holds less than the 2 x 2 x 3 bytes that its head counts" in refused(
        idx(tmp_path / "x", 2051, (2, 2, 3), b"123"), labels)
    assert "holds more than the 2 bytes" in refused(images, idx(tmp_path / "x", 2049, (2,), b"123"))
    assert "damaged, get it again" in refused(idx(tmp_path / "x", 2051, (2**31, 2**31, 2**31), b""), labels)
    assert "there is nothing to convert" in refused(idx(tmp_path / "x", 2051, (0, 2, 3), b""),
                                                    idx(tmp_path / "y", 2049, (0,), b""))
    assert "No such file" in refused(tmp_path / "none", labels)
    (tmp_path / "x.gz").write_bytes(gzip.compress(images.read_bytes())[:-12])
    assert "cannot be read" in refused(tmp_path / "x.gz", labels)
    assert "unknown backend 'lmbd'" in fails(capsys, "convert_mnist_data", images, labels, out, "--backend", "lmbd")


@pytest.mark.parametrize("command", ["convert_mnist_data", "convert_cifar_data"])
def test_ctrl_c_leaves_nothing_behind(command: str, pair: tuple[Path, Path], cifar: tuple[Path, np.ndarray],
                                      tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(DatabaseWriter, "put", interrupted)
    words = [*pair, tmp_path / "out"] if command == "convert_mnist_data" else [cifar[0], tmp_path]
    assert main([command, *map(str, words)]) == 130
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("backend", ["leveldb", "LEVELDB"])
def test_the_kind_of_the_database(pair: tuple[Path, Path], tmp_path: Path, backend: str) -> None:
    pytest.importorskip("plyvel", reason="the leveldb extra is not installed")
    assert main(["convert_mnist_data", *map(str, pair), str(tmp_path / "out"), "--backend", backend]) == 0
    with open_database(tmp_path / "out", "LEVELDB") as database:
        assert [bytes(key) for key, _ in database.items()] == [b"00000000", b"00000001"]


# ---- CIFAR-10 ---------------------------------------------------------------------------------------------

@pytest.fixture
def cifar(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder like CIFAR-10's with 3 images a file, and all its records, test images last."""
    folder = tmp_path / "batches"
    folder.mkdir()
    data = np.random.default_rng(1).integers(0, 256, (18, 3073)).astype(np.uint8)
    data[:, 0] %= 10
    for number, name in enumerate((*TRAIN_FILES, *TEST_FILES)):
        data[3 * number:3 * number + 3].tofile(folder / name)
    return folder, data


def test_cifar_keeps_labels_pixels_and_order(cifar: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, data = cifar
    assert main(["convert_cifar_data", str(folder), str(tmp_path), "lmdb"]) == 0
    for name, expected in (("cifar10_train_lmdb", data[:15]), ("cifar10_test_lmdb", data[15:])):
        found = records(tmp_path / name)
        assert [key for key, _, _ in found] == [b"%05d" % number for number in range(len(expected))]
        assert [label for _, label, _ in found] == expected[:, 0].tolist()
        for (_, _, image), record in zip(found, expected, strict=True):
            assert image.shape == (3, 32, 32)
            np.testing.assert_array_equal(image.ravel(), record[1:])


def test_what_cifar_refuses(cifar: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = cifar

    def refused() -> str:
        said = fails(capsys, "convert_cifar_data", folder, tmp_path, "lmdb")
        assert not (tmp_path / "cifar10_train_lmdb").exists()
        return said

    data[17, 0] = 10
    data[15:].tofile(folder / "test_batch.bin")
    assert "image 2 has the label 10, but CIFAR-10 has the labels 0 to 9" in refused()
    (folder / "test_batch.bin").write_bytes(b"1234")
    assert "test_batch.bin has 4 bytes, which is not a number of images of 3073 bytes" in refused()
    (folder / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin cannot be read: No such file" in refused()


def test_a_test_database_that_is_there_stops_cifar_at_once(cifar: tuple[Path, np.ndarray], tmp_path: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar10_test_lmdb").mkdir()
    assert "exists already" in fails(capsys, "convert_cifar_data", cifar[0], tmp_path)
    assert not (tmp_path / "cifar10_train_lmdb").exists()
