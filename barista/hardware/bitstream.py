"""Bitstreams on disk: a binary and its manifest, checked against each other before a driver sees them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..errors import BitstreamError
from ..gemm.tiles import TileSizes
from ..precision.formats import number_format
from .board import Board, load_board
from .manifest import KERNELS, Manifest, check_build, from_json
from .resources import array_resources

SUFFIX = ".json"


@dataclasses.dataclass(frozen=True)
class Bitstream:
    """A manifest that has been read, and where it lies.

    Parameters
    ----------
    path : of the manifest
    manifest : what it says
    """

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """What schedules call it: the manifest's file name without its suffix."""
        return self.path.stem

    @property
    def binary_path(self) -> Path:
        """Where the binary lies."""
        return self.path.with_name(self.manifest.binary)

    def binary(self) -> bytes:
        """Return the binary, which is what the manifest says.

        Drivers trust what they are given: some end the process over a damaged binary.

        Raises
        ------
        BitstreamError : it is missing, truncated, or not the one of the manifest
        """
        self.require_binary()
        content = self.binary_path.read_bytes()
        size, wanted = len(content), self.manifest.size_bytes
        found = hashlib.sha256(content).hexdigest()
        if size != wanted or found != self.manifest.sha256:
            raise BitstreamError(f"{self.binary_path} is not the binary of its manifest: {size} bytes with sha256 "
                                 f"{found[:12]}..., where {wanted} bytes with {self.manifest.sha256[:12]}... are "
                                 "expected; build the bitstream again")
        return content

    def require_binary(self) -> None:
        """Refuse a binary that is missing or cut off, without reading it: what can be said before training starts.

        Raises
        ------
        BitstreamError : it is
        """
        try:
            size = self.binary_path.stat().st_size
        except FileNotFoundError:
            raise BitstreamError(f"{self.path}: its binary {self.manifest.binary} is not beside it; copy both files "
                                 "or build the bitstream again") from None
        if size < self.manifest.size_bytes:
            raise BitstreamError(f"{self.binary_path} is truncated: it has {size} of {self.manifest.size_bytes} bytes; "
                                 "copy it again or build the bitstream again")

    def require_board(self, board: str) -> None:
        """Refuse to run on another board.

        Raises
        ------
        BitstreamError : the bitstream is for another one
        """
        if self.manifest.board != board:
            raise BitstreamError(f"{self.path} is for the board {self.manifest.board}, not for {board}; "
                                 f"build it for {board}, or choose another bitstream")

    def verify(self) -> None:
        """Check all that can be checked without a device.

        Raises
        ------
        BitstreamError : the binary is not what the manifest says
        UnsupportedError : its board is not known
        """
        load_board(self.manifest.board)
        self.binary()


def load(path: str | Path) -> Bitstream:
    """Read the manifest of a bitstream.

    Parameters
    ----------
    path : the manifest, or the binary beside it

    Raises
    ------
    BitstreamError : there is none, or it cannot be read
    """
    manifest = Path(path)
    if manifest.suffix != SUFFIX:
        manifest = manifest.with_suffix(SUFFIX)
    try:
        text = manifest.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BitstreamError(f"{path}: there is no manifest {manifest}; `barista bitstream build` makes a bitstream, "
                             "`barista bitstream import` writes the manifest of an .xclbin") from None
    except UnicodeDecodeError:
        raise BitstreamError(f"{manifest}: not a manifest: it is not text; give the manifest or the binary of a "
                             "bitstream") from None
    return Bitstream(manifest, from_json(text, str(manifest)))


def standard_name(tiles: TileSizes, precision: str, engine: str, board: str) -> str:
    """Name of a bitstream that says what it is: ``gemm_array_16x16x64_fp32_emulated``."""
    return f"gemm_{engine}_{tiles.tr}x{tiles.tc}x{tiles.tp}_{precision}_{board}"


def write(folder: str | Path, binary: bytes, tiles: TileSizes, precision: str, board: Board, *, engine: str = "array",
          kernel: str | None = None, clock_hz: float | None = None, device: str = "",
          tools: Mapping[str, str] | None = None, suffix: str = ".bin") -> Bitstream:
    """Write a binary with its manifest, over one of the same name.

    The manifest comes last: a bitstream that was not written to its end is refused when it is loaded.

    Parameters
    ----------
    folder : made where it does not exist
    binary : what the device loads
    kernel : its name in the binary; None takes that of the engine
    clock_hz : None takes the board's

    Raises
    ------
    UnsupportedError : tiles, engine or precision that no kernel is built for
    BitstreamError : the binary is empty
    """
    check_build(tiles, engine)
    if not binary:
        raise BitstreamError(f"a bitstream {tiles} {precision} for {board.name}: the binary is empty; build it again")
    name = standard_name(tiles, precision, engine, board.name)
    manifest = Manifest(tiles, precision, engine, board.name, kernel or KERNELS[engine], clock_hz or board.clock_hz,
                        array_resources(tiles, number_format(precision)), device, dict(tools or {}), name + suffix,
                        len(binary), hashlib.sha256(binary).hexdigest())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.binary).write_bytes(binary)
    path = folder / (name + SUFFIX)
    path.write_text(manifest.to_json(), encoding="utf-8")
    return Bitstream(path, manifest)
