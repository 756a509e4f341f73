"""What all users share in the blend: facts of restaurants, recent guests, what is popular where."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.ranking import popularity
from worker.ranking.blend_weights import DEFAULTS
from worker.ranking.decay import decay
from worker.ranking.matrix import InteractionMatrix, restaurant_degrees
from worker.ranking.nearness import Places, places, popular_nearby
from worker.ranking.sort_keys import MAX_GROUPS

GUEST_HALF_LIFE_DAYS = 30.0
CITY_HEAD = 200

MAX_USERS = 64
"""Users gathered at a time: more gain no time."""

_SCRATCH_PLACES = 1 << 21
_TASTE_PLACES = 1 << 20
_BLOCK = 1 << 20


assert MAX_USERS <= MAX_GROUPS


@dataclass(frozen=True, slots=True)
class RestaurantFacts:
    """What is known of each restaurant; every array has shape (restaurants,)."""

    city_codes: NDArray[np.uint16]
    """NO_CITY where there is none."""
    latitudes: NDArray[np.float32]
    """Degrees, NaN where unknown."""
    longitudes: NDArray[np.float32]
    cuisine_codes: NDArray[np.int32]
    """Main cuisine, 0 where there is none; not much above the number of different ones."""
    is_candidate: NDArray[np.bool_]
    """Whether it may be recommended."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all users share, computed once: `surround` makes it."""

    facts: RestaurantFacts
    places: Places
    guests: NDArray[np.float32]
    """Recent guests, shape (restaurants,)."""
    head_indptr: NDArray[np.int64]
    """The most popular candidates of city code c at `heads[head_indptr[c]:head_indptr[c + 1]]`;
    code 0: of everywhere."""
    heads: NDArray[np.int32]
    nearby: NDArray[np.int32]
    """Popular around each restaurant, shape (restaurants, NEARBY)."""
    cuisine_shares: NDArray[np.float64]
    """Of all interactions, shape (cuisines,)."""

    @property
    def max_users(self) -> int:
        """Users whose scratch stays within bounds."""
        restaurants, cuisines = len(self.guests), len(self.cuisine_shares)
        most = min(_SCRATCH_PLACES // max(restaurants, 1), _TASTE_PLACES // cuisines)
        return max(1, min(most, MAX_USERS))


def recent_guests(matrix: InteractionMatrix) -> NDArray[np.float32]:
    """Sum over a restaurant's guests of 2^(-days since their last order / 30), (restaurants,)."""
    restaurants = len(matrix.restaurant_ids)
    totals = np.zeros(restaurants, np.float64)
    for start in range(0, len(matrix.restaurants), _BLOCK):
        block = slice(start, start + _BLOCK)
        ages = matrix.as_of_day - matrix.newest_days[block].astype(np.int64)
        weights = decay(ages, half_life_days=GUEST_HALF_LIFE_DAYS)
        totals += np.bincount(matrix.restaurants[block], weights=weights, minlength=restaurants)
    return totals.astype(np.float32)


def surround(matrix: InteractionMatrix, facts: RestaurantFacts) -> Surroundings:
    """Prepares what `gather` needs, once for all users: some seconds for 50,000 restaurants.

    Holds about 100 bytes a restaurant.
    """
    guests = recent_guests(matrix)
    where = places(facts.latitudes, facts.longitudes)
    by_city = popularity.rank_by_city(
        guests, facts.city_codes, is_candidate=facts.is_candidate, limit=CITY_HEAD
    )
    everywhere = popularity.rank(guests, is_candidate=facts.is_candidate, limit=CITY_HEAD)
    codes = int(facts.city_codes.max(initial=0)) + 1
    empty = np.empty(0, np.int32)
    heads = [everywhere, *(by_city.get(code, empty) for code in range(1, codes))]
    head_indptr = np.zeros(codes + 1, np.int64)
    np.cumsum([len(head) for head in heads], out=head_indptr[1:])
    degrees = restaurant_degrees(matrix)
    known_by_cuisine = np.bincount(facts.cuisine_codes, weights=degrees, minlength=1)
    return Surroundings(
        facts=facts,
        places=where,
        guests=guests,
        head_indptr=head_indptr,
        heads=np.concatenate(heads),
        nearby=popular_nearby(
            where,
            np.float32(DEFAULTS.guests) * np.log(guests + np.float32(DEFAULTS.guests_floor)),
            is_candidate=facts.is_candidate,
            slope=DEFAULTS.distance,
            nearest_matters_km=DEFAULTS.near_km,
        ),
        cuisine_shares=known_by_cuisine / max(len(matrix.restaurants), 1),
    )
