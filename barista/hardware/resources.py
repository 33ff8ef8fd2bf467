"""What an array takes of a board (thesis, Eq. 4.10, 4.11 and section 5.3.10)."""

from __future__ import annotations

import dataclasses

from ..gemm.conv_sizes import ConvSizes
from ..gemm.tiles import TileSizes
from ..precision.formats import NumberFormat

# DSP blocks of a multiply-accumulate unit, V in Eq. 4.10; thesis, section 4.3. Its evaluation has 5 for
# float32: 16 x 16 elements took 18.8 % of 6,840.
DSP_FLOAT = 9
DSP_FIXED = 3


@dataclasses.dataclass(frozen=True)
class Resources:
    """Blocks and memory.

    Parameters
    ----------
    dsp : multiplier blocks
    bram_bits : on-chip memory; of a GEMM array without the copies that double buffering keeps
    """

    dsp: int
    bram_bits: int

    def exceeding(self, dsp: int, bram_bits: int) -> list[tuple[str, int, int]]:
        """What there is too little of on a board of `dsp` blocks and `bram_bits`: what, how many, of how many."""
        return [(what, count, held) for what, count, held in (("DSP blocks", self.dsp, dsp),
                                                              ("bits of BRAM", self.bram_bits, bram_bits))
                if count > held]


def array_resources(array: TileSizes | ConvSizes, fmt: NumberFormat) -> Resources:
    """Return what a semi-systolic array of Tr x Tc elements takes, or FPGPT's of X x Y."""
    dsp = DSP_FIXED if fmt.is_fixed else DSP_FLOAT
    if isinstance(array, ConvSizes):
        words, result_bits = array.on_chip_words, 8 * fmt.accumulator_dtype.itemsize
        return Resources(array.x * array.y * dsp, fmt.bits * (words["line"] + words["kern"])
                         + result_bits * words["out"])
    elements = array.tr * array.tc
    words_held = array.tr * array.tp + array.tp * array.tc + elements * fmt.partial_sums
    return Resources(elements * dsp, fmt.bits * words_held)
