import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.ranking.small import DAY, NOON, matrix_of, random_orders
from worker.ranking.matrix import (
    InteractionMatrix,
    MatrixBuilder,
    restaurant_degrees,
    transpose,
    user_degrees,
)

orders = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 400 * DAY)), max_size=40
)


def assert_same(one: InteractionMatrix, other: InteractionMatrix) -> None:
    for name in ("user_ids", "restaurant_ids", "indptr", "restaurants", "repeats", "newest_days"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes(), name


@given(orders)
def test_orders_of_a_pair_become_one_interaction(found):
    matrix = matrix_of(found, users=range(1, 7), restaurants=range(1, 7), half_life_days=30)
    newest = max((seconds for *_, seconds in found), default=0)
    pairs = defaultdict(list)
    for user, restaurant, seconds in found:
        pairs[user, restaurant].append(seconds)
    expected = sorted(pairs)
    users = np.repeat(matrix.user_ids, user_degrees(matrix))
    restaurants = matrix.restaurant_ids[matrix.restaurants]
    assert list(zip(users.tolist(), restaurants.tolist(), strict=True)) == expected
    assert matrix.repeats.tolist() == pytest.approx(
        [sum(2 ** (-(newest - s) / DAY / 30) for s in pairs[pair]) for pair in expected], rel=1e-5
    )
    assert matrix.newest_days.tolist() == [max(pairs[pair]) // DAY for pair in expected]
    assert matrix.as_of_seconds == newest
    assert matrix.orders == len(found)


def test_an_infinite_half_life_counts_orders():
    matrix = matrix_of([(1, 1, NOON)] * 3 + [(1, 2, 0)], half_life_days=math.inf)
    assert matrix.repeats.tolist() == [3, 1]


def test_neither_the_order_of_arrival_nor_the_blocks_change_anything():
    found = np.array(random_orders(users=50, restaurants=30, orders=2000, seed=1), np.int64)
    whole = matrix_of(found)
    builder = MatrixBuilder(user_ids=whole.user_ids, restaurant_ids=whole.restaurant_ids)
    shuffled = np.random.default_rng(2).permutation(found)
    for block in np.array_split(shuffled, 37):
        builder.add(user_ids=block[:, 0], restaurant_ids=block[:, 1], epoch_seconds=block[:, 2])
    assert_same(builder.build(), whole)


def test_orders_of_unknown_users_and_restaurants_are_skipped_and_counted():
    found = [(1, 10, NOON), (2, 10, NOON), (1, 11, NOON + 9), (0, 10, NOON), (9, 99, NOON)]
    matrix = matrix_of(found, users=[1, 3], restaurants=[10])
    assert (matrix.orders, matrix.skipped) == (1, 4)
    assert matrix.indptr.tolist() == [0, 1, 1]
    assert matrix.as_of_seconds == NOON


def test_the_largest_ids_have_rows():
    largest = 2**63 - 1
    matrix = matrix_of([(largest, largest, NOON), (1, largest, NOON)])
    assert matrix.user_ids.tolist() == [1, largest]
    assert user_degrees(matrix).tolist() == [1, 1]


def test_many_users_and_many_restaurants_keep_their_rows():
    random = np.random.default_rng(3)
    users, restaurants = np.arange(200_000) * 2, np.arange(1_100_000) + 5
    builder = MatrixBuilder(user_ids=users, restaurant_ids=restaurants)
    pairs = np.unique(
        random.integers(0, [len(users), len(restaurants)], (50_000, 2), dtype=np.int64), axis=0
    )
    pairs = np.concatenate([pairs, [[199_999, 1_099_999]]])
    builder.add(
        user_ids=users[pairs[:, 0]],
        restaurant_ids=restaurants[pairs[:, 1]],
        epoch_seconds=np.full(len(pairs), NOON),
    )
    matrix = builder.build()
    found = np.repeat(np.arange(len(users)), user_degrees(matrix))
    assert np.array_equal(np.column_stack([found, matrix.restaurants]), pairs)


def test_times_out_of_range_are_clipped():
    matrix = matrix_of([(1, 1, -5), (1, 2, 2**62)])
    assert matrix.newest_days.tolist() == [0, (2**32 - 1) // DAY]


def test_ages_count_from_the_time_given():
    found = [(1, 1, NOON - 90 * DAY), (1, 2, NOON + 9000 * DAY)]
    matrix = matrix_of(found, as_of_seconds=NOON)
    assert matrix.repeats.tolist() == pytest.approx([0.5, 1])


def test_a_pair_with_more_orders_than_a_slice_stays_one():
    many = 600_000
    builder = MatrixBuilder(user_ids=np.array([4, 5]), restaurant_ids=np.array([7, 8]))
    for user, restaurant, count in ((4, 7, 3), (4, 8, many), (5, 7, 2)):
        builder.add(
            user_ids=np.full(count, user),
            restaurant_ids=np.full(count, restaurant),
            epoch_seconds=NOON - np.arange(count),
        )
    matrix = builder.build(half_life_days=math.inf)
    assert matrix.repeats.tolist() == [3, many, 2]
    assert matrix.indptr.tolist() == [0, 2, 3]


@pytest.mark.parametrize(("users", "restaurants"), [([], []), ([1], []), ([], [1]), ([1], [1])])
def test_nothing_ordered_is_an_empty_matrix(users, restaurants):
    matrix = matrix_of([], users=users, restaurants=restaurants)
    assert len(matrix.restaurants) == 0
    assert matrix.indptr.tolist() == [0] * (len(users) + 1)
    assert transpose(matrix).indptr.tolist() == [0] * (len(restaurants) + 1)
    assert restaurant_degrees(matrix).tolist() == [0] * len(restaurants)


def test_the_transposed_matrix_holds_the_same_pairs():
    matrix = matrix_of(random_orders(users=40, restaurants=25, orders=500, seed=4))
    turned = transpose(matrix)
    users = np.repeat(np.arange(len(matrix.user_ids)), user_degrees(matrix))
    restaurants = np.repeat(np.arange(len(matrix.restaurant_ids)), np.diff(turned.indptr))
    pairs = sorted(zip(matrix.restaurants.tolist(), users.tolist(), strict=True))
    assert list(zip(restaurants.tolist(), turned.users.tolist(), strict=True)) == pairs
    assert restaurant_degrees(matrix).tolist() == np.diff(turned.indptr).tolist()
