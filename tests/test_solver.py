"""The solver itself: which nets it makes, when it reads, tests and stops, and what it refuses."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barista import rng
from barista.errors import BaristaError, PrototxtError, SnapshotError, SolverError
from barista.net import Net
from barista.ops.cpu import CpuOps
from barista.proto.caffe_pb2 import SolverParameter
from barista.solvers import CLASSES, Action, AdamSolver, SignalHandler, Solver, get_solver

NET = """
name: "Line"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 4 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "twice" type: "TanH" bottom: "ip" top: "twice"
  include { phase: TEST stage: "extra" } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
BASE = 'base_lr: 0.1 lr_policy: "fixed" '


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a net."""
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(text: str = 'net: "net.prototxt"', /, **fields: Any) -> Solver:
    """A solver whose inputs hold fixed numbers, in its test nets too."""
    Path("solver.prototxt").write_text(BASE + text)
    solver = get_solver("solver.prototxt", ops=CpuOps(), **fields)
    for net in [solver.net, *solver.test_nets]:
        net.blobs["x"].data[...] = np.linspace(-1, 1, 12).reshape(4, 3)
        net.blobs["y"].data[...] = [[0, 1], [1, 0], [-1, 2], [3, 3]]
    return solver


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("barista.solvers")]


def parameters(solver: Solver) -> Any:
    """All parameters of the train net as one vector."""
    return np.concatenate([item.blob.data.reshape(-1) for item in solver.net.learnable])


# ---- which nets ------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), [
    ("", "exactly one of net, net_param, train_net, train_net_param; this one gives none"),
    ('net: "net.prototxt" train_net: "net.prototxt"', "this one gives net and train_net"),
    ('net: "not.prototxt"', "net: there is no file 'not.prototxt'"),
    ('train_net: "net.prototxt" test_iter: 1 test_interval: 1', "0 test net.s. and 1 test_iter"),
    ('train_net: "net.prototxt" test_net: "net.prototxt"', "1 test net.s. and 0 test_iter"),
    ('net: "net.prototxt" test_iter: 1', "test_interval 0; give the iterations"),
    ('net: "net.prototxt" test_iter: 0 test_interval: 1', "test_iter 0: a test takes 1 batch"),
    ('net: "net.prototxt" test_iter: 1 test_interval: 1 test_state {} test_state {}', "2 test_state"),
    ('net: "net.prototxt" iter_size: 0', "iter_size 0: give 1 or more"),
    ('net: "net.prototxt" average_loss: 0', "average_loss 0: give 1 or more"),
    ('net: "net.prototxt" type: "Adm"', "solver type 'Adm' is not known; did you mean 'Adam'"),
    ('net: "net.prototxt" type: "AdaGrad" momentum: 0.5', "AdaGrad takes no momentum, got 0.5"),
    ('net: "net.prototxt" type: "RMSProp" momentum: 0.5', "RMSProp takes no momentum, got 0.5"),
    ('net: "net.prototxt" type: "RMSProp" rms_decay: 1', "rms_decay 1 must be at least 0 and less than 1"),
    ('net: "net.prototxt" type: "Adam" momentum: 1', "momentum 1 must be at least 0 and less than 1"),
    ('net: "net.prototxt" regularization_type: "L3"', "regularization_type 'L3' is not known"),
    ('net: "net.prototxt" snapshot: 5 snapshot_prefix: "no/such/a"', "folder 'no/such' does not exist"),
])
def test_definitions_that_cannot_be_carried_out(folder: Path, text: str, message: str) -> None:
    with pytest.raises(BaristaError, match=message):
        make(text)


def test_an_interval_without_tests_is_noted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    make('net: "net.prototxt" test_interval: 5')
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "test_interval 5 has no effect: the solver gives no test_iter, the batches of a test; give one a test net, or "
        "take test_interval out"]


def test_states_of_test_nets(folder: Path) -> None:
    solver = make('net: "net.prototxt" test_iter: 1 test_iter: 1 test_interval: 5 '
                  'test_state { stage: "extra" } test_state {}')
    assert ["twice" in net.layer_names for net in (solver.net, *solver.test_nets)] == [False, True, False]


def test_order_of_test_nets(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista")
    (folder / "other.prototxt").write_text(NET.replace("Line", "Other"))
    solver = make('net: "net.prototxt" test_net: "other.prototxt" test_iter: 1 test_iter: 2 test_interval: 5')
    assert [net.name for net in solver.test_nets] == ["Other", "Line"]
    assert [line for line in messages(caplog) if "test net" in line] == [
        "Creating test net (#0) specified by test_net file: other.prototxt",
        "Creating test net (#1) specified by net file: net.prototxt"]


def test_test_nets_lie_on_the_parameters(folder: Path) -> None:
    solver = make('net: "net.prototxt" test_iter: 2 test_interval: 5 display: 1 momentum: 0.9')
    solver.step(3)
    weights, tested = solver.net.params["ip"][0], solver.test_nets[0].params["ip"][0]
    assert np.shares_memory(weights.data, tested.data)
    (scores,) = solver.test_all()
    solver.net.forward_pass()
    assert scores["loss"] == pytest.approx(solver.net.loss())


def test_files_beside_the_solver(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                 caplog: pytest.LogCaptureFixture) -> None:
    (folder / "solver.prototxt").write_text(BASE + 'net: "net.prototxt"')
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert Solver("../solver.prototxt", ops=CpuOps()).net.name == "Line"
    (folder / "elsewhere" / "net.prototxt").write_text(NET.replace("Line", "Nearer"))
    with caplog.at_level("WARNING"):
        assert Solver("../solver.prototxt", ops=CpuOps()).net.name == "Line"
    assert "net.prototxt: taken from .., beside the solver; there is another in" in caplog.text
    (folder / "net.prototxt").rename(folder / "unused.prototxt")
    assert Solver("../solver.prototxt", ops=CpuOps()).net.name == "Nearer"


def test_fields_are_replaced(folder: Path) -> None:
    solver = make(max_iter=7, snapshot_format="HDF5", stepvalue=[1, 2], base_lr=0.25)
    assert (solver.param.max_iter, solver.param.snapshot_format) == (7, SolverParameter.HDF5)
    assert list(solver.param.stepvalue) == [1, 2]
    assert solver.lr == 0.25
    with pytest.raises(SolverError, match="no field 'max_iters'; did you mean 'max_iter'"):
        make(max_iters=7)
    with pytest.raises(SolverError, match="'H5' is not known; choose one of HDF5, BINARYPROTO"):
        make(snapshot_format="H5")
    with pytest.raises(SolverError, match="max_iter: 'ten' does not fit"):
        make(max_iter="ten")


def test_a_class_counts_before_the_field(folder: Path) -> None:
    make()
    assert AdamSolver("solver.prototxt", ops=CpuOps()).param.type == "Adam"


@pytest.mark.parametrize(("type_", "class_"), CLASSES.items())
def test_get_solver_gives_the_class_that_the_type_names(folder: Path, type_: str, class_: type[Solver]) -> None:
    more = {"momentum": None} if type_ in ("AdaGrad", "RMSProp") else {}
    solver = make(type=type_, **more)
    assert type(solver) is class_
    assert isinstance(solver, Solver)
    assert class_.type == solver.param.type == type_
    assert repr(solver).startswith(f"{class_.__name__}({type_}, ")
    old = SolverParameter(solver_type=getattr(SolverParameter, type_.upper()))
    old.MergeFrom(solver.param)
    old.ClearField("type")
    assert type(get_solver(old, ops=CpuOps())) is class_


def test_random_seed_gives_the_same_weights(folder: Path) -> None:
    one, other, third = make(random_seed=5), make(random_seed=5), make(random_seed=6)
    np.testing.assert_array_equal(one.net.params["ip"][0].data, other.net.params["ip"][0].data)
    assert (one.net.params["ip"][0].data != third.net.params["ip"][0].data).any()


def test_weights_are_loaded_into_all_nets(folder: Path) -> None:
    rng.set_seed(3)
    first = make()
    first.net.save("w.caffemodel")
    second = make('net: "net.prototxt" weights: "w.caffemodel" test_iter: 1 test_interval: 1')
    np.testing.assert_array_equal(second.net.params["ip"][0].data, first.net.params["ip"][0].data)


# ---- training --------------------------------------------------------------------------------


def test_training_lowers_the_loss(folder: Path) -> None:
    solver = make(display=1, momentum=0.9)
    losses: list[Any] = []
    solver.progress = lambda iteration, loss: losses.append((iteration, loss))
    solver.step(60)
    assert [iteration for iteration, _ in losses] == list(range(1, 61))
    # The best line through the four points leaves a loss of 0.5625.
    x = np.c_[solver.net.blobs["x"].data, np.ones(4)]
    y = solver.net.blobs["y"].data
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert losses[0][1] > losses[-1][1] == pytest.approx((rest**2).sum() / 8, rel=0.05)


def test_losses_are_read_only_where_they_are_shown(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista")
    solver = make(display=10, average_loss=3)
    read: dict[int, float] = {}
    solver.progress = lambda iteration, loss: read.update({iteration - 1: loss} if loss is not None else {})
    solver.step(16)
    # 15 is the last iteration, 18 and 19 would be shown with 20.
    assert sorted(read) == [0, 8, 9, 10, 15]
    shown = [float(line.split("loss = ")[1]) for line in messages(caplog) if "iter/s" in line]
    assert shown == pytest.approx([read[0], (read[8] + read[9] + read[10]) / 3], rel=1e-5)


def test_iter_size_sums_batches(folder: Path) -> None:
    one, four = make(random_seed=1, momentum=0.9), make(random_seed=1, momentum=0.9, iter_size=4)
    one.step(3)
    four.step(3)
    np.testing.assert_allclose(one.net.params["ip"][0].data, four.net.params["ip"][0].data, rtol=1e-5)


def test_clipping_looks_at_the_sum_over_iter_size(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Caffe: the sum over the batches is clipped, then divided; so the update is limit / iter_size long."""
    caplog.set_level(logging.INFO, "barista")
    solver = make(iter_size=4, clip_gradients=0.5, base_lr=1.0)
    before = parameters(solver)
    solver.step(1)
    assert np.linalg.norm(parameters(solver) - before) == pytest.approx(0.5 / 4, rel=1e-5)
    (line,) = [line for line in messages(caplog) if line.startswith("Gradient clipping")]
    assert "> 0.5) by scale factor 0." in line
    loose = make(iter_size=4, clip_gradients=1000, base_lr=1.0)
    loose.step(1)
    assert len([line for line in messages(caplog) if line.startswith("Gradient clipping")]) == 1


@pytest.mark.parametrize(("kind", "expected"), [("L2", 0.5 * 0.2), ("L1", 0.5)])
def test_regularization_by_decay_mult(folder: Path, kind: str, expected: float) -> None:
    text = NET.replace("inner_product_param", "param { lr_mult: 3 } param { decay_mult: 0 } inner_product_param", 1)
    (folder / "net.prototxt").write_text(text)
    solver = make(weight_decay=0.5, regularization_type=kind)
    weights, bias = solver.net.params["ip"]
    weights.data[...], bias.data[...] = [[-0.2, 0.2, 0.0]] * 2, 0.2
    solver.net.clear_param_diffs()
    solver.apply_update()
    np.testing.assert_allclose(weights.diff, 0.1 * 3 * expected * np.array([[-1, 1, 0]] * 2), rtol=1e-6)
    assert not bias.diff.any()


def test_gradients_hold_the_update_afterwards(folder: Path) -> None:
    solver = make(random_seed=1, weight_decay=0.5, clip_gradients=0.1)
    weights = solver.net.params["ip"][0]
    before = weights.data.copy()
    solver.step(1)
    np.testing.assert_allclose(before - weights.diff, weights.data, rtol=1e-6)
    assert (before != weights.data).all()


def test_callbacks(folder: Path) -> None:
    solver = make()
    seen: list[Any] = []
    weights = solver.net.params["ip"][0]
    solver.add_callback(lambda: seen.append(("start", bool(weights.diff.any()))),
                        lambda: seen.append(("gradients", bool(weights.diff.any()))))
    solver.step(2)
    assert seen == [("start", False), ("gradients", True)] * 2


def test_own_loop_with_apply_update(folder: Path) -> None:
    whole, own = make(random_seed=1, momentum=0.9), make(random_seed=1, momentum=0.9)
    whole.step(4)
    for _ in range(4):
        own.net.clear_param_diffs()
        own.net.forward()
        own.net.backward()
        own.apply_update()
    assert own.iter == 4
    np.testing.assert_array_equal(own.net.params["ip"][0].data, whole.net.params["ip"][0].data)


def test_debug_info(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista")
    plain, solver = make(random_seed=1), make(random_seed=1, debug_info=True, display=2)
    plain.step(2)
    caplog.clear()
    solver.step(2)
    np.testing.assert_array_equal(plain.net.params["ip"][0].data, solver.net.params["ip"][0].data)
    lines = [line.strip() for line in messages(caplog)]
    loss = solver.net.blobs["loss"].data
    starts = [line.rsplit(": ", 1)[0] for line in lines if line.startswith("[")]
    assert starts[:4] == ["[Forward] Layer x, top blob x data", "[Forward] Layer y, top blob y data",
                          "[Forward] Layer ip, top blob ip data", "[Forward] Layer ip, param blob 0 data"]
    assert "[Backward] Layer loss, bottom blob ip diff" in starts
    assert "[Backward] Layer ip, bottom blob x diff" not in starts
    assert sum(line.startswith("[Update] Layer ip, param 1 data: ") for line in lines) == 1
    assert loss.shape == ()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("make_bad", ["rate", "input"])
def test_divergence_is_an_error_that_says_where(folder: Path, make_bad: str) -> None:
    solver = make(display=1, snapshot=1, snapshot_prefix="a")
    solver.step(1)
    kept = {name: Path(name).read_bytes() for name in os.listdir() if name.startswith("a_")}
    assert len(kept) == 3
    if make_bad == "rate":
        solver.net.params["ip"][0].data[1, 2] = np.nan
        where = r"1 of the 6 of parameter ip\[0\]"
    else:
        solver.net.blobs["x"].data[0, 0] = np.inf
        where = r"1 of the 12 of blob 'x' of layer 'x' \(Input\)"
    text = rf"at iteration 1 the loss is (nan|inf), with learning rate 0\.1\. .*{where}"
    with pytest.raises(SolverError, match=text):
        solver.step(5)
    assert {name: Path(name).read_bytes() for name in os.listdir() if name.startswith("a_")} == kept
    if make_bad == "rate":
        with pytest.raises(SnapshotError, match=r"1 of the 6 values of parameter ip\[0\] are not finite"):
            solver.snapshot()


def test_solve_needs_max_iter(folder: Path) -> None:
    with pytest.raises(SolverError, match="gives no max_iter"):
        make().solve()


def test_solve_checks_the_folder_before_it_trains(folder: Path) -> None:
    solver = make(max_iter=5, snapshot_prefix="gone/a")
    with pytest.raises(SnapshotError, match="folder 'gone' does not exist; make it first: mkdir -p gone"):
        solver.solve()
    assert solver.iter == 0


def test_prefix_is_the_solvers_name_unless_given(folder: Path) -> None:
    (folder / "kept").mkdir()
    assert make(max_iter=2).param.snapshot_prefix == "solver"
    solver = make('net: "net.prototxt" snapshot_prefix: "kept"', max_iter=2)
    solver.solve()
    assert (folder / "kept" / "solver_iter_2.solverstate").exists()


# ---- requests and signals --------------------------------------------------------------------


def test_stop_keeps_a_snapshot(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista")
    solver = make(max_iter=100)
    solver.progress = lambda iteration, loss: solver.request(Action.STOP) if iteration == 3 else None
    solver.solve()
    assert solver.iter == 3
    assert Path("solver_iter_3.solverstate").exists()
    assert messages(caplog)[-1] == "Optimization stopped early."


def test_snapshot_on_request_goes_on(folder: Path) -> None:
    solver = make(max_iter=5, snapshot_after_train=False)
    actions = iter([Action.NONE, Action.SNAPSHOT])
    solver.action = lambda: next(actions, Action.NONE)
    solver.solve()
    assert solver.iter == 5
    assert sorted(name for name in os.listdir() if "_iter_" in name) == [
        "solver_iter_2.caffemodel", "solver_iter_2.solverstate", "solver_iter_2.solverstate.resume.json"]


def test_stop_during_a_test(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "barista")
    solver = make('net: "net.prototxt" test_iter: 3 test_interval: 2', max_iter=10)
    solver.request(Action.STOP)
    solver.solve()
    assert solver.iter == 0
    assert messages(caplog)[-4:] == [
        "Test interrupted.", "Snapshotting to binary proto file solver_iter_0.caffemodel",
        "Snapshotting solver state to binary proto file solver_iter_0.solverstate", "Optimization stopped early."]


def test_signals(folder: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with SignalHandler("stop", "snapshot") as handler:
        assert handler() is Action.NONE
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert [handler(), handler(), handler()] == [Action.SNAPSHOT, Action.STOP, Action.NONE]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with SignalHandler("none", "none") as handler:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert handler() is Action.NONE


def test_signal_stops_a_training(folder: Path) -> None:
    solver = make(max_iter=50)
    with SignalHandler() as handler:
        solver.action = handler
        solver.progress = lambda done, loss: os.kill(os.getpid(), signal.SIGINT) if done == 2 else None
        solver.solve()
    assert solver.iter == 2 and Path("solver_iter_2.caffemodel").exists()


def test_signals_belong_to_the_main_thread() -> None:
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with SignalHandler():
                pass
        except SolverError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_unknown_effect() -> None:
    with pytest.raises(SolverError, match="the effect 'halt'; choose one of none, stop, snapshot"):
        SignalHandler("halt")


def test_message_without_file(folder: Path) -> None:
    param = SolverParameter(base_lr=0.1, lr_policy="fixed", net="net.prototxt", max_iter=1)
    solver = Solver(param, ops=CpuOps())
    with pytest.raises(SnapshotError, match="gives no snapshot_prefix; give one, or set"):
        solver.solve()
    solver.step(1)
    assert isinstance(solver.net, Net) and solver.iter == 1


def test_fields_of_a_fork_are_skipped_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } fork_field: 1 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }')
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 fork_solver_field: 2')
    with pytest.raises(PrototxtError, match="fork_solver_field"):
        get_solver(str(path))
    with caplog.at_level("WARNING"), get_solver(str(path), ignore_unknown_fields=True) as solver:
        assert solver.net.layer_names == ["x", "ip"]
    assert "fork_solver_field" in caplog.text and "fork_field" in caplog.text
