"""How much weight the users shared by two restaurants carry, for some restaurants at a time.

    C_ij = sum_u d_u^-cu     over the users u of both i and j, d_u their number of restaurants

User weights are multiples of 2^-30 and their sums doubles, hence exact: no block size, no order of
users and no number of threads changes a bit. Computed from ids alone, in blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking.array_files import load_array, load_matrix, load_transposed, save_array
from worker.ranking.blocks import cut_blocks
from worker.ranking.matrix import InteractionMatrix, Transposed, transpose, user_degrees
from worker.ranking.ragged import pick_rows

_WEIGHT_UNIT = 2.0**-30


@dataclass(frozen=True, slots=True)
class SharedUsers:
    """What blocks of C are computed from; safe to use from several threads."""

    matrix: InteractionMatrix
    by_restaurant: Transposed
    degrees: NDArray[np.int64]
    """Restaurants of each user, shape (users,)."""
    weights: NDArray[np.float64]
    """d_u^-cu, shape (users,)."""
    bounds: NDArray[np.int64]
    """At most how many restaurants share a user with each one, shape (restaurants,)."""
    ones: NDArray[np.float64]
    """As many as interactions are multiplied at a time."""


def shared_users(
    matrix: InteractionMatrix,
    *,
    user_exponent: float,
    block_entries: int,
    by_restaurant: Transposed | None = None,
) -> SharedUsers:
    """block_entries: bound of the scratch entries of a block, about 50 bytes each."""
    degrees = user_degrees(matrix)
    weights = np.maximum(degrees, 1).astype(np.float64) ** -user_exponent
    chunk = max(2 * block_entries, int(degrees.max(initial=0)))
    return SharedUsers(
        matrix=matrix,
        by_restaurant=transpose(matrix) if by_restaurant is None else by_restaurant,
        degrees=degrees,
        weights=np.rint(weights / _WEIGHT_UNIT) * _WEIGHT_UNIT,
        bounds=_entry_bounds(matrix, degrees, chunk),
        ones=np.ones(min(chunk, len(matrix.restaurants)), np.float64),
    )


def blocks(
    shared: SharedUsers, *, max_rows: int, max_entries: int, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
    """Yields (first row, C of the rows from there on), sparse (rows, restaurants) doubles."""
    bounds = shared.bounds[start:stop]
    for first, last in cut_blocks(bounds, max_rows=max_rows, max_entries=max_entries):
        rows = np.arange(start + first, start + last)
        yield start + first, of_rows(shared, rows)


def of_rows(shared: SharedUsers, rows: NDArray[np.int64]) -> scipy.sparse.csr_array:
    """C of some rows, sparse (len(rows), restaurants) doubles; columns in no order."""
    by_restaurant = shared.by_restaurant
    starts, stops = by_restaurant.indptr[rows], by_restaurant.indptr[rows + 1]
    indptr = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(stops - starts, out=indptr[1:])
    guests = np.concatenate(
        [by_restaurant.users[a:b] for a, b in zip(starts, stops, strict=True)] or [_NOBODY]
    )
    users = np.sort(guests)
    users = users[np.flatnonzero(np.diff(users, prepend=-1))]
    position = np.empty(len(shared.degrees), np.int32)
    position[users] = np.arange(len(users))
    left = scipy.sparse.csr_array(
        (shared.weights[guests], position[guests], indptr), shape=(len(rows), len(users))
    )
    return _product(left, shared, users)


_NOBODY = np.empty(0, np.int32)


def _product(
    left: scipy.sparse.csr_array, shared: SharedUsers, users: NDArray[np.int32]
) -> scipy.sparse.csr_array:
    """left (rows x users) times those users' interactions, at most len(ones) of them at a time."""
    matrix, degrees = shared.matrix, shared.degrees[users]
    restaurants = len(matrix.restaurant_ids)
    total = scipy.sparse.csr_array((left.shape[0], restaurants), dtype=np.float64)
    for start, stop in cut_blocks(degrees, max_rows=len(users), max_entries=len(shared.ones)):
        indptr, places = pick_rows(matrix.indptr, users[start:stop])
        right = scipy.sparse.csr_array(
            (shared.ones[: len(places)], matrix.restaurants[places], indptr.astype(np.int32)),
            shape=(stop - start, restaurants),
        )
        if stop - start == len(users):
            return left @ right
        total = total + left[:, start:stop] @ right
    return total


def _entry_bounds(
    matrix: InteractionMatrix, degrees: NDArray[np.int64], chunk: int
) -> NDArray[np.int64]:
    restaurants = len(matrix.restaurant_ids)
    bounds = np.zeros(restaurants, np.float64)
    for start, stop in cut_blocks(degrees, max_rows=len(degrees), max_entries=chunk):
        bounds += np.bincount(
            matrix.restaurants[matrix.indptr[start] : matrix.indptr[stop]],
            weights=np.repeat(degrees[start:stop], degrees[start:stop]),
            minlength=restaurants,
        )
    return np.minimum(bounds, restaurants).astype(np.int64)


def save_shared_users(shared: SharedUsers, folder: Path) -> None:
    """folder: holds the matrix and its transposed form (`array_files.py`)."""
    for name in ("degrees", "weights", "bounds"):
        save_array(folder / f"shared-{name}", getattr(shared, name))
    save_array(folder / "shared-chunk", np.array([len(shared.ones)]))


def load_shared_users(folder: Path) -> SharedUsers:
    """What `save_shared_users` wrote, mapped."""
    return SharedUsers(
        matrix=load_matrix(folder),
        by_restaurant=load_transposed(folder),
        degrees=load_array(folder / "shared-degrees"),
        weights=load_array(folder / "shared-weights"),
        bounds=load_array(folder / "shared-bounds"),
        ones=np.ones(int(load_array(folder / "shared-chunk")[0]), np.float64),
    )
