"""The matrix of a few users, from their orders alone: ranked like any other, nothing is fitted.

Its numbers are those of the whole matrix to the bit: the same arithmetic in the same order.
"""

import numpy as np
from numpy.typing import NDArray

from worker.ranking.decay import SECONDS_PER_DAY, decay
from worker.ranking.matrix import REPEAT_HALF_LIFE_DAYS, InteractionMatrix

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
    seconds = np.clip(epoch_seconds, 0, _LATEST_SECONDS)
    order = np.lexsort((seconds, restaurants, users))
    users, rows, seconds = users[order], restaurants[order], seconds[order]
    is_first = (np.diff(users, prepend=-1) != 0) | (np.diff(rows, prepend=-1) != 0)
    starts = np.flatnonzero(is_first)
    ages = (as_of_seconds - seconds.astype(np.float64)) / SECONDS_PER_DAY
    weights = decay(ages, half_life_days=half_life_days)
    repeats = np.zeros(0, np.float32)
    if len(starts):
        repeats = np.add.reduceat(weights, starts, dtype=np.float64).astype(np.float32)
    lasts = np.append(starts[1:], len(rows)) - 1 if len(starts) else starts
    indptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(users[starts], minlength=count), out=indptr[1:])
    return InteractionMatrix(
        user_ids=np.arange(count),
        restaurant_ids=restaurant_ids,
        indptr=indptr,
        restaurants=rows[starts].astype(np.int32),
        repeats=repeats,
        newest_days=(seconds[lasts] // SECONDS_PER_DAY).astype(np.uint16),
        as_of_seconds=as_of_seconds,
        half_life_days=half_life_days,
        orders=len(rows),
        skipped=0,
    )
