"""Log lines in glog's form, on standard error.

A line reads ``I20261121 05:29:31.479851 23386 solver.cpp:45] message``: level (I, W,
E or F), date, time to the microsecond, thread, origin, message.  Tools that read
Caffe's logs find what they look for, because a record may name the place in Caffe
that writes the same line: ``logger.info("...", extra={"origin": "solver.cpp:45"})``.
Without it the Python file and line stand there.

Library code only writes to ``logging.getLogger(__name__)``; whether and where lines
appear is decided here, for the command line and for ``init_log`` in a script.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TextIO

from tqdm import tqdm

from .errors import BaristaError, nearest

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_GLOG_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class GlogFormatter(logging.Formatter):
    """Formats a record as one glog line; further lines of its message follow bare."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, with the traceback if it carries one."""
        origin = getattr(record, "origin", None) or f"{record.filename}:{record.lineno}"
        when = time.strftime("%Y%m%d %H:%M:%S", time.localtime(record.created))
        microseconds = int(record.created % 1 * 1e6)
        text = (f"{_letter(record.levelno)}{when}.{microseconds:06d} {threading.get_native_id():5d} "
                f"{origin}] {record.getMessage()}")
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class GlogHandler(logging.StreamHandler[TextIO]):
    """Writes glog lines to `stream`, around any progress bar that is drawn there.

    Parameters
    ----------
    stream : where to; None means whatever ``sys.stderr`` is at the time of each line
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        logging.Handler.__init__(self)
        self._stream = stream
        self.setFormatter(GlogFormatter())

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Where lines go."""
        return self._stream if self._stream is not None else sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; bars on the same stream step aside and come back below it."""
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def init_log(level: str | int = "info", stream: TextIO | None = None) -> None:
    """Show Barista's log; a second call changes level and stream of the first.

    Parameters
    ----------
    level : ``debug``, ``info``, ``warning`` or ``error``, or glog's numbers 0 (info) to 3 (fatal)
    stream : where to; None means standard error

    Raises
    ------
    BaristaError : no such level
    """
    if isinstance(level, int) and 0 <= level < len(_GLOG_LEVELS):
        number = _GLOG_LEVELS[level]
    elif isinstance(level, str) and level.lower() in LEVELS:
        number = LEVELS[level.lower()]
    else:
        raise BaristaError(f"log level {level!r} is not known; choose one of {', '.join(LEVELS)} or 0 to 3 "
                           f"{nearest(str(level), LEVELS)}".rstrip())
    logger = logging.getLogger("barista")
    for handler in list(logger.handlers):
        if isinstance(handler, GlogHandler):
            logger.removeHandler(handler)
    logger.addHandler(GlogHandler(stream))
    logger.setLevel(number)


def _letter(level: int) -> str:
    """glog's letter of a Python logging level."""
    if level >= logging.CRITICAL:
        return "F"
    if level >= logging.ERROR:
        return "E"
    return "W" if level >= logging.WARNING else "I"
