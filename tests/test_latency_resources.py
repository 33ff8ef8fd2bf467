"""The resource models: reference values, never below what a design declares, and what they refuse."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barista.errors import UnsupportedError
from barista.gemm.shapes import ConvolutionGeometry, Pass
from barista.latency.conv_model import Compiled, ConvAssumptions
from barista.latency.conv_roles import conv_roles, line_buffer
from barista.latency.resources import (
    BRAM18,
    BRAM36,
    DSP_EVALUATED,
    URAM,
    Ram,
    conv_blocks,
    conv_dsp,
    gemm_blocks,
    gemm_bram_bits,
    gemm_dsp,
)

VECTORS = Path(__file__).parent / "latency"
LAYER = ConvolutionGeometry(2, 16, 24, (14, 14), (3, 3), (1, 1), (1, 1), (1, 1))

rams = st.sampled_from([BRAM18, BRAM36, URAM])
geometries = st.builds(
    lambda batch, channels, filters, size, kernel, stride: ConvolutionGeometry(
        batch, channels, filters, (size, size + 1), (kernel, kernel), (stride, stride), (kernel // 2, kernel // 2),
        (1, 1)),
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 3, 5]),
    st.integers(1, 3))


def rows(name: str) -> list[dict[str, str]]:
    with (VECTORS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_reference_values_of_products() -> None:
    for row in rows("gemm_vectors.csv"):
        tr, tc, tp, bits, sums = (int(row[name]) for name in ("Tr", "Tc", "Tp", "word_bits", "S"))
        assert int(gemm_dsp(tr, tc, DSP_EVALUATED)) == int(row["dsp_V5"])
        assert int(gemm_dsp(tr, tc)) == int(row["dsp_V9"])
        assert int(gemm_bram_bits(tr, tc, tp, bits, sums)) == int(row["bram_bits"])


def test_reference_values_of_convolutions() -> None:
    """They count blocks of 1,024 words of 32 bits."""
    for row in rows("conv_vectors.csv"):
        cell = {name: int(value) for name, value in row.items() if name not in ("pass", "reading")}
        geometry = ConvolutionGeometry(
            cell["batch"], cell["in_channels"], cell["out_channels"], (cell["in_h"], cell["in_w"]),
            (cell["kernel"],) * 2, (cell["stride"],) * 2, (cell["pad"],) * 2, (1, 1))
        found = conv_blocks(geometry, Pass(row["pass"]), cell["X"], cell["Y"],
                            ConvAssumptions(band=cell["BAND"], reading=row["reading"]), BRAM36)
        assert [int(blocks) for blocks in found] == [cell[f"blocks_{name}"] for name in ("inp", "kern", "out")], row
        assert int(found.total) == sum(int(blocks) for blocks in found)


def test_share_of_multipliers_of_the_thesis() -> None:
    """16 x 16 elements take 18.8 % of 6,840 blocks, with five for an element."""
    assert 100 * int(gemm_dsp(16, 16, DSP_EVALUATED)) / 6840 == pytest.approx(18.8, abs=0.1)
    assert int(conv_dsp(16, 8)) == 9 * 128
    assert int(conv_dsp(16, 8, fixed=True)) == 3 * 128


@pytest.mark.parametrize(("ram", "bits", "words"), [
    (BRAM18, 1, 2048), (BRAM18, 8, 2048), (BRAM18, 12, 1024), (BRAM18, 18, 1024), (BRAM18, 32, 512),
    (BRAM36, 8, 4096), (BRAM36, 32, 1024), (BRAM36, 64, 512), (URAM, 8, 4096), (URAM, 72, 4096)])
def test_words_of_a_block(ram: Ram, bits: int, words: int) -> None:
    assert ram.words(bits) == words


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 3000), st.sampled_from([8, 16, 32]),
       st.integers(0, 40), rams)
def test_buffers_of_products_hold_what_is_declared(tr: int, tc: int, tp: int, bits: int, sums: int, ram: Ram) -> None:
    """a[2][Tr][Tp], b[2][Tc][Tp], c[2][Tr][Tc][S + 1]: words, and a bank for each that is taken in a cycle."""
    found = gemm_blocks(tr, tc, tp, bits, sums, 32, ram)
    for blocks, declared, banks, length in ((found.a, 2 * tr * tp, 2 * tr, bits), (found.b, 2 * tc * tp, 2 * tc, bits),
                                            (found.c, 2 * tr * tc * (sums + 1), 2 * tr * tc, 32)):
        assert int(blocks) * ram.words(length) >= declared
        assert int(blocks) >= banks
    assert int(found.total) == int(found.a) + int(found.b) + int(found.c)


@given(geometries, st.sampled_from(Pass), st.integers(1, 60), st.integers(1, 40), st.sampled_from([8, 16, 32]), rams)
def test_memories_of_convolutions_hold_what_is_declared(geometry: ConvolutionGeometry, pass_: Pass, x: int, y: int,
                                                        bits: int, ram: Ram) -> None:
    """Two line buffers; Y filters of KERN, all of them where they stay; X columns of OUT, twice where it goes on."""
    found = conv_blocks(geometry, pass_, x, y, ConvAssumptions(word_bits=bits), ram)
    roles = conv_roles(geometry, pass_)
    z, z_channel = (int(size) for size in line_buffer(roles, x))
    if pass_ is Pass.GRAD_WEIGHT:
        kern, out = 2 * y * roles.stored_products, roles.out_n * roles.out_c * roles.positions
    else:
        kern, out = roles.kern_words, 2 * y * roles.positions
    for blocks, declared, taken in ((found.inp, 2 * z_channel, z), (found.kern, kern, y), (found.out, out, x)):
        assert int(blocks) * ram.words(bits) >= declared
        assert int(blocks) * ram.ports >= taken


@given(geometries, st.sampled_from(Pass), st.lists(st.integers(1, 60), min_size=1, max_size=4),
       st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_arrays_are_loops(geometry: ConvolutionGeometry, pass_: Pass, xs: list[int], ys: list[int]) -> None:
    found = conv_blocks(geometry, pass_, np.array(xs)[:, None], np.array(ys), ConvAssumptions())
    products = gemm_blocks(np.array(xs)[:, None], np.array(ys), 700)
    for row, x in enumerate(xs):
        for column, y in enumerate(ys):
            for whole, one in zip((*found, *products), (*conv_blocks(geometry, pass_, x, y, ConvAssumptions()),
                                                        *gemm_blocks(x, y, 700)), strict=True):
                assert whole.shape == (len(xs), len(ys)) and whole[row, column] == one


def test_compiled_for_more() -> None:
    own = conv_blocks(LAYER, Pass.FORWARD, 16, 8, ConvAssumptions())
    more = conv_blocks(LAYER, Pass.FORWARD, 16, 8, ConvAssumptions(), compiled=Compiled(z_channel=5000))
    assert int(more.inp) > int(own.inp) and int(more.inp) * 512 >= 2 * 5000
    assert (more.kern, more.out) == (own.kern, own.out)


def test_words_too_long() -> None:
    with pytest.raises(UnsupportedError, match="BRAM18: a word of 40 bits is longer than the 36 bits"):
        gemm_blocks(4, 4, 4, word_bits=40)
    with pytest.raises(UnsupportedError, match="URAM: a word of 80 bits is longer than the 72 bits"):
        conv_blocks(LAYER, Pass.FORWARD, 4, 4, ConvAssumptions(word_bits=80), URAM)


@pytest.mark.parametrize(("sizes", "changes", "message"), [
    ((0, 1, 1), {}, "gemm_blocks: tr=0 is below 1"),
    ((1, 1, 2.5), {}, "tp is 2.5; give a whole number"),
    ((1, 1, 1), {"partial_sums": -1}, "partial_sums is -1; give a whole number, 0 or above"),
    ((1, 1, 1), {"word_bits": 0}, "BRAM18: word_bits is 0; give a whole number, 1 or above")])
def test_senseless_sizes(sizes: tuple[Any, ...], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        gemm_blocks(*sizes, **changes)
    assert message in str(caught.value)
    with pytest.raises(UnsupportedError, match="conv_blocks: x=0 is below 1"):
        conv_blocks(LAYER, Pass.FORWARD, 0, 4, ConvAssumptions())
