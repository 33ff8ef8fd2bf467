"""Barista's own layer types give on a device what they give on the CPU in float64."""

from __future__ import annotations

import numpy as np
import pytest
from extension_cases import EXTENSIONS, one
from little_nets import Case, Probe
from opencl_device import open_opencl
from test_opencl_functions import close

from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps

pytestmark = pytest.mark.opencl


@pytest.fixture(scope="module")
def device() -> OpenCLOps:
    return open_opencl()


# One of each way: programs are held against the CPU elsewhere, and what falls back to the host is one primitive each.
NAMES = ("binary_both_repeated", "binary_POW", "expand", "pad", "pad_cut", "pad_reflect", "max_nd_indices", "ave_nd",
         "matmul_transposed", "matmul_transposed_left", "matmul_stacks", "reduce_MAX", "reduce_last_MEAN",
         "reduce_LOGSUMEXP", "reduce_all", "slice_steps", "take", "log_softmax", "resize_linear", "function_GELU",
         "function_ROUND", "function_SELU")


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str, device: OpenCLOps, cpu64: CpuOps) -> None:
    case = EXTENSIONS[name]
    here, there = case.net(device), case.net(cpu64)
    for net in (here, there):
        Probe(net, case.dead).backward()
    for blob in here.outputs:
        close(here.blobs[blob].data, there.blobs[blob].data)
    for blob in case.inputs:
        close(here.blobs[blob].diff, there.blobs[blob].diff)


def test_a_reduction_over_nothing(device: OpenCLOps) -> None:
    case = EXTENSIONS["reduce_MAX"]
    net = case.net(device)
    net.blobs["x"].reshape(2, 0, 2, 2)
    net.forward_pass()
    assert net.blobs["y"].shape == (2, 1, 2, 1)
    assert (net.blobs["y"].data == -np.inf).all()


@pytest.mark.parametrize("start", [1, 5])
def test_slices_backwards_and_empty(start: int, device: OpenCLOps) -> None:
    """From 5 on nothing is left."""
    text = one("StridedSlice", f"strided_slice_param {{ axis: [2, 3] start: [{start}, 3] end: [9, -9] step: [3, -2] }}")
    net = Case(text, {"x": (2, 3, 5, 4)}).net(device)
    net.blobs["x"].data[...] = np.arange(120).reshape(2, 3, 5, 4)
    net.forward_pass()
    np.testing.assert_array_equal(net.blobs["y"].data, net.blobs["x"].data[:, :, start:9:3, 3::-2])
