"""Vectors against tensors (outer, axis, inner)."""

from __future__ import annotations

from ...blob import Tensor
from ...runtime.kernel import Kernel
from ...runtime.space import DeviceArray
from ..base import AxisGeometry, Broadcast
from .device import Device

# Elements a work-item: on a CPU device it is a loop, on others the work-items of a group go side by side.
PIECE_CPU = 4096
PIECE = 1
# Elements of a partial sum, or rows of it where the axis is innermost: long enough to leave few of them.
SUM_PIECE = 4096
SUM_BLOCK = 256
# As in the kernels: columns of a strip, and elements of a vector.
COLUMNS = 64
VECTOR = 16


class Rows:
    """A tensor (outer, axis, inner) as the rows that work-items take, the same way as in broadcast.cl.

    Parameters
    ----------
    geometry : of the tensor
    piece : elements of a work-item

    Attributes
    ----------
    along : whether a row is a whole axis (inner is 1); else it belongs to one element of the axis
    sizes : axis, rows, and elements of a row, as kernels take them
    pieces : into how many a row is cut
    items : work-items
    """

    def __init__(self, geometry: AxisGeometry, piece: int) -> None:
        self.along = geometry.inner == 1
        rows, length = ((geometry.outer, geometry.axis) if self.along
                        else (geometry.outer * geometry.axis, geometry.inner))
        self.sizes = (geometry.axis, rows, length)
        self.pieces = -(-length // piece)
        self.items = -(-rows // max(1, piece // max(1, length))) * self.pieces


class Parts:
    """Partial sums over outer and inner: matrices (parts, axis), in the slots ``sums`` and ``dots``.

    Parameters
    ----------
    geometry : of the tensors that are summed

    Attributes
    ----------
    rows : how they are handed out where inner is not 1
    macros : what the kernels that sum are specialised with
    items, count : work-items, and parts of one element of the axis
    most, last, pieces : elements of a part, of each last one, and how many parts that comes after
    scratch_bytes : of both matrices
    """

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self._scratch = device.scratch
        self.rows = Rows(geometry, SUM_PIECE)
        self.macros = {"ALONG": int(self.rows.along), "PIECE": SUM_PIECE, "BLOCK": SUM_BLOCK}
        if self.rows.along:
            length, self.most = geometry.outer, SUM_BLOCK
            self.count = self.pieces = -(-length // SUM_BLOCK)
            self.items = self.count * -(-geometry.axis // COLUMNS)
        else:
            length, self.most, self.pieces = geometry.inner, SUM_PIECE, self.rows.pieces
            self.count = geometry.outer * self.pieces
            self.items = self.rows.items
        self.last = length - (self.pieces - 1) * self.most
        self._axis = geometry.axis
        self._add = device.kernel("broadcast.cl", "add_parts", "bbbbiiii", self.macros, heavy=True)
        self.scratch_bytes = sum(self._scratch.reserve(slot, self.count * geometry.axis) for slot in ("sums", "dots"))

    def arrays(self) -> tuple[DeviceArray, DeviceArray]:
        """The two matrices."""
        return self._scratch.array("sums"), self._scratch.array("dots")

    def add(self, sums: tuple[DeviceArray, bool] | None, dots: tuple[DeviceArray, bool] | None) -> None:
        """Add the columns of each matrix to an array, or overwrite it where it is fresh; None: nobody asks."""
        array, fresh = sums or (None, True)
        other, other_fresh = dots or (None, True)
        self._add.run(-(-self._axis // VECTOR), *self.arrays(), array, other, self._axis, self.count,
                      int(not fresh), int(not other_fresh))


class Cut:
    """How the kernels over a tensor (outer, axis, inner) are cut into work-items, and the making of such kernels.

    Attributes
    ----------
    geometry : of the tensor, as one long row where the axis is 1
    rows, parts : work-items of kernels that go over it, and of those that sum
    """

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        if geometry.axis == 1:
            geometry = AxisGeometry(1, 1, geometry.outer * geometry.inner)
        piece = PIECE_CPU if device.context.is_cpu else PIECE
        self.geometry = geometry
        self.rows = Rows(geometry, piece)
        self.parts = Parts(device, geometry)
        self._device, self._macros = device, {**self.parts.macros, "PIECE": piece}

    def over_rows(self, file: str, name: str, signature: str) -> Kernel:
        """A kernel that goes over the rows."""
        return self._device.kernel(file, name, signature, self._macros, heavy=self._device.context.is_cpu)

    def over_parts(self, file: str, name: str, signature: str) -> Kernel:
        """A kernel that sums parts."""
        return self._device.kernel(file, name, signature, self.parts.macros, heavy=True)


class OpenCLBroadcast(Broadcast):
    """A vector against a tensor on a device; rows are summed first, then what they gave."""

    def __init__(self, device: Device, geometry: AxisGeometry) -> None:
        self.space = device.space
        cut = Cut(device, geometry)
        self._rows, self._parts = cut.rows, cut.parts
        self.scratch_bytes = cut.parts.scratch_bytes
        self._add = cut.over_rows("broadcast.cl", "add", "bbbiii")
        self._multiply = cut.over_rows("broadcast.cl", "multiply", "bbbbbiii")
        name = "gradients_of_columns" if cut.rows.along else "gradients_of_rows"
        self._gradients = cut.over_parts("broadcast.cl", name, "bbbbbbiii")

    def add(self, x: Tensor, v: Tensor, y: Tensor) -> None:
        self._add.run(self._rows.items, x.read(self.space), v.read(self.space), y.write(self.space),
                      *self._rows.sizes)

    def multiply(self, x: Tensor, v: Tensor, y: Tensor, bias: Tensor | None = None,
                 saved: Tensor | None = None) -> None:
        source, factors = x.read(self.space), v.read(self.space)
        shift = None if bias is None else bias.read(self.space)
        copy = None if saved is None else saved.write(self.space)
        self._multiply.run(self._rows.items, source, factors, shift, copy, y.write(self.space), *self._rows.sizes)

    def sum(self, dy: Tensor, dv: Tensor) -> None:
        gradient, result = dy.read(self.space), dv.accumulate(self.space)
        sums, dots = self._parts.arrays()
        if self._parts.count == 1 and result[1]:
            self._gradients.run(self._parts.items, gradient, None, None, None, result[0], dots,
                                *self._parts.rows.sizes)
            return
        self._gradients.run(self._parts.items, gradient, None, None, None, sums, dots, *self._parts.rows.sizes)
        self._parts.add(result, None)

    def gradients(self, dy: Tensor, x: Tensor, v: Tensor, dx: Tensor | None, dv: Tensor | None,
                  dbias: Tensor | None) -> None:
        space = self.space
        gradient, factors = dy.read(space), v.read(space)
        source = None if dv is None else x.read(space)
        target = None if dx is None else dx.write(space)
        self._gradients.run(self._parts.items, gradient, source, factors, target, *self._parts.arrays(),
                            *self._parts.rows.sizes)
        self._parts.add(None if dbias is None else dbias.accumulate(space),
                        None if dv is None else dv.accumulate(space))
