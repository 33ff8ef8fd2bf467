"""Manifests: what a bitstream is, as JSON beside its binary."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import BaristaError, BitstreamError, UnsupportedError, nearest
from ..gemm.tiles import TileSizes
from ..precision.formats import NumberFormat, number_format
from .resources import Resources

VERSION = 1
KIND = "gemm"
# Kernel of each engine: `array` is the mesh, step by step; `fast` gives its products at a CPU's full speed.
KERNELS = {"array": "semi_systolic", "fast": "tile_gemm"}
# Tr, Tc and Tp that the kernels declare as legal: the mesh lives in the private memory of one work-item, which on
# a CPU is a thread's stack.
LARGEST = (128, 128, 1024)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a bitstream is.

    Parameters
    ----------
    tiles, precision, engine : tile sizes, name of the number format, one of `KERNELS`
    board : name of the board that it is for
    kernel : name of the kernel in the binary
    clock_hz : clock of the design; for an emulation that of the board it stands in for
    resources : what the design takes of the board
    device : which OpenCL device the binary is for; empty where the board's name says it
    tools : what built it, name to version
    binary : file name of the binary, in the same folder
    size_bytes, sha256 : of the binary
    """

    tiles: TileSizes
    precision: str
    engine: str
    board: str
    kernel: str
    clock_hz: float
    resources: Resources
    device: str
    tools: Mapping[str, str]
    binary: str
    size_bytes: int
    sha256: str

    @property
    def format(self) -> NumberFormat:
        """The number format."""
        return number_format(self.precision)

    def to_json(self) -> str:
        """The manifest's text."""
        t = self.tiles
        return json.dumps({"version": VERSION, "kind": KIND, **dataclasses.asdict(self), "tiles": [t.tr, t.tc, t.tp],
                           "tools": dict(self.tools)}, indent=2) + "\n"


def from_json(text: str, where: str) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    where : its path, for messages

    Raises
    ------
    BitstreamError : not JSON, another version or kind, or fields that are missing, unknown or senseless
    """
    try:
        fields: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise BitstreamError(f"{where}: not a manifest: {error}; it may have been cut off: build the bitstream again"
                             ) from None
    if not isinstance(fields, dict):
        raise BitstreamError(f"{where}: not a manifest: a JSON object is expected, this is a {type(fields).__name__}")
    for name, wanted in (("version", VERSION), ("kind", KIND)):
        if fields.get(name) != wanted:
            raise BitstreamError(f"{where}: {name} is {fields.get(name)!r}; this Barista reads {name} {wanted!r}")
        del fields[name]
    known = [field.name for field in dataclasses.fields(Manifest)]
    for name in fields:
        if name not in known:
            hint = nearest(name, known) or f"it has {', '.join(known)}"
            raise BitstreamError(f"{where}: a manifest has no field {name!r}; {hint}")
    for name in known:
        if name not in fields:
            raise BitstreamError(f"{where}: the field {name!r} is missing; build the bitstream again")
    for name in ("precision", "engine", "board", "kernel", "device", "binary", "sha256"):
        _require(isinstance(fields[name], str), where, name, fields[name], "a text")
    _require(_counts(fields["tiles"], 3), where, "tiles", fields["tiles"], "three sizes Tr, Tc, Tp")
    resources = fields["resources"]
    _require(isinstance(resources, dict) and sorted(resources) == ["bram_bits", "dsp"]
             and _counts(list(resources.values()), 2, 0), where, "resources", resources, "counts of dsp and bram_bits")
    _require(_counts([fields["size_bytes"]], 1), where, "size_bytes", fields["size_bytes"], "a count of bytes")
    _require(_number(fields["clock_hz"]), where, "clock_hz", fields["clock_hz"], "a number above 0")
    _require(isinstance(fields["tools"], dict)
             and all(isinstance(text, str) for pair in fields["tools"].items() for text in pair),
             where, "tools", fields["tools"], "names with versions")
    _require(re.fullmatch("[0-9a-f]{64}", fields["sha256"]) is not None, where, "sha256", fields["sha256"],
             "64 hexadecimal digits")
    _require(fields["binary"] not in ("", ".", "..") and not {"/", "\\"} & set(fields["binary"]), where, "binary",
             fields["binary"], "the name of a file in the manifest's folder")
    try:
        tiles = TileSizes(*fields.pop("tiles"))
        check_build(tiles, fields["engine"])
        number_format(fields["precision"])
    except BaristaError as error:
        raise BitstreamError(f"{where}: {error}") from None
    return Manifest(**{**fields, "tiles": tiles, "resources": Resources(**resources)})


def check_build(tiles: TileSizes, engine: str) -> None:
    """Refuse what the kernels cannot be built for.

    Raises
    ------
    UnsupportedError : an unknown engine, or tiles beyond what the kernels declare as legal
    """
    if engine not in KERNELS:
        hint = nearest(engine, KERNELS)
        raise UnsupportedError(f"engine {engine!r} is not known; {hint + ' ' if hint else ''}"
                               f"known: {', '.join(KERNELS)}")
    for name, size, largest in zip(("Tr", "Tc", "Tp"), (tiles.tr, tiles.tc, tiles.tp), LARGEST, strict=True):
        if size > largest:
            raise UnsupportedError(f"tile {tiles}: {name}={size} exceeds {largest}, the largest that "
                                   f"{KERNELS[engine]}.cl is made for; choose a smaller one")


def _require(right: bool, where: str, name: str, value: object, expected: str) -> None:
    if not right:
        raise BitstreamError(f"{where}: {name} is {value!r}, where {expected} is expected; build the bitstream again")


def _counts(values: Any, length: int, least: int = 1) -> bool:
    return (isinstance(values, list) and len(values) == length
            and all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in values))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
