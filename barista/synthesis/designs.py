"""Designs of both kinds of array by their names and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DataError, nearest
from ..hardware.bitstream import standard_name
from ..hardware.resources import Resources, array_resources
from ..latency.resources import conv_dsp
from .conv_design import ConvDesign
from .gemm_design import GemmDesign

Design = GemmDesign | ConvDesign

KINDS: dict[str, type[GemmDesign] | type[ConvDesign]] = {GemmDesign.kind: GemmDesign, ConvDesign.kind: ConvDesign}
# Ports to memory of each kernel, in the order of its arguments.
PORTS = {GemmDesign.kernel: ("a", "b", "c"), ConvDesign.kernel: ("inp", "kern", "out", "beta")}
# Bits of a word of a result, and of what becomes one.
_RESULT_BITS = 32


def bitstream_name(design: Design, board: str) -> str:
    """What a bitstream of a design is called by schedules, folders and manifests alike.

    That of a GEMM array says all of the design; that of a convolution array leaves its memories out.
    """
    if isinstance(design, GemmDesign):
        return standard_name(design.tiles, design.precision, "array", board)
    return f"{design.name}_{board}"


def resources(design: Design) -> Resources:
    """What the models count for a design."""
    if isinstance(design, GemmDesign):
        return array_resources(design.tiles, design.format)
    words, bits = design.on_chip_words, design.format.bits
    return Resources(int(conv_dsp(design.x, design.y, design.format.is_fixed)),
                     bits * (words["line"] + words["kern"]) + _RESULT_BITS * words["out"])


def design_from_json(fields: Any, where: str) -> Design:
    """Make a design of what its ``to_json`` gave.

    Parameters
    ----------
    where : what it stands in, for messages

    Raises
    ------
    DataError : something else
    UnsupportedError : sizes or a number format that the kernels are not made for
    """
    if not isinstance(fields, Mapping) or not isinstance(fields.get("kind"), str):
        raise DataError(f"{where}: a design is an object with a kind, one of {', '.join(KINDS)}, this is {fields!r}; "
                        "write it again")
    if fields["kind"] not in KINDS:
        hint = nearest(fields["kind"], KINDS) or f"known: {', '.join(KINDS)}"
        raise DataError(f"{where}: designs of kind {fields['kind']!r} are not known; {hint}")
    return KINDS[fields["kind"]].from_json(fields, where)
