"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from barista import rng
from barista.ops.cpu import CpuOps

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts the random generators anew."""
    rng.set_seed(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Figures that Caffe itself computed."""
    return GOLDEN


@pytest.fixture(scope="session")
def cpu() -> CpuOps:
    """The CPU op set in float32."""
    return CpuOps(np.float32)


@pytest.fixture(scope="session")
def cpu64() -> CpuOps:
    """The CPU op set in float64, for gradient checks."""
    return CpuOps(np.float64)
