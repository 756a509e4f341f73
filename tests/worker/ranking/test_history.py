import numpy as np

from tests.worker.ranking.small import DAY, NOON, matrix_of, random_orders
from worker.ranking.history import order_again


def again(matrix, **options) -> list[list[int]]:
    history = order_again(matrix, first_user=0, users=len(matrix.user_ids), **options)
    ids = matrix.restaurant_ids[history.rows]
    return [part.tolist() for part in np.split(ids, history.indptr[1:-1])]


def test_frequent_and_recent_restaurants_come_first():
    orders = [
        (1, 10, NOON),
        (1, 11, NOON - 90 * DAY),
        (1, 11, NOON - 90 * DAY),
        (1, 11, NOON - 90 * DAY),
        (1, 12, NOON - 360 * DAY),
        (1, 13, NOON - 30 * DAY),
        (2, 12, NOON),
    ]
    assert again(matrix_of(orders)) == [[11, 10, 13, 12], [12]]


def test_equal_repeats_are_ordered_by_newest_then_by_row():
    # Beyond sixty-four half-lives nothing is left to tell ages apart but the day itself.
    old = NOON - 64 * 90 * DAY
    orders = [
        (1, 10, old - 9 * DAY),
        (1, 11, old - 8 * DAY),
        (1, 13, old - 8 * DAY),
        (1, 12, old - 8 * DAY),
        (2, 10, NOON),
    ]
    assert again(matrix_of(orders))[0] == [11, 12, 13, 10]


def test_a_history_holds_each_restaurant_ordered_from_once():
    orders = random_orders(users=40, restaurants=30, orders=600, seed=14)
    matrix = matrix_of(orders)
    for user, found in zip(matrix.user_ids.tolist(), again(matrix), strict=True):
        assert sorted(found) == sorted({place for owner, place, _ in orders if owner == user})


def test_blocks_of_users_join_to_the_whole():
    matrix = matrix_of(random_orders(users=40, restaurants=30, orders=600, seed=15))
    parts = [
        order_again(matrix, first_user=start, users=min(7, len(matrix.user_ids) - start))
        for start in range(0, len(matrix.user_ids), 7)
    ]
    whole = order_again(matrix, first_user=0, users=len(matrix.user_ids))
    assert np.concatenate([part.rows for part in parts]).tolist() == whole.rows.tolist()


def test_only_candidates_are_ordered_again():
    matrix = matrix_of([(1, 10, NOON), (1, 11, NOON), (2, 10, NOON)], users=[1, 2, 3])
    assert again(matrix, is_candidate=np.array([False, True])) == [[11], [], []]
