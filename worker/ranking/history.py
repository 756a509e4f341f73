"""A user's own restaurants, best first: the list `order_again`, and what `for_you` begins with.

    repeat(u, i) = sum over the user's orders there of 2^(-age / 90 days)

Most next orders are repeats, and a user's own frequency and recency predict them best.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.ranking.matrix import InteractionMatrix
from worker.ranking.ragged import sizes_of


@dataclass(frozen=True, slots=True)
class History:
    """What each user of a block ordered, best first: user `first_user + u` at
    `indptr[u]:indptr[u + 1]`."""

    first_user: int
    indptr: NDArray[np.int64]
    """Shape (users + 1,)."""
    rows: NDArray[np.int32]
    """Restaurant rows, shape (interactions,)."""

    def part(self, start: int, stop: int) -> "History":
        """Of the users from the `start`-th to the `stop`-th."""
        indptr = self.indptr[start : stop + 1]
        return History(
            first_user=self.first_user + start,
            indptr=indptr - indptr[0],
            rows=self.rows[indptr[0] : indptr[-1]],
        )

    def only(self, is_candidate: NDArray[np.bool_]) -> "History":
        """Without the others. is_candidate: shape (restaurants,)."""
        is_kept = is_candidate[self.rows]
        before = np.zeros(len(is_kept) + 1, np.int64)
        np.cumsum(is_kept, out=before[1:])
        return History(
            first_user=self.first_user, indptr=before[self.indptr], rows=self.rows[is_kept]
        )


def order_again(
    matrix: InteractionMatrix,
    *,
    first_user: int,
    users: int,
    is_candidate: NDArray[np.bool_] | None = None,
) -> History:
    """Everything that many users from row `first_user` on ordered, best repeat score first.

    Equal scores: the newer first, then by row. is_candidate: shape (restaurants,); restaurants
    that are not are left out.
    """
    stop = first_user + users
    first, last = matrix.indptr[first_user], matrix.indptr[stop]
    rows = matrix.restaurants[first:last]
    repeats = matrix.repeats[first:last]
    newest_days = matrix.newest_days[first:last]
    user = np.repeat(np.arange(users), sizes_of(matrix.indptr[first_user : stop + 1]))
    if is_candidate is not None:
        is_kept = is_candidate[rows]
        rows, repeats, user = rows[is_kept], repeats[is_kept], user[is_kept]
        newest_days = newest_days[is_kept]
    # Stable, and rows ascend within a user: they need no key of their own.
    order = np.lexsort((-newest_days.astype(np.int32), -repeats, user))
    indptr = np.zeros(users + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=users), out=indptr[1:])
    return History(first_user=first_user, indptr=indptr, rows=rows[order])
