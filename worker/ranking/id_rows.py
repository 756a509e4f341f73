"""Database keys -> rows (array positions), for columns of many keys at once.

Keys that count up without a gap are their own rows; keys with few gaps are looked up in a table
of four bytes for each key there could be; any others are searched.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SPREAD = 2
"""A table has at most this many places for each key."""


@dataclass(frozen=True, slots=True)
class IdRows:
    """`ids`: ascending without repeats, any 64-bit numbers, shape (rows,).

    `table`: row of `ids[0] + place`, -1 where there is none; None where it would be larger than
    MAX_SPREAD allows, empty where every place is its own row.
    """

    ids: NDArray[np.int64]
    table: NDArray[np.int32] | None


def index_ids(ids: NDArray[np.int64]) -> IdRows:
    if not len(ids):
        return IdRows(ids, None)
    places = int(ids[-1]) - int(ids[0]) + 1
    if places == len(ids):
        return IdRows(ids, np.empty(0, np.int32))
    if places > MAX_SPREAD * len(ids) or len(ids) > np.iinfo(np.int32).max:
        return IdRows(ids, None)
    table = np.full(places, -1, np.int32)
    table[ids - ids[0]] = np.arange(len(ids), dtype=np.int32)
    return IdRows(ids, table)


def rows_of(
    wanted: NDArray[np.int64], known: IdRows
) -> tuple[NDArray[np.int64] | NDArray[np.int32], NDArray[np.bool_]]:
    """Row of each wanted id, and whether it has one; without one the row means nothing."""
    ids, table = known.ids, known.table
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    if table is None:
        # A search in ascending order finds most of its way in the processor's cache.
        order = np.argsort(wanted)
        rows = np.empty(len(wanted), np.int64)
        rows[order] = np.searchsorted(ids, wanted[order])
        np.minimum(rows, len(ids) - 1, out=rows)
        return rows, ids[rows] == wanted
    # Differences wrap around: as unsigned numbers, those of ids below the first are too large.
    places = wanted - ids[0]
    if not len(table):
        return places, places.view(np.uint64) < np.uint64(len(ids))
    is_known = places.view(np.uint64) < np.uint64(len(table))
    found = table.take(places, mode="clip")
    return found, is_known & (found >= 0)
