"""Several tensors into one and back: Combine, written as element-wise programs, and Join, which only copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...blob import Tensor
from ..base import AxisGeometry, Combine, Join
from ..program import parse
from .broadcast import Rows
from .device import Device
from .elementwise import OpenCLElementwise

# Elements of a row that a work-item copies: on a CPU device it is a loop, on others a group goes side by side.
COPY_PIECE_CPU = 8192
COPY_PIECE = 1


def forward_program(operation: str, coefficients: Sequence[float]) -> str:
    """y from x0, x1, ..."""
    names = [f"x{index}" for index in range(len(coefficients))]
    if operation == "SUM":
        return "y = " + " + ".join(name if c == 1 else f"{c!r} * {name}"
                                   for name, c in zip(names, coefficients, strict=True))
    if operation == "PROD":
        return "y = " + " * ".join(names)
    text = names[0]
    for name in names[1:]:
        text = f"max({text}, {name})"
    return f"y = {text}"


def backward_program(operation: str, coefficients: Sequence[float], index: int, stable: bool) -> str:
    """dx from dy, for operand `index`."""
    own, others = f"x{index}", [f"x{i}" for i in range(len(coefficients)) if i != index]
    if operation == "SUM":
        return "dx = dy" if coefficients[index] == 1 else f"dx = {coefficients[index]!r} * dy"
    if operation == "PROD":
        return "dx = " + " * ".join(["dy", *others]) if stable else f"dx = dy * (y / {own})"
    # Caffe: of equal operands the second comes before the first, and both before the later ones.
    order = [1, 0, *range(2, len(coefficients))]
    text = "dy"
    for i in range(len(coefficients)):
        if i != index:
            text = f"where({own} {'>' if order[i] < order[index] else '>='} x{i}, {text}, 0)"
    return f"dx = {text}"


class OpenCLCombine(Combine):
    """Sum, product or maximum on a device."""

    variant = OpenCLElementwise.variant

    def __init__(self, device: Device, operation: str, coefficients: Sequence[float], count: int,
                 stable: bool) -> None:
        self.space = device.space
        coefficients = [float(c) for c in coefficients]
        names = tuple(f"x{index}" for index in range(len(coefficients)))
        self._names = names
        self._forward = OpenCLElementwise(
            device, parse(forward_program(operation, coefficients), (*names, "y")), count)
        self._backward = [
            OpenCLElementwise(device, parse(backward_program(operation, coefficients, index, stable),
                                            (*names, "y", "dy", "dx")), count)
            for index in range(len(coefficients))]

    def forward(self, xs: Sequence[Tensor], y: Tensor) -> None:
        self._forward.run({**dict(zip(self._names, xs, strict=True)), "y": y})

    def backward(self, index: int, xs: Sequence[Tensor], y: Tensor, dy: Tensor, dx: Tensor) -> None:
        self._backward[index].run({**dict(zip(self._names, xs, strict=True)), "y": y, "dy": dy, "dx": dx})


class OpenCLJoin(Join):
    """Concatenation by copies of rows."""

    variant = "copies"

    def __init__(self, device: Device, outer: int, sizes: Sequence[int], inner: int) -> None:
        self.space = device.space
        is_cpu = device.context.is_cpu
        piece = COPY_PIECE_CPU if is_cpu else COPY_PIECE
        self._outer = outer
        self._lengths = [size * inner for size in sizes]
        self._offsets = [0, *itertools.accumulate(self._lengths)]
        self._items = [Rows(AxisGeometry(outer, 1, length), piece).items if length else 0 for length in self._lengths]
        self._joins, self._splits = (
            [device.kernel("join.cl", "copy_rows", "bbiiiiii", {"PIECE": piece}, heavy=is_cpu) for _ in sizes]
            for _ in range(2))

    def join(self, parts: Sequence[Tensor], whole: Tensor) -> None:
        sources = [part.read(self.space) for part in parts]
        target, pitch = whole.write(self.space), self._offsets[-1]
        for source, length, offset, items, kernel in zip(sources, self._lengths, self._offsets, self._items,
                                                         self._joins, strict=False):
            kernel.run(items, source, target, length, 0, pitch, offset, self._outer, length)

    def split(self, whole: Tensor, parts: Sequence[Tensor | None]) -> None:
        source, pitch = whole.read(self.space), self._offsets[-1]
        for part, length, offset, items, kernel in zip(parts, self._lengths, self._offsets, self._items,
                                                       self._splits, strict=False):
            if part is not None:
                kernel.run(items, source, part.write(self.space), pitch, offset, length, 0, self._outer, length)
