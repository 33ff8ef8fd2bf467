"""The designs that an exploration looks at: a grid of sizes, and what a board allows of it.

A grid is written as its axes, FIRST:LAST:STEP each:

    tr=4:64:4,tc=tr,tp=2:512:2      tiles of Barista's array; tc=tr makes them square
    x=1:341,y=1:96,pe=4:4096        columns and rows of FPGPT's array; pe bounds the elements, X Y
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError, nearest
from ..hardware.board import Board
from .table import Integers

KINDS = {"gemm": ("tr", "tc", "tp"), "conv": ("x", "y")}
"""Kind of array to the sizes that make a design."""

# Grids without --grid: square tiles and even Tp as in the thesis's section 4.3.3, and the X and Y of its section 5.6.2.
_DEFAULTS = {"gemm": "tr=4:64:4,tc=tr,tp=2:512:2", "conv": "x=1:341,y=1:96,pe=4:4096"}
# Points of a grid: more take too much memory before any is ruled out, or after.
LARGEST_GRID, LARGEST_SPACE = 4_000_000, 100_000
# Bits of a block of on-chip memory, the 18 Kb half that can be used alone.
_BRAM18_BITS = 18_432

_AXIS = re.compile(r"(\w+)=(?:(\d+)(?::(\d+)(?::(\d+))?)?|([a-z]+))")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a design may take of a board.

    Parameters
    ----------
    name : as messages say it, such as ``one region of u250``
    dsp : multiplier blocks
    bram_bits : bits of block memory
    bram18, uram : blocks; None where the board does not say, so that only bits count
    """

    name: str
    dsp: int
    bram_bits: int
    bram18: int | None
    uram: int | None

    @classmethod
    def of(cls, board: Board, scope: str) -> Limits:
        """The limits of a board.

        Parameters
        ----------
        scope : ``card``, all of it, or ``region``, one of its dies, as the thesis evaluates FPGPT

        Raises
        ------
        UnsupportedError : the board does not say what a region has
        """
        if scope == "card":
            return cls(board.name, board.dsp, board.bram_bits, board.bram18, board.uram)
        who = "exploring one region"
        blocks, regions = board.need_count("region_bram18", who), board.need_count("regions", who)
        return cls(f"one region of {board.name}", board.need_count("region_dsp", who), blocks * _BRAM18_BITS, blocks,
                   None if board.uram is None else board.uram // regions)

    def hold(self, bram18: Iterable[npt.ArrayLike], uram: Iterable[npt.ArrayLike]) -> npt.NDArray[np.bool_]:
        """Whether memories fit, each in blocks of one kind (Eq. 5.22).

        Parameters
        ----------
        bram18, uram : blocks that each memory takes, in the same order, should it be made of that kind
        """
        if self.bram18 is None:
            return np.ones(np.broadcast_shapes(*(np.shape(blocks) for blocks in bram18)), np.bool_)
        # Blocks in block memory and in UltraRAM for each way to place the memories seen so far.
        ways: list[tuple[npt.ArrayLike, npt.ArrayLike]] = [(0, 0)]
        for small, large in zip(bram18, uram, strict=True):
            ways = [way for block, ultra in ways for way in
                    ((np.add(block, small), ultra), *([(block, np.add(ultra, large))] if self.uram else []))]
        fits = [np.less_equal(block, self.bram18) & np.less_equal(ultra, self.uram or 0) for block, ultra in ways]
        return np.asarray(np.any(np.stack(np.broadcast_arrays(*fits)), axis=0))

    @property
    def memory(self) -> str:
        """As messages say it, such as ``1,344 BRAM18 and 320 URAM``."""
        if self.bram18 is None:
            return f"{self.bram_bits:,} bits"
        return f"{self.bram18:,} BRAM18" + (f" and {self.uram:,} URAM" if self.uram else "")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Sizes that a design may have.

    Parameters
    ----------
    kind : of array, see `KINDS`
    axes : name to values
    ties : name to the name of the axis that it follows
    elements : least and most elements of the array, None for any
    """

    kind: str
    axes: dict[str, range]
    ties: dict[str, str]
    elements: tuple[int, int] | None

    def __str__(self) -> str:
        """As it is written, such as ``tr=4:64:4,tc=tr,tp=2:512:2``."""
        axes = dict(self.ties)
        for name, axis in self.axes.items():
            ends = f":{axis[-1]}" if len(axis) > 1 else ""
            axes[name] = f"{axis[0]}{ends}" + (f":{axis.step}" if ends and axis.step > 1 else "")
        texts = [f"{name}={axes[name]}" for name in KINDS[self.kind]]
        if self.elements is not None:
            texts.append("pe=" + ":".join(map(str, self.elements)))
        return ",".join(texts)

    @classmethod
    def parse(cls, kind: str, text: str = "") -> Grid:
        """Read a grid; axes that `text` does not name are those of the default grid.

        Raises
        ------
        UnsupportedError : malformed, an unknown axis, an empty or an overlarge grid
        """
        fields = {**_fields(kind, _DEFAULTS[kind]), **_fields(kind, text)}
        ties = {name: value for name, value in fields.items() if isinstance(value, str)}
        for name, other in ties.items():
            if other in ties or other not in KINDS[kind] or name == "pe":
                raise UnsupportedError(f"grid {text!r}: {name}={other} follows no range; give one of "
                                       f"{', '.join(KINDS[kind])} that is FIRST:LAST:STEP")
        ranges = {name: value for name, value in fields.items() if isinstance(value, range)}
        elements = ranges.pop("pe", None)
        grid = cls(kind, ranges, ties, None if elements is None else (elements[0], elements[-1]))
        count = int(np.prod([len(values) for values in ranges.values()]))
        if count > LARGEST_GRID:
            raise UnsupportedError(f"grid {text!r} has {count:,} points, more than {LARGEST_GRID:,}; give larger steps")
        return grid

    def points(self) -> Integers:
        """All points, (points, sizes), the first axis slowest."""
        mesh = np.meshgrid(*self.axes.values(), indexing="ij")
        values = {name: axis.ravel() for name, axis in zip(self.axes, mesh, strict=True)}
        values |= {name: values[other] for name, other in self.ties.items()}
        points = np.stack([values[name] for name in KINDS[self.kind]], axis=1).astype(np.int64)
        if self.elements is not None:
            elements = points[:, 0] * points[:, 1]
            points = points[(elements >= self.elements[0]) & (elements <= self.elements[1])]
        return points


@dataclasses.dataclass(frozen=True)
class Exclusions:
    """How many points of a grid each constraint excludes; a point may break several."""

    points: int
    counts: dict[str, int]

    def __str__(self) -> str:
        found = [f"{constraint} excludes {count:,}" for constraint, count in self.counts.items() if count]
        points = "1 point" if self.points == 1 else f"{self.points:,} points"
        return f"of {points} " + ("; ".join(found) if found else "nothing is excluded")


def legal(points: Integers, constraints: dict[str, npt.NDArray[np.bool_]]) -> tuple[Integers, Exclusions]:
    """The points that keep all constraints, and what the others broke.

    Parameters
    ----------
    constraints : as messages say it, to the points that keep it

    Raises
    ------
    UnsupportedError : no point is left, or more than an exploration can take
    """
    exclusions = Exclusions(len(points), {name: int((~kept).sum()) for name, kept in constraints.items()})
    left = points[np.all(np.stack([*constraints.values(), np.ones(len(points), np.bool_)]), axis=0)]
    if not len(left):
        raise UnsupportedError(f"the grid has no legal point: {exclusions}; give a larger board, or another --grid")
    if len(left) > LARGEST_SPACE:
        raise UnsupportedError(f"the grid has {len(left):,} legal points, more than {LARGEST_SPACE:,}; give larger "
                               "steps, or narrower ranges")
    return left, exclusions


def _fields(kind: str, text: str) -> dict[str, range | str]:
    names = [*KINDS[kind], "pe"]
    fields: dict[str, range | str] = {}
    for part in filter(None, (part.strip() for part in text.lower().split(","))):
        found = _AXIS.fullmatch(part)
        if found is None:
            raise UnsupportedError(f"grid {text!r}: {part!r} is not NAME=FIRST:LAST:STEP, such as {names[0]}=4:64:4")
        name, first, last, step, other = found.groups()
        if name not in names:
            hint = nearest(name, names) or f"axes: {', '.join(names)}"
            raise UnsupportedError(f"grid {text!r}: there is no axis {name!r} for --kind {kind}; {hint}")
        if other is not None:
            fields[name] = other
            continue
        values = range(int(first), int(last or first) + 1, int(step or 1) or 1)
        if not values or not values[0] or step == "0":
            raise UnsupportedError(f"grid {text!r}: {part!r} has no values; sizes and steps begin at 1, and LAST is "
                                   "not below FIRST")
        fields[name] = values
    return fields
