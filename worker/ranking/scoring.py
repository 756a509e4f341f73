"""Scores users against the item graph: what a history points to, best first.

    score(u, j) = sum_i 2^(-age(u, i) / half-life) P_ij     over the restaurants i of user u

A block of users is one sparse product; users times restaurants are never dense. Each user's
numbers depend on that user's history alone, so no block size changes them.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import _sparsetools

from worker.ranking import sort_keys
from worker.ranking.blocks import cut_blocks
from worker.ranking.decay import decay
from worker.ranking.item_model import ItemGraph
from worker.ranking.matrix import InteractionMatrix, user_degrees
from worker.ranking.ordered import run_ordered
from worker.ranking.ragged import pick_rows, sizes_of

RECENCY_HALF_LIFE_DAYS = 365.0
USER_BLOCK = 1024
_MAX_ENTRIES = 1 << 31
BLOCK_ENTRIES = 1 << 18
"""Scratch entries of a block, about 30 bytes each."""


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Row r holds `data` at the columns `indices`, both from `indptr[r]` to `indptr[r + 1]`."""

    indptr: NDArray[np.int64]
    """Shape (rows + 1,)."""
    indices: NDArray[np.int32]
    """Shape (entries,), each once a row, in any order."""
    data: NDArray[np.float32]

    def take(self, rows: NDArray[np.integer]) -> "SparseRows":
        """Some rows, in that order."""
        indptr, entries = pick_rows(self.indptr, rows)
        return SparseRows(indptr, self.indices[entries], self.data[entries])


@dataclass(frozen=True, slots=True)
class FilterRows:
    """Row r holds `values` at the columns `indices`, both from `indptr[r]` to `indptr[r + 1]`."""

    indptr: NDArray[np.int32]
    """Shape (rows + 1,)."""
    indices: NDArray[np.int32]
    """Restaurant rows, shape (entries,)."""
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RankedBlock:
    """Rankings of the users from row `first_user` on, best first, equal scores by row."""

    first_user: int
    rows: NDArray[np.int32]
    """Restaurant rows, shape (users, n), -1 behind a user's length."""
    scores: NDArray[np.float32]
    """Shape (users, n), above zero, 0 behind a user's length."""
    lengths: NDArray[np.int32]
    """Shape (users,)."""


def score_users(
    matrix: InteractionMatrix,
    graph: ItemGraph,
    *,
    n: int,
    half_life_days: float = RECENCY_HALF_LIFE_DAYS,
    has_seen: bool = False,
    user_block: int = USER_BLOCK,
    block_entries: int = BLOCK_ENTRIES,
    executor: Executor | None = None,
    ahead: int = 4,
) -> Iterator[RankedBlock]:
    """Yields the n best restaurants with a score above zero of every user, block after block.

    half_life_days: of what an interaction's age leaves of its weight; infinite for equal weights.
    has_seen: whether restaurants of the user's own history may be among them.
    executor, ahead: threads of this process, and the blocks that they may be ahead of the taker.
    """
    filtered = filter_rows(graph, has_seen=has_seen)

    def ranked(start: int, stop: int) -> RankedBlock:
        scored = score_histories(matrix, start, stop, filtered, half_life_days=half_life_days)
        return _rank(scored, start, n)

    cuts = cut_users(matrix, graph, user_block=user_block, block_entries=block_entries)
    if executor is None:
        yield from itertools.starmap(ranked, cuts)
    else:
        yield from run_ordered(executor, ranked, cuts, ahead=ahead)


def cut_users(
    matrix: InteractionMatrix, graph: ItemGraph, *, user_block: int, block_entries: int
) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of blocks of users whose scores hold to both bounds."""
    if len(matrix.user_ids) == 1:
        return iter([(0, 1)])
    bounds = entry_bounds(matrix, graph)
    return cut_blocks(bounds, max_rows=user_block, max_entries=block_entries)


def entry_bounds(matrix: InteractionMatrix, graph: ItemGraph) -> NDArray[np.int64]:
    """At most how many restaurants each user's history points to, shape (users,)."""
    bounds = np.zeros(len(matrix.user_ids), np.int64)
    degrees = user_degrees(matrix)
    for start, stop in cut_blocks(degrees, max_rows=len(degrees), max_entries=BLOCK_ENTRIES):
        offsets = matrix.indptr[start : stop + 1]
        rows = matrix.restaurants[offsets[0] : offsets[-1]]
        bounds[start:stop] = _reach(offsets - offsets[0], rows, graph.indptr)
    return np.minimum(bounds, len(graph.indptr) - 1, out=bounds)


def filter_rows(graph: ItemGraph, *, has_seen: bool) -> FilterRows:
    """What histories are multiplied with: -inf where a restaurant meets itself, or 0 (has_seen)."""
    values = graph.values
    if has_seen:
        values = values.copy()
        values[graph.indptr[:-1]] = 0
    return FilterRows(graph.indptr.astype(np.int32), graph.indices, values)


def score_histories(
    matrix: InteractionMatrix,
    start: int,
    stop: int,
    filtered: FilterRows,
    *,
    places: NDArray[np.int32] | None = None,
    half_life_days: float = RECENCY_HALF_LIFE_DAYS,
) -> SparseRows:
    """What the weighted histories of some users point to, to the bit what SciPy's product gives.

    places: which row of the filter belongs to each interaction of these users, where it is not
    that of the restaurant. For few users, most of the time of SciPy's product goes into checks
    of what is known here, and into counting what has a bound.
    """
    first, last = matrix.indptr[start], matrix.indptr[stop]
    ages = matrix.as_of_day - matrix.newest_days[first:last].astype(np.int64)
    indptr = matrix.indptr[start : stop + 1] - first
    if places is None:
        places = matrix.restaurants[first:last]
    restaurants = len(matrix.restaurant_ids)
    reach = np.minimum(_reach(indptr, places, filtered.indptr), restaurants)
    size = int(reach.sum())
    assert size < _MAX_ENTRIES, "a block has as many entries as it was cut for"
    ends = np.empty(stop - start + 1, np.int32)
    # Pages that are not written to cost nothing.
    columns, sums = np.empty(size, np.int32), np.empty(size, np.float32)
    _sparsetools.csr_matmat(
        *(stop - start, restaurants),
        *(indptr.astype(np.int32), places, decay(ages, half_life_days=half_life_days)),
        *(filtered.indptr, filtered.indices, filtered.values),
        *(ends, columns, sums),
    )
    return SparseRows(ends.astype(np.int64), columns[: ends[-1]], sums[: ends[-1]])


def _reach(
    indptr: NDArray[np.int64], rows: NDArray[np.int32], begins: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Sums of row lengths, shape (users,): user u has the rows at `indptr[u]:indptr[u + 1]`.

    begins: where each row begins and the last ends.
    """
    reached = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(begins[1:].take(rows) - begins.take(rows), out=reached[1:])
    return sizes_of(reached.take(indptr))


def _rank(scored: SparseRows, first_user: int, n: int) -> RankedBlock:
    users = len(scored.indptr) - 1
    keys = sort_keys.pack(scored.data, scored.indices)
    chosen = np.full((users, n), sort_keys.NOTHING)
    for user, (start, stop) in enumerate(itertools.pairwise(scored.indptr.tolist())):
        best = sort_keys.best(keys[start:stop], n)
        chosen[user, : len(best)] = best
    is_ranked = sort_keys.is_positive(chosen)
    chosen[~is_ranked] = sort_keys.NOTHING
    return RankedBlock(
        first_user=first_user,
        rows=sort_keys.rows_of(chosen),
        scores=sort_keys.scores_of(chosen),
        lengths=np.count_nonzero(is_ranked, axis=1).astype(np.int32),
    )
