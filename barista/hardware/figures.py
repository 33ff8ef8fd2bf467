"""Files of figures, each with its source: the form that boards and hosts share."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UnsupportedError, nearest

T = TypeVar("T")

# Names of boards and hosts.
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True)
class Form:
    """What files of one kind hold, and where those that ship lie.

    Parameters
    ----------
    kind : what a file describes, for messages
    folder : of the files that ship
    texts : names that every file gives a text
    required, optional : names of figures; every file has the former, and a figure that is absent is unknown
    whole : figures that count things
    words : names that a file may give a text with its source, as a figure, to what such a text looks like
    """

    kind: str
    folder: Path
    texts: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    whole: frozenset[str]
    words: Mapping[str, re.Pattern[str]] = dataclasses.field(default_factory=dict)

    @property
    def figures(self) -> tuple[str, ...]:
        """Every figure that a file may have."""
        return (*self.required, *self.optional, *self.words)

    def names(self) -> list[str]:
        """The files that ship, by name, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.toml"))

    def find(self, name: str | os.PathLike[str]) -> Path:
        """Return the file of this name: one that ships, or a path that ends in ``.toml``.

        Raises
        ------
        UnsupportedError : there is neither; the message lists those that ship
        """
        known, path = self.names(), Path(name)
        if str(name) in known:
            return self.folder / f"{name}.toml"
        if path.suffix == ".toml":
            return path
        hint = nearest(str(name), known)
        raise UnsupportedError(f"{self.kind} {str(name)!r} is not known; {hint + ' ' if hint else ''}"
                               f"known: {', '.join(known)}; or give the path of a .toml file of your own")

    def read(self, path: Path) -> dict[str, Any]:
        """Return what a file says: the texts, the figures that it has, and ``sources``, from figure to source.

        Raises
        ------
        UnsupportedError : it cannot be read, is no TOML, or a text or figure is missing, unknown, or wrong
        """
        table = _parse(path, self.kind)
        named = (*self.texts, *self.figures)
        for name in table:
            if name not in named:
                hint = nearest(name, named) or f"it has {', '.join(named)}"
                raise UnsupportedError(f"{path}: a {self.kind} has no {name!r}; {hint}")
        for name in self.texts:
            if not isinstance(table.get(name), str):
                raise UnsupportedError(f"{path}: {name} is missing or is no text; write {name} = \"...\"")
        if not _NAME.fullmatch(table["name"]):
            raise UnsupportedError(f"{path}: the name {table['name']!r} becomes part of file names; use letters, "
                                   "digits, _ and - alone")
        present = [name for name in self.figures if name in table or name in self.required]
        read = {name: self._figure(path, name, table.get(name)) for name in present}
        return {**{name: table[name] for name in self.texts}, **{name: value for name, (value, _) in read.items()},
                "sources": {name: source for name, (_, source) in read.items()}}

    def _figure(self, path: Path, name: str, figure: Any) -> tuple[float | str, str]:
        if figure is None:
            raise UnsupportedError(f"{path}: {name} is missing; add a table [{name}] of a value and its source")
        if not isinstance(figure, dict) or set(figure) != {"value", "source"}:
            raise UnsupportedError(f"{path}: {name} must be a table [{name}] of a value and its source")
        value, source = figure["value"], figure["source"]
        if name in self.words:
            if not isinstance(value, str) or not self.words[name].fullmatch(value):
                raise UnsupportedError(f"{path}: {name} is {value!r}; see the {self.kind}s that ship for the form, or "
                                       "leave the table out")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            leave = ", or leave the table out" if name in self.optional else ""
            raise UnsupportedError(f"{path}: {name} is {value!r}; give a number above 0{leave}")
        elif name in self.whole and not isinstance(value, int):
            raise UnsupportedError(f"{path}: {name} is {value!r}; give a whole number")
        if not isinstance(source, str) or not source.strip():
            raise UnsupportedError(f"{path}: {name} has no source; say where {value} comes from")
        return value, source


def needed(kind: str, name: str, path: Path, figure: str, value: T | None, who: str) -> T:
    """Return a figure that somebody cannot do without.

    Parameters
    ----------
    kind, name, path : of what should have it, for the message
    figure, value : its name, and what the file says
    who : what needs it

    Raises
    ------
    UnsupportedError : the file does not have it; the message says who needs it and what to add where
    """
    if value is None:
        raise UnsupportedError(
            f"{kind} {name!r} has no {figure}, which {who} needs; copy {path}, add a table [{figure}] with a value and "
            f"its source, and give the copy's path in the place of {name!r}")
    return value


def _parse(path: Path, kind: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UnsupportedError(f"{path}: not TOML ({error}); see the {kind}s that ship for the form") from None
    except UnicodeDecodeError as error:
        raise UnsupportedError(f"{path}: not text in UTF-8 ({error.reason}); see the {kind}s that ship for the "
                               "form") from None
    except OSError as error:
        raise UnsupportedError(f"{path}: cannot be read ({error.strerror}); give the path of a {kind}'s .toml "
                               "file") from None
