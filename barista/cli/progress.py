"""Progress bars: only where a person watches, on the terminal behind standard error."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress(total: int, what: str, quiet: bool = False, done: int = 0) -> tqdm[Any]:
    """Return a bar over `total` steps; a context manager, with ``update(n)``.

    Nothing is drawn where standard error is no terminal, or under ``--quiet``.

    Parameters
    ----------
    total : number of steps
    what : word before the bar
    done : steps that were done before, as after a resumed snapshot
    """
    return tqdm(total=total, desc=what, unit="it", initial=done, file=sys.stderr, dynamic_ncols=True,
                disable=quiet or not sys.stderr.isatty())
