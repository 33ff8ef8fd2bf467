"""Words that the models count, held against those that the HLS code of both arrays moves and keeps."""

from __future__ import annotations

from collections.abc import Sequence

from ..gemm.tiles import TileSizes
from ..latency.validation import Comparison
from ..latency.workload import Workload
from ..synthesis.counted import CONV_MODEL, ON_CHIP, TILES_MODEL, CountedComparison
from .findings import Goal
from .progress import progress

# What is counted word by word is equal; the model of FPGPT's array never says too little of what is read.
_EQUAL, _READ = Goal(largest=0.0), Goal(optimistic=0.0)


def counted(workloads: Sequence[Workload], tiles: Sequence[TileSizes], arrays: Sequence[tuple[int, int]],
            quiet: bool) -> list[Comparison]:
    """Run all passes on all designs.

    Parameters
    ----------
    tiles, arrays : designs of Barista's array, and X and Y of FPGPT's
    quiet : draw no progress bar

    Raises
    ------
    DeviceError, MissingExtraError : the kernels cannot be compiled here
    BaristaError : a kernel computed something wrong
    """
    comparison, found = CountedComparison(list(workloads)), []
    with progress(len(workloads) * (len(tiles) + len(arrays)), "C-simulating", quiet) as bar:
        for workload in workloads:
            for size in tiles:
                found += comparison.products(workload, size)
                bar.update()
            for x, y in arrays:
                found += comparison.convolutions(workload, x, y)
                bar.update()
    return found


def counted_goals(found: Sequence[Comparison]) -> dict[tuple[str, str], Goal]:
    """The bounds on what was compared."""
    goals = {(each.model, each.part): _EQUAL for each in found if each.model == TILES_MODEL or each.part == ON_CHIP}
    return goals | {(CONV_MODEL, part): _READ for part in ("read INP", "read KERN", "total")}
