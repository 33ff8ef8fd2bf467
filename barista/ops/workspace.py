"""Whose primitives are, and what memory they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..gemm.shapes import Pass


@dataclasses.dataclass(frozen=True)
class Owner:
    """For whom primitives are made.

    Attributes
    ----------
    net : the net's name
    phase : TRAIN (0) or TEST (1)
    layer : the layer's name
    pass_ : the layer's pass that a matrix product is for; None for primitives with several
    """

    net: str = ""
    phase: int = 0
    layer: str = ""
    pass_: Pass | None = None


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Bytes that op sets take beyond blobs and parameters.

    Attributes
    ----------
    held : what primitives in use hold, each alone, by their owners; an owner's pass does not count
    shared : what primitives use in turn
    """

    held: Mapping[Owner, int]
    shared: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.held.values()) + self.shared
