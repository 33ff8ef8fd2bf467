"""``barista COMMAND``: find the command, run it, turn what went wrong into a line and an exit status.

========  ==================================================================
status    meaning
========  ==================================================================
0         done
1         it could not be done; one line on standard error says why
2         the command line could not be read
70        a fault in Barista itself; the traceback is shown
130       interrupted (Ctrl-C)
========  ==================================================================
"""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence

from .. import glog
from ..errors import BaristaError, nearest
from .arguments import VALUE_OPTIONS, Parser, UsageError, add_common, warn_glog

# command -> (module, what it does); a command is a module with DESCRIPTION, EXAMPLES, add_arguments and run.
COMMANDS = {
    "train": ("train", "train or finetune a network"),
    "test": ("test", "score a trained network"),
    "time": ("time", "measure each layer, forward and backward"),
    "finetune": ("finetune", "train a model of ONNX or Caffe2 on"),
    "summary": ("summary", "show the layers of a network, and what memory a batch needs"),
    "device_query": ("device_query", "list what can compute here"),
    "doctor": ("doctor", "check the installation, and say what to install or mend"),
    "explore": ("explore", "find the designs of an array that suit a network and a board"),
    "plan": ("plan", "plan which engine and bitstream compute each pass of a network"),
    "calibrate": ("calibrate", "measure what convolutions take on this machine, for plan and validate"),
    "bitstream": ("bitstream", "build, list, inspect and verify bitstreams of GEMM arrays"),
    "tune": ("tune", "find the fastest kernels for the convolutions of a network"),
    "tune_gemm": ("tune_gemm", "find the fastest matrix products for an OpenCL device"),
    "validate": ("validate", "hold the latency models against a simulator, a device and published figures"),
    "draw_net": ("draw_net", "draw a network into an SVG, PNG or PDF file"),
    "convert": ("convert", "convert models of ONNX and Caffe2 to Caffe's files, and those to ONNX"),
    "convert_imageset": ("convert_imageset", "write images into a database for training"),
    "compute_image_mean": ("compute_image_mean", "average the images of a database"),
    "convert_mnist_data": ("convert_mnist_data", "write MNIST's files into a database"),
    "convert_cifar_data": ("convert_cifar_data", "write CIFAR-10's binary files into two databases"),
    "extract_features": ("extract_features", "write what a trained network computes inside into databases"),
    "upgrade_net_proto_text": ("upgrade_net_proto_text", "write an older prototxt in the current form"),
    "upgrade_net_proto_binary": ("upgrade_net_proto_binary", "write an older caffemodel in the current form"),
    "upgrade_solver_proto_text": ("upgrade_solver_proto_text", "write an older solver in the current form"),
    "parse_log": ("parse_log", "turn the log of a training run into tables"),
    "plot_log": ("plot_log", "draw loss, accuracy and learning rate of training runs"),
    "digits": ("digits", "write handwritten digits into two databases, to try things on"),
    "demo": ("demo", "train a network on handwritten digits, in about a minute"),
}

DONE, FAILED, MISUSED, FAULT, INTERRUPTED = 0, 1, 2, 70, 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Parameters
    ----------
    words : the command line without the program's name; None takes this process's
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        return _run(words)
    except UsageError as error:
        return _fail(str(error), MISUSED)
    except BaristaError as error:
        return _fail(str(error), FAILED)
    except MemoryError as error:
        return _fail(f"not enough memory ({error}); lower batch_size or the size of the images", FAILED)
    except OSError as error:
        return _fail(f"{_reason(error)}{_whose(error)}", FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        traceback.print_exc()
        if whose := _whose(error):
            return _fail(f"{type(error).__name__}: {error}{whose}; the lines above lead to it", FAILED)
        return _fail("this is a fault in Barista, not in what you asked for; please report it with the "
                     "lines above and what `barista device_query` says", FAULT)


def usage() -> str:
    """The text of ``barista --help``."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return ("barista: train Caffe networks\n"
            "usage: barista COMMAND [OPTION...]\n\n"
            f"commands:\n{rows}\n\n"
            "`barista COMMAND --help` shows options and examples, `barista --version` the version.\n"
            "New here? `barista demo` shows a training run.")


def _run(words: list[str]) -> int:
    if not words:
        print(usage(), file=sys.stderr)
        return MISUSED
    name, rest = words[0], words[1:]
    if name in ("-h", "-help", "--help", "help"):
        if rest and rest[0] in COMMANDS:
            name, rest = rest[0], ["--help"]
        else:
            print(usage())
            return DONE
    if name in ("-version", "--version"):
        from .. import __version__

        print(f"barista {__version__}")
        return DONE
    if name.startswith("-"):
        name, *rest = _command_first(words)
    if name not in COMMANDS:
        if name.startswith("-"):
            raise UsageError(f"the command comes first, before {name}; commands: {', '.join(COMMANDS)}")
        hint = nearest(name, COMMANDS) or f"commands: {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command {name!r}; {hint}")
    command = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
    parser = Parser(f"barista {name}", command.DESCRIPTION, command.EXAMPLES)
    command.add_arguments(parser)
    add_common(parser)
    try:
        args = parser.read(rest)
    except SystemExit as end:  # argparse ends the process after --help
        return end.code if isinstance(end.code, int) else DONE
    glog.init_log("warning" if args.quiet else args.log_level if args.minloglevel is None else args.minloglevel)
    warn_glog(args)
    from ..python_layer import python_layers

    with warnings.catch_warnings():
        # A training that diverges says so itself, in words; NumPy would add a line for each operation.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"barista\.")
        with python_layers(getattr(args, "allow_python_layers", False)):
            command.run(args)
    return DONE


def _command_first(words: list[str]) -> list[str]:
    """Bring the command to the front. Caffe: its options may stand before it, ``caffe --solver=x train``."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        option = words[place].lstrip("-").replace("-", "_")
        place += 2 if option in VALUE_OPTIONS else 1  # its value is the next word, unless it stands behind '='
    if place < len(words) and words[place] in COMMANDS:
        return [words[place], *words[:place], *words[place + 1:]]
    return words


def _fail(message: str, status: int) -> int:
    print(f"barista: {'' if status == INTERRUPTED else 'error: '}{message}", file=sys.stderr)
    return status


def _reason(error: OSError) -> str:
    """An operating system's error in one line, the file first."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def _whose(error: BaseException) -> str:
    """A sentence on the user's Python layer that raised an error, '' where none did."""
    from ..python_layer import culprit

    sentence = culprit(error)
    return f". {sentence}" if sentence else ""
