"""The compiler of the simulator's inner loops: Numba, which the extra `simulate` brings.

Only modules that are compiled import this one, and they are imported when a simulation starts.  Machine code is kept in
the user's cache folder, so that only the first simulation waits for the compiler.  Numba would keep it beside each
module and would not see that a function of another module, which the code has inside it, has changed; here the folder's
name follows from the text of all modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ...errors import MissingExtraError
from ...resources import cache_folder

try:
    import numba
except ImportError:
    raise MissingExtraError("numba", "simulate", "the cycle-level simulator") from None

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, into its callers."""
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(_FOLDER)
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy", forceinline=True)(function))
    finally:
        config.CACHE_DIR = before


def _folder() -> Path:
    """Where this version's machine code is kept."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return cache_folder("simulator") / digest.hexdigest()[:16]


_FOLDER = _folder()
