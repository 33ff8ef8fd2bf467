"""What an exploration seeks designs for: passes of convolutions, or layers, equal ones together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..gemm.shapes import ConvolutionGeometry, Pass
from ..latency.workload import Workload

UNITS = ("pass", "layer")


@dataclasses.dataclass(frozen=True)
class Row:
    """Something that runs on one design, as often as it has names.

    Parameters
    ----------
    names : of what is equal, such as ``conv1 forward``
    workloads : the passes of one of them
    """

    names: tuple[str, ...]
    workloads: tuple[Workload, ...]

    @property
    def ops(self) -> int:
        """Operations of one of them."""
        return sum(workload.ops for workload in self.workloads)


def rows_of(workloads: Iterable[Workload], unit: str = "pass") -> list[Row]:
    """Gather workloads, in the order in which they first come.

    Parameters
    ----------
    unit : ``pass``, each pass by itself, or ``layer``, all passes of a layer on one design
    """
    found: dict[str, list[Workload]] = {}
    for workload in workloads:
        found.setdefault(workload.name if unit == "pass" else workload.layer, []).append(workload)
    equal: dict[tuple[tuple[ConvolutionGeometry, Pass], ...], list[str]] = {}
    for name, parts in found.items():
        equal.setdefault(tuple((part.geometry, part.pass_) for part in parts), []).append(name)
    return [Row(tuple(names), tuple(found[names[0]])) for names in equal.values()]
