"""From a path to a loader: the device, its bitstreams, and the one that is built where none is given.

OpenCL is imported when a bitstream needs it: those of engine csim run on the processor without any.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ... import resources
from ...errors import BitstreamError, DeviceError
from ...gemm.tiles import TileSizes
from ...hardware.bitstream import SUFFIX, Bitstream, standard_name
from ...hardware.board import EMULATED, BoardSummary, load_board
from ...hardware.library import Library
from ...hardware.manifest import CONV, CSIM, KERNELS
from ...synthesis.toolchain import machine
from .loader import AnyArray, Loader

if TYPE_CHECKING:
    from ...runtime.context import Context

log = logging.getLogger(__name__)

# The bitstream of those who bring none, for the emulated board. Measured over products of LeNet and CIFAR-10 full on
# two cores: of ten tiles (8,32,16 to 32,32,64) the fastest kernel; with Tp = 64 products along 32 filters or 25 weights
# take twice as long, half of it zeros.
TILES = TileSizes(16, 16, 16)
PRECISION = "fp32"
ENGINE = "fast"


def open_loader(path: str | os.PathLike[str] | None = None, device: str | None = None) -> tuple[Loader, str]:
    """Open the device of some bitstreams, where they need one.

    Parameters
    ----------
    path : a manifest, its binary, or a folder of them; None builds one for the emulated board
    device : which OpenCL device, see `runtime.devices.select`; None takes that of the bitstreams' board

    Returns
    -------
    (loader, default) : the name of the only bitstream, or '' where there are several

    Raises
    ------
    BitstreamError : no bitstream there, bitstreams of several boards, or one that takes whole convolutions on a card
    DeviceError, MissingExtraError : no such device
    """
    context: Context | None = None
    if path is None:
        from ...runtime.context import Context as Opened

        context = Opened(device)
        library = Library(_built(context))
    else:
        library = Library(Path(path))
    boards = {bitstream.manifest.board.name: bitstream.manifest.board for bitstream in library.bitstreams.values()}
    if len(boards) > 1:
        raise BitstreamError(f"{library.folder} holds bitstreams of the boards {' and '.join(sorted(boards))}; give "
                             "those of one board a folder of their own")
    [board] = boards.values()
    simulated = {name: bitstream.manifest.is_simulated for name, bitstream in library.bitstreams.items()}
    if path is not None:
        for bitstream in library.bitstreams.values():
            _require_runnable(bitstream)
            bitstream.require_binary()
        if not all(simulated.values()):
            context = _context(board, device)

    def load(name: str) -> AnyArray:
        bitstream = library.find(name)
        if context is None or simulated[name]:
            return _simulated(bitstream)
        from ...runtime.bitstream_program import DeviceArrayEngine

        return DeviceArrayEngine(context, bitstream)

    kinds = {name: (bitstream.manifest.array, bitstream.manifest.format)
             for name, bitstream in library.bitstreams.items()}
    names = list(kinds)
    runs_on = [f"C-simulation on {machine()}"] if any(simulated.values()) else []
    if context is not None:
        runs_on.insert(0, context.describe())
    return Loader(kinds, load, f"board {board.name} ({', '.join(runs_on)})"), names[0] if len(names) == 1 else ""


def _simulated(bitstream: Bitstream) -> AnyArray:
    """The array of a bitstream of engine csim."""
    if bitstream.manifest.kind == CONV:
        from ...synthesis.conv_bitstream import SimulatedConvArray

        return SimulatedConvArray(bitstream)
    from ...synthesis.gemm_array import SimulatedArray

    return SimulatedArray(bitstream)


def _require_runnable(bitstream: Bitstream) -> None:
    """Refuse what is known beforehand not to run here.

    Raises
    ------
    BitstreamError : it takes whole convolutions and is for a card
    """
    manifest = bitstream.manifest
    if manifest.kind == CONV and not manifest.is_simulated:
        raise BitstreamError(f"{bitstream.path} takes whole convolutions on the board {manifest.board.name}: Barista "
                             f"runs such arrays in C-simulation alone (barista bitstream build --engine {CSIM}); move "
                             "it into another folder, and take one of a GEMM array for the card")


def _context(board: BoardSummary, device: str | None) -> Context:
    """The device of a board.

    Raises
    ------
    DeviceError : there is none, or it cannot be opened
    """
    from ...runtime.context import Context

    if device is not None or board.is_emulated:
        return Context(device)
    try:
        return Context(board.platform)
    except DeviceError as error:
        raise DeviceError(f"the bitstreams are for the board {board.name}, a card of the OpenCL platform "
                          f"{board.platform}: {error}; install its driver, or build bitstreams for the board {EMULATED}"
                          ) from error


def cache_folder() -> Path:
    """Where bitstreams that were built on the fly are kept: the user's cache folder (XDG)."""
    return resources.cache_folder("bitstreams")


def _built(context: Context) -> Path:
    """The default bitstream for a device, built unless an earlier run did; returns its manifest's path.

    Each device, driver, kernel and design has a folder of its own, which appears with all that is in it.

    Raises
    ------
    BitstreamError : it cannot be kept
    """
    from ...runtime.bitstream_program import device_identity

    source = resources.find("opencl_kernels", f"{KERNELS[ENGINE]}.cl").read_bytes()
    name = standard_name(TILES, PRECISION, ENGINE, EMULATED)
    key = hashlib.sha256(source + f"{device_identity(context.device)} / {name}".encode()).hexdigest()[:16]
    folder = cache_folder() / key
    manifest = folder / (name + SUFFIX)
    try:
        if manifest.exists():
            try:
                Library(manifest).find(manifest.stem).verify()
                return manifest
            except BitstreamError as error:
                log.warning("%s; it is built again", error)
                shutil.rmtree(folder)
        log.info("No bitstream is given: %s is built for %s, once, and kept in %s", manifest.stem, context.name, folder)
        _build_into(folder, context, manifest)
    except OSError as error:
        raise BitstreamError(f"the bitstream {manifest.stem} cannot be kept in {folder}: {error.strerror or error}; "
                             "set XDG_CACHE_HOME to a folder that can be written, or build one with `barista bitstream "
                             "build --out DIR` and give it with --bitstream DIR") from error
    return manifest


def _build_into(folder: Path, context: Context, manifest: Path) -> None:
    """Build the default bitstream aside and give it its place, unless another process was faster."""
    from ...runtime.bitstream_build import build

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        build(context, Path(fresh) / folder.name, TILES, PRECISION, load_board(EMULATED), ENGINE)
        try:
            os.rename(Path(fresh) / folder.name, folder)
        except OSError:
            if not manifest.exists():
                raise
