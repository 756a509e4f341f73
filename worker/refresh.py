"""One user's lists anew, by the model of a published snapshot: folded in, nothing is fitted.

A user whose orders are as they were gets exactly what the snapshot holds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.model_files import open_model
from worker.ranker import Ranker, load_ranker, rank_users
from worker.ranking.fold_in import fold_in
from worker.ranking.id_rows import IdRows, index_ids, rows_of


@dataclass(frozen=True, slots=True)
class RefreshedLists:
    """Restaurant ids, best first; each of shape (n,). `order_again` is whole."""

    for_you: NDArray[np.int64]
    discover: NDArray[np.int64]
    order_again: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Refresher:
    """The model of one version, mapped: about 0.5 ms a user."""

    ranker: Ranker
    rows: IdRows
    as_of_seconds: int
    head_length: int

    def refresh(
        self,
        *,
        restaurant_ids: NDArray[np.int64],
        epoch_seconds: NDArray[np.int64],
        city: int,
    ) -> RefreshedLists:
        """The lists of a user with these orders, two arrays of shape (orders,), and a city code.

        Orders at restaurants that the model does not know are left out.
        """
        rows, is_known = rows_of(restaurant_ids, self.rows)
        matrix = fold_in(
            rows[is_known].astype(np.int64),
            epoch_seconds[is_known],
            restaurant_ids=self.rows.ids,
            as_of_seconds=self.as_of_seconds,
        )
        for_you, discover, again = rank_users(
            self.ranker, matrix, np.array([city], np.uint16), start=0, n=self.head_length
        )
        return RefreshedLists(
            for_you=self._ids(for_you.rows[0]),
            discover=self._ids(discover.rows[0]),
            order_again=self._ids(again.rows),
        )

    def _ids(self, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self.rows.ids[rows[rows >= 0]]
        return ids


def open_refresher(home: Path, version: str) -> Refresher:
    """home: where models are kept. Raises OSError where that version's model is not there."""
    kept = open_model(home, version)
    return Refresher(
        ranker=load_ranker(home / version),
        rows=index_ids(kept.restaurant_ids),
        as_of_seconds=kept.as_of_seconds,
        head_length=kept.head_length,
    )
