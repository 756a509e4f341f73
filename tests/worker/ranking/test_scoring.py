import math

import numpy as np
import pytest
import scipy.sparse

from tests.worker.ranking.small import (
    DAY,
    NOON,
    dense_graph,
    dense_history,
    matrix_of,
    random_orders,
)
from worker.ranking.decay import decay
from worker.ranking.item_model import fit_item_graph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import (
    filter_rows,
    score_histories,
    score_users,
)


def lists_of(matrix: InteractionMatrix, *, k: int = 100, n: int = 10, **options):
    """(rows, scores) of all users; asserts that blocks join without a gap."""
    rows: list[list[int]] = []
    scores: list[list[float]] = []
    for block in score_users(matrix, fit_item_graph(matrix, k=k), n=n, **options):
        assert block.first_user == len(rows)
        for user, length in enumerate(block.lengths.tolist()):
            rows.append(block.rows[user, :length].tolist())
            scores.append(block.scores[user, :length].tolist())
            assert (block.rows[user, length:] == -1).all()
            assert (block.scores[user, length:] == 0).all()
    assert len(rows) == len(matrix.user_ids)
    return rows, scores


@pytest.fixture(scope="module")
def matrix() -> InteractionMatrix:
    orders = random_orders(users=80, restaurants=60, orders=900, seed=10)
    return matrix_of(orders, users=range(3, 600, 7))


@pytest.mark.parametrize("has_seen", [False, True])
@pytest.mark.parametrize("half_life_days", [30, 365, math.inf])
def test_scores_are_the_history_times_the_graph(matrix, half_life_days, has_seen):
    weights = np.zeros((len(matrix.user_ids), len(matrix.restaurant_ids)))
    for user in range(len(weights)):
        own = slice(matrix.indptr[user], matrix.indptr[user + 1])
        ages = matrix.as_of_day - matrix.newest_days[own].astype(int)
        weights[user, matrix.restaurants[own]] = 2.0 ** (-ages / half_life_days)
    expected = weights @ dense_graph(matrix)
    if not has_seen:
        expected[dense_history(matrix) > 0] = 0
    rows, scores = lists_of(matrix, n=15, half_life_days=half_life_days, has_seen=has_seen)
    for user, (found, values) in enumerate(zip(rows, scores, strict=True)):
        assert len(found) == min(15, np.count_nonzero(expected[user]))
        assert len(set(found)) == len(found)
        assert values == pytest.approx(expected[user, found].tolist(), rel=1e-5)
        best = np.sort(expected[user])[::-1][: len(found)]
        assert values == pytest.approx(best.tolist(), rel=1e-5)
        ranked = list(zip(values, found, strict=True))
        assert ranked == sorted(ranked, key=lambda pair: (-pair[0], pair[1]))


def test_histories_point_to_what_scipy_multiplies_them_to(matrix):
    filtered = filter_rows(fit_item_graph(matrix, k=20), has_seen=False)
    restaurants = len(matrix.restaurant_ids)
    scores_of = scipy.sparse.csr_array(
        (filtered.values, filtered.indices, filtered.indptr), shape=(restaurants, restaurants)
    )
    users = len(matrix.user_ids)
    for start, stop in ((0, users), (3, 4), (users, users)):
        entries = slice(matrix.indptr[start], matrix.indptr[stop])
        ages = matrix.as_of_day - matrix.newest_days[entries].astype(np.int64)
        histories = scipy.sparse.csr_array(
            (
                decay(ages, half_life_days=365.0),
                matrix.restaurants[entries],
                (matrix.indptr[start : stop + 1] - entries.start).astype(np.int32),
            ),
            shape=(stop - start, restaurants),
        )
        product = histories @ scores_of
        found = score_histories(matrix, start, stop, filtered)
        assert found.indptr.tolist() == product.indptr.tolist()
        assert found.indices.tobytes() == product.indices.tobytes()
        assert found.data.tobytes() == product.data.tobytes()


def test_what_a_user_ordered_is_not_discovered(matrix):
    rows, _ = lists_of(matrix, n=100)
    for user, found in enumerate(rows):
        own = matrix.restaurants[matrix.indptr[user] : matrix.indptr[user + 1]]
        assert not set(found) & set(own.tolist())
    assert sum(map(len, rows)) > 1000


@pytest.mark.parametrize(("user_block", "block_entries"), [(1, 1), (7, 500), (10_000, 10**9)])
def test_no_block_size_changes_a_list(matrix, user_block, block_entries):
    expected = lists_of(matrix, k=9)
    assert lists_of(matrix, k=9, user_block=user_block, block_entries=block_entries) == expected


def test_lists_go_with_their_user_whatever_its_id():
    orders = random_orders(users=250, restaurants=60, orders=3000, seed=11)
    new_ids = np.random.default_rng(12).permutation(10_000)
    one = matrix_of(orders)
    other = matrix_of([(int(new_ids[user]), restaurant, at) for user, restaurant, at in orders])
    before = dict(zip(new_ids[one.user_ids].tolist(), lists_of(one, k=10)[0], strict=True))
    after = dict(zip(other.user_ids.tolist(), lists_of(other, k=10)[0], strict=True))
    assert before == after


def test_two_towns_of_different_taste_do_not_mix():
    random = np.random.default_rng(13)
    orders = [
        (user, int(random.integers(0, 30)) + 100 * (user % 2), NOON - int(random.integers(0, DAY)))
        for user in range(100)
        for _ in range(8)
    ]
    matrix = matrix_of(orders)
    rows, _ = lists_of(matrix, n=5)
    for user, found in enumerate(rows):
        assert len(found) == 5
        town = matrix.restaurant_ids[found] // 100
        assert (town == matrix.user_ids[user] % 2).all()


def test_equal_scores_are_ordered_by_row():
    orders = [(1, restaurant, NOON) for restaurant in range(1, 8)] + [(2, 3, NOON)]
    rows, scores = lists_of(matrix_of(orders), n=4)
    assert rows[1] == [0, 1, 3, 4]
    assert len(set(scores[1])) == 1


def test_a_user_whose_orders_are_ages_old_still_discovers():
    recent = [(user, restaurant, NOON) for user in (2, 3) for restaurant in (1, 2, 3)]
    matrix = matrix_of([(1, 1, 0), *recent])
    rows, _ = lists_of(matrix, half_life_days=1)
    assert rows[0] == [1, 2]


@pytest.mark.parametrize(
    ("orders", "users", "restaurants"),
    [
        ([], [], []),
        ([], [1, 2], [1, 2, 3]),
        ([(1, 1, NOON)], [1], [1]),
        ([(user, 5, NOON) for user in range(50)], range(50), [4, 5]),
    ],
)
def test_nothing_to_discover_is_an_empty_list(orders, users, restaurants):
    rows, _ = lists_of(matrix_of(orders, users=users, restaurants=restaurants))
    assert rows == [[]] * len(users)
