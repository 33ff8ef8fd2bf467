"""What an array takes of a board: multiplier blocks, bits and blocks of on-chip memory (thesis, chapters 4 and 5).

Pure functions on shapes; sizes may be arrays that broadcast.  A block of memory belongs to one bank, however little of
it the bank fills, and serves as many accesses a cycle as it has ports; so blocks, not bits, are what runs out first.
Everything is rounded up: a design that is said to fit must not fail when it is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..hardware.resources import DSP_FIXED, DSP_FLOAT
from .conv_model import Built, Compiled, ConvAssumptions
from .conv_roles import conv_roles, line_buffer
from .integers import Array, align, ceil_div, counts, require_whole

# V of Eq. 4.10 with which the thesis's evaluation agrees: 16 x 16 elements in 18.8 % of 6,840 blocks.
DSP_EVALUATED = 5


@dataclasses.dataclass(frozen=True)
class Ram:
    """A kind of on-chip memory block.

    Parameters
    ----------
    name : as messages say it
    shapes : (longest word in bits, words a block), narrow words first
    ports : accesses a cycle
    """

    name: str
    shapes: tuple[tuple[int, int], ...]
    ports: int = 2

    def words(self, word_bits: int) -> int:
        """Words of this length that a block holds, WPB.

        Raises
        ------
        UnsupportedError : words longer than the block is wide
        """
        require_whole(self.name, 1, word_bits=word_bits)
        for longest, words in self.shapes:
            if word_bits <= longest:
                return words
        raise UnsupportedError(f"{self.name}: a word of {word_bits} bits is longer than the {self.shapes[-1][0]} bits "
                               "that a block is wide; use shorter words")


# AMD UltraScale+ (UG573): block memory comes in halves of 18 Kb that are used alone or in pairs, with words of 9, 18,
# 36 or, in pairs, 72 bits, parity included; an UltraRAM is 72 bits wide and takes one word a row.
BRAM18 = Ram("BRAM18", ((9, 2048), (18, 1024), (36, 512)))
# The thesis's figures for FPGPT follow from 1,024 words of 32 bits a block, which is a pair.
BRAM36 = Ram("BRAM36", ((9, 4096), (18, 2048), (36, 1024), (72, 512)))
URAM = Ram("URAM", ((72, 4096),))


class GemmWords(NamedTuple):
    """Words of Barista's buffers, of operands in `a` and `b`, of sums in `c`; arrays as in `GemmBlocks`."""

    a: Array
    b: Array
    c: Array


class GemmBlocks(NamedTuple):
    """Blocks of Barista's buffers; arrays of the shape that the tile sizes broadcast to."""

    a: Array
    b: Array
    c: Array

    @property
    def total(self) -> Array:
        """All blocks."""
        return np.asarray(self.a + self.b + self.c)


class ConvBlocks(NamedTuple):
    """Blocks of FPGPT's memories; arrays of the shape that X and Y broadcast to."""

    inp: Array
    kern: Array
    out: Array

    @property
    def total(self) -> Array:
        """All blocks."""
        return np.asarray(self.inp + self.kern + self.out)


class ConvWords(NamedTuple):
    """Words of the memories of a bitstream of FPGPT's array, second halves included.

    Parameters
    ----------
    z : words of INP that are at hand at once
    line, kern, out : of the line buffers, of KERN's rows and of OUT's columns
    """

    z: int
    line: int
    kern: int
    out: int


def gemm_dsp(tr: npt.ArrayLike, tc: npt.ArrayLike, dsp_an_element: int = DSP_FLOAT) -> Array:
    """Multiplier blocks of Barista's array, Tr Tc V (Eq. 4.10).

    Parameters
    ----------
    dsp_an_element : V; 9 as the thesis writes for float32, 3 for fixed point, 5 as it evaluated

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers
    """
    require_whole("gemm_dsp", 1, dsp_an_element=dsp_an_element)
    tr, tc = counts("gemm_dsp", tr=tr, tc=tc)
    return np.asarray(tr * tc * dsp_an_element)


def gemm_bram_bits(tr: npt.ArrayLike, tc: npt.ArrayLike, tp: npt.ArrayLike, word_bits: int = 32,
                   partial_sums: int = 10) -> Array:
    """Bits of Barista's buffers without their second copies (Eq. 4.11).

    Parameters
    ----------
    partial_sums : S; an element keeps S + 1 sums

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers
    """
    require_whole("gemm_bram_bits", 1, word_bits=word_bits)
    return np.asarray(word_bits * sum(banks * deep for banks, deep in _gemm_buffers("gemm_bram_bits", tr, tc, tp,
                                                                                     partial_sums)))


def gemm_words(tr: npt.ArrayLike, tc: npt.ArrayLike, tp: npt.ArrayLike, partial_sums: int = 10) -> GemmWords:
    """Words of Barista's buffers with their second copies: 2 Tr Tp, 2 Tp Tc and 2 (S + 1) Tr Tc.

    Parameters
    ----------
    partial_sums : S; an element keeps S + 1 sums

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers
    """
    return GemmWords(*(np.asarray(2 * banks * deep)
                       for banks, deep in _gemm_buffers("gemm_words", tr, tc, tp, partial_sums)))


def gemm_blocks(tr: npt.ArrayLike, tc: npt.ArrayLike, tp: npt.ArrayLike, word_bits: int = 32,
                partial_sums: int = 10, result_bits: int | None = None, ram: Ram = BRAM18) -> GemmBlocks:
    """Blocks of Barista's buffers by ports and words, all of them double.

    A and B are double as section 4.1.3 says; so is C, since Eq. 4.6 lets a tile be written out while the next one is
    computed.

    Parameters
    ----------
    partial_sums : S; an element keeps S + 1 sums
    result_bits : length of a sum; None for `word_bits`

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers, or words longer than a block is wide
    """
    buffers = _gemm_buffers("gemm_blocks", tr, tc, tp, partial_sums)
    bits = (word_bits, word_bits, word_bits if result_bits is None else result_bits)
    return GemmBlocks(*(np.asarray(2 * banks * ceil_div(deep, ram.words(length)))
                        for (banks, deep), length in zip(buffers, bits, strict=True)))


def _gemm_buffers(who: str, tr: npt.ArrayLike, tc: npt.ArrayLike, tp: npt.ArrayLike,
                  partial_sums: int) -> list[tuple[Array, Array]]:
    """Banks of Barista's buffers of A, B and C, and words a bank, without second copies; all broadcast.

    A bank for each word that is taken in a cycle: the mesh takes Tr words of A and Tc of B, and each of its elements
    reads and writes one of its own S + 1 sums.
    """
    require_whole(who, 0, partial_sums=partial_sums)
    tr, tc, tp = np.broadcast_arrays(*counts(who, tr=tr, tc=tc, tp=tp))
    return [(tr, tp), (tc, tp), (tr * tc, np.full_like(tr, partial_sums + 1))]


def conv_dsp(x: npt.ArrayLike, y: npt.ArrayLike, fixed: bool = False) -> Array:
    """Multiplier blocks of FPGPT's array, 9 X Y for float32 and 3 X Y for fixed point (section 5.3.10).

    Raises
    ------
    UnsupportedError : sizes below 1 or no whole numbers
    """
    x, y = counts("conv_dsp", x=x, y=y)
    return np.asarray(x * y * (DSP_FIXED if fixed else DSP_FLOAT))


def conv_blocks(geometry: ConvolutionGeometry, pass_: Pass, x: npt.ArrayLike, y: npt.ArrayLike,
                assumptions: ConvAssumptions, ram: Ram = BRAM18, compiled: Compiled | None = None) -> ConvBlocks:
    """Blocks of FPGPT's memories for one pass of a convolution (Eq. 5.14 to 5.22).

    For each memory the larger of what its words and what its ports ask for.  The thesis's own figures count `BRAM36`
    for words of 32 bits; boards say how many halves they have, so those are what is counted here.

    A bitstream that several convolutions share takes the largest of each memory over all of them, INP's at the sizes
    in `compiled`.

    Parameters
    ----------
    x, y : columns and rows of the array, whole numbers or arrays of them that broadcast
    compiled : what the bitstream was built for; None for this convolution alone

    Raises
    ------
    UnsupportedError : as `conv_latency`, or words longer than a block is wide
    """
    x, y = counts("conv_blocks", x=x, y=y)
    r = conv_roles(geometry, pass_)
    built = Built.of(r, *line_buffer(r, x), compiled)
    shape = np.broadcast_shapes(x.shape, y.shape, *(size.shape for size in built))
    words = ram.words(assumptions.word_bits)
    sets = ceil_div(r.positions, x)
    inp = inp_blocks(built.z, built.z_channel, assumptions, ram)
    if r.sums_up:
        kern = 2 * y * y * ceil_div(align(r.stored_products, y), words)
        out = x * ceil_div(r.out_n * r.out_c * sets, words)
    else:
        kern = y * ceil_div(ceil_div(r.kern_n, y) * r.stored_products, words)
        out = 2 * x * ceil_div(y * sets, words)
    return ConvBlocks(*(np.broadcast_to(blocks, shape) for blocks in (
        inp, np.maximum(kern, ceil_div(y, ram.ports)), np.maximum(out, ceil_div(x, ram.ports)))))


def inp_blocks(z: Array, z_channel: Array, assumptions: ConvAssumptions, ram: Ram = BRAM18) -> Array:
    """Blocks of INP's two line buffers, by words and by ports (Eq. 5.14, 5.18, 5.21).

    Parameters
    ----------
    z, z_channel : words that the array may want at once, and that a line buffer holds
    """
    held = align(align(align(z_channel, assumptions.band), z), 2 * z)
    return np.asarray(np.maximum(2 * ceil_div(held, ram.words(assumptions.word_bits)), ceil_div(z, ram.ports)))


def conv_words(passes: Iterable[tuple[ConvolutionGeometry, Pass]], x: int, y: int, band: int) -> ConvWords:
    """Words of FPGPT's memories on one bitstream for several passes (Eq. 5.14 to 5.16).

    Two line buffers; KERN in Y rows of Y banks each, so that Y words of a filter come in at once, the words of a row
    rounded up to fill two halves of them; OUT in X columns.  `conv_blocks` follows Eq. 5.19, which counts each of the
    Y^2 banks as if it held a whole filter; it holds a Y-th of one.

    Parameters
    ----------
    band : words of a beat of INP

    Raises
    ------
    UnsupportedError : sizes below 1, no pass, or a convolution that has not two spatial axes
    """
    require_whole("conv_words", 1, x=x, y=y, band=band)
    z, z_channel, kern, out = 0, 0, 0, 0
    for geometry, pass_ in passes:
        r = conv_roles(geometry, pass_)
        sets = int(ceil_div(r.positions, x))
        here, channel = (int(size) for size in line_buffer(r, x))
        z, z_channel = max(z, here), max(z_channel, channel)
        if r.sums_up:
            kern, out = max(kern, 2 * int(align(r.stored_products, y))), max(out, r.out_n * r.out_c * sets)
        else:
            kern = max(kern, int(ceil_div(r.kern_n, y)) * r.stored_products)
            out = max(out, 2 * y * sets)
    if not z:
        raise UnsupportedError("conv_words: there is no pass to count the words of; give one at least")
    line = int(align(align(align(z_channel, band), z), 2 * z))
    return ConvWords(z, 2 * line, y * int(align(kern, 2 * y)), x * int(align(out, 2)))
