"""Scores -> the list parts of a snapshot that know no user: popular, trending, new, similar.

Rows of the matrix become ordinals of the snapshot here: inactive restaurants have rows, but no
ordinal, and stand in no list. Nothing is stored twice: a reader goes on with `popular` where
`trending` ends (docs/snapshot-format.md).
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import (
    KIND_NEW,
    KIND_POPULAR,
    KIND_SIMILAR,
    KIND_TRENDING,
    write_ragged,
)
from worker.catalogue import Catalogue
from worker.ranking import popularity
from worker.ranking.activity import Activity
from worker.ranking.item_model import ItemGraph, similar

SIMILAR_IDS = 50
TRENDING_IDS = 200


def write_public_lists(
    scores: NDArray[np.float32],
    activity: Activity,
    catalogue: Catalogue,
    *,
    cities: int,
    folder: Path,
) -> None:
    """Writes the parts `popular`, `trending` and `new`.

    Each has a row for everywhere, then one for each of the city codes 1..cities-1. Rows of
    `trending` hold TRENDING_IDS at most, those of the others all restaurants.
    """
    active = catalogue.is_active
    rankings = {
        "popular": (KIND_POPULAR, popularity.rank(scores, is_candidate=active), None),
        "trending": (
            KIND_TRENDING,
            popularity.rank_growing(activity, scores, is_candidate=active),
            TRENDING_IDS,
        ),
        "new": (
            KIND_NEW,
            popularity.rank_newest(
                activity, catalogue.created_seconds, scores, is_candidate=active
            ),
            None,
        ),
    }
    empty = np.empty(0, np.int32)
    for name, (kind, ranked, limit) in rankings.items():
        by_city = popularity.split_by_city(ranked, catalogue.cities)
        rows = [ranked, *(by_city.get(code, empty) for code in range(1, cities))]
        _write_rows([row[:limit] for row in rows], catalogue, folder / name, kind=kind)


def write_similar(
    graph: ItemGraph, scores: NDArray[np.float32], catalogue: Catalogue, folder: Path
) -> None:
    """Writes the part `similar` of the active restaurants.

    One that shares no guest with another has the popular ones of its city that have a cuisine in
    common with it.
    """
    neighbours, lengths = similar(graph, k=SIMILAR_IDS)
    of_kind = _SameKind(scores, catalogue)
    rows = []
    for row in np.flatnonzero(catalogue.is_active).tolist():
        known = neighbours[row, : lengths[row]]
        known = known[catalogue.is_active[known]]
        rows.append(known if len(known) else of_kind.of(row))
    _write_rows(rows, catalogue, folder / "similar", kind=KIND_SIMILAR)


class _SameKind:
    """The most popular restaurants of each city and cuisine, collected at the first question."""

    def __init__(self, scores: NDArray[np.float32], catalogue: Catalogue) -> None:
        self._scores = scores
        self._catalogue = catalogue
        self._best: dict[tuple[int, str], list[int]] | None = None
        self._places: dict[int, int] = {}

    def of(self, row: int) -> NDArray[np.int32]:
        """Up to SIMILAR_IDS others with a cuisine of this one's in its city, popular ones first."""
        if self._best is None:
            self._best = self._collected()
        others = {other for key in self._keys(row) for other in self._best[key]} - {row}
        return np.array(sorted(others, key=self._places.__getitem__)[:SIMILAR_IDS], np.int32)

    def _collected(self) -> dict[tuple[int, str], list[int]]:
        best: dict[tuple[int, str], list[int]] = defaultdict(list)
        ranked = popularity.rank(self._scores, is_candidate=self._catalogue.is_active)
        for place, row in enumerate(ranked.tolist()):
            for key in self._keys(row):
                if len(best[key]) <= SIMILAR_IDS:  # one more: a restaurant is not like itself
                    best[key].append(row)
                    self._places[row] = place
        return best

    def _keys(self, row: int) -> set[tuple[int, str]]:
        cuisines = (self._catalogue.cuisines[row] or "").casefold().split("|")
        city = int(self._catalogue.cities[row])
        return {(city, name) for cuisine in cuisines if (name := cuisine.strip())}


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
