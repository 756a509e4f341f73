"""What turns histories into lists: the item filter, the surroundings and the weights of the blend.

All of it lies in the files of one folder and is mapped, so that blocks in any thread or process,
and later the refresh of one user, rank by the same bytes.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.ranking.array_files import load_array, load_fields, save_array, save_fields
from worker.ranking.blend import blend_block
from worker.ranking.blend_weights import BlendWeights
from worker.ranking.history import History
from worker.ranking.item_model import ItemGraph, load_graph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.nearness import Places
from worker.ranking.scoring import (
    FilterRows,
    RankedBlock,
    SparseRows,
    filter_rows,
    score_histories,
)
from worker.ranking.surroundings import RestaurantFacts, Surroundings

_SURROUNDING_ARRAYS = ("guests", "head_indptr", "heads", "nearby", "cuisine_shares")


@dataclass(frozen=True, slots=True)
class Ranker:
    """What ranks users by their histories, mapped from files."""

    graph: ItemGraph
    filtered: FilterRows
    """The graph as histories are multiplied with it."""
    surroundings: Surroundings
    weights: BlendWeights


def save_surroundings(surroundings: Surroundings, weights: BlendWeights, folder: Path) -> None:
    save_fields(folder, "facts", surroundings.facts)
    save_fields(folder, "places", surroundings.places)
    for name in _SURROUNDING_ARRAYS:
        save_array(folder / f"surroundings-{name}", getattr(surroundings, name))
    save_fields(folder, "weights", weights)


def replace_weights(weights: BlendWeights, folder: Path) -> None:
    """Other weights for a model that is there already."""
    save_fields(folder, "weights", weights)
    load_ranker.cache_clear()


@lru_cache(maxsize=1)
def load_ranker(folder: Path) -> Ranker:
    """What `save_surroundings` and the fit of the filter wrote; mapped once in a process."""
    arrays = {name: load_array(folder / f"surroundings-{name}") for name in _SURROUNDING_ARRAYS}
    graph = load_graph(folder)
    return Ranker(
        graph=graph,
        filtered=filter_rows(graph, has_seen=False),
        surroundings=Surroundings(
            facts=load_fields(folder, "facts", RestaurantFacts),
            places=load_fields(folder, "places", Places),
            **arrays,
        ),
        weights=load_fields(folder, "weights", BlendWeights),
    )


def rank_users(
    ranker: Ranker, matrix: InteractionMatrix, cities: NDArray[np.uint16], *, start: int, n: int
) -> tuple[RankedBlock, RankedBlock, History]:
    """(for_you, discover, order_again) of the users of `matrix` from row `start` on.

    matrix: everybody's histories, or those of a few users. cities: codes, shape (users ranked,).
    """
    scored = score_histories(matrix, start, start + len(cities), ranker.filtered)
    return rank_scored(ranker, matrix, scored, cities, start=start, n=n)


def rank_scored(
    ranker: Ranker,
    matrix: InteractionMatrix,
    scored: SparseRows,
    cities: NDArray[np.uint16],
    *,
    start: int,
    n: int,
) -> tuple[RankedBlock, RankedBlock, History]:
    """The same where it is known what the histories point to. scored: of the users ranked."""
    return blend_block(
        matrix,
        scored,
        first_user=start,
        user_cities=cities,
        surroundings=ranker.surroundings,
        weights=ranker.weights,
        n=n,
    )
