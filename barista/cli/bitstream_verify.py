"""``barista bitstream verify``: what an array computes, held against its model."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BitstreamError, UnsupportedError
from ..gemm.array_model import ModelArray
from ..gemm.conv_sizes import ConvArray
from ..gemm.engine import TileArray
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..hardware.bitstream import Bitstream
from ..hardware.manifest import CONV, CSIM
from ..latency.simulator.conv_layout import operand_shapes
from ..precision.formats import NumberFormat
from ..synthesis.conv_design import ConvDesign
from ..synthesis.conv_values import conv_values
from .bitstream_build import require_no_device

logger = logging.getLogger(__name__)

# Engines that equal the array's model bit for bit in floats too.
EXACT = ("array", CSIM)
# Tiles of the product that is compared: more than one in each direction.
VERIFIED_TILES = (2, 3, 2)
# Bound of the difference in units of the sum of the products' magnitudes; float32 rounds at 2^-24.
FLOAT_TOLERANCE = 1e-6
# Convolutions of which the first that an array holds is compared, large ones first; the last fits any array.
VERIFIED_CONVOLUTIONS = (
    ConvolutionGeometry(2, 6, 8, (9, 7), (3, 3), (2, 1), (1, 1), (1, 2), 2),
    ConvolutionGeometry(2, 3, 4, (6, 5), (3, 2), (2, 1), (1, 0), (1, 1)),
    ConvolutionGeometry(2, 2, 3, (4, 3), (2, 2), (1, 1), (1, 0), (1, 1)),
    ConvolutionGeometry(2, 1, 2, (2, 2), (1, 1), (1, 1), (0, 0), (1, 1)),
    ConvolutionGeometry(1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
)


def verify_array(args: argparse.Namespace, bitstream: Bitstream) -> None:
    """Load a bitstream of the board emulated and compare what it computes.

    Raises
    ------
    BitstreamError : it computes something else, or does not load
    DeviceError, MissingExtraError : no device
    """
    if bitstream.manifest.kind == CONV:
        from ..synthesis.conv_bitstream import SimulatedConvArray

        require_no_device(args, "verify", f"for engine {CSIM}")
        conv = SimulatedConvArray(bitstream)
        passes = compare_convolutions(conv)
        what = f"{' and '.join(pass_.value for pass_ in passes)} of small convolutions as"
        name = conv.name
    else:
        array = _load(args, bitstream)
        compare(array, ModelArray(array.tiles, array.format), exact=bitstream.manifest.engine in EXACT)
        what, name = "what", array.name
    logger.info("%s: the binary is that of the manifest, and computes %s the array's model does", name, what)


def _load(args: argparse.Namespace, bitstream: Bitstream) -> TileArray:
    """The array of a bitstream of the board emulated."""
    if bitstream.manifest.is_simulated:
        from ..synthesis.gemm_array import SimulatedArray

        require_no_device(args, "verify", f"for engine {CSIM}")
        return SimulatedArray(bitstream)
    from ..runtime.bitstream_program import DeviceArrayEngine
    from ..runtime.context import Context

    return DeviceArrayEngine(Context(args.device), bitstream)


def compare(array: TileArray, model: TileArray, exact: bool) -> None:
    """Compare a small product of an array with that of another.

    Parameters
    ----------
    exact : bit for bit; else floats within rounding

    Raises
    ------
    BitstreamError : they differ
    """
    nr, nc, np_ = VERIFIED_TILES
    rng, fmt, t = np.random.default_rng(1), array.format, array.tiles
    a, b = (numbers(rng, shape, fmt) for shape in (t.a_shape(nr, np_), t.b_shape(nc, np_)))
    results = []
    for one in (array, model):
        c = np.zeros(t.c_shape(nr, nc), fmt.accumulator_dtype)
        one.begin(nr, nc, np_)
        one.multiply(a, b, c, nr, nc, np_)
        results.append(c)
    found, expected = results
    magnitude = np.einsum("ipkr,jpkc->ijrc", abs(a.astype(np.float64)), abs(b.astype(np.float64)))
    allowed = 0 if exact or fmt.is_fixed else FLOAT_TOLERANCE * magnitude
    wrong = ~(abs(found.astype(np.float64) - expected) <= allowed)
    if wrong.any():
        at = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise BitstreamError(f"{array.name}: {wrong.sum()} of {wrong.size} numbers differ from the array's model, the "
                             f"first at [tile row, tile column, row, column] {list(at)}: {found[at]} for "
                             f"{expected[at]}; build the bitstream again")


def compare_convolutions(array: ConvArray) -> list[Pass]:
    """Compare a small convolution of each pass with the model of the array, bit for bit.

    Returns
    -------
    list of Pass
        Those that the array holds any convolution of, which it need not for passes that it was not built for.

    Raises
    ------
    BitstreamError : they differ
    """
    design, rng, found = ConvDesign.of(array.sizes, array.format.name), np.random.default_rng(1), []
    for pass_ in Pass:
        geometry = next((g for g in VERIFIED_CONVOLUTIONS if _fits(design, g, pass_)), None)
        if geometry is None:
            continue
        inp, kern = (numbers(rng, shape, array.format) for shape in operand_shapes(geometry, pass_)[:2])
        output, _ = array.convolve(geometry, pass_, inp, kern)
        expected = conv_values(geometry, pass_, inp, kern, array.format)
        wrong = output != expected
        if wrong.any():
            at = tuple(int(index) for index in np.argwhere(wrong)[0])
            raise BitstreamError(f"{array.name}: {pass_.value}: {wrong.sum()} of {wrong.size} numbers differ from the "
                                 f"array's model, the first at {list(at)}: {output[at]} for {expected[at]}; build the "
                                 "bitstream again")
        found.append(pass_)
    return found


def _fits(design: ConvDesign, geometry: ConvolutionGeometry, pass_: Pass) -> bool:
    try:
        design.require_fits(geometry, pass_)
    except UnsupportedError:
        return False
    return True


def numbers(rng: np.random.Generator, shape: tuple[int, ...], fmt: NumberFormat) -> npt.NDArray[Any]:
    """Return numbers of both signs over the whole range of a format."""
    if fmt.is_fixed:
        return rng.integers(fmt.lower, fmt.upper, shape, fmt.storage_dtype, endpoint=True)
    return rng.standard_normal(shape, np.float32)
