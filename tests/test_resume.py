"""Exact resume: a run that is killed and goes on leaves the same files, to the byte, as one left in peace."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barista import rng
from barista.blob import HOST, Tensor
from barista.data.database import create_database
from barista.data.datum import array_to_datum
from barista.errors import DataError, SnapshotError
from barista.frontends.prototxt import read_solver
from barista.layers.base import Layer
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import LayerParameter, SolverParameter
from barista.solvers import Action, Solver
from barista.solvers.catalogue import newest_complete
from barista.solvers.resume import read_resume

NET = """
name: "Little"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 6 scale: 0.01 mean_value: 120 }
  data_param { source: "%(source)s" backend: LMDB batch_size: 4 rand_skip: 9 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { mirror: true crop_size: 6 scale: 0.01 }
  data_param { source: "%(source)s" backend: LMDB batch_size: 3 } }
layer { name: "noise" type: "DummyData" top: "noise" dummy_data_param { shape { dim: 4 dim: 5 }
  data_filler { type: "gaussian" std: 0.1 } } include { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "ip" bottom: "noise" top: "sum" include { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "label" top: "loss" include { phase: TRAIN } }
layer { name: "test_loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.05 lr_policy: "inv" gamma: 0.01 power: 0.75 momentum: 0.9 weight_decay: 0.001
iter_size: 2 test_iter: 2 test_interval: 3 display: 2 average_loss: 3 random_seed: 7 solver_mode: CPU
snapshot_prefix: "little" snapshot: %(snapshot)d max_iter: %(max_iter)d
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 43 small images, which no batch divides."""
    path = tmp_path_factory.mktemp("resume") / "lmdb"
    generator = np.random.default_rng(5)
    with create_database(path) as writer:
        for index in range(43):
            image = generator.integers(0, 256, (3, 8, 9), np.uint8)
            writer.put(f"{index:05}", array_to_datum(image, index % 5).SerializeToString())
    return path


def lay_out(folder: Path, source: Path, **numbers: int) -> Path:
    """A folder with a solver and its net."""
    folder.mkdir()
    (folder / "net.prototxt").write_text(NET % {"source": source})
    (folder / "solver.prototxt").write_text(SOLVER % {"snapshot": 2, "max_iter": 12, **numbers})
    return folder


def make(**fields: Any) -> Solver:
    """The solver of the current folder."""
    return Solver(read_solver("solver.prototxt"), ops=CpuOps(), plan_memory=True, **fields)


def files(folder: Path) -> dict[str, bytes]:
    """What training left in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".prototxt"}


@pytest.fixture()
def trained(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of an undisturbed run, in an otherwise empty current folder."""
    monkeypatch.chdir(lay_out(tmp_path / "run", source))
    with make() as solver:
        solver.solve()
    return files(Path())


# ---- killed processes -------------------------------------------------------------------------------------


def train(folder: Path) -> subprocess.Popen[str]:
    words = ["train", "--solver", "solver.prototxt", "--snapshot", "auto", "--threads", "1"]
    return subprocess.Popen([sys.executable, "-m", "barista", *words], cwd=folder, stderr=subprocess.PIPE, text=True)


def kill_at(process: subprocess.Popen[str], snapshots: int, delay_s: float) -> bool:
    """Kill a training `delay_s` after it began to write its snapshot of this number; whether it was still alive."""
    assert process.stderr is not None
    for line in process.stderr:
        snapshots -= "Snapshotting to" in line
        if snapshots < 0:
            break
    time.sleep(delay_s)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def check_kills(tmp_path: Path, source: Path, kills: int, max_iter: int) -> None:
    """Kill a training `kills` times, let it go on each time, and compare all that it wrote with an undisturbed run."""
    alone = lay_out(tmp_path / "alone", source, snapshot=1, max_iter=max_iter)
    killed = lay_out(tmp_path / "killed", source, snapshot=1, max_iter=max_iter)
    process = train(alone)
    assert process.communicate()[1] and process.returncode == 0
    moments = random.Random(kills)
    for _ in range(kills):
        assert kill_at(train(killed), moments.randrange(4), moments.uniform(0, 0.03)), "it was done before the kill"
    process = train(killed)
    log = process.communicate()[1]
    assert process.returncode == 0, log
    one, other = files(alone), files(killed)
    assert len(one) == 3 * max_iter
    assert {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} == set()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_three_kills(tmp_path: Path, source: Path) -> None:
    check_kills(tmp_path, source, kills=3, max_iter=40)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_fifty_kills(tmp_path: Path, source: Path) -> None:
    check_kills(tmp_path, source, kills=50, max_iter=600)


# ---- in one process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "iteration"), [(SolverParameter.BINARYPROTO, 2), (SolverParameter.BINARYPROTO, 6),
                                                (SolverParameter.BINARYPROTO, 10), (SolverParameter.HDF5, 6)])
def test_every_snapshot_leads_to_the_same_end(trained: dict[str, bytes], form: int, iteration: int,
                                              caplog: pytest.LogCaptureFixture) -> None:
    end = ""
    if form == SolverParameter.HDF5:
        pytest.importorskip("h5py")
        end = ".h5"
        with make(snapshot_format=form) as solver:
            solver.solve()
        trained = {name: raw for name, raw in files(Path()).items() if ".h5" in name}
    with make(snapshot_format=form, random_seed=99) as solver, caplog.at_level("INFO"):
        solver.solve(f"little_iter_{iteration}.solverstate{end}")
    assert "start anew" not in caplog.text
    weights = f"little_iter_12.caffemodel{end}"
    assert Path(weights).read_bytes() == trained[weights]
    ours, theirs = (json.loads(raw) for raw in (Path(f"little_iter_12.solverstate{end}.resume.json").read_bytes(),
                                                trained[f"little_iter_12.solverstate{end}.resume.json"]))
    for part in ("losses", "train", "tests", "weights", "state"):
        assert ours[part] == theirs[part]
    assert (ours["seed"], theirs["seed"]) == (99, 7)


def test_a_snapshot_in_the_middle_of_a_test(trained: dict[str, bytes]) -> None:
    """The test begins again after a resume: its data lie where they lay before it."""
    with make() as solver:
        requests = iter([Action.NONE] * 6 + [Action.SNAPSHOT])
        solver.action = lambda: next(requests, Action.NONE)
        solver.step(5)
    assert Path("little_iter_3.solverstate").exists()
    with make() as solver:
        solver.solve("little_iter_3.solverstate")
    assert files(Path())["little_iter_12.solverstate.resume.json"] == trained["little_iter_12.solverstate.resume.json"]


def test_a_snapshot_between_a_test_and_its_iteration(trained: dict[str, bytes]) -> None:
    """A callback makes it; the test is made again after a resume."""
    with make(snapshot=0) as solver:
        solver.add_callback(lambda: solver.snapshot() if solver.iter == 3 else None, lambda: None)
        solver.step(5)
    with make() as solver:
        solver.solve("little_iter_3.solverstate")
    assert files(Path())["little_iter_12.solverstate.resume.json"] == trained["little_iter_12.solverstate.resume.json"]


def test_without_its_resume_file_the_data_start_anew(trained: dict[str, bytes],
                                                     caplog: pytest.LogCaptureFixture) -> None:
    Path("little_iter_6.solverstate.resume.json").unlink()
    with make() as solver, caplog.at_level("INFO"):
        solver.solve("little_iter_6.solverstate")
        assert solver.iter == 12
    assert "has no resume file (Caffe writes none): the data and all random numbers start anew" in caplog.text
    assert Path("little_iter_12.caffemodel").read_bytes() != trained["little_iter_12.caffemodel"]


def test_test_nets_may_differ(trained: dict[str, bytes], caplog: pytest.LogCaptureFixture) -> None:
    with make(test_iter=[], test_interval=0) as solver:
        solver.solve("little_iter_6.solverstate")
    assert "was written with 1 test net(s), this solver has 0: their data start anew" in caplog.text
    assert Path("little_iter_12.caffemodel").read_bytes() == trained["little_iter_12.caffemodel"]


# ---- the newest complete one ------------------------------------------------------------------------------


def spoil(name: str) -> None:
    """Turn one bit in the middle of a file."""
    raw = bytearray(Path(name).read_bytes())
    raw[len(raw) // 2] ^= 1
    Path(name).write_bytes(raw)


def cut(name: str) -> None:
    """Take the last byte of a file away."""
    Path(name).write_bytes(Path(name).read_bytes()[:-1])


DAMAGE = [("caffemodel", spoil, r"little_iter_12.caffemodel is damaged, or was replaced: its checksum is"),
          ("caffemodel", cut, r"little_iter_12.caffemodel has \d+ bytes, it was written with \d+"),
          ("caffemodel", os.unlink, "its weights 'little_iter_12.caffemodel' are neither there"),
          ("solverstate", spoil, "little_iter_12.solverstate is damaged"),
          ("solverstate", cut, "little_iter_12.solverstate has"),
          ("solverstate", os.unlink, "cannot read .*little_iter_12.solverstate: No such file"),
          ("solverstate.resume.json", spoil, "resume.json is damaged, or was cut short or edited"),
          ("solverstate.resume.json", cut, "resume.json is damaged, or was cut short")]


@pytest.mark.parametrize(("kind", "damage", "message"), DAMAGE)
def test_a_damaged_snapshot_offers_the_one_before(trained: dict[str, bytes], kind: str, damage: Any,
                                                  message: str) -> None:
    damage(f"little_iter_12.{kind}")
    spoil("little_iter_10.caffemodel")
    with make() as solver:
        before = [item.blob.data.copy() for item in solver.net.learnable]
        with pytest.raises(SnapshotError, match=message + r".*go on with --snapshot little_iter_8.solverstate$"):
            solver.restore("little_iter_12.solverstate")
        assert solver.iter == 0
        for old, item in zip(before, solver.net.learnable, strict=True):
            np.testing.assert_array_equal(old, item.blob.data)
        solver.restore("auto")
        assert solver.iter == 8


@pytest.mark.parametrize("path", ["little_iter_1.solverstate", "missing.solverstate", "other_iter_5.solverstate"])
def test_a_missing_snapshot_offers_the_newest(trained: dict[str, bytes], path: str) -> None:
    spoil("little_iter_12.caffemodel")
    message = (rf"{path}.*: No such file.*\. The newest complete snapshot of little: go on with --snapshot "
               r"little_iter_10\.solverstate$")
    with make() as solver, pytest.raises(SnapshotError, match=message):
        solver.restore(path)
    with make(snapshot_prefix="other") as solver, pytest.raises(SnapshotError, match=r"No such file or directory$"):
        solver.restore("missing.solverstate")


@pytest.mark.parametrize("left", [["caffemodel"], ["caffemodel", "solverstate"]])
def test_a_snapshot_half_written_does_not_count(trained: dict[str, bytes], left: list[str]) -> None:
    for name in trained:
        if name.startswith("little_iter_12.") and name.split(".", 1)[1] not in left:
            os.unlink(name)
    for iteration in (8, 12):
        Path(f".little_iter_{iteration}.caffemodel.1.part").write_bytes(b"half")
    with make() as solver:
        solver.restore("auto")
        assert solver.iter == 10
        assert newest_complete(".//little") == "./little_iter_10.solverstate"
        solver.solve()
    assert files(Path()) == trained  # and the pieces are gone


def test_auto_without_a_snapshot_begins_at_the_start(trained: dict[str, bytes],
                                                     caplog: pytest.LogCaptureFixture) -> None:
    with make(snapshot_prefix="other") as solver, caplog.at_level("INFO"):
        solver.restore("auto")
        assert solver.iter == 0
    assert "The newest complete snapshot of other: there is none, training begins at iteration 0" in caplog.text


def test_auto_takes_what_caffe_wrote(trained: dict[str, bytes]) -> None:
    for path in Path().glob("*.resume.json"):
        path.unlink()
    cut("little_iter_12.solverstate")
    os.unlink("little_iter_10.caffemodel")
    with make() as solver:
        solver.restore("auto")
        assert solver.iter == 8


def test_weights_replaced_where_the_state_says_are_found_beside_it(trained: dict[str, bytes], tmp_path: Path) -> None:
    """A moved snapshot is not mixed with a file that took the old place of its weights."""
    moved = tmp_path / "moved"
    moved.mkdir()
    for kind in ("caffemodel", "solverstate", "solverstate.resume.json"):
        (moved / f"little_iter_6.{kind}").write_bytes(trained[f"little_iter_6.{kind}"])
    spoil("little_iter_6.caffemodel")
    with make() as solver:
        solver.solve(moved / "little_iter_6.solverstate")
    assert Path("little_iter_12.caffemodel").read_bytes() == trained["little_iter_12.caffemodel"]


# ---- wrong files ------------------------------------------------------------------------------------------


def test_a_resume_file_of_another_net(trained: dict[str, bytes]) -> None:
    text = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(text.replace('"drop" type: "Dropout"', '"copy" type: "Dropout"'))
    message = (r"little_iter_6.solverstate.resume.json belongs to another net than 'Little': it has drop \(Dropout\); "
               r"this net has copy \(Dropout\). Give the net .* take that file away")
    with make() as solver, pytest.raises(SnapshotError, match=message):
        solver.restore("little_iter_6.solverstate")


def sealed(document: object) -> bytes:
    """A resume file of these contents, whose checksum agrees."""
    body = json.dumps(document, indent=1).removeprefix("{\n").encode()
    return b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode() + body


@pytest.mark.parametrize(("change", "message"), [
    ({"format": "x"}, "is not a resume file: its format is 'x'"),
    ({"version": 2}, "has version 2 of its format, this Barista reads up to 1: install a newer one"),
    ({"iteration": "6"}, "'iteration' is '6', not of type int"),
    ({"iteration": True}, "'iteration' is True, not of type int"),
    ({"losses": [1]}, "'losses' is 1, not of type float"),
    ({"weights": {}}, "'name' is None, not of type str"),
    ({"train": {"data": []}}, r"'data' is \[\], not of type dict"),
    ({"tests": [5]}, "'tests' is 5, not of type dict"),
    ({"losses": [0.5] * 200_001}, r"holds \d+ values; a resume file has at most 200000"),
])
def test_wrong_contents(trained: dict[str, bytes], change: dict[str, Any], message: str) -> None:
    document = json.loads(trained["little_iter_6.solverstate.resume.json"])
    del document["sha256"]
    Path("wrong").write_bytes(sealed(document))
    assert read_resume("wrong").iteration == 6
    Path("wrong").write_bytes(sealed(document | change))
    with pytest.raises(SnapshotError, match=message):
        read_resume("wrong")


@pytest.mark.parametrize("state", [None, {}, {"bit_generator": "MT19937"}, 5, {"bit_generator": "PCG64", "state": 1},
                                   rng.state_of(rng.generator()) | {"uinteger": 2**100}])
def test_wrong_random_states(trained: dict[str, bytes], state: object) -> None:
    path = Path("little_iter_6.solverstate.resume.json")
    document = json.loads(trained[path.name])
    del document["sha256"]
    document["train"]["drop"]["rng"] = state
    path.write_bytes(sealed(document))
    with make() as solver, pytest.raises(SnapshotError, match=r"drop \(Dropout\): .* is no state of a PCG64 generator"):
        solver.restore("little_iter_6.solverstate")


# ---- what layers carry ------------------------------------------------------------------------------------


class Counting(Layer):
    """A layer that carries numbers from pass to pass."""

    type = "Counting"

    def setup(self, bottom: Any, top: Any) -> None:
        self.kept = self.scratch("kept", (2, 3))

    def carried(self) -> list[Tensor]:
        return [self.kept]


def counting(shape: tuple[int, ...] = (2, 3)) -> Counting:
    layer = Counting(LayerParameter(name="c"), CpuOps(), 0, rng.generator())
    layer.setup([], [])
    layer.kept = layer.scratch("kept", shape)
    return layer


def test_carried_values_come_back() -> None:
    one, other = counting(), counting()
    one.kept.write(HOST)[...] = [[1, -2, 0], [0.1, np.inf, np.nan]]
    other.restore(json.loads(json.dumps(one.state())))
    np.testing.assert_array_equal(other.kept.read(HOST), one.kept.read(HOST))
    np.testing.assert_array_equal(one.rng.random(3), other.rng.random(3))


@pytest.mark.parametrize(("change", "message"), [
    ({"carried": []}, r"does not hold the 1 array\(s\) that the layer carries"),
    ({"carried": "x"}, r"does not hold the 1 array\(s\)"),
    ({"carried": ["!"]}, "this is no array in text"),
    ({"carried": counting((3, 2)).state()["carried"]}, r"an array of shape \(3, 2\), where this net has \(2, 3\)"),
])
def test_wrong_carried_values(change: dict[str, Any], message: str) -> None:
    layer = counting()
    layer.kept.write(HOST)[...] = 5
    with pytest.raises((SnapshotError, DataError), match=message):
        layer.restore(layer.state() | change)
    assert (layer.kept.read(HOST) == 5).all()
