"""Convolutions whose matrix products run on the array: columns are unrolled and folded on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...errors import ScheduleError
from ...gemm.batching import batched_gemm, images_a_product
from ...gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from ..base import Convolution
from ..columns import Chunk, Columns
from .products import Machine, Product

Array = npt.NDArray[Any]

# Images a product from which on they are the innermost axis of the positions (as in the CPU op set).
IMAGES_INNERMOST = 4

# op(A), op(B) of each pass: w * columns, dy * columns', w' * dy.
_TRANSPOSED = {Pass.FORWARD: (False, False), Pass.GRAD_WEIGHT: (False, True), Pass.GRAD_INPUT: (True, False)}

CPU = "cpu"


class FpgaConvolution(Convolution):
    """The three passes of a convolution, some images a product.

    Parameters
    ----------
    geometry, dtype : of the convolution
    plan : for each pass the name of a bitstream, or `CPU`; passes that it lacks cannot run
    machine : what all products share
    layer : whose convolution it is
    host : computes the passes that stay on the CPU; None where there are none
    """

    space = HOST

    def __init__(self, geometry: ConvolutionGeometry, dtype: np.dtype[Any], plan: Mapping[Pass, str],
                 machine: Machine, layer: str, host: Convolution | None) -> None:
        g = self.geometry = geometry
        self._plan = dict(plan)
        self._clock, self._layer = machine.clock, layer
        images = images_a_product(g, dtype.itemsize)
        self._chunks = [Chunk(n, min(n + images, g.batch), 0, g.output[0]) for n in range(0, g.batch, images)]
        self._columns = Columns(g, dtype, images >= IMAGES_INNERMOST)
        self._engines: dict[Pass, Product | Convolution] = {}
        for pass_, name in self._plan.items():
            if host is not None and name == CPU:
                self._engines[pass_] = host
                continue
            product = self._engines[pass_] = Product(machine, name, layer, pass_.value, *_TRANSPOSED[pass_])
            for chunk in self._chunks:
                product.reserve(self._shape(pass_, chunk))
                self._columns.reserve(chunk)
        self._unrolled = np.empty(g.group * g.depth * images * g.pixels, dtype)
        self._gathered = np.empty(g.out_channels * images * g.pixels, dtype)
        self.resolution = max((machine.resolution(name) for name in self._plan.values() if name != CPU), default=0.0)
        self.variant = self._describe(images)
        self.workspace_bytes = (self._unrolled.nbytes + self._gathered.nbytes + self._columns.nbytes
                                + (host.workspace_bytes if host is not None else 0))

    def _describe(self, images: int) -> str:
        names = set(self._plan.values())
        where = names.pop() if len(names) == 1 else ", ".join(f"{p.value}: {n}" for p, n in self._plan.items())
        return f"{where}; {images} image(s) a product"

    def _shape(self, pass_: Pass, chunk: Chunk) -> GemmShape:
        """The product of one group of a chunk."""
        return batched_gemm(self.geometry, pass_, chunk.images)

    def _engine(self, pass_: Pass) -> Product | Convolution:
        """What computes a pass.

        Raises
        ------
        ScheduleError : the schedule does not say
        """
        if pass_ not in self._engines:
            there = ", ".join(p.value for p in self._plan)
            raise ScheduleError(f"the schedule has no entry for its {pass_.value}, only for {there}; "
                                "add one with engine cpu or fpga")
        return self._engines[pass_]

    # ---- passes -----------------------------------------------------------------------------

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor) -> None:
        engine = self._engine(Pass.FORWARD)
        if isinstance(engine, Convolution):
            return engine.forward(x, w, bias, y)
        g = self.geometry
        source, weights = x.read(HOST).reshape(g.x_shape), self._weights(w.read(HOST))
        shift = None if bias is None else bias.read(HOST).reshape(-1, *(1 for _ in g.output), 1)
        result = y.write(HOST).reshape(g.y_shape)
        for chunk in self._chunks:
            with self._host_work(Pass.FORWARD):
                columns = self._columns.unroll(source, chunk, self._unrolled)
            product = self._gathered[:g.out_channels * columns.shape[2]].reshape(g.group, -1, columns.shape[2])
            for a, b, c in zip(weights, columns, product, strict=True):
                engine.run(self._shape(Pass.FORWARD, chunk), a, b, c)
            with self._host_work(Pass.FORWARD):
                out = self._columns.ordered(result[chunk.n0:chunk.n1])
                if shift is None:
                    np.copyto(out, product.reshape(out.shape))
                else:
                    np.add(product.reshape(out.shape), shift, out=out)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        engine = self._engine(Pass.GRAD_WEIGHT)
        if isinstance(engine, Convolution):
            return engine.grad_weight(x, dy, dw)
        g = self.geometry
        source, gradient = x.read(HOST).reshape(g.x_shape), dy.read(HOST).reshape(g.y_shape)
        total = self._weights(dw.update(HOST))
        for chunk in self._chunks:
            with self._host_work(Pass.GRAD_WEIGHT):
                columns = self._columns.unroll(source, chunk, self._unrolled)
                rows = self._rows(gradient, chunk)
            for a, b, c in zip(rows, columns, total, strict=True):
                engine.run(self._shape(Pass.GRAD_WEIGHT, chunk), a, b, c, beta=1.0)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        engine = self._engine(Pass.GRAD_INPUT)
        if isinstance(engine, Convolution):
            return engine.grad_input(dy, w, dx)
        g = self.geometry
        gradient, weights = dy.read(HOST).reshape(g.y_shape), self._weights(w.read(HOST))
        result = dx.write(HOST).reshape(g.x_shape)
        for chunk in self._chunks:
            with self._host_work(Pass.GRAD_INPUT):
                rows = self._rows(gradient, chunk)
            columns = self._unrolled[:g.group * g.depth * rows.shape[2]].reshape(g.group, g.depth, -1)
            for a, b, c in zip(weights, rows, columns, strict=True):
                engine.run(self._shape(Pass.GRAD_INPUT, chunk), a, b, c)
            with self._host_work(Pass.GRAD_INPUT):
                self._columns.fold(columns, chunk, result)

    def _weights(self, array: Array) -> Array:
        g = self.geometry
        return array.reshape(g.group, g.out_channels // g.group, g.depth)

    def _rows(self, gradient: Array, chunk: Chunk) -> Array:
        """(group, D/group, positions) of a chunk of dy."""
        g = self.geometry
        gathered = self._columns.gather(gradient, chunk, self._gathered)
        return gathered.reshape(g.group, g.out_channels // g.group, -1)

    def _host_work(self, pass_: Pass) -> Any:
        return self._clock.host(self._layer, pass_.value)
