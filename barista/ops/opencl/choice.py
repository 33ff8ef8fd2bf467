"""Which variant computes each pass of a convolution.

In this order: what a schedule names (see `convolution`), what the user's table says, what is fastest when it is
measured.  When a net is complete, those of its passes are measured that the table does not know, the largest first:
family against family, then within the fastest one, until the time is up.  What is left takes what its families hold for
the fastest.  The table keeps both, so that later processes compute alike.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ...errors import DeviceError
from ...gemm.shapes import ConvolutionGeometry, Pass
from ..tuned import Tuned
from . import conv_unrolled
from .choice_table import ChoiceTable, Chosen
from .conv_families import variants
from .conv_pass import Variant
from .device import Device
from .measure import Bench, representative

log = logging.getLogger(__name__)

# How long the passes of one net may be measured, the building of their kernels included.
BUDGET_S = 8.0
# Passes of fewer multiply-accumulates are not worth it.
LEAST_MACS = 2_000_000
# While a net waits, variants of the fastest family are measured, so many of them, where a run takes so long that a gain
# of some per cent soon outweighs what building them takes; `tune` measures all.
MOST_RELATIVES = 3
LEAST_RUN_S = 0.001
# Windows of so many taps are large enough for the way of last resort to be worth a trial beside others.
LARGE_WINDOW = 49
# Passes whose variants are built together, before they are measured.
TOGETHER = 8
# Names of families, see `_families`.
POINTWISE, IMAGES, UNROLLED = "pointwise", "images", conv_unrolled.NAME
# A later variant is taken only where it is faster than an earlier one by more than chance.
CHANCE = 1.02

Work = tuple[ConvolutionGeometry, Pass]


def measures() -> bool:
    """Whether passes may be measured: unless the environment says BARISTA_MEASURE=0."""
    return os.environ.get("BARISTA_MEASURE", "") != "0"


def text(work: Work) -> str:
    """A pass and its shapes, as the table and reports name them."""
    g, pass_ = work
    sizes = {name: "x".join(map(str, getattr(g, name))) for name in ("stride", "pad", "dilation")}
    return (f"{pass_.value} {'x'.join(map(str, g.x_shape))} * {'x'.join(map(str, g.w_shape))}, "
            + ", ".join(f"{name} {value}" for name, value in sizes.items()) + f", group {g.group}")


class Choices:
    """The choices of one device.

    Parameters
    ----------
    measured : whether the table is read and passes are measured; else each takes the first of its variants
    """

    def __init__(self, device: Device, measured: bool = True) -> None:
        self._device, self._measured = device, measured
        self._table = ChoiceTable(device.context, device.dtype)
        self._known: dict[str, Chosen] | None = None
        self._lists: dict[Work, list[Variant[Any]]] = {}

    def variant(self, geometry: ConvolutionGeometry, pass_: Pass) -> Variant[Any]:
        """What computes a pass: what the table says of it, else the first of its variants."""
        there = self.there((geometry, pass_))
        name = self._chosen(_small((geometry, pass_)))
        return next((variant for variant in there if variant.name == name), there[0])

    def there(self, work: Work) -> list[Variant[Any]]:
        """All variants of a work, listed once."""
        if work not in self._lists:
            self._lists[work] = variants(self._device, *work)
        return self._lists[work]

    def settle(self, works: Iterable[Work]) -> None:
        """Measure those works that are large and not known, the largest first, and keep what was found.

        Raises
        ------
        DeviceError : the table cannot be read or written, or kernels that the net needs do not build
        """
        unknown = self._unknown(works) if self._measured else {}
        if not unknown:
            return
        log.info("Building and measuring convolution kernels for %d passes, once for this device ...", len(unknown))
        measured: dict[Work, dict[str, float]] = {}
        late: list[Work] = []
        try:
            self._measure(unknown, measured)
            late = [work for work in unknown if work not in measured]
        finally:
            chosen = {text(work): Chosen(best(measured.get(work, {}), unknown[work]), _names(unknown[work]))
                      for work in (*measured, *late)}
            if chosen:
                self._remember(self._table.keep(chosen))
        log.info("Chose the kernels of %d passes by measuring%s; kept in %s", len(measured),
                 f", of {len(late)} by rule, since the time was up (barista tune measures all)" if late else "",
                 self._table.path)

    def _measure(self, unknown: Mapping[Work, list[Variant[Any]]], measured: dict[Work, dict[str, float]]) -> None:
        """Measure variants of works until the time is up, and put into `measured` what each takes in seconds.

        What matters most, which family computes, is found for as many passes as there is time for.
        """
        deadline = math.inf
        with _progress(2 * len(unknown)) as bar:
            for families in (True, False):
                for works in _batches(list(unknown), TOGETHER):
                    if time.perf_counter() >= deadline:
                        return
                    wanted = {work: _families(work, unknown[work]) if families else
                              _relatives(unknown[work], measured.get(work, {})) for work in works}
                    self._build(itertools.chain.from_iterable(wanted.values()))
                    # A small net is measured whole, however long a busy machine builds for it.
                    deadline = min(deadline, time.perf_counter() + BUDGET_S)
                    for work, some in wanted.items():
                        if some and time.perf_counter() < deadline:
                            seconds = Bench(self._device, *work).seconds(some, deadline)
                            measured[work] = {**measured.get(work, {}), **seconds}
                    bar.update(len(works))

    def tune(self, works: Iterable[Work]) -> Iterator[Tuned]:
        """Measure all variants of all works, and keep the fastest; see `OpSet.tune_convolutions`.

        Raises
        ------
        DeviceError : the table cannot be read or written
        """
        alike: dict[Work, list[Work]] = {}
        for work in works:
            if work[0].macs:
                alike.setdefault(_small(work), []).append(work)
        for small, those in alike.items():
            there = self.there(small)
            seconds = Bench(self._device, *small).seconds(there, None)
            name = best(seconds, there)
            self._remember(self._table.keep({text(small): Chosen(name, _names(there))}, replace=True))
            yield Tuned(those, small[0], seconds, name)

    def _build(self, some: Iterable[Variant[Any]]) -> None:
        """Build the kernels of some variants, and all else that waits for it, together; measuring tells which fail."""
        programs = self._device.context.programs
        with self._device.scratch.aside(), programs.trial():
            made = []
            for variant in some:
                with contextlib.suppress(DeviceError):
                    made.append(variant.make())
            for problem in programs.complete():
                raise DeviceError(problem)

    def _unknown(self, works: Iterable[Work]) -> dict[Work, list[Variant[Any]]]:
        """Works of few images with their variants: those to be measured, the largest first."""
        found = {}
        for work in sorted(works, key=lambda work: -work[0].macs):
            small = _small(work)
            if work[0].macs >= LEAST_MACS and small not in found and not self._chosen(small):
                found[small] = self.there(small)
        return {small: there for small, there in found.items() if len(_families(small, there)) > 1}

    def _chosen(self, small: Work) -> str:
        """The name that the table has for a work of few images, or ''."""
        chosen = self._read().get(text(small))
        there = self.there(small)
        if chosen is None or chosen.among != _names(there) or all(v.name != chosen.variant for v in there):
            return ""
        return chosen.variant

    def _read(self) -> dict[str, Chosen]:
        if self._known is None:
            self._known = self._table.read() if self._measured else {}
        return self._known

    def _remember(self, chosen: dict[str, Chosen]) -> None:
        self._known = {**self._read(), **chosen}


def _batches(works: Sequence[Work], size: int) -> Iterator[Sequence[Work]]:
    return (works[first:first + size] for first in range(0, len(works), size))


def _small(work: Work) -> Work:
    return representative(work[0]), work[1]


def _names(there: Sequence[Variant[Any]]) -> str:
    return ", ".join(variant.name for variant in there)


def _family(name: str) -> str:
    return name.partition(" ")[0]


def _families(work: Work, there: Sequence[Variant[Any]]) -> list[Variant[Any]]:
    """The first variant of each family that may be the fastest; one alone is not worth measuring."""
    first = {_family(variant.name): variant for variant in reversed(there)}
    if POINTWISE in first:
        first = {name: variant for name, variant in first.items() if name not in (IMAGES, UNROLLED)}
    elif len(first) > 1 and math.prod(work[0].kernel) < LARGE_WINDOW:
        first.pop(UNROLLED, None)
    return [variant for variant in there if variant in first.values()]


def _relatives(there: Sequence[Variant[Any]], measured: Mapping[str, float]) -> list[Variant[Any]]:
    """The fastest variant and others of its family; none where nothing else is in it, or a run takes little time."""
    winner = min(measured, key=measured.__getitem__, default="")
    found = [variant for variant in there if _family(variant.name) == _family(winner)]
    return found[:MOST_RELATIVES] if len(found) > 1 and measured[winner] > LEAST_RUN_S else []


def best(seconds: dict[str, float], there: Sequence[Variant[Any]]) -> str:
    """The fastest of those that were measured; the first where none was, or where it is as fast but for chance."""
    if not seconds:
        return there[0].name
    fastest = min(seconds.values())
    return next(variant.name for variant in there if seconds.get(variant.name, math.inf) <= CHANCE * fastest)


def _progress(total: int) -> tqdm[Any]:
    """A bar where a person watches, as commands have it."""
    watched = sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
    return tqdm(total=total, desc="measure", unit="pass", file=sys.stderr, dynamic_ncols=True, leave=False,
                disable=not watched)
