"""Which form of the item-item filter suits the data, and its fit.

Little data carry no patterns worth finding: below `SHARPENED_FROM` interactions the plain graph
ranks better and takes a second. Beyond, patterns grow with the catalogue up to what the budget
allows.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.ranking.filter_terms import FilterParameters
from worker.ranking.item_filter import AHEAD, fit_item_filter
from worker.ranking.item_model import ItemGraph, fit_item_graph, save_graph
from worker.ranking.matrix import InteractionMatrix

MAX_RANK = 256
RESTAURANTS_A_PATTERN = 64
SHARPENED_FROM = 100_000
"""Interactions."""


def rank_for(*, restaurants: int, interactions: int) -> int:
    """Patterns that suit the data; 0 is the plain graph."""
    if interactions < SHARPENED_FROM:
        return 0
    return min(MAX_RANK, restaurants // RESTAURANTS_A_PATTERN)


def fit_discovery(
    matrix: InteractionMatrix,
    folder: Path,
    *,
    k: int,
    rank: int,
    executor: Executor,
    ahead: int = AHEAD,
    item_block: int,
    block_entries: int,
    is_candidate: NDArray[np.bool_] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> ItemGraph:
    """The filter of this data, mapped from files.

    folder: holds `matrix` as `save_matrix` writes it. k: entries a row, at most. rank: patterns, 0
    for the plain graph. The other parameters are those of `fit_item_filter` and `fit_item_graph`.
    """
    if rank == 0:
        graph = fit_item_graph(
            matrix,
            k=k,
            item_block=item_block,
            block_entries=block_entries,
            is_candidate=is_candidate,
        )
        return save_graph(graph, folder)
    return fit_item_filter(
        matrix,
        folder,
        k=k,
        executor=executor,
        ahead=ahead,
        parameters=FilterParameters(rank=rank),
        block_entries=block_entries,
        is_candidate=is_candidate,
        on_rows=on_rows,
    )
