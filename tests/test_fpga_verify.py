"""Checking mode: products that differ from the CPU's stop the run and name the layer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from lenet import lenet
from opencl_device import empty, numbers, open_opencl, tensor
from tile_arrays import QuickArray, quick_ops
from tolerances import assert_close

from barista.blob import HOST, Tensor
from barista.errors import DeviceError
from barista.gemm.engine import StageTimes
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.gemm.tiles import TileSizes
from barista.ops.base import AxisGeometry, Gemm, OpSet, Owner
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
    assert ops.summary() == f"{below.summary()}; Verified: nothing was compared with the CPU"
    with caplog.at_level("INFO", "barista.ops.hosted"):
        kept = ops.broadcast(AxisGeometry(2, 3, 4))
        ops.gemm(GemmShape(2, 2, 2), False, False)
    assert kept.space is HOST
    assert caplog.messages == ["gemm runs on the host: inner products were not asked for on the array"]


def test_the_summary_counts_what_was_compared_and_names_the_largest_difference() -> None:
    ops = verified(quick_ops(inner_products=True))
    for _ in range(2):
        run(ops, np.random.default_rng(1))
    found = re.search(r"; Verified: 6 passes of convolutions and 2 other products were compared with the CPU's; the "
                      r"largest difference was (\S+) % of what is allowed$", ops.summary())
    assert found is not None
    assert 0 < float(found[1]) < 100
    coarse = verified(quick_ops(inner_products=True, quick="dfxp8"))
    run(coarse, np.random.default_rng(1))
    assert float(coarse.summary().split("difference was ")[1].split(" ")[0]) > 0


def test_a_difference_is_measured_in_what_is_allowed_for_it() -> None:
    """2 x 3 times 3 x 1: of sums of 3 products the second is off by one part in a million."""
    a, b = tensor([[1, -2, 0], [0, 0, 0]]), tensor([[1], [-1], [2]])
    result, exact = empty(2, 1), empty(2, 1)

    class Off(CpuOps):
        def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
            product = super().gemm(shape, trans_a, trans_b)
            plain = product.run

            def run(a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0, beta: float = 0.0,
                    bias: Tensor | None = None) -> None:
                plain(a, b, c, alpha, beta, bias)
                c.update(HOST)[0, 0] += 3e-7

            product.run = run  # type: ignore[method-assign]
            return product

    ops = verified(Off())
    ops.gemm(GemmShape(2, 1, 3), False, False).run(a, b, result)
    CpuOps().gemm(GemmShape(2, 1, 3), False, False).run(a, b, exact)
    off = abs(float(result.read(HOST)[0, 0]) - float(exact.read(HOST)[0, 0]))
    allowed = 4 * np.finfo(np.float32).eps * 2 * 3  # 4 roundoffs of the sum of magnitudes, times sqrt(3 + 1)
    assert f"was {100 * off / allowed:.3g} % of what" in ops.summary()


@pytest.mark.opencl
def test_rounding_of_neighbours_is_allowed_where_they_are_mixed() -> None:
    """Winograd's results near 0 take the rounding of large ones beside them."""
    ops = open_opencl()
    g = ConvolutionGeometry(2, 16, 16, (8, 8), (5, 5), (1, 1), (2, 2), (1, 1))
    if not ops.convolution(g).mixes(Pass.FORWARD):
        pytest.skip("no kernel of this device mixes")
    rng = np.random.default_rng(5)
    x = rng.normal(size=g.x_shape).astype(np.float32)
    x[:, :, :3] *= 1e-4
    checked = verified(ops)
    checked.convolution(g).forward(tensor(x), tensor(rng.normal(size=g.w_shape).astype(np.float32)), None,
                                   empty(*g.y_shape))
    assert checked.summary().startswith("Verified: 1 passes of convolutions")


@pytest.mark.opencl
def test_an_opencl_device_can_be_checked_too() -> None:
    ops = open_opencl()
    plain = run(ops, np.random.default_rng(1))
    for found, expected in zip(run(verified(ops), np.random.default_rng(1)), plain, strict=True):
        assert_close(found, expected, 1)
