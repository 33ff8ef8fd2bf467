"""Matrix products: operands packed into panels and multiplied tile by tile."""

from __future__ import annotations

import dataclasses
import logging

from ...blob import Tensor
from ...errors import DeviceError, out_of_memory
from ...gemm.shapes import GemmShape
from ...runtime.space import MAX_COUNT, DeviceArray
from ..base import Gemm
from .device import Device
from .gemm_skinny import skinny

log = logging.getLogger(__name__)

# Rows that one work-item packs: long enough to hide what starting a work-item costs on a CPU.
PACK_ROWS = 64
# Elements of A up to which every strip packs A for itself: as quick as the launch of a kernel that does it for all.
SELF_PACKED = 1 << 17


def tile_m(device: Device, m: int) -> int:
    """Rows of a tile where A has `m` rows: no more than the device's parameters say, and the last tile about full."""
    largest = device.gemm.tile_m
    return -(-m // -(-m // largest)) if m else largest


def tile_n(device: Device) -> int:
    """Columns of a tile."""
    return device.gemm.tile_n(device.dtype)


def _macros(device: Device, tile_rows: int) -> dict[str, object]:
    return {**device.gemm.macros(device.dtype), "TILE_M": tile_rows, "PACK_ROWS": PACK_ROWS}


@dataclasses.dataclass(frozen=True)
class Operand:
    """How an operand of a product lies in memory, in elements.

    Lanes are the rows of A or the columns of B.  Row k is (k // inner, k % inner), with a stride for each.
    """

    lanes: int
    lane_stride: int
    inner: int
    inner_stride: int
    outer_stride: int = 0
    z_stride: int = 0


class Packer:
    """Copies an operand into panels.

    Parameters
    ----------
    side : ``a`` or ``b``
    """

    def __init__(self, device: Device, side: str, operand: Operand) -> None:
        self._operand = operand
        rows = tile_m(device, operand.lanes) if side == "a" else device.gemm.tile_m
        self._tile = rows if side == "a" else tile_n(device)
        self._panels = -(-operand.lanes // self._tile)
        self._kernel = device.kernel("gemm.cl", f"pack_{side}", "bb" + "i" * 8, _macros(device, rows), heavy=True)

    def count(self, k: int, operands: int = 1) -> int:
        """Elements of `operands` packed operands of `k` rows."""
        return operands * self._panels * k * self._tile

    def run(self, source: DeviceArray, packed: DeviceArray, k: int, operands: int = 1, offset: int = 0) -> None:
        """Pack `operands` operands of `k` rows, the first beginning at `offset`."""
        o = self._operand
        self._kernel.run(operands * self._panels * -(-k // PACK_ROWS), source, packed, offset, o.z_stride, o.lanes,
                         o.lane_stride, k, o.inner, o.inner_stride, o.outer_stride)


class Product:
    """C(M, N) of packed operands, several at a time; `groups` A take turns."""

    def __init__(self, device: Device, m: int, n: int, groups: int = 1) -> None:
        self._m, self._n, self._groups = m, n, groups
        rows = tile_m(device, m)
        self._tiles = -(-m // rows) * -(-n // tile_n(device))
        self._kernel = device.kernel("gemm.cl", "multiply", "bbbbb" + "i" * 5 + "rr", _macros(device, rows), heavy=True)

    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, k: int, products: int = 1, *,
            bias: DeviceArray | None = None, column_bias: DeviceArray | None = None, offset: int = 0,
            alpha: float = 1.0, beta: float = 0.0) -> None:
        """C = alpha A B + bias(M) + column_bias(N) + beta C for `products` pairs; the first C begins at `offset`."""
        self._kernel.run(products * self._tiles, a, b, c, bias, column_bias, offset, self._m, self._n, k,
                         self._groups, alpha, beta)


class StripProduct:
    """C(M, N) of A and B as they lie, a strip of columns a work-item (CPU devices)."""

    def __init__(self, device: Device, shape: GemmShape, a: Operand, b: Operand) -> None:
        self._shape, self._a, self._b = shape, a, b
        rows, columns, units = tile_m(device, shape.m), tile_n(device), device.context.device.max_compute_units
        panels_m, panels_n = -(-shape.m // rows), -(-shape.n // columns)
        # As many strips as keep all units busy to the end, or as many as there are panels.
        strips = -(-max(1, -(-shape.n // device.gemm.strip)) // units) * units
        self._strips = min(strips, panels_n)
        # Where the columns are too few for all units, the rows are shared out too.
        self._blocks = min(panels_m, -(-units // max(1, self._strips)))
        widest = -(-panels_n // max(1, self._strips)) * columns
        self._local_bytes = device.gemm.chunk_k * widest * device.dtype.itemsize
        self._self_packed = self._strips <= 1 or (self._strips <= units and shape.m * shape.k <= SELF_PACKED)
        self._pack_a = Packer(device, "a", a)
        self._kernel = device.kernel("gemm.cl", "multiply_strips", "bbbbbl" + "i" * 11 + "rr",
                                     _macros(device, rows), heavy=True)

    def count(self, k: int) -> int:
        """Elements of the packed A, `k` rows of B at a time."""
        return self._pack_a.count(k, self._strips if self._self_packed else 1)

    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, bias: DeviceArray | None, packed: DeviceArray,
            first: int, k: int, alpha: float, beta: float) -> None:
        """C = alpha A B + bias + beta C for `k` rows of B from `first` on; `packed` is scratch for `count` elements."""
        left, right = self._a, self._b
        a_offset = first * left.inner_stride
        if not self._self_packed:
            self._pack_a.run(a, packed, k, offset=a_offset)
        self._kernel.run(self._strips * self._blocks, a if self._self_packed else None, packed, b, c, bias,
                         self._local_bytes, a_offset, left.lane_stride, left.inner_stride, first * right.inner_stride,
                         right.inner_stride, right.lane_stride, self._shape.m, self._shape.n, k, self._strips,
                         self._blocks, alpha, beta)


class PackedProduct:
    """C = op(A) op(B) of operands that are packed, for every shape on every device.

    Where the device has no memory for the packed operands it goes over K in steps, each half as long as the
    last that did not fit, and adds them up in C.

    Attributes
    ----------
    variant : the parameters
    scratch_bytes : memory for the packed operands
    """

    def __init__(self, device: Device, shape: GemmShape, trans_a: bool, trans_b: bool) -> None:
        self.variant = f"packed, {device.gemm}"
        self._scratch = device.scratch
        m, n, k = self._shape = (shape.m, shape.n, shape.k)
        self._a = Operand(m, 1, max(k, 1), m) if trans_a else Operand(m, k, max(k, 1), 1)
        self._b = Operand(n, k, max(k, 1), 1) if trans_b else Operand(n, 1, max(k, 1), n)
        self._strips = StripProduct(device, shape, self._a, self._b) if device.gemm.strip else None
        if self._strips is None:
            self._pack_a = Packer(device, "a", self._a)
            self._pack_b = Packer(device, "b", self._b)
            self._product = Product(device, m, n)
        self._chunk_k = device.gemm.chunk_k
        largest = min(MAX_COUNT, device.context.device.max_mem_alloc_size // device.dtype.itemsize)
        self._step = max(1, min(k, largest // max(1, *self._packed_counts(1).values())))
        self._reserve()

    def _packed_counts(self, k: int) -> dict[str, int]:
        """Elements of the operands that are packed, `k` rows of the common dimension at a time."""
        if self._strips is not None:
            return {"a": self._strips.count(k)}
        return {"a": self._pack_a.count(k), "b": self._pack_b.count(k)}

    def _reserve(self) -> None:
        self._counts = self._packed_counts(self._step)
        self.scratch_bytes = sum(self._scratch.reserve(slot, count) for slot, count in self._counts.items())

    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, bias: DeviceArray | None, alpha: float,
            beta: float) -> None:
        """C = alpha op(A) op(B) + bias + beta C."""
        k = self._shape[2]
        done = 0
        while done < k or not done:
            rows = min(self._step, k - done)
            try:
                self._run_rows(a, b, c, None if done else bias, done, rows, alpha, 1.0 if done else beta)
            except DeviceError as error:
                # What fails for want of memory was not begun, so it can be tried again.
                if self._step == 1 or not out_of_memory(error):
                    raise
                self._shorten(error)
                continue
            done += max(rows, 1)

    def _run_rows(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, bias: DeviceArray | None, first: int,
                  rows: int, alpha: float, beta: float) -> None:
        """Add rows `first` and following of the common dimension, and the bias, to C."""
        packed_a = self._scratch.array("a", self._counts["a"])
        if self._strips is not None:
            self._strips.run(a, b, c, bias, packed_a, first, rows, alpha, beta)
            return
        packed_b = self._scratch.array("b", self._counts["b"])
        self._pack_a.run(a, packed_a, rows, offset=first * self._a.inner_stride)
        self._pack_b.run(b, packed_b, rows, offset=first * self._b.inner_stride)
        self._product.run(packed_a, packed_b, c, rows, column_bias=bias, alpha=alpha, beta=beta)

    def _shorten(self, error: DeviceError) -> None:
        """Halve the step, to whole chunks where it holds some."""
        half = (self._step + 1) // 2
        self._step = half // self._chunk_k * self._chunk_k or half
        m, n, k = self._shape
        log.warning("matrix product of M=%d N=%d K=%d: %s; going on with %d of K at a time", m, n, k, error,
                    self._step)
        self._reserve()


class OpenCLGemm(Gemm):
    """A matrix product on a device.

    Parameters
    ----------
    packed : whether the operands are packed even where the shape has a faster way
    """

    def __init__(self, device: Device, shape: GemmShape, trans_a: bool, trans_b: bool, packed: bool = False) -> None:
        self.space = device.space
        found = None if packed else skinny(device, shape, trans_a, trans_b)
        self._product = found or PackedProduct(device, shape, trans_a, trans_b)
        self.variant = self._product.variant

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """Memory for packed operands."""
        return self._product.scratch_bytes

    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0,
            bias: Tensor | None = None) -> None:
        left, right = a.read(self.space), b.read(self.space)
        shift = None if bias is None else bias.read(self.space)
        result, fresh = c.accumulate(self.space) if beta else (c.write(self.space), True)
        self._product.run(left, right, result, shift, alpha, 0.0 if fresh else beta)
