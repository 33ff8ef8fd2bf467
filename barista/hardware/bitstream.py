"""Bitstreams on disk: a binary and its manifest, checked against each other before a driver sees them."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import BitstreamError, UnsupportedError
from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..precision.formats import NumberFormat, number_format
from .board import Board
from .manifest import (
    ARRAY,
    CALIBRATION,
    CONV_KERNELS,
    KERNELS,
    OTHER,
    SCHEDULE,
    Manifest,
    check_build,
    from_json,
    recognise,
)
from .report import BuildReport
from .resources import array_resources

log = logging.getLogger(__name__)

SUFFIX = ".json"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_STANDARD = re.compile(r"gemm_([a-z]+)_(\d{1,4})x(\d{1,4})x(\d{1,4})_([a-z]+\d+)_([A-Za-z0-9_-]+)")


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
        BitstreamError : it is missing, truncated, not the one of the manifest, or cannot be read
        """
        self.require_binary()
        content = _read(self.binary_path)
        found = _sha256(content)
        if found != self.manifest.sha256:
            raise BitstreamError(f"{self.binary_path} is not the binary of its manifest: its sha256 is {found[:12]}"
                                 f"..., not {self.manifest.sha256[:12]}...; copy it again, or build or import the "
                                 "bitstream again")
        return content

    def damage(self) -> str:
        """What is wrong with the binary as far as its size tells, or '': such as ``missing``."""
        wanted = self.manifest.size_bytes
        try:
            size = self.binary_path.stat().st_size
        except FileNotFoundError:
            return "missing"
        if size == wanted:
            return ""
        if size < wanted:
            return f"truncated: it has {size} of {wanted} bytes"
        return f"not the one of the manifest: it has {size} bytes instead of {wanted}"

    def require_binary(self) -> None:
        """Refuse a binary that is missing or of another size, without reading it: what can be said before training.

        Raises
        ------
        BitstreamError : it is
        """
        damage = self.damage()
        if damage == "missing":
            name, twin = self.manifest.binary, self._renamed()
            raise BitstreamError(f"{self.path}: its binary {name} is not beside it" + (
                f" under this name, but as {twin.name}: rename that to {name}" if twin is not None else
                "; copy both files, or build or import the bitstream again"))
        if damage:
            raise BitstreamError(f"{self.binary_path} is {damage}; copy it again, or build or import the bitstream "
                                 "again")

    def _renamed(self) -> Path | None:
        """The file beside the manifest that is its binary under another name."""
        for path in sorted(self.path.parent.iterdir()):
            if path.is_file() and path.stat().st_size == self.manifest.size_bytes \
                    and _sha256(_read(path)) == self.manifest.sha256:
                return path
        return None

    def require_board(self, board: str) -> None:
        """Refuse to run on another board.

        Raises
        ------
        BitstreamError : the bitstream is for another one
        """
        if self.manifest.board.name != board:
            raise BitstreamError(f"{self.path} is for the board {self.manifest.board.name}, not for {board}; "
                                 f"build it for {board}, or choose another bitstream")

    def verify(self) -> None:
        """Check all that can be checked without a device.

        Raises
        ------
        BitstreamError : the binary is not what the manifest says
        """
        self.binary()


def load(path: str | Path) -> Bitstream:
    """Read the manifest of a bitstream.

    Parameters
    ----------
    path : the manifest, or the binary beside it

    Raises
    ------
    BitstreamError : there is none, it cannot be read, or it is something else
    """
    given = Path(path)
    if given.is_dir():
        raise BitstreamError(f"{path} is a folder; give one bitstream in it, which `barista bitstream list {path}` "
                             "names")
    manifest = given if given.suffix == SUFFIX else given.with_suffix(SUFFIX)
    if not manifest.exists():
        raise BitstreamError(f"{path}: there is no manifest {manifest}; {_whereabouts(given)}")
    if (seen := look(manifest)) in (SCHEDULE, CALIBRATION):
        raise BitstreamError(f"{manifest} is a {seen}, no manifest of a bitstream; give it with --{seen}, and the "
                             "folder of its bitstreams with --bitstream")
    try:
        text = _read(manifest).decode("utf-8")
    except UnicodeDecodeError:
        raise BitstreamError(f"{manifest}: not a manifest: it is not text; give the manifest or the binary of a "
                             "bitstream") from None
    return Bitstream(manifest, from_json(text, str(manifest)))


def look(path: Path) -> str:
    """Say what a JSON file is, see `manifest.recognise`.

    Raises
    ------
    BitstreamError : it cannot be read
    """
    if path.is_dir():
        return OTHER
    return recognise(_read(path).decode("utf-8", errors="replace"))


def _whereabouts(binary: Path) -> str:
    """Where the manifest of a binary is that has another name, or where manifests come from."""
    if binary.is_file():
        found = _sha256(_read(binary)).encode()
        for path in sorted(binary.parent.glob(f"*{SUFFIX}")):
            if path.is_file() and found in _read(path):
                return f"{path} is its manifest, under another name: give that, or rename one after the other"
    return "`barista bitstream build` makes a bitstream, `barista bitstream import` writes the manifest of an .xclbin"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{path} cannot be read: {error.strerror}; see to its rights or copy it again") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def standard_name(array: TileSizes | ConvSizes, precision: str, engine: str, board: str) -> str:
    """Name of a bitstream that says what it is: ``gemm_array_16x16x64_fp32_emulated``.

    That of a convolution array, ``conv_array_16x16_fp32_u250``, leaves its memories out.
    """
    if isinstance(array, ConvSizes):
        return f"conv_{engine}_{array.x}x{array.y}_{precision}_{board}"
    return f"gemm_{engine}_{array.tr}x{array.tc}x{array.tp}_{precision}_{board}"


def require_name(name: str, what: str = "files") -> None:
    """Refuse a name of a bitstream that files or a folder should not have.

    Parameters
    ----------
    what : what is called so, for messages

    Raises
    ------
    UnsupportedError : other than letters, digits, _, - and ., or another beginning than a letter or a digit
    """
    if not _FILE_NAME.fullmatch(name):
        raise UnsupportedError(f"the name {name!r} becomes that of {what}; use letters, digits, _, - and . alone, and "
                               "begin with a letter or a digit")


class Named(NamedTuple):
    """What a `standard_name` of a GEMM array says."""

    tiles: TileSizes
    precision: str
    engine: str
    board: str


def parse_name(name: str) -> Named | None:
    """What a `standard_name` says, or None where the name is another, or does not say all that the array is.

    Raises
    ------
    UnsupportedError : sizes of tiles that are not legal
    """
    matched = _STANDARD.fullmatch(name)
    if matched is None:
        return None
    engine, tr, tc, tp, precision, board = matched.groups()
    return Named(TileSizes(int(tr), int(tc), int(tp)), precision, engine, board)


def warn_beyond(array: TileSizes | ConvSizes, fmt: NumberFormat, board: Board) -> None:
    """Say where a design for an emulated board takes more than the card has that the board stands for."""
    kind = "array" if isinstance(array, ConvSizes) else "tile"
    for what, count, held in array_resources(array, fmt).exceeding(board.dsp, board.bram_bits):
        log.warning("%s %s in %s takes %d %s where the board %s stands for a card with %d: it runs here, but would "
                    "not fit there", kind, array, fmt.name, count, what, board.name, held)


def write(folder: str | Path, binary: bytes, array: TileSizes | ConvSizes, precision: str, board: Board, *,
          engine: str = ARRAY, kernel: str | None = None, clock_hz: float | None = None, device: str = "",
          tools: Mapping[str, str] | None = None, suffix: str = ".bin", name: str = "",
          report: BuildReport | None = None) -> Bitstream:
    """Write a binary with its manifest, over one of the same name.

    The manifest comes last: a bitstream that was not written to its end is refused when it is loaded.

    Parameters
    ----------
    folder : made where it does not exist
    binary : what the device loads
    kernel : its name in the binary; None takes that of the engine
    clock_hz : None takes the board's
    name : what schedules call it; '' takes the standard name
    report : what the tools that built it reported

    Raises
    ------
    UnsupportedError : an array, engine or precision that no kernel is built for, or a name that is no file's
    BitstreamError : the binary is empty, or the folder takes no files
    """
    check_build(array, engine)
    if not binary:
        raise BitstreamError(f"a bitstream {array} {precision} for {board.name}: the binary is empty; build it again")
    if name:
        require_name(name)
    name = name or standard_name(array, precision, engine, board.name)
    kernels = CONV_KERNELS if isinstance(array, ConvSizes) else KERNELS
    manifest = Manifest(array, precision, engine, board.summary, kernel or kernels[engine], clock_hz or board.clock_hz,
                        array_resources(array, number_format(precision)), device, dict(tools or {}), name + suffix,
                        len(binary), _sha256(binary), report)
    path = Path(folder) / (name + SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(manifest.binary).write_bytes(binary)
        path.write_text(manifest.to_json(), encoding="utf-8")
    except OSError as error:
        raise BitstreamError(f"{path}: the bitstream cannot be written ({error.strerror}); free some space, or choose "
                             "another folder with --out") from error
    return Bitstream(path, manifest)
