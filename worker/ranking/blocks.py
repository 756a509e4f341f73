"""Cuts a range of rows in blocks that hold to a bound of rows and a bound of scratch entries."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def cut_blocks(
    entries: NDArray[np.int64], *, max_rows: int, max_entries: int
) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) in order, covering every row once.

    entries: upper bound of the scratch entries each row needs, shape (rows,). A block has at most
    `max_rows` rows and `max_entries` entries; a row beyond that bound stands alone.
    """
    assert max_rows > 0 or not len(entries)
    ends = entries.cumsum()
    if 0 < len(ends) <= max_rows and ends[-1] <= max_entries:
        yield 0, len(ends)
        return
    start, used = 0, 0
    while start < len(ends):
        stop = int(np.searchsorted(ends, used + max_entries, side="right"))
        stop = min(max(stop, start + 1), start + max_rows, len(ends))
        yield start, stop
        start, used = stop, int(ends[stop - 1])
