"""The matrix of a few users, from their orders alone: ranked like any other, nothing is fitted.

Its numbers are those of the whole matrix to the bit: the same arithmetic in the same order.
"""

import numpy as np
from numpy.typing import NDArray

from worker.ranking.decay import SECONDS_PER_DAY, decay
from worker.ranking.matrix import REPEAT_HALF_LIFE_DAYS, InteractionMatrix
from worker.ranking.ragged import sizes_of

_LATEST_SECONDS = (1 << 32) - 1


def fold_in(
    users: NDArray[np.int64],
    restaurants: NDArray[np.int64],
    epoch_seconds: NDArray[np.int64],
    *,
    count: int,
    restaurant_ids: NDArray[np.int64],
    as_of_seconds: int,
    half_life_days: float = REPEAT_HALF_LIFE_DAYS,
) -> InteractionMatrix:
    """The orders of a few users, in any order, as a matrix of `count` rows.

    users, restaurants: rows, shape (orders,). epoch_seconds: shape (orders,), clipped to
    1970-2105. restaurant_ids: of all rows, shape (restaurants,). as_of_seconds: where ages are
    counted from.
    """
    seconds = np.minimum(np.maximum(epoch_seconds, 0), _LATEST_SECONDS)
    pairs = users * len(restaurant_ids) + restaurants
    order = np.lexsort((seconds, pairs))
    pairs, seconds = pairs[order], seconds[order]
    is_first = np.ones(len(pairs) + 1, np.bool_)
    np.not_equal(pairs[1:], pairs[:-1], out=is_first[1:-1])
    is_last, is_first = is_first[1:], is_first[:-1]
    ages = (as_of_seconds - seconds.astype(np.float64)) / SECONDS_PER_DAY
    weights = decay(ages, half_life_days=half_life_days)
    repeats = np.zeros(0, np.float32)
    if len(pairs):
        starts = is_first.nonzero()[0]
        repeats = np.add.reduceat(weights, starts, dtype=np.float64).astype(np.float32)
    firsts = np.arange(count + 1) * len(restaurant_ids)
    pairs = pairs[is_first]
    indptr = pairs.searchsorted(firsts)
    rows = pairs - firsts[:-1].repeat(sizes_of(indptr))
    return InteractionMatrix(
        user_ids=np.arange(count),
        restaurant_ids=restaurant_ids,
        indptr=indptr,
        restaurants=rows.astype(np.int32),
        repeats=repeats,
        newest_days=(seconds[is_last] // SECONDS_PER_DAY).astype(np.uint16),
        as_of_seconds=as_of_seconds,
        half_life_days=half_life_days,
        orders=len(seconds),
        skipped=0,
    )
