import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.ranking.blocks import cut_blocks


@given(st.lists(st.integers(0, 20)), st.integers(1, 6), st.integers(0, 30))
def test_blocks_cover_every_row_once_within_their_bounds(entries, max_rows, max_entries):
    blocks = list(
        cut_blocks(np.array(entries, np.int64), max_rows=max_rows, max_entries=max_entries)
    )
    assert [row for start, stop in blocks for row in range(start, stop)] == list(
        range(len(entries))
    )
    for start, stop in blocks:
        assert stop - start <= max_rows
        assert stop - start == 1 or sum(entries[start:stop]) <= max_entries


def test_blocks_are_as_large_as_the_bounds_allow():
    entries = np.array([2, 2, 2, 9, 1, 1], np.int64)
    assert list(cut_blocks(entries, max_rows=3, max_entries=4)) == [(0, 2), (2, 3), (3, 4), (4, 6)]
