"""``barista bitstream``: build, import, list, inspect and verify bitstreams."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BitstreamError, nearest
from ..gemm.array_model import ModelArray
from ..gemm.engine import TileArray
from ..gemm.tiles import TileSizes
from ..hardware import bitstream as bitstreams
from ..hardware.bitstream import Bitstream
from ..hardware.board import EMULATED, BoardSummary, board_names, load_board
from ..hardware.library import Library
from ..precision.formats import NumberFormat
from .arguments import Parser, UsageError

logger = logging.getLogger(__name__)

DESCRIPTION = """Work on bitstreams: a device binary that holds a GEMM array, and beside it a manifest that says
what it is.

  build            compile a kernel for this machine's OpenCL device, for the board 'emulated'
  import FILE      copy an .xclbin that a vendor's tools built, and write its manifest
  list DIR         the bitstreams of a folder
  inspect FILE     what a bitstream is
  verify FILE      check it against its manifest; on the board 'emulated' also load it and compare a product"""

EXAMPLES = """  barista bitstream build --tile 16,16,64 --precision fp32 --board emulated
  barista bitstream list bitstreams
  barista bitstream verify bitstreams/gemm_array_16x16x64_fp32_emulated.json
  barista bitstream import gemm.xclbin --tile 32,32,64 --precision fp32 --board u250 --kernel gemm"""

# What `build` makes, and where `build` and `import` write, unless told otherwise.
TILE, PRECISION, ENGINE, OUT = "16,16,64", "fp32", "array", "bitstreams"

# What an .xclbin begins with.
XCLBIN_MAGIC = b"xclbin2\0"
# Tiles of the product that `verify` compares: more than one in each direction.
VERIFIED_TILES = (2, 3, 2)
# Bound of the difference in units of the sum of the products' magnitudes; float32 rounds at 2^-24.
FLOAT_TOLERANCE = 1e-6


def add_arguments(parser: Parser) -> None:
    """Declare the action, its operand and the options."""
    parser.add_argument("action", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("path", metavar="PATH", nargs="?", default=None, help="FILE or DIR that the action works on")
    group = parser.add_argument_group("what a bitstream is for")
    group.add_argument("--tile", default=None, metavar="TR,TC,TP",
                       help=f"build, import: sizes of tiles; the array has TR x TC elements (build: default {TILE})")
    group.add_argument("--precision", default=None, metavar="NAME",
                       help=f"build, import: fp32, dfxp8, dfxp12, dfxp14 or dfxp16 (build: default {PRECISION})")
    group.add_argument("--board", default=None, metavar="NAME",
                       help=f"build (default {EMULATED}), import: the board, one of {', '.join(board_names())}, or a "
                            ".toml file; inspect, verify: the board that it must be for")
    group.add_argument("--engine", default=None, metavar="NAME",
                       help="build: array, the mesh step by step, or fast, its products at a CPU's full speed (default "
                            f"{ENGINE})")
    group.add_argument("--kernel", default=None, metavar="NAME",
                       help="import: name of the kernel in the binary (default semi_systolic)")
    group.add_argument("--clock-hz", default=None, type=float, metavar="HZ",
                       help="import: clock of the design (default: the board's)")
    group = parser.add_argument_group("where")
    group.add_argument("--out", default=None, metavar="DIR", help=f"build, import: where to write (default {OUT})")
    group.add_argument("--device", default=None, metavar="ID",
                       help="build, verify: OpenCL device, its number in `barista device_query`, or part of its name")


def run(args: argparse.Namespace) -> None:
    """Do what the action says."""
    action = ACTIONS.get(args.action)
    if action is None:
        hint = nearest(args.action, ACTIONS) or f"actions: {', '.join(ACTIONS)}"
        raise UsageError(f"bitstream has no action {args.action!r}; {hint}; see: barista bitstream --help")
    if args.action != "build" and args.path is None:
        raise UsageError(f"bitstream {args.action} needs a {'folder' if args.action == 'list' else 'file'}; "
                         "see: barista bitstream --help")
    if args.action == "build" and args.path is not None:
        raise UsageError(f"{args.path!r} is one word too many; see: barista bitstream --help")
    given = [name for name in OPTIONS if getattr(args, name) is not None]
    for name in given:
        if name not in action.options:
            takes = f"it takes {_options(action.options)}" if action.options else "it has no options of its own"
            raise UsageError(f"bitstream {args.action} has no use for {_options([name])}; {takes}")
    missing = [name for name in action.required if name not in given]
    if missing:
        raise UsageError(f"bitstream {args.action} needs {_options(missing)}, which cannot be read from the binary; "
                         "see: barista bitstream --help")
    action.run(args)


def _options(names: Iterable[str]) -> str:
    """Options as they are typed."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _build(args: argparse.Namespace) -> None:
    from ..runtime.bitstream_build import build
    from ..runtime.context import Context

    board, tiles = load_board(args.board or EMULATED), TileSizes.parse(args.tile or TILE)
    _report(build(Context(args.device), args.out or OUT, tiles, args.precision or PRECISION, board,
                  args.engine or ENGINE))


def _import(args: argparse.Namespace) -> None:
    board, tiles, path = load_board(args.board), TileSizes.parse(args.tile), Path(args.path)
    if board.is_emulated:
        cards = ", ".join(name for name in board_names() if name != EMULATED)
        raise BitstreamError(f"{path}: a binary that is imported is for a card; give one of {cards} or a .toml file "
                             f"with --board (those for the board {board.name} are built)")
    if args.clock_hz is not None and not 0 < args.clock_hz < math.inf:
        raise BitstreamError(f"--clock-hz {args.clock_hz:g}: give a clock above 0")
    try:
        binary = path.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{path} cannot be read ({error.strerror}); give the file that v++ wrote") from None
    if path.suffix == bitstreams.SUFFIX:
        raise BitstreamError(f"{path} has the suffix of a manifest; give the binary")
    if path.suffix == ".xclbin" and not binary.startswith(XCLBIN_MAGIC):
        raise BitstreamError(f"{path}: not an .xclbin: it does not begin with {XCLBIN_MAGIC[:-1].decode()!r}; give the "
                             "file that v++ wrote")
    bitstream = bitstreams.write(args.out or OUT, binary, tiles, args.precision, board, kernel=args.kernel,
                                 clock_hz=args.clock_hz, suffix=path.suffix or ".bin")
    for what, count, held in bitstream.manifest.resources.exceeding(board.dsp, board.bram_bits):
        logger.warning("tile %s in %s takes %d %s by the models' count, and the board %s has %d: see that --tile, "
                       "--precision and --board are what the binary was built for", tiles, args.precision, count, what,
                       board.name, held)
    _report(bitstream)


def _report(bitstream: Bitstream) -> None:
    logger.info("Wrote %s with %s, %d bytes", bitstream.path, bitstream.binary_path.name,
                bitstream.manifest.size_bytes)


def _list(args: argparse.Namespace) -> None:
    found = Library(args.path).bitstreams
    width = max(map(len, found))
    for name, bitstream in found.items():
        m = bitstream.manifest
        damage = bitstream.damage()
        print(f"{name:<{width}}  tile {m.tiles!s:<10}  {m.precision:<6}  {m.engine:<5}  {m.board.name}"
              + (f"  (binary {damage})" if damage else ""))


def _inspect(args: argparse.Namespace) -> None:
    bitstream = bitstreams.load(args.path)
    for line in describe(bitstream, _board(args, bitstream)):
        print(line)


def _board(args: argparse.Namespace, bitstream: Bitstream) -> BoardSummary:
    """The board of a bitstream: as its manifest has it, or the one that --board gives, which must have its name.

    Raises
    ------
    BitstreamError : it is for another board
    """
    if args.board is None:
        return bitstream.manifest.board
    board = load_board(args.board)
    bitstream.require_board(board.name)
    return board


def describe(bitstream: Bitstream, board: BoardSummary) -> Iterator[str]:
    """Say what a bitstream is, a property a line, and what share of a board it takes."""
    m, damage = bitstream.manifest, bitstream.damage()
    rows = {
        "Manifest": bitstream.path,
        "Binary": f"{m.binary}, {m.size_bytes} bytes, sha256 {m.sha256}" + (f" ({damage})" if damage else ""),
        "Kernel": f"{m.kernel} ({m.engine})",
        "Tile Tr,Tc,Tp": m.tiles,
        "Precision": f"{m.precision}, {m.format.bits} bits, sums in {m.format.accumulator}",
        "Board": f"{board.name}, {board.description}",
        "Clock": f"{m.clock_hz / 1e6:g} MHz",
        "DSP": f"{m.resources.dsp} of {board.dsp} ({m.resources.dsp / board.dsp:.1%})",
        "On-chip memory": f"{m.resources.bram_bits} of {board.bram_bits} bits "
                          f"({m.resources.bram_bits / board.bram_bits:.1%})",
        "Device": m.device or "any that is this board",
        "Tools": ", ".join(f"{name} {version}" for name, version in m.tools.items()) or "not said",
    }
    for name, value in rows.items():
        yield f"{name + ':':<16} {value}"


def _verify(args: argparse.Namespace) -> None:
    bitstream = bitstreams.load(args.path)
    board = _board(args, bitstream)
    bitstream.verify()
    if not board.is_emulated:
        logger.info("%s: the binary is that of the manifest; it was not loaded, which takes the board %s",
                    bitstream.path, board.name)
        return
    from ..runtime.bitstream_program import DeviceArrayEngine
    from ..runtime.context import Context

    array = DeviceArrayEngine(Context(args.device), bitstream)
    compare(array, ModelArray(array.tiles, array.format), exact=bitstream.manifest.engine == "array")
    logger.info("%s: the binary is that of the manifest, and computes what the array's model does", array.name)


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


def numbers(rng: np.random.Generator, shape: tuple[int, ...], fmt: NumberFormat) -> npt.NDArray[Any]:
    """Return numbers of both signs over the whole range of a format."""
    if fmt.is_fixed:
        return rng.integers(fmt.lower, fmt.upper, shape, fmt.storage_dtype, endpoint=True)
    return rng.standard_normal(shape, np.float32)


class Action(NamedTuple):
    """What an action does.

    Parameters
    ----------
    run : does it
    options : of `OPTIONS`, those that it takes
    required : those that it cannot do without
    """

    run: Callable[[argparse.Namespace], None]
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


ACTIONS = {
    "build": Action(_build, ("tile", "precision", "board", "engine", "out", "device")),
    "import": Action(_import, ("tile", "precision", "board", "kernel", "clock_hz", "out"),
                     ("tile", "precision", "board")),
    "list": Action(_list),
    "inspect": Action(_inspect, ("board",)),
    "verify": Action(_verify, ("board", "device"))}
OPTIONS = tuple(dict.fromkeys(name for action in ACTIONS.values() for name in action.options))
