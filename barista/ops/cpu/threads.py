"""A small pool that spreads chunks of work over the cores.

NumPy releases the interpreter lock inside its loops and its BLAS, so plain threads do.
BLAS itself runs single-threaded meanwhile: its own threads would fight with ours, and
spin after each call.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
from threadpoolctl import ThreadpoolController

from ...errors import UnsupportedError

# Elements a piece: 128 KiB of float32, so that a handful of operands fit into a core's L2 cache.
CHUNK = 32768
# Elements below which waking another thread costs more than it saves (measured, 0.1 ms a wake-up).
PARALLEL = 262144


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Threads:
    """Runs chunk `i` of `n` on worker ``i % count``, so that which worker does what never varies.

    Parameters
    ----------
    count : workers, the caller included; None takes all cores
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise UnsupportedError(f"{count} threads; give 1 or more")
        self.count = count or available_cores()
        self._start_pool()
        np.dot(np.ones((2, 2)), np.ones((2, 2)))  # NumPy loads its BLAS at the first product
        self._blas = ThreadpoolController().select(user_api="blas").lib_controllers

    def _start_pool(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self.count - 1, "barista-cpu") if self.count > 1 else None

    @contextlib.contextmanager
    def _single_threaded_blas(self) -> Iterator[None]:
        before = [library.num_threads for library in self._blas]
        for library in self._blas:
            library.set_num_threads(1)
        try:
            yield
        finally:
            for library, number in zip(self._blas, before, strict=True):
                library.set_num_threads(number)

    def run_here(self, chunk: Callable[[int, int], None], chunks: int) -> None:
        """Call ``chunk(index, 0)`` for each index in the calling thread: for work too small to share."""
        with self._single_threaded_blas():
            for index in range(chunks):
                chunk(index, 0)

    def run(self, chunk: Callable[[int, int], None], chunks: int) -> None:
        """Call ``chunk(index, worker)`` for each index; returns when all are done, raising the first error."""
        workers = max(1, min(self.count, chunks))

        def work(worker: int) -> None:
            for index in range(worker, chunks, workers):
                chunk(index, worker)

        if os.getpid() != self._process:  # threads do not survive a fork
            self._start_pool()
        with self._single_threaded_blas():
            futures = [self._pool.submit(work, w) for w in range(1, workers)] if self._pool is not None else []
            try:
                work(0)
            finally:
                wait(futures)
            for future in futures:
                future.result()

    def spread(self, work: Callable[[int, int, int], None], total: int, item: int) -> None:
        """Call ``work(start, stop, worker)`` over range(total), `item` elements a step, in cache-sized pieces."""
        pieces = split(total, max(1, CHUNK // max(item, 1)))
        if total * item >= PARALLEL and len(pieces) > 1:
            self.run(lambda index, worker: work(*pieces[index], worker), len(pieces))
        else:
            for start, stop in pieces:
                work(start, stop, 0)


def split(total: int, size: int) -> list[tuple[int, int]]:
    """Cut range(total) into (start, stop) pieces of at most `size`."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]
