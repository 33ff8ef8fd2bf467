"""Matrix products on OpenCL: every set of parameters computes the same, tables, tuning, and too little memory."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from opencl_device import empty, host, numbers, open_opencl, tensor

from barista.blob import Tensor
from barista.cli.main import main
from barista.compose import make_ops
from barista.errors import DeviceError, UnsupportedError
from barista.gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from barista.ops.opencl import OpenCLOps, tuner, tuning
from barista.ops.opencl.choice import Choices
from barista.ops.opencl.conv_unrolled import NAME, UnrolledForward
from barista.ops.opencl.convolution import OpenCLConvolution
from barista.ops.opencl.device import Device
from barista.ops.opencl.gemm import OpenCLGemm, tile_m
from barista.ops.opencl.tuning import GemmParameters
from barista.runtime.driver import cl
from barista.runtime.errors import device_error
from barista.runtime.kernel import Kernel
from barista.runtime.space import OpenCLSpace

pytestmark = pytest.mark.opencl

FLOAT = np.dtype(np.float32)
PLAIN = GemmParameters(6, 32, 2, 256, 256)
WHOLE = dataclasses.replace(PLAIN, strip=0)
SETS = [PLAIN, WHOLE, GemmParameters(1, 16, 1, 1, 4), GemmParameters(5, 64, 1, 7, 32), GemmParameters(4, 32, 3, 64, 48),
        GemmParameters(12, 64, 2, 256, 256, True), GemmParameters(8, 64, 3, 100, 96, True),
        GemmParameters(12, 64, 2, 256, 0, True)]


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; returns where the user's table would lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "barista" / "gemm.toml"


def device(ops: OpenCLOps, values: GemmParameters) -> Device:
    """A device with these parameters; the test is skipped where the processor cannot have them."""
    problem = values.problem(ops.context, FLOAT)
    if problem:
        assert "avx512" in problem, problem
        pytest.skip(problem)
    return Device(ops.context, FLOAT, values)


def unrolled(here: Device, geometry: ConvolutionGeometry) -> OpenCLConvolution:
    """The convolution of last resort, whose passes are products."""
    return OpenCLConvolution(here, geometry, Choices(here, False), dict.fromkeys(Pass, NAME))


def close(actual: Tensor, expected: npt.ArrayLike, scale: float) -> None:
    """Compare with an error bound relative to the size of what was summed."""
    np.testing.assert_allclose(host(actual), expected, rtol=3e-6, atol=3e-6 * scale)


# ---- parameters -----------------------------------------------------------------------------

@pytest.mark.parametrize("values", SETS, ids=str)
def test_all_parameters_compute_the_same(ops: OpenCLOps, rng: np.random.Generator, values: GemmParameters) -> None:
    here = device(ops, values)
    rows, columns = values.tile_m, values.tile_n(FLOAT)
    for (m, n, k), trans_a, trans_b in itertools.product(
            ((1, 1, 1), (rows, columns, 4), (2 * rows + 1, 2 * columns + 1, 67), (max(rows - 1, 1), 5 * columns, 300)),
            (False, True), (False, True)):
        a, b, c, bias = numbers(rng, m, k), numbers(rng, k, n), numbers(rng, m, n), numbers(rng, n)
        result = tensor(c)
        OpenCLGemm(here, GemmShape(m, n, k), trans_a, trans_b, packed=True).run(
            tensor(a.T if trans_a else a), tensor(b.T if trans_b else b), result, 0.5, -1.0, tensor(bias))
        close(result, 0.5 * (a @ b) + bias - c, np.sqrt(k) + 1)


def test_tiles_are_evened_out(ops: OpenCLOps) -> None:
    """M = 16 makes two tiles of 8 rows, not one of 12 and a third of another."""
    here = Device(ops.context, FLOAT, dataclasses.replace(PLAIN, tile_m=12))
    assert [tile_m(here, m) for m in (0, 1, 12, 13, 16, 64, 100, 144)] == [12, 1, 12, 7, 8, 11, 12, 12]


@pytest.mark.parametrize("trans_a", [False, True])
def test_who_packs_a_does_not_matter(ops: OpenCLOps, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch,
                                     trans_a: bool) -> None:
    """Every strip for itself, or one kernel for all strips: the same bits."""
    a, b, results = numbers(rng, 23, 300), numbers(rng, 300, 70), []
    for most in (1 << 30, 0):
        monkeypatch.setattr("barista.ops.opencl.gemm.SELF_PACKED", most)
        c = empty(23, 70)
        OpenCLGemm(device(ops, PLAIN), GemmShape(23, 70, 300), trans_a, False, packed=True).run(
            tensor(a.T if trans_a else a), tensor(b), c)
        close(c, a @ b, np.sqrt(300))
        results.append(host(c))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("values", SETS, ids=str)
def test_convolutions_follow_the_parameters(ops: OpenCLOps, rng: np.random.Generator, values: GemmParameters) -> None:
    g = ConvolutionGeometry(3, 4, 14, (7, 9), (3, 2), (2, 1), (1, 1), (1, 1), 2)
    x, w, dy = numbers(rng, *g.x_shape), numbers(rng, *g.w_shape), numbers(rng, *g.y_shape)
    results = []
    for primitive in (unrolled(device(ops, values), g), ops.host.convolution(g)):
        y, dx, dw = empty(*g.y_shape), empty(*g.x_shape), tensor(np.zeros(g.w_shape))
        primitive.forward(tensor(x), tensor(w), None, y)
        primitive.grad_weight(tensor(x), tensor(dy), dw)
        primitive.grad_input(tensor(dy), tensor(w), dx)
        results.append([host(t) for t in (y, dw, dx)])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("change", "problem"), [
    ({"vector_bytes": 4}, "vector_bytes=4 makes no vector of 2, 4, 8 or 16 float32"),
    ({"vector_bytes": 128}, "vector_bytes=128 makes no vector"),
    ({"tile_m": 0}, "tile_m=0 is below 1"), ({"chunk_k": -1}, "chunk_k=-1 is below 1"),
    ({"strip": 20}, "strip=20 is no multiple of the 16 columns of a tile"),
    ({"chunk_k": 1 << 20}, r"chunk_k=1048576 times strip=256 needs \d+ bytes of local memory, the device has \d+"),
])
def test_what_parameters_may_be(ops: OpenCLOps, change: dict[str, Any], problem: str) -> None:
    assert PLAIN.problem(ops.context, FLOAT) == ""
    assert re.match(problem, dataclasses.replace(PLAIN, **change).problem(ops.context, FLOAT))


def test_avx512_needs_the_processor(ops: OpenCLOps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled for what the processor lacks, a kernel would end the process."""
    monkeypatch.setattr(ops.context, "processor_flags", frozenset({"avx512f", "avx512vl"}))
    wide = dataclasses.replace(PLAIN, avx512=True)
    assert wide.problem(ops.context, FLOAT) == "avx512: the processor does not have avx512bw, avx512dq"
    assert not tuning.parameters(ops.context, FLOAT).avx512
    monkeypatch.setattr(ops.context, "processor_flags", tuning.AVX512_FLAGS)
    assert wide.problem(ops.context, FLOAT) == ""
    assert tuning.parameters(ops.context, FLOAT).avx512


def test_other_devices_pack_whole(ops: OpenCLOps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.context, "is_cpu", False)
    assert tuning.parameters(ops.context, FLOAT).strip == 0
    assert PLAIN.problem(ops.context, FLOAT).startswith("strip=256: strips are for CPU devices")


# ---- tables ---------------------------------------------------------------------------------

def test_what_was_kept_is_taken(ops: OpenCLOps, cache: Path) -> None:
    shipped = tuning.parameters(ops.context, FLOAT)
    double = np.dtype(np.float64)
    assert tuning.keep(ops.context, FLOAT, WHOLE) == cache
    assert tuning.parameters(ops.context, FLOAT) == WHOLE
    assert tuning.parameters(ops.context, double) == shipped  # tuned by itself
    tuning.keep(ops.context, double, PLAIN)
    tuning.keep(ops.context, FLOAT, SETS[3])
    assert tuning.parameters(ops.context, FLOAT) == SETS[3]
    assert tuning.parameters(ops.context, double) == PLAIN
    assert cache.read_text().count("[[entry]]") == 2
    assert open_opencl().gemm(GemmShape(200, 200, 200), False, False).variant == f"packed, {SETS[3]}"
    cache.write_text(cache.read_text().replace("driver ", "driver 9"))  # another driver: another device
    assert tuning.parameters(ops.context, FLOAT) == shipped


@pytest.mark.parametrize(("before", "after", "problem"), [
    ("tile_m = 6", "tile_m = ", "cannot be read"),
    ("tile_m = 6", "tile_n = 6", "unknown parameter 'tile_n'; did you mean 'tile_m'"),
    ("tile_m = 6", "", "an entry lacks tile_m"),
    ("tile_m = 6", "tile_m = '6'", "tile_m='6' is no whole number"),
    ("avx512 = false", "avx512 = 1", "avx512=1 is no truth value"),
    ("strip = 256", "strip = 255", "strip=255 is no multiple of the 16 columns of a tile; run: barista tune_gemm"),
    ("[[entry]]", "[entry]", "'entry' is no array of tables"),
])
def test_a_table_that_was_spoilt(ops: OpenCLOps, cache: Path, before: str, after: str, problem: str) -> None:
    tuning.keep(ops.context, FLOAT, PLAIN)
    text = cache.read_text()
    assert before in text
    cache.write_text(text.replace(before, after))
    with pytest.raises(DeviceError, match=re.escape(f"{cache}") + f".*{problem}"):
        tuning.parameters(ops.context, FLOAT)


def test_a_shipped_table_with_nothing_fit(ops: OpenCLOps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "none.toml")
    with pytest.raises(DeviceError, match=r"has no parameters of matrix products that .* can have; run: barista tune"):
        tuning.parameters(ops.context, FLOAT)


# ---- tuning ---------------------------------------------------------------------------------

def test_the_command_keeps_what_is_fastest(monkeypatch: pytest.MonkeyPatch, cache: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """With a clock that makes one tile, and of its strips one, the fastest."""
    def seconds(device: Device, work: Callable[[], None], count: int) -> float:
        work()
        values = device.gemm
        return 0.01 * (0.5 if values.tile_m == 4 else 1) * (0.5 if (values.strip, values.chunk_k) == (96, 128) else 1)

    monkeypatch.setattr(tuner, "_seconds", seconds)
    monkeypatch.setattr(tuner, "PRODUCTS", tuner.PRODUCTS[-1:])
    monkeypatch.setattr(tuner, "CONVOLUTIONS", ())
    assert main(["tune_gemm"]) == 0
    log = capsys.readouterr().err
    assert " 0.50  tiles of 4 x 3 vectors of 32 bytes" in log
    assert f"kept in {cache}: tiles of 4 x 3 vectors of 32 bytes, strips of 96 columns and 128 rows" in log
    kept = open_opencl()._device.gemm
    assert (kept.tile_m, kept.vectors, kept.strip, kept.chunk_k) == (4, 3, 96, 128)
    assert main(["tune_gemm"]) == 0  # from there nothing is faster
    assert "the parameters in use stay" in capsys.readouterr().err


def test_chance_does_not_choose(ops: OpenCLOps, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(tuner, "_compare", lambda device, values: [1.0] + [0.98] * (len(values) - 1))
    assert list(ops.tune())[-1] == "the parameters in use stay: nothing was faster by more than chance"
    assert not cache.exists()


@pytest.mark.slow
def test_measuring_runs_everything(ops: OpenCLOps) -> None:
    """The real clock, on two sets; each is measured against the first."""
    scores = tuner._compare(ops._device, [PLAIN, GemmParameters(1, 16, 1, 8, 16)])
    assert scores[0] == 1
    assert math.isfinite(scores[1]) and scores[1] > 0


def test_other_backends_have_nothing_to_tune() -> None:
    with pytest.raises(UnsupportedError, match="the cpu backend has nothing to tune"):
        make_ops("cpu").tune()


# ---- too little memory ----------------------------------------------------------------------

class Fault:
    """Lets an OpenCL device have no more than so many bytes for one array, as an error of the driver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, code: int = -4) -> None:
        self.refused = 0
        allocate = OpenCLSpace.allocate

        def limited(space: OpenCLSpace, count: int, dtype: np.dtype[Any]) -> Any:
            if count * dtype.itemsize > limit_bytes:
                self.refused += 1
                error = cl.MemoryError(cl._cl._ErrorRecord("clCreateBuffer", code, ""))
                raise device_error(error, f"{space.name}: allocating {count * dtype.itemsize} bytes") from error
            return allocate(space, count, dtype)

        monkeypatch.setattr(OpenCLSpace, "allocate", limited)


@pytest.mark.parametrize("code", [-4, -5, -6])
@pytest.mark.parametrize("values", [PLAIN, WHOLE], ids=str)
@pytest.mark.parametrize(("trans_a", "trans_b"), [(False, False), (True, True)])
def test_out_of_memory_goes_on_in_steps(ops: OpenCLOps, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch,
                                        caplog: pytest.LogCaptureFixture, values: GemmParameters, trans_a: bool,
                                        trans_b: bool, code: int) -> None:
    """The packed operands do not fit: K is gone over in steps, with alpha, beta and a rest."""
    here = device(ops, values)
    m, n, k = 20, 30, 2000
    a, b, c = numbers(rng, m, k), numbers(rng, k, n), numbers(rng, m, n)
    left, right, result = tensor(a.T if trans_a else a), tensor(b.T if trans_b else b), tensor(c)
    for t in (left, right, result):
        t.read(here.space)  # these lie on the device already
    product = OpenCLGemm(here, GemmShape(m, n, k), trans_a, trans_b, packed=True)
    whole_bytes = product.scratch_bytes
    fault = Fault(monkeypatch, 40 * 300 * 4, code)
    with caplog.at_level(logging.WARNING, "barista.ops.opencl.gemm"):
        product.run(left, right, result, 2.0, -0.5)
    close(result, 2 * (a @ b) - 0.5 * c, 2 * np.sqrt(k))
    assert fault.refused >= 2
    name = {-4: "MEM_OBJECT_ALLOCATION_FAILURE", -5: "OUT_OF_RESOURCES", -6: "OUT_OF_HOST_MEMORY"}[code]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(message.startswith("matrix product of M=20 N=30 K=2000: ") and name in message for message in messages)
    assert messages[-1].endswith("; going on with 256 of K at a time")
    assert product.scratch_bytes < whole_bytes / 3
    # The next run starts with what was found.
    caplog.clear()
    product.run(left, right, result)
    close(result, a @ b, np.sqrt(k))
    assert not caplog.records


def test_steps_of_whole_chunks_give_the_same_bits(ops: OpenCLOps, rng: np.random.Generator,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, results = tensor(numbers(rng, 20, 1000)), tensor(numbers(rng, 1000, 30)), []
    for limited in (False, True):
        here, c = device(ops, PLAIN), empty(20, 30)
        a.read(here.space), b.read(here.space), c.read(here.space)
        if limited:
            Fault(monkeypatch, 40 * 300 * 4)
        OpenCLGemm(here, GemmShape(20, 30, 1000), False, False, packed=True).run(a, b, c)
        results.append(host(c))
    np.testing.assert_array_equal(*results)


def test_memory_for_nothing_is_an_error(ops: OpenCLOps, rng: np.random.Generator,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    here = device(ops, PLAIN)
    a, b, c = tensor(numbers(rng, 20, 40)), tensor(numbers(rng, 40, 30)), empty(20, 30)
    for t in (a, b, c):
        t.read(here.space)
    Fault(monkeypatch, 8)
    with pytest.raises(DeviceError, match=r"allocating \d+ bytes: clCreateBuffer failed with "
                                          r"MEM_OBJECT_ALLOCATION_FAILURE \(-4\)"):
        OpenCLGemm(here, GemmShape(20, 30, 40), False, False, packed=True).run(a, b, c)


def test_another_fault_is_not_tried_again(ops: OpenCLOps, rng: np.random.Generator,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def lost(kernel: Kernel, *arguments: Any) -> None:
        calls.append(arguments)
        error = cl.RuntimeError(cl._cl._ErrorRecord("clEnqueueNDRangeKernel", -2, ""))
        raise device_error(error, "kernel multiply_strips") from error

    monkeypatch.setattr(Kernel, "run", lost)
    with pytest.raises(DeviceError, match="DEVICE_NOT_AVAILABLE"):
        OpenCLGemm(device(ops, PLAIN), GemmShape(20, 30, 40), False, False, packed=True).run(
            tensor(numbers(rng, 20, 40)), tensor(numbers(rng, 40, 30)), empty(20, 30))
    assert len(calls) == 1


def test_a_fault_while_enqueuing_is_tried_again_once_shorter(ops: OpenCLOps, rng: np.random.Generator,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a product: what is done stays done, what failed is done in shorter steps."""
    here = device(ops, PLAIN)
    product = OpenCLGemm(here, GemmShape(20, 30, 1000), False, False, packed=True)
    product._product._step = 512
    run, multiplied = Kernel.run, []

    def tired(kernel: Kernel, items: int, *arguments: Any) -> None:
        if kernel.recipe.name == "multiply_strips":
            multiplied.append(arguments[14])
            if len(multiplied) == 2:
                error = cl.RuntimeError(cl._cl._ErrorRecord("clEnqueueNDRangeKernel", -5, ""))
                raise device_error(error, "kernel multiply_strips") from error
        run(kernel, items, *arguments)

    monkeypatch.setattr(Kernel, "run", tired)
    a, b, c = numbers(rng, 20, 1000), numbers(rng, 1000, 30), numbers(rng, 20, 30)
    result = tensor(c)
    product.run(tensor(a), tensor(b), result, 1.0, 2.0)
    close(result, a @ b + 2 * c, np.sqrt(1000))
    assert multiplied == [512, 488, 256, 232]


def test_an_operand_beyond_one_array_is_cut_beforehand(ops: OpenCLOps, rng: np.random.Generator,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barista.ops.opencl.gemm.MAX_COUNT", 24 * 100)
    a, b, c = numbers(rng, 20, 250), numbers(rng, 250, 30), empty(20, 30)
    product = OpenCLGemm(device(ops, PLAIN), GemmShape(20, 30, 250), False, False, packed=True)
    assert product.scratch_bytes == 24 * 100 * 4
    product.run(tensor(a), tensor(b), c)
    close(c, a @ b, np.sqrt(250))


def test_a_convolution_takes_fewer_images_at_a_time(ops: OpenCLOps, rng: np.random.Generator,
                                                    monkeypatch: pytest.MonkeyPatch,
                                                    caplog: pytest.LogCaptureFixture) -> None:
    """All three passes, with a last round of fewer images; grad_weight adds to what was there."""
    g = ConvolutionGeometry(7, 4, 6, (7, 9), (3, 3), (1, 1), (1, 1), (1, 1), 2)
    x, w, dy, bias = (numbers(rng, *shape) for shape in (g.x_shape, g.w_shape, g.y_shape, (6,)))
    here = device(ops, PLAIN)
    results = []
    primitive = unrolled(here, g)
    assert UnrolledForward(here, g)._rounds.images == 7
    for convolution, space in ((ops.host.convolution(g), ops.host.space), (primitive, here.space)):
        tensors = [tensor(values) for values in (x, w, dy, bias)]
        y, dx, dw = empty(*g.y_shape), empty(*g.x_shape), tensor(np.full(g.w_shape, 3.0))
        for t in (*tensors, y, dx, dw):
            t.read(space)
        if convolution is primitive:
            # The unrolled taps of two images: two groups of two panels of 16 columns and 63 rows.
            Fault(monkeypatch, 2 * 2 * 2 * 16 * 63 * 4)
        tx, tw, tdy, tb = tensors
        with caplog.at_level(logging.WARNING, "barista.ops.opencl.conv_unrolled"):
            convolution.forward(tx, tw, tb, y)
            convolution.grad_weight(tx, tdy, dw)
            convolution.grad_input(tdy, tw, dx)
        results.append([host(t) for t in (y, dw, dx)])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == [
        "going on with 4 image(s) at a time", "going on with 2 image(s) at a time"] * 3  # a pass by itself
    Fault(monkeypatch, 8)
    with pytest.raises(DeviceError, match="MEM_OBJECT_ALLOCATION_FAILURE"):
        unrolled(device(ops, PLAIN), g).forward(tx, tw, tb, y)
