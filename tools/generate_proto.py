"""Generate the modules of protocol buffers in barista/proto, ``*_pb2.py`` and ``*_pb2.pyi``, from its ``*.proto``.

Usage: ``python tools/generate_proto.py`` writes the modules;
``python tools/generate_proto.py --check`` only says whether they are up to date (exit status 1 if not).

Generated code runs on protobuf runtimes of its own age or younger, and from
protoc 26 on it refuses older runtimes outright. The modules are therefore made
with protoc 21, the compiler of the oldest runtime that setup.cfg allows (4.21).
grpcio-tools carries that compiler; it goes into a throwaway environment, because
it would ask for an old protobuf in the developer's own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ("barista/proto/caffe.proto", "barista/proto/caffe2.proto")
SUFFIXES = ("_pb2.py", "_pb2.pyi")
# grpcio-tools 1.49 holds protoc 21 and has wheels up to Python 3.11; it imports
# pkg_resources, which newer setuptools no longer have.
COMPILER = ("grpcio-tools==1.49.1", "setuptools<80")
WHEEL_PYTHON = (3, 11)
HEADER = "# Made by tools/generate_proto.py from {}: change that file, not this one.\n# ruff: noqa\n"


def generate(root: Path) -> dict[str, str]:
    """Compile the formats below `root`; return the text of each generated file by its path."""
    with tempfile.TemporaryDirectory(prefix="barista-protoc-") as folder:
        environment, output = Path(folder, "env"), Path(folder, "out")
        output.mkdir()
        venv.create(environment, with_pip=True)
        python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *COMPILER],
                       check=True)
        # The path given to protoc becomes the file name in the descriptor pool, which all
        # packages of a process share: the bare name caffe.proto would collide with Caffe's own.
        subprocess.run([python, "-m", "grpc_tools.protoc", f"--proto_path={root}",
                        f"--python_out={output}", f"--pyi_out={output}", *PROTOS], check=True)
        return {name: HEADER.format(Path(proto).name) + (output / name).read_text(encoding="utf-8")
                for proto in PROTOS for name in (proto.replace(".proto", suffix) for suffix in SUFFIXES)}


def main() -> int:
    """Write the generated modules, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    arguments = parser.parse_args()
    if sys.version_info[:2] > WHEEL_PYTHON:
        print(f"{COMPILER[0]} has no wheel for Python {sys.version_info[0]}.{sys.version_info[1]}; "
              f"run this with Python {WHEEL_PYTHON[0]}.{WHEEL_PYTHON[1]}", file=sys.stderr)
        return 2
    stale = 0
    for name, text in generate(ROOT).items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            print(f"{name}: up to date")
        elif arguments.check:
            print(f"{name}: out of date; run python tools/generate_proto.py")
            stale = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name}: written")
    return stale


if __name__ == "__main__":
    sys.exit(main())
