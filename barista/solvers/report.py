"""What a solver logs, in the lines and numbers that Caffe's log parsers read."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blob import HOST
from ..net import Net

log = logging.getLogger(__name__)


def info(origin: str, text: str, *args: object) -> None:
    """Log a line that carries the place in Caffe's sources from which parsers know it."""
    log.info(text, *args, extra={"origin": origin}, stacklevel=2)


def read_outputs(net: Net) -> dict[str, npt.NDArray[Any]]:
    """Copies of a net's outputs, flat."""
    return {name: np.array(net.blobs[name].value.read(HOST)).reshape(-1) for name in net.outputs}


def log_outputs(net: Net, values: Mapping[str, npt.NDArray[Any]], phase: str, origin: str) -> None:
    """Log each number of the outputs, with its part in the loss."""
    weights = net.blob_loss_weights
    for index, (name, value) in enumerate(_numbers(values)):
        weight = weights[name]
        loss = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
        info(origin, "    %s net output #%d: %s = %g%s", phase, index, name, value, loss)


def _numbers(values: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, float]]:
    for name, array in values.items():
        for value in array:
            yield name, float(value)


class OutputMeans:
    """Means of a test net's outputs over batches.

    An output whose size differs from batch to batch, as that of DetectionOutput does, has none: it is left out, which
    the log says.
    """

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[Any]] = {}
        self._varying: set[str] = set()
        self._batches = 0

    def add(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the outputs of a batch, see `read_outputs`."""
        self._batches += 1
        for name, array in values.items():
            known = self._sums.get(name)
            if known is not None and known.shape != array.shape:
                del self._sums[name]
                self._varying.add(name)
                log.info("Test net output %s has no mean: %d numbers, and %d in batch %d", name, known.size, array.size,
                         self._batches)
            elif name not in self._varying:
                self._sums[name] = array if known is None else known + array

    def means(self) -> dict[str, npt.NDArray[Any]]:
        """The mean of each output that has one."""
        return {name: total / self._batches for name, total in self._sums.items()}


class LossAverage:
    """Mean of the last `window` losses, and which iterations it needs them of.

    Reading a loss waits for the device; one that no report shows is not read.
    """

    def __init__(self, window: int, display: int) -> None:
        self._display = display
        self._losses: collections.deque[float] = collections.deque(maxlen=window)
        self._window = window
        self._resumed = False

    @property
    def losses(self) -> list[float]:
        """The losses that the mean takes in."""
        return list(self._losses)

    def resume(self, losses: Sequence[float]) -> None:
        """Go on from the losses of a snapshot; the next `start` keeps them."""
        self._losses.clear()
        self._losses.extend(losses)
        self._resumed = True

    def start(self) -> None:
        """Forget what was before."""
        if not self._resumed:
            self._losses.clear()
        self._resumed = False

    def needs(self, iteration: int) -> bool:
        """Whether the loss of `iteration` is part of the next report."""
        return self._display > 0 and -iteration % self._display < self._window

    def add(self, loss: float) -> None:
        """Take the loss of an iteration that `needs` names."""
        self._losses.append(loss)

    @property
    def mean(self) -> float:
        """The mean so far."""
        return sum(self._losses) / len(self._losses)


class Stopwatch:
    """Time spent inside ``with`` blocks since the last `lap`.

    Caffe: counts from the last report even where a script calls step in between its own work.
    """

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._since: float | None = None

    def __enter__(self) -> Stopwatch:
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._spent_s, self._since = self._elapsed(), None

    def _elapsed(self) -> float:
        return self._spent_s + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def lap(self) -> float:
        """Seconds since the last lap."""
        elapsed = self._elapsed()
        self._spent_s = 0.0
        if self._since is not None:
            self._since = time.perf_counter()
        return elapsed
