"""What is to be computed: one pass of one convolution over a batch."""

from __future__ import annotations

import dataclasses

from ..gemm.shapes import ConvolutionGeometry, GemmShape, Pass


@dataclasses.dataclass(frozen=True)
class Workload:
    """One pass of one convolution over a batch.

    Parameters
    ----------
    layer : name of the layer
    pass_ : which pass of it
    geometry : its shapes
    """

    layer: str
    pass_: Pass
    geometry: ConvolutionGeometry

    @property
    def name(self) -> str:
        """As tables show it, such as ``conv1 forward``."""
        return f"{self.layer} {self.pass_.value}"

    @property
    def ops(self) -> int:
        """Operations over the whole batch; a multiply-accumulate is two."""
        return 2 * self.geometry.macs

    def gemms(self) -> list[tuple[GemmShape, int]]:
        """The products as Caffe issues them, image by image and group by group, as (shape, how often)."""
        return [(self.geometry.gemm(self.pass_), self.geometry.batch * self.geometry.group)]
