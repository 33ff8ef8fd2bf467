"""Arrays of tiles for tests that need no device: one that is quick, and one that fails when told to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from barista.errors import DeviceError
from barista.gemm.engine import StageTimes
from barista.gemm.tiles import TileSizes
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps, Loader
from barista.precision.formats import NumberFormat, number_format
from barista.schedule import Schedule

Array = npt.NDArray[np.generic]
TILES = TileSizes(8, 16, 32)


class QuickArray:
    """Multiplies tiles by NumPy; after `lasts` products it is unplugged."""

    overlaps = False

    def __init__(self, name: str = "quick", tiles: TileSizes = TILES, fmt: NumberFormat | None = None,
                 lasts: int | None = None) -> None:
        self.name, self.tiles, self.format = name, tiles, fmt or number_format("fp32")
        self.lasts = lasts
        self.products = 0

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        return nr, nc

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        self.products += 1
        if self.lasts is not None and self.products > self.lasts:
            raise DeviceError(f"{self.name}: a product of {nr} x {nc} tiles: clEnqueueNDRangeKernel failed with "
                              "DEVICE_NOT_AVAILABLE (-2); another process holds the device, or its driver is down")
        t = self.tiles
        dtype = np.int64 if self.format.is_fixed else np.float32
        a = a_tiles.reshape(nr, np_ * t.tp, t.tr).astype(dtype)
        b = b_tiles.reshape(nc, np_ * t.tp, t.tc).astype(dtype)
        product = np.matmul(a.transpose(0, 2, 1)[:, None], b[None])
        c_tiles[...] = product.astype(self.format.accumulator_dtype)
        return StageTimes(write=0.001, kernel=0.002, read=0.003)


def loader(**formats: str) -> Loader:
    """A loader of quick arrays: name to number format."""
    kinds = {name: (TILES, number_format(fmt)) for name, fmt in formats.items()}
    return Loader(kinds, lambda name: QuickArray(name, *kinds[name]), "board of the tests")


def quick_ops(array: QuickArray | None = None, schedule: Schedule | None = None,
              inner_products: bool = False, **formats: str) -> FpgaOps:
    """An FPGA op set on quick arrays, or on the one array that is given."""
    if array is None:
        return FpgaOps(CpuOps(), loader(**(formats or {"quick": "fp32"})), next(iter(formats), "quick"), schedule,
                       inner_products)
    kinds = {array.name: (array.tiles, array.format)}
    return FpgaOps(CpuOps(), Loader(kinds, lambda _: array, "board of the tests"), array.name, schedule,
                   inner_products)
