"""Keeps one cuisine from filling a page: of each ten restaurants at most so many share a cuisine.

A stable re-ordering of the first pages: what is above the cap moves behind the page, and the best
of what follows moves up. Nothing is lost, and lists within the cap stay as they are.
"""

import numpy as np
from numpy.typing import NDArray

NO_CUISINE = 0

PAGE = 10
PAGES = 2
LOOK_AHEAD = 60
"""Places from the top that a page may be filled from."""


def spread_cuisines(
    rows: NDArray[np.int32], cuisine_codes: NDArray[np.int32], *, cap: int
) -> NDArray[np.int32]:
    """Ranked rows (users, n), -1 behind a list's end -> the same lists with the cap kept.

    cuisine_codes: main cuisines, shape (restaurants,); NO_CUISINE is never too many. cap: at most
    so many of one cuisine in the first ten and in the second ten, as far as the first 60 have
    others. A cap of ten or more changes nothing.
    """
    if cap >= PAGE or not rows.size or not len(cuisine_codes):
        return rows
    depth = min(LOOK_AHEAD, rows.shape[1])
    cuisines = np.where(rows[:, :depth] < 0, NO_CUISINE, cuisine_codes[rows[:, :depth]])
    is_over = np.zeros(len(rows), np.bool_)
    for start in range(0, min(PAGES * PAGE, depth), PAGE):
        is_over |= np.any(_earlier(cuisines[:, start : start + PAGE]) >= cap, axis=1)
    if not is_over.any():
        return rows
    spread = rows.copy()
    order = _order(cuisines[is_over], rows[is_over, :depth] >= 0, cap)
    spread[is_over, :depth] = np.take_along_axis(rows[is_over, :depth], order, axis=1)
    return spread


def same_cuisine_pairs(
    rows: NDArray[np.int32], cuisine_codes: NDArray[np.int32], *, top: int
) -> NDArray[np.float64]:
    """Share of the pairs among a list's first `top` that have one cuisine, shape (users,).

    One minus it is the diversity within the list. Restaurants without a cuisine are like no other;
    lists of fewer than two count 0.
    """
    rows = rows[:, :top]
    cuisines = np.where(rows < 0, NO_CUISINE, cuisine_codes[rows])
    lengths = np.count_nonzero(rows >= 0, axis=1)
    pairs = np.maximum(lengths * (lengths - 1) / 2, 1)
    return np.asarray(_earlier(cuisines).sum(axis=1) / pairs)


def _order(
    cuisines: NDArray[np.int32], is_ranked: NDArray[np.bool_], cap: int
) -> NDArray[np.int64]:
    """Positions in their new order, shape of `cuisines`; what is not ranked stays behind."""
    users, depth = cuisines.shape
    order = np.tile(np.arange(depth), (users, 1))
    for start in range(0, min(PAGES * PAGE, depth), PAGE):
        rest = order[:, start:]
        is_fitting = _earlier(np.take_along_axis(cuisines, rest, axis=1)) < cap
        is_fitting &= np.take_along_axis(is_ranked, rest, axis=1)
        is_on_page = is_fitting & (np.cumsum(is_fitting, axis=1) <= PAGE)
        order[:, start:] = np.take_along_axis(
            rest, np.argsort(~is_on_page, axis=1, kind="stable"), axis=1
        )
    return order


def _earlier(cuisines: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many before it in its list have the same cuisine, shape of `cuisines`."""
    earlier = np.zeros(cuisines.shape, np.int64)
    for place in range(1, cuisines.shape[1]):
        here = cuisines[:, place, np.newaxis]
        earlier[:, place] = np.count_nonzero(cuisines[:, :place] == here, axis=1)
    earlier[cuisines == NO_CUISINE] = 0
    return earlier
