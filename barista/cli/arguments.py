"""Reading a command line as Caffe's users write it.

``-solver x``, ``--solver x``, ``-solver=x`` and ``--solver=x`` mean the same, and so do
``--resize_width`` and ``--resize-width``; ``--gray``, ``--gray=true`` and ``--nogray`` switch.
Names are never completed from their beginnings, so that a new option cannot change what an
old script means.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..errors import BaristaError, nearest
from ..glog import LEVELS

logger = logging.getLogger(__name__)

# Options of Caffe's own command, which takes any of them with any brew, whether or not it looks at them.
CAFFE_OPTIONS = ("solver", "model", "phase", "level", "stage", "snapshot", "weights", "iterations", "gpu",
                 "sigint_effect", "sighup_effect")

_TRUE, _FALSE = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")
_LONG = re.compile(r"-[A-Za-z][\w-]+")


# What looks like an option, and not like a negative number.
_OPTION = re.compile(r"-{1,2}[A-Za-z]")


class UsageError(BaristaError):
    """A command line that cannot be read; the exit status is 2."""


class Parser(argparse.ArgumentParser):
    """argparse, with Caffe's spelling of options and errors that name the nearest known option."""

    def __init__(self, prog: str, description: str, examples: str) -> None:
        super().__init__(prog=prog, description=description, epilog=f"examples:\n{examples}",
                         allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse `words`, the command line behind the command.

        Raises
        ------
        UsageError : an unknown or malformed option, or a missing one
        """
        spelt = self._spell(words)
        # argparse would report a missing option first, and not the misspelt one that was meant for it.
        for word in itertools.takewhile(lambda word: word != "--", spelt):
            if _OPTION.match(word) and word.partition("=")[0] not in self._option_string_actions:
                self.error(self._unknown([word]))
        required = [action.option_strings[-1] for action in self._actions if action.required and action.option_strings]
        if spelt and not spelt[0].startswith("-") and not self._get_positional_actions() and len(required) == 1:
            self.error(f"{spelt[0]!r} stands where an option is expected; write {required[0]} {spelt[0]}")
        return self.parse_args(spelt)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unlike argparse's, an unknown option brings a hint."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        raise UsageError(f"{message}; see: {self.prog} --help")

    def switch(self, name: str, default: bool, help: str) -> None:
        """Add a truth value in gflags' manner: ``--name``, ``--name=false``, ``--noname``."""
        self.add_argument(f"--{name}", nargs="?", const=True, default=default, type=_truth,
                          metavar="true|false", help=f"{help} (default {str(default).lower()})")
        self.add_argument(f"--no{name}", dest=name, action="store_false", default=argparse.SUPPRESS,
                          help=argparse.SUPPRESS)

    def _names(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings
                if action.help is not argparse.SUPPRESS]

    def _spell(self, words: Sequence[str]) -> list[str]:
        """Write every option with two dashes and underscores; a switch takes its value only behind '='."""
        switches = {option for action in self._actions if action.nargs == "?"
                    for option in action.option_strings}
        spelt: list[str] = []
        for place, word in enumerate(words):
            if word == "--":
                return spelt + list(words[place:])
            name, equals, value = word.partition("=")
            if _LONG.fullmatch(name) or name.startswith("--"):
                name = "--" + name.lstrip("-")
                if name not in self._option_string_actions:
                    name = "--" + name[2:].replace("-", "_")
                if name not in self._option_string_actions:
                    name = name.replace("_", "-")
                word = name + equals + value
                if name in switches and not equals:
                    word = f"{name}=true"
            spelt.append(word)
        return spelt

    def _unknown(self, words: Sequence[str]) -> str:
        word = words[0]
        if not word.startswith("-"):
            return f"{word!r} is one word too many"
        name = word.partition("=")[0]
        hint = nearest(name, self._names())
        return f"there is no option {name}" + (f"; {hint}" if hint else "")


def add_common(parser: Parser) -> None:
    """Add the options of every command: how much it says."""
    group = parser.add_argument_group("log")
    group.add_argument("--log-level", default="info", choices=LEVELS,
                       help="how much is said on standard error (default info)")
    group.add_argument("--quiet", action="store_true",
                       help="say only warnings and errors, and draw no progress bar")
    add_glog(parser)


# glog's options, which all of Caffe's tools take; those that switch, and those with a value.
_GLOG_SWITCHES = ("logtostderr", "alsologtostderr", "colorlogtostderr")
_GLOG_VALUES = ("log_dir", "stderrthreshold", "v")
# What takes the next word as its value, where none stands behind '='.
VALUE_OPTIONS = (*CAFFE_OPTIONS, *_GLOG_VALUES, "minloglevel")


def add_glog(parser: Parser) -> None:
    """Accept glog's options. The log always goes to standard error, so that most of them have nothing to do."""
    parser.add_argument("--minloglevel", default=None, type=int, choices=range(4), help=argparse.SUPPRESS)
    for name in _GLOG_SWITCHES:
        parser.add_argument(f"--{name}", nargs="?", const=True, default=None, type=_truth, help=argparse.SUPPRESS)
    for name in _GLOG_VALUES:
        options = ["-v", "--v"] if name == "v" else [f"--{name}"]
        parser.add_argument(*options, dest=f"glog_{name}", default=None, help=argparse.SUPPRESS)


def warn_glog(args: argparse.Namespace) -> None:
    """Say which of glog's options have no effect."""
    for name in _GLOG_VALUES:
        if getattr(args, f"glog_{name}") is not None:
            logger.warning("--%s has no effect: the log goes to standard error, and --log-level says how much of it; "
                           "2> train.log keeps it in a file", name)


def add_compute(parser: Parser) -> None:
    """Add what decides where and how a network is computed."""
    group = parser.add_argument_group("where to compute")
    group.add_argument("--backend", default=None, metavar="NAME",
                       help="cpu, opencl or fpga; without it the solver's solver_mode decides (GPU is OpenCL here, "
                            "as in Caffe the default), and the CPU computes where there is no solver")
    group.add_argument("--device", default=None, metavar="ID",
                       help="OpenCL device: its number in `barista device_query`, or part of its name")
    group.add_argument("--bitstream", default=None, metavar="PATH",
                       help="fpga: a bitstream's manifest, or a folder of them (default: one for the emulated board, "
                            "built at the first use)")
    group.add_argument("--schedule", default=None, metavar="FILE",
                       help="fpga, opencl: what computes each layer and pass (JSON)")
    group.add_argument("--inner-products", action="store_true",
                       help="fpga: compute inner products on the array too, not only convolutions")
    group.add_argument("--verify-gemm", action="store_true",
                       help="compare each convolution and product with the CPU's and stop at the first that differs")
    group.add_argument("--gpu", default=None, metavar="IDS",
                       help="Caffe's choice of CUDA devices: means --backend opencl; a warning says that the numbers "
                            "are not followed, see --device")
    group.add_argument("--threads", default=None, type=at_least(1), metavar="N",
                       help="threads of the CPU's matrix products (default: all cores)")
    group.add_argument("--seed", default=None, type=at_least(0), metavar="N",
                       help="start of all random numbers; the same seed repeats a run")


def add_network(parser: Parser) -> None:
    """Add what decides which layers of a prototxt take part."""
    group = parser.add_argument_group("reading prototxt")
    group.add_argument("--level", default=0, type=int, metavar="N",
                       help="level of the network's state (default 0)")
    group.add_argument("--stage", default="", metavar="A,B",
                       help="stages of the network's state, separated by ','")
    group.add_argument("--ignore-unknown-fields", action="store_true",
                       help="skip fields that Barista does not know, with a warning")
    group.add_argument("--allow-python-layers", action="store_true",
                       help="run the code of Python layers, which the network names; only where you trust it")


def add_ignored(parser: Parser) -> None:
    """Add those of Caffe's options that this command does not use: accepted, with a warning."""
    for name in CAFFE_OPTIONS:
        if f"--{name}" not in parser._option_string_actions:
            parser.add_argument(f"--{name}", dest=f"ignored_{name}", default=None, help=argparse.SUPPRESS)


def warn_ignored(command: str, args: argparse.Namespace) -> None:
    """Say which of the given options the command does not use. Caffe: passes over them in silence."""
    for key, value in vars(args).items():
        if key.startswith("ignored_") and value is not None:
            logger.warning("--%s has no effect on `barista %s`", key.removeprefix("ignored_"), command)


# What a number of prototxt holds.
LARGEST = 2**31 - 1


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers that are not below `least`."""
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too small; give {least} or more")
        if value > LARGEST:
            raise argparse.ArgumentTypeError(f"{value} is too large; give {LARGEST} or less")
        return value
    return read


def comma_list(text: str) -> list[str]:
    """Split ``a,b``. Caffe: an empty text holds one empty entry, which Caffe's logs show as ``stage: ""``."""
    return [part.strip() for part in text.split(",")]


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
