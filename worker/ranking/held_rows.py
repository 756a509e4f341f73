"""The rows of a graph that histories used lately, copied out of its files.

A row that is read where it is mapped brings 64 KiB of its surroundings into memory: a process that
must stay small lets go of them after a few users, and then pays for the same pages again.
"""

import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.ranking.item_model import INDICES_FILE, VALUES_FILE, ItemGraph
from worker.ranking.scoring import FilterRows

ENTRY_BYTES = 8
_NOWHERE = -1


class HeldRows:
    """Full, it lets go of all its rows: those that many histories use are soon there again."""

    def __init__(self, folder: Path, graph: ItemGraph, *, max_bytes: int) -> None:
        """graph: the one that lies in the folder."""
        restaurants = len(graph.indptr) - 1
        entries = min(max_bytes // ENTRY_BYTES, len(graph.indices))
        self._graph = graph
        self._held = 0
        self._place_of = np.full(restaurants, _NOWHERE, np.int32)
        # Pages that are not written to cost nothing.
        self.rows = FilterRows(
            np.zeros(restaurants + 1, np.int32),
            np.empty(entries, np.int32),
            np.empty(entries, np.float32),
        )
        self._parts = []
        for name, array in ((INDICES_FILE, self.rows.indices), (VALUES_FILE, self.rows.values)):
            file = os.open(folder / name, os.O_RDONLY)
            weakref.finalize(self, os.close, file)
            self._parts.append((file, array.view(np.uint8).data, array.itemsize))

    def places_of(self, restaurants: NDArray[np.int32]) -> NDArray[np.int32] | None:
        """Which of `rows` is each restaurant's, until the next call; None where they do not fit.

        restaurants: rows of the graph, shape (n,), repeats allowed. Returns shape (n,).
        """
        places = self._place_of.take(restaurants)
        if places.min(initial=0) == _NOWHERE:
            if not self._read(set(restaurants[places == _NOWHERE].tolist())):
                self._place_of.fill(_NOWHERE)
                self._held = 0
                if not self._read(set(restaurants.tolist())):
                    return None
            places = self._place_of.take(restaurants)
        return places

    def _read(self, restaurants: set[int]) -> bool:
        """Whether there was room for them; without it, nothing is read."""
        begins = self._graph.indptr
        spans = [(each, int(begins[each]), int(begins[each + 1])) for each in restaurants]
        end = int(self.rows.indptr[self._held])
        if end + sum(stop - start for _, start, stop in spans) > len(self.rows.indices):
            return False
        for restaurant, start, stop in spans:
            first, end = end, end + stop - start
            for file, room, size in self._parts:
                read = os.preadv(file, [room[size * first : size * end]], size * start)
                assert read == size * (end - first), "a graph is as long as its index says"
            self._place_of[restaurant] = self._held
            self._held += 1
            self.rows.indptr[self._held] = end
        return True
