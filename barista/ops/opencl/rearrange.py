"""Elements and rows in other places, on a device: Rearrange and Gather."""

from __future__ import annotations

import math

from ...blob import Tensor
from ...runtime.kernel import Kernel
from ..base import AxisGeometry, Gather, Rearrange, Shape, StridedGeometry
from .broadcast import Rows
from .device import Device

# Elements of a work-item: on a CPU device it is a loop, on others a group goes side by side.
PIECE_CPU = 8192
PIECE = 1
# Elements of a row in which a work-item adds up all gradients: few, so that all cores have some.
ADDED_CPU = 256
# Axes that the kernel walks over; more are for the host.
MAX_AXES = 5
TOO_MANY = f"the kernel takes {MAX_AXES} axes, one of them repeated"


def fits(geometry: StridedGeometry) -> bool:
    """Whether the kernel can walk over it."""
    strides = geometry.merged().strides
    return len(strides) <= MAX_AXES and strides.count(0) <= 1


class _Walk:
    """One direction of a rearrangement: elements read by strides and written by strides.

    Parameters
    ----------
    sizes : what both sides are walked over, the last axis by loops
    read, written : strides of both sides
    offsets : where they begin
    copies, apart : how many elements are summed for each that is written, and how far apart they are read
    """

    def __init__(self, device: Device, sizes: Shape, read: Shape, written: Shape, offsets: tuple[int, int],
                 copies: int = 1, apart: int = 0) -> None:
        is_cpu = device.context.is_cpu
        piece = PIECE_CPU if is_cpu else PIECE
        missing = MAX_AXES - len(sizes)
        rows, length = math.prod(sizes[:-1]), sizes[-1]
        self._items = Rows(AxisGeometry(rows, 1, length), piece).items if rows * length else 0
        outer = ((1,) * missing + sizes)[1:-1]
        self._numbers = (*offsets, *outer, *(0,) * missing, *read, *(0,) * missing, *written, copies, apart, rows,
                         length)
        self._kernel: Kernel = device.kernel("rearrange.cl", "move", "bb" + "i" * len(self._numbers), {"PIECE": piece},
                                             heavy=is_cpu)
        self._space = device.space

    def run(self, source: Tensor, target: Tensor, clear: bool = False) -> None:
        """Read `source` and write `target`, after clearing it where asked."""
        given, result = source.read(self._space), target.write(self._space)
        if clear:
            self._space.zero(result)
        self._kernel.run(self._items, given, result, *self._numbers)


class OpenCLRearrange(Rearrange):
    """Copies by strides, one way and back."""

    variant = "copies"

    def __init__(self, device: Device, geometry: StridedGeometry) -> None:
        self.space = device.space
        g = geometry.merged()
        whole = StridedGeometry.strides_of(g.sizes)
        self._forward = _Walk(device, g.sizes, g.strides, whole, (g.offset, 0))
        kept = [axis for axis, stride in enumerate(g.strides) if stride]
        repeated = [axis for axis, stride in enumerate(g.strides) if not stride]
        copies, apart = (g.sizes[repeated[0]], whole[repeated[0]]) if repeated else (1, 0)
        self._backward = _Walk(device, tuple(g.sizes[axis] for axis in kept) or (1,),
                               tuple(whole[axis] for axis in kept) or (1,),
                               tuple(g.strides[axis] for axis in kept) or (1,),
                               (0, g.offset), copies, apart)
        self._clears = not g.is_whole

    def forward(self, x: Tensor, y: Tensor) -> None:
        self._forward.run(x, y)

    def backward(self, dy: Tensor, dx: Tensor) -> None:
        self._backward.run(dy, dx, clear=self._clears)


class OpenCLGather(Gather):
    """Rows of a table; gradients are added in the order of the indices."""

    def __init__(self, device: Device, rows: int, inner: int) -> None:
        self.space = device.space
        is_cpu = device.context.is_cpu
        self._rows, self._inner = rows, inner
        self._piece, added = (PIECE_CPU, ADDED_CPU) if is_cpu else (PIECE, PIECE)
        self._adding_items = -(-inner // added)
        self._gather = device.kernel("gather.cl", "gather", "bbbiii", {"PIECE": self._piece}, heavy=is_cpu)
        self._scatter = device.kernel("gather.cl", "scatter", "bbbiii", {"PIECE": added}, heavy=True)

    def gather(self, table: Tensor, indices: Tensor, y: Tensor) -> None:
        items = Rows(AxisGeometry(indices.count, 1, self._inner), self._piece).items if self._inner else 0
        self._gather.run(items, table.read(self.space), indices.read(self.space), y.write(self.space), self._rows,
                         indices.count, self._inner)

    def scatter(self, dy: Tensor, indices: Tensor, dtable: Tensor) -> None:
        gradient, picked = dy.read(self.space), indices.read(self.space)
        result, fresh = dtable.accumulate(self.space)
        if fresh:
            self.space.zero(result)
        self._scatter.run(self._adding_items, gradient, picked, result, self._rows, indices.count, self._inner)
