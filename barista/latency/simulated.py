"""Predictions of both latency models held against the cycle-level simulator, pass by pass, in cycles of the kernel."""

from __future__ import annotations

from ..gemm.shapes import ConvolutionGeometry, Pass
from ..gemm.tiles import TileSizes
from .conv_model import ConvAssumptions, conv_latency
from .gemm_model import GemmAssumptions, gemm_latency
from .refined import refined_conv_latency, refined_gemm_latency
from .simulator.settings import SimulatorSettings
from .simulator.workloads import simulate_conv_pass, simulate_gemm_pass
from .validation import Comparison
from .workload import Workload

CONV_MODELS = {"convolution, equations": conv_latency, "convolution, refined": refined_conv_latency}
GEMM_MODELS = {"product, equations": gemm_latency, "product, refined": refined_gemm_latency}

# The designs of the thesis: 250 MHz (section 4.3) and 100 MHz (section 5.6.1).
GEMM_SETTINGS = SimulatorSettings(clock_hz=250e6)
CONV_SETTINGS = SimulatorSettings(clock_hz=100e6)

Key = tuple[ConvolutionGeometry, Pass, TileSizes | tuple[int, int]]


class SimulatorComparison:
    """Simulates passes and predicts them; passes of one shape are simulated once.

    Parameters
    ----------
    gemm, conv : settings of Barista's array and of FPGPT's
    """

    def __init__(self, gemm: SimulatorSettings = GEMM_SETTINGS, conv: SimulatorSettings = CONV_SETTINGS) -> None:
        self._gemm, self._conv = gemm, conv
        self._cycles: dict[Key, int] = {}

    def products(self, workload: Workload, tiles: TileSizes) -> list[Comparison]:
        """One product of a pass on Barista's array, by each model.

        Raises
        ------
        MissingExtraError : Numba is not installed
        BaristaError : the simulator computed something wrong
        """
        s = self._gemm
        key = (workload.geometry, workload.pass_, tiles)
        if key not in self._cycles:
            self._cycles[key] = simulate_gemm_pass(workload, tiles, s)[0].cycles
        shape = workload.geometry.gemm(workload.pass_)
        # Transfers are no part of the kernel: any rate will do.
        assumptions = GemmAssumptions(s.clock_hz, s.dram_bytes_per_s, s.pcie_bytes_per_s or 1e9,
                                      partial_sums=s.partial_sums)
        return [_comparison(model, workload, f"tiles {tiles}", self._cycles[key], s.clock_hz * float(
                    latency(shape.m, shape.n, shape.k, tiles.tr, tiles.tc, tiles.tp, assumptions).kernel_s))
                for model, latency in GEMM_MODELS.items()]

    def convolutions(self, workload: Workload, x: int, y: int) -> list[Comparison]:
        """A pass on FPGPT's array of X columns and Y rows, by each model.

        Raises
        ------
        MissingExtraError, BaristaError : as `products`
        UnsupportedError : a convolution that has not two spatial axes
        """
        s = self._conv
        key = (workload.geometry, workload.pass_, (x, y))
        if key not in self._cycles:
            self._cycles[key] = simulate_conv_pass(workload, x, y, s).cycles
        assumptions = ConvAssumptions(s.band, s.clock_hz, s.axi_latency_cycles)
        return [_comparison(model, workload, f"X {x}, Y {y}", self._cycles[key], float(
                    latency(workload.geometry, workload.pass_, x, y, assumptions).total_cycles))
                for model, latency in CONV_MODELS.items()]


def _comparison(model: str, workload: Workload, configuration: str, simulated: int, predicted: float) -> Comparison:
    return Comparison(model, workload.layer, workload.pass_.value, configuration, "total", "cycles", predicted,
                      float(simulated))
