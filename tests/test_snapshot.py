"""Snapshots: Caffe's files in and out, damaged ones refused, old ones kept when the disk is full."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barista import files, hdf5
from barista.errors import DataError, MissingExtraError, SnapshotError
from barista.frontends.prototxt import parse_net
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.blobs import array_to_blob, blob_to_array
from barista.proto.caffe_pb2 import BlobProto, NetParameter, SolverParameter, SolverState
from barista.solvers import Solver
from barista.solvers.snapshot import State, read_state, write_state
from barista.weights import read_weights, write_weights

CAFFE = Path(__file__).parent / "golden" / "solvers"

NET = """
name: "Two"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a/b" type: "InnerProduct" bottom: "x" top: "ab" inner_product_param { num_output: 4
  weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 0.5 } } }
layer { name: "c" type: "InnerProduct" bottom: "ab" top: "c" inner_product_param { num_output: %d
  weight_filler { type: "gaussian" std: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "c" top: "loss" }
"""


def make(outputs: int = 2, **fields: Any) -> Solver:
    param = SolverParameter(base_lr=0.1, lr_policy="fixed", momentum=0.9)
    param.net_param.CopyFrom(parse_net(NET % outputs))
    return Solver(param, ops=CpuOps(), **fields)


@pytest.fixture()
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Solver:
    """A solver in an empty folder that has written iteration 3 in both forms."""
    monkeypatch.chdir(tmp_path)
    solver = make(snapshot_prefix="two")
    solver.step(3)
    for form in (SolverParameter.HDF5, SolverParameter.BINARYPROTO):
        solver.param.snapshot_format = form
        solver.snapshot()
    return solver


def parameters(net: Net) -> list[np.ndarray]:
    return [blob.data.copy() for blobs in net.params.values() for blob in blobs]


# ---- arrays in messages ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (300,), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_array_to_blob_and_back(shape: tuple[int, ...], dtype: type) -> None:
    generator = np.random.default_rng(1)
    array, diff = generator.normal(size=(2, *shape)).astype(dtype)
    array, diff = np.asarray(array), np.asarray(diff)
    blob = BlobProto(num=3)
    array_to_blob(array, blob, diff)
    again = BlobProto.FromString(blob.SerializeToString())
    for given, back in ((array, blob_to_array(again)), (diff, blob_to_array(again, diff=True))):
        np.testing.assert_array_equal(given, back)
        assert back.shape == shape and (back.dtype == dtype or back.size == 0)
        assert back.flags.writeable


def test_array_to_blob_writes_what_protobuf_writes() -> None:
    array = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    ours, theirs = BlobProto(), BlobProto()
    array_to_blob(array.T, ours)
    theirs.shape.dim.extend([30, 20])
    theirs.data.extend(array.T.ravel().tolist())
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_old_shapes() -> None:
    blob = BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    np.testing.assert_array_equal(blob_to_array(blob), np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3))
    with pytest.raises(DataError, match=r"shape \(1, 2, 1, 3\) needs 6 numbers; the message holds 5 values"):
        blob_to_array(BlobProto(num=1, channels=2, height=1, width=3, data=range(5)))


# ---- files of Caffe --------------------------------------------------------------------------


def test_caffes_weights_are_the_same_in_both_forms() -> None:
    binary = read_weights(CAFFE / "sgd_fixed_iter_8.caffemodel")
    of_hdf5 = {layer.name: layer for layer in read_weights(CAFFE / "sgd_fixed_iter_8.caffemodel.h5").layer}
    with_blobs = [layer for layer in binary.layer if layer.blobs]
    assert [layer.name for layer in with_blobs] == ["conv", "bn", "scale", "ip"]
    for layer in with_blobs:
        for one, other in zip(layer.blobs, of_hdf5[layer.name].blobs, strict=True):
            np.testing.assert_array_equal(blob_to_array(one), blob_to_array(other))


def test_caffes_states_are_the_same_in_both_forms() -> None:
    one = read_state(str(CAFFE / "sgd_fixed_iter_8.solverstate"))
    other = read_state(str(CAFFE / "sgd_fixed_iter_8.solverstate.h5"))
    assert (one.iteration, one.current_step, one.learned_net) == (8, 0, "sgd_fixed_iter_8.caffemodel")
    assert (other.iteration, other.current_step) == (8, 0)
    assert other.learned_net == "sgd_fixed_iter_8.caffemodel.h5"
    for a, b in zip(one.history, other.history, strict=True):
        np.testing.assert_array_equal(a, b)


def test_adam_keeps_first_moments_before_second_ones() -> None:
    state = read_state(str(CAFFE / "adam_iter_8.solverstate"))
    shapes = [array.shape for array in state.history]
    assert len(shapes) == 18 and shapes[:9] == shapes[9:]
    assert all((array >= 0).all() for array in state.history[9:])
    assert any((array < 0).any() for array in state.history[:9])


@pytest.mark.parametrize("name", ["sgd_fixed_iter_8.solverstate", "adam_iter_8.solverstate"])
def test_a_state_is_written_byte_for_byte_as_caffe_does(name: str, tmp_path: Path) -> None:
    write_state(read_state(str(CAFFE / name)), str(tmp_path / "again"))
    ours, theirs = (SolverState.FromString(path.read_bytes()) for path in (tmp_path / "again", CAFFE / name))
    assert ours == theirs


def test_hdf5_has_caffes_layout(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")

    def layout(path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            found[name] = None
            if isinstance(item, h5py.Dataset):
                kind = item.id.get_type()
                padding = kind.get_strpad() if kind.get_class() == h5py.h5t.STRING else None
                found[name] = (item.shape, item.dtype.str, padding, np.asarray(item[()]).tolist())

        with h5py.File(path) as file:
            file.visititems(visit)
        return found

    state = read_state(str(CAFFE / "sgd_fixed_iter_8.solverstate.h5"))
    write_state(state, str(tmp_path / "s.h5"))
    assert layout(tmp_path / "s.h5") == layout(CAFFE / "sgd_fixed_iter_8.solverstate.h5")
    write_weights(read_weights(CAFFE / "sgd_fixed_iter_8.caffemodel.h5"), tmp_path / "w.h5")
    assert layout(tmp_path / "w.h5") == layout(CAFFE / "sgd_fixed_iter_8.caffemodel.h5")


# ---- our own round trip ----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".h5"])
def test_round_trip(saved: Solver, ending: str) -> None:
    fresh = make()
    fresh.restore(f"two_iter_3.solverstate{ending}")
    assert fresh.iter == 3
    old, new = (parameters(solver.net) + solver.history for solver in (saved, fresh))
    for one, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(one, other)


def test_snapshot_diff(saved: Solver) -> None:
    saved.param.snapshot_diff = True
    for ending, form in (("", SolverParameter.BINARYPROTO), (".h5", SolverParameter.HDF5)):
        saved.param.snapshot_format = form
        saved.snapshot()
        layers = {layer.name: layer for layer in read_weights(f"two_iter_3.caffemodel{ending}").layer}
        if not ending:
            diff = blob_to_array(layers["c"].blobs[0], diff=True)
            np.testing.assert_array_equal(diff, saved.net.params["c"][0].diff)
        else:
            h5py = pytest.importorskip("h5py")
            with h5py.File("two_iter_3.caffemodel.h5") as file:
                np.testing.assert_array_equal(file["diff/c/0"][()], saved.net.params["c"][0].diff)


def test_weights_beside_a_moved_state(saved: Solver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("two_iter_3.caffemodel", "two_iter_3.solverstate"):
        (tmp_path / name).rename(moved / name)
    monkeypatch.chdir("/")
    fresh = make()
    fresh.restore(moved / "two_iter_3.solverstate")
    np.testing.assert_array_equal(parameters(fresh.net)[0], parameters(saved.net)[0])
    (moved / "two_iter_3.caffemodel").unlink()
    with pytest.raises(SnapshotError, match="put the caffemodel beside the solverstate"):
        fresh.restore(moved / "two_iter_3.solverstate")


def test_no_pieces_are_left(saved: Solver, tmp_path: Path) -> None:
    assert sorted(os.listdir(tmp_path)) == [
        "two_iter_3.caffemodel", "two_iter_3.caffemodel.h5", "two_iter_3.solverstate", "two_iter_3.solverstate.h5",
        "two_iter_3.solverstate.h5.resume.json", "two_iter_3.solverstate.resume.json"]


# ---- wrong files -----------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "message"), [
    ("two_iter_3.caffemodel", "not a solverstate; it is a caffemodel"),
    ("two_iter_3.caffemodel.h5", "not a solverstate: .* it is a caffemodel"),
    ("nothing", "cannot read the solverstate nothing: No such file"),
    ("empty", "not a solverstate; its 0 bytes name no iteration"),
    ("text", "not a solverstate"),
    (".", "Is a directory"),
])
def test_what_is_not_a_state(saved: Solver, path: str, message: str) -> None:
    Path("empty").touch()
    Path("text").write_text("base_lr: 0.1\n" * 50)
    with pytest.raises(SnapshotError, match=message):
        saved.restore(path)


@pytest.mark.parametrize(("path", "message"), [
    ("two_iter_3.solverstate", "this is a training state"),
    ("two_iter_3.solverstate.h5", "holds no weights: .* it is a solverstate"),
    ("nothing", "cannot read the weights nothing: No such file"),
])
def test_what_is_no_weights(saved: Solver, path: str, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        saved.net.copy_from(path)


@pytest.mark.parametrize("name", ["two_iter_3.solverstate", "two_iter_3.solverstate.h5",
                                  "two_iter_3.caffemodel", "two_iter_3.caffemodel.h5"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_files_cut_short(saved: Solver, name: str, share: float) -> None:
    raw = Path(name).read_bytes()
    Path(name).write_bytes(raw[:int(len(raw) * share)])
    fresh = make()
    before = parameters(fresh.net)
    with pytest.raises(SnapshotError):
        fresh.restore(name.replace("caffemodel", "solverstate"))
    assert fresh.iter == 0 and not any(array.any() for array in fresh.history)
    for one, other in zip(before, parameters(fresh.net), strict=True):
        np.testing.assert_array_equal(one, other)


def test_state_of_another_net_or_rule(saved: Solver) -> None:
    with pytest.raises(SnapshotError, match=r"history blob 2, of parameter c\[0\], has shape \(2, 4\); "
                                            r"this net has \(5, 4\)"):
        make(outputs=5).restore("two_iter_3.solverstate")
    with pytest.raises(SnapshotError, match=r"4 history blob\(s\), this solver has 8; .*another solver type"):
        make(type="Adam").restore("two_iter_3.solverstate")


def test_weights_of_another_net(saved: Solver) -> None:
    with pytest.raises(SnapshotError, match=r"layer 'c': parameter 0 has shape \(5, 4\), .* has \(2, 4\)"):
        make(outputs=5).net.copy_from("two_iter_3.caffemodel.h5")


# ---- disks -----------------------------------------------------------------------------------


class Full:
    """Stands for an open file on a full disk."""

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_keeps_the_old_file(saved: Solver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    monkeypatch.setattr(files, "open", lambda *_: Full(), raising=False)
    with pytest.raises(SnapshotError, match=r"cannot write two_iter_3.caffemodel: No space left on device "
                                            r"\(\d+ MiB free\); free some"):
        saved.snapshot()
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on the size of files here")
@pytest.mark.parametrize("ending", ["", ".h5"])
def test_file_that_cannot_grow_keeps_the_old_one(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"w.caffemodel{ending}"
    net = NetParameter(name="big")
    array_to_blob(np.ones((500, 500), np.float32), net.layer.add(name="ip", type="InnerProduct").blobs.add())
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(SnapshotError, match=r"cannot write .*File too large.*untouched"):
            write_weights(net, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [path.name]


def test_an_interruption_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["w"]


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(SnapshotError, match=r"snapshot_prefix '.*two': cannot write .*Permission denied"):
        make(snapshot=5, snapshot_prefix=str(tmp_path / "two"))


def test_message_beyond_the_limit_of_protobuf(saved: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PROTOBUF_LIMIT_BYTES", 100)
    with pytest.raises(SnapshotError, match=r"two_iter_3.caffemodel: .* GiB; .*Set snapshot_format: HDF5"):
        saved.snapshot()


def test_hdf5_without_its_package(saved: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'barista-caffe\[hdf5\]'"):
        hdf5.read_weights("two_iter_3.caffemodel.h5")


def test_state_without_weights(tmp_path: Path) -> None:
    solver = make()
    path = str(tmp_path / "s.solverstate")
    write_state(State(1, 0, "", solver.history), path)
    with pytest.raises(SnapshotError, match="names no weights"):
        solver.restore(path)
