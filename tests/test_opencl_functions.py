"""Layers that are made of programs and sums give on a device what they give on the CPU in float64."""

from __future__ import annotations

import numpy as np
import pytest
from function_cases import FUNCTIONS, FUNCTIONS_IN_PLACE
from little_nets import Case, Probe, inputs, layer, make
from opencl_device import open_opencl

from barista.ops.cpu import CpuOps
from barista.ops.opencl import OpenCLOps

pytestmark = pytest.mark.opencl


@pytest.fixture(scope="module")
def device() -> OpenCLOps:
    return open_opencl()


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    largest = float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 * max(1.0, largest))


IN_PLACE = {f"in_place_{name}": Case(layer("Power", "x", "h", "power_param { scale: 1.5 }", "before") + text,
                                     {"x": (2, 3, 2, 2)}) for name, text in FUNCTIONS_IN_PLACE.items()}
# Programs alone are held against the CPU elsewhere: these are sums and broadcasts too.
ALONE = ("absval", "bnll", "clip", "exp", "log", "power", "swish", "relu6")
CASES = {name: case for name, case in {**FUNCTIONS, **IN_PLACE}.items() if not name.startswith(ALONE)}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward(name: str, device: OpenCLOps, cpu64: CpuOps) -> None:
    case = CASES[name]
    one, other = case.net(device), case.net(cpu64)
    for net in (one, other):
        Probe(net, case.dead).backward()
    for blob in one.outputs:
        close(one.blobs[blob].data, other.blobs[blob].data)
    for blob in case.inputs:
        if blob not in case.fixed:
            close(one.blobs[blob].diff, other.blobs[blob].diff)
    for a, b in zip(one.learnable, other.learnable, strict=True):
        close(a.blob.diff, b.blob.diff)


def test_contrastive_loss_stays_on_the_device(cpu64: CpuOps) -> None:
    """Pairs that are not similar too, whose gradient no difference confirms: Caffe adds 0.0001 to the distance."""
    device = open_opencl()
    text = inputs(a=(37, 5), b=(37, 5), t=(37,)) + layer("ContrastiveLoss", "a b t",
                                                         more="contrastive_loss_param { margin: 2.5 }")
    rng = np.random.default_rng(1)
    values = {"a": rng.uniform(-1, 1, (37, 5)), "b": rng.uniform(-1, 1, (37, 5)), "t": rng.integers(0, 2, 37)}
    one, other = (make(text, ops) for ops in (device, cpu64))
    for net in (one, other):
        for name, value in values.items():
            net.blobs[name].data[...] = value
        net.forward_pass()
        net.backward_pass()
    for name in "ab":
        close(one.blobs[name].diff, other.blobs[name].diff)
    assert one.loss() == pytest.approx(other.loss(), rel=1e-5)
    assert {placement.where for placement in device.placement} == {device.space.name}
