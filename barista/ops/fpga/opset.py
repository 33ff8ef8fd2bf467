"""The FPGA op set: which convolutions and inner products go to which bitstream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ...blob import HOST
from ...errors import BitstreamError, ScheduleError, UnsupportedError
from ...gemm.shapes import ConvolutionGeometry, GemmShape, Pass
from ...hardware.manifest import CSIM
from ...schedule import CPU, FPGA, OPENCL, Entry, Schedule
from ..base import Convolution, Gemm, OpSet, StageSeconds
from ..hosted import HostedOps, convolution_text, gemm_text
from ..scheduled import TEST, ScheduledConvolution, passes_on, placement, require_fit
from .borrowed import BorrowedConvolution
from .convolution import FpgaConvolution
from .loader import Loader
from .products import FpgaGemm, Machine
from .whole import WholeConvolution

log = logging.getLogger(__name__)


class FpgaOps(HostedOps):
    """Computes matrix products or whole convolutions on an array of processing elements, and all else on `host`.

    Parameters
    ----------
    host : an op set in float32 whose blobs live in the host's memory, or of a device that works there
    loader : has the bitstreams
    default : the bitstream of all convolutions where there is no schedule
    schedule : which bitstream computes each layer and pass; None gives everything to `default`
    inner_products : whether `default` computes inner products too; a schedule says that itself
    open_opencl : opens the op set of the schedule's passes with engine opencl; called only where it has such passes

    Raises
    ------
    UnsupportedError : float64, a host op set with a memory of its own, or engine opencl without `open_opencl`
    BitstreamError : the schedule names a bitstream that the loader does not have, or inner products are asked for on
        one that takes whole convolutions
    ScheduleError : it unrolls columns where its bitstream does not
    """

    name = "fpga"
    space = HOST

    def __init__(self, host: OpSet, loader: Loader, default: str = "", schedule: Schedule | None = None,
                 inner_products: bool = False, open_opencl: Callable[[], OpSet] | None = None) -> None:
        super().__init__(host)
        if host.space is not HOST and not host.space.shares_host:
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
        if schedule is None:
            loader.kind(default)
        else:
            _require_bitstreams(schedule, loader)
        if self._inner_products:
            loader.tiles(self._inner_products)
        # Passes of convolutions that their array is too small for, and why, by net, phase and layer: whether they run
        # is known when the net is complete.
        self._unfit: dict[tuple[str, int, str], dict[Pass, UnsupportedError]] = {}
        # The op sets beside the array, by the name of their engine.
        self._others: dict[str, OpSet] = {CPU: host.parts[-1]}
        if schedule is not None and any(entry.engine == OPENCL for entry in schedule.entries):
            if open_opencl is None:
                raise UnsupportedError(f"{schedule.source} has passes with engine {OPENCL}, and no OpenCL op set was "
                                       "given; open the backend by its name: make_ops('fpga', ...)")
            self._others[OPENCL] = open_opencl()

    def describe(self) -> str:
        if self.schedule is not None:
            names = self.schedule.bitstreams
            plan = f"{len(names)} bitstream(s) by {self.schedule.source}"
            if OPENCL in self._others:
                plan += f", passes on {self._others[OPENCL].describe()}"
        else:
            array, fmt = self.loader.kind(self._default)
            kind = "whole convolutions, array" if self.loader.is_whole(self._default) else "tile"
            plan = f"bitstream {self._default} ({kind} {array}, {fmt.name})"
        return f"FPGA: {self.loader.device}, {plan}; the rest on {self.host.describe()}"

    @property
    def parts(self) -> tuple[OpSet, ...]:
        return (self, *(part for ops in self._others.values() for part in ops.parts))

    @property
    def scratch_bytes(self) -> int:
        return sum(self._machine.tile_bytes.values())

    def say_host(self, op: str, reason: str = "") -> None:
        """Say it only with a reason: that all but convolutions and products runs on the host is by design."""
        if reason:
            super().say_host(op, reason)

    def summary(self) -> str:
        return (f"Bitstreams: {self.loader.current or 'none'} is on the {self.loader.device}; {self.loader.swaps} "
                f"swap(s), {self.loader.load_s:.3f} s of loading")

    def check_net(self, net: str, phase: int, passes: Mapping[str, frozenset[Pass]]) -> None:
        beside: Mapping[str, frozenset[Pass]] = {}
        if self.schedule is not None:
            self.schedule.check(net, None)
            require_fit(self.schedule, net, passes, phase != TEST)
            for line in placement(self.schedule, passes):
                log.info("%s", line)
            beside = passes_on(self.schedule, OPENCL, passes)
        for layer, run in passes.items():
            for pass_, error in self._unfit.get((net, phase, layer), {}).items():
                if pass_ in run:
                    raise UnsupportedError(f"{layer}: {error}")
        for ops in dict.fromkeys((self.host, *self._others.values())):
            ops.check_net(net, phase, beside if ops is self._others.get(OPENCL) else {})

    def measure(self) -> None:
        for ops in self._others.values():
            ops.measure()

    def take_stages(self) -> StageSeconds:
        return self._machine.clock.take()

    def gemm(self, shape: GemmShape, trans_a: bool, trans_b: bool) -> Gemm:
        if not self._inner_products:
            reason = "inner products were not asked for on the array" if self.schedule is None else \
                f"{self.schedule.source} names no bitstream for inner_products"
            return self.on_host("gemm", gemm_text(shape), self.host.gemm(shape, trans_a, trans_b), reason)
        return self.placed("gemm", gemm_text(shape), FpgaGemm(shape, trans_a, trans_b, self._machine,
                                                              self._inner_products, self.owner))

    def convolution(self, geometry: ConvolutionGeometry) -> Convolution:
        """A convolution as the schedule has it for the current owner.

        Raises
        ------
        ScheduleError : it was made for another net or batch, or does not know the layer
        """
        text = convolution_text(geometry)
        if self.schedule is None:
            return self.placed("convolution", text, self._on_array(geometry, dict.fromkeys(Pass, self._default)))
        self.schedule.check(self.owner.net, None if self.owner.phase == TEST else geometry.batch)
        return self.placed("convolution", text, self._scheduled(geometry, self.schedule.passes(self.owner.layer)))

    def _on_array(self, geometry: ConvolutionGeometry, bitstreams: Mapping[Pass, str]) -> Convolution:
        """A convolution on bitstreams of one kind."""
        if not all(self.loader.is_whole(name) for name in bitstreams.values()):
            return FpgaConvolution(geometry, self.dtype, bitstreams, self._machine, self.owner.layer)
        whole = WholeConvolution(geometry, bitstreams, self._machine, self.owner.layer)
        self._unfit[self.owner.net, self.owner.phase, self.owner.layer] = whole.unfit
        return whole

    def _scheduled(self, geometry: ConvolutionGeometry, entries: Mapping[Pass, Entry]) -> ScheduledConvolution:
        """Each pass on its engine; those of one engine, on the array of one kind of bitstream, share a convolution."""
        kinds = {pass_: (entry.engine, entry.engine == FPGA and self.loader.is_whole(entry.bitstream))
                 for pass_, entry in entries.items()}
        made: dict[tuple[str, bool], Convolution] = {}
        for kind in dict.fromkeys(kinds.values()):
            engine, _ = kind
            if engine == FPGA:
                bitstreams = {pass_: entry.bitstream for pass_, entry in entries.items() if kinds[pass_] == kind}
                made[kind] = self.use(self._on_array(geometry, bitstreams))
            else:
                ops = self._others[engine]
                ops.owner = self.owner
                made[kind] = BorrowedConvolution(ops, ops.convolution(geometry), self._machine.clock, self.owner.layer)
        return ScheduledConvolution({pass_: made[kind] for pass_, kind in kinds.items()},
                                    {pass_: entry.bitstream or entry.engine for pass_, entry in entries.items()})


def _require_bitstreams(schedule: Schedule, loader: Loader) -> None:
    """Hold the bitstreams of a schedule against those that there are.

    Raises
    ------
    BitstreamError : one is not there, or inner products are on one that takes whole convolutions; says where
    ScheduleError : columns are unrolled where the bitstream does not do so
    """
    names = [(f"{entry.layer} {entry.pass_.value}", entry.bitstream) for entry in schedule.entries]
    for where, name in [*names, ("inner_products", schedule.inner_products)]:
        if name:
            try:
                loader.kind(name)
            except BitstreamError as error:
                hint = f"; build it: barista bitstream build --engine {CSIM} --from-schedule {schedule.source}" \
                    if name in schedule.designs else ""
                raise BitstreamError(f"{schedule.source}: {where}: {error}{hint}") from None
    for entry in schedule.entries:
        if entry.engine == FPGA:
            whole = loader.is_whole(entry.bitstream)
            place, takes = ("device", "whole convolutions") if whole else ("host", "matrix products")
            if entry.im2col not in ("", place):
                raise ScheduleError(f"{schedule.source}: {entry.layer} {entry.pass_.value}: im2col {entry.im2col!r} "
                                    f"does not go with the bitstream {entry.bitstream}, which takes {takes}: columns "
                                    f"are unrolled on the {place}; give {place!r} or leave it out")
    if schedule.inner_products:
        try:
            loader.tiles(schedule.inner_products)
        except BitstreamError as error:
            raise BitstreamError(f"{schedule.source}: inner_products: {error}") from None
