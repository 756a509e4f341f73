import numpy as np
import pytest

from tests.worker.ranking.small import DAY, NOON, matrix_of, random_orders
from worker.ranking.activity import NEVER, WINDOW_DAYS, Activity
from worker.ranking.matrix import MatrixBuilder
from worker.ranking.popularity import (
    growth,
    popularity,
    rank,
    rank_by_city,
    rank_growing,
    rank_newest,
    split_by_city,
)


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


def activity_of(counts, *, first_days=60):
    """counts: (recent, previous) of each restaurant."""
    recent, previous = np.array(counts, np.int32).T
    first = np.full(len(counts), NOON - first_days * DAY, np.uint32)
    return Activity(recent, previous, first, NOON)


def test_growth_is_the_lower_bound_of_a_ratio_of_rates():
    counts = [(3, 1), (150, 100), (10, 2), (0, 0), (100, 100), (3, 0), (0, 900)]
    bounds = growth(activity_of(counts)).tolist()
    assert bounds == pytest.approx(
        [-0.758, 0.192, 0.277, -3.290, -0.232, -0.541, -9.823], abs=0.001
    )


def test_few_orders_that_triple_are_behind_many_that_grow_by_half():
    everyone = np.ones(4, np.bool_)
    scores = np.array([4, 250, 12, 200], np.float32)
    activity = activity_of([(3, 1), (150, 100), (10, 2), (100, 100)])
    assert rank_growing(activity, scores, is_candidate=everyone).tolist() == [2, 1]
    some = np.array([True, True, False, True])
    assert rank_growing(activity, scores, is_candidate=some).tolist() == [1]


def test_equal_growth_is_ranked_by_popularity_then_by_row():
    activity = activity_of([(20, 2)] * 3)
    scores = np.array([1, 2, 1], np.float32)
    ranked = rank_growing(activity, scores, is_candidate=np.ones(3, np.bool_))
    assert ranked.tolist() == [1, 0, 2]


@pytest.mark.parametrize(("days", "grows"), [(2 * WINDOW_DAYS - 1, False), (2 * WINDOW_DAYS, True)])
def test_nothing_grows_within_less_than_two_windows(days, grows):
    activity = activity_of([(100, 1)], first_days=days)
    ranked = rank_growing(activity, np.ones(1, np.float32), is_candidate=np.ones(1, np.bool_))
    assert len(ranked) == grows


def test_no_orders_have_no_growth():
    activity = Activity.none(2)
    everyone = np.ones(2, np.bool_)
    assert rank_growing(activity, np.zeros(2, np.float32), is_candidate=everyone).tolist() == []
    unknown = np.full(2, NEVER, np.int64)
    ranked = rank_newest(activity, unknown, np.zeros(2, np.float32), is_candidate=everyone)
    assert ranked.tolist() == [0, 1]


def test_the_builder_counts_two_windows_back_from_the_newest_order():
    edge = WINDOW_DAYS * DAY
    orders = [
        *((user, 10, NOON - user) for user in range(5)),
        *((1, 11, NOON - age) for age in (edge - 1, edge, 2 * edge - 1, 2 * edge, 9 * edge)),
    ]
    columns = np.array(orders, np.int64).T
    builder = MatrixBuilder(user_ids=np.arange(5), restaurant_ids=np.array([10, 11, 12]))
    builder.add(user_ids=columns[0], restaurant_ids=columns[1], epoch_seconds=columns[2])
    builder.build()
    activity = builder.activity
    assert activity.recent.tolist() == [5, 1, 0]
    assert activity.previous.tolist() == [0, 2, 0]
    assert activity.first_seconds.tolist() == [NOON - 4, NOON - 9 * edge, NEVER]


def test_the_newest_first_and_what_is_unknown_last():
    first = np.array([NOON - 9 * DAY, NEVER, NOON - DAY, NOON - 2 * DAY, NEVER], np.uint32)
    none = np.zeros(5, np.int32)
    activity = Activity(none, none, first, NOON)
    created = np.array([NOON + 1, NOON, NOON + 2, NOON - 5 * DAY, NOON + 60], np.int64)
    everyone = np.ones(5, np.bool_)
    scores = np.ones(5, np.float32)
    # The import began with row 3; the others came later, 4 at last.
    ranked = rank_newest(activity, created, scores, is_candidate=everyone)
    assert ranked.tolist() == [4, 1, 2, 3, 0]
    created[3] = NOON - 1
    # All but row 4 came at once: by the first order, and 1, which has none, at the end.
    ranked = rank_newest(activity, created, scores, is_candidate=everyone)
    assert ranked.tolist() == [4, 2, 3, 0, 1]


def test_restaurants_of_one_moment_are_ranked_by_popularity():
    first = np.full(3, NOON, np.uint32)
    activity = Activity(np.zeros(3, np.int32), np.zeros(3, np.int32), first, NOON)
    created = np.full(3, NOON + DAY, np.int64)
    scores = np.array([1, 5, 1], np.float32)
    ranked = rank_newest(activity, created, scores, is_candidate=np.ones(3, np.bool_))
    assert ranked.tolist() == [1, 0, 2]


def test_a_ranking_is_split_by_city_in_its_order():
    ranked = np.array([4, 1, 3, 0], np.int32)
    cities = np.array([2, 7, 2, 2, 0], np.uint16)
    parts = {code: rows.tolist() for code, rows in split_by_city(ranked, cities).items()}
    assert parts == {2: [3, 0], 7: [1]}
