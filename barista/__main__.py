"""``python -m barista``: the same as the command ``barista``."""

from __future__ import annotations

import sys

from .cli.main import main

sys.exit(main())
