"""Data in HDF5 files: batches over file borders, shuffling, resuming, hostile files, and rows that are written."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barista.data.hdf5_data import HDF5Batches, HDF5Rows
from barista.data.read_ahead import ReadAhead
from barista.errors import DataError, MissingExtraError

h5py = pytest.importorskip("h5py")


def hdf5_list(folder: Path, rows: Sequence[int], **extra: np.ndarray) -> str:
    """Files of numbered rows: data (n,2) is the number and its negative, label (n,) the number."""
    first = 0
    names = []
    for index, count in enumerate(rows):
        numbers = np.arange(first, first + count)
        with h5py.File(folder / f"{index}.h5", "w") as file:
            file["data"] = np.stack([numbers, -numbers], axis=1).astype(np.float64)
            file["label"] = numbers.astype(np.int32)
            for name, values in extra.items():
                file[name] = values
        names.append(str(folder / f"{index}.h5"))
        first += count
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    return str(folder / "list.txt")


def batches(source: str, size: int, shuffle: bool = False, seed: int = 1,
            names: Sequence[str] = ("data", "label")) -> HDF5Batches:
    return HDF5Batches(source, names, size, shuffle, np.random.default_rng(seed))


@pytest.mark.parametrize("rows", [[7], [3, 1, 5], [1], [2, 2]])
@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_run_over_the_ends_of_files(tmp_path: Path, rows: list[int], size: int) -> None:
    with ReadAhead(batches(hdf5_list(tmp_path, rows), size), dtype=np.float64) as reader:
        for turn in range(5):
            data, labels = reader.next_batch()
            expected = np.arange(turn * size, (turn + 1) * size) % sum(rows)
            np.testing.assert_array_equal(labels, expected)
            np.testing.assert_array_equal(data, np.stack([expected, -expected], axis=1))
            assert data.dtype == labels.dtype == np.float64


@pytest.mark.parametrize("rows", [[6], [3, 1, 2]])
def test_shuffled_rows_come_once_a_turn(tmp_path: Path, rows: list[int]) -> None:
    turns = []
    with ReadAhead(batches(hdf5_list(tmp_path, rows), 3, shuffle=True)) as reader:
        for _ in range(12):
            pairs = [reader.next_batch() for _ in range(2)]
            turns.append([int(label) for _, labels in pairs for label in labels])
            assert all((data[:, 0] == labels).all() and (data[:, 1] == -labels).all() for data, labels in pairs)
    assert all(sorted(turn) == list(range(6)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 5
    if len(rows) > 1:  # files come whole, in another order each turn
        borders = [set(range(3)), {3}, {4, 5}]
        firsts = {next(index for index, border in enumerate(borders) if turn[0] in border) for turn in turns}
        assert len(firsts) > 1
        for turn in turns:
            parts = [next(index for index, border in enumerate(borders) if label in border) for label in turn]
            assert sum(a != b for a, b in itertools.pairwise(parts)) == 2


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("rows", [[7], [3, 1, 5]])
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_rows_go_on_exactly(tmp_path: Path, shuffle: bool, rows: list[int], taken: int) -> None:
    source = hdf5_list(tmp_path, rows)
    with ReadAhead(batches(source, 2, shuffle)) as reader, ReadAhead(batches(source, 2, shuffle, seed=5)) as other:
        for _ in range(taken):
            reader.next_batch()
        state = json.loads(json.dumps(reader.state()))
        expected = [reader.next_batch()[1].tolist() for _ in range(9)]
        other.next_batch()
        for again in (other, reader):
            again.restore(state)
            assert again.state() == state
            assert [again.next_batch()[1].tolist() for _ in range(9)] == expected


@pytest.mark.parametrize("state, message", [
    ({"file": 2, "row": 0}, "cannot go to file 2, it names 2"), ({"file": 0, "row": 3}, "to row 3, the file has 3"),
    ({"file": 0, "row": -1}, "to row -1"), ({"row": 0}, "'file'"), ({"file": "a", "row": 0}, "in the state to go on")])
def test_states_that_do_not_fit(tmp_path: Path, state: dict, message: str) -> None:
    with ReadAhead(batches(hdf5_list(tmp_path, [3, 2]), 2)) as reader, pytest.raises(DataError, match=message):
        reader.restore({"files": None, "rows": None, "rng": np.random.default_rng(0).bit_generator.state, **state})


def bad(folder: Path, kind: str) -> str:
    """A list whose second file is wrong in some way."""
    source = hdf5_list(folder, [3, 3])
    path = folder / "1.h5"
    if kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("no HDF5")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:2100])
    else:
        with h5py.File(path, "a") as file:
            if kind != "rows":
                del file["data"]
            if kind == "group":
                file.create_group("data/x")
            elif kind == "soft":
                file["data"] = h5py.SoftLink("/label")
            elif kind == "external":
                file["data"] = h5py.ExternalLink(str(folder / "0.h5"), "/data")
            elif kind == "storage":
                file.create_dataset("data", (3, 2), "f4", external=[(str(folder / "secret"), 0, 24)])
            elif kind == "virtual":
                layout = h5py.VirtualLayout((3, 2), "f4")
                layout[:] = h5py.VirtualSource(str(folder / "0.h5"), "data", (3, 2))
                file.create_virtual_dataset("data", layout)
            elif kind == "shape":
                file["data"] = np.zeros((3, 4))
            elif kind == "empty":
                file["data"] = np.zeros((0, 2))
                del file["label"]
                file["label"] = np.zeros(0)
            elif kind == "words":
                file["data"] = np.array([b"a", b"b", b"c"])
            elif kind == "scalar":
                file["data"] = 3.0
            elif kind == "rows":
                del file["label"]
                file["label"] = np.zeros(4)
    return source


@pytest.mark.parametrize("kind, message", [
    ("missing", r"cannot be read: No such file or directory \(working folder"),
    ("text", "cannot be read: it is no HDF5 file$"), ("cut", "cannot be read: truncated file: eof = [^()]*$"),
    ("none", r"has no dataset 'data', which the layer's top asks for; it has \['label'\]"),
    ("group", r"'data' is no dataset; it holds \['x'\]"), ("soft", "'data' is a link to another place, which is not"),
    ("external", "'data' is a link to another place"), ("storage", "'data' keeps its values in other files"),
    ("virtual", "'data' keeps its values in other files"), ("empty", "its datasets have 0 rows"),
    ("shape", r"rows of dataset 'data' have shape \(4,\), those of the first file \(2,\); all must agree"),
    ("words", "dataset 'data' holds .*, no numbers"), ("scalar", "dataset 'data' has no axis"),
    ("rows", r"its datasets differ in rows \('data' 3, 'label' 4\)")])
def test_bad_files_are_named(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"list\.txt:2: HDF5 file '.*1\.h5'.*{message}"), \
            ReadAhead(batches(bad(tmp_path, kind), 2)) as reader:
        for _ in range(3):
            reader.next_batch()


def test_every_file_is_looked_for_at_once(tmp_path: Path) -> None:
    source = hdf5_list(tmp_path, [1, 1, 1, 1])
    (tmp_path / "2.h5").rename(tmp_path / "two.h5")
    with pytest.raises(DataError, match=r"list\.txt:3: HDF5 file '.*2\.h5' cannot be read: No such file"):
        batches(source, 1)
    (tmp_path / "2.h5").mkdir()
    with pytest.raises(DataError, match=r"list\.txt:3: HDF5 file '.*2\.h5' cannot be read: it is no file"):
        batches(source, 1)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    source = Path(hdf5_list(tmp_path, [1]))
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    with ReadAhead(batches(str(source), 1)) as reader:
        assert reader.next_batch()[1].tolist() == [0]


def test_what_is_claimed_and_not_there_is_not_taken_into_memory(tmp_path: Path) -> None:
    source = hdf5_list(tmp_path, [2])
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file.create_dataset("data", (1 << 34, 64), "f4", chunks=(64, 64))
    with pytest.raises(DataError, match="'/data' claims 4398046511104 bytes, but holds 0; shuffling reads all of it"):
        batches(source, 2, shuffle=True, names=["data"])
    with ReadAhead(batches(source, 2, names=["data"])) as reader:  # in order two rows are all that is read
        assert not reader.next_batch()[0].any()
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file.create_dataset("data", (1 << 14, 1 << 12), "f8", chunks=(1 << 14, 1 << 12))
    with pytest.raises(DataError, match="'/data' claims 536870912 bytes, but holds 0; reading takes whole chunks"):
        batches(source, 2, names=["data"])


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: No such file .*the name of an HDF5 file in each line"):
        batches(str(tmp_path / "none"), 1)
    (tmp_path / "empty").write_text(" \n\n")
    with pytest.raises(DataError, match="names no file; write one a line"):
        batches(str(tmp_path / "empty"), 1)
    with pytest.raises(DataError, match="is no text: its lines hold zero bytes"):
        batches(hdf5_list(tmp_path, [1])[:-8] + "0.h5", 1)
    with pytest.raises(DataError, match="batch_size=0 must be 1 or more"):
        batches(hdf5_list(tmp_path, [1]), 0)


def compressed() -> bytes:
    """An HDF5 file with a dataset in one piece and one in compressed chunks."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["data"] = np.random.default_rng(1).normal(size=(7, 3))
        file.create_dataset("label", data=np.arange(7.0), chunks=(3,), compression="gzip")
    return memory.getvalue()


VALID = compressed()


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6), st.booleans(),
       st.one_of(st.just(len(VALID)), st.integers(0, len(VALID))))
def test_damaged_files_are_read_or_refused(changes: list[tuple[int, int]], shuffle: bool, stop: int) -> None:
    data = bytearray(VALID)
    for place, value in changes:
        data[place] = value
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "0.h5").write_bytes(data[:stop])
        (Path(folder) / "list.txt").write_text(f"{folder}/0.h5")
        with contextlib.suppress(DataError), ReadAhead(batches(f"{folder}/list.txt", 3, shuffle)) as reader:
            if sum(map(math.prod, reader.shapes)) < 1e6:
                for _ in range(4):
                    assert reader.next_batch()[0].shape == reader.shapes[0]


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = hdf5_list(tmp_path, [1])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"data in HDF5 files needs .* pip install 'barista-caffe\[hdf5\]'"):
        batches(source, 1)


# ---- rows that are written --------------------------------------------------------------------------------


def test_rows_go_behind_each_other_and_are_there_at_once(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(7, 2, 3, 1)).astype(np.float32)
    rows = HDF5Rows(str(tmp_path / "out.h5"))
    rows.append(values[:4], values[:4, :1])
    rows.append(values[4:], values[4:, :1])
    script = ("import h5py, sys\nwith h5py.File(sys.argv[1], 'r', locking=False) as file:\n"
              "    print(file['data'].shape, file['label'].shape, sorted(file))")
    seen = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out.h5")], capture_output=True, text=True,
                          check=True).stdout
    assert seen.strip() == "(7, 2, 3, 1) (7, 1, 3, 1) ['data', 'label']" and rows.rows == 7
    with pytest.raises(DataError, match=r"dataset 'data' would get an array of shape \(7, 2, 3\) beside rows of shape"):
        rows.append(values[:, :, :, 0], values)
    with pytest.raises(DataError, match=r"dataset 'label' would get an array of shape \(6, 2, 3, 1\) beside 7 rows"):
        rows.append(values, values[1:])
    rows.close()
    rows.close()
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["data"][()], values)
        np.testing.assert_array_equal(file["label"][()], values[:, :1])
    with pytest.raises(DataError, match="is closed; nothing more"):
        rows.append(values, values)


def test_an_interrupted_batch_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = HDF5Rows(str(tmp_path / "out.h5"))
    rows.append(np.zeros((2, 1, 1, 1)), np.zeros((2, 1, 1, 1)))
    resize = h5py.Dataset.resize

    def interrupted(dataset: object, size: int, axis: int | None = None) -> None:
        if dataset.name == "/label" and size == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        resize(dataset, size, axis)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(h5py.Dataset, "resize", interrupted)
        rows.append(np.ones((3, 1, 1, 1)), np.ones((3, 1, 1, 1)))
    rows.close()
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(file["data"]) == len(file["label"]) == 2


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be made: .*its folder must exist"):
        HDF5Rows(str(tmp_path / "none" / "out.h5"))
    held = HDF5Rows(str(tmp_path / "out.h5"))
    with pytest.raises(DataError, match="no other net may have it open"):
        HDF5Rows(str(tmp_path / "out.h5"))
    held.close()
