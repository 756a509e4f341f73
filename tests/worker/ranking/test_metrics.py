import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.ranking import metrics


def ragged(targets: list[list[int]]):
    indptr = np.zeros(len(targets) + 1, np.int64)
    np.cumsum([len(row) for row in targets], out=indptr[1:])
    return indptr, np.array([row for one in targets for row in one], np.int32)


def figures(rankings: list[list[int]], targets: list[list[int]], *, n: int = 20):
    rows = np.full((len(rankings), n), -1, np.int32)
    for user, ranking in enumerate(rankings):
        rows[user, : len(ranking)] = ranking[:n]
    indptr, flat = ragged(targets)
    return metrics.figures_of(metrics.find_hits(rows, indptr, flat), np.diff(indptr))


def test_figures_of_a_ranking_worked_out_by_hand():
    # Targets 7 and 9 of three stand second and fourth.
    found = figures([[1, 7, 2, 9]], [[9, 7, 100]])[0]
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx([2 / 3, gained / ideal, 1, 1 / 2])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (1, [1, 1, 1, 1]),
        (10, [1, 1 / math.log2(11), 1, 0.1]),
        (11, [1, 1 / math.log2(12), 0, 1 / 11]),
        (20, [1, 1 / math.log2(21), 0, 1 / 20]),
        (21, [0, 0, 0, 0]),
    ],
)
def test_each_figure_looks_at_its_own_number_of_places(place, expected):
    ranking = [*range(100, 99 + place), 5]
    assert figures([ranking], [[5]], n=30)[0] == pytest.approx(expected)


def test_more_targets_than_places_can_still_be_ranked_perfectly():
    found = figures([list(range(20))], [list(range(30))])[0]
    assert found == pytest.approx([20 / 30, 1, 1, 1])


def test_what_stands_behind_the_end_of_a_ranking_hits_nothing():
    # -1 of the second user must not be taken for the largest row of the first.
    found = figures([[3], []], [[9], [0]])
    assert found.tolist() == [[0] * 4, [0] * 4]


def test_rankings_shorter_than_twenty_places():
    assert figures([[4, 5]], [[5]], n=2)[0] == pytest.approx([1, 1 / math.log2(3), 1, 0.5])
    assert figures([[]], [[5]], n=0)[0].tolist() == [0, 0, 0, 0]


@st.composite
def cases(draw):
    users = draw(st.integers(1, 8))
    restaurants = draw(st.integers(1, 40))
    row = st.integers(0, restaurants - 1)
    rankings = draw(
        st.lists(st.lists(row, unique=True, max_size=25), min_size=users, max_size=users)
    )
    targets = draw(st.lists(st.lists(row, unique=True, min_size=1), min_size=users, max_size=users))
    return rankings, targets


@settings(max_examples=30, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_users_do_not_touch_each_other(case, random):
    """Neither the order of users nor the block they stand in changes a bit of their figures."""
    rankings, targets = case
    together = figures(rankings, targets)
    order = list(range(len(rankings)))
    random.shuffle(order)
    shuffled = figures([rankings[u] for u in order], [targets[u] for u in order])
    assert np.array_equal(shuffled, together[order])
    alone = [figures([r], [t])[0] for r, t in zip(rankings, targets, strict=True)]
    assert np.array_equal(np.array(alone), together)


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_names_of_restaurants_do_not_matter(case, seed):
    rankings, targets = case
    renamed = np.random.default_rng(seed).permutation(40).tolist()
    again = figures(
        [[renamed[row] for row in ranking] for ranking in rankings],
        [[renamed[row] for row in target] for target in reversed(targets)][::-1],
    )
    assert np.array_equal(again, figures(rankings, targets))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_figures_agree_with_the_definition(case):
    rankings, targets = case
    for found, ranking, target in zip(figures(rankings, targets), *case, strict=True):
        hits = [row in target for row in ranking[:20]]
        ideal = sum(1 / math.log2(k + 2) for k in range(min(20, len(target))))
        assert found == pytest.approx(
            [
                sum(hits) / len(target),
                sum(hit / math.log2(k + 2) for k, hit in enumerate(hits)) / ideal,
                float(any(hits[:10])),
                max((hit / (k + 1) for k, hit in enumerate(hits)), default=0),
            ],
            rel=1e-5,
        )


def test_interval_of_a_share_is_the_binomial_one():
    hits = np.zeros((400, 1), np.float32)
    hits[:100] = 1
    (low, high) = metrics.intervals_of(hits, seed=1)[0]
    spread = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - spread, 0.25 + spread), abs=0.006)


def test_intervals_repeat_with_their_seed_only():
    values = np.random.default_rng(3).random((200, 4)).astype(np.float32)
    one = metrics.intervals_of(values, seed=1)
    assert np.array_equal(one, metrics.intervals_of(values, seed=1))
    assert not np.array_equal(one, metrics.intervals_of(values, seed=2))


def test_very_many_users_have_the_interval_of_the_normal_limit(monkeypatch):
    values = (np.random.default_rng(4).random((5000, 1)) < 0.3).astype(np.float32)
    drawn = metrics.intervals_of(values, seed=1)
    monkeypatch.setattr(metrics, "MAX_RESAMPLED_USERS", 100)
    assert metrics.intervals_of(values, seed=1) == pytest.approx(drawn, abs=0.002)


def test_of_nobody_everything_is_zero():
    nobody = np.zeros((0, 4), np.float32)
    assert metrics.means_of(nobody).tolist() == [0] * 4
    assert metrics.intervals_of(nobody, seed=1).tolist() == [[0, 0]] * 4


def test_exposure_worked_out_by_hand():
    # Restaurant 0, known to all four users, is shown three times; restaurant 1, known to one, once.
    found = metrics.exposure_of(
        np.array([3, 1, 0, 0]),
        degrees=np.array([4, 1, 2, 0]),
        users=4,
        is_candidate=np.array([True, True, True, False]),
    )
    assert found.coverage == pytest.approx(2 / 3)
    assert found.novelty == pytest.approx((3 * 0 + 2) / 4)
    assert found.mean_popularity == pytest.approx((3 * 4 + 1) / 4)


def test_nothing_shown_has_no_exposure():
    none = np.zeros(2, np.int64)
    found = metrics.exposure_of(none, degrees=none, users=0, is_candidate=np.zeros(2, np.bool_))
    assert (found.coverage, found.novelty, found.mean_popularity) == (0, 0, 0)
