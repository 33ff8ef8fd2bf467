"""Damage files for a long time, led by which lines of the readers they reach (atheris, libFuzzer underneath).

Needs the package ``atheris``, which Barista itself does not: ``pip install atheris``.  What reads which files is listed
in ``tests/fuzz_targets.py``, and the tests do the same for a few seconds.

    python tools/fuzz.py                           # names the targets
    python tools/fuzz.py caffemodel --seconds 600  # ends at the first finding, and keeps the file that led to it

What a reader may raise are Barista's own errors; anything else is a finding, and so are a file that takes more than
10 seconds and a process of more than 2 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

TIMEOUT_S = 10
MEMORY_MIB = 2048


def main() -> None:
    """Fuzz the target that the command line names."""
    atheris = importlib.import_module("atheris")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    with atheris.instrument_imports(include=["barista", "google.protobuf.text_format"]):
        targets: dict[str, Any] = importlib.import_module("fuzz_targets").targets()
        known = importlib.import_module("barista.errors").BaristaError
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=targets)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--findings", default="fuzz-", help="what the names of files with findings begin with")
    args = parser.parse_args()
    target = targets[args.target]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        corpus, path = Path(folder, "corpus"), Path(folder, "file")
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(known):
                target.read(path)

        longest = 2 * max(map(len, target.seeds))
        atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={args.seconds}", f"-timeout={TIMEOUT_S}",
                       f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={longest}", "-print_final_stats=1",
                       f"-artifact_prefix={args.findings}{args.target}-"], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
