"""Manifests: what a bitstream is, as JSON beside its binary.

A manifest vouches for its binary: tile sizes and number format decide how much memory a kernel reads and writes.
Its checksum therefore covers what it says, so that one changed by hand is refused.  That guards against mistakes,
not against forgery.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import BitstreamError, UnsupportedError, nearest
from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..precision.formats import NumberFormat, number_format
from .board import BoardSummary, load_board
from .report import BuildReport, report_from_json
from .resources import Resources

# Version 1 had no checksum, and of its board only the name; version 2 had no report.
VERSION = 3
VERSIONS = (1, 2, 3)
# Kinds of arrays: those that multiply tiles, and those that take whole convolutions.
GEMM, CONV = "gemm", "conv"
KINDS = (GEMM, CONV)
# What a JSON file beside bitstreams can be, see `recognise`.
MANIFEST, SCHEDULE, CALIBRATION, OTHER = "manifest", "schedule", "calibration", "other"
# Kernel of each engine: `array` is the mesh, step by step; `fast` gives its products at a CPU's full speed; `csim` is
# the C++ code that becomes a card's hardware, as a library of this machine.
ARRAY, CSIM = "array", "csim"
KERNELS = {ARRAY: "semi_systolic", "fast": "tile_gemm", CSIM: "barista_gemm"}
CONV_KERNELS = {ARRAY: "fpgpt_conv", CSIM: "fpgpt_conv"}
# Kind to the field that has the sizes of its array.
_SIZED = {GEMM: "tiles", CONV: "sizes"}
# Tr, Tc and Tp that the kernels declare as legal: the mesh lives in the private memory of one work-item, which on
# a CPU is a thread's stack.
LARGEST = (128, 128, 1024)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a bitstream is.

    Parameters
    ----------
    array : tile sizes of a GEMM array, or the sizes of one that takes whole convolutions
    precision, engine : name of the number format, one of `KERNELS`
    board : the board that it is for
    kernel : name of the kernel in the binary
    clock_hz : clock of the design; for an emulation that of the board it stands in for
    resources : what the design takes of the board
    device : which OpenCL device, for `CSIM` which kind of machine, the binary is for; empty where the board says it
    tools : what built it, name to version
    binary : file name of the binary, in the same folder
    size_bytes, sha256 : of the binary
    report : what the tools that built it reported, where their reports were read
    """

    array: TileSizes | ConvSizes
    precision: str
    engine: str
    board: BoardSummary
    kernel: str
    clock_hz: float
    resources: Resources
    device: str
    tools: Mapping[str, str]
    binary: str
    size_bytes: int
    sha256: str
    report: BuildReport | None = None

    @property
    def kind(self) -> str:
        """`GEMM` or `CONV`."""
        return CONV if isinstance(self.array, ConvSizes) else GEMM

    @property
    def tiles(self) -> TileSizes:
        """The tile sizes.

        Raises
        ------
        BitstreamError : the array takes whole convolutions
        """
        if isinstance(self.array, TileSizes):
            return self.array
        raise BitstreamError(f"the bitstream in {self.binary} takes whole convolutions and multiplies no tiles; give "
                             "one of a GEMM array")

    @property
    def sizes(self) -> ConvSizes:
        """The sizes of an array that takes whole convolutions.

        Raises
        ------
        BitstreamError : the array multiplies tiles
        """
        if isinstance(self.array, ConvSizes):
            return self.array
        raise BitstreamError(f"the bitstream in {self.binary} multiplies tiles and takes no whole convolutions; give "
                             "one of a convolution array")

    @property
    def format(self) -> NumberFormat:
        """The number format."""
        return number_format(self.precision)

    @property
    def is_simulated(self) -> bool:
        """Whether the binary runs on the processor, with no OpenCL device: what it takes is the simulation's time."""
        return self.engine == CSIM

    def to_json(self) -> str:
        """The manifest's text."""
        said = dataclasses.asdict(self)
        del said["array"]
        if self.report is None:
            del said["report"]
        array = {"sizes": self.array.fields()} if isinstance(self.array, ConvSizes) else {
            "tiles": [self.array.tr, self.array.tc, self.array.tp]}
        fields = {"version": VERSION, "kind": self.kind, **array, **said}
        return json.dumps({**fields, "checksum": _checksum(fields)}, indent=2) + "\n"


def recognise(text: str) -> str:
    """Say what a JSON file is by its look: `MANIFEST`, also of a damaged one, `SCHEDULE`, `CALIBRATION` or `OTHER`."""
    try:
        fields = json.loads(text)
    except json.JSONDecodeError:
        return MANIFEST if '"kind"' in text else OTHER
    if not isinstance(fields, dict):
        return OTHER
    if "kind" in fields:
        return MANIFEST
    if {"net", "batch", "entries"} <= set(fields):
        return SCHEDULE
    return CALIBRATION if {"device", "host", "arrays"} <= set(fields) else OTHER


def from_json(text: str, where: str) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    where : its path, for messages

    Raises
    ------
    BitstreamError : not JSON, another version or kind, fields that are missing, unknown or senseless, a board that is
        not known where only its name is given, or contents that were changed after they were written
    """
    try:
        fields: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise BitstreamError(f"{where}: not a manifest: {error}; it may have been cut off: build the bitstream again"
                             ) from None
    if not isinstance(fields, dict):
        raise BitstreamError(f"{where}: not a manifest: a JSON object is expected, this is a {type(fields).__name__}")
    for name, readable in (("kind", KINDS), ("version", VERSIONS)):
        if fields.get(name) not in readable:
            raise BitstreamError(f"{where}: {name} is {fields.get(name)!r}; this Barista reads {name} "
                                 f"{', '.join(map(repr, readable))}; build or import the bitstream again")
    _require_fields(fields, where)
    checksum, expected = fields.pop("checksum", None), _checksum(fields)
    version, kind = fields.pop("version"), fields.pop("kind")
    for name in ("precision", "engine", "kernel", "device", "binary", "sha256"):
        _require(isinstance(fields[name], str), where, name, fields[name], "a text")
    resources = fields["resources"]
    _require(isinstance(resources, dict) and sorted(resources) == ["bram_bits", "dsp"]
             and _counts(list(resources.values()), 2, 0), where, "resources", resources, "counts of dsp and bram_bits")
    _require(_counts([fields["size_bytes"]], 1), where, "size_bytes", fields["size_bytes"], "a count of bytes")
    _require(_is_rate(fields["clock_hz"]), where, "clock_hz", fields["clock_hz"], "a number above 0")
    _require(isinstance(fields["tools"], dict)
             and all(isinstance(text, str) for pair in fields["tools"].items() for text in pair),
             where, "tools", fields["tools"], "names with versions")
    _require(re.fullmatch("[0-9a-f]{64}", fields["sha256"]) is not None, where, "sha256", fields["sha256"],
             "64 hexadecimal digits")
    _require(fields["binary"] not in ("", ".", "..") and not {"/", "\\"} & set(fields["binary"]), where, "binary",
             fields["binary"], "the name of a file in the manifest's folder")
    report = _report(fields.pop("report", None), where)
    try:
        array = _array(kind, fields.pop(_SIZED[kind]), where)
        check_build(array, fields["engine"])
        number_format(fields["precision"])
        board = _board(fields["board"], version, where)
    except UnsupportedError as error:
        raise BitstreamError(f"{where}: {error}") from None
    if version > 1 and checksum != expected:
        raise BitstreamError(f"{where} was edited by hand: its checksum does not fit its contents, and a binary "
                             "stays what it was built as; undo the edit, or build or import the bitstream again")
    return Manifest(**{**fields, "array": array, "resources": Resources(**resources), "board": board,
                       "report": report})


def _checksum(fields: Mapping[str, Any]) -> str:
    """SHA-256 of all that a manifest says but the binary's file name, which may follow a renamed file."""
    said = {name: value for name, value in fields.items() if name != "binary"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _require_fields(fields: Mapping[str, Any], where: str) -> None:
    """Refuse fields that are unknown or missing."""
    known = ["version", "kind", _SIZED[fields["kind"]],
             *(field.name for field in dataclasses.fields(Manifest) if field.name != "array")]
    if fields["version"] < 3:
        known.remove("report")
    if fields["version"] > 1:
        known.append("checksum")
    for name in fields:
        if name not in known:
            hint = nearest(name, known) or f"it has {', '.join(known)}"
            raise BitstreamError(f"{where}: a manifest has no field {name!r}; {hint}")
    for name in known:
        if name not in fields and name != "report":
            raise BitstreamError(f"{where}: the field {name!r} is missing; build or import the bitstream again")


def _array(kind: str, said: Any, where: str) -> TileSizes | ConvSizes:
    """What the array is compiled for.

    Raises
    ------
    UnsupportedError : sizes that no kernel is made for
    """
    if kind == GEMM:
        _require(_counts(said, 3), where, "tiles", said, "three sizes Tr, Tc, Tp")
        return TileSizes(*said)
    names = [field.name for field in dataclasses.fields(ConvSizes)]
    _require(isinstance(said, dict) and sorted(said) == sorted(names) and _counts(list(said.values()), len(names)),
             where, "sizes", said, f"{', '.join(names)} with a count each")
    return ConvSizes(**said)


def _board(said: Any, version: int, where: str) -> BoardSummary:
    """The board of a manifest; version 1 names one that ships.

    Raises
    ------
    UnsupportedError : no such board
    """
    if version == 1:
        _require(isinstance(said, str), where, "board", said, "a text")
        try:
            return load_board(said).summary
        except UnsupportedError:
            raise UnsupportedError(f"its board {said!r} does not ship, and manifests of version 1 have nothing but its "
                                   "name; import the bitstream again with --board FILE.toml") from None
    names = [field.name for field in dataclasses.fields(BoardSummary)]
    _require(isinstance(said, dict) and sorted(said) == sorted(names)
             and all(isinstance(said[name], str) for name in ("name", "description", "platform"))
             and _counts([said["dsp"], said["bram_bits"]], 2), where, "board", said, ", ".join(names))
    return BoardSummary(**said)


def _report(said: Any, where: str) -> BuildReport | None:
    """The report of a manifest, where it has one."""
    if said is None:
        return None
    try:
        return report_from_json(said)
    except ValueError as error:
        raise BitstreamError(f"{where}: {error}; build or import the bitstream again") from None


def check_build(array: TileSizes | ConvSizes, engine: str) -> None:
    """Refuse what the kernels cannot be built for.

    Raises
    ------
    UnsupportedError : an unknown engine, one that has no such array, or tiles beyond what the kernels declare as legal
    """
    if engine not in KERNELS:
        hint = nearest(engine, KERNELS)
        raise UnsupportedError(f"engine {engine!r} is not known; {hint + ' ' if hint else ''}"
                               f"known: {', '.join(KERNELS)}")
    if isinstance(array, ConvSizes):
        if engine not in CONV_KERNELS:
            raise UnsupportedError(f"engine {engine!r} has no array that takes whole convolutions; choose "
                                   f"{CSIM}, or build it for a card")
        return
    for name, size, largest in zip(("Tr", "Tc", "Tp"), (array.tr, array.tc, array.tp), LARGEST, strict=True):
        if size > largest:
            raise UnsupportedError(f"tile {array}: {name}={size} exceeds {largest}, the largest that "
                                   f"the kernel {KERNELS[engine]} is made for; choose a smaller one")


def _require(right: bool, where: str, name: str, value: object, expected: str) -> None:
    if not right:
        raise BitstreamError(f"{where}: {name} is {value!r}, where {expected} is expected; build or import the "
                             "bitstream again")


def _counts(values: Any, length: int, least: int = 1) -> bool:
    return (isinstance(values, list) and len(values) == length
            and all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in values))


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
