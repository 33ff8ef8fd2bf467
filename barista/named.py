"""What a net has by name: dictionaries that say which names there are when they are asked for another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from .blob import Blob
from .errors import NetError, nearest

Value = TypeVar("Value")

# So many names are told where none is near to the one that was asked for.
_MOST_TOLD = 10


class NoNameError(NetError, KeyError):
    """A net has nothing of this name."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class Named(dict[str, Value]):
    """A dictionary whose look-ups fail with a hint.

    Parameters
    ----------
    whose : begins the message, such as ``net 'LeNet' has no layer``
    items : what is in it at first

    Raises
    ------
    NoNameError : on the look-up of a name that is not there
    """

    def __init__(self, whose: str, items: Mapping[str, Value] | Iterable[tuple[str, Value]] = ()) -> None:
        super().__init__(items)
        self.whose = whose

    def __missing__(self, name: str) -> Value:
        raise NoNameError(f"{self.whose} {name!r}; {nearest(str(name), self) or 'it has ' + told(self)}")


class NamedBlobs(Named[Blob]):
    """The blobs of a net; an array that is put in a blob's place is refused.

    Raises
    ------
    NetError : on the assignment of anything but a blob
    """

    def __setitem__(self, name: str, blob: Blob) -> None:
        if not isinstance(blob, Blob):
            raise NetError(f"blob {name!r} cannot become another object; write blobs[{name!r}].data[...] = array to "
                           "fill it")
        super().__setitem__(name, blob)


def told(names: Iterable[str]) -> str:
    """The names in a row, or the first of many and their number."""
    known = list(names)
    first = ", ".join(known[:_MOST_TOLD]) or "none"
    return first if len(known) <= _MOST_TOLD else f"{first}, ... ({len(known)} in all)"
