"""Scores and histories -> the list parts of a snapshot: users, lists, popular, similar.

A user's record holds heads: for_you and discover up to `head_length` ids, order_again whole. The
API completes the heads from the popular lists, so a head need not be padded here
(docs/snapshot-format.md). Rows of the matrix become ordinals of the snapshot here: inactive
restaurants have rows, because their orders tell about taste, but no ordinal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import (
    KIND_POPULAR,
    KIND_SIMILAR,
    SOURCE_NONE,
    SOURCE_PERSONAL,
    SOURCE_PREFERENCES,
    ListsWriter,
    ordinal_width,
    write_ragged,
    write_restaurants,
    write_users,
)
from worker.extract import Taste, UserColumns
from worker.ranking import blend, popularity
from worker.ranking.item_model import ItemGraph, similar
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import score_users

LIST_IDS = 200
SIMILAR_IDS = 50


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All restaurants in matrix rows, the inactive ones too; arrays of shape (restaurants,)."""

    ids: NDArray[np.int64]
    cities: NDArray[np.uint16]
    is_active: NDArray[np.bool_]
    cuisines: list[str | None]
    price_ranges: NDArray[np.uint8]

    @property
    def ordinals(self) -> NDArray[np.int64]:
        """Row -> ordinal; meaningless for inactive rows."""
        return np.cumsum(self.is_active) - 1

    @property
    def width(self) -> int:
        return ordinal_width(int(np.count_nonzero(self.is_active)))


@dataclass(frozen=True, slots=True)
class UserCounts:
    """How many users have a list of their own, by what it rests on."""

    personal: int
    preferences: int
    personal_of_five: int
    """Users with orders at five or more restaurants whose list is personal."""
    five: int
    """Users with orders at five or more restaurants."""


def write_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Writes the part `restaurants`."""
    active = catalogue.is_active
    with (folder / "restaurants").open("wb") as file:
        write_restaurants(
            file,
            ids=np.ascontiguousarray(catalogue.ids[active]).data,
            cities=np.ascontiguousarray(catalogue.cities[active]).data,
        )


def write_popular(
    scores: NDArray[np.float32], catalogue: Catalogue, cities: int, folder: Path
) -> None:
    """Writes the part `popular`: everywhere, then a row for each of the city codes 1..cities-1."""
    everywhere = popularity.rank(scores, is_candidate=catalogue.is_active)
    by_city = popularity.rank_by_city(scores, catalogue.cities, is_candidate=catalogue.is_active)
    empty = np.empty(0, np.int32)
    rows = [everywhere, *(by_city.get(code, empty) for code in range(1, cities))]
    _write_rows(rows, catalogue, folder / "popular", kind=KIND_POPULAR)


def write_similar(graph: ItemGraph, catalogue: Catalogue, folder: Path) -> None:
    """Writes the part `similar` of the active restaurants."""
    neighbours, lengths = similar(graph, k=SIMILAR_IDS)
    rows = [neighbours[row, : lengths[row]] for row in np.flatnonzero(catalogue.is_active).tolist()]
    _write_rows(rows, catalogue, folder / "similar", kind=KIND_SIMILAR)


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


def _write_rows(
    rows: Iterable[NDArray[np.int32]], catalogue: Catalogue, path: Path, *, kind: int
) -> None:
    form = np.dtype("<u2" if catalogue.width == 2 else "<u4")
    ordinals = catalogue.ordinals.astype(form)
    packed = [ordinals[row] for row in rows]
    offsets = np.zeros(len(packed) + 1, np.uint32)
    np.cumsum([len(row) for row in packed], out=offsets[1:])
    whole = np.concatenate(packed) if packed else np.empty(0, form)
    with path.open("wb") as file:
        write_ragged(
            file, kind=kind, offsets=offsets.data, ordinals=whole.data, width=catalogue.width
        )
