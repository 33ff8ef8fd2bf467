"""Random generators: one seed, from which every user gets an independent stream.

Fillers, dropout masks and data augmentation each take a generator of their own, so
that what one of them draws never shifts another, and the state of each can be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import SnapshotError, SolverError

_root = np.random.SeedSequence()


def set_seed(seed: int | None) -> None:
    """Start all streams anew from `seed`; None takes fresh entropy.

    The same seed and the same order of requests give the same streams.
    """
    global _root
    if seed is not None and seed < 0:
        raise SolverError(f"random seed {seed} is negative; give 0 or more (a solver's random_seed: -1 means none)")
    _root = np.random.SeedSequence(seed)


def seed() -> int:
    """The seed of all streams: the one that was set, or the entropy taken instead."""
    entropy = _root.entropy
    return entropy if isinstance(entropy, int) else 0


def generator() -> np.random.Generator:
    """Return the next independent generator."""
    return np.random.Generator(np.random.PCG64(_root.spawn(1)[0]))


def state_of(generator: np.random.Generator) -> dict[str, Any]:
    """Where a generator stands, in numbers and text that JSON can hold, for `restore`."""
    return dict(generator.bit_generator.state)


def restore(generator: np.random.Generator, state: object) -> None:
    """Let a generator go on from where another stood when `state_of` told it.

    Raises
    ------
    SnapshotError : something else than such a state, or one of another kind of generator
    """
    try:
        if not isinstance(state, dict) or not _is_state(state, generator.bit_generator.state):
            raise ValueError
        generator.bit_generator.state = state
    except (ValueError, OverflowError):
        raise SnapshotError(f"{str(state)[:80]!r} is no state of a {type(generator.bit_generator).__name__} generator "
                            "of random numbers: the file is damaged, or of another version") from None


def _is_state(state: object, pattern: object) -> bool:
    """Whether `state` has the keys, the name and the kinds of number of a `pattern`; NumPy itself trusts its caller."""
    if isinstance(pattern, dict):
        return (isinstance(state, dict) and state.keys() == pattern.keys()
                and all(_is_state(state[key], value) for key, value in pattern.items()))
    if isinstance(pattern, int):
        return type(state) is int and 0 <= state < 2**128
    return state == pattern
