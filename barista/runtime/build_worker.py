"""A process that builds programs for another, see `build_helpers`: ``python -m barista.runtime.build_worker DEVICE``.

It reads pickled jobs from its standard input until that ends, and answers each with a byte.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from typing import Any

import numpy as np

from ..errors import DeviceError
from .build_helpers import DONE, Job
from .context import Context
from .kernel import Kernel
from .programs import Source


def main(device: str) -> None:
    """Build what the standard input asks for."""
    context = Context(device)
    given: Any = sys.stdin.buffer
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            job: Job = pickle.load(given)
            source = Source(job.name, job.text, job.options)
            with contextlib.suppress(DeviceError):  # it is told where the program is built again
                for recipe in job.kernels:
                    Kernel(context, source, recipe.name, recipe.signature, np.dtype(recipe.real), recipe.heavy).build()
                context.finish()
            sys.stdout.buffer.write(DONE)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
