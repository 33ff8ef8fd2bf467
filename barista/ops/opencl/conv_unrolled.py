"""Convolutions as matrix products whose packing unrolls the input.

Any stride, padding, dilation and group, on any device, some images at a time and fewer where memory is missing: what
computes where nothing faster does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from ...errors import DeviceError, out_of_memory
from ...gemm.shapes import ConvolutionGeometry
from ...runtime.space import DeviceArray
from .conv_pass import ForwardPass, GradInputPass, GradWeightPass, Variant
from .device import Device
from .gemm import Operand, Packer, Product, tile_n

log = logging.getLogger(__name__)

NAME = "unrolled"
MAX_AXES = 3
# What the unrolled images of one round may take.  A CPU keeps them in its caches; a GPU wants work for
# all its units at once.
ROUND_BYTES_CPU = 4 << 20
ROUND_BYTES = 256 << 20


def forward_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[ForwardPass]]:
    """The ways to compute y."""
    return [Variant(NAME, lambda: UnrolledForward(device, geometry))] if _fits(geometry) else []


def grad_weight_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradWeightPass]]:
    """The ways to compute dw."""
    return [Variant(NAME, lambda: UnrolledGradWeight(device, geometry))] if _fits(geometry) else []


def grad_input_variants(device: Device, geometry: ConvolutionGeometry) -> list[Variant[GradInputPass]]:
    """The ways to compute dx."""
    return [Variant(NAME, lambda: UnrolledGradInput(device, geometry))] if _fits(geometry) else []


def _fits(geometry: ConvolutionGeometry) -> bool:
    return len(geometry.input) <= MAX_AXES


def macros(geometry: ConvolutionGeometry) -> dict[str, object]:
    """The sizes as conv_unrolled.cl names them; missing leading axes have size 1."""
    values: dict[str, object] = {"GROUPS": geometry.group, "CHANNELS": geometry.in_channels // geometry.group}
    for letter, sizes, missing in (("I", geometry.input, 1), ("O", geometry.output, 1), ("K", geometry.kernel, 1),
                                   ("S", geometry.stride, 1), ("P", geometry.pad, 0), ("D", geometry.dilation, 1)):
        padded = (missing,) * (MAX_AXES - len(sizes)) + tuple(sizes)
        values.update({f"{letter}{axis}": size for axis, size in zip("ZYX", padded, strict=True)})
    return values


class _Rounds:
    """Some images at a time, in workspace that all primitives share.

    Parameters
    ----------
    counts : for each slot of the scratch memory the elements that a round of so many images takes

    Attributes
    ----------
    scratch_bytes : what is reserved
    """

    def __init__(self, device: Device, geometry: ConvolutionGeometry,
                 counts: Callable[[int], Mapping[str, int]]) -> None:
        g = self._geometry = geometry
        self._scratch, self._of = device.scratch, counts
        panels = -(-g.pixels // tile_n(device))
        image_bytes = g.group * g.depth * panels * tile_n(device) * device.dtype.itemsize
        limit = ROUND_BYTES_CPU if device.context.is_cpu else ROUND_BYTES
        self.images = max(1, min(g.batch, limit // max(image_bytes, 1)))
        self._reserve()

    def _reserve(self) -> None:
        self._counts = self._of(self.images)
        self.scratch_bytes = sum(self._scratch.reserve(slot, count) for slot, count in self._counts.items())

    def work(self, slot: str) -> DeviceArray:
        """The workspace of a slot."""
        return self._scratch.array(slot, self._counts[slot])

    def run(self, some: Callable[[int, int], None]) -> None:
        """Call some(first image, images) for each round; where memory is missing, with half as many images."""
        batch, first = self._geometry.batch, 0
        while first < batch:
            images = min(self.images, batch - first)
            try:
                some(first, images)
            except DeviceError as error:
                # What fails for want of memory was not begun, so it can be tried again.
                if self.images == 1 or not out_of_memory(error):
                    raise
                self.images = (self.images + 1) // 2
                log.warning("convolution of %s to %s: %s; going on with %d image(s) at a time", self._geometry.x_shape,
                            self._geometry.y_shape, error, self.images)
                self._reserve()
                continue
            first += images


class UnrolledForward(ForwardPass):
    """w times the unrolled x."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        g = self._geometry = geometry
        rows = g.out_channels // g.group
        panels, constants = -(-g.pixels // tile_n(device)), {**macros(g), "TILE_N": tile_n(device)}
        self._pack_w = Packer(device, "a", Operand(rows, g.depth, g.depth, 1, z_stride=rows * g.depth))
        self._pack_pixels = device.kernel("conv_unrolled.cl", "pack_pixels", "bbi", constants, heavy=True)
        self._rectify = device.kernel("conv_unrolled.cl", "rectify", "bii", constants, heavy=True)
        self._product = Product(device, rows, g.pixels, g.group)
        self._items = g.group * panels * (g.in_channels // g.group)
        self._rounds = _Rounds(device, g, lambda images: {
            "a": self._pack_w.count(g.depth, g.group), "b": images * g.group * g.depth * panels * tile_n(device)})
        self.scratch_bytes = self._rounds.scratch_bytes

    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        g = self._geometry

        def some(first: int, images: int) -> None:
            a, b = self._rounds.work("a"), self._rounds.work("b")
            if first == 0:
                self._pack_w.run(w, a, g.depth, g.group)
            self._pack_pixels.run(images * self._items, x, b, first)
            self._product.run(a, b, y, g.depth, images * g.group, bias=bias, offset=first * math.prod(g.y_shape[1:]))
            if rectify:
                self._rectify.run(images * g.out_channels, y, first, g.out_channels)

        self._rounds.run(some)


class UnrolledGradWeight(GradWeightPass):
    """dy times the transposed unrolled x, the images of a round one behind the other along K."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        g = self._geometry = geometry
        rows = g.out_channels // g.group
        panels, constants = -(-g.depth // tile_n(device)), {**macros(g), "TILE_N": tile_n(device)}
        self._pack_dy = Packer(device, "a", Operand(rows, g.pixels, g.pixels, 1, z_stride=rows * g.pixels,
                                                    outer_stride=g.out_channels * g.pixels))
        self._pack_taps = device.kernel("conv_unrolled.cl", "pack_taps", "bbii", constants, heavy=True)
        self._product = Product(device, rows, g.depth, g.group)
        self._items = g.group * panels
        self._rounds = _Rounds(device, g, lambda images: {
            "a": self._pack_dy.count(images * g.pixels, g.group),
            "b": images * g.group * panels * g.pixels * tile_n(device)})
        self.scratch_bytes = self._rounds.scratch_bytes

    def run(self, x: DeviceArray, dy: DeviceArray, dw: DeviceArray, accumulate: bool) -> None:
        g = self._geometry

        def some(first: int, images: int) -> None:
            a, b, k = self._rounds.work("a"), self._rounds.work("b"), images * g.pixels
            self._pack_dy.run(dy, a, k, g.group, offset=first * math.prod(g.y_shape[1:]))
            self._pack_taps.run(self._items * images, x, b, first, images)
            self._product.run(a, b, dw, k, g.group, beta=1.0 if accumulate or first else 0.0)

        self._rounds.run(some)


class UnrolledGradInput(GradInputPass):
    """Transposed w times dy, folded back into dx."""

    def __init__(self, device: Device, geometry: ConvolutionGeometry) -> None:
        g = self._geometry = geometry
        self._rows = rows = g.out_channels // g.group
        constants = {**macros(g), "TILE_N": tile_n(device)}
        self._pack_w = Packer(device, "a", Operand(g.depth, 1, rows, g.depth, z_stride=rows * g.depth))
        self._pack_dy = Packer(device, "b", Operand(g.pixels, 1, rows, g.pixels, z_stride=rows * g.pixels))
        self._product = Product(device, g.depth, g.pixels, g.group)
        self._fold = device.kernel("conv_unrolled.cl", "fold", "bbi", constants, heavy=True)
        self._rounds = _Rounds(device, g, lambda images: {
            "a": self._pack_w.count(rows, g.group), "b": self._pack_dy.count(rows, images * g.group),
            "columns": 0 if g.is_pointwise else images * g.group * g.depth * g.pixels})
        self.scratch_bytes = self._rounds.scratch_bytes

    def run(self, dy: DeviceArray, w: DeviceArray, dx: DeviceArray) -> None:
        g = self._geometry

        def some(first: int, images: int) -> None:
            a, b, columns = map(self._rounds.work, ("a", "b", "columns"))
            planes = images * g.group
            if first == 0:
                self._pack_w.run(w, a, self._rows, g.group)
            self._pack_dy.run(dy, b, self._rows, planes, offset=first * math.prod(g.y_shape[1:]))
            if g.is_pointwise:
                self._product.run(a, b, dx, self._rows, planes, offset=first * math.prod(g.x_shape[1:]))
            else:
                self._product.run(a, b, columns, self._rows, planes)
                self._fold.run(images * g.in_channels * math.prod(g.input[:-1]), columns, dx, first)

        self._rounds.run(some)
