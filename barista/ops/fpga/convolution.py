"""Convolutions whose matrix products run on the array: columns are gathered and folded on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...gemm.batching import IMAGES_INNERMOST, batched_gemm, images_a_product, straight
from ...gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from ..base import Convolution
from ..columns import Chunk, Columns
from .lanes import FramedLanes, Pixels
from .products import Machine, Product

Array = npt.NDArray[Any]

# op(A), op(B) of each pass: w * columns, dy * columns', w' * dy.
_TRANSPOSED = {Pass.FORWARD: (False, False), Pass.GRAD_WEIGHT: (False, True), Pass.GRAD_INPUT: (True, False)}


class FpgaConvolution(Convolution):
    """Passes of a convolution on the array, some images a product.

    Parameters
    ----------
    geometry, dtype : of the convolution
    bitstreams : name of the bitstream of each pass that will be run
    machine : what all products share
    layer : whose convolution it is
    """

    space = HOST

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], bitstreams: Mapping[Pass, str],
                 machine: Machine, layer: str) -> None:
        g = self.geometry = geometry
        self._clock, self._layer = machine.clock, layer
        images = images_a_product(g, dtype.itemsize)
        self._chunks = [Chunk(n, min(n + images, g.batch), 0, g.output[0]) for n in range(0, g.batch, images)]
        self._columns = Columns(g, dtype, images >= IMAGES_INNERMOST)
        self._in_turn, self._pixels = Columns(g, dtype, False), Pixels(g, dtype)
        self._products: dict[Pass, Product] = {}
        self._straight: dict[Pass, bool] = {}
        for pass_, name in bitstreams.items():
            tiles, fmt = machine.loader.tiles(name), machine.loader.kind(name)[1]
            product = self._products[pass_] = Product(machine, name, layer, pass_.value, *_TRANSPOSED[pass_])
            self._straight[pass_] = straight(g, pass_, images, tiles.tc, fmt.is_fixed)
            for chunk in self._chunks:
                product.reserve(self._shape(pass_, chunk))
                (self._pixels if self._weights_innermost(pass_) else self._columns).reserve(chunk)
        self._unrolled = np.empty(0 if all(self._straight.values()) else g.group * g.depth * images * g.pixels, dtype)
        self._gathered = np.empty(g.out_channels * images * g.pixels, dtype)
        names = dict.fromkeys(bitstreams.values())
        self.resolution = max(map(machine.resolution, names), default=0.0)
        self.variant = f"{', '.join(names)}; {images} image(s) a product"
        self.scratch_bytes = max((product.scratch_bytes for product in self._products.values()), default=0)
        held = (self._unrolled, self._gathered, self._columns, self._pixels)
        self.workspace_bytes = sum(part.nbytes for part in held)

    def _weights_innermost(self, pass_: Pass) -> bool:
        """Whether the columns of a pass are cut into tiles whose lanes are weights."""
        return pass_ is Pass.GRAD_WEIGHT and self._straight[pass_]

    def _shape(self, pass_: Pass, chunk: Chunk) -> GemmShape:
        """The product of one group of a chunk."""
        return batched_gemm(self.geometry, pass_, chunk.images)

    # ---- passes -----------------------------------------------------------------------------

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        engine = self._products[Pass.FORWARD]
        g = self.geometry
        source, weights = x.read(HOST).reshape(g.x_shape), self._weights(w.read(HOST))
        shift = None if bias is None else bias.read(HOST).reshape(-1, *(1 for _ in g.output), 1)
        result = y.write(HOST).reshape(g.y_shape)
        for chunk in self._chunks:
            with self._host_work(Pass.FORWARD):
                columns = self._positions(source, chunk) if self._straight[Pass.FORWARD] else \
                    self._columns.unroll(source, chunk, self._unrolled)
            positions = chunk.images * g.pixels
            product = self._gathered[:g.out_channels * positions].reshape(g.group, -1, positions)
            for a, b, c in zip(weights, columns, product, strict=True):
                engine.run(self._shape(Pass.FORWARD, chunk), a, b, c)
            with self._host_work(Pass.FORWARD):
                out = self._columns.ordered(result[chunk.n0:chunk.n1])
                placed = product.reshape(out.shape)
                if shift is not None:
                    np.add(placed, shift, out=placed)  # in place: on the way to `out` it takes 2 to 10 times as long
                if rectify:
                    np.maximum(placed, 0, out=placed)
                np.copyto(out, placed)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        engine = self._products[Pass.GRAD_WEIGHT]
        g = self.geometry
        source, gradient = x.read(HOST).reshape(g.x_shape), dy.read(HOST).reshape(g.y_shape)
        array, fresh = dw.accumulate(HOST)
        if self._weights_innermost(Pass.GRAD_WEIGHT):
            self._add_straight(source, gradient, array.reshape(g.w_shape), fresh)
            return
        total = self._weights(array)
        for chunk in self._chunks:
            with self._host_work(Pass.GRAD_WEIGHT):
                columns = self._columns.unroll(source, chunk, self._unrolled)
                rows = self._rows(self._columns, gradient, chunk)
            for a, b, c in zip(rows, columns, total, strict=True):
                engine.run(self._shape(Pass.GRAD_WEIGHT, chunk), a, b, c, beta=0.0 if fresh else 1.0)
            fresh = False
        if fresh:  # there was no image
            array.fill(0)

    def _add_straight(self, source: Array, gradient: Array, result: Array, fresh: bool) -> None:
        """grad_weight, channels innermost: into dw, or with `fresh` over it."""
        engine = self._products[Pass.GRAD_WEIGHT]
        g = self.geometry
        total = np.zeros((g.group, g.out_channels // g.group, g.depth), result.dtype)
        for chunk in self._chunks:
            with self._host_work(Pass.GRAD_WEIGHT):
                columns = self._pixels.lanes(source, chunk)
                rows = self._rows(self._in_turn, gradient, chunk)
            for a, b, c in zip(rows, columns, total, strict=True):
                engine.run(self._shape(Pass.GRAD_WEIGHT, chunk), a, b, c, beta=1.0 if chunk.n0 else 0.0)
        with self._host_work(Pass.GRAD_WEIGHT):
            ordered = np.moveaxis(total.reshape(g.out_channels, *g.kernel, -1), -1, 1)
            if fresh:
                np.copyto(result, ordered)
            else:
                np.add(result, ordered, out=result)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        engine = self._products[Pass.GRAD_INPUT]
        g = self.geometry
        gradient, weights = dy.read(HOST).reshape(g.y_shape), self._weights(w.read(HOST))
        result = dx.write(HOST).reshape(g.x_shape)
        for chunk in self._chunks:
            with self._host_work(Pass.GRAD_INPUT):
                rows = self._rows(self._columns, gradient, chunk)
            columns = self._unrolled[:g.group * g.depth * rows.shape[2]].reshape(g.group, g.depth, -1)
            for a, b, c in zip(weights, rows, columns, strict=True):
                engine.run(self._shape(Pass.GRAD_INPUT, chunk), a, b, c)
            with self._host_work(Pass.GRAD_INPUT):
                self._columns.fold(columns, chunk, result)

    def _weights(self, array: Array) -> Array:
        g = self.geometry
        return array.reshape(g.group, g.out_channels // g.group, g.depth)

    def _positions(self, source: Array, chunk: Chunk) -> list[FramedLanes]:
        """For each group the positions' lanes over K, the weights (C/group, *kernel), of a chunk of x."""
        g = self.geometry
        frame, window = self._columns.frame(source, chunk)
        channels = g.in_channels // g.group
        return [FramedLanes(frame, window[first:first + channels], 1 + len(g.kernel))
                for first in range(0, g.in_channels, channels)]

    def _rows(self, order: Columns, gradient: Array, chunk: Chunk) -> Array:
        """(group, D/group, positions) of a chunk of dy."""
        g = self.geometry
        gathered = order.gather(gradient, chunk, self._gathered)
        return gathered.reshape(g.group, g.out_channels // g.group, -1)

    def _host_work(self, pass_: Pass) -> Any:
        return self._clock.host(self._layer, pass_.value)
