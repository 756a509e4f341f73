"""Users' lists anew, by the model of a published snapshot: folded in, nothing is fitted.

A user whose orders are as they were gets exactly what the snapshot holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import (
    SOURCE_NONE,
    SOURCE_PERSONAL,
    SOURCE_PREFERENCES,
    UserLists,
    ordinal_width,
)
from worker.extract import Cities, taste_of
from worker.model_files import KeptModel, open_model
from worker.ranker import load_ranker, rank_scored
from worker.ranking.array_files import release_pages
from worker.ranking.fold_in import fold_in
from worker.ranking.held_rows import HeldRows
from worker.ranking.id_rows import index_ids, rows_of
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import SparseRows, cut_users, score_histories
from worker.refresher_reading import UserState
from worker.taste_lists import TasteRanking

USER_BLOCK = 8
BLOCK_ENTRIES = 1 << 17
"""Restaurants that the histories of a block point to, some 40 bytes each."""
HELD_BYTES = 16 << 20
"""Rows of the graph, for as long as they fit."""


@dataclass(frozen=True, slots=True)
class RefreshedLists:
    """`source` and `city` as the format has them."""

    source: int
    city: int
    lists: UserLists
    """Ordinals of the version."""


class Refresher:
    """The model of one version: some 0.2 ms a user of many, 0.6 ms of one alone."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where no model of this release is there."""
        self._kept: KeptModel = open_model(folder)
        self._ranker = load_ranker(folder)
        often = np.argsort(-self._kept.scores, kind="stable")
        self._held = HeldRows(folder, self._ranker.graph, often=often, max_bytes=HELD_BYTES)
        self._rows = index_ids(self._kept.restaurant_ids)
        is_active = self._ranker.surroundings.facts.is_candidate
        self._ordinals = (np.cumsum(is_active) - 1).astype(np.int64)
        self._cities = Cities.of(self._kept.cities)
        self._tastes: TasteRanking | None = None
        self.width = ordinal_width(int(np.count_nonzero(is_active)))
        """Bytes of an ordinal in the version."""

    def refresh(self, users: Sequence[UserState]) -> list[RefreshedLists]:
        """The lists of each user, without what the user hides.

        Orders at restaurants that the model does not know are left out.
        """
        matrix = self._matrix(users)
        cities = np.array([self._cities.find(user.city) for user in users], np.uint16)
        found: list[RefreshedLists] = []
        for start, stop in cut_users(
            matrix, self._ranker.graph, user_block=USER_BLOCK, block_entries=BLOCK_ENTRIES
        ):
            for_you, discover, again = rank_scored(
                self._ranker,
                matrix,
                self._scored(matrix, start, stop),
                cities[start:stop],
                start=start,
                n=self._kept.head_length,
            )
            for place in range(stop - start):
                lists = (
                    for_you.rows[place, : for_you.lengths[place]],
                    discover.rows[place, : discover.lengths[place]],
                    again.rows[again.indptr[place] : again.indptr[place + 1]],
                )
                user = users[start + place]
                found.append(self._refreshed(user, lists, city=int(cities[start + place])))
        return found

    def _matrix(self, users: Sequence[UserState]) -> InteractionMatrix:
        counts = [len(user.restaurant_ids) for user in users]
        rows, is_known = rows_of(np.concatenate([u.restaurant_ids for u in users]), self._rows)
        seconds = np.concatenate([user.epoch_seconds for user in users])
        return fold_in(
            np.repeat(np.arange(len(users)), counts)[is_known],
            rows[is_known].astype(np.int64),
            seconds[is_known],
            count=len(users),
            restaurant_ids=self._kept.restaurant_ids,
            as_of_seconds=self._kept.as_of_seconds,
        )

    def _scored(self, matrix: InteractionMatrix, start: int, stop: int) -> SparseRows:
        """What these histories point to; of the graph's mapped pages, none stay in memory."""
        restaurants = matrix.restaurants[matrix.indptr[start] : matrix.indptr[stop]]
        places = self._held.places_of(restaurants)
        if places is not None:
            return score_histories(matrix, start, stop, self._held.rows, places=places)
        scored = score_histories(matrix, start, stop, self._ranker.filtered)
        release_pages(self._ranker.graph.indices)
        release_pages(self._ranker.graph.values)
        return scored

    def _refreshed(
        self, user: UserState, lists: tuple[NDArray[np.int32], ...], *, city: int
    ) -> RefreshedLists:
        for_you, discover, again = lists
        if len(for_you) or len(again):
            source = SOURCE_PERSONAL
        elif user.has_orders or user.preferences is None:
            source = SOURCE_NONE
        else:
            taste = taste_of(user.preferences, self._cities)
            city = taste.city or city
            head = self._taste_ranking().head(taste, place=city, n=self._kept.head_length)
            source = SOURCE_PREFERENCES if len(head) else SOURCE_NONE
            for_you = discover = head
        shown = (self._shown(rows, user.hidden) for rows in (for_you, discover, again))
        return RefreshedLists(source, city, UserLists(*shown))

    def _shown(self, rows: NDArray[np.int32], hidden: frozenset[int]) -> list[int]:
        if hidden:
            ids = self._kept.restaurant_ids[rows]
            rows = rows[~np.isin(ids, np.fromiter(hidden, np.int64, len(hidden)))]
        ordinals: list[int] = self._ordinals[rows].tolist()
        return ordinals

    def _taste_ranking(self) -> TasteRanking:
        if self._tastes is None:
            kept, facts = self._kept, self._ranker.surroundings.facts
            self._tastes = TasteRanking(
                kept.scores,
                is_active=facts.is_candidate,
                cities=facts.city_codes,
                price_ranges=kept.price_ranges,
                cuisine_codes=kept.cuisine_codes,
                cuisine_names=kept.cuisine_names,
            )
        return self._tastes
