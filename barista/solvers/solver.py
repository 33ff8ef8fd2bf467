"""The solver: trains a net as a SolverParameter says, tests it, reports and keeps snapshots.

What it does in an iteration, and in which order, follows Caffe; so do the lines that it logs.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy.typing as npt

from .. import rng
from ..blob import HOST
from ..errors import SnapshotError, SolverError
from ..files import check_writable, remove_parts
from ..frontends.prototxt import read_net, to_text
from ..hdf5 import require_h5py
from ..net import Net
from ..ops.base import OpSet
from ..proto.caffe_pb2 import SolverParameter
from ..weights import write_weights
from .actions import Action
from .catalogue import newest_complete, read_snapshot
from .debug import forward_backward_with_debug_info, log_update
from .definition import read_definition
from .diverged import not_finite
from .nets import NetSource, test_sources, train_source, weights_files
from .rate import LearningRate
from .report import LossAverage, OutputMeans, Stopwatch, info, log_outputs, read_outputs
from .resume import (
    LayerStates,
    Resume,
    check_layers,
    digest,
    layer_states,
    restore_layers,
    resume_path,
    write_resume,
)
from .snapshot import State, check_finite, check_history, restore_history, write_state
from .update import Update

log = logging.getLogger(__name__)

Callback = Callable[[], None]


class Solver:
    """Trains a net.

    Parameters
    ----------
    param : the definition, or the path of its prototxt file
    ops : the op set of all nets; None takes that of the current mode
    ignore_unknown_fields : skip what a fork added to the files, with a warning
    folder : where files are looked for before the current folder; None takes that of the solver's file
    plan_memory : let blobs of a net take turns on memory (see `Net`); debug_info, which reads them, keeps them apart
    overrides : fields of the definition to replace, such as ``max_iter=100``

    Attributes
    ----------
    param : the SolverParameter
    net : the train net
    test_nets : the test nets, which lie on the parameters of the train net
    iter : iterations done
    action : asked between iterations for what a user wants (see `SignalHandler`), or None
    progress : told after each iteration its number and, where it was read, its loss; or None

    Raises
    ------
    SolverError : a definition that cannot be carried out
    SnapshotError : snapshots are wanted where none can be written
    NetError : a net that does not fit together
    """

    type: ClassVar[str | None] = None

    def __init__(self, param: SolverParameter | str | os.PathLike[str], *, ops: OpSet | None = None,
                 ignore_unknown_fields: bool = False, folder: str | None = None, plan_memory: bool = False,
                 **overrides: Any) -> None:
        self.param, self._folder = read_definition(param, overrides, ignore_unknown_fields, folder)
        if self.type not in (None, self.param.type):
            # Caffe: a class that names a solver counts, not the field.
            self.param.type = self.type
        info("solver.cpp:45", "Initializing solver from parameters: \n%s", to_text(self.param).rstrip())
        self._plan_memory = plan_memory and not self.param.debug_info
        self._rate = LearningRate(self.param)
        if self.param.snapshot:
            self._check_prefix()
        if self.param.random_seed >= 0:
            rng.set_seed(self.param.random_seed)
        self.iter = 0
        self.action: Callable[[], Action] | None = None
        self.progress: Callable[[int, float | None], None] | None = None
        self._requests: list[Action] = []
        self._stopping = False
        self._callbacks: list[tuple[Callback, Callback]] = []
        self._average = LossAverage(self.param.average_loss, self.param.display)
        self._watch = Stopwatch()
        self._reported = 0
        # Where the test nets stood before the test of the coming iteration: it is made again after a resume.
        self._before_test: list[LayerStates] | None = None
        self.test_nets: list[Net] = []
        read = functools.partial(read_net, ignore_unknown_fields=ignore_unknown_fields)
        self.net = self._make_net(train_source(self.param, self._folder, read), ops, "solver.cpp:102")
        try:
            self._update = Update(self.net.learnable, self.param, self.net.ops)
            for source in test_sources(self.param, self._folder, read):
                self.test_nets.append(self._make_net(source, self.net.ops, "solver.cpp:190"))
                self.test_nets[-1].share_trained_layers_with(self.net)
        except BaseException:
            self.close()
            raise
        info("solver.cpp:57", "Solver scaffolding done.")

    def _make_net(self, source: NetSource, ops: OpSet | None, origin: str) -> Net:
        info(origin, "%s", source.text)
        net = Net(source.param, ops=ops, plan_memory=self._plan_memory)
        try:
            for path in weights_files(self.param, self._folder):
                log.info("Finetuning from %s", path)
                net.copy_from(path)
        except BaseException:
            net.close()
            raise
        return net

    def close(self) -> None:
        """Stop the threads and close the files of all nets."""
        for net in [self.net, *self.test_nets]:
            net.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.param.type}, net={self.net.name!r}, iter={self.iter})"

    def __enter__(self) -> Solver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def history(self) -> list[npt.NDArray[Any]]:
        """What the rule remembers of each parameter, in the order of a solverstate (views on the host)."""
        return [tensor.update(HOST) for tensor in self._update.history]

    @property
    def history_names(self) -> list[str]:
        """Of which parameter each of `history` is, such as ``conv1[0]``."""
        return list(self._update.names)

    # ---- training ---------------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the coming iteration."""
        return self._rate(self.iter)

    def add_callback(self, on_start: Callback, on_gradients: Callback) -> None:
        """Call `on_start` before each iteration's forward pass and `on_gradients` before its update."""
        self._callbacks.append((on_start, on_gradients))

    def share_weights(self, net: Net) -> None:
        """Let `net` lie on the parameters of the train net, layer by name (pycaffe)."""
        net.share_with(self.net)

    def request(self, action: Action) -> None:
        """Ask for a stop or a snapshot before the next iteration; any thread may."""
        self._requests.append(action)

    def solve(self, resume_file: str | os.PathLike[str] | None = None) -> None:
        """Train to max_iter, from a solverstate where one is given.

        Raises
        ------
        SolverError : max_iter is missing, or training diverged
        SnapshotError : the state cannot be read, or snapshots cannot be written
        """
        if not self.param.HasField("max_iter"):
            raise SolverError("the solver gives no max_iter; give the number of iterations, or call step")
        if self.param.snapshot_after_train:
            self._check_prefix()
        info("solver.cpp:289", "Solving %s", self.net.name)
        info("solver.cpp:290", "Learning Rate Policy: %s", self.param.lr_policy)
        if resume_file is not None:
            log.info("Restoring previous solver status from %s", os.fspath(resume_file))
            self.restore(resume_file)
        self.step(max(self.param.max_iter - self.iter, 0))
        if self.param.snapshot_after_train and not _every(self.param.snapshot, self.iter):
            self.snapshot()
        if self._stopping:
            log.info("Optimization stopped early.")
            return
        if _every(self.param.display, self.iter):
            # Caffe: one more forward pass, with the final parameters, for the report alone.
            self.net.forward_pass()
            self._average.add(self._checked(self.net.loss()))
            info("solver.cpp:327", "Iteration %d, loss = %g", self.iter, self._average.mean)
        if _every(self.param.test_interval, self.iter):
            self.test_all()
        info("solver.cpp:332", "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Train for a number of iterations; a request to stop ends it before.

        Raises
        ------
        SolverError : training diverged, or a number of iterations below 0
        """
        if iterations < 0:
            raise SolverError(f"step({iterations}): give 0 iterations or more")
        stop = self.iter + iterations
        self._average.start()
        self._stopping = False
        with self._watch:
            while self.iter < stop and not self._stopping:
                self.net.clear_param_diffs()
                due = _every(self.param.test_interval, self.iter)
                if due and (self.iter or self.param.test_initialization):
                    self._test_all()
                    if self._stopping:
                        break
                self._iterate(last=self.iter + 1 == stop)
        self.net.settle()

    def _iterate(self, last: bool) -> None:
        """One iteration: gradients, report, update, snapshot."""
        for on_start, _ in self._callbacks:
            on_start()
        self._before_test = None
        display = _every(self.param.display, self.iter)
        reported = self._average.needs(self.iter)
        kept = last or _every(self.param.snapshot, self.iter + 1)
        loss = self._gradients(reported or kept, display and self.param.debug_info)
        if loss is not None and reported:
            self._average.add(loss)
        if display:
            self._report()
        for _, on_gradients in self._callbacks:
            on_gradients()
        self._apply_update()
        if self.progress is not None:
            self.progress(self.iter, loss)
        request = self._next_request()
        if _every(self.param.snapshot, self.iter) or request is Action.SNAPSHOT:
            self.snapshot()
        self._stopping = request is Action.STOP

    def _gradients(self, read_loss: bool, debug: bool) -> float | None:
        """Sum the gradients of iter_size batches; return their mean loss where it is to be read."""
        loss = 0.0
        for _ in range(self.param.iter_size):
            if debug:
                forward_backward_with_debug_info(self.net)
            else:
                self.net.forward_pass()
                self.net.backward_pass()
            if read_loss:
                # After the backward pass was started, so that the device need not wait for the host.
                loss += self._checked(self.net.loss())
        return loss / self.param.iter_size if read_loss else None

    def apply_update(self) -> None:
        """Change the parameters by their gradients, and count the iteration.

        Caffe: afterwards the gradients hold what was subtracted.
        """
        self._apply_update()
        self.net.settle()

    def _apply_update(self) -> None:
        rate = self.lr
        if _every(self.param.display, self.iter):
            info("sgd_solver.cpp:112", "Iteration %d, lr = %g", self.iter, rate)
        self._update.run(rate, self.iter)
        if self.param.debug_info and _every(self.param.display, self.iter):
            log_update(self.net)
        self.iter += 1

    def _report(self) -> None:
        lapse_s = self._watch.lap()
        per_s = (self.iter - self._reported) / (lapse_s or 1.0)
        info("solver.cpp:239", "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
             self.iter, per_s, lapse_s, self.param.display, self._average.mean)
        self._reported = self.iter
        log_outputs(self.net, read_outputs(self.net), "Train", "solver.cpp:258")

    def _next_request(self) -> Action:
        if self._requests:
            return self._requests.pop(0)
        return self.action() if self.action is not None else Action.NONE

    def _checked(self, loss: float) -> float:
        """`loss`, if it is a number.

        Raises
        ------
        SolverError : it is not; names where that begins in the net
        """
        if not math.isfinite(loss):
            raise not_finite(self.net, loss, f"at iteration {self.iter} the loss", self.lr)
        return loss

    # ---- testing ----------------------------------------------------------------------------

    def test_all(self) -> list[dict[str, Any]]:
        """Test with every test net; return for each the means of its outputs."""
        scores = self._test_all()
        if not self._stopping:
            self._before_test = None
        return scores

    def _test_all(self) -> list[dict[str, Any]]:
        """Test as `test_all` does, and keep in mind where the test nets stood before."""
        self._before_test = [layer_states(net) for net in self.test_nets]
        scores = []
        for index in range(len(self.test_nets)):
            means = self._test(index)
            if self._stopping:
                break
            scores.append(means)
        return scores

    def _test(self, index: int) -> dict[str, Any]:
        """Mean outputs over test_iter batches; empty when a request to stop came between."""
        info("solver.cpp:347", "Iteration %d, Testing net (#%d)", self.iter, index)
        net, batches = self.test_nets[index], self.param.test_iter[index]
        net.share_trained_layers_with(self.net)
        outputs = OutputMeans()
        loss = 0.0
        for _ in range(batches):
            self._meet_requests()
            if self._stopping:
                log.info("Test interrupted.")
                return {}
            net.forward_pass()
            batch_loss = net.loss()
            if not math.isfinite(batch_loss):
                raise not_finite(net, batch_loss, f"at iteration {self.iter} the loss of test net #{index}")
            loss += batch_loss
            outputs.add(read_outputs(net))
        if self.param.test_compute_loss:
            log.info("Test loss: %g", loss / batches)
        means = outputs.means()
        log_outputs(net, means, "Test", "solver.cpp:414")
        return means

    def _meet_requests(self) -> None:
        while (request := self._next_request()) is not Action.NONE:
            if request is Action.SNAPSHOT:
                self.snapshot()
            else:
                self._stopping = True

    # ---- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> str:
        """Write the weights, the state and the resume file under snapshot_prefix; return the path of the state.

        Raises
        ------
        SnapshotError : they cannot be written, or hold values that are not finite; older files stay whole
        """
        self._check_prefix()
        hdf5 = self.param.snapshot_format == SolverParameter.HDF5
        kind, end = ("HDF5", ".h5") if hdf5 else ("binary proto", "")
        stem = f"{self.param.snapshot_prefix}_iter_{self.iter}"
        weights, path = f"{stem}.caffemodel{end}", f"{stem}.solverstate{end}"
        for item in self.net.learnable:
            check_finite(f"parameter {item.name}", item.blob.value.read(HOST), weights)
        info("solver.cpp:464", "Snapshotting to %s file %s", kind, weights)
        write_weights(self.net.to_proto(self.param.snapshot_diff), weights)
        info("sgd_solver.cpp:284", "Snapshotting solver state to %s file %s", kind, path)
        # Caffe: the file holds the step of the last update, not of the coming one.
        steps = self._rate.steps(max(self.iter - 1, 0))
        write_state(State(self.iter, steps, weights, [h.read(HOST) for h in self._update.history]), path)
        tests = self._before_test or [layer_states(net) for net in self.test_nets]
        write_resume(Resume(self.iter, rng.seed(), self._average.losses, digest(weights), digest(path),
                            layer_states(self.net), tests), resume_path(path))
        remove_parts(f"{self.param.snapshot_prefix}_iter_")
        return path

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Continue from a snapshot: its iteration, history, weights and, with its resume file, exactly.

        Parameters
        ----------
        path : a solverstate, or ``auto`` for the newest complete one of snapshot_prefix: none is no error then

        Raises
        ------
        SnapshotError : it cannot be read or belongs to another net or solver; iteration and history stay
        """
        name: str | None = os.fspath(path)
        if name == "auto":
            name = newest_complete(self.param.snapshot_prefix)
            log.info("The newest complete snapshot of %s: %s", self.param.snapshot_prefix,
                     name or "there is none, training begins at iteration 0")
        if name is None:
            return
        snapshot = read_snapshot(name, self.param.snapshot_prefix)
        state, resume = snapshot.state, snapshot.resume
        check_history(state, self._update.history, self._update.names, name)
        if resume is not None:
            check_layers(self.net, resume.train, snapshot.resume_path)
            restore_layers(self.net, resume.train, snapshot.resume_path)
        self.net.copy_trained_layers(snapshot.weights, snapshot.weights_path)
        log.info("SGDSolver: restoring history")
        restore_history(state, self._update.history)
        self.iter = self._reported = state.iteration
        self._before_test = None
        if resume is None:
            log.info("%s has no resume file (Caffe writes none): the data and all random numbers start anew", name)
        else:
            self._resume_tests(resume, snapshot.resume_path)
            self._average.resume(resume.losses)

    def _resume_tests(self, resume: Resume, path: str) -> None:
        """Let the test nets go on too; tests change no weights, so that other test nets are no error."""
        if len(resume.tests) != len(self.test_nets):
            log.warning("%s was written with %d test net(s), this solver has %d: their data start anew", path,
                        len(resume.tests), len(self.test_nets))
            return
        for index, (net, states) in enumerate(zip(self.test_nets, resume.tests, strict=True)):
            try:
                check_layers(net, states, path)
            except SnapshotError as error:
                log.warning("the data of test net #%d start anew: %s", index, error)
            else:
                restore_layers(net, states, path)

    def _check_prefix(self) -> None:
        if not self.param.snapshot_prefix:
            raise SnapshotError("snapshots are asked for, but the solver gives no snapshot_prefix; give one, "
                                "or set snapshot: 0 and snapshot_after_train: false")
        if self.param.snapshot_format == SolverParameter.HDF5:
            require_h5py()
        check_writable(self.param.snapshot_prefix)


def _every(interval: int, iteration: int) -> bool:
    """Whether an interval, 0 for never, ends at `iteration`."""
    return interval > 0 and iteration % interval == 0
