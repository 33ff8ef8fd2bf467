"""The one place that imports pyopencl, after what PoCL must find in its environment."""

from __future__ import annotations

import os

from ..errors import MissingExtraError


def _pin_pocl_threads() -> None:
    """Let PoCL pin its threads, one a core: unpinned they share cores with ours and lose a third.

    PoCL reads the variable when it loads and counts cores from 0, so a process confined to
    other cores is left alone.
    """
    if hasattr(os, "sched_getaffinity") and os.sched_getaffinity(0) == set(range(os.cpu_count() or 1)):
        os.environ.setdefault("POCL_AFFINITY", "1")


_pin_pocl_threads()

try:
    import pyopencl as cl

    # An uninstalled one may leave an empty package behind, around PoCL's files.
    _missing = not hasattr(cl, "get_platforms")
except ImportError:
    _missing = True
if _missing:
    raise MissingExtraError("pyopencl", "opencl", "OpenCL, on which the backends opencl and fpga stand,")

__all__ = ["cl"]
