"""A bitstream on a device: its binary loaded, its kernel fed with tiles."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BitstreamError, DeviceError
from ..gemm.engine import StageTimes
from ..hardware.bitstream import Bitstream
from .context import Context
from .driver import cl
from .errors import code_name, device_error
from .links import CopyLink, Link, MigrateLink
from .queues import seconds

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

# Parts that a product is cut into where the device computes on its own: while it works on one, the next
# travels to it and the last one back.  Two sets of buffers serve any number of parts.
PARTS = 4
_SETS = 2


def device_identity(device: cl.Device) -> str:
    """What a binary is for: the device's name and the versions of its driver and compiler."""
    return " / ".join((device.name.strip(), device.platform.version.strip(), device.version.strip()))


def is_xilinx(device: cl.Device) -> bool:
    """Whether Xilinx's runtime drives the device: kernels are tasks there, and buffers are migrated."""
    return "xilinx" in f"{device.platform.name} {device.platform.vendor}".lower()


def load_kernel(context: Context, bitstream: Bitstream) -> cl.Kernel:
    """Load the binary onto the device, which is what programs an FPGA, and return its kernel.

    Raises
    ------
    BitstreamError : the binary is not that of the manifest, is for another board or device, or has no such kernel
    DeviceError : the driver fails for another reason
    """
    manifest, device = bitstream.manifest, context.device
    board = manifest.board
    platform = f"{device.platform.name.strip()} ({device.platform.vendor.strip()})"
    if not board.is_emulated and board.platform.lower() not in platform.lower():
        raise BitstreamError(f"{bitstream.path} is for the board {board.name}, of the platform {board.platform}; "
                             f"{context.name} belongs to {platform}: choose the board with --device, or a bitstream "
                             "for the board emulated")
    binary = bitstream.binary()
    here = device_identity(device)
    if manifest.device and manifest.device != here:
        raise BitstreamError(f"{bitstream.path} is for another device: built for {manifest.device}, this is {here}; "
                             "build it again on this machine")
    try:
        program = cl.Program(context.handle, [device], [binary]).build()
    except cl.Error as error:
        if error.code in (cl.status_code.INVALID_BINARY, cl.status_code.INVALID_VALUE):
            raise BitstreamError(f"{bitstream.binary_path}: {context.name} refuses the binary "
                                 f"({code_name(error.code)}); it is for another device or shell: build it again"
                                 ) from error
        raise device_error(error, f"loading {bitstream.binary_path} onto {context.name}") from error
    try:
        return cl.Kernel(program, manifest.kernel)
    except cl.Error as error:
        if error.code == cl.status_code.INVALID_KERNEL_NAME:
            held = program.get_info(cl.program_info.KERNEL_NAMES) or "none"
            raise BitstreamError(f"{bitstream.path}: the binary has no kernel {manifest.kernel!r}; it has {held}; "
                                 "import it again, with --kernel") from error
        raise device_error(error, f"taking the kernel {manifest.kernel} of {bitstream.binary_path}") from error


class DeviceArrayEngine:
    """A `TileArray` that is a loaded bitstream.

    Parameters
    ----------
    context : the device
    bitstream : what to load
    parts : cut a product into this many parts whose transfers and computation overlap; None lets the kind of
        device decide: on a CPU, copies and kernels share the cores and nothing is won
    migrate : migrate buffers instead of copying; None does so where the platform is Xilinx's, and where the device
        works in the host's memory, so that nothing has to travel

    Attributes
    ----------
    name, tiles, format, overlaps : see `TileArray`
    bitstream : what is loaded

    Raises
    ------
    BitstreamError, DeviceError : see `load_kernel`
    """

    def __init__(self, context: Context, bitstream: Bitstream, *, parts: int | None = None,
                 migrate: bool | None = None) -> None:
        self.bitstream = bitstream
        self.tiles, self.format = bitstream.manifest.tiles, bitstream.manifest.format
        self.name = f"{bitstream.name} on {context.name}"
        self.overlaps = not context.is_cpu
        self._context = context
        self._kernel = load_kernel(context, bitstream)
        xilinx = is_xilinx(context.device)
        self._task = xilinx
        self._parts = parts or (1 if context.is_cpu else PARTS)
        in_place = xilinx or context.shares_host
        self._link: Link = MigrateLink(context) if (in_place if migrate is None else migrate) else CopyLink(context)
        self._to_device, self._compute, self._to_host = (context.measuring_queue() for _ in range(3))
        log.debug("loaded %s", self.name)

    def begin(self, nr: int, nc: int, np_: int) -> tuple[int, int]:
        """Largest block of tiles that fits: each operand in one allocation, all in half of the device's memory."""
        self._link.begin()
        t, storage, sums = self.tiles, self.format.storage_dtype.itemsize, self.format.accumulator_dtype.itemsize
        device = self._context.device
        one = min(device.max_mem_alloc_size, device.global_mem_size // 2 // 3 // _SETS)
        columns = max(1, min(nc, one // (np_ * t.tp * t.tc * storage)))
        rows = max(1, min(nr, one // (np_ * t.tp * t.tr * storage), one // (columns * t.tr * t.tc * sums)))
        return rows, columns

    def multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        """See `TileArray.multiply`."""
        t = self.tiles
        for name, array, dtype, shape in (("A", a_tiles, self.format.storage_dtype, t.a_shape(nr, np_)),
                                          ("B", b_tiles, self.format.storage_dtype, t.b_shape(nc, np_)),
                                          ("C", c_tiles, self.format.accumulator_dtype, t.c_shape(nr, nc))):
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                raise DeviceError(f"{self.name}: the tiles of {name} are {array.dtype} of {array.shape}, where "
                                  f"contiguous {dtype} of {shape} are expected")
        try:
            return self._multiply(a_tiles, b_tiles, c_tiles, nr, nc, np_)
        except cl.Error as error:
            self._link.release()  # nobody knows what arrived, and a smaller block needs the memory
            moved = a_tiles.nbytes + b_tiles.nbytes + c_tiles.nbytes
            raise device_error(error, f"{self.name}: a product of {nr} x {nc} tiles along {np_} ({moved} bytes)"
                               ) from error

    def _multiply(self, a_tiles: Array, b_tiles: Array, c_tiles: Array, nr: int, nc: int, np_: int) -> StageTimes:
        writes: list[cl.Event] = []
        kernels: list[cl.Event] = []
        reads: list[cl.Event] = []
        b_buffer, b_there = self._link.send(self._to_device, "b", b_tiles, ())
        writes += b_there
        step = -(-nr // min(self._parts, nr))
        for part, first in enumerate(range(0, nr, step)):
            a_part, c_part, rows = a_tiles[first:first + step], c_tiles[first:first + step], min(step, nr - first)
            a_slot, c_slot = f"a{part % _SETS}", f"c{part % _SETS}"
            # A set of buffers is free again when the part before last has been computed and fetched.
            read_by, fetched_by = (kernels[part - _SETS:part - _SETS + 1], reads[part - _SETS:part - _SETS + 1]) \
                if part >= _SETS else ([], [])
            a_buffer, a_there = self._link.send(self._to_device, a_slot, a_part, read_by)
            writes += a_there
            c_buffer = self._link.room(c_slot, c_part)
            self._kernel.set_args(a_buffer, b_buffer, c_buffer, np.int32(rows), np.int32(nc), np.int32(np_))
            range_ = (1,) if self._task else (rows * nc,)
            kernels.append(cl.enqueue_nd_range_kernel(
                self._compute, self._kernel, range_, (1,) if self._task or self._context.is_cpu else None,
                wait_for=[*b_there, *a_there, *fetched_by]))
            reads.append(self._link.fetch(self._to_host, c_slot, c_part, [kernels[-1]]))
            for queue in (self._to_device, self._compute, self._to_host):
                queue.flush()
        reads[-1].wait()  # in order: all others are done
        return StageTimes(write=seconds(writes), kernel=seconds(kernels), read=seconds(reads))
