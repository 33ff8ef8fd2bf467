"""The order in which things are taken, drawn anew each turn, and kept as one state of the random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from barista import rng as random


class Order:
    """The numbers 0 to `count` - 1, as they come or shuffled.

    What is kept of a shuffled order is where the random numbers stood before it was drawn: a million
    places would be a long state.

    Parameters
    ----------
    count : how many things
    rng : source of the shuffles; None for the order as it is

    Attributes
    ----------
    places : the things in order
    """

    def __init__(self, count: int, rng: np.random.Generator | None) -> None:
        self._count = count
        self._rng = rng
        self._before: dict[str, Any] | None = None
        self.places = np.arange(count)
        self.draw()

    def draw(self) -> None:
        """Shuffle anew, where the order is shuffled at all."""
        if self._rng is not None:
            self._before = random.state_of(self._rng)
            self.places = self._rng.permutation(self._count)

    def state(self) -> dict[str, Any] | None:
        """What `restore` needs."""
        return self._before

    def restore(self, state: object) -> None:
        """Take the order that another had when it gave this state; the random numbers then stand after it."""
        if self._rng is not None:
            random.restore(self._rng, state)
            self.draw()
