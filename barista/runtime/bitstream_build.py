"""Bitstreams for the emulated board: the kernels of the array, compiled for this machine's OpenCL device."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..errors import UnsupportedError
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import Bitstream, warn_beyond, write
from ..hardware.board import Board
from ..hardware.manifest import CSIM, KERNELS, check_build
from ..precision.formats import number_format
from ..resources import find
from .bitstream_program import device_identity
from .context import Context
from .driver import cl
from .errors import device_error

log = logging.getLogger(__name__)


def build(context: Context, folder: str | Path, tiles: TileSizes, precision: str, board: Board,
          engine: str = "array", name: str = "") -> Bitstream:
    """Compile a kernel for `context`'s device and write the binary with its manifest.

    Parameters
    ----------
    folder : made where it does not exist; a bitstream of the same name is replaced
    precision : name of a number format
    board : an emulated one
    engine : ``array``, the mesh step by step, or ``fast``, its products at a CPU's full speed
    name : what schedules call it; '' takes the standard name

    Raises
    ------
    UnsupportedError : a board that is a card, or tiles, precision or engine that the kernels do not know
    DeviceError : the kernel does not build; the message holds the compiler's log
    BitstreamError : the folder takes no files
    """
    if not board.is_emulated:
        raise UnsupportedError(f"board {board.name}: a bitstream for it is an .xclbin that the vendor's tools build; "
                               "give that a manifest with `barista bitstream import`, or build for the board emulated")
    check_build(tiles, engine)
    if engine == CSIM:
        raise UnsupportedError(f"engine {CSIM} is no kernel for {context.name}; build it for this machine: "
                               f"`barista bitstream build --engine {CSIM}`")
    fmt = number_format(precision)
    warn_beyond(tiles, fmt, board)
    kernel = KERNELS[engine]
    source = find("opencl_kernels", f"{kernel}.cl").read_text(encoding="utf-8")
    macros = {"TR": tiles.tr, "TC": tiles.tc, "TP": tiles.tp, "PRECISION": fmt.bits}
    if engine == "array":
        macros["S"] = fmt.partial_sums - 1
    program = context.programs.build(f"{kernel}.cl", source, macros)
    from .. import __version__  # the package's own module imports all others

    try:
        _run_once(context, program, kernel, tiles)
        binary: bytes = program.get_info(cl.program_info.BINARIES)[0]  # type: ignore[index]
    except cl.Error as error:
        raise device_error(error, f"{context.name}: taking the binary of {kernel}.cl") from error
    return write(folder, binary, tiles, precision, board, engine=engine, device=device_identity(context.device),
                 tools={"barista": __version__, "platform": f"{context.device.platform.name.strip()} "
                                                            f"{context.device.platform.version.strip()}",
                        "driver": context.device.driver_version}, name=name)


def _run_once(context: Context, program: cl.Program, kernel: str, tiles: TileSizes) -> None:
    """Multiply one pair of tiles: PoCL compiles to machine code only then, and the binary is to hold that."""
    size = 4 * max(tiles.tp, tiles.tr, tiles.tc) ** 2
    buffers = [cl.Buffer(context.handle, cl.mem_flags.READ_WRITE, size) for _ in range(3)]
    for buffer in buffers:
        cl.enqueue_fill_buffer(context.queue, buffer, np.zeros(1, np.uint8), 0, size)
    bound = cl.Kernel(program, kernel)
    bound.set_args(*buffers, np.int32(1), np.int32(1), np.int32(1))
    cl.enqueue_nd_range_kernel(context.queue, bound, (1,), (1,))
    context.queue.finish()
