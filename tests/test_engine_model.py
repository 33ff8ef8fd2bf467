"""What the engines do is counted as they do it, and predictions are counts times costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_arrays import TILES, Array, QuickArray, quick_ops

from barista.blob import HOST, Tensor
from barista.errors import UnsupportedError
from barista.gemm.batching import chunk_of
from barista.gemm.engine import StageTimes
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.gemm.tiles import TileSizes
from barista.latency import engine_work
from barista.latency.engine_model import (
    ARRAY_STAGES,
    HOST_STAGES,
    ArrayFigures,
    Costs,
    EngineFigures,
    elapsed_s,
    predict_cpu,
    predict_fpga,
    predict_opencl,
    reconfiguration_s,
)
from barista.latency.engine_work import COUNTED, FPGA_STAGES, cpu_work, fpga_work, opencl_work
from barista.latency.workload import Workload
from barista.ops import cpu
from barista.ops.cpu import CpuOps
from barista.precision.formats import number_format

FP32 = number_format("fp32")


def geometry(batch: int, channels: int, filters: int, size: int, kernel: int, stride: int = 1, pad: int = 0,
             group: int = 1) -> ConvolutionGeometry:
    return ConvolutionGeometry(batch, channels, filters, (size, size), (kernel, kernel), (stride, stride), (pad, pad),
                               (1, 1), group)


# One image, several, a last product of fewer, groups, strides, pointwise.
GEOMETRIES = [geometry(1, 3, 20, 12, 5), geometry(5, 4, 8, 9, 3, pad=1), geometry(7, 96, 24, 32, 5, pad=2),
              geometry(6, 8, 12, 10, 3, 2, 1, group=2), geometry(3, 16, 40, 7, 1), geometry(9, 33, 17, 13, 3)]


def unit_figures(overlaps: bool = False, **changed: float) -> EngineFigures:
    """Figures by which each thing counted takes a nanosecond, but for those of `changed` stages."""
    def costs(stage: str) -> Costs:
        return Costs(dict.fromkeys(COUNTED[stage], changed.get(stage, 1.0) * 1e-9))

    array = ArrayFigures(TILES, "fp32", "fast", 0.5, {stage: costs(stage) for stage in ARRAY_STAGES})
    return EngineFigures("card", "x86", 1, overlaps, 2, {stage: costs(stage) for stage in HOST_STAGES}, (array,))


# ---- counts -------------------------------------------------------------------------------------------------


class Counting(QuickArray):
    """Notes what each product moves and multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = dict.fromkeys(("products", "written", "read", "tile_products"), 0)

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        for name, count in (("products", 1), ("written", a_tiles.nbytes + b_tiles.nbytes), ("read", c_tiles.nbytes),
                            ("tile_products", nr * nc * np_)):
            self.counted[name] += count
        return super().multiply(a_tiles, b_tiles, c_tiles, nr, nc, np_)


@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize("g", GEOMETRIES)
def test_products_are_those_of_the_backend(g: ConvolutionGeometry, pass_: Pass) -> None:
    array = Counting()
    convolution = quick_ops(array).convolution(g)
    x, w, y = (Tensor(shape, np.float32) for shape in (g.x_shape, g.w_shape, g.y_shape))
    {Pass.FORWARD: lambda: convolution.forward(x, w, None, y),
     Pass.GRAD_WEIGHT: lambda: convolution.grad_weight(x, y, w),
     Pass.GRAD_INPUT: lambda: convolution.grad_input(y, w, x)}[pass_]()
    work = fpga_work(g, pass_, TILES, FP32)
    assert array.counted == {"products": work["overhead"]["products"], "written": work["write"]["bytes"],
                             "read": work["read"]["bytes"], "tile_products": work["kernel"]["tile_products"]}
    assert work["write"]["transfers"] == 2 * work["read"]["transfers"] == 2 * array.counted["products"]


def test_a_small_pass_counted_by_hand() -> None:
    """Two images of 1 x 2 x 2, a kernel of 2 x 2, three filters: one product of (3, 2, 4) in tiles of 2."""
    g = geometry(2, 1, 3, 2, 2)
    work = fpga_work(g, Pass.FORWARD, TileSizes(2, 2, 2), FP32)
    # Into the frame: 8 words in rows of 2.  Out of it: 4 taps of 2 positions, each alone.  The bias is added to 6
    # words, and each is moved to its image alone.
    assert work["im2col"] == {"calls": 4, "words": 22, "runs": 18, "turned": 0, "aside": 0, "added": 6}
    # A (3, 4) fills 2 x 2 tiles of 2 x 2 words, of which one strip is whole; B (4, 2) fills one strip.
    assert work["tiling"] == {"calls": 2, "words": 16, "turned": 8, "edges": 4, "aside": 0, "gathered": 0,
                              "far": 0, "quantised": 0}
    assert work["write"] == {"transfers": 2, "bytes": 4 * 24}
    assert work["kernel"]["tile_products"] == 2 * 1 * 2
    assert work["read"] == {"transfers": 1, "bytes": 4 * 8}
    assert work["untiling"]["words"] == 6


def test_columns_that_go_straight_into_tiles_counted_by_hand() -> None:
    """Four images of 2 x 4 x 5, a kernel of 2 x 2, three filters: rows of 4 positions of 4 images side by side."""
    g = ConvolutionGeometry(4, 2, 3, (4, 5), (2, 2), (1, 1), (0, 0), (1, 1))
    forward, weights = (fpga_work(g, pass_, TileSizes(2, 6, 4), FP32) for pass_ in (Pass.FORWARD, Pass.GRAD_WEIGHT))
    # Into the frame, the bias, back out: nothing is unrolled.
    assert forward["im2col"] == {"calls": 3, "words": 0, "runs": 40 + 36, "turned": 160 + 144, "aside": 0, "added": 144}
    # A (3, 8): two strips of 2 x 8.  B (8, 48) in 8 strips: of the ends of the rows, at 16 and 32, both lie within a
    # strip, which makes 4 pieces; besides, the whole strips of each of 3 rows.
    assert forward["tiling"] == {"calls": 1 + 4 + 3, "words": 16, "turned": 16, "edges": 8 + 4 * 8, "aside": 0,
                                 "gathered": 8 * 48, "far": 0, "quantised": 0}
    # Channels innermost, the gradient's images one behind the other, and the weights back into order.
    assert weights["im2col"] == {"calls": 3, "words": 144, "runs": 12 + 80, "turned": 160, "aside": 0, "added": 24}
    # A (3, 48): two strips.  B (48, 8) in 2 strips of 6: rows of the kernel are 4 weights, whose end at 4 is within the
    # first strip: 2 pieces.  The second strip is not full.
    assert weights["tiling"] == {"calls": 1 + 2 + 2, "words": 2 * 2 * 48 - 2 * 48 + 2 * 6 * 48 - 8 * 48,
                                 "turned": 2 * 48, "edges": 48 + 3 * 48, "aside": 0, "gathered": 8 * 48, "far": 0,
                                 "quantised": 0}
    fixed = fpga_work(g, Pass.FORWARD, TileSizes(2, 6, 4), number_format("dfxp8"))
    assert fixed["tiling"]["gathered"] == 0 and fixed["im2col"]["words"] == 8 * 48


@pytest.mark.parametrize("pass_", Pass)
def test_the_busiest_unit_counts(pass_: Pass) -> None:
    g = GEOMETRIES[0]
    alone, shared = (fpga_work(g, pass_, TILES, FP32, units)["kernel"]["tiles"] for units in (1, 4))
    assert shared == -(-alone // 4)


def test_fixed_point_quantises_and_stores_less() -> None:
    g = GEOMETRIES[1]
    floats, fixed = (fpga_work(g, Pass.FORWARD, TILES, number_format(name)) for name in ("fp32", "dfxp8"))
    shape = g.gemm(Pass.FORWARD)
    assert floats["tiling"]["quantised"] == 0
    assert fixed["tiling"]["quantised"] == shape.m * shape.k + 5 * shape.k * shape.n
    assert fixed["write"]["bytes"] == floats["write"]["bytes"] / 4
    assert fixed["read"] == floats["read"]


def test_constants_are_those_of_the_device_s_engines() -> None:
    pytest.importorskip("pyopencl")
    from barista.latency import engine_model
    from barista.ops.opencl import conv_unrolled
    from barista.runtime import bitstream_program

    assert conv_unrolled.ROUND_BYTES_CPU == engine_work.OPENCL_ROUND_BYTES
    assert bitstream_program.PARTS == engine_model.DEVICE_PARTS


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("g", [*GEOMETRIES, geometry(2, 64, 32, 60, 5), geometry(64, 20, 50, 12, 5)])
def test_chunks_are_those_of_the_cpu_op_set(g: ConvolutionGeometry, threads: int) -> None:
    variant = cpu.CpuOps(threads=threads).convolution(g).variant
    images, rows = chunk_of(g, threads)
    assert variant.startswith(f"im2col + GEMM, {images} image(s) x {rows} row(s) a chunk")
    assert ("turned weights" in variant) == (engine_work.turned(g) is not None)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(5, 20), st.sampled_from([1, 3, 5]),
       st.integers(1, 2), st.sampled_from(list(Pass)))
@settings(max_examples=60, deadline=None)
def test_counts_are_never_negative_and_grow_with_the_batch(batch: int, channels: int, filters: int, size: int,
                                                           kernel: int, stride: int, pass_: Pass) -> None:
    g = geometry(batch, channels, filters, size, kernel, stride)
    more = dataclasses.replace(g, batch=2 * batch)
    work, larger = (fpga_work(one, pass_, TILES, FP32, 2) for one in (g, more))
    assert list(work) == list(FPGA_STAGES)
    for stage, counts in work.items():
        assert tuple(counts) == COUNTED[stage]
        assert min(counts.values()) >= 0
    for stage, name in (("write", "bytes"), ("kernel", "tile_products"), ("overhead", "bytes")):
        assert larger[stage][name] >= work[stage][name]
    for counted in (cpu_work(g, pass_, 2), opencl_work(g, pass_)):
        assert min(counted.values()) >= 0
    assert opencl_work(more, pass_)["macs"] == 2 * opencl_work(g, pass_)["macs"] >= 2 * g.macs
    if engine_work.turned(g) is None or pass_ is not Pass.GRAD_INPUT:
        assert cpu_work(g, pass_, 1)["macs"] == pytest.approx(g.macs)


# ---- predictions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pass_", Pass)
def test_a_prediction_is_counts_times_costs(pass_: Pass) -> None:
    workload = Workload("conv", pass_, GEOMETRIES[2])
    work = fpga_work(workload.geometry, pass_, TILES, FP32)
    found = predict_fpga(workload, TILES, "fp32", unit_figures(kernel=3.0))
    assert found.kernel_s == pytest.approx(3e-9 * sum(work["kernel"].values()))
    assert found.write_s == pytest.approx(1e-9 * sum(work["write"].values()))
    assert list(found.stages) == list(FPGA_STAGES)
    assert found.total_s == pytest.approx(sum(found.stages.values()))


def test_stages_that_overlap_take_less_than_their_sum_and_no_less_than_the_longest() -> None:
    workload = Workload("conv", Pass.FORWARD, geometry(8, 64, 128, 28, 3, pad=1))
    found = predict_fpga(workload, TILES, "fp32", unit_figures(overlaps=True))
    assert max(found.stages.values()) < found.total_s < sum(found.stages.values())
    stages = {"tiling": 1.0, "write": 2.0, "kernel": 6.0, "read": 1.0, "untiling": 1.0}
    # 3 of 4 parts of write and read hide behind the kernel.  Products of 116 million multiply-accumulates are cut into
    # 3 blocks: 2 of 3 of tiling and untiling hide behind the device.
    assert elapsed_s(workload, stages, overlaps=True) == pytest.approx(11 - 0.75 * 3 - 2 / 3 * 2)
    small = Workload("conv", Pass.FORWARD, geometry(1, 4, 8, 8, 3))
    assert elapsed_s(small, stages, overlaps=True) == pytest.approx(11 - 0.75 * 3)
    assert elapsed_s(small, stages, overlaps=False) == pytest.approx(11)


def test_what_was_not_calibrated_is_said() -> None:
    found = unit_figures()
    workload = Workload("conv", Pass.FORWARD, GEOMETRIES[0])
    assert predict_cpu(workload, found) is None
    assert predict_opencl(workload, found) is None
    message = (r"the calibration of card has no bitstream fast 32,32,64 fp32, it has fast 8,16,32 fp32; "
               r"run: barista calibrate --bitstreams")
    with pytest.raises(UnsupportedError, match=message):
        predict_fpga(workload, TileSizes(32, 32, 64), "fp32", found)
    with pytest.raises(UnsupportedError, match="no bitstream array 8,16,32 fp32"):
        reconfiguration_s(TILES, "fp32", found, "array")
    assert reconfiguration_s(TILES, "fp32", found) == 0.5


def test_the_other_op_sets() -> None:
    workload = Workload("conv", Pass.GRAD_WEIGHT, GEOMETRIES[1])
    found = dataclasses.replace(unit_figures(), cpu=Costs({"macs": 2e-9}), opencl=Costs({"macs": 1e-9, "rounds": 1e-3}))
    macs = cpu_work(workload.geometry, Pass.GRAD_WEIGHT, 2)["macs"]
    assert predict_cpu(workload, found) == pytest.approx(2e-9 * macs)
    seconds = predict_opencl(workload, found)
    assert seconds is not None
    assert seconds > 1e-3


def test_results_stay_right_while_they_are_counted() -> None:
    """The array of these tests computes what the CPU does."""
    g = GEOMETRIES[3]
    rng = np.random.default_rng(4)
    x, w = (Tensor(shape, np.float32) for shape in (g.x_shape, g.w_shape))
    for tensor in (x, w):
        tensor.write(HOST)[...] = rng.normal(size=tensor.shape)
    results = []
    for ops in (quick_ops(Counting()), CpuOps()):
        y = Tensor(g.y_shape, np.float32)
        ops.convolution(g).forward(x, w, None, y)
        results.append(np.array(y.read(HOST)))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)
