"""Convolutions: each pass computed by the variant that was chosen for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...blob import Tensor
from ...errors import DeviceError, ScheduleError, nearest, out_of_memory
from ...gemm.shapes import ConvolutionGeometry, Pass
from ..base import Convolution
from .choice import Choices
from .conv_pass import Variant
from .device import Device

log = logging.getLogger(__name__)


class OpenCLConvolution(Convolution):
    """The three passes of a convolution over one to three spatial axes.

    A pass is made when `make` asks for it, or at its first use: a net that does not train has no kernels that go
    backward.

    Parameters
    ----------
    choices : say which variant computes a pass
    wanted : for passes whose variant a schedule names, its name

    Attributes
    ----------
    geometry : of the convolution

    Raises
    ------
    ScheduleError : a wanted variant is not there
    """

    def __init__(self, device: Device, geometry: ConvolutionGeometry, choices: Choices,
                 wanted: Mapping[Pass, str] | None = None) -> None:
        self.space = device.space
        self.geometry = geometry
        self._choices = choices
        self._wanted = {pass_: _named(choices, geometry, pass_, name) for pass_, name in (wanted or {}).items()}
        self._made: dict[Pass, tuple[str, Any]] = {}

    @property
    def wanted(self) -> frozenset[Pass]:
        """Passes that need no choice."""
        return frozenset(self._wanted)

    def make(self, passes: Iterable[Pass]) -> None:
        """Build the kernels of these passes now, rather than at their first use."""
        for pass_ in passes:
            if pass_ not in self._made:
                self._make(pass_, self._wanted.get(pass_) or self._choices.variant(self.geometry, pass_))

    def mixes(self, pass_: Pass) -> bool:
        self.make((pass_,))
        return bool(self._made[pass_][1].mixes)

    def _make(self, pass_: Pass, variant: Variant[Any]) -> None:
        self._made[pass_] = (variant.name, variant.make())
        self.variant = ", ".join(f"{each.value}: {self._made[each][0]}" for each in Pass if each in self._made)
        self.workspace_bytes = sum(made.workspace_bytes for _, made in self._made.values())
        self.scratch_bytes = max(made.scratch_bytes for _, made in self._made.values())

    def _run(self, pass_: Pass, run: Callable[[Any], None]) -> None:
        """Run a pass; where memory is missing for its variant, by the one of last resort from now on."""
        try:
            self.make((pass_,))
            run(self._made[pass_][1])
        except DeviceError as error:
            last = self._choices.there((self.geometry, pass_))[-1]
            # What fails for want of memory has changed no result, so it can be computed another way.
            if not out_of_memory(error) or (pass_ in self._made and self._made[pass_][0] == last.name):
                raise
            log.warning("%s of a convolution of %s to %s: %s; going on with the variant %r", pass_.value,
                        self.geometry.x_shape, self.geometry.y_shape, error, last.name)
            self._make(pass_, last)
            run(self._made[pass_][1])

    # ---- passes -----------------------------------------------------------------------------

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, rectify: bool = False) -> None:
        source, weights = x.read(self.space), w.read(self.space)
        shift = None if bias is None else bias.read(self.space)
        result = y.write(self.space)
        if self.geometry.batch:
            self._run(Pass.FORWARD, lambda made: made.run(source, weights, shift, result, rectify))

    def grad_weight(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        source, gradient = x.read(self.space), dy.read(self.space)
        result, fresh = dw.accumulate(self.space)
        if self.geometry.batch:
            self._run(Pass.GRAD_WEIGHT, lambda made: made.run(source, gradient, result, not fresh))
        elif fresh:
            self.space.zero(result)

    def grad_input(self, dy: Tensor, w: Tensor, dx: Tensor) -> None:
        gradient, weights = dy.read(self.space), w.read(self.space)
        result = dx.write(self.space)
        if self.geometry.batch:
            self._run(Pass.GRAD_INPUT, lambda made: made.run(gradient, weights, result))


def _named(choices: Choices, geometry: ConvolutionGeometry, pass_: Pass, name: str) -> Variant[Any]:
    """The variant of this name.

    Raises
    ------
    ScheduleError : there is none
    """
    there = {variant.name: variant for variant in choices.there((geometry, pass_))}
    if name not in there:
        hint = nearest(name, there)
        raise ScheduleError(f"{pass_.value}: variant {name!r} is not there for this convolution on this device; "
                            + (f"{hint} " if hint else "") + f"there are: {', '.join(there)}")
    return there[name]
