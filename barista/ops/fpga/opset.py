"""The FPGA op set: which convolutions and inner products go to which bitstream."""

from __future__ import annotations

from ...blob import HOST
from ...errors import UnsupportedError
from ...gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from ...schedule import Schedule
from ..base import Convolution, Gemm, OpSet, StageSeconds
from ..hosted import HostedOps, convolution_text, gemm_text
from .convolution import CPU, FpgaConvolution
from .loader import Loader
from .products import FpgaGemm, Machine

TEST = 1


class FpgaOps(HostedOps):
    """Computes matrix products on an array of processing elements, and all else on `host`.

    Parameters
    ----------
    host : an op set whose blobs live in the host's memory, in float32
    loader : has the bitstreams
    default : the bitstream of all convolutions where there is no schedule
    schedule : which bitstream computes each layer and pass; None gives everything to `default`
    inner_products : whether `default` computes inner products too; a schedule says that itself

    Raises
    ------
    UnsupportedError : float64, or a host op set with a memory of its own
    BitstreamError : the schedule names a bitstream that the loader does not have
    """

    name = "fpga"
    space = HOST

    def __init__(self, host: OpSet, loader: Loader, default: str = "", schedule: Schedule | None = None,
                 inner_products: bool = False) -> None:
        super().__init__(host)
        if host.space is not HOST:
            raise UnsupportedError(f"the fpga op set stands on one in the host's memory, not on {host.space.name}")
        if self.dtype.itemsize != 4:
            raise UnsupportedError(f"the fpga op set computes in float32, not {self.dtype}; use the cpu backend")
        self.loader = loader
        self.schedule = schedule
        self._default = default
        if schedule is not None:
            self._inner_products = schedule.inner_products
        else:
            self._inner_products = default if inner_products else ""
        self._machine = Machine(loader)
        for name in [default] if schedule is None else schedule.bitstreams:
            loader.kind(name)

    def describe(self) -> str:
        if self.schedule is not None:
            names = self.schedule.bitstreams
            plan = f"{len(names)} bitstream(s) by {self.schedule.source}"
        else:
            tiles, fmt = self.loader.kind(self._default)
            plan = f"bitstream {self._default} (tile {tiles}, {fmt.name})"
        return f"FPGA: {self.loader.device}, {plan}; the rest on {self.host.describe()}"

    def summary(self) -> str:
        return (f"Bitstreams: {self.loader.current or 'none'} is on the {self.loader.device}; {self.loader.swaps} "
                f"swap(s), {self.loader.load_s:.3f} s of loading")

    def take_stages(self) -> StageSeconds:
        return self._machine.clock.take()

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        if not self._inner_products:
            return self.on_host("gemm", gemm_text(shape), self.host.gemm(shape, trans_a, trans_b),
                                "inner products were not asked for on the array")
        return self.placed("gemm", gemm_text(shape), FpgaGemm(shape, trans_a, trans_b, self._machine,
                                                              self._inner_products, self.owner.layer))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        """A convolution as the schedule has it for the current owner.

        Raises
        ------
        ScheduleError : it was made for another net or batch, or does not know the layer
        """
        text, plan = convolution_text(geometry), self._plan(geometry)
        host = self.host.convolution(geometry) if CPU in plan.values() else None
        if host is not None and set(plan.values()) == {CPU}:
            return self.on_host("convolution", text, host, "the schedule says so")
        return self.placed("convolution", text, FpgaConvolution(geometry, self.dtype, plan, self._machine,
                                                                self.owner.layer, host))

    def _plan(self, geometry: ConvolutionGeometry) -> dict[Pass, str]:
        """For each pass a bitstream's name, or `CPU`."""
        if self.schedule is None:
            return dict.fromkeys(Pass, self._default)
        self.schedule.check(self.owner.net, None if self.owner.phase == TEST else geometry.batch)
        return {pass_: entry.bitstream or CPU for pass_, entry in self.schedule.passes(self.owner.layer).items()}
