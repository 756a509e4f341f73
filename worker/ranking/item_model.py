"""The item graph: which restaurants share their guests.

    P_ij = sum_u d_u^-cu / (d_i d_j)^c     over the users u of both i and j, without diagonal

d are degrees (distinct partners), cu = 0.7, c = 0.5: a cosine in which a user with a long history
says less about each pair. Each row keeps its k best entries, chosen by `P_ij d_j^0.2` (without that
nudge towards well-known restaurants the cut loses more than it saves), with the value P_ij.
The normalisation follows Deshpande & Karypis 2004 (ACM TOIS 22:1) and Park et al. 2024
(arXiv:2404.14243); there is nothing to train.

Rows are computed in blocks from the ids alone, exactly (`cooccurrence.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking import cooccurrence, sort_keys
from worker.ranking.array_files import load_array, map_raw, save_array
from worker.ranking.matrix import InteractionMatrix, restaurant_degrees

USER_EXPONENT = 0.7
DEGREE_EXPONENT = 0.5
CHOICE_EXPONENT = 0.2
ITEM_BLOCK = 256
BLOCK_ENTRIES = 1 << 18
"""Scratch entries of a block, about 50 bytes each."""

INDICES_FILE = "graph-indices"
VALUES_FILE = "graph-values"

SEEN = np.float32(-np.inf)
"""Value of each restaurant's entry for itself: a history times the graph marks what is in it."""


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
    shared = cooccurrence.shared_users(
        matrix, user_exponent=USER_EXPONENT, block_entries=block_entries
    )
    for start, block in cooccurrence.blocks(shared, max_rows=item_block, max_entries=block_entries):
        for row, neighbours, scores in _best_neighbours(block, start, k, scale, nudge):
            end = filled + 1 + len(neighbours)
            indices[filled], values[filled] = row, SEEN
            indices[filled + 1 : end], values[filled + 1 : end] = neighbours, scores
            indptr[row + 1] = filled = end
    indices.resize(filled, refcheck=False)
    values.resize(filled, refcheck=False)
    return ItemGraph(indptr=indptr, indices=indices, values=values)


def save_graph(graph: ItemGraph, folder: Path) -> ItemGraph:
    """Moves a graph to files; returns it mapped, so that the one in memory can be let go."""
    save_array(folder / "graph-indptr", graph.indptr)
    (folder / INDICES_FILE).write_bytes(graph.indices.data)
    (folder / VALUES_FILE).write_bytes(graph.values.data)
    return load_graph(folder)


def load_graph(folder: Path) -> ItemGraph:
    return ItemGraph(
        indptr=load_array(folder / "graph-indptr"),
        indices=map_raw(folder / INDICES_FILE, np.int32),
        values=map_raw(folder / VALUES_FILE, np.float32),
    )


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
