"""When each restaurant was ordered from: what growth and novelty are judged by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.ranking.decay import SECONDS_PER_DAY

WINDOW_DAYS = 14
"""Length of the two windows that are compared: whole weeks, since weekdays differ."""
NEVER = (1 << 32) - 1
"""Later than any order, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Activity:
    """In restaurant rows, twelve bytes a restaurant; `note` adds orders to it."""

    recent: NDArray[np.int32]
    """Orders of the newest WINDOW_DAYS before `as_of_seconds`, shape (restaurants,)."""
    previous: NDArray[np.int32]
    """Orders of the WINDOW_DAYS before those, shape (restaurants,)."""
    first_seconds: NDArray[np.uint32]
    """The first order, seconds since 1970, NEVER without one; shape (restaurants,)."""
    as_of_seconds: int

    @classmethod
    def none(cls, restaurants: int, *, as_of_seconds: int = 0) -> "Activity":
        return cls(
            np.zeros(restaurants, np.int32),
            np.zeros(restaurants, np.int32),
            np.full(restaurants, NEVER, np.uint32),
            as_of_seconds,
        )

    def note(self, *, restaurants: NDArray[np.int64], seconds: NDArray[np.uint32]) -> None:
        """restaurants: rows, shape (orders,). seconds: since 1970, shape (orders,)."""
        np.minimum.at(self.first_seconds, restaurants, seconds)
        middle = max(0, self.as_of_seconds - WINDOW_DAYS * SECONDS_PER_DAY)
        oldest = max(0, middle - WINDOW_DAYS * SECONDS_PER_DAY)
        is_recent = seconds > middle
        is_previous = (seconds > oldest) & ~is_recent
        np.add.at(self.recent, restaurants[is_recent], 1)
        np.add.at(self.previous, restaurants[is_previous], 1)
