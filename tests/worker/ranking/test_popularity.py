import numpy as np
import pytest

from tests.worker.ranking.small import DAY, NOON, matrix_of, random_orders
from worker.ranking.popularity import popularity, rank, rank_by_city


def test_an_order_counts_half_after_ninety_days():
    matrix = matrix_of(
        [(1, 10, NOON), (1, 11, NOON - 90 * DAY), (2, 11, NOON - 180 * DAY), (2, 11, NOON)]
    )
    assert popularity(matrix).tolist() == pytest.approx([1, 1.75])


def test_restaurants_are_ranked_best_first_with_ties_by_row():
    scores = np.array([1, 3, 0, 3, 2], np.float32)
    assert rank(scores).tolist() == [1, 3, 4, 0, 2]
    assert rank(scores, limit=2).tolist() == [1, 3]
    is_candidate = np.array([True, False, True, True, True])
    assert rank(scores, is_candidate=is_candidate).tolist() == [3, 4, 0, 2]


def test_a_city_ranks_its_own_restaurants():
    scores = np.array([1, 3, 0, 3, 2, 9], np.float32)
    cities = np.array([2, 7, 2, 7, 7, 0], np.uint16)
    assert {code: rows.tolist() for code, rows in rank_by_city(scores, cities).items()} == {
        2: [0, 2],
        7: [1, 3, 4],
    }
    is_candidate = np.array([False, False, False, True, True, True])
    ranked = rank_by_city(scores, cities, is_candidate=is_candidate, limit=1)
    assert {code: rows.tolist() for code, rows in ranked.items()} == {7: [3]}


def test_no_restaurants_are_an_empty_ranking():
    none = np.empty(0, np.float32)
    assert rank(none).tolist() == []
    assert rank_by_city(none, np.empty(0, np.uint16)) == {}


def test_restaurants_without_orders_come_last_by_id():
    matrix = matrix_of([(1, 30, NOON)], restaurants=[10, 20, 30, 40])
    assert matrix.restaurant_ids[rank(popularity(matrix))].tolist() == [30, 10, 20, 40]


def test_ids_of_users_change_no_rank():
    orders = random_orders(users=300, restaurants=40, orders=4000, seed=5)
    new_ids = np.random.default_rng(6).permutation(10_000)
    renamed = [(int(new_ids[user]), restaurant, at) for user, restaurant, at in orders]
    one, other = popularity(matrix_of(orders)), popularity(matrix_of(renamed))
    assert rank(one).tolist() == rank(other).tolist()
