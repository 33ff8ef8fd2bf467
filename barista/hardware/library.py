"""A folder of bitstreams."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import BitstreamError, nearest
from .bitstream import SUFFIX, Bitstream, load, look
from .manifest import CONV, CSIM, MANIFEST, OTHER

log = logging.getLogger(__name__)


class Library:
    """The bitstreams of one folder, by name.

    Schedules may lie among them; other JSON files are passed over with a warning.

    Parameters
    ----------
    folder : where the manifests lie; or one bitstream (manifest or binary), which is then all there is

    Attributes
    ----------
    bitstreams : name to bitstream, sorted by name

    Raises
    ------
    BitstreamError : no such folder, nothing in it, or a manifest in it that cannot be read
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.is_dir():
            found = [load(path) for path in sorted(self.folder.glob(f"*{SUFFIX}")) if _is_manifest(path)]
            if not found:
                raise BitstreamError(f"{folder} holds no bitstream; build one: "
                                     f"`barista bitstream build --out {folder}`")
        elif self.folder.suffix or self.folder.exists():
            found = [load(folder)]
        else:
            raise BitstreamError(f"{folder}: there is no such folder; `barista bitstream build --out {folder}` makes "
                                 "it, with a bitstream in it")
        self.bitstreams: dict[str, Bitstream] = {bitstream.name: bitstream for bitstream in found}

    def find(self, name: str) -> Bitstream:
        """Return the bitstream of this name.

        Raises
        ------
        BitstreamError : it is not here; the message names what is
        """
        try:
            return self.bitstreams[name]
        except KeyError:
            hint = nearest(name, self.bitstreams) or f"it holds {', '.join(self.bitstreams)}"
            raise BitstreamError(f"{self.folder} holds no bitstream {name!r}; {hint}") from None

    def drop_simulated(self, who: str) -> None:
        """Leave out the bitstreams of engine csim, which take the time of a simulation and not of any device.

        Parameters
        ----------
        who : what asks how fast bitstreams are, for messages

        Raises
        ------
        BitstreamError : there are no others
        """
        dropped = [name for name, bitstream in self.bitstreams.items() if bitstream.manifest.is_simulated]
        self._drop(who, dropped, f"of engine {CSIM}", "a C-simulation takes its own time, which says nothing of a "
                   "device", "build one of engine array or fast")

    def drop_whole(self, who: str) -> None:
        """Leave out the bitstreams that take whole convolutions, where products are asked for.

        Parameters
        ----------
        who : what asks, for messages

        Raises
        ------
        BitstreamError : there are no others
        """
        dropped = [name for name, bitstream in self.bitstreams.items() if bitstream.manifest.kind == CONV]
        self._drop(who, dropped, f"of kind {CONV}", "an array that takes whole convolutions multiplies no tiles",
                   "build one with --tile")

    def _drop(self, who: str, dropped: list[str], what: str, why: str, instead: str) -> None:
        if dropped and len(dropped) == len(self.bitstreams):
            raise BitstreamError(f"{who}: {self.folder} holds only bitstreams {what} ({', '.join(dropped)}): {why}; "
                                 f"{instead}")
        for name in dropped:
            log.warning("%s: %s is left out: it is %s, and %s", who, name, what, why)
            del self.bitstreams[name]


def _is_manifest(path: Path) -> bool:
    """Whether a file of a folder is a manifest, or was one before it was damaged."""
    seen = look(path)
    if seen == OTHER:
        log.warning("%s is no manifest of a bitstream; it is passed over", path)
    return seen == MANIFEST
