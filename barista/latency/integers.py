"""Whole numbers in arrays: what both latency models count in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError, nearest

Array = npt.NDArray[Any]


def ceil_div(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """a / b rounded up, exact for whole numbers of any sign and b above 0."""
    return np.asarray(-(-np.asarray(a) // np.asarray(b)))


def align(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """The least multiple of b that is at least a."""
    return np.asarray(ceil_div(a, b) * np.asarray(b))


def counts(who: str, **sizes: npt.ArrayLike) -> list[Array]:
    """Return sizes as arrays of int64, in the order given, not yet broadcast.

    Parameters
    ----------
    who : the function that asks, for messages
    sizes : name to a whole number or an array of them, each at least 1

    Raises
    ------
    UnsupportedError : values that are no whole numbers or below 1, or shapes that do not broadcast
    """
    arrays = []
    for name, given in sizes.items():
        array = np.asarray(given)
        if array.dtype.kind not in "iu":
            raise UnsupportedError(f"{who}: {name} is {given!r}; give a whole number, or an array of them")
        small = array[array < 1]
        if small.size:
            raise UnsupportedError(f"{who}: {name}={small.flat[0]} is below 1 ({small.size} of {array.size} values); "
                                   "sizes are at least 1")
        arrays.append(array.astype(np.int64))
    try:
        np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(sizes, arrays, strict=True))
        raise UnsupportedError(f"{who}: the shapes {shapes} do not broadcast; make them alike, or give each its "
                               "own axis") from None
    return arrays


def require_positive(who: str, **figures: float | None) -> None:
    """Refuse figures that are not finite and above 0; None stands for a figure that is not modelled.

    Raises
    ------
    UnsupportedError : names the figure and its value
    """
    for name, value in figures.items():
        if value is not None and not 0 < value < float("inf"):
            raise UnsupportedError(f"{who}: {name} is {value!r}; give a finite number above 0")


def require_not_negative(who: str, **figures: float) -> None:
    """Refuse figures that are not finite or below 0.

    Raises
    ------
    UnsupportedError : names the figure and its value
    """
    for name, value in figures.items():
        if not 0 <= value < float("inf"):
            raise UnsupportedError(f"{who}: {name} is {value!r}; give a finite number, 0 or above")


def require_one_of(who: str, name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a choice that there is not.

    Raises
    ------
    UnsupportedError : names the nearest one, and all
    """
    if value not in known:
        hint = nearest(str(value), known)
        raise UnsupportedError(f"{who}: {name} {value!r} is not known; {hint + ' ' if hint else ''}"
                               f"known: {', '.join(known)}")


def require_whole(who: str, least: int, **figures: int) -> None:
    """Refuse figures that are no whole numbers or below `least`.

    Raises
    ------
    UnsupportedError : names the figure and its value
    """
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise UnsupportedError(f"{who}: {name} is {value!r}; give a whole number, {least} or above")
