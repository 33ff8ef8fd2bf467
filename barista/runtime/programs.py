"""Compiled programs, each built once for a device, and many at a time.

Kernels only say what they are made of when they are made (`Programs.declare`); `Programs.complete` builds what was
declared since the last time, and what is run before that is built at its first run.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from ..errors import DeviceError
from . import devices, pocl
from .build_helpers import Helpers, Job, Recipe
from .driver import cl

log = logging.getLogger(__name__)

# A program that takes longer to build did not come from the driver's cache: it may pay to share out what follows, ...
BUILT_S = 0.1
# ... where there are at least so many more: a helper needs some time until it is ready.
LEAST_SHARED = 3


@dataclasses.dataclass(frozen=True)
class Source:
    """What a program is built from.

    Parameters
    ----------
    name : for messages, such as ``gemm.cl``
    text : OpenCL C
    options : for the compiler
    """

    name: str
    text: str
    options: tuple[str, ...]

    @classmethod
    def of(cls, name: str, text: str, macros: Mapping[str, object] | None = None) -> Source:
        """With `macros` defined: name to value, each given to the compiler as ``-DNAME=value``."""
        return cls(name, text, tuple(f"-D{macro}={value}" for macro, value in (macros or {}).items()))


class Buildable(Protocol):
    """A kernel that can be built before it is first run."""

    @property
    def source(self) -> Source:
        """What it belongs to."""

    @property
    def recipe(self) -> Recipe:
        """How a helper finds and starts it."""

    @property
    def is_built(self) -> bool:
        """Whether there is nothing left to do."""

    def build(self) -> None:
        """Build it now."""


class Programs:
    """The programs of one device, by what they are built from.

    The driver keeps what it compiled on disk; this cache spares asking it again.

    Parameters
    ----------
    finish : waits until everything in the device's queue is done
    """

    def __init__(self, context: cl.Context, device: cl.Device, finish: Callable[[], None]) -> None:
        self._context, self._device, self._finish = context, device, finish
        self._built: dict[Source, cl.Program] = {}
        self._declared: list[tuple[weakref.ref[Buildable], bool]] = []  # with whether it is on trial
        self._on_trial = False
        self._helpers: Helpers | None = None

    def build(self, name: str, text: str, macros: Mapping[str, object] | None = None) -> cl.Program:
        """As `program`, of what `Source.of` makes of the arguments."""
        return self.program(Source.of(name, text, macros))

    def program(self, source: Source) -> cl.Program:
        """Return the program of `source`, building it at the first call.

        Raises
        ------
        DeviceError : it does not compile; the message holds the compiler's log
        """
        program = self._built.get(source)
        if program is None:
            program = self._built[source] = self._compile(source)
        return program

    def declare(self, kernel: Buildable) -> None:
        """Let `complete` build a kernel, if it is still there then."""
        self._declared.append((weakref.ref(kernel), self._on_trial))

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """What is declared within need not build: `complete` says nothing then, but its first run does."""
        before, self._on_trial = self._on_trial, True
        try:
            yield
        finally:
            self._on_trial = before

    @contextlib.contextmanager
    def helped(self) -> Iterator[None]:
        """Within, `complete` may start helpers, processes that are there until the end."""
        # Only PoCL is known to find what another process built, and to build one program at a time in each.
        if self._helpers is not None or not pocl.is_pocl(self._device):
            yield
            return
        with Helpers(devices.all_devices().index(self._device)) as self._helpers:
            try:
                yield
            finally:
                self._helpers = None

    def complete(self) -> list[str]:
        """Build all kernels that were declared and are still there, and wait until they are.

        Returns
        -------
        why some do not build, a message for each program; so do the first runs of their kernels, then
        """
        wanted: dict[Source, list[Buildable]] = {}
        on_trial: dict[Source, bool] = {}
        for reference, tried in self._declared:
            kernel = reference()
            if kernel is not None and not kernel.is_built:
                wanted.setdefault(kernel.source, []).append(kernel)
                on_trial[kernel.source] = tried and on_trial.get(kernel.source, True)
        self._declared.clear()
        started = time.perf_counter()
        problems: dict[Source, str] = {}
        todo = collections.deque(wanted)
        shared: list[Source] = []
        with contextlib.ExitStack() as helping:
            while todo:
                source = todo.popleft()
                begun = time.perf_counter()
                self._build_all(wanted[source], problems)
                if (self._helpers is not None and not shared and len(todo) >= LEAST_SHARED
                        and time.perf_counter() - begun > BUILT_S):
                    shared = list(todo)
                    helping.enter_context(self._helpers.taking(todo, lambda one: _job(one, wanted[one])))
        # What helpers built comes from the driver's cache now.
        for source in shared:
            self._build_all(wanted[source], problems)
        if wanted:
            log.debug("%d programs are complete after %.2f s", len(wanted), time.perf_counter() - started)
        return [problem for source, problem in problems.items() if not on_trial[source]]

    def _build_all(self, kernels: list[Buildable], problems: dict[Source, str]) -> None:
        """Build those kernels of a program that are not yet built."""
        left = [kernel for kernel in kernels if not kernel.is_built]
        try:
            for kernel in left:
                kernel.build()
            if left:
                self._finish()
        except DeviceError as error:
            problems[kernels[0].source] = str(error)

    def _compile(self, source: Source) -> cl.Program:
        started = time.perf_counter()
        options = " ".join(source.options)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cl.CompilerWarning)  # logged below
                program = cl.Program(self._context, source.text).build(options=list(source.options),
                                                                       devices=[self._device])
        except cl.Error as error:
            raise DeviceError(f"{source.name} does not build on {self._device.name.strip()} with the options "
                              f"{options or '(none)'}; the compiler says:\n{error}") from error
        said = program.get_build_info(self._device, cl.program_build_info.LOG).strip()
        log.debug("built %s %s in %.2f s%s", source.name, options, time.perf_counter() - started,
                  f"; the compiler says: {said}" if said else "")
        return program


def _job(source: Source, kernels: list[Buildable]) -> Job:
    return Job(source.name, source.text, source.options, tuple(dict.fromkeys(kernel.recipe for kernel in kernels)))
