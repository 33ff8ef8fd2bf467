"""Compiled programs, each built once for a device."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping

from ..errors import DeviceError
from .driver import cl

log = logging.getLogger(__name__)


class Programs:
    """The programs of one device, by source text and macros.

    The driver keeps what it compiled on disk; this cache spares asking it again.
    """

    def __init__(self, context: cl.Context, device: cl.Device) -> None:
        self._context = context
        self._device = device
        self._built: dict[tuple[str, tuple[str, ...]], cl.Program] = {}

    def build(self, name: str, source: str, macros: Mapping[str, object] | None = None) -> cl.Program:
        """Return the program of `source` with `macros` defined, building it at the first call.

        Parameters
        ----------
        name : for messages, such as ``gemm.cl``
        source : OpenCL C
        macros : name to value, each given to the compiler as ``-DNAME=value``

        Raises
        ------
        DeviceError : it does not compile; the message holds the compiler's log
        """
        options = tuple(f"-D{macro}={value}" for macro, value in (macros or {}).items())
        key = (source, options)
        program = self._built.get(key)
        if program is None:
            program = self._built[key] = self._compile(name, source, options)
        return program

    def _compile(self, name: str, source: str, options: tuple[str, ...]) -> cl.Program:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cl.CompilerWarning)  # logged below
                program = cl.Program(self._context, source).build(options=list(options), devices=[self._device])
        except cl.Error as error:
            raise DeviceError(f"{name} does not build on {self._device.name.strip()} with the options "
                              f"{' '.join(options) or '(none)'}; the compiler says:\n{error}") from error
        said = program.get_build_info(self._device, cl.program_build_info.LOG).strip()
        log.debug("built %s %s in %.2f s%s", name, " ".join(options), time.perf_counter() - started,
                  f"; the compiler says: {said}" if said else "")
        return program
