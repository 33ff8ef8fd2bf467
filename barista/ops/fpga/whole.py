"""Convolutions that an array takes whole: it unrolls columns itself, and nothing is cut into tiles."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...blob import HOST, Tensor
from ...errors import UnsupportedError
from ...gemm.engine import StageTimes
from ...gemm.shapes import ConvolutionGeometry, Pass
from ...gemm.windows import largest_sum, products_a_sum
from ...precision.formats import dequantise, quantise_operands
from ...synthesis.conv_design import ConvDesign
from ..base import Convolution
from .products import Machine

Array = npt.NDArray[Any]


class WholeConvolution(Convolution):
    """Passes of a convolution on arrays that take tensors as the framework has them; the host adds the bias.

    Parameters
    ----------
    geometry : of the convolution
    bitstreams : name of the bitstream of each pass that may be run
    machine : what all convolutions share
    layer : whose convolution it is

    Attributes
    ----------
    unfit : passes that their array is too small for, to the error that running them raises
    """

    space = HOST

    def __init__(self, geometry: ConvolutionGeometry, bitstreams: Mapping[Pass, str], machine: Machine,
                 layer: str) -> None:
        self.geometry = geometry
        self._bitstreams = dict(bitstreams)
        self._loader, self._clock, self._layer = machine.loader, machine.clock, layer
        names = dict.fromkeys(bitstreams.values())
        self.resolution = max(map(machine.resolution, names), default=0.0)
        self.variant = f"{', '.join(names)}; im2col on the device"
        self.unfit: dict[Pass, UnsupportedError] = {}
        for pass_, name in bitstreams.items():
            sizes, fmt = machine.loader.sizes(name), machine.loader.kind(name)[1]
            try:
                _require_two_axes(geometry)
                ConvDesign.of(sizes, fmt.name).require_fits(geometry, pass_)
            except UnsupportedError as error:
                self.unfit[pass_] = UnsupportedError(f"bitstream {name}: {error}")

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        g = self.geometry
        shift = None if bias is None else bias.read(HOST).reshape(-1, *(1 for _ in g.output))
        output = self._run(Pass.FORWARD, x.read(HOST).reshape(g.x_shape), w.read(HOST).reshape(g.w_shape))
        with self._host_work(Pass.FORWARD):
            result = y.write(HOST).reshape(g.y_shape)
            if shift is None:
                np.copyto(result, output)
            else:
                np.add(output, shift, out=result)
            if rectify:
                np.maximum(result, 0, out=result)

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        g = self.geometry
        output = self._run(Pass.GRAD_WEIGHT, x.read(HOST).reshape(g.x_shape), dy.read(HOST).reshape(g.y_shape))
        with self._host_work(Pass.GRAD_WEIGHT):
            array, fresh = dw.accumulate(HOST)
            result = array.reshape(g.w_shape)
            if fresh:
                np.copyto(result, output)
            else:
                np.add(result, output, out=result)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        g = self.geometry
        output = self._run(Pass.GRAD_INPUT, dy.read(HOST).reshape(g.y_shape), w.read(HOST).reshape(g.w_shape))
        with self._host_work(Pass.GRAD_INPUT):
            np.copyto(dx.write(HOST).reshape(g.x_shape), output)

    def _run(self, pass_: Pass, inp: Array, kern: Array) -> Array:
        """A pass on its bitstream, which is loaded first; in fixed point each operand gets one scale.

        Raises
        ------
        UnsupportedError : the array is too small for it
        """
        if pass_ in self.unfit:
            raise self.unfit[pass_]
        loaded_s = self._loader.load_s
        array = self._loader.use_whole(self._bitstreams[pass_])
        started, exponent = time.perf_counter(), 0
        if array.format.is_fixed:
            inp, inp_exponent, kern, kern_exponent = quantise_operands(
                inp, kern, array.format, products_a_sum(self.geometry, pass_),
                functools.partial(largest_sum, self.geometry, pass_))
            exponent = inp_exponent + kern_exponent
        prepared = time.perf_counter()
        output, times = array.convolve(self.geometry, pass_, inp, kern)
        computed = time.perf_counter()
        if array.format.is_fixed:
            output = dequantise(output, exponent)
        times += StageTimes(tiling=prepared - started, untiling=time.perf_counter() - computed)
        self._clock.add(self._layer, pass_.value, times, self._loader.load_s - loaded_s)
        return output

    def _host_work(self, pass_: Pass) -> Any:
        return self._clock.host(self._layer, pass_.value)


def _require_two_axes(g: ConvolutionGeometry) -> None:
    if len(g.input) != 2:
        raise UnsupportedError(f"a convolution of {'x'.join(map(str, g.input))} has {len(g.input)} spatial axes, and "
                               "the array is made for 2; give it to a GEMM array or to the CPU, with a schedule")
