"""Scores -> the list parts of a snapshot that are the same for everyone: popular, similar.

Rows of the matrix become ordinals of the snapshot here: inactive restaurants have rows, but no
ordinal, and stand in no list.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.format import KIND_POPULAR, KIND_SIMILAR, write_ragged
from worker.catalogue import Catalogue
from worker.ranking import popularity
from worker.ranking.item_model import ItemGraph, similar

SIMILAR_IDS = 50


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
