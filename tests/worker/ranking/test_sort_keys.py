import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.ranking import sort_keys

scores = hnp.arrays(
    np.float32,
    st.integers(0, 40),
    elements=st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, 0.5, 1.0, -1.0]),
).map(lambda array: array + np.float32(0))


@given(scores, st.integers(0, 50))
def test_best_are_the_highest_scores_with_ties_by_row(values, n):
    rows = np.arange(len(values), dtype=np.int32) * 3
    best = sort_keys.best(sort_keys.pack(values, rows), n)
    expected = sorted(range(len(values)), key=lambda at: (-values[at], rows[at]))[:n]
    assert sort_keys.rows_of(best).tolist() == [rows[at] for at in expected]
    assert sort_keys.scores_of(best).tobytes() == values[expected].tobytes()
    assert sort_keys.is_positive(best).tolist() == [values[at] > 0 for at in expected]


def test_the_largest_row_survives_packing():
    rows = np.array([2**31 - 1, 0], np.int32)
    keys = sort_keys.pack(np.array([1.5, -np.inf], np.float32), rows)
    assert sort_keys.rows_of(keys).tolist() == rows.tolist()


def test_nothing_is_behind_every_score_above_zero():
    tiny = np.array([np.finfo(np.float32).tiny], np.float32)
    assert sort_keys.pack(tiny, np.array([2**31 - 1], np.int32))[0] < sort_keys.NOTHING
    nothing = np.array([sort_keys.NOTHING])
    assert sort_keys.rows_of(nothing).tolist() == [-1]
    assert sort_keys.scores_of(nothing).tolist() == [0]
    assert not sort_keys.is_positive(nothing)[0]


def test_grouped_keys_are_the_rankings_one_after_the_other():
    random = np.random.default_rng(8)
    groups = random.integers(0, 5, 400)
    scores = random.standard_normal(400).astype(np.float32)
    rows = random.permutation(1 << 24)[:400].astype(np.int32)
    keys = np.sort(sort_keys.pack_grouped(groups, scores, rows))
    starts = sort_keys.group_starts(keys, 6)
    for group in range(6):
        alone = np.sort(sort_keys.pack(scores[groups == group], rows[groups == group]))
        found = sort_keys.ungrouped(keys[starts[group] : starts[group + 1]])
        assert found.tolist() == alone.tolist()
