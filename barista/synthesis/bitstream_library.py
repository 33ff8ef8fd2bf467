"""The library of a bitstream of engine csim, held against its manifest before anything runs on it."""

from __future__ import annotations

from ..errors import BitstreamError, DeviceError
from ..hardware.bitstream import Bitstream
from .designs import Design
from .simulation import Library
from .toolchain import machine


def open_library(bitstream: Bitstream, design: Design) -> Library:
    """Load the library of a bitstream.

    Parameters
    ----------
    design : what its manifest says

    Raises
    ------
    BitstreamError : it is of another engine, for another machine, of another design, not the one of its manifest, or
        cannot be loaded
    """
    manifest = bitstream.manifest
    if not manifest.is_simulated:
        raise BitstreamError(f"{bitstream.path} is of engine {manifest.engine}, which no C-simulation runs; build "
                             "one of engine csim")
    if manifest.device != machine():
        raise BitstreamError(f"{bitstream.path} is for another machine: built for {manifest.device}, this is "
                             f"{machine()}; build it again here")
    content = bitstream.binary()
    try:
        library = Library(bitstream.binary_path, content)
        compiled = library.config
    except DeviceError as error:
        raise BitstreamError(str(error)) from error
    # Buffers have the sizes that the manifest says: a kernel of other sizes would reach beyond them.
    if compiled != design.config():
        raise BitstreamError(f"{bitstream.binary_path} was compiled for another design than its manifest says, or "
                             "by another version of Barista; build the bitstream again")
    return library
