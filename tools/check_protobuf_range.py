"""Run the protobuf tests with the oldest and the newest runtime that setup.cfg allows.

Usage: ``python tools/check_protobuf_range.py``. Each runtime gets a throwaway
environment with the package's other requirements; the oldest is tried with its
compiled and with its pure Python implementation. The exit status is 0 if all pass.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/test_proto.py", "tests/test_upgrade.py", "tests/test_prototxt.py")
TEST_TOOLS = ("pytest", "hypothesis")


def requirements() -> tuple[str, str, list[str]]:
    """Return, as pip takes them: the oldest protobuf, any allowed protobuf, the other requirements."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    others = [line for line in lines if line and not line.startswith("protobuf")]
    (allowed,) = [line for line in lines if line.startswith("protobuf")]
    oldest = re.fullmatch(r"protobuf>=([0-9.]+),<[0-9.]+", allowed)
    if oldest is None:
        raise SystemExit(f"setup.cfg: expected protobuf>=A,<B, not {allowed!r}")
    return f"protobuf=={oldest[1]}.0", allowed, others


def passes(protobuf: str, others: list[str], implementations: tuple[str, ...]) -> bool:
    """Tell whether the tests pass with `protobuf`, in each of its `implementations`."""
    with tempfile.TemporaryDirectory(prefix="barista-protobuf-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", protobuf, *others, *TEST_TOOLS],
                       check=True)
        good = True
        for implementation in implementations:
            environment = {**os.environ, "PYTHONPATH": str(ROOT),
                           "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation}
            version = subprocess.run([python, "-c", "import google.protobuf as p; print(p.__version__)"],
                                     capture_output=True, text=True, check=True).stdout.strip()
            print(f"---- protobuf {version}, implementation {implementation}", flush=True)
            tests = subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
                                   cwd=ROOT, env=environment, check=False)
            good = good and tests.returncode == 0
        return good


def main() -> int:
    """Try both ends of the range; return the exit status."""
    oldest, allowed, others = requirements()
    results = [passes(oldest, others, ("upb", "python")), passes(allowed, others, ("upb",))]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
