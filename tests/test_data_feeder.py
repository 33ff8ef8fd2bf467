"""The feeder: Caffe's batches, exact resume, errors of its thread, and its end."""

from __future__ import annotations

import gc
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from barista.data.database import create_database
from barista.data.datum import array_to_datum
from barista.data.feeder import Feeder
from barista.data.transformer import Transformer
from barista.errors import DataError, SnapshotError
from barista.proto import caffe_pb2

GOLDEN = Path(__file__).parent / "golden" / "data"
MNIST = str(GOLDEN / "mnist_lmdb")
CASES = {"mnist_plain": 0, "mnist_scale": 0, "mnist_mean_crop": 0, "png_values": 0, "png_encoded": 0,
         "png_gray": 1}  # grey levels allowed


def transformer(phase: int = caffe_pb2.TRAIN, seed: int = 1, **fields: object) -> Transformer:
    return Transformer(caffe_pb2.TransformationParameter(**fields), phase, np.random.default_rng(seed))


def numbered_database(path: Path, count: int) -> str:
    """Records whose single pixel and label are their number."""
    with create_database(path) as writer:
        for number in range(count):
            datum = array_to_datum(np.full((1, 1, 1), number, np.uint8), number)
            writer.put(f"{number:08d}", datum.SerializeToString())
    return str(path)


@pytest.mark.parametrize("case, tolerance", CASES.items())
def test_batches_are_those_of_caffe(case: str, tolerance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)  # paths in these files are relative
    net = text_format.Parse((GOLDEN / f"data_{case}.prototxt").read_text(), caffe_pb2.NetParameter())
    layer, param = net.layer[0], net.layer[0].data_param
    subject = Transformer(layer.transform_param, caffe_pb2.TEST, np.random.default_rng(0))
    with np.load(f"data_{case}.npz") as golden, \
            Feeder(param.source, "LMDB", param.batch_size, subject) as feeder:
        for k in range(4):
            data, labels = feeder.next_batch()
            assert data.shape == feeder.shape and data.dtype == labels.dtype == np.float32
            np.testing.assert_allclose(data, golden[f"data:{k}"], rtol=0, atol=tolerance)
            np.testing.assert_array_equal(labels, golden[f"label:{k}"])


def test_a_batch_does_not_change_while_any_part_of_it_is_held(tmp_path: Path) -> None:
    with Feeder(numbered_database(tmp_path / "db", 50), "LMDB", 2, transformer(), prefetch=2) as feeder:
        held = [feeder.next_batch() for _ in range(6)]  # more than are read ahead
        parts = [data[1, 0, 0] for data, _ in held] + [labels[:1] for _, labels in held]
        del held
        for _ in range(12):
            feeder.next_batch()
        assert [float(part[0]) for part in parts] == [1, 3, 5, 7, 9, 11, 0, 2, 4, 6, 8, 10]


def test_buffers_are_used_again(tmp_path: Path) -> None:
    with Feeder(numbered_database(tmp_path / "db", 3), "LMDB", 1, transformer(), prefetch=2) as feeder:
        places = set()
        for _ in range(20):
            data, _ = feeder.next_batch()
            places.add(data.ctypes.data)
        # Two read ahead, one that is being filled, one held, and one that is about to be.
        assert len(places) <= 5


def test_batches_of_one_take_the_size_of_their_image(tmp_path: Path) -> None:
    """Caffe: each batch has the size of its first image."""
    sizes = [(1, 2), (3, 1), (4, 5)]
    with create_database(tmp_path / "db") as writer:
        for number, size in enumerate(sizes):
            datum = array_to_datum(np.full((1, *size), number, np.uint8), number)
            writer.put(str(number), datum.SerializeToString())
    with Feeder(str(tmp_path / "db"), "LMDB", 1, transformer()) as feeder:
        held = [feeder.next_batch() for _ in range(7)]
    for number, (data, labels) in enumerate(held):
        assert data.shape == (1, 1, *sizes[number % 3]) and (data == number % 3).all() and labels == number % 3
    with Feeder(str(tmp_path / "db"), "LMDB", 2, transformer()) as feeder, \
            pytest.raises(DataError, match=r"record 1 .*the first record of the batch has"):
        feeder.next_batch()


def test_float64() -> None:
    with Feeder(MNIST, "LMDB", 2, transformer(scale=0.1), dtype=np.float64) as feeder:
        data, labels = feeder.next_batch()
        assert data.dtype == labels.dtype == np.float64


@pytest.mark.parametrize("taken", [0, 1, 3, 8])
def test_a_restored_feeder_goes_on_exactly(taken: int) -> None:
    fields = {"crop_size": 5, "mirror": True}
    with Feeder(MNIST, "LMDB", 7, transformer(**fields)) as feeder:
        for _ in range(taken):
            feeder.next_batch()
        time.sleep(0.05)  # lets the thread run ahead of what was handed out
        state = json.loads(json.dumps(feeder.state()))
        assert state["record"] == taken * 7 % 30
        expected = [tuple(array.copy() for array in feeder.next_batch()) for _ in range(6)]
        feeder.restore(state)
        again = [tuple(array.copy() for array in feeder.next_batch()) for _ in range(6)]
    with Feeder(MNIST, "LMDB", 7, transformer(seed=99, **fields)) as other:
        other.next_batch()
        other.restore(state)
        assert other.state() == state
        elsewhere = [tuple(array.copy() for array in other.next_batch()) for _ in range(6)]
    for batches in (again, elsewhere):
        for (data, labels), (other_data, other_labels) in zip(expected, batches, strict=True):
            np.testing.assert_array_equal(data, other_data)
            np.testing.assert_array_equal(labels, other_labels)
    assert any((expected[0][0] != batch[0]).any() for batch in expected[1:])


@pytest.mark.parametrize("state, message", [
    ({"record": 30, "key": "30", "rng": 0}, "cannot go to record 30, there is none of the key b'0'; was it made anew"),
    ({"key": "", "rng": 0}, "'record'"),
    ({"record": 1, "key": b"00000001_1.png".hex(), "rng": np.random.MT19937(0).state}, "is no state of a PCG64"),
    ({"record": "x", "key": "", "rng": 0}, "in the state to go on from"),
    ({"record": 1, "key": "xy", "rng": 0}, "in the state to go on from"),
])
def test_states_that_do_not_fit(state: dict, message: str) -> None:
    with Feeder(MNIST, "LMDB", 2, transformer()) as feeder, pytest.raises((DataError, SnapshotError), match=message):
        feeder.restore(state)


def test_the_last_batch_stays_while_the_thread_reads_ahead(tmp_path: Path) -> None:
    source = numbered_database(tmp_path / "db", 50)
    with Feeder(source, "LMDB", 5, transformer(), prefetch=1) as feeder:
        for k in range(25):
            data, labels = feeder.next_batch()
            time.sleep(0.002)
            expected = np.arange(5) + 5 * k % 50
            np.testing.assert_array_equal(data.ravel(), expected)
            np.testing.assert_array_equal(labels, expected)


def test_each_restart_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista.data")
    with Feeder(numbered_database(tmp_path / "db", 6), "LMDB", 4, transformer(), prefetch=1) as feeder:
        for _ in range(3):
            feeder.next_batch()
        deadline = time.monotonic() + 10
        while feeder._worker is not None and feeder._worker.ready.empty() and time.monotonic() < deadline:
            time.sleep(0.001)
    # Three batches handed out and one read ahead: 16 records, 6 a turn.
    assert [record.message for record in caplog.records] == ["Restarting data prefetching from start."] * 2
    assert {record.name for record in caplog.records} == {"barista.data"}


def test_rand_skip_is_below_its_limit_and_repeatable(tmp_path: Path) -> None:
    source = numbered_database(tmp_path / "db", 40)

    def first_label(seed: int) -> int:
        rng = np.random.default_rng(seed)
        with Feeder(source, "LMDB", 1, transformer(), rand_skip=3, rng=rng) as feeder:
            return int(feeder.next_batch()[1][0])

    starts = [first_label(seed) for seed in range(40)]
    assert set(starts) == {0, 1, 2}
    assert starts == [first_label(seed) for seed in range(40)]


def test_several_feeders_of_one_database() -> None:
    with Feeder(MNIST, "LMDB", 3, transformer()) as train, Feeder(MNIST, "LMDB", 5, transformer()) as test:
        for _ in range(15):
            train_labels, test_labels = train.next_batch()[1].copy(), test.next_batch()[1].copy()
        assert train.state()["record"] == 45 % 30 and test.state()["record"] == 75 % 30
        assert len(train_labels) == 3 and len(test_labels) == 5


@pytest.mark.parametrize("bad, message", [
    (b"\xff\xff", "2 bytes that are not a Datum"),
    (array_to_datum(np.zeros((1, 2, 1), np.uint8)).SerializeToString(),
     r"shape \(1, 2, 1\), but the first record of the batch has \(1, 1, 1\); set crop_size"),
    (caffe_pb2.Datum(channels=1, height=1, width=1, data=b"ab").SerializeToString(), "has 2 bytes of data"),
    (caffe_pb2.Datum(encoded=True, data=b"ab").SerializeToString(), "cannot be decoded"),
])
def test_an_error_of_the_thread_comes_out_and_stays(tmp_path: Path, bad: bytes, message: str) -> None:
    with create_database(tmp_path / "bad") as writer:
        for number in range(7):
            datum = array_to_datum(np.full((1, 1, 1), number, np.uint8), number)
            writer.put(f"{number:08d}", bad if number == 5 else datum.SerializeToString())
    with Feeder(str(tmp_path / "bad"), "LMDB", 2, transformer()) as feeder:
        assert feeder.next_batch()[1].tolist() == [0, 1]
        assert feeder.next_batch()[1].tolist() == [2, 3]
        for _ in range(2):
            with pytest.raises(DataError, match=rf"bad', record 5 \(key b'00000005'\): .*{message}"):
                feeder.next_batch()
        assert feeder.state()["record"] == 4


def test_a_bad_first_record_or_number_is_refused_at_once(tmp_path: Path) -> None:
    with create_database(tmp_path / "db") as writer:
        writer.put("k", b"\xff")
    with pytest.raises(DataError, match=r"record 0 \(key b'k'\)"):
        Feeder(str(tmp_path / "db"), "LMDB", 1, transformer())
    with pytest.raises(DataError, match=r"record 0 .*: .*: crop_size=10 exceeds the image, 9 x 9"):
        Feeder(MNIST, "LMDB", 1, transformer(crop_size=10))
    for number, fields in (("batch_size=0", {"batch_size": 0}), ("prefetch=0", {"prefetch": 0}),
                           ("rand_skip=-1", {"rand_skip": -1})):
        with pytest.raises(DataError, match=f"{number} must be"):
            Feeder(MNIST, "LMDB", **{"batch_size": 1, "transformer": transformer(), **fields})


def test_force_gray_on_raw_values_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with Feeder(MNIST, "LMDB", 1, transformer(force_gray=True)):
        assert "force_color and force_gray do nothing" in caplog.text


def test_closing_ends_the_thread_and_more_is_refused() -> None:
    before = threading.active_count()
    feeder = Feeder(MNIST, "LMDB", 2, transformer())
    feeder.next_batch()
    assert threading.active_count() == before + 1
    feeder.close()
    feeder.close()
    assert threading.active_count() == before
    for act in (feeder.next_batch, lambda: feeder.restore({})):
        with pytest.raises(DataError, match="its feeder is closed"):
            act()


def test_a_forgotten_feeder_takes_its_thread_along() -> None:
    gc.collect()  # other tests' feeders
    before = threading.active_count()
    feeder = Feeder(MNIST, "LMDB", 2, transformer())
    feeder.next_batch()
    del feeder
    gc.collect()
    assert threading.active_count() == before


SCRIPT = """
import sys
import numpy as np
from barista.data.feeder import Feeder
from barista.data.transformer import Transformer
from barista.proto import caffe_pb2
transformer = Transformer(caffe_pb2.TransformationParameter(), caffe_pb2.TRAIN, np.random.default_rng(0))
feeder = Feeder(sys.argv[1], "LMDB", 2, transformer)
print(feeder.next_batch()[1], flush=True)
"""


def test_the_interpreter_ends_with_a_feeder_still_open() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, MNIST], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("rest", ["while True: feeder.next_batch()",
                                  "while True: feeder._worker.ready.get()  # waits for what never comes"])
def test_ctrl_c_ends_it(rest: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT + rest, MNIST],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0 and errors.rstrip().endswith("KeyboardInterrupt")
