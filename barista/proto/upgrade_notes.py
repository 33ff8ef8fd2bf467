"""What an upgrade tells its caller: notes that are kept and logged, and errors."""

from __future__ import annotations

import logging

from barista.errors import PrototxtError

logger = logging.getLogger(__name__)


class UpgradeNotes:
    """Collects the notes of one upgrade and logs each with the name of its source.

    Parameters
    ----------
    source : name of the file (or other origin) that is upgraded

    Attributes
    ----------
    texts : the notes so far, without the source
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.texts: list[str] = []

    def done(self, text: str) -> None:
        """Note what was upgraded (logged as INFO)."""
        self._add(logging.INFO, text)

    def warn(self, text: str) -> None:
        """Note what was found and not used (logged as WARNING)."""
        self._add(logging.WARNING, text)

    def error(self, text: str) -> PrototxtError:
        """Return, for raising, the error that ends the upgrade."""
        return PrototxtError(text, file=self.source)

    def _add(self, level: int, text: str) -> None:
        self.texts.append(text)
        logger.log(level, "%s: %s", self.source, text)


def counted(count: int, noun: str) -> str:
    """Return e.g. ``1 layer`` or ``3 layers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
