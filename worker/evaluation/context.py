"""What an algorithm is given to learn from and to rank, and what it gives back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker import memory
from worker.evaluation.held_out import HeldOut
from worker.ranking.blend_weights import DEFAULTS
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import RankedBlock
from worker.ranking.surroundings import RestaurantFacts

ListName = Literal["for_you", "discover"]
LISTS: tuple[ListName, ...] = ("for_you", "discover")


@dataclass(frozen=True, slots=True)
class Shop:
    """What a database knows beside the orders."""

    user_cities: NDArray[np.uint16]
    """City code of every user, shape (users,)."""
    facts: RestaurantFacts
    """Of all restaurants; `is_candidate` says which are active."""
    cuisine_cap: int = DEFAULTS.cuisine_cap
    """Of each ten recommended, at most so many of one main cuisine."""

    @property
    def restaurant_cities(self) -> NDArray[np.uint16]:
        return self.facts.city_codes

    @property
    def is_active(self) -> NDArray[np.bool_]:
        return self.facts.is_candidate


@dataclass(frozen=True, slots=True)
class Context:
    """What an algorithm may use beside the interactions before the cut."""

    users: NDArray[np.int32]
    """Rows of the users to rank, ascending, shape (asked,)."""
    histories: InteractionMatrix
    """Their interactions: row u is user `users[u]`. Blocks count users by these rows."""
    is_candidate: NDArray[np.bool_]
    """Active, and ordered from before the cut, shape (restaurants,)."""
    restaurant_orders: NDArray[np.int64]
    """Orders before the cut, shape (restaurants,)."""
    n: int
    """Length of the rankings."""
    plan: memory.Plan
    folder: Path
    """Scratch for files of its own."""
    seed: int
    shop: Shop | None
    """None for a data set without cities and times: `discover` is its only list."""
    validation: Callable[[], HeldOut | None]
    """Loads the window that parameters may be chosen on: what came right before the cut."""

    @property
    def cities(self) -> NDArray[np.uint16] | None:
        """City codes of the users to rank."""
        return None if self.shop is None else self.shop.user_cities[self.users]


Rank = Callable[[ListName], Iterator[RankedBlock]]
Fit = Callable[[InteractionMatrix, Context], Rank]
