"""Hold the latency models against a simulator, a device, reference values or published figures.

The same as ``barista validate``: ``python tools/validate_latency.py --against published``.
"""

from __future__ import annotations

import sys

from barista.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
