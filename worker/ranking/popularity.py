"""What is popular, what grows and what is new: rankings of restaurants that know no user.

A restaurant stands in one city, so a city's ranking is the whole one without the other cities.
Time is counted from the newest order, never from a clock: data that end last year have a last
fortnight, too.
"""

import numpy as np
from numpy.typing import NDArray

from worker.ranking import sort_keys
from worker.ranking.activity import NEVER, WINDOW_DAYS, Activity
from worker.ranking.decay import SECONDS_PER_DAY
from worker.ranking.matrix import InteractionMatrix

NO_CITY = 0

CERTAINTY = 1.645
"""Standard errors below the estimate where the lower bound of growth lies: one-sided 95 %."""
PRIOR_ORDERS = 0.5
FIRST_IMPORT_GAP_SECONDS = 2
"""The rows of one import are created without a longer pause."""

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


def growth(activity: Activity) -> NDArray[np.float32]:
    """By how much each restaurant's orders surely grew, shape (restaurants,), a natural logarithm.

        ln((r + 1/2) / (p + 1/2)) - 1.645 sqrt(1 / (r + 1/2) + 1 / (p + 1/2))

    r, p: orders of the newest 14 days and of the 14 before. It is the lower bound (one-sided
    95 %) of the ratio of two Poisson rates, with the half order that keeps small counts from
    infinity (Price & Bonett 2000, Computational Statistics & Data Analysis 34:345). Above zero:
    growth that chance hardly explains. 1 -> 3 orders have -0.8, 100 -> 150 have +0.2.

    Minus infinity for all where the orders do not reach back over both windows.
    """
    recent = activity.recent + PRIOR_ORDERS
    previous = activity.previous + PRIOR_ORDERS
    bound = np.log(recent / previous) - CERTAINTY * np.sqrt(1 / recent + 1 / previous)
    oldest = int(activity.first_seconds.min(initial=NEVER))
    if activity.as_of_seconds - oldest < 2 * WINDOW_DAYS * SECONDS_PER_DAY:
        bound[:] = -np.inf
    return bound.astype(np.float32)


def rank_growing(
    activity: Activity,
    scores: NDArray[np.float32],
    *,
    is_candidate: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Rows of the candidates whose growth is above zero, most growth first, then by popularity."""
    grown = growth(activity)
    rows = np.flatnonzero(is_candidate & (grown > 0)).astype(np.int32)
    return rows[np.lexsort((rows, -scores[rows], -grown[rows]))]


def rank_newest(
    activity: Activity,
    created_seconds: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    is_candidate: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Rows of all candidates, those that appeared last first; ties by popularity, then by row.

    A restaurant appeared when its row was created, or with its first order where that is earlier:
    the rows of an import are younger than what they tell of. The rows of the first import, those
    created with the oldest one, are all of one moment; among them the later first order is the
    newer restaurant, and one that nobody ordered from comes last.

    created_seconds: since 1970, shape (restaurants,); NEVER where it is unknown.
    """
    created = created_seconds.copy()
    end = _end_of_first_import(created)
    is_first = created <= end
    created[is_first] = created.min(initial=NEVER)
    first = activity.first_seconds.astype(np.int64)
    is_ordered = first < NEVER
    appeared = np.minimum(created, first)
    appeared[~is_ordered & (is_first | (created == NEVER))] = -1
    rows = np.flatnonzero(is_candidate).astype(np.int32)
    later = np.where(is_ordered, first, -1)
    return rows[np.lexsort((rows, -scores[rows], -later[rows], -appeared[rows]))]


def split_by_city(
    ranked: NDArray[np.int32], city_codes: NDArray[np.integer]
) -> dict[int, NDArray[np.int32]]:
    """City code -> the ranked rows that stand there, in their order; codes ascend.

    city_codes: shape (restaurants,), NO_CITY where there is none. Cities without a row are left
    out.
    """
    rows = ranked[city_codes[ranked] != NO_CITY]
    rows = rows[np.argsort(city_codes[rows], kind="stable")]
    codes, starts = np.unique(city_codes[rows], return_index=True)
    return dict(zip(codes.tolist(), np.split(rows, starts[1:]), strict=False))


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
    by_city = split_by_city(rank(scores, is_candidate=is_candidate), city_codes)
    return {code: rows[:limit] for code, rows in by_city.items()}


def _rank_rows(
    scores: NDArray[np.float32], rows: NDArray[np.int32], limit: int | None
) -> NDArray[np.int32]:
    keys = sort_keys.pack(scores[rows], rows)
    return sort_keys.rows_of(sort_keys.best(keys, len(keys) if limit is None else limit))


def _end_of_first_import(created_seconds: NDArray[np.int64]) -> int:
    """Of the rows created one after another, beginning with the oldest, when the last was."""
    moments = np.unique(created_seconds)
    if not len(moments):
        return NEVER
    pauses = np.flatnonzero(np.diff(moments) > FIRST_IMPORT_GAP_SECONDS)
    return int(moments[pauses[0]] if len(pauses) else moments[-1])
