"""The variants that were chosen for passes of convolutions, kept for later processes.

A JSON file in the user's cache folder, an entry a line.  What it says holds: the same seed gives the same bits on one
device only while each pass is computed in the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DeviceError
from ...resources import cache_folder
from ...runtime.context import Context
from .tuning import key

FORMAT = 1
FIELDS = ("device", "dtype", "work", "variant", "among")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A choice.

    Parameters
    ----------
    variant : name of the one that was chosen
    among : names of all that there were; where there are others now, the choice is void
    """

    variant: str
    among: str

log = logging.getLogger(__name__)


def user_table() -> Path:
    """Where it lies: ``convolutions.json`` in Barista's folder of the XDG cache."""
    return cache_folder("convolutions.json")


class ChoiceTable:
    """What the file says for one device and element type.

    Parameters
    ----------
    context, dtype : for which device and numbers
    path : the file; None takes the user's
    """

    def __init__(self, context: Context, dtype: np.dtype[Any], path: Path | None = None) -> None:
        self._mine = {"device": key(context), "dtype": dtype.name}
        self._given = path

    @property
    def path(self) -> Path:
        """The file, which need not exist."""
        return self._given or user_table()

    def read(self) -> dict[str, Chosen]:
        """What was chosen, by what it was chosen for.

        Raises
        ------
        DeviceError : the file cannot be read
        """
        return self._mine_of(self._entries())

    def keep(self, chosen: Mapping[str, Chosen], replace: bool = False) -> dict[str, Chosen]:
        """Write choices and return what the file now says for these works.

        Parameters
        ----------
        replace : whether they take the place of what is there; else that stays, since another process may have
            chosen, and computes with it, meanwhile

        Raises
        ------
        DeviceError : the file cannot be read or written
        """
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_suffix(".lock")):
                entries = self._entries()
                mine = self._mine_of(entries)
                merged = {**mine, **{work: new for work, new in chosen.items()
                                     if replace or work not in mine or mine[work].among != new.among}}
                entries = [entry for entry in entries if not self._is_mine(entry)]
                entries += [{**self._mine, "work": work, **dataclasses.asdict(made)} for work, made in merged.items()]
                rows = ",\n".join(f"    {json.dumps(entry)}" for entry in entries)
                written = path.with_name(f"{path.name}.{os.getpid()}.new")
                written.write_text(f'{{\n  "format": {FORMAT},\n  "entries": [\n{rows}\n  ]\n}}\n', encoding="utf-8")
                written.replace(path)
        except OSError as error:
            raise DeviceError(f"{path}: the choice of convolution kernels cannot be kept: {error.strerror}; set "
                              "XDG_CACHE_HOME to a folder that can be written, or BARISTA_MEASURE=0") from None
        return {work: merged[work] for work in chosen}

    def _mine_of(self, entries: Sequence[Mapping[str, str]]) -> dict[str, Chosen]:
        return {entry["work"]: Chosen(entry["variant"], entry["among"]) for entry in entries if self._is_mine(entry)}

    def _is_mine(self, entry: Mapping[str, str]) -> bool:
        return all(entry[name] == value for name, value in self._mine.items())

    def _entries(self) -> list[dict[str, str]]:
        path = self.path
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DeviceError(f"{path} cannot be read ({error.strerror}); delete it, and the kernels of convolutions "
                              "are chosen anew") from None
        except ValueError as error:
            return self._spoilt(f"cannot be read ({error})")
        entries = data.get("entries") if isinstance(data, dict) and data.get("format") == FORMAT else None
        if not isinstance(entries, list) or not all(
                isinstance(entry, dict) and sorted(entry) == sorted(FIELDS)
                and all(isinstance(value, str) for value in entry.values()) for entry in entries):
            return self._spoilt(f"is no table of format {FORMAT} whose entries have the fields {', '.join(FIELDS)}")
        return entries

    def _spoilt(self, why: str) -> list[dict[str, str]]:
        """No entries: what is kept can be measured again, and no training should end for it."""
        log.warning("%s %s; the kernels of convolutions are chosen anew, and the file is replaced", self.path, why)
        return []


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes out, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows: a choice of another process may be lost, and is made again
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
