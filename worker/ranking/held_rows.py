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

NUMBER_BYTES = 4
ENTRY_BYTES = 2 * NUMBER_BYTES
_NOWHERE = -1


class HeldRows:
    """Full, it lets go of its rows but those that histories use most."""

    def __init__(
        self, folder: Path, graph: ItemGraph, *, often: NDArray[np.int64], max_bytes: int
    ) -> None:
        """graph: the one that lies in the folder. often: its rows, the most used first; of them
        half the room is held from the beginning."""
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
            self._parts.append((file, array.view(np.uint8).data))
        needed = np.cumsum(graph.indptr.take(often + 1) - graph.indptr.take(often))
        first = often[needed <= entries // 2].astype(np.int32)
        self._read(first)
        self._at_first = self._place_of.copy(), len(first)

    def places_of(self, restaurants: NDArray[np.int32]) -> NDArray[np.int32] | None:
        """Which of `rows` is each restaurant's, until the next call; None where they do not fit.

        restaurants: rows of the graph, shape (n,), repeats allowed. Returns shape (n,).
        """
        places = self._place_of.take(restaurants)
        missing = restaurants[places == _NOWHERE]
        if len(missing):
            if not self._read(missing):
                place_of, self._held = self._at_first
                self._place_of[:] = place_of
                if not self._read(restaurants[place_of.take(restaurants) == _NOWHERE]):
                    return None
            places = self._place_of.take(restaurants)
        return places

    def _read(self, restaurants: NDArray[np.int32]) -> bool:
        """Whether there was room for their rows; without it, nothing is read."""
        if not len(restaurants):
            return True
        wanted = np.array(list(set(restaurants.tolist())))
        begins = self._graph.indptr.take(wanted)
        sizes = self._graph.indptr.take(wanted + 1) - begins
        ends = self.rows.indptr[self._held] + sizes.cumsum()
        if ends[-1] > len(self.rows.indices):
            return False
        spans = [(NUMBER_BYTES * each).tolist() for each in (begins, sizes, ends - sizes, ends)]
        for file, room in self._parts:
            for begin, size, start, stop in zip(*spans, strict=True):
                room[start:stop] = os.pread(file, size, begin)
        first, self._held = self._held, self._held + len(wanted)
        self._place_of[wanted] = np.arange(first, self._held)
        self.rows.indptr[first + 1 : self._held + 1] = ends
        return True
