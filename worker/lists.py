"""Scores and histories -> the parts of a snapshot that hold users: users, lists.

A user's record holds heads: for_you and discover up to `head_length` ids, order_again whole. The
API completes the heads from the popular lists, so a head need not be padded here
(docs/snapshot-format.md). Blocks of users are ranked by tasks and written in order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import (
    SOURCE_PERSONAL,
    SOURCE_PREFERENCES,
    ListsWriter,
    write_users,
)
from worker.executors import Workers
from worker.ranking.array_files import load_matrix, save_fields
from worker.ranking.item_model import ItemGraph
from worker.ranking.matrix import user_degrees
from worker.ranking.ordered import run_ordered
from worker.ranking.scoring import cut_users
from worker.user_records import UserTask, rank_blocks, release_histories

LIST_IDS = 200
SCORES_FOR_AN_ENTRY = 6
"""A score takes eight bytes, a scratch entry of a plan fifty; larger blocks cost less a user."""
BLOCKS_OF_A_TASK = 8
"""Blocks ranked one after the other by a task: handing over costs, on other machines most."""
TASKS_OF_A_MAPPING = 8
"""Tasks after which histories are mapped anew: those of users who are done go out of memory."""


@dataclass(frozen=True, slots=True)
class UserCounts:
    """How many users have a list of their own, by what it rests on."""

    personal: int
    preferences: int
    personal_of_five: int
    """Users with orders at five or more restaurants whose list is personal."""
    five: int
    """Users with orders at five or more restaurants."""


def write_user_lists(
    task: UserTask,
    *,
    graph: ItemGraph,
    model_folder: Path,
    workers: Workers,
    user_block: int,
    block_entries: int,
    folder: Path,
    on_users: Callable[[int], None],
) -> UserCounts:
    """Writes the parts `lists` and `users` to `folder`; tells `on_users` how many users are done.

    model_folder: holds the matrix, the graph and what `save_surroundings` writes.
    """
    save_fields(model_folder, "users", task)
    matrix = load_matrix(model_folder)
    count = len(matrix.user_ids)
    has_five = user_degrees(matrix) >= 5
    user_ids = np.array(matrix.user_ids)
    sources = np.zeros(count, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    cuts = list(
        cut_users(
            matrix,
            graph,
            user_block=user_block,
            block_entries=SCORES_FOR_AN_ENTRY * block_entries,
        )
    )
    del matrix
    batches = [
        cuts[first : first + BLOCKS_OF_A_TASK] for first in range(0, len(cuts), BLOCKS_OF_A_TASK)
    ]
    ranked = run_ordered(
        workers.executor,
        rank_blocks,
        ((model_folder, batch) for batch in batches),
        ahead=workers.ahead,
    )
    with (folder / "lists").open("wb") as file:
        writer = ListsWriter(file, users=count, width=task.width)
        for number, (batch, records) in enumerate(zip(batches, ranked, strict=True)):
            if number % TASKS_OF_A_MAPPING == 0:
                release_histories()
            start, stop = batch[0][0], batch[-1][1]
            writer.append_records(records.packed.data)
            sources[start:stop] = records.sources
            offsets[start + 1 : stop + 1] = records.sizes
            on_users(stop)
    np.cumsum(offsets, out=offsets)
    with (folder / "users").open("wb") as file:
        write_users(
            file,
            ids=user_ids.data,
            offsets=_plain(offsets.astype(np.uint32)),
            cities=_plain(task.user_cities),
            sources=sources.data,
        )
    is_personal = sources == SOURCE_PERSONAL
    return UserCounts(
        personal=int(np.count_nonzero(is_personal)),
        preferences=int(np.count_nonzero(sources == SOURCE_PREFERENCES)),
        personal_of_five=int(np.count_nonzero(has_five & is_personal)),
        five=int(np.count_nonzero(has_five)),
    )


def _plain(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).data
