"""What a way of computing one pass of a convolution offers, so that one can be chosen for each layer and pass.

A *family* (a module ``conv_*.py``) lists the `Variant`s with which it can compute a pass of a geometry on a device,
what it holds for the fastest first.  Making a variant builds its kernels and reserves its workspace; running it
only computes.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

from ...runtime.space import DeviceArray


class ConvolutionPass:
    """One pass of a convolution, its kernels made.

    Attributes
    ----------
    workspace_bytes, scratch_bytes : memory that it alone holds, and that it shares, see `Primitive`
    mixes : whether results take rounding from their neighbours
    """

    workspace_bytes: int = 0
    scratch_bytes: int = 0
    mixes: bool = False


class ForwardPass(ConvolutionPass, abc.ABC):
    """y = x * w + bias."""

    @abc.abstractmethod
    def run(self, x: DeviceArray, w: DeviceArray, bias: DeviceArray | None, y: DeviceArray, rectify: bool) -> None:
        """`rectify`: y = max(x * w + bias, 0), with NaN passing through."""


class GradWeightPass(ConvolutionPass, abc.ABC):
    """dw (+)= the gradient with respect to w."""

    @abc.abstractmethod
    def run(self, x: DeviceArray, dy: DeviceArray, dw: DeviceArray, accumulate: bool) -> None:
        """`accumulate`: add to what `dw` holds; else overwrite it, whatever it held."""


class GradInputPass(ConvolutionPass, abc.ABC):
    """dx = the gradient with respect to x."""

    @abc.abstractmethod
    def run(self, dy: DeviceArray, w: DeviceArray, dx: DeviceArray) -> None:
        """Overwrite `dx`."""


P = TypeVar("P", ForwardPass, GradWeightPass, GradInputPass)


@dataclasses.dataclass(frozen=True)
class Variant(Generic[P]):
    """One way to compute a pass of one geometry on one device.

    Parameters
    ----------
    name : how tables, schedules and reports call it, such as ``direct 6x16``; the same for every geometry
    make : builds its kernels
    """

    name: str
    make: Callable[[], P]
