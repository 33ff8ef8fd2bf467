"""What all tests share."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from opencl_device import open_opencl

from barista import rng
from barista.compose import make_ops
from barista.data.digits import digits_to_lmdb
from barista.errors import BaristaError
from barista.gemm.tiles import TileSizes
from barista.hardware.board import load_board
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.synthesis import csim_build, toolchain
from barista.synthesis.gemm_design import GemmDesign

# The same examples in every run, and no limit on the time of one: a busy machine fails no test.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

# Tiles of the array on which the HLS code runs the tests of the contract.
CSIM_TILES = TileSizes(16, 16, 64)

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def _no_hls() -> str:
    """Why HLS code cannot be compiled here, or ''."""
    try:
        toolchain.tools()
    except BaristaError as error:
        return str(error)
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """C-simulation needs a compiler, which is not asked of everybody; `make hls-test` asks."""
    if item.get_closest_marker("hls") is not None and (reason := _no_hls()):
        if os.environ.get("BARISTA_REQUIRE_HLS") == "1":
            pytest.fail(f"{reason}; BARISTA_REQUIRE_HLS=1 does not let this test be skipped", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts the random generators anew."""
    rng.set_seed(1)


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    """Commands set up the log of the process, in fixtures too: take it down before and after every test."""
    logger = logging.getLogger("barista")

    def restore() -> None:
        logger.setLevel(logging.NOTSET)
        logger.handlers[:] = []

    restore()
    yield
    restore()


@pytest.fixture(autouse=True)
def _measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes a convolution depends neither on the clock nor on what the user's cache folder holds."""
    monkeypatch.setenv("BARISTA_MEASURE", "0")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Figures that Caffe itself computed."""
    return GOLDEN


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with handwritten digits as LMDB."""
    folder = tmp_path_factory.mktemp("digits")
    digits_to_lmdb(folder)
    return folder


@pytest.fixture(scope="session")
def cpu() -> CpuOps:
    """The CPU op set in float32."""
    return CpuOps(np.float32)


@pytest.fixture(scope="session")
def cpu64() -> CpuOps:
    """The CPU op set in float64, for gradient checks."""
    return CpuOps(np.float64)


@pytest.fixture(scope="session", params=["cpu", pytest.param("opencl", marks=pytest.mark.opencl),
                                         pytest.param("fpga", marks=pytest.mark.opencl),
                                         pytest.param("csim", marks=[pytest.mark.hls, pytest.mark.slow])])
def ops(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpSet:
    """Every op set in float32, for the tests of the contract; `csim` is the FPGA's on the HLS code of its array."""
    if request.param == "csim":
        bitstream = csim_build.build(tmp_path_factory.mktemp("csim"), GemmDesign(CSIM_TILES, "fp32"),
                                     load_board("emulated"))
        return make_ops("fpga", bitstream=bitstream.path, inner_products=True)
    if request.param == "opencl":
        return open_opencl()
    return make_ops(request.param, inner_products=True) if request.param == "fpga" else make_ops(request.param)
