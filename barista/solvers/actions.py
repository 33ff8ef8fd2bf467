"""What may be asked of a running solver, and signals that ask it."""

from __future__ import annotations

import enum
import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ..errors import SolverError, nearest

log = logging.getLogger(__name__)


class Action(enum.Enum):
    """A request that a solver meets between two iterations."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


def action(name: str) -> Action:
    """The action of a name: none, stop or snapshot.

    Raises
    ------
    SolverError : another name
    """
    names = [a.value for a in Action]
    if name not in names:
        hint = nearest(name, names) or f"choose one of {', '.join(names)}"
        raise SolverError(f"a signal cannot have the effect {name!r}; {hint}")
    return Action(name)


class SignalHandler:
    """Turns SIGINT and SIGHUP into requests while a ``with`` block lasts; call it to take the next request.

    A second Ctrl-C, while the first is being met, raises KeyboardInterrupt at once.

    Parameters
    ----------
    sigint_effect, sighup_effect : ``stop``, ``snapshot`` or ``none``

    Raises
    ------
    SolverError : another effect; on entry, not in the main thread, where alone signals arrive
    """

    def __init__(self, sigint_effect: str = "stop", sighup_effect: str = "snapshot") -> None:
        self._effects: dict[int, Action] = {signal.SIGINT: action(sigint_effect)}
        if hasattr(signal, "SIGHUP"):  # Windows has none
            self._effects[signal.SIGHUP] = action(sighup_effect)
        self._pending: dict[int, Action] = {}
        self._stopping = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalHandler:
        if threading.current_thread() is not threading.main_thread():
            raise SolverError("signals reach the main thread only; enter SignalHandler there, or call "
                              "Solver.request from any thread")
        for number in self._effects:
            self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def __call__(self) -> Action:
        """The next request, which is then done with."""
        for wanted in (Action.SNAPSHOT, Action.STOP):
            for number, effect in list(self._pending.items()):
                if effect is wanted:
                    del self._pending[number]
                    self._stopping |= wanted is Action.STOP
                    return wanted
        return Action.NONE

    def _received(self, number: int, frame: FrameType | None) -> None:
        effect = self._effects[number]
        if effect is Action.NONE:
            return
        if number == signal.SIGINT and (self._stopping or number in self._pending):
            raise KeyboardInterrupt
        self._pending[number] = effect
        log.warning("%s: %s after this iteration%s", signal.Signals(number).name,
                    "stopping" if effect is Action.STOP else "a snapshot",
                    "; once more ends it at once" if number == signal.SIGINT else "")
