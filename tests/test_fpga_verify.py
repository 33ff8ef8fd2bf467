"""Checking mode: products that differ from the CPU's stop the run and name the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from lenet import lenet
from opencl_device import empty, numbers, open_opencl, tensor
from tile_arrays import QuickArray, quick_ops
from tolerances import assert_close

from barista.blob import HOST
from barista.errors import DeviceError
from barista.gemm.engine import StageTimes
from barista.gemm.shapes import ConvolutionGeometry, GemmShape
from barista.gemm.tiles import TileSizes
from barista.ops.base import AxisGeometry, OpSet, Owner
from barista.ops.cpu import CpuOps
from barista.ops.verify import VerifiedOps
from barista.precision.formats import number_format

G = ConvolutionGeometry(3, 4, 6, (7, 6), (3, 3), (1, 2), (1, 0), (1, 1), 2)
Array = npt.NDArray[np.float32]


class Faulty(QuickArray):
    """Gets one number of its product `fails` wrong by a part in a thousand of the largest."""

    def __init__(self, fails: int) -> None:
        super().__init__("faulty", TileSizes(8, 16, 32), number_format("fp32"))
        self.fails = fails

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        times = super().multiply(a_tiles, b_tiles, c_tiles, nr, nc, np_)
        if self.products == self.fails:
            c_tiles[0, 0, 1, 2] += 1e-3 * np.abs(c_tiles).max()
        return times


def verified(ops: OpSet) -> VerifiedOps:
    return VerifiedOps(ops, CpuOps())


def run(ops: OpSet, rng: np.random.Generator) -> list[Array]:
    """All passes of a convolution and an accumulating product."""
    x, w, dy, bias = (tensor(numbers(rng, *shape)) for shape in (G.x_shape, G.w_shape, G.y_shape, (6,)))
    y, dw, dx = empty(*G.y_shape), tensor(np.ones(G.w_shape)), empty(*G.x_shape)
    convolution = ops.convolution(G)
    convolution.forward(x, w, bias, y)
    convolution.grad_weight(x, dy, dw)
    convolution.grad_input(dy, w, dx)
    c = tensor(numbers(rng, 9, 17))
    ops.gemm(GemmShape(9, 17, 5), True, False).run(tensor(numbers(rng, 5, 9)), tensor(numbers(rng, 5, 17)), c, 2, 0.5)
    return [t.read(HOST) for t in (y, dw, dx, c)]


@pytest.mark.parametrize("fmt", ["fp32", "dfxp8", "dfxp12"])
def test_what_is_right_passes_and_is_left_alone(fmt: str) -> None:
    ops = quick_ops(inner_products=True, quick=fmt)
    plain = run(quick_ops(inner_products=True, quick=fmt), np.random.default_rng(1))
    for found, expected in zip(run(verified(ops), np.random.default_rng(1)), plain, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert set(ops.take_stages()) == {("", name) for name in ("forward", "grad_weight", "grad_input", "gemm")}


@pytest.mark.parametrize(("fails", "what"), [
    (1, r"forward, \(3, 4, 7, 6\) \* \(6, 2, 3, 3\), differs"), (2, "forward"), (3, "grad_weight"), (6, "grad_input"),
    (7, r"the product M=9 N=17 K=5 differs from the CPU's in 1 of 153 numbers: at \(1, 2\)")])
def test_what_is_wrong_is_found(fails: int, what: str) -> None:
    ops = quick_ops(Faulty(fails), inner_products=True)
    with pytest.raises(DeviceError, match=what):
        run(verified(ops), np.random.default_rng(1))


def test_numbers_that_are_not_finite_are_wrong_only_where_the_cpu_has_others() -> None:
    a, b = np.ones((2, 3)), np.ones((3, 2))
    a[0, 0] = np.nan
    c = empty(2, 2)
    verified(quick_ops(inner_products=True)).gemm(GemmShape(2, 2, 3), False, False).run(tensor(a), tensor(b), c)
    assert np.isnan(c.read(HOST)[0]).all()
    broken = quick_ops(Faulty(1), inner_products=True)
    with pytest.raises(DeviceError, match="differs"):
        verified(broken).gemm(GemmShape(2, 3, 3), False, False).run(tensor(np.ones((2, 3))), tensor(np.ones((3, 3))),
                                                                    empty(2, 3))


def test_a_wrong_product_in_training_names_its_layer(digits: Path) -> None:
    counting = QuickArray()
    with lenet(verified(quick_ops(counting)), digits) as solver:
        solver.step(1)
    with lenet(verified(quick_ops(Faulty(counting.products + 2))), digits) as solver:
        with pytest.raises(DeviceError, match=r"^conv2 \(Convolution\): forward, .* differs from the CPU's in 1 of"):
            solver.step(2)
        assert solver.iter == 1


def test_owner_reports_and_stages_are_those_of_the_op_set_below(caplog: pytest.LogCaptureFixture) -> None:
    below = quick_ops()
    ops = verified(below)
    ops.owner = Owner("net", 0, "conv1")
    assert below.owner.layer == "conv1"
    assert ops.describe() == f"{below.describe()}; each product is compared with the CPU's"
    assert ops.summary() == below.summary()
    with caplog.at_level("INFO", "barista.ops.hosted"):
        kept = ops.broadcast(AxisGeometry(2, 3, 4))
    assert kept.space is HOST
    assert caplog.messages == ["broadcast runs on the host: the fpga op set has no kernel for it"]


@pytest.mark.opencl
def test_an_opencl_device_can_be_checked_too() -> None:
    ops = open_opencl()
    plain = run(ops, np.random.default_rng(1))
    for found, expected in zip(run(verified(ops), np.random.default_rng(1)), plain, strict=True):
        assert_close(found, expected, 1)
