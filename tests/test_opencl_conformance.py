"""Every layer on OpenCL against figures that Caffe 1.0 computed; layers without kernels pass through the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from opencl_device import open_opencl
from test_conformance_layers import SUPPORTED
from test_conformance_layers import test_layer as check_layer

from barista.ops.opencl import OpenCLOps

pytestmark = pytest.mark.opencl


@pytest.fixture(scope="module")
def ops() -> OpenCLOps:
    return open_opencl()


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: case.stem)
def test_layer_on_opencl(case: Path, ops: OpenCLOps) -> None:
    check_layer(case, ops)
