"""The CPU op set's own concerns: products, threads, element-wise programs, workspaces; and the shared contract of
`gemm` and `elementwise`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import references as ref
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensors import got, numbers, put
from threadpoolctl import threadpool_info, threadpool_limits
from tolerances import assert_close

from barista.blob import Tensor
from barista.errors import UnsupportedError
from barista.gemm.batching import CHUNK_COLUMN_BYTES
from barista.gemm.shapes import ConvolutionGeometry, GemmShape
from barista.ops.base import AxisGeometry, OpSet
from barista.ops.cpu import CpuOps
from barista.ops.cpu.elementwise import CHUNK, PARALLEL
from barista.ops.cpu.threads import Threads, split

Array = npt.NDArray[Any]


# ---- gemm -------------------------------------------------------------------------------------------------

SIZES = [(1, 1, 1), (1, 7, 3), (7, 1, 3), (3, 5, 1), (4, 8, 16), (17, 9, 5), (33, 31, 7)]
EMPTY = [(0, 3, 2), (3, 0, 2), (3, 4, 0)]


def run_gemm(ops: OpSet, size: tuple[int, int, int], trans_a: bool, trans_b: bool, alpha: float,
             beta: float) -> tuple[Array, Array, Array, Array]:
    """The result, and the operands that gave it; C is full of NaN where beta is 0."""
    m, n, k = size
    a = numbers((k, m) if trans_a else (m, k), 1)
    b = numbers((n, k) if trans_b else (k, n), 2)
    c = numbers((m, n), 3) if beta else np.full((m, n), np.nan, np.float32)
    out = put(ops, c)
    ops.gemm(GemmShape(m, n, k), trans_a, trans_b).run(put(ops, a), put(ops, b), out, alpha, beta)
    return got(out), a, b, c


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (1, 1), (-0.5, 0), (2, -1.5), (0, 1)])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
def test_gemm(trans_a: bool, trans_b: bool, alpha: float, beta: float, ops: OpSet) -> None:
    for size in SIZES:
        result, a, b, c = run_gemm(ops, size, trans_a, trans_b, alpha, beta)
        assert_close(result, ref.gemm(a, b, c, trans_a, trans_b, alpha, beta), size[2], 2 * math.sqrt(size[2]) + 2)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (1, 1), (2, -0.5)])
@pytest.mark.parametrize("size", EMPTY)
def test_gemm_of_nothing(size: tuple[int, int, int], alpha: float, beta: float, cpu: CpuOps) -> None:
    result, _, _, c = run_gemm(cpu, size, False, False, alpha, beta)
    np.testing.assert_array_equal(result, beta * c if beta else np.zeros(c.shape))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("size", [(301, 97, 101), (97, 301, 101), (3, 20001, 40), (20001, 3, 40), (1, 3000, 1000)])
def test_parallel_gemm(size: tuple[int, int, int], beta: float, threads: int) -> None:
    """Sizes that are cut over the threads, by rows or by columns, with rests."""
    ops = CpuOps(np.float32, threads)
    assert GemmShape(*size).macs > 2_000_000
    for trans_a, trans_b in ((False, False), (True, False), (False, True)):
        result, a, b, c = run_gemm(ops, size, trans_a, trans_b, -0.5, beta)
        left, right = (a.T if trans_a else a).astype(np.float64), (b.T if trans_b else b).astype(np.float64)
        truth = -0.5 * (left @ right) + (beta * c if beta else 0)
        assert_close(result, truth, size[2], 2 * math.sqrt(size[2]))


def test_gemm_cancels(cpu: CpuOps) -> None:
    """Terms of 1e4 that sum to 0 leave an error of the size of the terms' roundoff, no more."""
    a = np.tile(np.array([1e4, -1e4], np.float32), (5, 50))
    b = np.repeat(numbers((50, 4), 1), 2, axis=0)
    out = put(cpu, np.full((5, 4), np.nan))
    cpu.gemm(GemmShape(5, 4, 100), False, False).run(put(cpu, a), put(cpu, b), out)
    assert_close(got(out), np.zeros((5, 4)), 100, 1e4 * 10)


@settings(max_examples=60, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.booleans(), st.booleans(),
       st.sampled_from([1.0, -2.0]), st.sampled_from([0.0, 1.0, -0.5]))
def test_any_gemm(cpu: CpuOps, m: int, n: int, k: int, trans_a: bool, trans_b: bool, alpha: float,
                  beta: float) -> None:
    result, a, b, c = run_gemm(cpu, (m, n, k), trans_a, trans_b, alpha, beta)
    assert_close(result, ref.gemm(a, b, c, trans_a, trans_b, alpha, beta), max(k, 1), 10)


# ---- element-wise programs --------------------------------------------------------------------------------

X, Y = "x", "y"
# Program, and the same in NumPy on float64 arrays x, z (z is positive); s = 0.25, t = -3.
PROGRAMS: dict[str, Any] = {
    "y = x": lambda x, z: x,
    "y = 1.5": lambda x, z: np.full_like(x, 1.5),
    "y = s": lambda x, z: np.full_like(x, 0.25),
    "y = -x": lambda x, z: -x,
    "y = x + z * s - t / z": lambda x, z: x + z * 0.25 + 3 / z,
    "y = 1 - (x - (z - (x - 2)))": lambda x, z: 1 - (x - (z - (x - 2))),
    "y = exp(-x) * tanh(x) + abs(x)": lambda x, z: np.exp(-x) * np.tanh(x) + np.abs(x),
    "y = log(z) + sqrt(z)": lambda x, z: np.log(z) + np.sqrt(z),
    "y = pow(z, t)": lambda x, z: z**-3.0,
    "y = pow(z, 0.75)": lambda x, z: z**0.75,
    "y = sign(x)": lambda x, z: np.sign(x),
    "y = max(x, 0) + s * min(x, 0)": lambda x, z: np.where(x > 0, x, 0.25 * x),
    "y = max(x, z)": np.maximum,
    "y = min(max(x, t), s)": lambda x, z: np.clip(x, -3, 0.25),
    "y = max(0.5, x)": lambda x, z: np.maximum(x, 0.5),
    "y = where(x > 0, z, 0)": lambda x, z: np.where(x > 0, z, 0),
    "y = where(x > 0, z, s * z)": lambda x, z: np.where(x > 0, z, 0.25 * z),
    "y = where(x >= 0, s, t)": lambda x, z: np.where(x >= 0, 0.25, -3),
    "y = where(x == 0, 1, 2)": lambda x, z: np.where(x == 0, 1, 2),
    "y = where(x != 0, x, z)": lambda x, z: np.where(x != 0, x, z),
    "y = where(x < s, 1, 0)": lambda x, z: (x < 0.25) * 1.0,
    "y = where(x <= t, -1, x * x)": lambda x, z: np.where(x <= -3, -1, x * x),
    "y = where(x > 0, where(z > 1, 1, 2), where(z < 0.5, 3, 4))":
        lambda x, z: np.where(x > 0, np.where(z > 1, 1, 2), np.where(z < 0.5, 3, 4)),
    "y = where(where(x > 0, z, -z) > s, x, z) + where(z > 1, x, 0)":
        lambda x, z: np.where(np.where(x > 0, z, -z) > 0.25, x, z) + np.where(z > 1, x, 0),
    "y = where(x + z > x * z, exp(x), abs(x))": lambda x, z: np.where(x + z > x * z, np.exp(x), np.abs(x)),
    "y = x * z\ny = y + y": lambda x, z: 2 * x * z,
}


@pytest.mark.parametrize("source", PROGRAMS)
def test_program(source: str, ops: OpSet) -> None:
    for count in (1, 5, 1000):
        x, z = numbers((count,), 1), np.abs(numbers((count,), 2)) + np.float32(0.1)
        y = put(ops, np.full(count, np.nan))
        ops.elementwise(source, ("x", "z", "y"), count).run({"x": put(ops, x), "z": put(ops, z), "y": y}, s=0.25, t=-3)
        truth = PROGRAMS[source](x.astype(np.float64), z.astype(np.float64))
        assert_close(got(y), truth, 4, 1 + float(np.abs(truth).max()))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, PARALLEL - 1, PARALLEL, PARALLEL + 3 * CHUNK + 5])
def test_program_in_chunks(count: int, threads: int) -> None:
    ops = CpuOps(np.float32, threads)
    x, h = numbers((count,), 1), numbers((count,), 2)
    tensors = {"w": put(ops, x), "h": put(ops, h), "g": put(ops, x * 2)}
    program = ops.elementwise("h = momentum * h + rate * where(g > 0, g, 0.5 * g)\nw = w - h", ("w", "g", "h"), count)
    program.run(tensors, momentum=0.9, rate=0.1)
    history = 0.9 * h.astype(np.float64) + 0.1 * np.where(x > 0, 2 * x, x)
    assert_close(got(tensors["h"]), history, 4)
    assert_close(got(tensors["w"]), x - history, 4)


@pytest.mark.parametrize("count", [3, 100, CHUNK + 3])
@pytest.mark.parametrize("source",
                         ["y = where(x > 0, x, s * x)", "y = exp(x) + x * (1 - x)", "y = max(x, 0) + s * min(x, 0)",
                                    "y = where(x > 0, 0, where(x < s, x, 1))"])
def test_program_in_place(source: str, count: int, ops: OpSet) -> None:
    """One tensor under two names, and two tensors on one memory."""
    x = numbers((count,), 1)
    apart, same, shared = put(ops, np.full(count, np.nan)), put(ops, x), put(ops, x)
    other = Tensor((count,), ops.dtype)
    other.share(shared)
    program = ops.elementwise(source, ("x", "y"), count)
    program.run({"x": put(ops, x), "y": apart}, s=-0.5)
    program.run({"x": same, "y": same}, s=-0.5)
    program.run({"x": shared, "y": other}, s=-0.5)
    np.testing.assert_array_equal(got(same), got(apart))
    np.testing.assert_array_equal(got(shared), got(apart))


def test_program_runs_again_with_other_scalars(ops: OpSet) -> None:
    program = ops.elementwise("y = max(x, s)", ("x", "y"), 4)
    x, y = put(ops, [-1, 0, 1, 2]), put(ops, np.zeros(4))
    for s in (0.5, -0.5):
        program.run({"x": x, "y": y}, s=s)
        np.testing.assert_array_equal(got(y), np.maximum([-1, 0, 1, 2], s))


def test_program_of_nothing(cpu: CpuOps) -> None:
    empty = put(cpu, np.zeros((0, 3)))
    cpu.elementwise("y = where(x > 0, x, 1)", ("x", "y"), 0).run({"x": empty, "y": empty})


def test_program_keeps_what_lies_beyond_a_smaller_shape(cpu: CpuOps) -> None:
    big = put(cpu, np.arange(10))
    small = Tensor((10,), np.float32)
    small.share(big)
    small.reshape((4,))
    cpu.elementwise("y = 0", ("y",), 4).run({"y": small})
    np.testing.assert_array_equal(got(big), [0, 0, 0, 0, 4, 5, 6, 7, 8, 9])


# ---- threads ----------------------------------------------------------------------------------------------


def blas_threads() -> list[int]:
    """Threads that each BLAS library of the process would take now."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_split() -> None:
    assert split(0, 4) == []
    assert split(4, 4) == [(0, 4)]
    assert split(9, 4) == [(0, 4), (4, 8), (8, 9)]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("chunks", [0, 1, 2, 7])
def test_threads_run_each_chunk_once_on_its_worker(count: int, chunks: int) -> None:
    done: list[tuple[int, int]] = []
    Threads(count).run(lambda index, worker: done.append((index, worker)), chunks)
    assert sorted(done) == [(i, i % min(count, max(chunks, 1))) for i in range(chunks)]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, 1, 2, 5])
def test_errors_in_workers_arrive(count: int, bad: int) -> None:
    threads, before = Threads(count), blas_threads()
    done: list[int] = []

    def work(index: int, worker: int) -> None:
        if index == bad:
            raise ArithmeticError(f"chunk {index}")
        done.append(index)

    with pytest.raises(ArithmeticError, match=f"chunk {bad}"):
        threads.run(work, 6)
    assert blas_threads() == before
    # Nothing is still running, and the pool works on.
    seen = len(done)
    threads.run(lambda index, worker: done.append(index), 4)
    assert len(done) == seen + 4


def test_error_waits_for_the_other_workers() -> None:
    import time

    finished: list[int] = []

    def work(index: int, worker: int) -> None:
        if index < 2:
            raise ArithmeticError("early")
        time.sleep(0.05)
        finished.append(index)

    with pytest.raises(ArithmeticError):
        Threads(3).run(work, 3)
    assert finished == [2]


def test_blas_is_single_threaded_inside_and_restored() -> None:
    inside: list[list[int]] = []
    threads = Threads(2)
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        assert before and set(before) == {2}
        threads.run(lambda index, worker: inside.append(blas_threads()), 2)
        assert blas_threads() == before
        threads.run_here(lambda index, worker: inside.append(blas_threads()), 1)
        assert blas_threads() == before
        with pytest.raises(ArithmeticError):
            threads.run_here(lambda index, worker: 1 // 0, 1)
        assert blas_threads() == before
    assert inside == [[1] * len(before)] * 3


@pytest.mark.parametrize("count", [0, -2])
def test_number_of_threads(count: int) -> None:
    with pytest.raises(UnsupportedError, match=f"{count} threads; give 1 or more"):
        Threads(count)
    assert Threads().count >= 1


def test_dtypes() -> None:
    with pytest.raises(UnsupportedError, match="float32 or float64, not int32"):
        CpuOps(np.int32)
    assert "2 thread(s), float64" in CpuOps(np.float64, 2).describe()


def everything(ops: CpuOps) -> list[Array]:
    """Results of the primitives that are cut over threads, at sizes where they are."""
    g = ConvolutionGeometry(6, 8, 16, (24, 20), (3, 3), (1, 1), (1, 1), (1, 1))
    x, w, dy = put(ops, numbers(g.x_shape, 1)), put(ops, numbers(g.w_shape, 2)), put(ops, numbers(g.y_shape, 3))
    y, dx, dw = (put(ops, np.zeros(shape)) for shape in (g.y_shape, g.x_shape, g.w_shape))
    conv = ops.convolution(g)
    conv.forward(x, w, None, y)
    conv.grad_input(dy, w, dx)
    conv.grad_weight(x, dy, dw)
    shape = (40, 16, 31 * 29)
    big, other, result = put(ops, numbers(shape, 4)), put(ops, numbers(shape, 5)), put(ops, np.zeros(shape))
    vector, mean, variance = (put(ops, np.zeros(16)) for _ in range(3))
    ops.broadcast(AxisGeometry(*shape)).gradients(other, big, mean, None, vector, variance)
    norm = ops.batch_norm(AxisGeometry(*shape), 1e-5)
    norm.forward_train(big, mean, variance, result)
    norm.backward_train(other, other)
    product = put(ops, np.zeros((300, 200)))
    ops.gemm(GemmShape(300, 200, 150), False, False).run(put(ops, numbers((300, 150), 6)),
                                                         put(ops, numbers((150, 200), 7)), product)
    return [got(t) for t in (y, dx, dw, vector, mean, variance, result, other, product)]


def test_results_repeat_for_a_number_of_threads() -> None:
    by_threads = {threads: everything(CpuOps(np.float32, threads)) for threads in (1, 2, 3)}
    for threads, results in by_threads.items():
        for one, two in zip(results, everything(CpuOps(np.float32, threads)), strict=True):
            np.testing.assert_array_equal(one, two)
        for one, two in zip(by_threads[1], results, strict=True):
            assert_close(two, one, 65536)


# ---- workspaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_unrolled_matrix_stays_small(threads: int) -> None:
    """The second convolution of VGG-16: unrolled, one image alone would take 110 MiB."""
    g = ConvolutionGeometry(1, 64, 64, (224, 224), (3, 3), (1, 1), (1, 1), (1, 1))
    primitive = CpuOps(np.float32, threads).convolution(g)
    assert 4 * g.depth * g.pixels > 110 << 20
    # For each pass: columns of the chunk, and framed input, product and weight gradients, which are smaller.
    assert 0 < primitive.workspace_bytes < threads * 4 * (CHUNK_COLUMN_BYTES + 8 * g.depth * g.out_channels)


def test_workspace_does_not_grow_with_the_batch() -> None:
    def bytes_for(batch: int) -> int:
        g = ConvolutionGeometry(batch, 16, 32, (14, 14), (3, 3), (1, 1), (1, 1), (1, 1))
        return CpuOps(np.float32, 2).convolution(g).workspace_bytes

    assert bytes_for(512) <= 1.5 * bytes_for(32)


def test_workspaces_of_other_primitives(cpu: CpuOps) -> None:
    assert cpu.combine("MAX", (1.0, 1.0), 100).workspace_bytes == 400
    assert cpu.combine("SUM", (1.0, 1.0), 100).workspace_bytes == 0
    assert cpu.dropout(100, 0.5).workspace_bytes == 100


def test_convolution_of_an_empty_batch(cpu: CpuOps) -> None:
    g = ConvolutionGeometry(0, 2, 3, (4, 4), (3, 3), (1, 1), (0, 0), (1, 1))
    primitive = cpu.convolution(g)
    x, w, y, dw = (put(cpu, np.ones(shape)) for shape in (g.x_shape, g.w_shape, g.y_shape, g.w_shape))
    primitive.forward(x, w, None, y)
    primitive.grad_input(y, w, x)
    primitive.grad_weight(x, y, dw)
    np.testing.assert_array_equal(got(dw), np.ones(g.w_shape))
