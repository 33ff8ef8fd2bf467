"""``barista bitstream``: build, import, list, inspect and verify bitstreams."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ..errors import nearest
from ..hardware import bitstream as bitstreams
from ..hardware.bitstream import Bitstream
from ..hardware.board import EMULATED, BoardSummary, board_names, load_board
from ..hardware.library import Library
from ..hardware.manifest import CONV, CSIM, Manifest
from .arguments import Parser, UsageError, add_network
from .bitstream_build import ENGINE, TILE, run_build
from .bitstream_designs import NETWORK, PRECISION
from .planning import add_input

logger = logging.getLogger(__name__)

DESCRIPTION = """Work on bitstreams: a device binary that holds an array, of those that multiply tiles or of those that
take whole convolutions, and beside it a manifest that says what it is.

  build            compile a kernel for this machine, for the board 'emulated'
  configure        write a folder for each design of a schedule, or for one, that a machine with Vitis builds
  import FILE      copy an .xclbin that a vendor's tools built, and write its manifest
  list DIR         the bitstreams of a folder
  inspect FILE     what a bitstream is
  verify FILE      check it against its manifest; on the board 'emulated' also load it and compare what it computes"""

EXAMPLES = """  barista bitstream build --tile 16,16,64 --precision fp32 --board emulated
  barista bitstream build --engine csim --array 16,16 --model train_val.prototxt --input-shape 3,32,32
  barista bitstream list bitstreams
  barista bitstream verify bitstreams/gemm_array_16x16x64_fp32_emulated.json
  barista bitstream configure --from-schedule schedule.json --out hls_build
  barista bitstream build --engine csim --from-schedule schedule.json
  barista bitstream import hls_build/gemm_array_32x32x64_fp32_u250/build/hw/gemm_array_32x32x64_fp32_u250.xclbin
  barista bitstream import gemm.xclbin --tile 32,32,64 --precision fp32 --board u250 --kernel gemm"""

# Where `build` and `import` write, unless told otherwise.
OUT = "bitstreams"


def add_arguments(parser: Parser) -> None:
    """Declare the action, its operand and the options."""
    parser.add_argument("action", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("path", metavar="PATH", nargs="?", default=None, help="FILE or DIR that the action works on")
    group = parser.add_argument_group("what a bitstream is for")
    group.add_argument("--tile", default=None, metavar="TR,TC,TP",
                       help="build, configure, import: sizes of tiles; the array has TR x TC elements (build: default "
                            f"{TILE})")
    group.add_argument("--array", default=None, metavar="X,Y",
                       help="build, configure: columns and rows of an array that takes whole convolutions, those of "
                            "--model")
    group.add_argument("--precision", default=None, metavar="NAME",
                       help="build, configure, import: fp32, dfxp8, dfxp12, dfxp14 or dfxp16 (build, configure: "
                            f"default {PRECISION})")
    group.add_argument("--board", default=None, metavar="NAME",
                       help=f"build (default {EMULATED}), configure, import: the board, one of "
                            f"{', '.join(board_names())}, or a .toml file; inspect, verify: the board that it must "
                            "be for")
    group.add_argument("--engine", default=None, metavar="NAME",
                       help="build: array, the mesh step by step, fast, its products at a CPU's full speed, or csim, "
                            f"the C++ code that becomes a card's hardware, step by step (default {ENGINE}; with "
                            f"--array and --from-schedule {CSIM})")
    group.add_argument("--kernel", default=None, metavar="NAME",
                       help="import: name of the kernel in the binary (default: the design's, else semi_systolic)")
    group.add_argument("--clock-hz", default=None, type=float, metavar="HZ",
                       help="configure: clock to build for (default: the board's); import: clock of the binary "
                            "(default: what its reports say, else its design's, else the board's)")
    group = parser.add_argument_group("the convolutions that --array is for")
    group.add_argument("--model", default=None, metavar="FILE", help="build, configure: the network (prototxt)")
    group.add_argument("--phase", default=None, type=str.upper, choices=("TRAIN", "TEST"),
                       help="phase of the network's state (default TRAIN; TEST for a deploy net)")
    add_input(group)
    add_network(parser)
    group = parser.add_argument_group("what is configured, and what it became")
    group.add_argument("--from-schedule", default=None, metavar="FILE",
                       help="build, configure: the designs that a schedule names, as `barista explore --schedule` "
                            "writes it")
    group.add_argument("--bitstreams", default=None, metavar="DIR",
                       help="build, configure: folder of manifests that say what names of the schedule stand for")
    group.add_argument("--design", default=None, metavar="FILE",
                       help="import: the design.json that the binary was built of (default: the one beside it or in "
                            "one of three folders above)")
    group = parser.add_argument_group("where")
    group.add_argument("--name", default=None, metavar="NAME",
                       help="build, configure: what schedules call it (default: a name that says what it is)")
    group.add_argument("--out", default=None, metavar="DIR",
                       help=f"build, configure, import: where to write (default {OUT}, configure: hls_build)")
    group.add_argument("--device", default=None, metavar="ID",
                       help="build, verify: OpenCL device, its number in `barista device_query`, or part of its name; "
                            f"engine {CSIM} has no use for one")


def run(args: argparse.Namespace) -> None:
    """Do what the action says."""
    action = ACTIONS.get(args.action)
    if action is None:
        hint = nearest(args.action, ACTIONS) or f"actions: {', '.join(ACTIONS)}"
        raise UsageError(f"bitstream has no action {args.action!r}; {hint}; see: barista bitstream --help")
    if args.action not in WITHOUT_PATH and args.path is None:
        raise UsageError(f"bitstream {args.action} needs a {'folder' if args.action == 'list' else 'file'}; "
                         "see: barista bitstream --help")
    if args.action in WITHOUT_PATH and args.path is not None:
        raise UsageError(f"{args.path!r} is one word too many; see: barista bitstream --help")
    given = [name for name in OPTIONS if getattr(args, name) not in (None, UNSAID.get(name))]
    for name in given:
        if name not in action.options:
            takes = f"it takes {_options(action.options)}" if action.options else "it has no options of its own"
            raise UsageError(f"bitstream {args.action} has no use for {_options([name])}; {takes}")
    action.run(args)


def _options(names: Iterable[str]) -> str:
    """Options as they are typed."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _build(args: argparse.Namespace) -> None:
    for bitstream in run_build(args, OUT):
        _report(bitstream)


def _configure(args: argparse.Namespace) -> None:
    from .bitstream_configure import configure

    configure(args)


def _import(args: argparse.Namespace) -> None:
    from .bitstream_import import run_import

    bitstream = run_import(args, OUT)
    m = bitstream.manifest
    for what, count, held in m.resources.exceeding(m.board.dsp, m.board.bram_bits):
        logger.warning("%s %s in %s takes %d %s by the models' count, and the board %s has %d: see that %s what the "
                       "binary was built for", *_array(m), m.precision, count, what, m.board.name, held,
                       "its design is" if m.kind == CONV else "--tile, --precision and --board are")
    _report(bitstream)


def _array(m: Manifest) -> tuple[str, str]:
    """What the sizes of an array are called, and they themselves."""
    return ("array" if m.kind == CONV else "tile"), str(m.array)


def _report(bitstream: Bitstream) -> None:
    logger.info("Wrote %s with %s, %d bytes", bitstream.path, bitstream.binary_path.name,
                bitstream.manifest.size_bytes)


def _list(args: argparse.Namespace) -> None:
    found = Library(args.path).bitstreams
    width = max(map(len, found))
    for name, bitstream in found.items():
        m = bitstream.manifest
        damage = bitstream.damage()
        print(f"{name:<{width}}  {' '.join(_array(m)):<15}  {m.precision:<6}  {m.engine:<5}  {m.board.name}"
              + (f"  (binary {damage})" if damage else ""))


def _inspect(args: argparse.Namespace) -> None:
    bitstream = bitstreams.load(args.path)
    for line in describe(bitstream, _board(args, bitstream)):
        print(line)
    if bitstream.manifest.report is not None:
        from ..synthesis.report_tables import describe_report

        print("\n".join(("", *describe_report(bitstream.manifest.report, bitstream.manifest.resources))))


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
        **_sizes(m),
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


def _sizes(m: Manifest) -> dict[str, object]:
    """What an array is compiled for, in rows of a table."""
    if m.kind != CONV:
        return {"Tile Tr,Tc,Tp": m.tiles}
    s = m.sizes
    words = s.on_chip_words
    return {"Array X,Y": f"{s}, whole convolutions", "Words": f"{words['line']} of lines (Z {s.z}), {words['kern']} of "
            f"KERN, {words['out']} of OUT; ports of {s.port_bits} bits"}


def _verify(args: argparse.Namespace) -> None:
    bitstream = bitstreams.load(args.path)
    board = _board(args, bitstream)
    bitstream.verify()
    if not board.is_emulated:
        logger.info("%s: the binary is that of the manifest; it was not loaded, which takes the board %s",
                    bitstream.path, board.name)
        return
    from .bitstream_verify import verify_array

    verify_array(args, bitstream)


class Action(NamedTuple):
    """What an action does.

    Parameters
    ----------
    run : does it
    options : of `OPTIONS`, those that it takes
    """

    run: Callable[[argparse.Namespace], None]
    options: tuple[str, ...] = ()


# What options are that are no None where they are not given.
UNSAID = {"level": 0, "stage": "", "ignore_unknown_fields": False, "allow_python_layers": False}
ACTIONS = {
    "build": Action(_build, ("tile", "array", *NETWORK, *UNSAID, "from_schedule", "bitstreams", "precision", "board",
                             "engine", "name", "out", "device")),
    "configure": Action(_configure, ("from_schedule", "bitstreams", "tile", "array", *NETWORK, *UNSAID, "precision",
                                     "board", "clock_hz", "name", "out")),
    "import": Action(_import, ("tile", "precision", "board", "kernel", "clock_hz", "design", "out")),
    "list": Action(_list),
    "inspect": Action(_inspect, ("board",)),
    "verify": Action(_verify, ("board", "device"))}
WITHOUT_PATH = ("build", "configure")
OPTIONS = tuple(dict.fromkeys(name for action in ACTIONS.values() for name in action.options))
