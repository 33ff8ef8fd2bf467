"""Databases: reading, wrapping round, seeking, creating, and every way a file can be bad."""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
from pathlib import Path

import lmdb
import pytest

from barista.data.database import create_database, open_database
from barista.data.mean import compute_image_mean
from barista.data.records import Handles
from barista.errors import DataError

GOLDEN = Path(__file__).parent / "golden" / "data"


def make_database(path: Path, count: int) -> Path:
    with create_database(path) as writer:
        for number in range(count):
            writer.put(f"{number:08d}", b"value %d" % number)
    return path


def test_reads_what_caffe_wrote_in_key_order() -> None:
    with open_database(GOLDEN / "mnist_lmdb") as database:
        items = list(database.items())
        assert len(database) == len(items) == 30
        assert [key for key, _ in items] == [b"%08d_%d.png" % (k, k) for k in range(30)]
        cursor = database.cursor()
        assert [cursor.next() for _ in range(30)] == [value for _, value in items]


def test_cursor_starts_again_and_logs_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista.data")
    with open_database(make_database(tmp_path / "db", 3)) as database:
        cursor = database.cursor()
        values = [value for value, _ in zip(cursor, range(7), strict=False)]
    assert values == [b"value 0", b"value 1", b"value 2"] * 2 + [b"value 0"]
    assert [record.message for record in caplog.records] == ["Restarting data prefetching from start."] * 2
    # zip takes an eighth value before it notices that the range has ended.
    assert (cursor.restarts, cursor.index, cursor.key, cursor.position()) == (2, 1, b"00000001", 2)


def test_restart_is_reported_with_the_last_record_not_after_it(tmp_path: Path) -> None:
    with open_database(make_database(tmp_path / "db", 2)) as database:
        cursor = database.cursor()
        cursor.next()
        assert cursor.restarts == 0
        cursor.next()
        assert (cursor.restarts, cursor.position()) == (1, 0)


@pytest.mark.parametrize("position", [0, 1, 17, 29])
def test_seek_goes_on_where_position_said(position: int) -> None:
    with open_database(GOLDEN / "mnist_lmdb") as database:
        straight = database.cursor()
        straight.skip(position)
        assert straight.position() == position
        sought = database.cursor()
        sought.seek(position)
        assert [sought.next() for _ in range(40)] == [straight.next() for _ in range(40)]
        assert sought.key == straight.key and sought.index == straight.index


@pytest.mark.parametrize("position", [-1, 30, 10**12])
def test_seek_outside_is_refused(position: int) -> None:
    message = r"has 30 \(0 to 29\)"
    with open_database(GOLDEN / "mnist_lmdb") as database, pytest.raises(DataError, match=message):
        database.cursor().seek(position)


def test_skip_wraps_round(tmp_path: Path) -> None:
    with open_database(make_database(tmp_path / "db", 4)) as database:
        cursor = database.cursor()
        cursor.skip(10)
        assert cursor.next() == b"value 2" and cursor.restarts == 2


def test_one_folder_can_be_open_many_times_and_each_closes_for_itself(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", 3)
    first, second = open_database(path), open_database(str(path) + os.sep)
    first_cursor, second_cursor = first.cursor(), second.cursor()
    first_cursor.next()
    assert second_cursor.next() == b"value 0"
    first.close()
    first.close()
    assert second_cursor.next() == b"value 1"
    with pytest.raises(DataError, match="is closed; open it again"):
        first_cursor.next()
    second.close()
    with open_database(path) as third:
        assert third.cursor().next() == b"value 0"


def test_a_forgotten_database_is_released(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", 1)
    open_database(path).cursor().next()
    # LMDB itself may open the file again only because nobody holds it any more.
    lmdb.open(str(path), readonly=True, lock=False).close()


def test_threads_read_side_by_side() -> None:
    results: list[list[bytes]] = []

    def read() -> None:
        with open_database(GOLDEN / "mnist_lmdb") as database:
            cursor = database.cursor()
            results.append([cursor.next() for _ in range(300)])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(result == results[0] for result in results)


def test_reading_adds_no_more_than_the_lock(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", 3)
    assert os.listdir(path) == ["data.mdb"]
    os.chmod(path / "data.mdb", 0o444)
    data = (path / "data.mdb").read_bytes()
    with open_database(path) as database:
        database.cursor().next()
    assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb"]
    assert (path / "data.mdb").read_bytes() == data


def test_where_there_can_be_no_lock_it_is_read_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista.data")
    path = make_database(tmp_path / "db", 3)
    (path / "lock.mdb").mkdir()  # for root, who may write everywhere
    with open_database(path) as database:
        assert database.cursor().next() == b"value 0"
    assert "is read without its lock" in caplog.text and "nobody may write to it meanwhile" in caplog.text


def test_the_map_grows_and_no_record_is_lost(tmp_path: Path) -> None:
    block = random.Random(1).randbytes(40_000)
    with create_database(tmp_path / "db") as writer:
        for number in range(1200):
            writer.put(f"{number:06d}", block[number:] + block[:number])
    assert (tmp_path / "db" / "data.mdb").stat().st_size > 2 * (16 << 20)
    with open_database(tmp_path / "db") as database:
        assert len(database) == 1200
        for number, (key, value) in enumerate(database.items()):
            assert key == b"%06d" % number and value == block[number:] + block[:number]


def test_a_failed_block_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError), create_database(tmp_path / "db") as writer:
        writer.put("a", b"b")
        raise KeyError("something else went wrong")
    assert not (tmp_path / "db").exists()
    with pytest.raises(DataError, match="is closed; nothing more"):
        writer.put("a", b"b")


def test_an_existing_path_is_never_overwritten(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", 3)
    with pytest.raises(DataError, match="exists already; remove it or choose another path"):
        create_database(path)
    with open_database(path) as database:
        assert len(database) == 3


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be made: No such file or directory"):
        create_database(tmp_path / "no" / "db")


@pytest.mark.parametrize("key, size", [(b"", 0), ("x" * 512, 512)])
def test_keys_that_lmdb_cannot_hold(tmp_path: Path, key: str | bytes, size: int) -> None:
    with pytest.raises(DataError, match=rf"has {size} bytes, LMDB takes 1 to 511"), \
            create_database(tmp_path / "db") as writer:
        writer.put(key, b"v")


def test_backends(tmp_path: Path) -> None:
    with open_database(GOLDEN / "mnist_lmdb", "lmdb") as database:
        assert len(database) == 30
    with pytest.raises(DataError, match="is an LMDB, and the backend given is LEVELDB; write `backend: LMDB` in"):
        open_database(GOLDEN / "mnist_lmdb", "LEVELDB")
    (tmp_path / "CURRENT").write_text("MANIFEST-000002")
    with pytest.raises(DataError, match="is a LevelDB, and the backend given is LMDB; write `backend: LEVELDB` in"):
        open_database(tmp_path)
    with pytest.raises(DataError, match=r"is an LMDB, and the backend given is LEVELDB; give --backend lmdb$"):
        open_database(GOLDEN / "mnist_lmdb", "leveldb", "--backend")
    with pytest.raises(DataError, match=r"is a LevelDB, and the backend given is LMDB; give --backend leveldb$"):
        compute_image_mean(tmp_path)
    for act in (open_database, create_database):
        with pytest.raises(DataError, match="unknown backend 'LMDBX'; did you mean 'LMDB'"):
            act(tmp_path / "db", "LMDBX")


def test_paths_that_are_no_database(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_database(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DataError, match="is a file; `source` names the folder"):
        open_database(tmp_path / "file")
    with pytest.raises(DataError, match=r"holds no data\.mdb"):
        open_database(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"SQLite format 3\0" * 1000)
    with pytest.raises(DataError, match=r"not an LMDB file .magic number 0x694c5153"):
        open_database(tmp_path)


def test_an_empty_database_is_refused(tmp_path: Path) -> None:
    create_database(tmp_path / "db").close()
    with pytest.raises(DataError, match="has 0 records"):
        open_database(tmp_path / "db")


def test_a_version_of_the_future_is_refused(tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", 1) / "data.mdb"
    data = bytearray(path.read_bytes())
    data[20] = 2
    path.write_bytes(data)
    with pytest.raises(DataError, match="LMDB data version 2"):
        open_database(path.parent)


@pytest.mark.parametrize("name", ["mnist_lmdb", "png_lmdb"])
def test_a_file_cut_anywhere_is_refused_and_never_crashes(tmp_path: Path, name: str) -> None:
    data = (GOLDEN / name / "data.mdb").read_bytes()
    borders = [page + shift for page in range(0, len(data), 4096) for shift in (-1, 0, 1)]
    cuts = {*range(0, len(data), 97), *borders, len(data) - 1}
    for cut in sorted(cut for cut in cuts if cut >= 0):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "data.mdb").write_bytes(data[:cut])
        with pytest.raises(DataError, match=rf"data\.mdb has {cut} bytes"):
            open_database(folder)
        shutil.rmtree(folder)


def test_a_large_file_cut_to_half_is_refused(tmp_path: Path) -> None:
    with create_database(tmp_path / "db") as writer:
        for number in range(100):
            writer.put(f"{number:06d}", bytes(20_000))
    path = tmp_path / "db" / "data.mdb"
    size = path.stat().st_size
    os.truncate(path, size // 2)
    with pytest.raises(DataError, match=rf"has {size // 2} bytes, but its meta page counts {size} "):
        open_database(path.parent)


class Handle:
    """Something that is open until it is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_the_collector_may_close_a_database_while_another_is_opened(tmp_path: Path) -> None:
    """It does so in the thread that opens, which must not wait for itself."""
    handles, first, second = Handles(), Handle(), Handle()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    key, _ = handles.acquire(str(tmp_path / "first"), lambda: first)

    def open_second() -> Handle:
        handles.release(key)
        return second

    thread = threading.Thread(target=handles.acquire, args=(str(tmp_path / "second"), open_second), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and first.closed and not second.closed
