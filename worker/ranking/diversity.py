"""Keeps one cuisine from filling a page: of each ten restaurants at most so many share a cuisine.

A stable re-ordering of the first pages: what is above the cap moves behind the page, and the best
of what follows moves up. Nothing is lost, and lists within the cap stay as they are.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NO_CUISINE = 0

PAGE = 10
PAGES = 2
_LISTS_AT_A_TIME = 64
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
    lists, order = spread_order(rows, cuisine_codes, cap=cap)
    if not len(lists):
        return rows
    spread = rows.copy()
    spread[lists, : order.shape[1]] = np.take_along_axis(rows[lists], order, axis=1)
    return spread


def spread_order(
    rows: NDArray[np.int32], cuisine_codes: NDArray[np.int32], *, cap: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which lists break the cap, and the order of their first places that keeps it.

    Returns (numbers of lists, shape (lists,); places, shape (lists, at most 60)). The parameters
    are those of `spread_cuisines`.
    """
    assert cap > 0
    depth = min(LOOK_AHEAD, rows.shape[1])
    if cap >= PAGE or not rows.size or not len(cuisine_codes):
        return np.empty(0, np.int64), np.empty((0, depth), np.int64)
    cuisines = np.where(rows[:, :depth] < 0, NO_CUISINE, cuisine_codes[rows[:, :depth]])
    is_over = np.zeros(len(rows), np.bool_)
    for start in range(0, min(PAGES * PAGE, depth), PAGE):
        page = np.sort(cuisines[:, start : start + PAGE], axis=1)
        first, last = page[:, :-cap], page[:, cap:]
        is_over |= ((first == last) & (last != NO_CUISINE)).any(axis=1)
    lists = is_over.nonzero()[0]
    if not len(lists):
        return lists, np.empty((0, depth), np.int64)
    return lists, _order(cuisines[lists], rows[lists, :depth] >= 0, cap)


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
    each = np.arange(users)[:, np.newaxis]
    order = np.arange(depth)[np.newaxis].repeat(users, axis=0)
    for start in range(0, min(PAGES * PAGE, depth), PAGE):
        rest = order[:, start:]
        is_fitting = _earlier(cuisines[each, rest]) < cap
        is_fitting &= is_ranked[each, rest]
        is_on_page = is_fitting & (is_fitting.cumsum(axis=1) <= PAGE)
        order[:, start:] = rest[each, (~is_on_page).argsort(axis=1, kind="stable")]
    return order


def _earlier(cuisines: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many before it in its list have the same cuisine, shape of `cuisines`."""
    places = cuisines.shape[1]
    earlier = np.zeros(cuisines.shape, np.int64)
    before = _before(places)
    for start in range(0, len(cuisines), _LISTS_AT_A_TIME):
        block = cuisines[start : start + _LISTS_AT_A_TIME]
        is_equal = block[:, :, np.newaxis] == block[:, np.newaxis, :]
        is_equal &= before
        is_equal.sum(axis=2, out=earlier[start : start + _LISTS_AT_A_TIME])
    earlier[cuisines == NO_CUISINE] = 0
    return earlier


@lru_cache(maxsize=16)
def _before(places: int) -> NDArray[np.bool_]:
    """Whether the second of two places comes before the first, shape (places, places)."""
    return np.tri(places, k=-1, dtype=np.bool_)
