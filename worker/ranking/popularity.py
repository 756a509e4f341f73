"""How often restaurants are ordered from, in all and within each city, newer orders counting more.

City popularity is made of the orders at the city's restaurants: a restaurant stands in one city,
so a city's list is the whole list without the other cities.
"""

import numpy as np
from numpy.typing import NDArray

from worker.ranking import sort_keys
from worker.ranking.matrix import InteractionMatrix

NO_CITY = 0

_BLOCK = 1 << 20


def popularity(matrix: InteractionMatrix) -> NDArray[np.float32]:
    """Sum over a restaurant's orders of 2^(-age / half-life), shape (restaurants,)."""
    restaurants = len(matrix.restaurant_ids)
    totals = np.zeros(restaurants, np.float64)
    for start in range(0, len(matrix.restaurants), _BLOCK):
        block = slice(start, start + _BLOCK)
        totals += np.bincount(
            matrix.restaurants[block], weights=matrix.repeats[block], minlength=restaurants
        )
    # Rounding takes away what the order of summation put into the last bits: equal stays equal.
    return totals.astype(np.float32)


def rank(
    scores: NDArray[np.float32],
    *,
    is_candidate: NDArray[np.bool_] | None = None,
    limit: int | None = None,
) -> NDArray[np.int32]:
    """Rows best first, equal scores by row (so by id); all candidates, or the first `limit`.

    scores, is_candidate: shape (restaurants,).
    """
    rows = np.arange(len(scores), dtype=np.int32)
    if is_candidate is not None:
        rows = rows[is_candidate]
    return _rank_rows(scores, rows, limit)


def rank_by_city(
    scores: NDArray[np.float32],
    city_codes: NDArray[np.integer],
    *,
    is_candidate: NDArray[np.bool_] | None = None,
    limit: int | None = None,
) -> dict[int, NDArray[np.int32]]:
    """City code -> rows of its restaurants as `rank` orders them; codes ascend.

    city_codes: shape (restaurants,), NO_CITY where there is none. Cities without a candidate are
    left out.
    """
    rows = np.arange(len(scores), dtype=np.int32)
    has_place = city_codes != NO_CITY
    rows = rows[has_place if is_candidate is None else has_place & is_candidate]
    rows = rows[np.argsort(city_codes[rows], kind="stable")]
    codes, starts = np.unique(city_codes[rows], return_index=True)
    return {
        int(code): _rank_rows(scores, part, limit)
        for code, part in zip(codes, np.split(rows, starts[1:]), strict=False)
    }


def _rank_rows(
    scores: NDArray[np.float32], rows: NDArray[np.int32], limit: int | None
) -> NDArray[np.int32]:
    keys = sort_keys.pack(scores[rows], rows)
    return sort_keys.rows_of(sort_keys.best(keys, len(keys) if limit is None else limit))
