"""Gathers what speaks for each restaurant that a user might discover.

Candidates of a user are what the history points to, the most popular of the user's city (of the
city of the foremost own restaurant, or of everywhere, where none is known) and what is popular
around the user's foremost own restaurants. Blocks of users are computed at once; everything of a
user is made of that user's own entries, so no block changes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.ranking import popularity
from worker.ranking.blocks import cut_blocks
from worker.ranking.decay import decay
from worker.ranking.diversity import NO_CUISINE
from worker.ranking.history import History
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.nearness import NEARBY, Places, nearest_km
from worker.ranking.ragged import sizes_of, spans
from worker.ranking.scoring import SparseRows
from worker.ranking.surroundings import Surroundings

TASTE_HALF_LIFE_DAYS = 365.0
BLOCK_ENTRIES = 1 << 16
"""Candidates weighed at a time, about 60 bytes each."""
LEAST_POINTS = 0.02
"""Of a user's largest; what the history points to less is not looked at."""
MAX_ANCHORS = 6
"""Foremost own restaurants that distances are measured from."""
TASTE_PRIOR = 2.0
"""Orders' worth of everyone's taste that stands beside a user's own."""

SAME_CITY_KM = 3.0
OTHER_CITY_KM = 100.0
UNKNOWN_KM = 10.0
"""Kilometres where coordinates are missing: by the cities, or nothing known at all."""


@dataclass(frozen=True, slots=True)
class Points:
    """What histories point to: for user u at `indptr[u]:indptr[u + 1]`, in no order."""

    indptr: NDArray[np.int64]
    """Shape (users + 1,)."""
    rows: NDArray[np.int32]
    """Restaurant rows, shape (entries,)."""
    shares: NDArray[np.float32]
    """Of the user's largest score, above zero, shape (entries,)."""

    def part(self, start: int, stop: int) -> "Points":
        """Of the users from the `start`-th to the `stop`-th."""
        if stop - start == len(self.indptr) - 1:
            return self
        indptr = self.indptr[start : stop + 1]
        entries = slice(indptr[0], indptr[-1])
        return Points(indptr - indptr[0], self.rows[entries], self.shares[entries])


@dataclass(frozen=True, slots=True)
class Evidence:
    """Candidates of a block of users, in no order."""

    users: NDArray[np.int64]
    """Whose candidate, counted within the block, shape (entries,)."""
    rows: NDArray[np.int32]
    """Restaurant rows, shape (entries,): each once a user, none of the user's own."""
    points: NDArray[np.float32]
    """What the history points to, as a share of the user's largest, within 0-1."""
    km: NDArray[np.float32]
    lift_places: NDArray[np.int64]
    """Where in `lifts` (seen flat) each entry's is."""
    lifts: NDArray[np.float32]
    """User's share of the cuisine to everyone's, shape (users, cuisines)."""
    guests: NDArray[np.float32]
    """Shape (restaurants,)."""
    own_counts: NDArray[np.int64]
    """Restaurants each user ordered from, shape (users,)."""


def entry_bounds(points: Points, surroundings: Surroundings) -> NDArray[np.int64]:
    """At most how many candidates each user has before equal ones are found, shape (users,)."""
    largest_head = int(sizes_of(surroundings.head_indptr).max())
    bounds = sizes_of(points.indptr)
    return np.asarray(bounds + largest_head + MAX_ANCHORS * NEARBY)


def empty_slots(surroundings: Surroundings, users: int) -> NDArray[np.int32]:
    """Scratch for `gather` of that many users at most; allocated once, its pages stay warm."""
    users = min(users, surroundings.max_users)
    return np.empty(users * len(surroundings.guests), np.int32)


def telling(collaborative: SparseRows) -> Points:
    """The entries that are LEAST_POINTS of their user's largest, and more, as shares of it.

    Less says next to nothing (weights keep `points_floor` for what the history does not point to),
    and most entries are less: every other step is cheaper without them.
    """
    sizes = sizes_of(collaborative.indptr)
    starts = collaborative.indptr[:-1][sizes > 0]
    largest = np.zeros(0, np.float32)
    if len(starts):
        largest = np.maximum.reduceat(collaborative.data, starts)
    largest[largest <= 0] = 1  # where the history points nowhere, no share is above zero
    shares = collaborative.data / largest.repeat(sizes[sizes > 0])
    kept = (shares >= np.float32(LEAST_POINTS)).nonzero()[0]
    return Points(
        indptr=kept.searchsorted(collaborative.indptr),
        rows=collaborative.indices.take(kept),
        shares=shares.take(kept),
    )


def evidence_blocks(
    matrix: InteractionMatrix,
    collaborative: SparseRows,
    *,
    history: History,
    user_cities: NDArray[np.uint16],
    surroundings: Surroundings,
) -> Iterator[tuple[int, int, Evidence]]:
    """Yields (start, stop, evidence) of the users from the `start`-th to the `stop`-th.

    collaborative: scores, sparse (users, restaurants). history: all that these users ordered.
    user_cities: city codes, shape (users,).
    """
    points = telling(collaborative)
    slots = empty_slots(surroundings, len(user_cities))
    for start, stop in cut_blocks(
        entry_bounds(points, surroundings),
        max_rows=surroundings.max_users,
        max_entries=BLOCK_ENTRIES,
    ):
        yield (
            start,
            stop,
            gather(
                matrix,
                points.part(start, stop),
                own=history.part(start, stop),
                user_cities=user_cities[start:stop],
                surroundings=surroundings,
                slots=slots,
            ),
        )


def gather(
    matrix: InteractionMatrix,
    points: Points,
    *,
    own: History,
    user_cities: NDArray[np.uint16],
    surroundings: Surroundings,
    slots: NDArray[np.int32],
) -> Evidence:
    """The evidence of the users of `points`, at most `surroundings.max_users`.

    own: what these users ordered, inactive restaurants too.
    slots: scratch with a place for each of these users and restaurants, from `empty_slots`.
    """
    users = len(points.indptr) - 1
    facts = surroundings.facts
    restaurants = len(facts.is_candidate)
    each = np.arange(users)
    own_users = each.repeat(sizes_of(own.indptr))
    anchors, anchor_indptr = _anchors(own.rows, own_users, users, surroundings.places)
    cities = _cities(user_cities, own.rows, own.indptr, surroundings)
    heads, head_sizes = _heads(cities, surroundings)
    around = surroundings.nearby[anchors].reshape(-1)
    sizes = np.concatenate([sizes_of(points.indptr), head_sizes, NEARBY * sizes_of(anchor_indptr)])
    user = np.concatenate([each, each, each]).repeat(sizes)
    rows = np.concatenate([points.rows, heads, around])
    keys = user * restaurants
    keys += rows
    own_keys = own_users * restaurants
    own_keys += own.rows
    is_open = _first_of_equal(keys, own_keys, slots)
    is_open &= facts.is_candidate.take(rows)
    kept = is_open.nonzero()[0]
    rows, user = rows.take(kept), user.take(kept)
    share = np.zeros(len(kept), np.float32)
    pointed = int(kept.searchsorted(len(points.rows)))
    share[:pointed] = points.shares.take(kept[:pointed])
    km = nearest_km(
        surroundings.places,
        rows=rows,
        users=user,
        anchors=anchors,
        anchor_indptr=anchor_indptr,
    )
    nowhere = np.isnan(km).nonzero()[0]
    if len(nowhere):
        km[nowhere] = _km_by_city(cities[user[nowhere]], facts.city_codes[rows[nowhere]])
    lifts = _lifts(matrix, own.first_user, users, surroundings)
    return Evidence(
        users=user,
        rows=rows,
        points=share,
        km=km,
        lift_places=user * lifts.shape[1] + facts.cuisine_codes.take(rows),
        lifts=lifts,
        guests=surroundings.guests,
        own_counts=sizes_of(own.indptr),
    )


def _anchors(
    own_rows: NDArray[np.int32], own_users: NDArray[np.int64], users: int, where: Places
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The foremost own restaurants with coordinates: (rows, indptr)."""
    is_known = ~np.isnan(where.y_km.take(own_rows))
    rows = own_rows[is_known]
    counts = np.bincount(own_users[is_known], minlength=users)
    place = spans(np.zeros(users, np.int64), counts)
    indptr = np.zeros(users + 1, np.int64)
    np.minimum(counts, MAX_ANCHORS).cumsum(out=indptr[1:])
    return rows[place < MAX_ANCHORS], indptr


def _cities(
    user_cities: NDArray[np.uint16],
    own_rows: NDArray[np.int32],
    own_indptr: NDArray[np.int64],
    surroundings: Surroundings,
) -> NDArray[np.uint16]:
    """The user's city, or else that of the foremost own restaurant."""
    cities = user_cities.copy()
    is_guessed = (cities == popularity.NO_CITY) & (sizes_of(own_indptr) > 0)
    foremost = own_rows[own_indptr[:-1][is_guessed]]
    cities[is_guessed] = surroundings.facts.city_codes[foremost]
    return cities


def _heads(
    cities: NDArray[np.uint16], surroundings: Surroundings
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The most popular of each user's city, or of everywhere: (rows, shape (entries,); how many
    each user has, shape (users,))."""
    indptr = surroundings.head_indptr
    codes = np.where(cities < len(indptr) - 1, cities, 0)
    codes[indptr[codes + 1] == indptr[codes]] = 0
    starts = indptr[codes]
    sizes = indptr[codes + 1] - starts
    return surroundings.heads.take(spans(starts, sizes)), sizes


def _first_of_equal(
    keys: NDArray[np.int64], own_keys: NDArray[np.int64], slots: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Whether each key is the first of its kind, and not an own one."""
    entries = np.arange(len(keys), dtype=np.int32)
    # Written from behind, so that the first of equal keys stays. Only what was written is read.
    slots[keys[::-1]] = entries[::-1]
    slots[own_keys] = -1
    return np.asarray(slots.take(keys) == entries)


def _km_by_city(
    user_cities: NDArray[np.uint16], city_codes: NDArray[np.uint16]
) -> NDArray[np.float32]:
    km = np.where(user_cities == city_codes, SAME_CITY_KM, OTHER_CITY_KM).astype(np.float32)
    km[(user_cities == popularity.NO_CITY) | (city_codes == popularity.NO_CITY)] = UNKNOWN_KM
    return km


def _lifts(
    matrix: InteractionMatrix, first_user: int, users: int, surroundings: Surroundings
) -> NDArray[np.float32]:
    """(own + prior share) / (total + prior) / share of each cuisine, shape (users, cuisines)."""
    first, last = matrix.indptr[first_user], matrix.indptr[first_user + users]
    shares = surroundings.cuisine_shares
    ages = matrix.as_of_day - matrix.newest_days[first:last].astype(np.int64)
    weights = decay(ages, half_life_days=TASTE_HALF_LIFE_DAYS)
    user = np.arange(users).repeat(sizes_of(matrix.indptr[first_user : first_user + users + 1]))
    cuisine = surroundings.facts.cuisine_codes[matrix.restaurants[first:last]]
    own = np.bincount(
        user * len(shares) + cuisine, weights=weights, minlength=users * len(shares)
    ).reshape(users, len(shares))
    totals = np.bincount(user, weights=weights, minlength=users)[:, np.newaxis]
    # A cuisine nobody ordered has no share, and nobody's history has it either.
    lifts = (own / np.where(shares > 0, shares, 1) + TASTE_PRIOR) / (totals + TASTE_PRIOR)
    lifts[:, NO_CUISINE] = 1
    return lifts.astype(np.float32)
