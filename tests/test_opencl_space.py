"""Memory that an OpenCL device shares with the host: no copies, and nobody overtakes anybody."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from opencl_device import open_opencl

from barista.blob import ALIGNMENT_BYTES, HOST, Blob, Tensor
from barista.ops.opencl import OpenCLOps
from barista.runtime.space import MAX_SENT, DeviceArray

pytestmark = pytest.mark.opencl

# Enough work for the device to be behind the host.
COUNT = 1 << 20
ROUNDS = 20


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    ops = open_opencl()
    if not ops.space.shares_host:
        pytest.skip("the device has memory of its own")
    return ops


def add_one(ops: OpenCLOps, x: Tensor) -> None:
    """Enqueue x + 1, many times."""
    program = ops.elementwise("x = x + 1", ("x",), x.count)
    for _ in range(ROUNDS):
        program.run({"x": x})


@pytest.mark.parametrize("count", [0, 1, 7, 1001])
def test_the_device_works_in_the_host_s_array(ops: OpenCLOps, count: int) -> None:
    x = Tensor((count,), ops.dtype)
    held = x.write(HOST)
    held[...] = np.arange(count)
    assert not count or held.ctypes.data % ALIGNMENT_BYTES == 0
    before = ops.space.bytes_in, ops.space.bytes_out
    add_one(ops, x)
    assert isinstance(x.read(ops.space), DeviceArray)
    result = x.read(HOST)
    assert result is held
    np.testing.assert_array_equal(held, np.arange(count) + ROUNDS)
    assert (ops.space.bytes_in, ops.space.bytes_out) == before


def test_reading_waits_for_the_device_and_writing_too(ops: OpenCLOps) -> None:
    blob = Blob((COUNT,), ops.dtype)
    for start in (0, 1000, -5):
        blob.data[...] = start  # pycaffe's way; the device may still be at work on what was there
        add_one(ops, blob.value)
        blob.data[: COUNT // 2] += 100
        add_one(ops, blob.value)
        np.testing.assert_array_equal(blob.data[: COUNT // 2], start + 100 + 2 * ROUNDS)
        np.testing.assert_array_equal(blob.data[COUNT // 2:], start + 2 * ROUNDS)
        add_one(ops, blob.value)


def test_what_is_read_is_not_overwritten_before(ops: OpenCLOps) -> None:
    x, y = Tensor((COUNT,), ops.dtype), Tensor((COUNT,), ops.dtype)
    copy = ops.elementwise("y = x", ("x", "y"), COUNT)
    slow = Tensor((COUNT,), ops.dtype)
    for number in range(5):
        x.write(HOST)[...] = number
        add_one(ops, slow)
        copy.run({"x": x, "y": y})
        x.write(HOST)[...] = -1
        np.testing.assert_array_equal(y.read(HOST), number)


def test_memory_outlives_the_kernels_that_use_it(ops: OpenCLOps) -> None:
    for _ in range(5):
        x = Tensor((COUNT,), ops.dtype)
        x.write(HOST)[...] = 1
        add_one(ops, x)
        del x
        gc.collect()
        np.empty(COUNT, ops.dtype).fill(3)  # would lie where x lay
    ops.finish()


@pytest.mark.parametrize("shared", [True, False])
def test_assigned_arrays_arrive_in_order(shared: bool) -> None:
    ops = open_opencl()
    ops.space.shares_host = shared and ops.space.shares_host
    x, total = Tensor((1000,), ops.dtype), Tensor((1000,), ops.dtype)
    add = ops.elementwise("t = t + x", ("x", "t"), 1000)
    big = Tensor((COUNT,), ops.dtype)
    for number in range(3 * MAX_SENT):
        add_one(ops, big)
        x.assign(np.full(1000, number, ops.dtype), ops.space)
        add.run({"x": x, "t": total})
    np.testing.assert_array_equal(total.read(HOST), sum(range(3 * MAX_SENT)))
    assert ops.space.bytes_in == (0 if ops.space.shares_host else 3 * MAX_SENT * 4000)
