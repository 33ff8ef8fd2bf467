"""Window files of R-CNN: images with rectangles in them, each with a class and its overlap with an object."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator

import numpy as np

from barista.errors import DataError

# The columns of a window: index of its image, class, corners (inclusive, pixels), and line of the file.
IMAGE, LABEL, X1, Y1, X2, Y2, LINE = range(7)


@dataclasses.dataclass(frozen=True)
class Windows:
    """What a window file says.

    Attributes
    ----------
    images : path of each image, and the line that names it
    foreground, background : the windows of both kinds, rows of the seven columns above, int64
    """

    images: list[tuple[str, int]]
    foreground: np.ndarray
    background: np.ndarray


def read_windows(source: str, root_folder: str, fg_threshold: float, bg_threshold: float) -> Windows:
    """Read a window file.

    For each image it has ``# index``, the path, channels, height, width and the number of windows, and then as many
    lines ``class overlap x1 y1 x2 y2``.

    Parameters
    ----------
    source : the file
    root_folder : text put before each path as it is
    fg_threshold : least overlap of a foreground window
    bg_threshold : overlap below which others are background; those between are left out

    Raises
    ------
    DataError
        If the file cannot be read or is not so; file and line are named.
    """
    images: list[tuple[str, int]] = []
    blocks: list[np.ndarray] = []
    overlaps: list[np.ndarray] = []
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape") as file:
            words = _Words(source, file)
            while (mark := words.next(last=True)) is not None:
                if mark != "#":
                    raise words.error(f"{mark!r} stands where the `#` of the next image is due")
                index = words.number("the index of the image")
                if index != len(images):
                    raise words.error(f"image index {index}, where {len(images)} is due")
                path = words.next()
                images.append((f"{root_folder}{path}", words.line))
                channels = words.number("the number of channels")
                if channels != 3:
                    raise words.error(f"{channels} channels; windows are cut from colour images, of 3")
                words.number("the height")
                words.number("the width")
                rows = words.table(words.number("the number of windows"))
                block = np.empty((len(rows), 7), np.int64)
                block[:, IMAGE], block[:, LINE] = index, words.line - len(rows) + 1 + np.arange(len(rows))
                block[:, LABEL], block[:, X1:LINE] = rows[:, 0], rows[:, 2:]
                blocks.append(block)
                overlaps.append(rows[:, 1].astype(np.float32))
    except DataError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"window file {source!r} cannot be read: {reason} (working folder {os.getcwd()!r})") from error
    if not images:
        raise DataError(f"window file {source!r} is empty; it describes images and windows in them")
    windows, overlap = np.concatenate(blocks), np.concatenate(overlaps)
    is_fg = overlap >= np.float32(fg_threshold)
    foreground, background = windows[is_fg], windows[~is_fg & (overlap < np.float32(bg_threshold))]
    wrong = foreground[foreground[:, LABEL] <= 0]
    if len(wrong):
        raise DataError(f"{source}:{wrong[0, LINE]}: a foreground window of class {wrong[0, LABEL]}; classes of "
                        "objects count from 1, 0 is the background")
    for kind, found, rule in (("foreground", foreground, f"fg_threshold={fg_threshold:g} or more"),
                              ("background", background, f"less than bg_threshold={bg_threshold:g}")):
        if not len(found):
            raise DataError(f"window file {source!r} has no {kind} window (overlap {rule}) among {len(windows)}; "
                            "change the threshold, or the file")
    background[:, LABEL] = 0
    return Windows(images, foreground, background)


class _Words:
    """The words of a file, and the line where the last one stood."""

    def __init__(self, source: str, lines: Iterator[str]) -> None:
        self.line = 0
        self._source = source
        self._lines = lines
        self._rest: list[str] = []

    def error(self, what: str) -> DataError:
        """An error that names file and line."""
        return DataError(f"{self._source}:{self.line}: {what}; each image has `# index`, path, channels, height, width "
                         "and number of windows, then lines `class overlap x1 y1 x2 y2`")

    def next(self, last: bool = False) -> str | None:
        """The next word; at the end of the file None where the file may end there (`last`)."""
        while not self._rest:
            line = next(self._lines, None)
            if line is None:
                if last:
                    return None
                raise self.error("the file ends in the middle of an image")
            self.line += 1
            self._rest = line.split()
        return self._rest.pop(0)

    def number(self, what: str) -> int:
        """The next word as a whole number, 0 or more."""
        word = self.next()
        if word is None or not (word.isascii() and word.isdigit() and len(word) < 10):
            raise self.error(f"{word!r} stands where {what} is due, a whole number")
        return int(word)

    def table(self, count: int) -> np.ndarray:
        """The next `count` lines of class, overlap and four corners, as float64."""
        if count and self._rest:
            raise self.error(f"{self._rest[0]!r} stands behind the number of windows")
        rows = [line.split() for line in itertools.islice(self._lines, count)]
        try:
            table = np.array(rows, np.float64).reshape(len(rows), 6)
            whole = np.delete(table, 1, axis=1)
            fits = bool((np.abs(whole) < 2**31).all() and (whole == np.rint(whole)).all()
                        and np.isfinite(table).all())
        except ValueError:
            fits = False
        if not fits:
            self.line += 1 + next((index for index, row in enumerate(rows) if not _is_window(row)), 0)
            raise self.error("the line is no window: class and corners are whole numbers")
        self.line += len(rows)
        if len(rows) < count:
            raise self.error(f"the file ends after {len(rows)} of {count} windows")
        return table


def _is_window(row: list[str]) -> bool:
    try:
        numbers = [float(word) for word in row]
    except ValueError:
        return False
    return len(numbers) == 6 and all(abs(number) < 2**31 and (number.is_integer() or index == 1)
                                     for index, number in enumerate(numbers))
