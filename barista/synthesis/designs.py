"""Designs of both kinds of array by their names and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DataError, nearest
from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..hardware.bitstream import standard_name
from ..hardware.resources import Resources, array_resources
from .conv_design import ConvDesign
from .gemm_design import GemmDesign

Design = GemmDesign | ConvDesign

KINDS: dict[str, type[GemmDesign] | type[ConvDesign]] = {GemmDesign.kind: GemmDesign, ConvDesign.kind: ConvDesign}
# Ports to memory of each kernel, in the order of its arguments.
PORTS = {GemmDesign.kernel: ("a", "b", "c"), ConvDesign.kernel: ("inp", "kern", "out", "beta")}


def bitstream_name(design: Design, board: str) -> str:
    """What a bitstream of a design is called by schedules, folders and manifests alike.

    That of a GEMM array says all of the design; that of a convolution array leaves its memories out.
    """
    return standard_name(array_of(design), design.precision, "array", board)


def array_of(design: Design) -> TileSizes | ConvSizes:
    """What a manifest says of a design, besides its number format."""
    return design.tiles if isinstance(design, GemmDesign) else design.sizes


def design_of(array: TileSizes | ConvSizes, precision: str, port_bits: int) -> Design:
    """The design that a manifest stands for.

    Parameters
    ----------
    port_bits : width of the ports of a GEMM array, of which a manifest says nothing
    """
    if isinstance(array, ConvSizes):
        return ConvDesign.of(array, precision)
    return GemmDesign(array, precision, port_bits)


def resources(design: Design) -> Resources:
    """What the models count for a design."""
    return array_resources(array_of(design), design.format)


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
