"""Scores and histories -> the parts of a snapshot that hold users: users, lists.

A user's record holds heads: for_you and discover up to `head_length` ids, order_again whole. The
API completes the heads from the popular lists, so a head need not be padded here
(docs/snapshot-format.md). Rows of the matrix become ordinals of the snapshot here: inactive
restaurants have rows, because their orders tell about taste, but no ordinal.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import (
    SOURCE_NONE,
    SOURCE_PERSONAL,
    SOURCE_PREFERENCES,
    ListsWriter,
    write_users,
)
from worker.catalogue import Catalogue
from worker.extract import Taste, UserColumns
from worker.ranking import blend, popularity
from worker.ranking.item_model import ItemGraph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import score_users

LIST_IDS = 200


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
    *,
    matrix: InteractionMatrix,
    graph: ItemGraph,
    catalogue: Catalogue,
    popular_scores: NDArray[np.float32],
    users: UserColumns,
    tastes: Mapping[int, Taste],
    head_length: int,
    user_block: int,
    block_entries: int,
    folder: Path,
    on_users: Callable[[int], None],
) -> UserCounts:
    """Writes the parts `lists` and `users`; tells `on_users` how many users are done."""
    count = len(users.ids)
    sources = np.zeros(count, np.uint8)
    offsets = np.zeros(count + 1, np.uint32)
    preferred = {
        int(np.searchsorted(users.ids, user_id)): taste for user_id, taste in tastes.items()
    }
    by_taste = _TasteLists(popular_scores, catalogue, head_length)
    restaurants = np.zeros(count, np.int64)
    with (folder / "lists").open("wb") as file:
        writer = ListsWriter(file, users=count, width=catalogue.width)
        for user, again, discover, restaurant_count in _heads(
            matrix,
            graph,
            catalogue,
            head_length=head_length,
            user_block=user_block,
            block_entries=block_entries,
        ):
            restaurants[user] = restaurant_count
            if again or discover:
                sources[user] = SOURCE_PERSONAL
                limit = head_length * catalogue.width
                offsets[user + 1] = writer.append((again + discover)[:limit], discover, again)
            elif user in preferred:
                head = by_taste.head(preferred[user], int(users.cities[user]))
                sources[user] = SOURCE_PREFERENCES if head else SOURCE_NONE
                offsets[user + 1] = writer.append(head, head, b"")
            else:
                offsets[user + 1] = writer.append(b"", b"", b"")
            if user % user_block == 0:
                on_users(user)
    with (folder / "users").open("wb") as file:
        write_users(
            file,
            ids=users.ids.data,
            offsets=offsets.data,
            cities=users.cities.data,
            sources=sources.data,
        )
    has_five = restaurants >= 5
    is_personal = sources == SOURCE_PERSONAL
    return UserCounts(
        personal=int(np.count_nonzero(is_personal)),
        preferences=int(np.count_nonzero(sources == SOURCE_PREFERENCES)),
        personal_of_five=int(np.count_nonzero(has_five & is_personal)),
        five=int(np.count_nonzero(has_five)),
    )


def _heads(
    matrix: InteractionMatrix,
    graph: ItemGraph,
    catalogue: Catalogue,
    *,
    head_length: int,
    user_block: int,
    block_entries: int,
) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Yields (user row, order_again, discover, interactions) with lists as packed ordinals."""
    kind = np.dtype("<u2" if catalogue.width == 2 else "<u4")
    ordinals = catalogue.ordinals.astype(kind)
    width = catalogue.width
    for block in score_users(
        matrix, graph, n=head_length, user_block=user_block, block_entries=block_entries
    ):
        packed = ordinals[block.rows].tobytes()
        stride = block.rows.shape[1] * width
        again = blend.order_again(
            matrix,
            first_user=block.first_user,
            users=len(block.lengths),
            is_candidate=catalogue.is_active,
        )
        again_packed = ordinals[again.rows].tobytes()
        starts = again.indptr.tolist()
        for number, length in enumerate(block.lengths.tolist()):
            user = block.first_user + number
            at = number * stride
            yield (
                user,
                again_packed[starts[number] * width : starts[number + 1] * width],
                packed[at : at + length * width],
                int(matrix.indptr[user + 1] - matrix.indptr[user]),
            )


class _TasteLists:
    """Popular restaurants that match a taste, those of the user's city first."""

    def __init__(self, scores: NDArray[np.float32], catalogue: Catalogue, head_length: int) -> None:
        self._rows = popularity.rank(scores, is_candidate=catalogue.is_active).tolist()
        self._catalogue = catalogue
        self._ordinals = catalogue.ordinals.tolist()
        self._code = "<u2" if catalogue.width == 2 else "<u4"
        self._head_length = head_length
        self._heads: dict[tuple[Taste, int], bytes] = {}

    def head(self, taste: Taste, city: int) -> bytes:
        """Packed ordinals; empty when nothing matches."""
        key = (taste, taste.city or city)
        if key not in self._heads:
            matching = [row for row in self._rows if self._matches(row, taste)]
            place = taste.city or city
            near = [row for row in matching if self._catalogue.cities[row] == place]
            chosen = near if near and place else matching
            head = [self._ordinals[row] for row in chosen[: self._head_length]]
            self._heads[key] = np.array(head, self._code).tobytes()
        return self._heads[key]

    def _matches(self, row: int, taste: Taste) -> bool:
        if taste.price_ranges and int(self._catalogue.price_ranges[row]) not in taste.price_ranges:
            return False
        if not taste.cuisines:
            return True
        kinds = (self._catalogue.cuisines[row] or "").casefold().split("|")
        return any(kind.strip() in taste.cuisines for kind in kinds)
