"""What a solver logs, in the lines and numbers that Caffe's log parsers read."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Iterator, Mapping
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


class LossAverage:
    """Mean of the last `window` losses, and which iterations it needs them of.

    Reading a loss waits for the device; one that no report shows is not read.
    """

    def __init__(self, window: int, display: int) -> None:
        self._display = display
        self._losses: collections.deque[float] = collections.deque(maxlen=window)
        self._window = window

    def start(self) -> None:
        """Forget what was before."""
        self._losses.clear()

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
