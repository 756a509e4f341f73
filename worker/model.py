"""The model of a run: everything that ranks a user, in the files of one folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.executors import Workers
from worker.memory import Plan
from worker.ranker import load_ranker, save_surroundings
from worker.ranking.array_files import load_matrix
from worker.ranking.blend_fit import FittedBlend, fit_blend
from worker.ranking.blend_weights import BlendWeights
from worker.ranking.discovery import fit_discovery
from worker.ranking.item_model import ItemGraph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.ragged import select_users
from worker.ranking.scoring import entry_bounds, score_histories
from worker.ranking.surroundings import RestaurantFacts, surround
from worker.user_records import load_block_inputs

MAX_FITTED_USERS = 2_000
MAX_FITTED_ENTRIES = 1 << 22
"""Restaurants that all their histories point to, about 16 bytes each."""


def fit_model(
    matrix: InteractionMatrix,
    folder: Path,
    *,
    facts: RestaurantFacts,
    weights: BlendWeights,
    plan: Plan,
    workers: Workers,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> ItemGraph:
    """Writes the model to `folder`, which holds `matrix` as `save_matrix` writes it.

    Returns the graph as the ranker of this process has it mapped.
    """
    fit_filter(
        matrix,
        folder,
        is_candidate=facts.is_candidate,
        plan=plan,
        workers=workers,
        on_rows=on_rows,
    )
    save_surroundings(surround(matrix, facts), weights, folder)
    del matrix
    release_models()
    return load_ranker(folder).graph


def fit_filter(
    matrix: InteractionMatrix,
    folder: Path,
    *,
    is_candidate: NDArray[np.bool_],
    plan: Plan,
    workers: Workers,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> ItemGraph:
    """The item filter alone, in the sizes of a plan; parameters as `fit_discovery` takes them."""
    return fit_discovery(
        matrix,
        folder,
        k=plan.k,
        rank=plan.rank,
        executor=workers.executor,
        ahead=workers.ahead,
        item_block=plan.item_block,
        block_entries=plan.block_entries,
        is_candidate=is_candidate,
        on_rows=on_rows,
    )


def release_models() -> None:
    """Unmaps what this process has mapped of models; mapped pages count as its memory."""
    for mapped in (load_ranker, load_matrix, load_block_inputs):
        mapped.cache_clear()


def fit_weights(
    model_folder: Path,
    histories: InteractionMatrix,
    *,
    targets: NDArray[np.int32],
    user_cities: NDArray[np.uint16],
) -> FittedBlend:
    """Weights of the blend that rank these users' next discoveries best.

    model_folder: a model of the orders before the targets. The other parameters are those of
    `fit_blend`; at most MAX_FITTED_USERS users, of whom some are left out where their histories
    point to more restaurants than memory should hold at once.
    """
    assert len(targets) <= MAX_FITTED_USERS
    ranker = load_ranker(model_folder)
    bounds = entry_bounds(histories, ranker.graph)
    step = -(-int(bounds.sum()) // MAX_FITTED_ENTRIES)
    if step > 1:
        users = np.arange(0, len(targets), step)
        histories = select_users(histories, users)
        targets, user_cities = targets[users], user_cities[users]
    return fit_blend(
        histories,
        score_histories(histories, 0, len(targets), ranker.filtered),
        targets=targets,
        user_cities=user_cities,
        surroundings=ranker.surroundings,
    )
