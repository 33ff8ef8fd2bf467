"""The HLS code of Barista's GEMM on the convolutions of whole networks and over the contract's shapes of products.

Bit for bit as the array's model computes them, and within the table of tolerances of the CPU.  `test_hls_conv` does the
same with FPGPT's array.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from opencl_device import tensor
from tensors import Array
from test_gemm_contract import TILES, edges, operands
from tolerances import assert_close

from barista.blob import HOST
from barista.gemm.array_model import ModelArray
from barista.gemm.engine import BlockedGemm, TileArray
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.gemm.tiles import TileSizes
from barista.hardware.board import load_board
from barista.latency.networks import NETWORKS
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps
from barista.ops.fpga.loader import Loader
from barista.precision.formats import number_format
from barista.synthesis import csim_build
from barista.synthesis.gemm_array import SimulatedArray
from barista.synthesis.gemm_design import GemmDesign

pytestmark = [pytest.mark.hls, pytest.mark.slow]

NETS = ("lenet", "cifar10_full", "resnet20_cifar10")
TILE, BATCH = TileSizes(16, 16, 64), 2


@pytest.fixture(scope="module", params=["fp32", "dfxp8"])
def arrays(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TileArray, TileArray]:
    """The HLS code, and the model that judges it."""
    bitstream = csim_build.build(tmp_path_factory.mktemp("csim"), GemmDesign(TILE, request.param),
                                 load_board("emulated"))
    return SimulatedArray(bitstream), ModelArray(TILE, number_format(request.param))


def results(ops: CpuOps | FpgaOps, g: ConvolutionGeometry) -> dict[Pass, Array]:
    """What the passes give."""
    rng = np.random.default_rng(7)
    x, w, dy = (tensor(rng.standard_normal(shape, np.float32)) for shape in (g.x_shape, g.w_shape, g.y_shape))
    y, dw, dx = (tensor(np.zeros(shape, np.float32)) for shape in (g.y_shape, g.w_shape, g.x_shape))
    convolution = ops.convolution(g)
    convolution.forward(x, w, None, y)
    convolution.grad_weight(x, dy, dw)
    convolution.grad_input(dy, w, dx)
    return {pass_: out.read(HOST) for pass_, out in zip(Pass, (y, dw, dx), strict=True)}


def on_array(array: Any) -> FpgaOps:
    return FpgaOps(CpuOps(), Loader({"mesh": (array.tiles, array.format)}, lambda _: array, array.name), "mesh")


@pytest.mark.parametrize("net", NETS)
def test_every_convolution_of_a_net(arrays: tuple[TileArray, TileArray], net: str) -> None:
    simulated, model = arrays
    for g in {convolution.geometry(BATCH) for convolution in NETWORKS[net]}:
        found, expected = results(on_array(simulated), g), results(on_array(model), g)
        for pass_, each in found.items():
            np.testing.assert_array_equal(each.view(np.int32), expected[pass_].view(np.int32))
        if simulated.format.is_fixed:
            continue  # as far from the CPU as the model, which its own tests hold
        taps = g.out_channels // g.group * int(np.prod(g.kernel))
        lengths = {Pass.FORWARD: g.depth, Pass.GRAD_WEIGHT: g.batch * g.pixels, Pass.GRAD_INPUT: taps}
        for pass_, truth in results(CpuOps(), g).items():
            assert_close(found[pass_], truth, lengths[pass_])


def test_the_products_of_the_contract(arrays: tuple[TileArray, TileArray]) -> None:
    """All sizes at which an edge of a tile is met."""
    for m, n, k in itertools.product(*map(edges, TILES["array"])):
        a, b, _ = operands(m, n, k)
        found = []
        for array in arrays:
            out = np.full((m, n), np.nan, np.float32)
            BlockedGemm(array, GemmShape(m, n, k)).run(a, b, out)
            found.append(out.view(np.int32))
        np.testing.assert_array_equal(*found)
