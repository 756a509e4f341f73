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
        if stop - start == len(self.indptr) - 1:
            return self
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
        is_kept.cumsum(out=before[1:])
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
    indptr = matrix.indptr[first_user : first_user + users + 1]
    own = slice(indptr[0], indptr[-1])
    user = np.arange(users).repeat(sizes_of(indptr))
    # Stable, and rows ascend within a user: they need no key of their own.
    order = np.lexsort((-matrix.newest_days[own].astype(np.int32), -matrix.repeats[own], user))
    history = History(
        first_user=first_user, indptr=indptr - indptr[0], rows=matrix.restaurants[own][order]
    )
    return history if is_candidate is None else history.only(is_candidate)
