"""The HLS code of Barista's GEMM in C-simulation: the array's model bit for bit, its memories, its reads."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opencl_device import tensor

from barista.blob import HOST
from barista.compose import make_ops
from barista.errors import BitstreamError, DeviceError
from barista.gemm.array_model import ModelArray
from barista.gemm.engine import BlockedGemm
from barista.gemm.shapes import GemmShape
from barista.gemm.tiles import TileSizes, aligned_empty
from barista.hardware.bitstream import Bitstream, load, write
from barista.hardware.board import load_board
from barista.ops.base import OpSet
from barista.precision.formats import FORMATS, number_format
from barista.resources import find
from barista.synthesis import csim_build, gemm_array
from barista.synthesis.gemm_array import SimulatedArray
from barista.synthesis.gemm_design import GemmDesign
from barista.synthesis.simulation import Library
from barista.synthesis.toolchain import LIBRARY_FLAGS, build_testbench, compile_sources, machine

pytestmark = pytest.mark.hls

# Some that any run compiles; those that only `make hls-test` and `make test-all` do.
DESIGNS = [("7,9,13", "fp32"), ("16,16,64", "fp32"), ("16,16,64", "dfxp8"), ("3,5,2", "dfxp12")]
MORE = [("1,1,1", "fp32"), ("3,5,2", "fp32"), ("2,16,7", "fp32"), ("12,1,11", "fp32"), ("24,8,40", "fp32"),
        ("1,1,1", "dfxp8"), ("16,16,64", "dfxp12"), ("7,9,13", "dfxp14"), ("16,16,64", "dfxp16"), ("6,4,9", "dfxp16")]
FIXED = [name for name, fmt in FORMATS.items() if fmt.is_fixed]
EVERY = [*DESIGNS, *(pytest.param(*design, marks=pytest.mark.slow) for design in MORE)]
COUNTS = [(1, 1, 1), (2, 3, 2), (1, 2, 5), (3, 1, 4)]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build a bitstream and load it, once a session."""
    folder = tmp_path_factory.mktemp("csim")

    @functools.cache
    def make(tile: str, precision: str = "fp32") -> SimulatedArray:
        design = GemmDesign(TileSizes.parse(tile), precision)
        return SimulatedArray(csim_build.build(folder, design, load_board("emulated")))

    return make


def operands(array: Any, nr: int, nc: int, np_: int, seed: int = 0) -> tuple[Any, Any]:
    """Tiles with numbers of both signs over the whole range, some of them zero."""
    rng, fmt = np.random.default_rng(seed), array.format
    result = []
    for shape in (array.tiles.a_shape(nr, np_), array.tiles.b_shape(nc, np_)):
        values = rng.integers(fmt.lower, fmt.upper, shape, fmt.storage_dtype, endpoint=True) if fmt.is_fixed else \
            rng.standard_normal(shape, np.float32)
        values[rng.random(shape) < 0.1] = 0
        aligned = aligned_empty(shape, values.dtype)
        aligned[...] = values
        result.append(aligned)
    return result[0], result[1]


def product(array: Any, a: Any, b: Any) -> Any:
    """The tiles of C, in memory that held NaN or -1 before."""
    (nr, np_), nc = a.shape[:2], b.shape[0]
    c = np.full(array.tiles.c_shape(nr, nc), -1 if array.format.is_fixed else np.nan, array.format.accumulator_dtype)
    array.begin(nr, nc, np_)
    array.multiply(a, b, c, nr, nc, np_)
    return c


def bits(values: Any) -> Any:
    return values.view(np.int32)


# ---- what it computes -------------------------------------------------------------------------------------

@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(("tile", "precision"), EVERY)
def test_it_is_the_arrays_model_bit_for_bit(make: Any, tile: str, precision: str, counts: tuple[int, int, int]) -> None:
    array = make(tile, precision)
    for seed in range(2):
        a, b = operands(array, *counts, seed)
        expected = product(ModelArray(array.tiles, array.format), a, b)
        np.testing.assert_array_equal(bits(product(array, a, b)), bits(expected))


@pytest.mark.parametrize(("tile", "precision"), [
    *(design for design in DESIGNS if design[1] in FIXED), pytest.param("16,16,64", "dfxp16", marks=pytest.mark.slow)])
def test_fixed_point_is_exact_and_wraps_around(make: Any, tile: str, precision: str) -> None:
    array = make(tile, precision)
    a, b = operands(array, 2, 3, 4)
    a[0, :, :, 0], b[0, :, :, 0] = array.format.lower, array.format.lower  # sums that grow as fast as they can
    found = product(array, a, b)
    exact = np.einsum("ipkr,jpkc->ijrc", a.astype(np.int64), b.astype(np.int64))
    np.testing.assert_array_equal(found, exact.astype(np.int32))
    if precision == "dfxp16":
        assert (found != exact).any()  # 256 products of 2^30 do not fit


def test_products_are_rounded_before_they_are_added(make: Any) -> None:
    """A fused multiply-add would leave what rounding takes off."""
    array = make("16,16,64")
    a, b = (np.zeros(shape, np.float32) for shape in (array.tiles.a_shape(1, 1), array.tiles.b_shape(1, 1)))
    value = np.float32(1 + 2**-12)
    rounded = np.float32(value * value)
    assert float(value) * float(value) != float(rounded)
    sums = number_format("fp32").partial_sums  # products this far apart meet in one sum
    a[0, 0, 0], b[0, 0, 0] = -rounded, 1
    a[0, 0, sums], b[0, 0, sums] = value, value
    np.testing.assert_array_equal(product(array, a, b), 0)


def test_infinities_and_nan_come_out_as_in_the_model(make: Any) -> None:
    array = make("7,9,13")
    a, b = operands(array, 2, 2, 3)
    a[0, 1, 4, 2], a[1, 0, 3, 1], b[0, 2, 2, 5], b[1, 1, 1, 1] = np.inf, np.nan, -np.inf, 3e38
    a[1, 1, 1, 0] = 3e38
    with np.errstate(invalid="ignore"):
        expected = product(ModelArray(array.tiles, array.format), a, b)
    assert np.isnan(expected).any() and np.isinf(expected).any()
    np.testing.assert_array_equal(product(array, a, b), expected)


# ---- what it takes ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("tile", "precision"), EVERY)
def test_memories_and_reads_are_those_of_the_models(make: Any, tile: str, precision: str) -> None:
    """Words on the chip as the resource model has them, words from memory as Eq. 4.2 has them: a strip of A is read
    once for each column of tiles of C, a strip of B once for each row."""
    array = make(tile, precision)
    design = GemmDesign(array.tiles, precision)
    nr, nc, np_ = 2, 3, 2
    product(array, *operands(array, nr, nc, np_))
    report = array.report
    assert report.on_chip == design.on_chip_words
    for port, times in (("a", nc), ("b", nr)):
        assert set(array.reads(port)) == {times}
    bits_ = 8 * array.format.storage_dtype.itemsize
    t = array.tiles
    words = {"a": nr * nc * np_ * t.tp * t.tr, "b": nr * nc * np_ * t.tp * t.tc}
    assert {port: report.ports[port].reads for port in words} == {
        "a": words["a"] * bits_ // design.a_port_bits, "b": words["b"] * bits_ // design.b_port_bits}
    assert report.ports["c"].writes == nr * nc * t.tr * t.tc * 32 // design.c_port_bits
    assert (report.ports["a"].writes, report.ports["b"].writes, report.ports["c"].reads) == (0, 0, 0)
    assert len(report.streams) == 5
    assert all(1 <= stream.most <= stream.depth for stream in report.streams.values())


@pytest.mark.parametrize(("tile", "precision", "sanitize"), [
    ("7,9,13", "fp32", True), *(pytest.param(*design, marks=pytest.mark.slow) for design in [
        ("7,9,13", "fp32", False), ("16,8,12", "dfxp8", True), ("3,5,2", "dfxp16", True)])])
def test_its_test_bench_passes(tile: str, precision: str, sanitize: bool) -> None:
    """Nothing outside of its buffers, nothing undefined: the sanitisers would stop it."""
    bench = build_testbench(GemmDesign(TileSizes.parse(tile), precision), sanitize=sanitize)
    done = subprocess.run([bench], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("PASSED\n"), done.stdout + done.stderr


# ---- as an array of tiles ---------------------------------------------------------------------------------

def test_an_engine_runs_on_it(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block, and in many where a run would take too long."""
    array, shape = make("7,9,13"), GemmShape(40, 50, 60)
    rng = np.random.default_rng(3)
    a, b, c = (rng.standard_normal(size, np.float32) for size in ((40, 60), (60, 50), (40, 50)))
    results = []
    for steps in (gemm_array.LONGEST_STEPS, 60_000, 1):
        monkeypatch.setattr(gemm_array, "LONGEST_STEPS", steps)
        for one in (array, ModelArray(array.tiles, array.format)):
            out = c.copy()
            BlockedGemm(one, shape).run(a, b, out, 1.5, -0.5)
            results.append(out)
    assert array.begin(6, 6, 5) == (1, 1)
    for result in results[1:]:
        np.testing.assert_array_equal(bits(result), bits(results[0]))


@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 900, 3), (900, 1, 3), (300, 300, 40), (3, 5000, 2), (7, 7, 10**6)])
def test_no_run_takes_long(make: Any, counts: tuple[int, int, int]) -> None:
    """Ctrl-C is seen between runs, so they are short, and not shorter than need be."""
    array = make("7,9,13")
    nr, nc, np_ = counts
    rows, columns = array.begin(*counts)
    steps = np_ * 7 * 9 * (13 + 7 + 9 - 2)
    assert 1 <= rows <= nr and 1 <= columns <= nc
    assert rows * columns * steps <= gemm_array.LONGEST_STEPS or rows == columns == 1
    if (rows, columns) != (nr, nc) and rows * columns > 1:
        assert rows * columns * steps > gemm_array.LONGEST_STEPS / 2


def test_tiles_of_another_shape_are_refused(make: Any) -> None:
    array = make("7,9,13")
    a, b = operands(array, 1, 1, 1)
    c = np.zeros(array.tiles.c_shape(1, 1), np.float32)
    with pytest.raises(DeviceError, match=r"the tiles of A are float64 of \(1, 1, 13, 7\), where float32 of"):
        array.multiply(a.astype(np.float64), b, c, 1, 1, 1)
    with pytest.raises(DeviceError, match=r"the tiles of B are float32 of \(1, 1, 13, 9\), where float32 of \(2, 1"):
        array.multiply(a, b, c, 1, 2, 1)
    strided = np.zeros((*a.shape[:-1], 14), np.float32)[..., ::2]
    with pytest.raises(DeviceError, match="elements do not lie side by side"):
        array.multiply(strided, b, c, 1, 1, 1)


@pytest.fixture(scope="module")
def on_csim(make: Any) -> OpSet:
    return make_ops("fpga", bitstream=make("16,16,64").bitstream.path, inner_products=True)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (15, 16, 64), (17, 33, 129), (5, 7, 0), (32, 15, 63)])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_products_of_the_op_set(on_csim: OpSet, cpu: OpSet, m: int, n: int, k: int, beta: float) -> None:
    """A part of the contract, which runs as a whole where slow tests do."""
    rng = np.random.default_rng((m, n, k))
    a, b, c = (rng.standard_normal(shape) for shape in ((m, k), (n, k), (m, n)))
    found = []
    for ops in (on_csim, cpu):
        out = tensor(c if beta else np.full_like(c, np.nan))
        ops.gemm(GemmShape(m, n, k), False, True).run(tensor(a), tensor(b), out, -2.0, beta)
        found.append(out.read(HOST))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5 * max(1, k) ** 0.5 * 4)


# ---- bitstreams -------------------------------------------------------------------------------------------

def rewritten(bitstream: Bitstream, folder: Path, **changes: Any) -> Bitstream:
    """The same library under another manifest, which vouches for it."""
    m = bitstream.manifest
    fields = {"engine": "csim", "device": m.device, "suffix": ".so", **changes}
    tiles, precision = fields.pop("tiles", m.tiles), fields.pop("precision", m.precision)
    content = fields.pop("content", bitstream.binary())
    return write(folder, content, tiles, precision, load_board("emulated"), **fields)


def test_what_its_manifest_says(make: Any) -> None:
    bitstream = make("7,9,13").bitstream
    m = bitstream.manifest
    assert (m.engine, m.kernel, m.device, m.binary) == ("csim", "barista_gemm", machine(),
                                                        "gemm_csim_7x9x13_fp32_emulated.so")
    assert set(m.tools) == {"barista", "compiler", "hls4ml"}
    assert load(bitstream.path).manifest == m


def test_what_is_not_its_library_is_refused(make: Any, tmp_path: Path) -> None:
    """Before anything is loaded, or multiplied into memory of another size."""
    bitstream = make("7,9,13").bitstream
    for number, (changes, message) in enumerate([
            ({"device": "s390x Linux"}, f"is for another machine: built for s390x Linux, this is {machine()}; "),
            ({"tiles": TileSizes(9, 7, 13)}, "was compiled for another design than its manifest says"),
            ({"precision": "dfxp8"}, "was compiled for another design than its manifest says"),
            ({"engine": "array"}, "is of engine array, which no C-simulation runs"),
            ({"content": b"no library"}, "the library cannot be loaded: .*; build it again on this machine")]):
        other = rewritten(bitstream, tmp_path / str(number), **changes)
        with pytest.raises(BitstreamError, match=message):
            SimulatedArray(other)
    changed = rewritten(bitstream, tmp_path / "changed")
    content = bytearray(changed.binary())
    content[-1] ^= 1
    changed.binary_path.write_bytes(content)
    with pytest.raises(BitstreamError, match="is not the binary of its manifest"):
        SimulatedArray(changed)


def test_a_file_may_change_under_a_loaded_library(make: Any, tmp_path: Path) -> None:
    """What is loaded stays as it was; what is loaded next is what the file holds then."""
    first, other = make("7,9,13"), make("1,1,1")
    path = tmp_path / "library.so"
    path.write_bytes(first.bitstream.binary())
    loaded = Library(path)
    path.write_bytes(other.bitstream.binary())
    again = Library(path)
    path.write_bytes(b"")
    assert "#define TR 7\n" in loaded.config
    assert "#define TR 1\n" in again.config
    a, b = operands(first, 1, 1, 1)
    c = np.zeros(first.tiles.c_shape(1, 1), np.float32)
    loaded.run("barista_gemm_csim", a, b, c, 1, 1, 1)
    np.testing.assert_array_equal(bits(c), bits(product(first, a, b)))


def test_two_designs_in_one_process_keep_apart(make: Any) -> None:
    """Their templates have the same names and other sizes."""
    arrays = [make(*design) for design in DESIGNS]
    tiles = [operands(array, 2, 2, 2) for array in arrays]
    expected = [product(ModelArray(array.tiles, array.format), *pair)
                for array, pair in zip(arrays, tiles, strict=True)]
    for _ in range(2):
        for array, pair, wanted in zip(arrays, tiles, expected, strict=True):
            np.testing.assert_array_equal(bits(product(array, *pair)), bits(wanted))


# ---- what the simulation tells ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def designs(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The little designs of ``hls_dataflow.cpp``."""
    built = tmp_path_factory.mktemp("dataflow") / "dataflow.so"
    compile_sources(built, [Path(__file__).with_name("hls_dataflow.cpp"), find("hls", "csim", "simulation.cpp")],
                    [*LIBRARY_FLAGS, "-Werror"],
                    {"config.cpp": 'extern "C" const char *simulation_config() { return ""; }\n'}, "little designs")
    return Library(built)


def test_a_deadlock_is_told(designs: Library) -> None:
    """Who waits for what; and the library goes on afterwards."""
    sums = np.zeros(4, np.uint32)
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"dataflow\.so: shallow_csim: the design stands still: split<DEPTH> "
                                              r"waits to write to left; join<DEPTH> waits to read from right; raise"):
            designs.run("shallow_csim", sums)
        assert designs.report().streams["left"].most == 2
        designs.run("deep_csim", sums)
        np.testing.assert_array_equal(sums, [0, 11, 22, 33])
        assert (designs.report().streams["left"].depth, designs.report().streams["left"].most) == (3, 3)


def test_a_stream_that_nobody_fills_is_told(designs: Library) -> None:
    with pytest.raises(DeviceError, match="alone_csim: the kernel waits to read from empty, and no process would"):
        designs.run("alone_csim")


def test_an_access_beyond_a_buffer_is_told(designs: Library) -> None:
    source, target = np.arange(5, dtype=np.uint32), np.zeros(5, np.uint32)
    designs.run("copy_csim", source, target, 5, 3, 4)
    assert target[4] == 3
    assert designs.report().on_chip == {"memory": 30}
    np.testing.assert_array_equal(designs.reads("from"), [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(designs.reads("to"), 0)
    for read, write_, what in ((5, 0, "read of beat 5 at port from"), (-1, 0, "read of beat -1 at port from"),
                               (0, 5, "write of beat 5 at port to"), (0, -2, "write of beat -2 at port to")):
        with pytest.raises(DeviceError, match=f"{what}, whose buffer has 5 beats"):
            designs.run("copy_csim", source, target, 5, read, write_)
    with pytest.raises(DeviceError, match="closed_csim: read at a port that is not open"):
        designs.run("closed_csim", source)
    with pytest.raises(DeviceError, match="the last run opened no port 'from'; it opened none"):
        designs.reads("from")


def test_a_function_that_is_not_there(designs: Library) -> None:
    with pytest.raises(DeviceError, match="the library has no function turn_csim; build it again"):
        designs.run("turn_csim")
