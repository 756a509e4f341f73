import numpy as np
import pytest

from worker.ranking.id_rows import MAX_SPREAD, index_ids, rows_of

LOWEST, LARGEST = -(2**63), 2**63 - 1

KNOWN = {
    "nothing": [],
    "one": [7],
    "no gap": range(5, 300),
    "no gap, from below zero": range(-20, 20),
    "few gaps": [n for n in range(10, 400) if n % 3],
    "many gaps": [n**3 for n in range(-30, 30)],
    "the ends of 64 bits": [LOWEST, -1, 0, LARGEST],
    "no gap, up to the largest": range(LARGEST - 50, LARGEST + 1),
    "few gaps, from the lowest": [LOWEST + n for n in range(60) if n % 4],
}


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_ids_find_their_rows_and_others_none(known):
    ids = np.array(list(known), np.int64)
    near = [n + step for n in known for step in (-1, 1) if LOWEST <= n + step <= LARGEST]
    wanted = np.array([*known, *near, LOWEST, LARGEST, 0, 1, -1], np.int64)
    wanted = np.random.default_rng(1).permutation(wanted)
    rows, is_known = rows_of(wanted, index_ids(ids))
    expected = {number: row for row, number in enumerate(ids.tolist())}
    assert is_known.tolist() == [number in expected for number in wanted.tolist()]
    assert rows[is_known].tolist() == [expected[n] for n in wanted[is_known].tolist()]


def test_no_table_is_larger_than_allowed():
    for step in (1, 2, 3, 50, 2**40):
        ids = np.arange(1000, dtype=np.int64) * step
        table = index_ids(ids).table
        assert table is None or len(table) <= MAX_SPREAD * len(ids)
