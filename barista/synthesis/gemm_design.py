"""What Barista's GEMM kernel in ``hls/barista_gemm`` is compiled for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import DataError, UnsupportedError
from ..gemm.tiles import TileSizes
from ..hardware.manifest import CSIM, check_build
from ..latency.resources import gemm_words
from ..precision.formats import NumberFormat, number_format

# Width that a port of the kernel may have, in bits; widths are powers of 2.
WIDEST = 1024


@dataclasses.dataclass(frozen=True)
class GemmDesign:
    """One configuration of the kernel.

    Parameters
    ----------
    tiles : tile sizes; the mesh has Tr x Tc elements
    precision : name of the number format
    port_bits : width of the ports to memory at the most; a tile that does not fill it gets narrower ones

    Raises
    ------
    UnsupportedError : tiles, number format or width that the kernel is not made for
    """

    tiles: TileSizes
    precision: str
    port_bits: int = 512

    kind: ClassVar[str] = "gemm"
    kernel: ClassVar[str] = "barista_gemm"
    fastest_hz: ClassVar[float] = math.inf  # it has partial sums enough for any adder

    def __post_init__(self) -> None:
        check_build(self.tiles, CSIM)
        least = 8 * self.format.accumulator_dtype.itemsize
        if self.port_bits not in _powers(least, WIDEST):
            raise UnsupportedError(f"{self.name}: ports of {self.port_bits} bits; a width is a power of 2 from {least} "
                                   f"to {WIDEST}")

    @property
    def name(self) -> str:
        """Name of folders and libraries that are made of it: ``gemm_16x16x64_fp32``."""
        t = self.tiles
        return f"gemm_{t.tr}x{t.tc}x{t.tp}_{self.precision}"

    @property
    def format(self) -> NumberFormat:
        """The number format."""
        return number_format(self.precision)

    @property
    def a_port_bits(self) -> int:
        """Width of the port of A: a beat holds no more words than enter the mesh at once, and a tile whole beats."""
        return self._operand_port_bits(self.tiles.tr)

    @property
    def b_port_bits(self) -> int:
        """Width of the port of B, likewise."""
        return self._operand_port_bits(self.tiles.tc)

    @property
    def c_port_bits(self) -> int:
        """Width of the port of C: a row of a tile fills whole beats."""
        bits = 8 * self.format.accumulator_dtype.itemsize
        return max(width for width in _powers(bits, self.port_bits) if self.tiles.tc % (width // bits) == 0)

    @property
    def on_chip_words(self) -> dict[str, int]:
        """Words of each of the kernel's memories by its name in C++, as the resource model counts them."""
        t = self.tiles
        words = gemm_words(t.tr, t.tc, t.tp, self.format.partial_sums - 1)
        return {"tile_a": int(words.a), "tile_b": int(words.b), "sums_c": int(words.c)}

    def config(self) -> str:
        """The text of ``config.h``, which the kernel includes."""
        t = self.tiles
        values = {"PRECISION": self.format.bits, "TR": t.tr, "TC": t.tc, "TP": t.tp,
                  "PARTIAL_SUMS": self.format.partial_sums, "A_PORT_BITS": self.a_port_bits,
                  "B_PORT_BITS": self.b_port_bits, "C_PORT_BITS": self.c_port_bits}
        return config_header(self.name, values)

    def to_json(self) -> dict[str, Any]:
        """The design as JSON has it."""
        t = self.tiles
        return {"kind": self.kind, "tiles": [t.tr, t.tc, t.tp], "precision": self.precision,
                "port_bits": self.port_bits}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str) -> GemmDesign:
        """Read what `to_json` gave.

        Parameters
        ----------
        where : what it stands in, for messages

        Raises
        ------
        DataError : fields that are missing, unknown or senseless
        UnsupportedError : see `GemmDesign`
        """
        known = ["kind", "tiles", "precision", "port_bits"]
        if not isinstance(fields, Mapping) or sorted(fields) != sorted(known):
            raise DataError(f"{where}: the design of a GEMM has the fields {', '.join(known)}, this is {fields!r}; "
                            "write it again")
        tiles, precision, port_bits = fields["tiles"], fields["precision"], fields["port_bits"]
        if fields["kind"] != cls.kind or not (isinstance(tiles, list) and len(tiles) == 3
                                              and all(type(size) is int for size in (*tiles, port_bits))
                                              and isinstance(precision, str)):
            raise DataError(f"{where}: a design of kind {cls.kind!r} with tiles [Tr, Tc, Tp], the name of a precision "
                            f"and port_bits is expected, this is {dict(fields)!r}; write it again")
        return cls(TileSizes(*tiles), precision, port_bits)

    def _operand_port_bits(self, lanes: int) -> int:
        bits = 8 * self.format.storage_dtype.itemsize
        return max(width for width in _powers(bits, self.port_bits)
                   if width // bits <= lanes and self.tiles.tp * lanes % (width // bits) == 0)


def config_header(name: str, values: Mapping[str, int]) -> str:
    """The text of a ``config.h``.

    Parameters
    ----------
    name : of the design
    values : macro to value
    """
    lines = [f"// {name}, written by Barista.", "#ifndef BARISTA_CONFIG_H", "#define BARISTA_CONFIG_H", "",
             *(f"#define {macro} {value}" for macro, value in values.items()), "", "#endif"]
    return "\n".join(lines) + "\n"


def _powers(least: int, most: int) -> list[int]:
    """Powers of 2 from `least`, which is one, to `most`."""
    powers = [least]
    while 2 * powers[-1] <= most:
        powers.append(2 * powers[-1])
    return powers
