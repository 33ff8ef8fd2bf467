"""Matrix products on the array, made once a shape and measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...gemm.engine import BlockedGemm, Workspace
from ...gemm.shapes import GemmShape
from ...gemm.tiles import Lanes
from ..base import Gemm, Owner
from .loader import LoadedArray, Loader
from .stages import StageClock

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Machine:
    """What all products of an op set share.

    Parameters
    ----------
    loader : has the bitstreams
    clock : counts what the stages take
    workspace : memory for tiles, used by one product at a time
    tile_bytes : what the largest products need of it, for each matrix
    """

    loader: Loader
    clock: StageClock = dataclasses.field(default_factory=StageClock)
    workspace: Workspace = dataclasses.field(default_factory=Workspace)
    tile_bytes: dict[str, int] = dataclasses.field(default_factory=dict)

    def resolution(self, bitstream: str) -> float:
        """Relative step of the numbers that a bitstream multiplies; 0 for floats."""
        fmt = self.loader.kind(bitstream)[1]
        return 2.0 ** (1 - fmt.bits) if fmt.is_fixed else 0.0


class Product:
    """Products of one layer and pass, on one bitstream, at shapes that differ only in how many images they take.

    Parameters
    ----------
    layer, pass_ : for the clock

    Attributes
    ----------
    scratch_bytes : tiles of the largest of its products
    """

    scratch_bytes: int = 0

    def __init__(self, machine: Machine, bitstream: str, layer: str, pass_: str, trans_a: bool, trans_b: bool) -> None:
        self._loader, self._tile_bytes = machine.loader, machine.tile_bytes
        self._array = LoadedArray(machine.loader, bitstream)
        self._workspace = machine.workspace
        self._clock, self._layer, self._pass = machine.clock, layer, pass_
        self._trans_a, self._trans_b = trans_a, trans_b
        self._engines: dict[GemmShape, BlockedGemm] = {}

    def reserve(self, shape: GemmShape) -> None:
        """Make the engine for one shape, so that nothing is made later."""
        if shape in self._engines:
            return
        engine = self._engines[shape] = BlockedGemm(self._array, shape, self._trans_a, self._trans_b,
                                                    workspace=self._workspace)
        self.scratch_bytes = max(self.scratch_bytes, engine.workspace_bytes)
        for matrix, nbytes in engine.tile_bytes.items():
            self._tile_bytes[matrix] = max(nbytes, self._tile_bytes.get(matrix, 0))

    def run(self, shape: GemmShape, a: Array, b: Array | Lanes, c: Array, alpha: float = 1.0,
            beta: float = 0.0) -> None:
        """C = alpha op(A) op(B) + beta C at a reserved shape."""
        loaded_s = self._loader.load_s
        times = self._engines[shape].run(a, b, c, alpha, beta)
        self._clock.add(self._layer, self._pass, times, self._loader.load_s - loaded_s)


class FpgaGemm(Gemm):
    """The product of an inner-product layer on the array; the clock counts it under its owner's layer and pass.

    The host adds the bias.
    """

    space = HOST

    def __init__(self, shape: GemmShape, trans_a: bool, trans_b: bool, machine: Machine, bitstream: str,
                 owner: Owner) -> None:
        self._shape = shape
        self._a_shape = (shape.k, shape.m) if trans_a else (shape.m, shape.k)
        self._b_shape = (shape.n, shape.k) if trans_b else (shape.k, shape.n)
        pass_ = "gemm" if owner.pass_ is None else owner.pass_.value
        self._product = Product(machine, bitstream, owner.layer, pass_, trans_a, trans_b)
        self._product.reserve(shape)
        self.scratch_bytes = self._product.scratch_bytes
        self.variant = bitstream
        self.resolution = machine.resolution(bitstream)

    def run(self, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0,
            bias: Tensor | None = None) -> None:
        left, right = a.read(HOST).reshape(self._a_shape), b.read(HOST).reshape(self._b_shape)
        shift = None if bias is None else bias.read(HOST)
        result, fresh = c.accumulate(HOST) if beta else (c.write(HOST), True)
        out = result.reshape(self._shape.m, self._shape.n)
        self._product.run(self._shape, left, right, out, alpha, 0.0 if fresh else beta)
        if shift is not None:
            np.add(out, shift.reshape(self._shape.n), out=out)
