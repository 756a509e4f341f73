"""The model of a run: everything that ranks a user, in the files of one folder."""

from collections.abc import Callable
from pathlib import Path

from worker.executors import Workers
from worker.memory import Plan
from worker.ranker import save_surroundings
from worker.ranking.blend_weights import BlendWeights
from worker.ranking.discovery import fit_discovery
from worker.ranking.item_model import ItemGraph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.surroundings import RestaurantFacts, surround


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
    """Writes the model to `folder`, which holds `matrix` as `save_matrix` writes it."""
    graph = fit_discovery(
        matrix,
        folder,
        k=plan.k,
        rank=plan.rank,
        executor=workers.executor,
        item_block=plan.item_block,
        block_entries=plan.block_entries,
        is_candidate=facts.is_candidate,
        on_rows=on_rows,
    )
    save_surroundings(surround(matrix, facts), weights, folder)
    return graph
