"""Convolutions as matrix products whose packing unrolls the input; any stride, padding, dilation and group."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from ...blob import Tensor
from ...errors import DeviceError, out_of_memory
from ...gemm.shapes import ConvolutionGeometry
from ...runtime.space import DeviceArray
from ..base import Convolution
from .device import Device
from .gemm import Operand, Packer, Product, tile_n

log = logging.getLogger(__name__)

MAX_AXES = 3
# What the unrolled images of one round may take.  A CPU keeps them in its caches; a GPU wants work for
# all its units at once.
ROUND_BYTES_CPU = 4 << 20
ROUND_BYTES = 256 << 20


def macros(geometry: ConvolutionGeometry) -> dict[str, object]:
    """The sizes as convolution.cl names them; missing leading axes have size 1."""
    values: dict[str, object] = {"GROUPS": geometry.group, "CHANNELS": geometry.in_channels // geometry.group}
    for letter, sizes, missing in (("I", geometry.input, 1), ("O", geometry.output, 1), ("K", geometry.kernel, 1),
                                   ("S", geometry.stride, 1), ("P", geometry.pad, 0), ("D", geometry.dilation, 1)):
        padded = (missing,) * (MAX_AXES - len(sizes)) + tuple(sizes)
        values.update({f"{letter}{axis}": size for axis, size in zip("ZYX", padded, strict=True)})
    return values


class OpenCLConvolution(Convolution):
    """The three passes of a convolution over one to three spatial axes, some images at a time.

    forward : w times the unrolled x
    grad_weight : dy times the transposed unrolled x, the images one behind the other along K
    grad_input : transposed w times dy, folded back into dx
    """

    variant = "unrolled while packing"

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        g = self._geometry = geometry
        self.space = device.space
        self._scratch = device.scratch
        self._rows = rows = g.out_channels // g.group
        tile = self._tile = tile_n(device)
        file, constants = "convolution.cl", {**macros(g), "TILE_N": tile}
        weights = rows * g.depth

        self._pack_w = Packer(device, "a", Operand(rows, g.depth, g.depth, 1, z_stride=weights))
        self._pack_pixels = device.kernel(file, "pack_pixels", "bbi", constants, heavy=True)
        self._forward = Product(device, rows, g.pixels, g.group)

        self._pack_dy_rows = Packer(device, "a", Operand(rows, g.pixels, g.pixels, 1, z_stride=rows * g.pixels,
                                                         outer_stride=g.out_channels * g.pixels))
        self._pack_taps = device.kernel(file, "pack_taps", "bbii", constants, heavy=True)
        self._grad_weight = Product(device, rows, g.depth, g.group)

        self._pack_w_columns = Packer(device, "a", Operand(g.depth, 1, rows, g.depth, z_stride=weights))
        self._pack_dy = Packer(device, "b", Operand(g.pixels, 1, rows, g.pixels, z_stride=rows * g.pixels))
        self._grad_input = Product(device, g.depth, g.pixels, g.group)
        self._fold = device.kernel(file, "fold", "bbi", constants, heavy=True)

        self._pixel_panels, self._tap_panels = -(-g.pixels // tile), -(-g.depth // tile)
        self._images = self._images_a_round(device, tile)
        self._reserve()

    def _images_a_round(self, device: Device, tile: int) -> int:
        g = self._geometry
        image_bytes = g.group * g.depth * self._pixel_panels * tile * device.dtype.itemsize
        limit = ROUND_BYTES_CPU if device.context.is_cpu else ROUND_BYTES
        return max(1, min(g.batch, limit // max(image_bytes, 1)))

    def _reserve(self) -> None:
        g, images, tile = self._geometry, self._images, self._tile
        a = max(self._pack_w.count(g.depth, g.group), self._pack_w_columns.count(self._rows, g.group),
                self._pack_dy_rows.count(images * g.pixels, g.group))
        b = max(images * g.group * g.depth * self._pixel_panels * tile,
                images * g.group * self._tap_panels * g.pixels * tile,
                self._pack_dy.count(self._rows, images * g.group))
        columns = 0 if g.is_pointwise else images * g.group * g.depth * g.pixels
        self._counts = {"a": a, "b": b, "columns": columns}
        self.workspace_bytes = sum(self._scratch.reserve(slot, count) for slot, count in self._counts.items())

    def _work(self, slot: str) -> DeviceArray:
        return self._scratch.array(slot, self._counts[slot])

    def _rounds(self, run: Callable[[int, int], None]) -> None:
        """Call run(first image, images) for each round; where memory is missing, with half as many images."""
        batch, first = self._geometry.batch, 0
        while first < batch:
            images = min(self._images, batch - first)
            try:
                run(first, images)
            except DeviceError as error:
                # What fails for want of memory was not begun, so it can be tried again.
                if self._images == 1 or not out_of_memory(error):
                    raise
                self._images = (self._images + 1) // 2
                log.warning("convolution of %s to %s: %s; going on with %d image(s) at a time", self._geometry.x_shape,
                            self._geometry.y_shape, error, self._images)
                self._reserve()
                continue
            first += images

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor) -> None:
        g = self._geometry
        source, weights = x.read(self.space), w.read(self.space)
        shift = None if bias is None else bias.read(self.space)
        result = y.write(self.space)
        channels = g.in_channels // g.group

        def some(first: int, images: int) -> None:
            a, b, planes = self._work("a"), self._work("b"), images * g.group
            if first == 0:
                self._pack_w.run(weights, a, g.depth, g.group)
            self._pack_pixels.run(planes * self._pixel_panels * channels, source, b, first)
            self._forward.run(a, b, result, g.depth, planes, bias=shift, offset=first * math.prod(g.y_shape[1:]))

        self._rounds(some)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        g = self._geometry
        source, gradient, result = x.read(self.space), dy.read(self.space), dw.update(self.space)

        def some(first: int, images: int) -> None:
            a, b, k = self._work("a"), self._work("b"), images * g.pixels
            self._pack_dy_rows.run(gradient, a, k, g.group, offset=first * math.prod(g.y_shape[1:]))
            self._pack_taps.run(g.group * self._tap_panels * images, source, b, first, images)
            self._grad_weight.run(a, b, result, k, g.group, beta=1.0)

        self._rounds(some)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        g = self._geometry
        gradient, weights, result = dy.read(self.space), w.read(self.space), dx.write(self.space)

        def some(first: int, images: int) -> None:
            a, b, columns = map(self._work, ("a", "b", "columns"))
            planes = images * g.group
            if first == 0:
                self._pack_w_columns.run(weights, a, self._rows, g.group)
            self._pack_dy.run(gradient, b, self._rows, planes, offset=first * math.prod(g.y_shape[1:]))
            if g.is_pointwise:
                self._grad_input.run(a, b, result, self._rows, planes, offset=first * math.prod(g.x_shape[1:]))
            else:
                self._grad_input.run(a, b, columns, self._rows, planes)
                self._fold.run(images * g.in_channels * math.prod(g.input[:-1]), columns, result, first)

        self._rounds(some)
