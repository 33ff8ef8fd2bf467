"""Random generators: one seed, from which every user gets an independent stream.

Fillers, dropout masks and data augmentation each take a generator of their own, so
that what one of them draws never shifts another, and the state of each can be kept.
"""

from __future__ import annotations

import numpy as np

from .errors import SolverError

_root = np.random.SeedSequence()


def set_seed(seed: int | None) -> None:
    """Start all streams anew from `seed`; None takes fresh entropy.

    The same seed and the same order of requests give the same streams.
    """
    global _root
    if seed is not None and seed < 0:
        raise SolverError(f"random seed {seed} is negative; give 0 or more (a solver's random_seed: -1 means none)")
    _root = np.random.SeedSequence(seed)


def generator() -> np.random.Generator:
    """Return the next independent generator."""
    return np.random.Generator(np.random.PCG64(_root.spawn(1)[0]))
