"""Rows of different lengths in one array: those of row r stand at `indptr[r]:indptr[r + 1]`."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from worker.ranking.matrix import InteractionMatrix


def spans(starts: NDArray[np.integer], sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """start, start + 1, ... of each span, `sizes` of them, one span behind the other."""
    ends = sizes.cumsum()
    places: NDArray[np.int64] = (starts - (ends - sizes)).repeat(sizes)
    places += np.arange(len(places))
    return places


def sizes_of(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many entries each row has: np.diff, without what it costs a short array."""
    return indptr[1:] - indptr[:-1]


def pick_rows(
    indptr: NDArray[np.int64], rows: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Some rows as ragged rows of their own: (indptr, where each entry stood)."""
    starts = indptr[rows]
    sizes = indptr[rows + 1] - starts
    picked = np.zeros(len(rows) + 1, np.int64)
    sizes.cumsum(out=picked[1:])
    return picked, spans(starts, sizes)


def select_users(matrix: InteractionMatrix, users: NDArray[np.integer]) -> InteractionMatrix:
    """The rows of some users, ascending, as a matrix of its own; itself when they are all."""
    if len(users) == len(matrix.user_ids):
        return matrix
    indptr, entries = pick_rows(matrix.indptr, users)
    return replace(
        matrix,
        user_ids=matrix.user_ids[users],
        indptr=indptr,
        restaurants=matrix.restaurants[entries],
        repeats=matrix.repeats[entries],
        newest_days=matrix.newest_days[entries],
    )
