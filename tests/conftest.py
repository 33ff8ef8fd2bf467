"""What all tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from opencl_device import open_opencl

from barista import rng
from barista.compose import make_ops
from barista.data.digits import digits_to_lmdb
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

# The same examples in every run, and no limit on the time of one: a busy machine fails no test.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

GOLDEN = Path(__file__).parent / "golden"


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
                                         pytest.param("fpga", marks=pytest.mark.opencl)])
def ops(request: pytest.FixtureRequest) -> OpSet:
    """Every op set in float32, for the tests of the contract."""
    if request.param == "opencl":
        return open_opencl()
    return make_ops(request.param, inner_products=True) if request.param == "fpga" else make_ops(request.param)
