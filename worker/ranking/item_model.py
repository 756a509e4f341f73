"""The item graph: which restaurants share their guests.

    P_ij = sum_u d_u^-cu / (d_i d_j)^c     over the users u of both i and j, without diagonal

d are degrees (distinct partners), cu = 0.7, c = 0.5: a cosine in which a user with a long history
says less about each pair. Each row keeps its k best entries, chosen by `P_ij d_j^0.2` (without that
nudge towards well-known restaurants the cut loses more than it saves), with the value P_ij.
The normalisation follows Deshpande & Karypis 2004 (ACM TOIS 22:1) and Park et al. 2024
(arXiv:2404.14243); there is nothing to train.

Rows are computed in blocks from the ids alone. User weights are multiples of 2^-30 and their sums
doubles, hence exact: no block size, no order of users and no number of workers changes a bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking import sort_keys
from worker.ranking.blocks import cut_blocks
from worker.ranking.matrix import (
    InteractionMatrix,
    restaurant_degrees,
    transpose,
    user_degrees,
)

USER_EXPONENT = 0.7
DEGREE_EXPONENT = 0.5
CHOICE_EXPONENT = 0.2
ITEM_BLOCK = 256
BLOCK_ENTRIES = 1 << 18
"""Scratch entries of a block, about 50 bytes each."""

SEEN = np.float32(-np.inf)
"""Value of each restaurant's entry for itself: a history times the graph marks what is in it."""

_WEIGHT_UNIT = 2.0**-30


@dataclass(frozen=True, slots=True)
class ItemGraph:
    """Row i at `indptr[i]:indptr[i + 1]`: first i itself with SEEN, then at most k neighbours.

    Eight bytes an entry. Neighbours ascend by row.
    """

    indptr: NDArray[np.int64]
    """Shape (restaurants + 1,)."""
    indices: NDArray[np.int32]
    """Restaurant rows, shape (entries,)."""
    values: NDArray[np.float32]
    """Shape (entries,), unitless, above zero but for SEEN."""


def fit_item_graph(
    matrix: InteractionMatrix,
    *,
    k: int,
    item_block: int = ITEM_BLOCK,
    block_entries: int = BLOCK_ENTRIES,
    is_candidate: NDArray[np.bool_] | None = None,
) -> ItemGraph:
    """The k best neighbours of every restaurant.

    item_block, block_entries: restaurants computed at a time, and pairs of restaurants, at most.
    is_candidate: which restaurants may be neighbours, shape (restaurants,); all when None. The
    others keep their row: what was ordered there still says what to order elsewhere.
    """
    restaurants = len(matrix.restaurant_ids)
    degrees = restaurant_degrees(matrix).astype(np.float64)
    np.maximum(degrees, 1, out=degrees)
    scale = degrees**-DEGREE_EXPONENT
    nudge = (degrees**CHOICE_EXPONENT).astype(np.float32)
    if is_candidate is not None:
        nudge *= is_candidate
    # Pages not written to cost nothing, so room for the worst case is cut off at the end.
    indptr = np.zeros(restaurants + 1, np.int64)
    indices = np.empty(restaurants * (k + 1), np.int32)
    values = np.empty(restaurants * (k + 1), np.float32)
    filled = 0
    for start, block in _shared_guests(matrix, item_block, block_entries):
        for row, neighbours, scores in _best_neighbours(block, start, k, scale, nudge):
            end = filled + 1 + len(neighbours)
            indices[filled], values[filled] = row, SEEN
            indices[filled + 1 : end], values[filled + 1 : end] = neighbours, scores
            indptr[row + 1] = filled = end
    indices.resize(filled, refcheck=False)
    values.resize(filled, refcheck=False)
    return ItemGraph(indptr=indptr, indices=indices, values=values)


def similar(graph: ItemGraph, *, k: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The k best neighbours of each restaurant by P_ij, equal scores by row.

    Returns (rows, lengths): shape (restaurants, k), filled with -1 behind the length, and
    (restaurants,).
    """
    restaurants = len(graph.indptr) - 1
    rows = np.full((restaurants, k), -1, np.int32)
    lengths = np.zeros(restaurants, np.int32)
    for restaurant in range(restaurants):
        neighbours = slice(graph.indptr[restaurant] + 1, graph.indptr[restaurant + 1])
        keys = sort_keys.pack(graph.values[neighbours], graph.indices[neighbours])
        best = sort_keys.best(keys, k)
        rows[restaurant, : len(best)] = sort_keys.rows_of(best)
        lengths[restaurant] = len(best)
    return rows, lengths


def _shared_guests(
    matrix: InteractionMatrix, item_block: int, block_entries: int
) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
    """Yields (first row, sum_u d_u^-cu over shared users), sparse (block, restaurants) doubles."""
    by_restaurant = transpose(matrix)
    degrees = user_degrees(matrix)
    weights = np.maximum(degrees, 1).astype(np.float64) ** -USER_EXPONENT
    weights = np.rint(weights / _WEIGHT_UNIT) * _WEIGHT_UNIT
    position = np.empty(len(degrees), np.int32)
    chunk = max(2 * block_entries, int(degrees.max(initial=0)))
    ones = np.ones(min(chunk, len(matrix.restaurants)), np.float64)
    bounds = _entry_bounds(matrix, degrees, chunk)
    for start, stop in cut_blocks(bounds, max_rows=item_block, max_entries=block_entries):
        first, last = by_restaurant.indptr[start], by_restaurant.indptr[stop]
        guests = by_restaurant.users[first:last]
        users = np.sort(guests)
        users = users[np.flatnonzero(np.diff(users, prepend=-1))]
        position[users] = np.arange(len(users))
        left = scipy.sparse.csr_array(
            (
                weights[guests],
                position[guests],
                (by_restaurant.indptr[start : stop + 1] - first).astype(np.int32),
            ),
            shape=(stop - start, len(users)),
        )
        yield start, _product(left, matrix, users, degrees[users], ones)


def _product(
    left: scipy.sparse.csr_array,
    matrix: InteractionMatrix,
    users: NDArray[np.int32],
    degrees: NDArray[np.int64],
    ones: NDArray[np.float64],
) -> scipy.sparse.csr_array:
    """left (rows x users) times those users' interactions, at most len(ones) of them at a time."""
    restaurants = len(matrix.restaurant_ids)
    total = scipy.sparse.csr_array((left.shape[0], restaurants), dtype=np.float64)
    for start, stop in cut_blocks(degrees, max_rows=len(users), max_entries=len(ones)):
        indptr = np.zeros(stop - start + 1, np.int64)
        np.cumsum(degrees[start:stop], out=indptr[1:])
        places = np.repeat(matrix.indptr[users[start:stop]] - indptr[:-1], degrees[start:stop])
        places += np.arange(len(places))
        right = scipy.sparse.csr_array(
            (ones[: len(places)], matrix.restaurants[places], indptr.astype(np.int32)),
            shape=(stop - start, restaurants),
        )
        if stop - start == len(users):
            return left @ right
        total = total + left[:, start:stop] @ right
    return total


def _entry_bounds(
    matrix: InteractionMatrix, degrees: NDArray[np.int64], chunk: int
) -> NDArray[np.int64]:
    """At most how many restaurants share a user with each one, shape (restaurants,)."""
    restaurants = len(matrix.restaurant_ids)
    bounds = np.zeros(restaurants, np.float64)
    for start, stop in cut_blocks(degrees, max_rows=len(degrees), max_entries=chunk):
        bounds += np.bincount(
            matrix.restaurants[matrix.indptr[start] : matrix.indptr[stop]],
            weights=np.repeat(degrees[start:stop], degrees[start:stop]),
            minlength=restaurants,
        )
    return np.minimum(bounds, restaurants).astype(np.int64)


def _best_neighbours(
    block: scipy.sparse.csr_array,
    start: int,
    k: int,
    scale: NDArray[np.float64],
    nudge: NDArray[np.float32],
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
    """Yields (row, neighbours ascending, P_ij) for each row of the block."""
    sizes = np.diff(block.indptr)
    own = np.arange(start, start + len(sizes), dtype=np.int32)
    columns = block.indices
    exact = block.data
    exact *= scale[columns]
    exact *= np.repeat(scale[own], sizes)
    scores = exact.astype(np.float32)
    choice = scores * nudge[columns]
    choice[columns == np.repeat(own, sizes)] = 0
    keys = sort_keys.pack(choice, columns)
    by_column = np.empty(len(scale), np.float32)
    for row, first, last in zip(own, block.indptr[:-1], block.indptr[1:], strict=True):
        best = sort_keys.best(keys[first:last], k)
        neighbours = sort_keys.rows_of(best[sort_keys.is_positive(best)])
        neighbours.sort()
        by_column[columns[first:last]] = scores[first:last]
        yield int(row), neighbours, by_column[neighbours]
