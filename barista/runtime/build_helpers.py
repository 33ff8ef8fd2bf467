"""Processes that build programs for this one, since PoCL builds one program at a time in a process.

What a helper built lies in PoCL's cache on disk, where this process finds it.  Helpers only save time: what one fails
to build, for whatever reason, is built here, where errors are told.  What they run is `build_worker`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

WORKER = "barista.runtime.build_worker"
MOST_HELPERS = 7
DONE = b"."

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What `Kernel` is made with, beside its context and program."""

    name: str
    signature: str
    real: str
    heavy: bool


@dataclasses.dataclass(frozen=True)
class Job:
    """A program, as `Source` has it, and its kernels."""

    name: str
    text: str
    options: tuple[str, ...]
    kernels: tuple[Recipe, ...]


class Helpers:
    """Helpers of this process, one for each of its cores but one; none runs before there is work, nor after the end.

    Parameters
    ----------
    device : for which they build, an index into `devices.all_devices`
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.communicate()
        self._running.clear()

    @contextlib.contextmanager
    def taking(self, todo: collections.deque[T], job: Callable[[T], Job]) -> Iterator[None]:
        """Within, helpers take work from the end of `todo`; at the end of the block they finish what they have taken.

        Parameters
        ----------
        job : what is to be built for an element of `todo`
        """
        self._start(len(todo))
        threads = [threading.Thread(target=_feed, args=(process, todo, job), daemon=True) for process in self._running]
        for thread in threads:
            thread.start()
        try:
            yield
        except BaseException:
            self.__exit__()  # ends their waiting
            raise
        finally:
            for thread in threads:
                thread.join()

    def _start(self, jobs: int) -> None:
        """Start those that are missing, if they can be started."""
        here = Path(__file__).resolve().parents[2]
        paths = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
        # Two processes with threads bound to the same cores would stand in each other's way.
        environment = {**os.environ, "PYTHONPATH": paths, "POCL_AFFINITY": "0"}
        while len(self._running) < min(_cores() - 1, MOST_HELPERS, jobs):
            command = [sys.executable, "-m", WORKER, str(self._device)]
            try:
                self._running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                      stderr=subprocess.DEVNULL, env=environment))
            except OSError as error:
                log.debug("no helper builds programs: %s", error)
                return


def _feed(process: subprocess.Popen[bytes], todo: collections.deque[T], job: Callable[[T], Job]) -> None:
    """Give a helper one thing after the other, until nothing is left or it is gone."""
    given, answers = process.stdin, process.stdout
    assert given is not None and answers is not None
    with contextlib.suppress(IndexError, OSError, ValueError):
        answer = DONE
        while answer == DONE:
            pickle.dump(job(todo.pop()), given)
            given.flush()
            answer = answers.read(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
