"""Whether a schedule fits a net: an entry for each pass that runs, and none for layers that there are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from ...errors import ScheduleError, nearest
from ...gemm.shapes import Pass
from ...schedule import Schedule

log = logging.getLogger(__name__)

# The order in which passes are named.
_ORDER = {pass_: place for place, pass_ in enumerate(Pass)}


def require_fit(schedule: Schedule, net: str, passes: Mapping[str, frozenset[Pass]], training: bool) -> None:
    """Hold a schedule against the passes of a net.

    Of a net that does not train only the passes of going forward count: whatever else its schedule has is for the
    training net.  Entries for passes that never run are warned of.

    Parameters
    ----------
    net : its name
    passes : for each layer the passes of its convolution that run; none for layers without one
    training : whether it is a training net

    Raises
    ------
    ScheduleError : a pass that runs has no entry, or an entry is for a layer that is no convolution of the net
    """
    convolutions = {layer: run for layer, run in passes.items() if run}
    planned: dict[str, set[Pass]] = {}
    for entry in schedule.entries:
        planned.setdefault(entry.layer, set()).add(entry.pass_)
    if training:
        for layer in planned:
            if layer not in convolutions:
                what = "is no convolution" if layer in passes else "is not there"
                hint = nearest(layer, convolutions) or f"its convolutions are: {', '.join(convolutions) or 'none'}"
                raise ScheduleError(f"{schedule.source} has an entry for layer {layer!r}, which {what} in net {net!r}; "
                                    f"{hint}")
    for layer, run in convolutions.items():
        missing = _names(run - planned.get(layer, set()))
        if missing:
            there = _names(planned.get(layer, set())) or "nothing"
            raise ScheduleError(f"{layer}: net {net!r} runs {missing}, for which {schedule.source} has no entry, only "
                                f"for {there}; add one with engine cpu, opencl or fpga")
        idle = planned[layer] - run
        if training and idle:
            log.warning("%s: %s has an entry for %s, which never runs in net %r", layer, schedule.source, _names(idle),
                        net)


def placement(schedule: Schedule, passes: Mapping[str, frozenset[Pass]]) -> Iterator[str]:
    """A line for each convolution of a net that fits: which pass runs where."""
    for layer, run in passes.items():
        if run:
            entries = schedule.passes(layer)
            yield f"{layer}: " + ", ".join(f"{pass_.value} on {entries[pass_].bitstream or entries[pass_].engine}"
                                           for pass_ in sorted(run, key=_ORDER.__getitem__))


def _names(passes: set[Pass] | frozenset[Pass]) -> str:
    return " and ".join(pass_.value for pass_ in sorted(passes, key=_ORDER.__getitem__))
