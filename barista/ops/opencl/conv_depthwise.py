"""Depthwise convolutions: every output channel reads one input channel (group == in_channels)."""

from __future__ import annotations

import math

from ...gemm.shapes import ConvolutionGeometry
from ...runtime.space import DeviceArray
from .conv_pass import ForwardPass, GradInputPass, GradWeightPass, Variant
from .device import Device

NAME = "depthwise"
FILE = "conv_depthwise.cl"
VECTOR_BYTES = 32
# What the staged rows of one band may take: less than a core's first cache.
BAND_BYTES = 24 << 10
# Least that one work-item computes on a CPU device, in elements: small planes are taken several at a time.
ITEM_ELEMENTS = 4096
# Work-items among which a pass over few channels is shared out.
SHARED_ITEMS_CPU = 16
SHARED_ITEMS = 1 << 14
# More than that of its shape is not what the kernels are made for: row loops unroll a row of the kernel.
MAX_KERNEL_COLUMNS = 32


def _fits(geometry: ConvolutionGeometry) -> bool:
    return (geometry.group == geometry.in_channels and len(geometry.input) in (1, 2)
            and geometry.kernel[-1] <= MAX_KERNEL_COLUMNS)


def forward_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[ForwardPass]]:
    """The one way to compute y, where `geometry` is depthwise."""
    if not _fits(geometry):
        return []
    return [Variant(NAME, lambda: (_RowsForward if _rows_fit(device, geometry) else _PlainForward)(device, geometry))]


def grad_weight_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradWeightPass]]:
    """The one way to compute dw, where `geometry` is depthwise."""
    return [Variant(NAME, lambda: _GradWeight(device, geometry))] if _fits(geometry) else []


def grad_input_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradInputPass]]:
    """The one way to compute dx, where `geometry` is depthwise."""
    if not _fits(geometry):
        return []
    return [Variant(NAME,
                    lambda: (_RowsGradInput if _rows_fit(device, geometry) else _PlainGradInput)(device, geometry))]


class _Layout:
    """Sizes of a geometry as conv_depthwise.cl names them, and of what it stages in local memory.

    The sums repeat what the file computes from the same macros.
    """

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        g, size = geometry, device.dtype.itemsize
        self.multiplier = g.out_channels // g.in_channels
        self.vector = VECTOR_BYTES // size
        values: dict[str, object] = {"CHANNELS": g.in_channels, "MULTIPLIER": self.multiplier, "VECTOR": self.vector}
        for letter, sizes, missing in (("I", g.input, 1), ("O", g.output, 1), ("K", g.kernel, 1), ("S", g.stride, 1),
                                       ("P", g.pad, 0), ("D", g.dilation, 1)):
            padded = (missing,) * (2 - len(sizes)) + tuple(sizes)
            values.update({f"{letter}{axis}": value for axis, value in zip("YX", padded, strict=True)})
        (iy, ix), (oy, ox), (ky, kx), (sy, sx), (_, px), (dy, dx) = (
            [int(str(values[letter + axis])) for axis in "YX"] for letter in "IOKSPD")

        self.x_pitch = sx * max(self._whole(ox) + (kx - 1) * dx // sx, (px + sx - 1) // sx + self._whole(-(-ix // sx)))
        self.dy_row = self._whole(ox)
        phase_columns = self._whole(-(-ix // sx))
        self.dy_pitch = self.multiplier * ((kx - 1) * dx // sx + 1
                                           + max(phase_columns + (sx + px) // sx, self.dy_row))
        self.phases = sx * phase_columns
        room, halo = BAND_BYTES // size, (ky - 1) * dy + 1
        self.out_band = max(1, min(oy, (room - halo * self.x_pitch) // (sy * self.x_pitch + self.dy_row)))
        self.in_band = max(1, min(iy, (room // self.dy_pitch - halo // sy - 1) * sy))
        self.out_bands, self.in_bands = -(-oy // self.out_band), -(-iy // self.in_band)
        self.x_rows = ((self.out_band - 1) * sy + halo) * self.x_pitch
        self.dy_rows = ((self.in_band + halo) // sy + 2) * self.dy_pitch
        self.sums = self.multiplier * ky * kx * self.vector
        self.macros = {**values, "OUT_BAND": self.out_band, "IN_BAND": self.in_band}
        self.local_bytes = size * max(self.x_rows + self.out_band * self.dy_row + self.sums,
                                      self.dy_rows + self.phases)

    def _whole(self, columns: int) -> int:
        return -(-columns // self.vector) * self.vector


def _rows_fit(device: Device, geometry: ConvolutionGeometry) -> bool:
    """Whether rows are staged: on CPU devices, unless even a single one is too long."""
    return (device.context.is_cpu
            and _Layout(device, geometry).local_bytes <= device.context.device.local_mem_size)


class _RowsForward(ForwardPass):
    """Bands of rows of y, some planes at a time."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        layout = _Layout(device, geometry)
        self._kernel = device.kernel(FILE, "forward_rows", "bbbbliii", layout.macros, heavy=True)
        self._local_bytes = layout.x_rows * device.dtype.itemsize
        self._all = geometry.batch * geometry.in_channels
        self._planes = max(1, min(-(-self._all // SHARED_ITEMS_CPU), ITEM_ELEMENTS // max(geometry.pixels, 1)))
        self._items = -(-self._all // self._planes) * layout.out_bands

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        self._kernel.run(self._items, x, w, bias, y, self._local_bytes, int(rectify), self._planes, self._all)


class _RowsGradInput(GradInputPass):
    """Bands of rows of dx, some planes at a time."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        layout, size = _Layout(device, geometry), device.dtype.itemsize
        self._kernel = device.kernel(FILE, "grad_input_rows", "bbbllii", layout.macros, heavy=True)
        self._local_bytes = layout.dy_rows * size, layout.phases * size
        self._all = geometry.batch * geometry.in_channels
        self._planes = max(1, min(-(-self._all // SHARED_ITEMS_CPU),
                                  ITEM_ELEMENTS // max(math.prod(geometry.input), 1)))
        self._items = -(-self._all // self._planes) * layout.in_bands

    def run(self, dy: DeviceArray, w: DeviceArray, dx: DeviceArray) -> None:
        self._kernel.run(self._items, dy, w, dx, *self._local_bytes, self._planes, self._all)


class _PlainForward(ForwardPass):
    """A work-item a number of y."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        self._kernel = device.kernel(FILE, "forward_plain", "bbbbi", _Layout(device, geometry).macros)
        self._items = math.prod(geometry.y_shape)

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        self._kernel.run(self._items, x, w, bias, y, int(rectify))


class _PlainGradInput(GradInputPass):
    """A work-item a number of dx."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        self._kernel = device.kernel(FILE, "grad_input_plain", "bbb", _Layout(device, geometry).macros)
        self._items = math.prod(geometry.x_shape)

    def run(self, dy: DeviceArray, w: DeviceArray, dx: DeviceArray) -> None:
        self._kernel.run(self._items, dy, w, dx)


class _GradWeight(GradWeightPass):
    """Sums of shares of the batch, which are added in their order."""

    SLOT = "depthwise shares"

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        g, layout, size = geometry, _Layout(device, geometry), device.dtype.itemsize
        self._rows = _rows_fit(device, g)
        self._count = math.prod(g.w_shape)
        items, enough = (g.in_channels, SHARED_ITEMS_CPU) if self._rows else (self._count, SHARED_ITEMS)
        self._batch, self._shares = g.batch, min(g.batch, -(-enough // max(items, 1)))
        self._items = self._shares * items
        if self._rows:
            self._sum = device.kernel(FILE, "grad_weight_rows", "bbblllii", layout.macros, heavy=True)
            self._local_bytes: tuple[int, ...] = (layout.x_rows * size, layout.out_band * layout.dy_row * size,
                                                  layout.sums * size)
        else:
            self._sum = device.kernel(FILE, "grad_weight_plain", "bbbii", layout.macros)
            self._local_bytes = ()
        self._add = device.kernel(FILE, "add_shares", "bbii", layout.macros)
        self._scratch = device.scratch
        self.scratch_bytes = self._scratch.reserve(self.SLOT, max(self._shares, 1) * self._count)

    def run(self, x: DeviceArray, dy: DeviceArray, dw: DeviceArray, accumulate: bool) -> None:
        partial = self._scratch.array(self.SLOT)
        self._sum.run(self._items, x, dy, partial, *self._local_bytes, self._batch, self._shares)
        self._add.run(self._count, partial, dw, self._shares, int(accumulate))
