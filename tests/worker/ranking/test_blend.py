import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.ranking.small import DAY, NOON, matrix_of, random_orders
from worker.ranking.blend import History, order_again, repeats_first
from worker.ranking.item_model import fit_item_graph
from worker.ranking.scoring import RankedBlock, score_users


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


def test_for_you_is_history_then_discoveries():
    history = History(
        first_user=4, indptr=np.array([0, 2, 2, 5]), rows=np.array([7, 3, 9, 8, 1], np.int32)
    )
    discoveries = RankedBlock(
        first_user=4,
        rows=np.array([[1, 2, 4], [5, 6, -1], [2, 3, 4]], np.int32),
        scores=np.zeros((3, 3), np.float32),
        lengths=np.array([3, 2, 3], np.int32),
    )
    rows, lengths = repeats_first(history, discoveries, n=4)
    assert rows.tolist() == [[7, 3, 1, 2], [5, 6, -1, -1], [9, 8, 1, 2]]
    assert lengths.tolist() == [4, 2, 4]


@pytest.mark.parametrize("n", [1, 5, 50])
@given(seed=st.integers(0, 2**16))
def test_for_you_never_holds_a_restaurant_twice(n, seed):
    matrix = matrix_of(random_orders(users=12, restaurants=20, orders=80, seed=seed))
    for block in score_users(matrix, fit_item_graph(matrix, k=30), n=n, user_block=5):
        history = order_again(matrix, first_user=block.first_user, users=len(block.lengths))
        rows, lengths = repeats_first(history, block, n=n)
        for user, length in enumerate(lengths.tolist()):
            own = history.rows[history.indptr[user] : history.indptr[user + 1]].tolist()
            new = block.rows[user, : block.lengths[user]].tolist()
            assert rows[user, :length].tolist() == (own + new)[:n]
            assert len(set((own + new)[:n])) == length
            assert (rows[user, length:] == -1).all()
