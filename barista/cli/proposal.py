"""What `barista explore` chose, as a schedule: which bitstream, yet to be built, computes each pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..gemm.tiles import TileSizes
from ..hardware.bitstream import parse_name
from ..hardware.board import Board
from ..latency.workload import Workload
from ..schedule.costs import one_batch
from ..schedule.explore import Space
from ..schedule.schedule import CPU, FPGA, Entry, Schedule
from ..schedule.table import Group, Grouping
from ..synthesis.conv_design import ConvDesign
from ..synthesis.designs import Design, bitstream_name
from ..synthesis.gemm_design import GemmDesign
from ..synthesis.project import PORT_BITS


def propose(net: str, workloads: Sequence[Workload], unit: str, space: Space, chosen: Grouping, precision: str,
            board: Board) -> Schedule:
    """Make the schedule of a set of designs: each pass on its design's bitstream, by the name that it will have.

    Parameters
    ----------
    workloads : every pass of the network
    unit : what the rows of `space` are, see `schedule.rows.rows_of`
    space : what was explored; passes that no design holds are the CPU's
    chosen : the set

    Raises
    ------
    UnsupportedError : a design that the kernels are not made for
    """
    names: dict[str, str] = {}
    designs: dict[str, Design] = {}
    for group in chosen.groups:
        design = _design(space, group, precision, board)
        bitstream = distinct(bitstream_name(design, board.name), design, designs)
        designs[bitstream] = design
        names.update((name, bitstream) for row in group.members for name in space.rows[row].names)
    entries = []
    for workload in workloads:
        found = names.get(workload.name if unit == "pass" else workload.layer, "")
        place = "" if not found else "device" if isinstance(designs[found], ConvDesign) else "host"
        entries.append(Entry(workload.layer, workload.pass_, FPGA if found else CPU, found, place))
    told = {name: {"board": board.name, "design": design.to_json()} for name, design in designs.items()
            if parse_name(name) is None}
    return Schedule(net, one_batch(workloads, net), tuple(entries), designs=told)


def _design(space: Space, group: Group, precision: str, board: Board) -> Design:
    """The design of a group: its sizes, and for convolutions the memories that the group's passes need."""
    sizes = space.table.sizes[group.column].tolist()
    port_bits = board.port_bits_per_cycle or PORT_BITS
    if space.kind == "gemm":
        return GemmDesign(TileSizes(*sizes), precision, port_bits)
    passes = [(part.geometry, part.pass_) for row in group.members for part in space.rows[row].workloads]
    x, y = sizes
    return ConvDesign.for_passes(x, y, passes, precision, port_bits)


def distinct(name: str, design: Design, taken: Mapping[str, Design]) -> str:
    """A name that no other design has: two of the same X and Y may have other memories."""
    found, number = name, 1
    while taken.get(found, design) != design:
        number += 1
        found = f"{name}_{number}"
    return found
