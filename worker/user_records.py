"""The task that ranks a block of users and packs their records for the part `lists`.

Everything it needs lies in the files of one folder, so that it runs in any thread or process that
sees the folder. A user's record is made of that user's history alone: no block changes a byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES
from worker.ranker import load_ranker, rank_users
from worker.ranking.array_files import load_fields, load_matrix
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.ragged import spans
from worker.ranking.scoring import (
    RankedBlock,
)
from worker.taste_lists import NO_HEAD


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a block of users, one after the other."""

    packed: NDArray[np.unsignedinteger]
    """In ordinals of the part's width."""
    sizes: NDArray[np.int64]
    """Ordinals of each record, shape (users,)."""
    sources: NDArray[np.uint8]
    """Shape (users,), SOURCE constants of the format."""


@dataclass(frozen=True, slots=True)
class UserTask:
    """What a block of users is ranked with, beside the matrices; arrays as in the snapshot."""

    head_length: int
    width: int
    ordinals: NDArray[np.int64]
    """Row -> ordinal, meaningless for inactive rows, shape (restaurants,)."""
    user_cities: NDArray[np.uint16]
    """Shape (users,)."""
    head_of_user: NDArray[np.int32]
    head_indptr: NDArray[np.int64]
    head_rows: NDArray[np.int32]
    """Heads for users without orders, as `taste_heads` returns them."""


def rank_blocks(folder: Path, cuts: Sequence[tuple[int, int]]) -> Records:
    """The task: records of blocks that follow each other, (start, stop) of rows each."""
    parts = [rank_block(folder, start, stop) for start, stop in cuts]
    return Records(
        packed=np.concatenate([part.packed for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        sources=np.concatenate([part.sources for part in parts]),
    )


def rank_block(folder: Path, start: int, stop: int) -> Records:
    """Records of the users from row `start` to `stop`."""
    ranker = load_ranker(folder)
    matrix, task = load_block_inputs(folder)
    cities = task.user_cities[start:stop]
    for_you, discover, again = rank_users(ranker, matrix, cities, start=start, n=task.head_length)
    repeats = np.diff(again.indptr)
    is_personal = (for_you.lengths > 0) | (repeats > 0)
    heads = np.where(is_personal, NO_HEAD, task.head_of_user[start:stop])
    sources = np.where(is_personal, SOURCE_PERSONAL, SOURCE_NONE).astype(np.uint8)
    sources[heads != NO_HEAD] = SOURCE_PREFERENCES
    tasted = np.where(
        heads == NO_HEAD, 0, task.head_indptr[heads + 1] - task.head_indptr[np.maximum(heads, 0)]
    )
    first, second = for_you.lengths + tasted, discover.lengths + tasted
    sizes = 2 + first + second + repeats
    ends = np.cumsum(sizes)
    begins = ends - sizes
    packed = np.empty(int(sizes.sum()), "<u2" if task.width == 2 else "<u4")
    packed[begins] = first
    packed[begins + 1] = second
    ordinals = task.ordinals.astype(packed.dtype)
    _place(packed, begins + 2, for_you, ordinals)
    _place(packed, begins + 2 + first, discover, ordinals)
    packed[spans(ends - repeats, repeats)] = ordinals[again.rows]
    for user in np.flatnonzero(heads != NO_HEAD):
        head = task.head_rows[task.head_indptr[heads[user]] : task.head_indptr[heads[user] + 1]]
        packed[begins[user] + 2 : ends[user]] = np.tile(ordinals[head], 2)
    return Records(packed=packed, sizes=sizes, sources=sources)


@lru_cache(maxsize=1)
def load_block_inputs(folder: Path) -> tuple[InteractionMatrix, UserTask]:
    """Mapped once for all blocks of a process."""
    return load_matrix(folder), load_fields(folder, "users", UserTask)


def release_histories() -> None:
    """Unmaps the histories once the blocks that use them are done; mapped pages count as memory."""
    load_block_inputs.cache_clear()
    load_matrix.cache_clear()


def _place(
    packed: NDArray[np.unsignedinteger],
    begins: NDArray[np.int64],
    block: RankedBlock,
    ordinals: NDArray[np.unsignedinteger],
) -> None:
    places = begins[:, None] + np.arange(block.rows.shape[1])
    is_ranked = block.rows >= 0
    packed[places[is_ranked]] = ordinals[block.rows[is_ranked]]
