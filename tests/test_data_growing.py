"""An LMDB that another process writes to while it is read, and places of readers that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from barista.data.database import create_database, open_database
from barista.data.datum import array_to_datum
from barista.data.feeder import Feeder
from barista.data.transformer import Transformer
from barista.proto import caffe_pb2

# Appends records of 40 kB, some a transaction, and rewrites old ones too, so that pages are freed and used again.
APPENDER = """
import sys, lmdb
path, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
environment = lmdb.open(path, map_size=1 << 20)
number = start
while number < stop:
    try:
        with environment.begin(write=True) as transaction:
            for key in range(number, min(number + 10, stop)):
                transaction.put(b"%08d" % key, (b"value %d " % key).ljust(40_000, b"."))
            transaction.put(b"%08d" % 0, b"value 0 ".ljust(40_000, b"."))
        number += 10
    except lmdb.MapFullError:
        environment.set_mapsize(environment.info()["map_size"] * 2)
print("done")
"""


def make(path: Path, count: int) -> str:
    with create_database(path) as writer:
        for number in range(count):
            writer.put(b"%08d" % number, (b"value %d " % number).ljust(40_000, b"."))
    return str(path)


def append(path: str, start: int, stop: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", APPENDER, path, str(start), str(stop)], stdout=subprocess.PIPE,
                            text=True)


def test_a_walk_sees_what_was_there_when_it_began_and_the_next_turn_all(tmp_path: Path) -> None:
    path = make(tmp_path / "db", 25)
    with open_database(path) as database, open_database(path) as other:
        cursor, slow = database.cursor(), other.cursor()
        first = slow.next()
        writer = append(path, 25, 600)  # past the map of 16 MiB that the database was made with
        seen = 25
        while True:
            ended = writer.poll() is not None
            start = cursor.restarts
            values = []
            while cursor.restarts == start:
                values.append(cursor.next())
            assert [value.split()[1] for value in values] == [b"%d" % number for number in range(len(values))]
            assert len(values) >= seen
            seen = len(values)
            if ended and seen == 600:
                break
        assert writer.wait() == 0 and len(database) == 600
        # One that is in the middle of a turn goes on through what it began with.
        assert first.split()[1] == b"0" and len(other) == 25
        assert [slow.next().split()[1] for _ in range(25)] == [b"%d" % (number % 25) for number in range(1, 26)]
        assert len(other) == 600
        slow.skip(598)
        assert slow.next().split()[1] == b"599"


def test_a_restored_reader_finds_its_record_where_others_came_before_it(tmp_path: Path) -> None:
    path = tmp_path / "db"

    def record(number: int) -> bytes:
        return array_to_datum(np.full((1, 1, 1), number, np.uint8), number).SerializeToString()

    with create_database(path) as writer:
        for number in range(10, 16):
            writer.put(str(number), record(number))

    def feeder() -> Feeder:
        return Feeder(str(path), "LMDB", 2, Transformer(caffe_pb2.TransformationParameter(), caffe_pb2.TEST,
                                                        np.random.default_rng(0)))

    with feeder() as before:
        before.next_batch()
        state = before.state()
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"01", record(1))
    with feeder() as after:
        after.restore(state)
        assert after.next_batch()[1].tolist() == [12, 13]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_readers_that_were_killed_leave_no_place_taken(tmp_path: Path) -> None:
    path = make(tmp_path / "db", 2)
    script = ("import os, signal, sys\nfrom barista.data.database import open_database\n"
              "cursor = open_database(sys.argv[1]).cursor()\ncursor.next()\nos.kill(os.getpid(), signal.SIGKILL)")
    with open_database(path):
        killed = subprocess.run([sys.executable, "-c", script, path], check=False)
        assert killed.returncode == -9
    with open_database(path) as database:
        assert database.cursor().next().startswith(b"value 0")
        readers = database._environment.readers()  # type: ignore[attr-defined]
        assert len(readers.strip().splitlines()) <= 3  # a title, and this process alone
