"""What was read and what was fitted -> all parts of a snapshot but the metadata."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.names import encode_names
from worker import lists, memory, public_lists
from worker.catalogue import write_catalogue
from worker.executors import Workers
from worker.inputs import Inputs
from worker.progress import Progress
from worker.ranking.item_model import ItemGraph
from worker.taste_lists import taste_heads, with_stated_cities
from worker.user_records import UserTask


@dataclass(frozen=True, slots=True)
class Ranked:
    """What lists are made of."""

    graph: ItemGraph
    scores: NDArray[np.float32]
    """Popularity, shape (restaurants,)."""
    plan: memory.Plan


def write_lists(
    found: Inputs,
    ranked: Ranked,
    *,
    model_folder: Path,
    workers: Workers,
    folder: Path,
    progress: Progress,
) -> lists.UserCounts:
    """Writes all parts but the metadata."""
    write_catalogue(found.catalogue, folder)
    (folder / "cities").write_bytes(encode_names(found.cities.names))
    public_lists.write_public_lists(
        ranked.scores,
        found.builder.activity,
        found.catalogue,
        cities=len(found.cities.names),
        folder=folder,
    )
    public_lists.write_similar(ranked.graph, ranked.scores, found.catalogue, folder)
    return lists.write_user_lists(
        _user_task(found, ranked.plan, ranked.scores),
        graph=ranked.graph,
        model_folder=model_folder,
        workers=workers,
        user_block=ranked.plan.user_block,
        block_entries=ranked.plan.block_entries,
        folder=folder,
        on_users=lambda done: progress.at(done / max(1, len(found.users.ids))),
    )


def _user_task(found: Inputs, plan: memory.Plan, scores: NDArray[np.float32]) -> UserTask:
    users = with_stated_cities(found.tastes, found.users)
    head_of_user, head_indptr, head_rows = taste_heads(
        found.tastes, users, scores, found.catalogue, head_length=plan.head_length
    )
    return UserTask(
        head_length=plan.head_length,
        width=found.catalogue.width,
        ordinals=found.catalogue.ordinals,
        user_cities=users.cities,
        head_of_user=head_of_user,
        head_indptr=head_indptr,
        head_rows=head_rows,
    )
