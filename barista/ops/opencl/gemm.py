"""Matrix products: both operands packed into panels, then one kernel over the tiles of the result."""

from __future__ import annotations

import dataclasses

from ...blob import Tensor
from ...gemm.shapes import GemmShape
from ...runtime.space import DeviceArray
from ..base import Gemm
from .device import Device

# Rows of a tile.  6 x 16 float32 are the twelve sums, two vectors and one number that the sixteen
# 256-bit registers of an x86 core can hold.
TILE_M = 6
VECTOR_BYTES = 32
VECTORS = 2
# Rows that one work-item packs: long enough to hide what starting a work-item costs on a CPU.
PACK_ROWS = 64


def tile_n(device: Device) -> int:
    """Columns of a tile."""
    return VECTOR_BYTES // device.dtype.itemsize * VECTORS


def _macros(device: Device) -> dict[str, object]:
    return {"TILE_M": TILE_M, "VECTOR": VECTOR_BYTES // device.dtype.itemsize, "VECTORS": VECTORS,
            "PACK_ROWS": PACK_ROWS}


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
        self._tile = TILE_M if side == "a" else tile_n(device)
        self._panels = -(-operand.lanes // self._tile)
        self._kernel = device.kernel("gemm.cl", f"pack_{side}", "bb" + "i" * 8, _macros(device), heavy=True)

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
        self._tiles = -(-m // TILE_M) * -(-n // tile_n(device))
        self._kernel = device.kernel("gemm.cl", "multiply", "bbbb" + "i" * 5 + "rr", _macros(device), heavy=True)

    def run(self, a: DeviceArray, b: DeviceArray, c: DeviceArray, k: int, products: int = 1, *,
            bias: DeviceArray | None = None, offset: int = 0, alpha: float = 1.0, beta: float = 0.0) -> None:
        """C = alpha A B + bias + beta C for `products` pairs; the first C begins at `offset`."""
        self._kernel.run(products * self._tiles, a, b, c, bias, offset, self._m, self._n, k, self._groups,
                         alpha, beta)


class OpenCLGemm(Gemm):
    """A matrix product on a device."""

    variant = f"packed, {TILE_M} rows a tile"

    def __init__(self, device: Device, shape: GemmShape, trans_a: bool, trans_b: bool) -> None:
        self.space = device.space
        self._scratch = device.scratch
        m, n, k = self._shape = (shape.m, shape.n, shape.k)
        self._pack_a = Packer(device, "a", Operand(m, 1, k, m) if trans_a else Operand(m, k, k, 1))
        self._pack_b = Packer(device, "b", Operand(n, k, k, 1) if trans_b else Operand(n, 1, k, n))
        self._product = Product(device, m, n)
        self.workspace_bytes = (self._scratch.reserve("a", self._pack_a.count(k))
                                + self._scratch.reserve("b", self._pack_b.count(k)))

    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0) -> None:
        k = self._shape[2]
        packed_a, packed_b = self._scratch.array("a"), self._scratch.array("b")
        self._pack_a.run(a.read(self.space), packed_a, k)
        self._pack_b.run(b.read(self.space), packed_b, k)
        result = c.write(self.space) if beta == 0 else c.update(self.space)
        self._product.run(packed_a, packed_b, result, k, alpha=alpha, beta=beta)
