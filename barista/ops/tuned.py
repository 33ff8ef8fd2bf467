"""What tuning finds out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..gemm.shapes import ConvolutionGeometry, Pass


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was measured of one pass of a convolution.

    Attributes
    ----------
    works : geometries and passes that it is for; their batches may differ
    geometry : what was measured, of as many images as suffice
    seconds : what each variant took, by name; those that failed are left out
    chosen : the name of the one that computes from now on
    """

    works: Sequence[tuple[ConvolutionGeometry, Pass]]
    geometry: ConvolutionGeometry
    seconds: Mapping[str, float]
    chosen: str
