"""LevelDB through the same seam as LMDB: reading, writing, sharing, what can be wrong, and life without its package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from barista.data.convert import convert_imageset
from barista.data.database import create_database, open_database
from barista.data.feeder import Feeder
from barista.data.mean import compute_image_mean
from barista.data.transformer import Transformer
from barista.errors import BaristaError, DataError, MissingExtraError
from barista.proto import caffe_pb2

GOLDEN = Path(__file__).parent / "golden" / "data"
PNG = GOLDEN / "png"


def make(path: Path, count: int) -> str:
    with create_database(path, "LEVELDB") as writer:
        for number in reversed(range(count)):
            writer.put(f"{number:08d}", b"value %d" % number)
    return str(path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    ready = sys.platform == "linux" and sys.version_info < (3, 13)
    message = r"pip install 'barista-caffe\[leveldb\]'" if ready else "comes ready for Python 3.11 and 3.12"
    with pytest.raises(MissingExtraError if ready else BaristaError, match=message):
        create_database(tmp_path / "db", "LEVELDB")
    assert not (tmp_path / "db").exists()
    (tmp_path / "CURRENT").write_text("MANIFEST-000002\n")
    with pytest.raises(BaristaError, match=message):
        open_database(tmp_path, "LEVELDB")


def test_keys_come_in_order_and_cursors_start_again(tmp_path: Path) -> None:
    pytest.importorskip("plyvel")
    with open_database(make(tmp_path / "db", 1203), "LEVELDB") as database:
        assert len(database) == 1203
        assert [key for key, _ in database.items()] == [b"%08d" % number for number in range(1203)]
        cursor = database.cursor()
        values = [cursor.next() for _ in range(1205)]
        assert values[-3:] == [b"value 1202", b"value 0", b"value 1"] and cursor.restarts == 1
        place, key = cursor.position(), cursor.next_key()
        assert (place, key) == (2, b"00000002")
        for sought in (database.cursor(), cursor):
            sought.seek(1100)
            assert sought.next() == b"value 1100"
            sought.seek(place, key)
            assert sought.next() == b"value 2" and sought.index == 2
        with pytest.raises(DataError, match=r"cannot go to record 3, there is none of the key b'x'; was it made anew"):
            cursor.seek(3, b"x")
        with pytest.raises(DataError, match=r"it has 1203 \(0 to 1202\)"):
            cursor.seek(1203)


def test_one_process_shares_it_and_another_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("plyvel")
    path = make(tmp_path / "db", 3)
    first, second = open_database(path, "LEVELDB"), open_database(path, "leveldb")
    cursor = second.cursor()
    first.close()
    first.close()
    assert [cursor.next() for _ in range(4)] == [b"value 0", b"value 1", b"value 2", b"value 0"]
    with pytest.raises(DataError, match="is closed"):
        first.cursor()
    script = f"from barista.data.database import open_database\nopen_database({path!r}, 'LEVELDB')"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert other.returncode and "another process has it open, and LevelDB lets in one at a time" in other.stderr
    second.close()
    with pytest.raises(DataError, match="is closed"):
        cursor.next()
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("plyvel")
    with pytest.raises(DataError, match="holds no CURRENT; it is not a LevelDB folder"):
        open_database(tmp_path, "LEVELDB")
    with pytest.raises(DataError, match="does not exist"):
        open_database(tmp_path / "none", "LEVELDB")
    with pytest.raises(DataError, match="has 0 records"):
        open_database(make(tmp_path / "empty", 0), "LEVELDB")
    path = Path(make(tmp_path / "db", 3))
    with pytest.raises(DataError, match="exists already"):
        create_database(path, "LEVELDB")
    (path / "CURRENT").write_bytes(b"nonsense\n")
    with pytest.raises(DataError, match=r"\(LevelDB\)"):
        open_database(path, "LEVELDB")
    with pytest.raises(KeyError), create_database(tmp_path / "half", "LEVELDB") as writer:
        writer.put("a", b"b")
        raise KeyError("something else went wrong")
    assert not (tmp_path / "half").exists()


def test_images_mean_and_batches_are_those_of_the_lmdb(tmp_path: Path) -> None:
    pytest.importorskip("plyvel")
    path = tmp_path / "db"
    assert convert_imageset(PNG, PNG / "list.txt", path, backend="leveldb", progress=False) == 10
    with open_database(path, "leveldb") as database, open_database(GOLDEN / "png_lmdb") as golden:
        assert list(database.items()) == list(golden.items())
    compute_image_mean(path, tmp_path / "mean", "leveldb", progress=False)
    assert (tmp_path / "mean").read_bytes() == (GOLDEN / "png_mean.binaryproto").read_bytes()

    def feeder(source: Path, backend: str) -> Feeder:
        param = caffe_pb2.TransformationParameter(mirror=True, crop_size=5)
        return Feeder(str(source), backend, 3, Transformer(param, caffe_pb2.TRAIN, np.random.default_rng(0)))

    with feeder(path, "LEVELDB") as here, feeder(GOLDEN / "png_lmdb", "LMDB") as there:
        for turn in range(8):
            if turn == 4:
                here.restore(there.state())
            for ours, theirs in zip(here.next_batch(), there.next_batch(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
